//! What is sent by other calls than `send(2)`: parts, files, descriptors, copies between streams, and calls that do not
//! wait. At every end, it is known how much went, and nothing is lost.

mod common;

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net::{self as net, Stream, WriteInterrupted};

use common::run;

const SOON: Duration = Duration::from_millis(5);
/// Only a hang comes to it.
const AGES: Duration = Duration::from_secs(60);

fn tcp_pair() -> io::Result<(Stream, Stream)> {
    let listener = net::listen("127.0.0.1:0")?;
    let client = net::connect(listener.localname()?)?;
    Ok((client, listener.accept()?))
}

fn pairs() -> io::Result<[(Stream, Stream); 2]> {
    Ok([tcp_pair()?, Stream::pair()?])
}

/// Bytes whose place can be told.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A file without a name.
fn file_of(bytes: &[u8]) -> File {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("ringspun-transfers-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn read_to_end(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut &*stream).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn data_sent_without_a_copy_may_change_once_the_write_has_returned() {
    run(|| {
        for (client, server) in pairs()? {
            let reading = fibers::spawn(move || read_to_end(&server))?;
            let mut expected = Vec::new();
            let mut data = vec![0; 700_000];
            for round in 1..8 {
                // In the same memory.
                data.fill(round);
                let length = data.len() / usize::from(round);
                assert_eq!(client.write_zero_copy(&data[..length])?, length);
                data.fill(99);
                expected.extend(std::iter::repeat_n(round, length));
                client.write(b"between")?;
                expected.extend_from_slice(b"between");
            }
            assert_eq!(client.write_zero_copy(b"")?, 0);
            client.shutdown(Shutdown::Write)?;
            assert!(reading.join()?? == expected);
            drop(client);
        }
        Ok(())
    });
}

#[test]
fn a_write_without_a_copy_times_out_even_if_the_kernel_has_taken_some() {
    run(|| {
        for (client, _server) in pairs()? {
            client.set_write_timeout(Some(SOON));
            let late = client.write_zero_copy(&pattern(16 << 20)).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut, "{late}");
        }
        Ok(())
    });
}

#[test]
fn an_interrupted_write_without_a_copy_ends() {
    run(|| {
        for (client, server) in pairs()? {
            let data = pattern(16 << 20);
            let late = fibers::with_deadline(SOON, || client.write_zero_copy(&data)).unwrap_err();
            let interrupt = net::interrupt_of(&late);
            assert!(
                interrupt == Some(Interrupt::DeadlineExpired) || net::errno_of(&late).is_some(),
                "{late}"
            );
            drop(data);
            let waiting = client.clone();
            let waiting = fibers::spawn(move || waiting.write_zero_copy(&vec![7; 16 << 20]))?;
            fibers::yield_now()?;
            waiting.cancel();
            assert!(waiting.join()?.is_err());
            let closing = client.clone();
            let waiting = fibers::spawn(move || closing.write_zero_copy(&vec![7; 16 << 20]))?;
            fibers::yield_now()?;
            client.close();
            assert!(waiting.join()?.is_err());
            drop(server);
        }
        Ok(())
    });
    // And with the runtime.
    fibers::run(|| {
        let (client, server) = tcp_pair().unwrap();
        fibers::spawn(move || assert!(client.write_zero_copy(&vec![7; 16 << 20]).is_err())).unwrap();
        fibers::spawn(move || {
            let _ = fibers::sleep(Duration::from_secs(3600));
            drop(server);
        })
        .unwrap();
        fibers::sleep(SOON).unwrap();
    })
    .unwrap();
}

#[test]
fn parts_arrive_whole_and_in_order_between_other_writes() {
    run(|| {
        for (client, server) in pairs()? {
            let data = pattern(300_000);
            let reading = fibers::spawn(move || read_to_end(&server))?;
            let writing = [1, 2, 3].map(|_| {
                let (client, data) = (client.clone(), data.clone());
                fibers::spawn(move || {
                    let parts: Vec<_> = data.chunks(29_989).map(IoSlice::new).collect();
                    client.write_parts(&parts)
                })
            });
            client.write(&data)?;
            for writer in writing {
                assert_eq!(writer?.join()??, data.len());
            }
            client.shutdown(Shutdown::Write)?;
            assert_eq!(reading.join()??, [&data[..], &data, &data, &data].concat());
        }
        Ok(())
    });
}

