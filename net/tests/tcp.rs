//! TCP for fibers: results, errors and interrupts of each call.

mod common;

use std::cell::Cell;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net::{self as net, Closed, SocketOption, Stream, WriteInterrupted};
use ringspun_runtime::{BackendKind, Configuration};

use crate::common::run;

const AGES: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(20);

/// Both ends of a connection.
fn pair() -> io::Result<(Stream, Stream)> {
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let address = listener.localname()?;
    let accepting = fibers::spawn(move || listener.accept())?;
    let client = net::connect(address)?;
    Ok((client, accepting.join()??))
}

/// Bytes that identify their position in the stream.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[test]
fn both_ends_know_each_other() {
    run(|| {
        let (client, served) = pair()?;
        assert_eq!(client.localname()?, served.peername()?);
        assert_eq!(client.peername()?, served.localname()?);
        Ok(())
    });
}

#[test]
fn read_gives_what_is_there_and_chunk_waits_for_all() {
    run(|| {
        let (client, served) = pair()?;
        assert_eq!(client.write(b"one")?, 3);
        let mut buffer = [0; 8];
        assert_eq!(served.read(&mut buffer)?, 3);
        let writer = fibers::spawn(move || -> io::Result<()> {
            for byte in b"12345678" {
                client.write(&[*byte])?;
                fibers::sleep(Duration::from_millis(1))?;
            }
            client.write(b"ab")?;
            Ok(())
        })?;
        assert_eq!(served.chunk(&mut buffer)?, 8);
        assert_eq!(&buffer, b"12345678");
        assert_eq!(served.chunk(&mut buffer)?, 2, "the end of the stream cuts a chunk short");
        assert_eq!(served.read(&mut buffer)?, 0);
        assert_eq!(served.read(&mut buffer)?, 0, "the end of the stream stays");
        writer.join()??;
        Ok(())
    });
}

#[test]
fn ten_mebibytes_arrive_whole_and_in_order() {
    run(|| {
        let (client, served) = pair()?;
        let data = pattern(10 << 20);
        let expected = data.clone();
        let writer = fibers::spawn(move || client.write(&data))?;
        let mut got = Vec::new();
        while let Some(bytes) = served.receive()? {
            got.extend_from_slice(&bytes);
        }
        assert!(got == expected);
        assert_eq!(writer.join()??, 10 << 20);
        Ok(())
    });
}

#[test]
fn a_slow_reader_holds_the_writer_and_loses_nothing() {
    run(|| {
        let (client, served) = pair()?;
        // As they grow by themselves, some kernels take all of it.
        client.set_option(SocketOption::SendBufferBytes(64 * 1024))?;
        served.set_option(SocketOption::ReceiveBufferBytes(64 * 1024))?;
        let data = pattern(8 << 20);
        let expected = data.clone();
        let writer = fibers::spawn(move || client.write(&data))?;
        let mut first = [0; 1];
        served.chunk(&mut first)?;
        fibers::sleep(SOON)?;
        assert!(!writer.is_finished(), "nobody read, so the writer waits");
        let mut rest = vec![0; expected.len() - 1];
        assert_eq!(served.chunk(&mut rest)?, rest.len());
        assert!(first[0] == expected[0] && rest == expected[1..]);
        writer.join()??;
        Ok(())
    });
}

#[test]
fn many_holders_of_data_do_not_starve_the_others() {
    run(|| {
        // More streams with unread data than there are receive buffers.
        let mut silent = Vec::new();
        for _ in 0..300 {
            let (client, served) = pair()?;
            client.write(b"x")?;
            let held = served.receive()?;
            silent.push((client, served, held));
        }
        let (client, served) = pair()?;
        for _ in 0..100 {
            client.write(b"ping")?;
            let mut buffer = [0; 4];
            assert_eq!(served.chunk(&mut buffer)?, 4);
        }
        for (_, _, held) in silent {
            assert_eq!(&*held.unwrap(), b"x");
        }
        Ok(())
    });
}

#[test]
fn a_read_timeout_loses_no_byte() {
    run(|| {
        let (client, served) = pair()?;
        served.set_read_timeout(Some(Duration::from_millis(1)));
        let writer = fibers::spawn(move || -> io::Result<()> {
            for byte in pattern(200) {
                client.write(&[byte])?;
                fibers::sleep(Duration::from_millis(1))?;
            }
            Ok(())
        })?;
        let (mut got, mut timeouts) = (Vec::new(), 0);
        let mut buffer = [0; 7];
        loop {
            match served.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => got.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::TimedOut => timeouts += 1,
                Err(error) => return Err(error),
            }
        }
        assert_eq!(got, pattern(200));
        assert!(timeouts < 1_000_000);
        writer.join()??;
        Ok(())
    });
}

