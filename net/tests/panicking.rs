//! What a fiber can still do with its sockets while it panics, and what is done outside of fibers.

mod common;

use std::io::{self, IoSlice, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, DatagramSocket, Stream};

use crate::common::run;

/// Calls `function` with a value as it is dropped by a panic.
fn with_panic<T: 'static>(value: T, function: impl FnOnce(&T) + 'static) -> io::Result<()> {
    struct Dropped<T, F: FnOnce(&T)>(T, Option<F>);
    impl<T, F: FnOnce(&T)> Drop for Dropped<T, F> {
        fn drop(&mut self) {
            if let Some(function) = self.1.take() {
                function(&self.0);
            }
        }
    }
    let panicked = fibers::spawn(move || {
        let _dropped = Dropped(value, Some(function));
        resume_unwind(Box::new("a panic that prints nothing"));
    })?;
    let result: Result<(), _> = panicked.join();
    assert!(result.is_err());
    Ok(())
}

/// A stream that has sent so much that its small messages are shared with those of others.
fn busy_pair() -> io::Result<(Stream, Stream)> {
    let (left, right) = Stream::pair()?;
    for _ in 0..20 {
        left.write(b"x")?;
        right.read(&mut [0])?;
        fibers::yield_now()?;
    }
    Ok((left, right))
}

#[test]
fn what_a_buffer_holds_is_written_when_a_panic_drops_it() {
    for (make_pair, stays_behind) in
        [(Stream::pair as fn() -> _, false), (busy_pair, false), (Stream::pair, true), (busy_pair, true)]
    {
        run(move || {
            let (left, right) = make_pair()?;
            left.set_write_behind(stays_behind);
            let writing = fibers::spawn(move || {
                let mut buffered = io::BufWriter::new(&left);
                buffered.write_all(b"in the buffer").unwrap();
                resume_unwind(Box::new("a panic that prints nothing"));
            })?;
            let result: Result<(), _> = writing.join();
            assert!(result.is_err());
            let mut text = [0; 20];
            assert_eq!(right.chunk(&mut text)?, 13);
            assert_eq!(&text[..13], b"in the buffer");
            Ok(())
        });
    }
}

#[test]
fn a_write_of_a_fiber_that_panics_does_not_wait() {
    run(|| {
        let (left, right) = Stream::pair()?;
        with_panic(left, |stream| {
            let error = stream.write(&vec![7; 32 << 20]).unwrap_err();
            assert_eq!(net::interrupt_of(&error), Some(fibers::Interrupt::Cancelled), "{error}");
        })?;
        let mut received = Vec::new();
        io::Read::read_to_end(&mut &right, &mut received)?;
        assert!(!received.is_empty() && received.iter().all(|&byte| byte == 7));
        Ok(())
    });
}

#[test]
fn a_datagram_of_a_fiber_that_panics_is_sent() {
    run(|| {
        let (left, right) = std::os::unix::net::UnixDatagram::pair()?;
        let (left, right) = (DatagramSocket::try_from(left)?, DatagramSocket::try_from(right)?);
        with_panic(left, |socket| assert_eq!(socket.write(b"bye").unwrap(), 3))?;
        assert_eq!(right.read(&mut [0; 9])?, 3);
        Ok(())
    });
}

/// A panic in a destructor during this panic would end the process.
#[test]
fn every_write_outside_of_a_fiber_panics_once() {
    let writes: [fn(&Stream); 4] = [
        |stream| drop(stream.write(b"text")),
        |stream| drop(stream.write_parts(&[IoSlice::new(b"text")])),
        |stream| drop(stream.write_zero_copy(b"text")),
        |stream| drop(stream.send_file(std::fs::File::open("/dev/null").unwrap(), 0..1)),
    ];
    let stream = Rc::new(fibers::run(|| Stream::pair().map(|(left, _)| left)).unwrap().unwrap());
    for write in writes {
        assert!(catch_unwind(AssertUnwindSafe(|| write(&stream))).is_err());
    }
    // And not at all where a panic is under way.
    for write in &writes {
        struct Dropped(Rc<Stream>, fn(&Stream));
        impl Drop for Dropped {
            fn drop(&mut self) {
                self.1(&self.0);
            }
        }
        let dropped = Dropped(stream.clone(), *write);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let _dropped = dropped;
            resume_unwind(Box::new("a panic that prints nothing"));
        }));
        assert!(ended.is_err());
    }
}

/// A write of its own to each way, by a fiber that panics, and what the peer has received.
#[test]
fn every_way_to_write_sends_what_there_is_room_for() {
    fn file() -> std::fs::File {
        std::fs::File::open("/etc/passwd").unwrap()
    }
    let writes: [fn(&Stream) -> io::Result<usize>; 6] = [
        |stream| stream.write_parts(&[IoSlice::new(b"root"), IoSlice::new(b":")]),
        |mut stream| stream.write_vectored(&[IoSlice::new(b"root"), IoSlice::new(b":")]),
        |stream| stream.write_zero_copy(b"root:"),
        |stream| stream.send_descriptors(b"root:", &[file().as_fd()]),
        |stream| Ok(stream.send_file(file(), 0..5)? as usize),
        |stream| Ok(stream.send_file_after(b"root", file(), 4..5)? as usize),
    ];
    for write in writes {
        for make_pair in [Stream::pair as fn() -> _, busy_pair] {
            run(move || {
                let (left, right) = make_pair()?;
                with_panic(left, move |stream| assert_eq!(write(stream).unwrap(), 5))?;
                let mut text = [0; 9];
                assert_eq!(right.chunk(&mut text)?, 5);
                assert_eq!(&text[..5], b"root:");
                Ok(())
            });
        }
    }
}

#[test]
fn parts_of_a_fiber_that_panics_do_not_wait_for_room() {
    run(|| {
        let (left, right) = Stream::pair()?;
        with_panic(left.clone(), |stream| {
            let parts = vec![7; 32 << 20];
            let error = stream.write_parts(&[IoSlice::new(&parts)]).unwrap_err();
            assert_eq!(net::interrupt_of(&error), Some(fibers::Interrupt::Cancelled), "{error}");
        })?;
        // It has left the queue of writers.
        let writing = fibers::spawn(move || left.write(b"the end"))?;
        let mut received = Vec::new();
        io::Read::read_to_end(&mut &right, &mut received)?;
        assert_eq!(writing.join()??, 7);
        assert!(received.ends_with(b"\x07the end"));
        Ok(())
    });
}