#[test]
fn traits_for_parts_use_all_of_them() {
    run(|| {
        for (mut client, mut server) in pairs()? {
            let data = pattern(50_000);
            let parts = [&[][..], &data[..20_000], &data[20_000..]].map(IoSlice::new);
            let count = client.write_vectored(&parts)?;
            assert!(count > 20_000, "{count} bytes in one call");
            client.write_all(&data[count..])?;
            let (mut first, mut second, mut read) = ([0; 3], vec![0; 60_000], 0);
            server.peek(&mut [0])?;
            while read < data.len() {
                let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second[read..])];
                let count = server.read_vectored(&mut parts)?;
                // The first three bytes of each call are in the first part.
                assert!(count > 3 || read + count == data.len());
                let head = count.min(3);
                assert_eq!(first[..head], data[read..read + head]);
                assert_eq!(second[read..read + count - head], data[read + head..read + count]);
                read += count;
            }
            // Several pieces into several parts.
            server.put_back(b"cdefg");
            server.put_back(b"ab");
            let mut parts = [[0; 3]; 2];
            let mut empty = [[]; 1];
            let [one, other] = &mut parts;
            let mut slices = [&mut one[..], &mut empty[0], &mut other[..]].map(IoSliceMut::new);
            assert_eq!((server.read_vectored(&mut slices)?, parts), (6, [*b"abc", *b"def"]));
        }
        Ok(())
    });
}

fn written_of(error: &io::Error) -> usize {
    let failed = error.get_ref().unwrap().downcast_ref::<net::OperationError>().unwrap();
    failed.cause().get_ref().unwrap().downcast_ref::<WriteInterrupted>().unwrap().written_bytes
}

#[test]
fn an_interrupted_write_of_parts_says_how_much_went() {
    run(|| {
        for (client, server) in pairs()? {
            let data = pattern(16 << 20);
            let parts: Vec<_> = data.chunks(100_000).map(IoSlice::new).collect();
            let error = fibers::with_deadline(SOON, || client.write_parts(&parts)).unwrap_err();
            assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired));
            let written = written_of(&error);
            client.set_write_timeout(Some(SOON));
            let late = client.write_parts(&parts).unwrap_err();
            assert_eq!(late.kind(), ErrorKind::TimedOut);
            // The output is free for others.
            client.set_write_timeout(None);
            let reading = fibers::spawn(move || read_to_end(&server))?;
            fibers::with_deadline(AGES, || client.write(b"tail"))?;
            client.shutdown(Shutdown::Write)?;
            // The kernel may have made room for some of the second write.
            let expected = [&data[..written], &data[..written_of(&late)], b"tail"].concat();
            assert!(reading.join()?? == expected);
        }
        Ok(())
    });
}

#[test]
fn a_stream_that_is_closed_ends_whatever_waits_for_room() {
    run(|| {
        for (client, server) in pairs()? {
            let (writing, sending) = (client.clone(), client.clone());
            let writing = fibers::spawn(move || writing.write_parts(&[IoSlice::new(&vec![7; 32 << 20])]))?;
            let sending = fibers::spawn(move || {
                sending.send_file(file_of(&[7; 100_000]), 0..100_000).map_err(io::Error::from)
            })?;
            fibers::sleep(SOON)?;
            client.close();
            assert!(net::is_closed(&writing.join()?.unwrap_err()));
            assert!(net::is_closed(&sending.join()?.unwrap_err()));
            drop(server);
        }
        Ok(())
    });
}

