//! Timeouts of sockets and deadlines of the code around them: told apart, and with one meaning for every way to write.

use std::io::{self, ErrorKind, Write};
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net::{self as net, SocketOption, Stream, interrupt_of};

const SOON: Duration = Duration::from_millis(20);

fn pair() -> io::Result<(Stream, Stream)> {
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let client = net::connect(listener.localname()?)?;
    Ok((client, listener.accept()?))
}

fn run(test: impl FnOnce() -> io::Result<()> + 'static) {
    fibers::run(test).unwrap().unwrap();
}

#[test]
fn a_loop_over_read_timeouts_ends_at_the_deadline_around_it() {
    run(|| {
        let (client, _peer) = pair()?;
        client.set_read_timeout(Some(SOON));
        let ticks = fibers::spawn(|| while fibers::sleep(SOON).is_ok() {})?;
        let (rounds, error) = fibers::with_deadline(5 * SOON, || {
            let mut rounds = 0;
            loop {
                match client.read(&mut [0]) {
                    Err(error) if error.kind() == ErrorKind::TimedOut => {
                        assert_eq!(interrupt_of(&error), Some(Interrupt::TimedOut));
                        rounds += 1;
                    }
                    other => break (rounds, other.unwrap_err()),
                }
            }
        });
        assert_eq!(interrupt_of(&error), Some(Interrupt::DeadlineExpired), "{error}");
        assert!(rounds <= 5, "{rounds}");
        ticks.cancel();
        Ok(())
    });
}

#[test]
fn a_loop_that_no_deadline_stops_lets_others_run() {
    run(|| {
        let (client, _peer) = pair()?;
        client.set_write_timeout(Some(Duration::ZERO));
        let other = fibers::spawn(|| fibers::sleep(SOON))?;
        fibers::with_deadline(Duration::ZERO, || {
            while !other.is_finished() {
                assert!(client.read(&mut [0]).is_err());
                assert!(client.write(b"never").is_err());
            }
        });
        Ok(())
    });
}

/// Sends more than the kernel's buffers hold to a peer that takes some of it per timeout, and all of it in many.
fn write_to_a_slow_peer(write: fn(&Stream, &[u8]) -> io::Result<()>) {
    run(move || {
        const PIECE_BYTES: usize = 256 * 1024;
        let (client, peer) = pair()?;
        client.set_option(SocketOption::SendBufferBytes(64 * 1024))?;
        peer.set_option(SocketOption::ReceiveBufferBytes(64 * 1024))?;
        let data: Vec<u8> = (0..4usize << 20).map(|index| (index / 4096) as u8).collect();
        let expected = data.clone();
        let reader = fibers::spawn(move || -> io::Result<bool> {
            let mut got = vec![0; expected.len()];
            for piece in got.chunks_mut(PIECE_BYTES) {
                peer.chunk(piece)?;
                fibers::sleep(5 * SOON)?;
            }
            Ok(got == expected)
        })?;
        // Long enough for a busy machine, and much shorter than the whole.
        let patience = 50 * SOON;
        client.set_write_timeout(Some(patience));
        let began = fibers::now();
        write(&client, &data)?;
        assert!(fibers::now() - began > patience, "the peer was too fast for this test");
        assert!(reader.join()??);
        Ok(())
    });
}

#[test]
fn a_write_timeout_is_for_writes_without_progress_whatever_writes() {
    write_to_a_slow_peer(|stream, data| stream.write(data).map(drop));
    write_to_a_slow_peer(|mut stream, data| stream.write_all(data));
    write_to_a_slow_peer(|mut stream, data| io::copy(&mut &*data, &mut stream).map(drop));
    write_to_a_slow_peer(|stream, data| {
        let mut buffered = io::BufWriter::new(stream);
        buffered.write_all(data)?;
        buffered.flush()
    });
}

