//! Streams in the form that crates for futures take: every byte in order, whoever is slow, and nothing left of a task
//! that was dropped.

mod common;

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt, block_on};
use ringspun_net::{self as net, AsyncStream, SocketOption, Stream};

use common::run;

const SOON: Duration = Duration::from_millis(2);

fn tcp_pair() -> io::Result<(Stream, Stream)> {
    let listener = net::listen("127.0.0.1:0")?;
    let client = net::connect(listener.localname()?)?;
    Ok((client, listener.accept()?))
}

/// Bytes that tell where they stand.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

async fn write_all(stream: &mut AsyncStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let count = poll_fn(|context| stream.poll_write(context, data)).await?;
        assert!(count > 0);
        data = &data[count..];
    }
    Ok(())
}

async fn flush(stream: &mut AsyncStream) -> io::Result<()> {
    poll_fn(|context| stream.poll_flush(context)).await
}

async fn close(stream: &mut AsyncStream) -> io::Result<()> {
    poll_fn(|context| stream.poll_close(context)).await
}

async fn read(stream: &mut AsyncStream, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count =
        poll_fn(|context| stream.poll_read(context, limit, |part| bytes.extend_from_slice(part))).await?;
    assert_eq!(count, bytes.len());
    Ok(bytes)
}

async fn read_to_end(stream: &mut AsyncStream, limit: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        match read(stream, limit).await? {
            bytes if bytes.is_empty() => return Ok(all),
            bytes => all.extend(bytes),
        }
    }
}

#[test]
fn all_bytes_come_in_order_in_pieces_of_any_size() {
    for (piece, limit) in [(1, 1), (100, 7), (5_000, 100_000), (300_000, 4096), (3_000_000, 65_536)] {
        run(move || {
            for (client, server) in [tcp_pair()?, Stream::pair()?] {
                let total = (piece * 20).min(3_000_000);
                let sending = fibers::spawn(move || {
                    let mut stream = AsyncStream::new(client);
                    block_on(async {
                        for part in pattern(total).chunks(piece) {
                            write_all(&mut stream, part).await?;
                        }
                        close(&mut stream).await
                    })?
                })?;
                let mut stream = AsyncStream::new(server);
                let received = block_on(read_to_end(&mut stream, limit))??;
                assert!(received == pattern(total), "{} bytes of {total}", received.len());
                sending.join()??;
            }
            Ok(())
        });
    }
}

#[test]
fn an_echo_by_tasks_and_straight_code_on_the_same_stream() {
    run(|| {
        let (client, server) = tcp_pair()?;
        let echo = fibers::spawn(move || {
            let mut stream = AsyncStream::new(server);
            block_on(async {
                loop {
                    let bytes = read(&mut stream, 100).await?;
                    if bytes.is_empty() {
                        return io::Result::Ok(());
                    }
                    write_all(&mut stream, &bytes).await?;
                }
            })?
        })?;
        // A clone may be in straight code beside it.
        let mut asking = AsyncStream::new(client.clone());
        for round in 0..1000_u32 {
            let number = round.to_be_bytes();
            if round.is_multiple_of(2) {
                client.write(&number)?;
                assert_eq!(block_on(read(&mut asking, 4))??, number);
            } else {
                block_on(write_all(&mut asking, &number))??;
                let mut echoed = [0; 4];
                client.chunk(&mut echoed)?;
                assert_eq!(echoed, number);
            }
        }
        client.shutdown(Shutdown::Write)?;
        echo.join()??;
        Ok(())
    });
}

#[test]
fn a_peer_that_does_not_read_stops_the_writer_and_a_flush_waits_for_it() {
    run(|| {
        let (client, server) = Stream::pair()?;
        client.set_option(SocketOption::SendBufferBytes(4096))?;
        let mut stream = AsyncStream::new(client);
        let mut written = 0;
        let data = pattern(1 << 20);
        let stopped = fibers::with_deadline(SOON * 10, || {
            block_on(async {
                loop {
                    written += poll_fn(|context| stream.poll_write(context, &data[written..])).await?;
                }
                #[expect(unreachable_code, reason = "the type of the block")]
                io::Result::Ok(())
            })
        });
        assert!(matches!(stopped, Err(Interrupt::DeadlineExpired)));
        assert!((1..data.len()).contains(&written), "{written} bytes");
        assert!(fibers::with_deadline(SOON, || block_on(flush(&mut stream))).is_err());
        // What was taken comes, and nothing else.
        let reading = fibers::spawn(move || {
            let mut received = Vec::new();
            while let Some(bytes) = server.receive()? {
                received.extend_from_slice(&bytes);
            }
            io::Result::Ok(received)
        })?;
        block_on(flush(&mut stream))??;
        block_on(close(&mut stream))??;
        let received = reading.join()??;
        assert!(received == data[..written], "{} bytes of {written}", received.len());
        Ok(())
    });
}

