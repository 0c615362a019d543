//! Pipes whose ends are held by fibers, or by other processes, which read and write without the loop: every byte
//! arrives once and in order, and the end after the last one.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Pipe};

use crate::context::{Context, Pace};
use crate::flow::Flow;

pub fn run(context: &Rc<Context>) {
    let mut flows = Vec::new();
    let mut ends = Vec::new();
    for number in 0..context.between(1, 5) as u64 {
        let (reader, writer) = match net::pipe() {
            Ok(pipe) => pipe,
            Err(error) => return context.check(context.is_ending(), || format!("no pipe: {error}")),
        };
        let flow = Rc::new(Flow::new(number));
        flows.push(flow.clone());
        let (sending, receiving) = (flow.clone(), flow);
        ends.push(context.spawn_victim("writer", move |context| send(context, &writer, &sending)));
        ends.push(context.spawn_victim("reader", move |context| receive(context, &reader, &receiving)));
    }
    let trouble = context.spawn_trouble();
    ends.iter().for_each(|end| context.join(end));
    trouble.cancel();
    context.join(&trouble);
    // The main fiber and this one.
    context.wait_for_all_but(2);
    flows.iter().filter(|_| !context.is_ending()).for_each(|flow| flow.settle(context));
}

fn send(context: &Rc<Context>, pipe: &Pipe, flow: &Flow) {
    let (total, is_other) = (context.amount(), context.chance(256));
    while flow.sent() < total && !context.is_ending() {
        let count = context.piece(total, flow.sent());
        let write = || {
            flow.write(
                context,
                |bytes| if is_other { write_from_outside(context, pipe, bytes) } else { pipe.write(bytes) },
                count,
            )
        };
        let written = match context.chance(256) && !is_other {
            true => fibers::with_deadline(context.duration() / 64, write),
            false => write(),
        };
        match written {
            Err(error) if !context.goes_on(&error) => return flow.fail(),
            _ => context.pause(total),
        }
    }
    if flow.sent() == total {
        flow.finish();
    }
    // The end comes with the close.
}

/// Another process, which knows nothing of the loop, writes all of the bytes.
fn write_from_outside(context: &Context, pipe: &Pipe, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() && !context.is_ending() {
        match context.simulation.write(pipe.as_fd().as_raw_fd(), &bytes[written..]) {
            Ok(count) => written += count,
            Err(error) => wait_outside(error)?,
        }
    }
    if written < bytes.len() { Err(ErrorKind::BrokenPipe.into()) } else { Ok(written) }
}

/// A while later, it tries again.
fn wait_outside(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock => drop(fibers::sleep(std::time::Duration::from_micros(700))),
        ErrorKind::Interrupted => {}
        _ => return Err(error),
    }
    Ok(())
}

fn receive(context: &Rc<Context>, pipe: &Pipe, flow: &Flow) {
    let (mut buffer, mut pace) = (context.read_buffer(600), Pace::default());
    let (is_other, leaves) = (context.chance(256), context.chance(64));
    while !context.is_ending() {
        let mut read = || match is_other {
            true => context.simulation.read(pipe.as_fd().as_raw_fd(), &mut buffer),
            false => pipe.read(&mut buffer),
        };
        let received = match context.chance(256) && !is_other {
            true => fibers::with_deadline(context.duration() / 64, read),
            false => read(),
        };
        match received {
            Ok(0) => return flow.end(),
            Ok(_) if leaves && context.chance(128) => return flow.fail(),
            Ok(count) => {
                flow.take(context, &buffer[..count]);
                pace.step(context);
            }
            Err(error) if net::interrupt_of(&error).is_some() => context.tally("interrupted reads", 1),
            Err(error) if is_other => {
                if wait_outside(error).is_err() {
                    return context.fail("a read of a pipe failed".into());
                }
            }
            Err(error) => return context.check(context.is_ending(), || format!("a read failed: {error}")),
        }
    }
}