#[test]
fn a_part_of_a_file_is_sent() {
    run(|| {
        for (client, server) in pairs()? {
            let data = pattern(3_000_001);
            let mut file = file_of(&data);
            file.seek(io::SeekFrom::Start(17))?;
            let reading = fibers::spawn(move || read_to_end(&server))?;
            client.write(b"head")?;
            assert_eq!(client.send_file(&file, 1..2_000_001)?, 2_000_000);
            // Past the end, and not at all.
            assert_eq!(client.send_file(&file, 2_999_999..u64::MAX)?, 2);
            assert_eq!(client.send_file(&file, 4_000_000..5_000_000)?, 0);
            #[expect(clippy::reversed_empty_ranges, reason = "nothing is between them")]
            let reversed = 7..3;
            assert_eq!(client.send_file(&file, reversed)?, 0);
            client.write(b"tail")?;
            client.shutdown(Shutdown::Write)?;
            let expected = [b"head", &data[1..2_000_001], &data[2_999_999..], b"tail"].concat();
            assert!(reading.join()?? == expected);
            assert_eq!(file.stream_position()?, 17);
        }
        Ok(())
    });
}

#[test]
fn bytes_go_before_a_file_and_are_counted() {
    run(|| {
        for (client, server) in pairs()? {
            let data = pattern(300_001);
            let (file, head) = (file_of(&data), pattern(1_000_003));
            let reading = fibers::spawn(move || read_to_end(&server))?;
            assert_eq!(client.send_file_after(b"small", &file, 1..100_001)?, 100_005);
            assert_eq!(client.send_file_after(&head, &file, 0..1 << 40)?, 1_300_004);
            // Of nothing, and of a file of which the kernel does not say what it has in memory.
            assert_eq!(client.send_file_after(b"alone", &file, 400_000..500_000)?, 5);
            assert_eq!(client.send_file_after(b"alone", &file, 0..0)?, 5);
            assert_eq!(client.send_file_after(b"", &file, 0..0)?, 0);
            assert_eq!(client.send_file_after(b"proc", File::open("/proc/self/status")?, 0..5)?, 9);
            client.shutdown(Shutdown::Write)?;
            let expected = [b"small", &data[1..100_001], &head, &data, b"alonealoneprocName:"].concat();
            assert!(reading.join()?? == expected);
        }
        Ok(())
    });
}

#[test]
fn an_interrupted_head_of_a_file_says_how_much_went() {
    run(|| {
        for (client, server) in pairs()? {
            let (file, head) = (file_of(&[7; 10]), pattern(16 << 20));
            let late =
                fibers::with_deadline(SOON, || client.send_file_after(&head, &file, 0..10)).unwrap_err();
            assert_eq!(net::interrupt_of(&late.error), Some(Interrupt::DeadlineExpired));
            client.shutdown(Shutdown::Write)?;
            assert!(read_to_end(&server)? == head[..late.transferred_bytes as usize]);
        }
        Ok(())
    });
}

#[test]
fn a_file_goes_to_a_blocking_socket_and_one_of_proc_goes_too() {
    run(|| {
        let (ours, theirs) = UnixStream::pair()?;
        let event_loop = fibers::event_loop().ok_or(ErrorKind::Unsupported)?;
        // Nobody has made it non-blocking.
        let stream = Stream::from_descriptor(event_loop, OwnedFd::from(ours));
        let data = pattern(2 << 20);
        let file = file_of(&data);
        let sending = fibers::spawn(move || {
            let sent = stream.send_file(&file, 0..1 << 40)?;
            // It has no size, and its pages cannot be sent as they are.
            let status = File::open("/proc/self/status")?;
            stream.send_file(&status, 0..5)?;
            io::Result::Ok(sent)
        })?;
        let reading = fibers::blocking(move || {
            let mut bytes = Vec::new();
            (&theirs).read_to_end(&mut bytes).map(|_| bytes)
        })??;
        assert!(reading == [&data[..], b"Name:"].concat());
        assert_eq!(sending.join()??, data.len() as u64);
        // A pipe has no offsets.
        let (reader, _writer) = io::pipe()?;
        let (client, _server) = Stream::pair()?;
        let refused = client.send_file(&reader, 0..10).unwrap_err();
        assert_eq!(net::errno_of(&refused.error), Some(libc::ESPIPE));
        Ok(())
    });
}

