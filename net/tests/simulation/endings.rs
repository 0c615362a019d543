//! A connection that is closed while its last writes are in flight, to a peer that reads slowly or not at all: it ends
//! in time, and the peer never mistakes a part of the bytes for all of them.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Stream};
use ringspun_runtime::simulation::Fault;

use crate::context::Context;
use crate::flow::Flow;

/// How long a closed stream may take to end, with a margin for delays.
const ENDING_MAX: Duration = Duration::from_secs(30);
const LATE_MAX: Duration = Duration::from_secs(5);
/// A write of up to so many bytes does not wait.
const SMALL_BYTES: usize = 4096;

/// The server's side of the connection.
struct Account {
    flow: Flow,
    closed_at: Cell<Option<Duration>>,
}

pub fn run(context: &Rc<Context>) {
    let account = Rc::new(Account { flow: Flow::new(1), closed_at: Cell::new(None) });
    let served = Rc::new(RefCell::new(Some(account.clone())));
    let serving = context.clone();
    let server = context.server(move |stream| {
        if let Some(account) = served.take() {
            serve(&serving, &account, stream);
        }
    });
    let Some((server, address)) = server else { return };
    let peer = net::connect(address);
    let patience = context.simulation.elapsed() + Duration::from_secs(60);
    let waits =
        || peer.is_ok() && account.closed_at.get().is_none() && context.simulation.elapsed() < patience;
    while waits() && fibers::sleep(Duration::from_millis(20)).is_ok() {}
    server.close();
    match (peer, account.closed_at.get()) {
        (Ok(peer), Some(closed_at)) => {
            read_slowly(context, &account.flow, &peer, closed_at);
            account.flow.settle(context);
        }
        _ => context.tally("connections that were not made", 1),
    }
}

/// Writes until the peer has room for no more, and closes the stream.
fn serve(context: &Context, account: &Account, stream: Stream) {
    stream.set_write_behind(true);
    stream.set_write_timeout(Some(Duration::from_millis(50)));
    let most = context.between(1, SMALL_BYTES);
    loop {
        match account.flow.write(context, |bytes| stream.write(bytes), context.between(1, most)) {
            Ok(()) if context.chance(1) => break,
            Ok(()) => {}
            Err(error) if net::interrupt_of(&error).is_some() => break,
            Err(_) => return account.closed_at.set(Some(context.simulation.elapsed())),
        }
    }
    account.flow.finish();
    stream.close();
    account.closed_at.set(Some(context.simulation.elapsed()));
}

/// Reads some bytes occasionally, until long after the connection must have ended, and then the rest.
fn read_slowly(context: &Context, flow: &Flow, peer: &Stream, closed_at: Duration) {
    let (pause, piece) = (Duration::from_millis(100) + context.duration() / 2, context.between(0, 4));
    let mut buffer = vec![0; 10_000];
    loop {
        if fibers::sleep(pause).is_err() {
            return flow.fail();
        }
        let is_late = context.simulation.elapsed() > closed_at + time_max(context);
        if is_late {
            let left =
                fibers::event_loop().map_or(0, |event_loop| event_loop.statistics().operations_in_flight);
            context.check(left == 0, || "a closed stream goes on after its time".to_string());
        }
        let most = if is_late { buffer.len() } else { piece };
        match receive(context, peer, &mut buffer[..most]) {
            Ok(0) if most > 0 => return flow.end(),
            Ok(count) => flow.take(context, &buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return flow.fail(),
        }
    }
}

/// A cancel that misses is repeated after the same time.
fn time_max(context: &Context) -> Duration {
    let missed = [Fault::CancelMissed, Fault::CancelTooLate].map(|fault| context.simulation.count_of(fault));
    ENDING_MAX * (1 + missed.iter().sum::<u64>() as u32) + LATE_MAX
}

/// Beside the loop, so that nothing is received ahead.
fn receive(context: &Context, peer: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
    context.simulation.receive(peer.as_raw_fd(), buffer)
}