#[test]
fn without_progress_every_write_fails_with_its_count() {
    type WriteAll = fn(&Stream, &[u8]) -> io::Result<()>;
    let ways: [WriteAll; 2] =
        [|stream, data| stream.write(data).map(drop), |mut stream, data| stream.write_all(data)];
    for write in ways {
        run(move || {
            let (client, _peer) = pair()?;
            client.set_write_timeout(Some(SOON));
            let error = write(&client, &vec![0; 64 << 20]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert_eq!(interrupt_of(&error), Some(Interrupt::TimedOut));
            assert!(error.to_string().ends_with("of 67108864 bytes"), "{error}");
            Ok(())
        });
    }
}

#[test]
fn a_paused_write_keeps_its_place_before_the_next() {
    run(|| {
        let (client, peer) = pair()?;
        client.set_option(SocketOption::SendBufferBytes(64 * 1024))?;
        peer.set_option(SocketOption::ReceiveBufferBytes(64 * 1024))?;
        client.set_write_timeout(Some(SOON));
        let client = Rc::new(client);
        let writers: Vec<_> = (1..=2u8)
            .map(|id| {
                let client = client.clone();
                fibers::spawn(move || client.write(&vec![id; 2 << 20]).is_ok())
            })
            .collect::<io::Result<_>>()?;
        let reader = fibers::spawn(move || -> io::Result<(Vec<u8>, u64)> {
            let (mut runs, mut total, mut buffer) = (Vec::new(), 0, vec![0; 64 * 1024]);
            loop {
                let count = peer.read(&mut buffer)?;
                if count == 0 {
                    return Ok((runs, total));
                }
                total += count as u64;
                runs.extend_from_slice(&buffer[..count]);
                runs.dedup();
                fibers::sleep(Duration::from_millis(3))?;
            }
        })?;
        for writer in writers {
            // The second may have timed out behind the first.
            writer.join()?;
        }
        client.close();
        let (runs, _) = reader.join()??;
        assert!(runs == [1] || runs == [1, 2], "{runs:?}");
        Ok(())
    });
}

#[test]
fn a_flush_is_the_same_however_it_is_called_and_works_on_every_stream() {
    run(|| {
        let (tcp, _peer) = pair()?;
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair()?;
        let event_loop = fibers::event_loop().ok_or(ErrorKind::Unsupported)?;
        let unix = Stream::from_descriptor(event_loop, ours.into());
        for stream in [tcp, unix] {
            stream.flush()?;
            Write::flush(&mut &stream)?;
            stream.push()?;
            stream.close();
            assert!(net::is_closed(&stream.flush().unwrap_err()));
            assert!(net::is_closed(&Write::flush(&mut &stream).unwrap_err()));
        }
        Ok(())
    });
}

#[test]
fn with_a_timeout_of_zero_nothing_is_sent() {
    run(|| {
        let (left, right) = std::os::unix::net::UnixDatagram::pair()?;
        let (left, right) = (net::DatagramSocket::try_from(left)?, net::DatagramSocket::try_from(right)?);
        left.set_write_timeout(Some(Duration::ZERO));
        assert_eq!(left.write(b"never").unwrap_err().kind(), ErrorKind::TimedOut);
        left.set_write_timeout(None);
        left.write(b"sent")?;
        assert_eq!(&*right.receive()?.0, b"sent");
        // The same of all ways to write to a stream.
        let (left, right) = net::Stream::pair()?;
        left.set_write_timeout(Some(Duration::ZERO));
        let parts = [io::IoSlice::new(b"never")];
        let file = std::fs::File::open("/etc/passwd")?;
        for (way, kind) in [
            ("write", left.write(b"never").unwrap_err().kind()),
            ("write_parts", left.write_parts(&parts).unwrap_err().kind()),
            ("write_vectored", io::Write::write_vectored(&mut &left, &parts).unwrap_err().kind()),
            ("write_zero_copy", left.write_zero_copy(b"never").unwrap_err().kind()),
            ("send_file", io::Error::from(left.send_file(file, 0..4).unwrap_err()).kind()),
        ] {
            assert_eq!(kind, ErrorKind::TimedOut, "{way}");
        }
        drop(left);
        assert!(right.receive()?.is_none());
        Ok(())
    });
}
