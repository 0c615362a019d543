//! Writes that return before the kernel has their bytes: subsequent calls, and the reporting of errors.

mod common;

use std::cell::Cell;
use std::error::Error;
use std::io::{self, Read as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use ringspun_fibers as fibers;
use ringspun_net::{self as net, SocketOption, Stream, WriteInterrupted};

use crate::common::run;

/// A connection whose peer is on another thread of the test.
fn pair() -> io::Result<(Stream, TcpStream)> {
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let address = listener.localname()?.to_string();
    let accepting = fibers::spawn(move || listener.accept())?;
    let peer = fibers::blocking(move || TcpStream::connect(address)).unwrap()?;
    let stream = accepting.join()??;
    stream.set_option(SocketOption::NoDelay(true))?;
    stream.set_write_behind(true);
    Ok((stream, peer))
}

/// All that the peer reads until the end.
fn read_all(mut peer: TcpStream) -> io::Result<Vec<u8>> {
    let read = move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).map(|_| bytes)
    };
    fibers::blocking(read).unwrap()
}

/// Many equal bytes, with a different one at the end.
const fn with_last(byte: u8, last: u8) -> [u8; 300_000] {
    let mut bytes = [byte; 300_000];
    bytes[bytes.len() - 1] = last;
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

/// How much of an interrupted write the kernel took.
fn bytes_of_interrupted(error: &io::Error) -> usize {
    let mut source: &(dyn Error + 'static) = error.get_ref().expect("a write tells what ended it");
    while !source.is::<WriteInterrupted>() {
        let next = source.source().expect("an interrupt ended the write");
        source = match next.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => inner,
            None => next,
        };
    }
    source.downcast_ref::<WriteInterrupted>().map_or(0, |interrupted| interrupted.written_bytes)
}

/// Writes small pieces until the peer, which does not read, has no room, and, depending on the backend, one of them is
/// a detached send.
fn fill(stream: &Stream, piece: &[u8]) -> io::Result<usize> {
    stream.set_write_timeout(Some(Duration::from_millis(50)));
    let mut written = 0;
    loop {
        match stream.write(piece) {
            Ok(count) => written += count,
            Err(error) => {
                stream.set_write_timeout(None);
                return Ok(written + bytes_of_interrupted(&error));
            }
        }
    }
}

#[test]
fn what_is_written_before_a_close_arrives() {
    run(|| {
        for _ in 0..20 {
            let (stream, peer) = pair()?;
            stream.write(b"last words")?;
            stream.close();
            assert_eq!(read_all(peer)?, b"last words");
        }
        Ok(())
    });
}

#[test]
fn what_is_written_before_a_shutdown_arrives_before_the_end() {
    run(|| {
        for how in [Shutdown::Write, Shutdown::Both] {
            let (stream, peer) = pair()?;
            stream.write(b"last words")?;
            stream.shutdown(how)?;
            assert!(stream.write(b"more").and_then(|_| stream.flush()).is_err(), "after a shutdown");
            assert_eq!(read_all(peer)?, b"last words");
        }
        Ok(())
    });
}

#[test]
fn what_is_written_before_the_runtime_ends_arrives() {
    let peer = fibers::run(|| {
        let (stream, peer) = pair()?;
        stream.write(b"last words")?;
        io::Result::Ok(peer)
    });
    let mut bytes = Vec::new();
    peer.unwrap().unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"last words");
}

#[test]
fn small_and_large_writes_keep_their_order() {
    run(|| {
        let (stream, peer) = pair()?;
        let expected = pattern(3_000_000);
        let data = expected.clone();
        let writer = fibers::spawn(move || -> io::Result<()> {
            let (mut rest, mut length) = (&data[..], 1);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(length.min(rest.len()));
                assert_eq!(stream.write(piece)?, piece.len());
                (rest, length) = (after, length * 7 % 10_007);
            }
            stream.flush()
        })?;
        let got = read_all(peer)?;
        writer.join()??;
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
        Ok(())
    });
}

#[test]
fn a_small_write_comes_after_those_that_wait_already() {
    run(|| {
        let (stream, peer) = pair()?;
        setsockopt(&peer, sockopt::RcvBuf, &32_768).map_err(io::Error::from)?;
        stream.set_option(SocketOption::SendBufferBytes(32_768))?;
        let stream = Rc::new(stream);
        let write = |bytes: &'static [u8]| {
            let stream = stream.clone();
            fibers::spawn(move || {
                bytes.chunk_by(|a, b| a == b).try_for_each(|run| stream.write(run).map(drop))
            })
        };
        // The first writer makes its small write while the second is still queued.
        let first = write(const { &with_last(b'a', b'c') })?;
        let second = write(&[b'b'; 300_000])?;
        let reading = fibers::spawn(move || read_all(peer))?;
        first.join()??;
        second.join()??;
        drop(stream);
        let mut got = reading.join()??;
        got.dedup();
        assert_eq!(String::from_utf8_lossy(&got), "abc");
        Ok(())
    });
}

#[test]
fn a_close_loses_nothing_that_the_peer_has_no_room_for() {
    run(|| {
        let (stream, peer) = pair()?;
        setsockopt(&peer, sockopt::RcvBuf, &4096).map_err(io::Error::from)?;
        stream.set_option(SocketOption::SendBufferBytes(4096))?;
        let written = fill(&stream, &pattern(251))?;
        stream.close();
        assert_eq!(read_all(peer)?.len(), written);
        Ok(())
    });
}

#[test]
fn who_waits_for_what_is_left_behind_hears_of_a_close() {
    run(|| {
        let (stream, peer) = pair()?;
        let stream = Rc::new(stream);
        let written = fill(&stream, &pattern(251))?;
        let (flushed, is_done) = (stream.clone(), Rc::new(Cell::new(false)));
        let done = is_done.clone();
        let flushing = fibers::spawn(move || {
            let result = flushed.flush();
            done.set(true);
            result
        })?;
        fibers::yield_now().map_err(io::Error::from)?;
        let waited = !is_done.get();
        stream.close();
        let result = flushing.join()?;
        assert!(!waited || result.is_err_and(|error| net::is_closed(&error)));
        assert_eq!(read_all(peer)?.len(), written);
        Ok(())
    });
}

#[test]
fn a_shutdown_before_a_close_ends_the_connection_for_all_who_have_it() {
    run(|| {
        let (stream, peer) = pair()?;
        // SAFETY: open until the close below.
        let another = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned()?;
        let written = fill(&stream, &pattern(251))?;
        stream.shutdown(Shutdown::Write)?;
        stream.close();
        assert_eq!(read_all(peer)?.len(), written);
        drop(another);
        Ok(())
    });
}

#[test]
fn a_write_that_a_runtime_ends_is_not_taken_for_all() {
    let connection = fibers::run(|| {
        let (stream, peer) = pair()?;
        let written = fill(&stream, &pattern(251))?;
        io::Result::Ok((stream, peer, written))
    });
    let (stream, mut peer, written) = connection.unwrap().unwrap();
    drop(stream);
    let mut bytes = Vec::new();
    match peer.read_to_end(&mut bytes) {
        Ok(count) => assert_eq!(count, written),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn a_refusal_is_told_once_by_a_later_write_or_flush() {
    run(|| {
        let (stream, peer) = pair()?;
        setsockopt(&peer, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })
            .map_err(io::Error::from)?;
        drop(peer);
        assert_eq!(stream.receive().unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let refused = stream.write(b"to nobody").and_then(|_| stream.flush());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut stream = &stream;
        assert!(io::Write::flush(&mut stream).is_ok(), "nothing is left behind");
        Ok(())
    });
}