#[test]
fn a_dropped_read_loses_no_byte_and_a_dropped_task_is_not_woken() {
    run(|| {
        for (client, server) in [tcp_pair()?, Stream::pair()?] {
            let mut stream = AsyncStream::new(server.clone());
            for round in 0..20 {
                let interrupted = fibers::with_deadline(SOON, || block_on(read(&mut stream, 100)));
                assert!(matches!(interrupted, Err(Interrupt::DeadlineExpired)), "{round}");
                client.write(b"late")?;
                assert_eq!(block_on(read(&mut stream, 100))??, b"late");
            }
            let waiting = fibers::spawn(move || block_on(read(&mut stream, 100)))?;
            fibers::yield_now()?;
            waiting.cancel();
            assert!(matches!(waiting.join()?, Err(Interrupt::Cancelled)));
            client.write(b"for another")?;
            assert_eq!(&*server.receive()?.unwrap(), b"for another");
        }
        Ok(())
    });
}

#[test]
fn writes_of_a_task_and_of_a_fiber_do_not_mix() {
    run(|| {
        let (client, server) = tcp_pair()?;
        client.set_option(SocketOption::SendBufferBytes(4096))?;
        let straight = client.clone();
        let fiber =
            fibers::spawn(move || (0..50).try_for_each(|_| straight.write(&[b'a'; 10_000]).map(drop)))?;
        let task = fibers::spawn(move || {
            let mut stream = AsyncStream::new(client);
            block_on(async {
                for _ in 0..50 {
                    write_all(&mut stream, &[b'b'; 10_000]).await?;
                }
                io::Result::Ok(())
            })?
        })?;
        let mut received = Vec::new();
        while let Some(bytes) = server.receive()? {
            received.extend_from_slice(&bytes);
            fibers::yield_now()?;
        }
        fiber.join()??;
        task.join()??;
        assert_eq!(received.len(), 1_000_000);
        // A write of the fiber is whole; one of the task may be several.
        let runs: Vec<_> = received.chunk_by(|one, other| one == other).collect();
        assert!(runs.iter().filter(|run| run[0] == b'a').all(|run| run.len().is_multiple_of(10_000)));
        Ok(())
    });
}

#[test]
fn a_write_that_was_copied_keeps_no_place_among_the_writers() {
    run(|| {
        let (client, server) = Stream::pair()?;
        let mut filled = 0;
        while let Ok(count) = client.try_write(&[b'a'; 4096]) {
            filled += count;
        }
        // Stays alive, and does nothing more.
        let mut idle = AsyncStream::new(client.clone());
        let count = block_on(poll_fn(|context| idle.poll_write(context, b"copied")))??;
        assert_eq!(count, 6);
        let reading = fibers::spawn(move || {
            let mut received = vec![0; filled + 6 + 5];
            server.chunk(&mut received).map(|_| received)
        })?;
        // Only a hang takes so long.
        fibers::timeout(Duration::from_secs(60), || client.write(b"after"))??;
        assert!(reading.join()??.ends_with(b"copiedafter"));
        drop(idle);
        Ok(())
    });
}

#[test]
fn errors_are_told_once_and_a_lost_peer_ends_everything() {
    run(|| {
        let (client, server) = tcp_pair()?;
        let mut stream = AsyncStream::new(client);
        drop(server);
        assert_eq!(block_on(read(&mut stream, 10))??, b"");
        let error = loop {
            if let Err(error) = block_on(async {
                write_all(&mut stream, &[0; 100]).await?;
                flush(&mut stream).await
            })? {
                break error;
            }
            fibers::yield_now()?;
        };
        let kind = error.kind();
        assert!(matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{error}");
        assert!(error.to_string().starts_with("write to "), "{error}");

        let (client, _server) = tcp_pair()?;
        let mut stream = AsyncStream::new(client.clone());
        let reading = fibers::spawn(move || block_on(read(&mut stream, 10)))?;
        fibers::yield_now()?;
        client.close();
        assert!(net::is_closed(&reading.join()??.unwrap_err()));
        Ok(())
    });
}

#[test]
fn the_end_of_the_runtime_ends_tasks_that_wait_for_streams() {
    let ended = fibers::run(|| -> io::Result<_> {
        let ((reading, idle), (writing, slow)) = (tcp_pair()?, tcp_pair()?);
        let (mut reader, mut writer) = (AsyncStream::new(reading), AsyncStream::new(writing));
        let results = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let (of_reader, of_writer) = (results.clone(), results.clone());
        fibers::spawn(move || {
            let read = block_on(read(&mut reader, 10));
            of_reader.borrow_mut().push(read.is_err());
        })?;
        fibers::spawn(move || {
            let written = block_on(async { while write_all(&mut writer, &[0; 1 << 20]).await.is_ok() {} });
            of_writer.borrow_mut().push(written.is_err());
        })?;
        let _ = fibers::sleep(SOON * 5);
        Ok((results, idle, slow))
    });
    let (results, ..) = ended.unwrap().unwrap();
    let results = results.take();
    assert_eq!(results, [true, true], "both were interrupted");
}