#[test]
fn a_read_gives_all_that_has_come_and_not_only_the_first_piece() {
    run(|| {
        let (client, served) = pair()?;
        let mut buffer = [0; 100];
        client.write(b"0")?;
        served.chunk(&mut buffer[..1])?;
        for piece in ["these ", "came ", "one by one"] {
            client.write(piece.as_bytes())?;
            fibers::sleep(Duration::from_millis(1))?;
        }
        assert_eq!(served.read(&mut buffer)?, 21);
        assert_eq!(&buffer[..21], b"these came one by one");
        Ok(())
    });
}

#[test]
fn a_chunk_that_times_out_half_way_loses_no_byte() {
    run(|| {
        let (client, served) = pair()?;
        client.write(b"first half, ")?;
        let mut buffer = [0; 23];
        let error = fibers::with_deadline(SOON, || served.chunk(&mut buffer)).unwrap_err();
        assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired));
        client.write(b"second half")?;
        assert_eq!(served.chunk(&mut buffer)?, 23);
        assert_eq!(&buffer, b"first half, second half");
        Ok(())
    });
}

#[test]
fn a_cancelled_write_says_how_much_was_written() {
    run(|| {
        let (client, served) = pair()?;
        let data = pattern(64 << 20);
        let expected = data.clone();
        let writer = fibers::spawn(move || {
            client.set_write_timeout(Some(SOON));
            let error = client.write(&data).unwrap_err();
            let mut source: &dyn std::error::Error = error.get_ref().unwrap();
            while !source.is::<WriteInterrupted>() {
                let next = source.source().unwrap();
                source = match next.downcast_ref::<io::Error>() {
                    Some(inner) => inner.get_ref().unwrap(),
                    None => next,
                };
            }
            *source.downcast_ref::<WriteInterrupted>().unwrap()
        })?;
        let interrupted = writer.join()?;
        assert_eq!(interrupted.interrupt, Interrupt::TimedOut);
        let mut got = Vec::new();
        while let Some(bytes) = served.receive()? {
            got.extend_from_slice(&bytes);
        }
        assert_eq!(got.len(), interrupted.written_bytes, "what was counted as written arrives");
        assert!(got == expected[..got.len()]);
        Ok(())
    });
}

#[test]
fn writes_of_several_fibers_do_not_mix() {
    run(|| {
        let (client, served) = pair()?;
        let client = Rc::new(client);
        let writers: Vec<_> = (0..4u8)
            .map(|id| {
                let client = client.clone();
                fibers::spawn(move || client.write(&vec![id; 1 << 20]))
            })
            .collect::<io::Result<_>>()?;
        let reader = fibers::spawn(move || -> io::Result<Vec<u8>> {
            let mut got = vec![0; 4 << 20];
            served.chunk(&mut got)?;
            Ok(got)
        })?;
        for writer in writers {
            writer.join()??;
        }
        let got = reader.join()??;
        for piece in got.chunks(1 << 20) {
            assert!(piece.iter().all(|&byte| byte == piece[0]));
        }
        Ok(())
    });
}

#[test]
fn closing_from_another_fiber_ends_every_wait() {
    run(|| {
        let (client, served) = pair()?;
        let (client, served) = (Rc::new(client), Rc::new(served));
        let reading = client.clone();
        let reader = fibers::spawn(move || reading.read(&mut [0; 4]).unwrap_err())?;
        let writing = client.clone();
        let writer = fibers::spawn(move || writing.write(&vec![0; 64 << 20]).unwrap_err())?;
        let listener = Rc::new(net::listen("127.0.0.1:0")?);
        let accepting = listener.clone();
        let acceptor = fibers::spawn(move || accepting.accept().unwrap_err())?;
        fibers::sleep(SOON)?;
        client.close();
        client.close();
        listener.close();
        for waiter in [reader, writer, acceptor] {
            let error = waiter.join()?;
            assert!(net::is_closed(&error), "{error}");
        }
        let error = client.read(&mut [0; 4]).unwrap_err();
        assert!(net::is_closed(&error) && error.to_string().contains(&Closed.to_string()), "{error}");
        // The peer sees the end, or a reset because of unread bytes.
        let mut sink = vec![0; 1 << 20];
        while served.read(&mut sink).is_ok_and(|count| count > 0) {}
        Ok(())
    });
}