#[test]
fn an_interrupted_file_says_how_much_went() {
    run(|| {
        for (client, server) in pairs()? {
            let data = pattern(16 << 20);
            let file = file_of(&data);
            let late = fibers::with_deadline(SOON, || client.send_file(&file, 5..1 << 40)).unwrap_err();
            assert_eq!(net::interrupt_of(&late.error), Some(Interrupt::DeadlineExpired));
            let sending = client.clone();
            let start = 5 + late.transferred_bytes;
            let sending = fibers::spawn(move || sending.send_file(&file, start..1 << 40))?;
            fibers::yield_now()?;
            sending.cancel();
            let cancelled = sending.join()?.unwrap_err();
            assert_eq!(net::interrupt_of(&cancelled.error), Some(Interrupt::Cancelled));
            client.shutdown(Shutdown::Write)?;
            let end = start + cancelled.transferred_bytes;
            assert!(read_to_end(&server)? == data[5..end as usize]);
        }
        Ok(())
    });
}

#[test]
fn a_copy_ends_with_the_stream_and_an_interrupted_one_loses_nothing() {
    run(|| {
        for ((client, downstream), (upstream, server)) in
            [(tcp_pair()?, Stream::pair()?), (Stream::pair()?, tcp_pair()?)]
        {
            let data = pattern(8 << 20);
            let (sent, writer) = (data.clone(), client.clone());
            let writing = fibers::spawn(move || {
                writer.write(&sent)?;
                writer.shutdown(Shutdown::Write)
            })?;
            // Nobody reads, so that it gets stuck.
            let late = fibers::with_deadline(SOON, || downstream.copy_to(&upstream)).unwrap_err();
            assert_eq!(net::interrupt_of(&late.error), Some(Interrupt::DeadlineExpired));
            let reading = fibers::spawn(move || read_to_end(&server))?;
            let rest = downstream.copy_to(&upstream)?;
            upstream.shutdown(Shutdown::Write)?;
            assert_eq!(late.transferred_bytes + rest, data.len() as u64);
            assert!(reading.join()?? == data);
            writing.join()??;
        }
        Ok(())
    });
}

