//! Fibers that write, read and synchronize parts of files that belong to them, with deadlines and cancels at any time:
//! every byte is where it was written, and what a call says that it has done is what it has done.

use std::cell::RefCell;
use std::ffi::CString;
use std::io::{self, ErrorKind};
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_net as net;
use ringspun_net::fs::File;

use crate::context::Context;

/// The bytes of a file that belong to one fiber.
const PART_BYTES: usize = 4000;

/// A part of a file, and what its owner knows of it.
struct Part {
    path: String,
    start: u64,
    /// What has been written; holes are zero.
    bytes: RefCell<Vec<u8>>,
}

pub fn run(context: &Rc<Context>) {
    let parts: Vec<_> = (0..context.between(1, 6))
        .map(|number| {
            let path = format!("/simulated/{}", number % context.between(1, 3));
            let start = (number * PART_BYTES) as u64;
            Rc::new(Part { path, start, bytes: RefCell::default() })
        })
        .collect();
    let owners: Vec<_> = parts
        .iter()
        .map(|part| {
            let part = part.clone();
            context.spawn_victim("owner", move |context| part.work(context))
        })
        .collect();
    let trouble = context.spawn_trouble();
    owners.iter().for_each(|owner| context.join(owner));
    trouble.cancel();
    context.join(&trouble);
    // The main fiber and this one.
    context.wait_for_all_but(2);
    if !context.is_ending() {
        parts.iter().for_each(|part| part.settle(context));
    }
}

impl Part {
    fn work(&self, context: &Rc<Context>) {
        let mut file = None;
        for _ in 0..context.between(1, 60) {
            if context.is_ending() {
                return;
            }
            let act = || match &file {
                Some(file) => self.act(context, file).map(|()| None),
                None => self.open(context).map(Some),
            };
            let done = match context.chance(300) {
                true => fibers::with_deadline(context.duration() / 64, act),
                false => act(),
            };
            match done {
                Ok(Some(opened)) => file = Some(opened),
                Ok(None) if context.chance(64) => file = None,
                Ok(None) => {}
                Err(error) => self.failed(context, &error),
            }
            context.nap();
        }
    }

    /// Nothing has been done then.
    fn failed(&self, context: &Context, error: &io::Error) {
        match net::errno_of(error) {
            _ if net::interrupt_of(error).is_some() => context.tally("interrupted calls", 1),
            Some(libc::EIO | libc::ENOSPC | libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                context.tally("failed calls", 1);
            }
            _ if error.kind() == ErrorKind::Interrupted => context.tally("failed calls", 1),
            _ => context.check(context.is_ending(), || format!("a call on a file failed: {error}")),
        }
    }

    fn open(&self, context: &Context) -> io::Result<File> {
        if context.chance(256) {
            let exists = self.stored(context).is_some();
            let made = File::options().write(true).create_new(true).open(&self.path);
            match made {
                Ok(_) => context.check(!exists, || "a file was made twice".into()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let file = File::options().read(true).write(true).create(true).open(&self.path)?;
        context.tally("opens", 1);
        Ok(file)
    }

    fn act(&self, context: &Context, file: &File) -> io::Result<()> {
        let at = context.between(0, PART_BYTES - 1);
        let length = context.between(0, PART_BYTES - at);
        match context.below(8) {
            0..4 => {
                let salt = context.below(256) as u8;
                let mut data: Vec<u8> = (0..length).map(|at| (at as u8).wrapping_mul(31) ^ salt).collect();
                let written = file.write_at(&data, self.start + at as u64);
                let count = *written.as_ref().unwrap_or(&0);
                let mut bytes = self.bytes.borrow_mut();
                if count > 0 && bytes.len() < at + count {
                    bytes.resize(at + count, 0);
                }
                data.iter().take(count).zip(bytes.iter_mut().skip(at)).for_each(|(from, to)| *to = *from);
                // Whoever still reads them is to find others.
                data.fill(0x99);
                context.tally("bytes written", count as u64);
                written.map(drop)
            }
            4 => self.synchronize(context, file),
            _ => {
                let mut buffer = vec![0xEE; length];
                let count = match context.chance(512) {
                    true => file.chunk_at(&mut buffer, self.start + at as u64)?,
                    false => file.read_at(&mut buffer, self.start + at as u64)?,
                };
                // Other parts follow, or there is nothing.
                let mut expected = self.bytes.borrow().clone();
                expected.resize(PART_BYTES, 0);
                context.check(buffer[..count] == expected[at..at + count], || {
                    format!("{} bytes of {} at {at} are not those that were written", count, self.path)
                });
                context.tally("bytes read", count as u64);
                Ok(())
            }
        }
    }

    fn synchronize(&self, context: &Context, file: &File) -> io::Result<()> {
        if context.chance(512) {
            file.sync_all()?
        } else {
            file.sync_data()?
        }
        let stored = self.stored(context).unwrap_or_default();
        let own = stored.iter().skip(self.start as usize).take(PART_BYTES);
        let lost = own.filter(|(_, is_on_disk)| !is_on_disk).count();
        context.check(lost == 0, || format!("{lost} bytes are not on the disk after a synchronization"));
        context.tally("synchronizations", 1);
        Ok(())
    }

    fn stored(&self, context: &Context) -> Option<Vec<(u8, bool)>> {
        let path = CString::new(self.path.as_str()).expect("no zero byte");
        context.simulation.stored(&path)
    }

    fn settle(&self, context: &Context) {
        let stored = self.stored(context).unwrap_or_default();
        let own: Vec<u8> =
            stored.iter().skip(self.start as usize).take(PART_BYTES).map(|(byte, _)| *byte).collect();
        let expected = self.bytes.borrow();
        let is_kept = own.starts_with(&expected) && own[expected.len()..].iter().all(|byte| *byte == 0);
        context.check(is_kept, || format!("a part of {} is not what was written to it", self.path));
    }
}