#[test]
fn a_closed_port_is_free_at_once() {
    run(|| {
        let listener = Rc::new(net::listen("127.0.0.1:0")?);
        let address = listener.localname()?;
        let accepting = listener.clone();
        let acceptor = fibers::spawn(move || accepting.accept().is_err())?;
        fibers::yield_now()?;
        fibers::yield_now()?;
        listener.close();
        std::net::TcpListener::bind(address.as_socket_addr().unwrap())?;
        assert!(acceptor.join()?);
        Ok(())
    });
}

#[test]
fn half_close_lets_the_answer_through() {
    run(|| {
        let (client, served) = pair()?;
        client.write(b"question")?;
        client.shutdown(Shutdown::Write)?;
        let mut got = String::new();
        (&served).read_to_string(&mut got)?;
        assert_eq!(got, "question");
        (&served).write_all(b"answer")?;
        served.close();
        got.clear();
        (&client).read_to_string(&mut got)?;
        assert_eq!(got, "answer");
        Ok(())
    });
}

#[test]
fn errors_name_the_operation_and_the_address() {
    run(|| {
        let unused = net::listen("127.0.0.1:0")?;
        let address = unused.localname()?;
        unused.close();
        let refused = net::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let text = refused.to_string();
        assert!(text.starts_with(&format!("connect to {address}: ")), "{text}");

        let unknown = net::connect("no-such-host.invalid:80").unwrap_err().to_string();
        assert!(unknown.contains("no-such-host.invalid:80: could not get address info"), "{unknown}");

        let bad = net::listen("127.0.0.1").unwrap_err().to_string();
        assert!(bad.contains("\"127.0.0.1\": expected HOST:PORT"), "{bad}");

        let (client, served) = pair()?;
        let peer = client.peername()?;
        drop(served);
        let late = loop {
            match client.write(&[0; 1 << 16]) {
                Ok(_) => fibers::sleep(Duration::from_millis(1))?,
                Err(error) => break error,
            }
        };
        assert!(matches!(late.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{late}");
        assert!(late.to_string().starts_with("write to "), "{late}, peer {peer}");
        Ok(())
    });
}

#[test]
fn connecting_can_be_cancelled_and_times_out() {
    run(|| {
        // A listener with a full backlog ignores further connections.
        let full = std::net::TcpListener::bind("127.0.0.1:0")?;
        nix_backlog_zero(&full)?;
        let address = full.local_addr()?;
        // The first place; where the other is taken later, it is taken then.
        let _first = std::net::TcpStream::connect(address)?;
        let mut filling = Vec::new();
        let error = loop {
            match fibers::with_deadline(SOON, || net::connect(address)) {
                Ok(stream) => filling.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired));
        let connecting = fibers::spawn(move || net::connect(address))?;
        fibers::sleep(Duration::from_millis(1))?;
        connecting.cancel();
        let error = connecting.join()?.unwrap_err();
        assert!(error.to_string().contains("fiber cancelled"), "{error}");
        Ok(())
    });
}

fn nix_backlog_zero(listener: &std::net::TcpListener) -> io::Result<()> {
    use std::os::fd::AsFd;
    let backlog = nix::sys::socket::Backlog::new(0)?;
    Ok(nix::sys::socket::listen(&listener.as_fd(), backlog)?)
}

#[test]
fn the_end_of_main_ends_servers_and_clients() {
    let served = fibers::run(|| -> io::Result<()> {
        let server = net::server("127.0.0.1:0", |stream| {
            let mut buffer = [0; 64];
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        })?;
        for _ in 0..50 {
            let address = server.localname()?;
            fibers::spawn(move || {
                let stream = net::connect(address)?;
                stream.read(&mut [0; 1])
            })?;
        }
        fibers::sleep(SOON)?;
        Ok(())
    });
    served.unwrap().unwrap();
}

#[test]
fn a_server_serves_many_at_once() {
    run(|| {
        let server = net::server("127.0.0.1:0", |stream| {
            while let Ok(Some(bytes)) = stream.receive() {
                if stream.write(&bytes).is_err() {
                    return;
                }
            }
        })?;
        let address = server.localname()?;
        let clients: Vec<_> = (0..200usize)
            .map(|id| {
                fibers::spawn(move || -> io::Result<()> {
                    let stream = net::connect(address)?;
                    for round in 0..20 {
                        let message = pattern(id * 7 + round + 1);
                        stream.write(&message)?;
                        let mut answer = vec![0; message.len()];
                        stream.chunk(&mut answer)?;
                        assert!(answer == message);
                    }
                    Ok(())
                })
            })
            .collect::<io::Result<_>>()?;
        for client in clients {
            client.join()??;
        }
        server.close();
        Ok(())
    });
}

#[test]
fn a_deadline_holds_for_a_whole_exchange() {
    run(|| {
        let (client, _served) = pair()?;
        let error = fibers::with_deadline(SOON, || {
            client.write(b"hello")?;
            client.read(&mut [0; 8])
        })
        .unwrap_err();
        assert_eq!(net::interrupt_of(&error), Some(Interrupt::DeadlineExpired));
        fibers::with_deadline(AGES, || client.write(b"again"))?;
        Ok(())
    });
}

#[test]
fn a_stream_with_much_to_read_lets_the_others_run() {
    const PIECES: usize = 40;
    let piece_bytes = Configuration::default().receive_buffer_size_bytes;
    run_on_poll(move || {
        // All bytes arrive before the first receive.
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        setsockopt(&sender, sockopt::SndBuf, &(4 * PIECES * piece_bytes))?;
        let sent_bytes = (&sender).write(&vec![b'x'; PIECES * piece_bytes])?;
        let event_loop = fibers::event_loop().unwrap();
        let stream = Stream::from_descriptor(event_loop, receiver.into());

        let turns = Rc::new(Cell::new(0));
        let counted = turns.clone();
        fibers::spawn(move || {
            while fibers::yield_now().is_ok() {
                counted.set(counted.get() + 1);
            }
        })?;
        let (mut received_bytes, mut pieces) = (0, 0);
        while received_bytes < sent_bytes {
            received_bytes += stream.receive()?.unwrap().len();
            pieces += 1;
        }
        assert!(
            // The reader waits for a turn after every four pieces; in the first, the other fiber only starts.
            turns.get() >= pieces / 4 - 2,
            "{sent_bytes} bytes in {pieces} pieces and {} turns",
            turns.get()
        );
        Ok(())
    });
}

/// Runs `main` on the poll backend, where receives are direct system calls.
fn run_on_poll(main: impl FnOnce() -> io::Result<()> + 'static) {
    let configuration = Configuration { backend: Some(BackendKind::Poll), ..Configuration::default() };
    fibers::Runtime::new().configuration(configuration).run(main).unwrap().unwrap();
}

#[test]
fn a_stream_of_another_loop_fails_at_once_where_it_would_have_to_wait() {
    run(|| {
        let other = ringspun_runtime::EventLoop::new(&Configuration::default())?;
        let (ours, theirs) = UnixStream::pair()?;
        let (stream, peer) = (Stream::from_descriptor(other.clone(), ours.into()), theirs);
        peer.set_nonblocking(true)?;
        let is_refused = |error: io::Error| error.kind() == ErrorKind::Unsupported;
        assert!(stream.read(&mut [0; 8]).is_err_and(is_refused));
        assert!(stream.receive().is_err_and(is_refused));
        assert!(stream.write(&vec![0; 8 << 20]).is_err_and(is_refused));
        let listener = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let socket = net::DatagramSocket::from_descriptor(other, listener.into());
        assert!(socket.recv_from(&mut [0; 8]).is_err_and(is_refused));
        Ok(())
    });
}

/// The system lowers it to its own limit.
#[test]
fn a_backlog_may_be_larger_than_the_system_has() {
    run(|| {
        let listener = net::ListenBuilder::new().backlog(u32::MAX).listen("127.0.0.1:0")?;
        net::connect(listener.localname()?)?;
        listener.accept().map(drop)
    });
}

/// It is not closed: the error tells what it is.
#[test]
fn a_listener_that_is_no_socket_is_not_said_to_be_closed() {
    run(|| {
        let listener = net::Listener::try_from(OwnedFd::from(std::fs::File::open("/dev/null")?))?;
        let error = listener.accept().unwrap_err();
        assert_eq!(net::errno_of(&error), Some(libc::ENOTSOCK), "{error}");
        assert!(error.to_string().starts_with("accept on a listener: "), "{error}");
        listener.close();
        let error = listener.accept().unwrap_err().to_string();
        assert_eq!(error, "accept on a closed listener: stream is closed");
        Ok(())
    });
}