#[test]
fn calls_that_do_not_wait_say_so() {
    run(|| {
        for (client, server) in pairs()? {
            assert_eq!(client.try_read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            let data = pattern(16 << 20);
            let mut sent = 0;
            let full = loop {
                match client.try_write(&data[sent..]) {
                    Ok(count) => sent += count,
                    Err(error) => break error,
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
            // Behind a write that waits, too.
            let (waiting, rest) = (client.clone(), data[sent..].to_vec());
            let waiting = fibers::spawn(move || waiting.write(&rest))?;
            fibers::yield_now()?;
            let mut first = vec![0; sent];
            server.chunk(&mut first)?;
            assert!(first == data[..sent]);
            assert_eq!(client.try_write(b"x").unwrap_err().kind(), ErrorKind::WouldBlock);
            let mut second = vec![0; data.len() - sent];
            server.chunk(&mut second)?;
            waiting.join()??;
            assert!(second == data[sent..]);
            drop(server);
            // The peer is closed in a turn of the loop.
            while client.try_write(b"x").is_ok() {
                fibers::yield_now()?;
            }
            client.close();
            assert!(net::is_closed(&client.try_write(b"x").unwrap_err()));
        }
        Ok(())
    });
}

#[test]
fn descriptors_travel_with_bytes() {
    run(|| {
        let (one, other) = Stream::pair()?;
        let receiving = fibers::spawn(move || {
            let mut buffer = [0; 64];
            let first = other.receive_descriptors(&mut buffer)?;
            assert_eq!((&buffer[..first.length_bytes], first.is_truncated), (&b"two files"[..], false));
            let second = other.receive_descriptors(&mut buffer)?;
            assert_eq!((&buffer[..second.length_bytes], second.descriptors.len()), (&b"none"[..], 0));
            let end = other.receive_descriptors(&mut buffer)?;
            assert_eq!((end.length_bytes, end.descriptors.len()), (0, 0));
            io::Result::Ok(first.descriptors)
        })?;
        // It waits first.
        fibers::sleep(SOON)?;
        let files = [file_of(b"first"), file_of(b"second")];
        one.send_descriptors(b"two files", &files.each_ref().map(|file| file.as_fd()))?;
        fibers::sleep(SOON)?;
        one.write(b"none")?;
        drop((files, one));
        let received = receiving.join()??;
        let texts = received.into_iter().map(|descriptor| {
            // SAFETY: only reads flags.
            let flags = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
            let mut text = String::new();
            File::from(descriptor).read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(texts.collect::<io::Result<Vec<_>>>()?, ["first", "second"]);
        Ok(())
    });
}

#[test]
fn descriptors_that_nobody_receives_are_closed_and_limits_are_told() {
    run(|| {
        let (one, other) = Stream::pair()?;
        let file = file_of(b"x");
        // The kernel tells of its end once no copy of it is left, whatever other tests open meanwhile.
        let (mut watch, watched) = UnixStream::pair()?;
        watch.set_nonblocking(true)?;
        one.send_descriptors(b"abc", &[watched.as_fd(); 253])?;
        let received = other.receive_descriptors(&mut [0])?;
        assert_eq!((received.length_bytes, received.descriptors.len()), (1, 253));
        drop(watched);
        assert_eq!(watch.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(received);
        assert_eq!(watch.read(&mut [0])?, 0);
        // What follows the first byte comes alone.
        assert_eq!(other.receive_descriptors(&mut [0; 8])?.descriptors.len(), 0);
        let many = one.send_descriptors(b"x", &[file.as_fd(); 254]).unwrap_err();
        assert!(many.to_string().contains("254 descriptors"), "{many}");
        assert_eq!(one.send_descriptors(b"", &[file.as_fd()]).unwrap_err().kind(), ErrorKind::InvalidInput);
        // An interrupted wait loses none.
        let late = fibers::with_deadline(SOON, || other.receive_descriptors(&mut [0])).unwrap_err();
        assert_eq!(net::interrupt_of(&late), Some(Interrupt::DeadlineExpired));
        other.set_read_timeout(Some(SOON));
        assert_eq!(other.receive_descriptors(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        one.send_descriptors(b"y", &[file.as_fd()])?;
        assert_eq!(other.receive_descriptors(&mut [0; 8])?.descriptors.len(), 1);
        let (client, _server) = tcp_pair()?;
        assert!(client.send_descriptors(b"x", &[file.as_fd()]).is_err());
        Ok(())
    });
}

#[test]
fn descriptors_wait_for_room_and_travel_once() {
    run(|| {
        let (one, other) = Stream::pair()?;
        let data = pattern(4 << 20);
        let (sending, sent, file) = (one.clone(), data.clone(), file_of(b"x"));
        let sending = fibers::spawn(move || {
            sending.write(&sent)?;
            sending.send_descriptors(&sent, &[file.as_fd()])?;
            sending.shutdown(Shutdown::Write)
        })?;
        let (mut bytes, mut descriptors, mut buffer) = (Vec::new(), 0, vec![0; 65_536]);
        loop {
            let received = other.receive_descriptors(&mut buffer)?;
            if received.length_bytes == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..received.length_bytes]);
            if !received.descriptors.is_empty() {
                assert!(bytes.len() > data.len() && bytes.len() <= data.len() + buffer.len());
            }
            descriptors += received.descriptors.len();
        }
        sending.join()??;
        assert_eq!(descriptors, 1);
        assert!(bytes == [&data[..], &data].concat());
        Ok(())
    });
}

#[test]
fn a_peer_is_known_by_its_credentials() {
    run(|| {
        let (one, other) = Stream::pair()?;
        // SAFETY: touch no memory.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        for stream in [one, other] {
            let peer = stream.peer_credentials()?;
            assert_eq!((peer.user_id, peer.group_id), (user, group));
            assert_eq!(peer.process_id, Some(std::process::id() as i32));
        }
        let (client, _server) = tcp_pair()?;
        assert!(client.peer_credentials().is_err());
        client.close();
        assert!(net::is_closed(&client.peer_credentials().unwrap_err()));
        Ok(())
    });
}
