//! What a TLS stream does between two of our own ends: bytes, ends, timeouts, cancels, and what was negotiated.

use std::cell::RefCell;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt};
use ringspun_net as net;
use ringspun_tls::{self as tls, ClientAuth, ClientConfig, ServerConfig, TlsStream, Versions};

mod common;

use common::{Authority, pair, pattern, plain_pair, read_all, run, shake};

const VERSIONS: [Versions; 2] = [Versions::Tls12, Versions::Tls13];

/// One fiber reads while another writes, on both ends, records of every size.
#[test]
fn both_directions_flow_at_once_in_both_versions() {
    for version in VERSIONS {
        run(move || {
            let authority = Authority::new("authority");
            let server = ServerConfig::builder().identity(authority.identity(&["localhost"])).build()?;
            let client = ClientConfig::builder().roots(authority.roots()).versions(version).build()?;
            let (left, right) = pair(&client, &server)?;
            let (left, right) = (Rc::new(left), Rc::new(right));
            let mut fibers = Vec::new();
            for (stream, length) in [(left.clone(), 1_300_007), (right.clone(), 2_450_001)] {
                fibers.push(fibers::spawn(move || {
                    let data = pattern(length);
                    let mut rest = &data[..];
                    for size in (1..).map(|round: usize| round * round * 7) {
                        let (now, later) = rest.split_at(size.min(rest.len()));
                        assert_eq!(stream.write(now).unwrap(), now.len());
                        rest = later;
                        if rest.is_empty() {
                            break;
                        }
                    }
                    stream.shutdown(Shutdown::Write).unwrap();
                })?);
            }
            let reading = fibers::spawn(move || read_all(&right).unwrap())?;
            assert!(read_all(&left)? == pattern(2_450_001));
            assert!(reading.join().unwrap() == pattern(1_300_007));
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            Ok(())
        });
    }
}

/// What a read that does not wait gives, once it gives something: TCP may take its time.
fn once_there(stream: &TlsStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                fibers::sleep(Duration::from_millis(1))?
            }
            read => return read,
        }
    }
}

#[test]
fn a_read_that_does_not_wait_takes_what_is_there() {
    for version in VERSIONS {
        run(move || {
            let authority = Authority::new("authority");
            let (_, server) = authority.configs();
            let client = ClientConfig::builder().roots(authority.roots()).versions(version).build()?;
            let (left, right) = pair(&client, &server)?;
            let mut two = [0; 2];
            // With TLS 1.3, tickets have come, which are no bytes of the server's.
            assert_eq!(left.try_read(&mut two).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            right.write(b"abc")?;
            assert_eq!((once_there(&left, &mut two)?, &two), (2, b"ab"));
            assert_eq!(left.try_read(&mut [])?, 0);
            assert_eq!(left.try_read(&mut two)?, 1);
            assert_eq!(left.try_read(&mut two).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            right.close();
            assert_eq!(once_there(&left, &mut two)?, 0, "the end");
            Ok(())
        });
    }
}

#[test]
fn the_end_and_a_cut_are_told_apart() {
    for version in VERSIONS {
        run(move || {
            let authority = Authority::new("authority");
            let (_, server) = authority.configs();
            let client = ClientConfig::builder().roots(authority.roots()).versions(version).build()?;
            let (left, right) = pair(&client, &server)?;
            right.write(b"all")?;
            right.close();
            assert_eq!(read_all(&left)?, b"all");
            assert_eq!(left.read(&mut [0])?, 0, "the end stays the end");

            let (left, right) = pair(&client, &server)?;
            right.write(b"a part")?;
            // Without a close_notify.
            right.core().stream().close();
            let mut part = [0; 6];
            assert_eq!(left.chunk(&mut part)?, 6);
            for _ in 0..2 {
                let error = left.read(&mut part).unwrap_err();
                assert!(tls::is_cut(&error), "{error}");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                assert!(error.to_string().contains("without a close_notify"), "{error}");
            }
            Ok(())
        });
    }
}

#[test]
fn each_direction_ends_for_itself() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        left.write(b"a question")?;
        left.shutdown(Shutdown::Write)?;
        assert_eq!(left.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(read_all(&right)?, b"a question");
        right.write(&pattern(100_000))?;
        right.shutdown(Shutdown::Write)?;
        assert!(read_all(&left)? == pattern(100_000));
        Ok(())
    });
}

#[test]
fn a_closed_stream_says_so_to_all_who_wait() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        let left = Rc::new(left);
        let reader = left.clone();
        let reading = fibers::spawn(move || reader.read(&mut [0; 9]).unwrap_err())?;
        let writer = left.clone();
        let writing = fibers::spawn(move || {
            loop {
                if let Err(error) = writer.write(&[7; 300_000]) {
                    break error;
                }
            }
        })?;
        fibers::sleep(Duration::from_millis(20))?;
        left.close();
        assert!(net::is_closed(&reading.join().unwrap()));
        assert!(net::is_closed(&writing.join().unwrap()));
        assert!(net::is_closed(&left.read(&mut [0; 9]).unwrap_err()));
        drop(right);
        Ok(())
    });
}

#[test]
fn timeouts_and_cancels_of_reads_lose_nothing() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        left.set_read_timeout(Some(Duration::from_millis(1)));
        let error = left.read(&mut [0; 5]).unwrap_err();
        assert_eq!(net::interrupt_of(&error), Some(Interrupt::TimedOut), "{error}");
        right.write(b"hel")?;
        // A chunk that gets a part keeps it for the next.
        let error = left.chunk(&mut [0; 5]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        right.write(b"lo, world")?;
        left.set_read_timeout(None);
        let (left, mut greeting) = (Rc::new(left), [0; 5]);
        assert_eq!(left.chunk(&mut greeting)?, 5);
        assert_eq!(&greeting, b"hello");
        let reader = left.clone();
        let reading = fibers::spawn(move || {
            reader.chunk(&mut [0; 100]).unwrap_err();
        })?;
        fibers::sleep(Duration::from_millis(5))?;
        reading.cancel();
        reading.join().unwrap();
        let mut rest = [0; 7];
        assert_eq!(left.chunk(&mut rest)?, 7);
        assert_eq!(&rest, b", world");
        Ok(())
    });
}

/// The count that an interrupted write reports is exact: those bytes arrive, and no others do.
#[test]
fn an_interrupted_write_tells_what_is_on_its_way() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        left.set_write_timeout(Some(Duration::from_millis(20)));
        // Until the kernel's buffers are full.
        let mut sent = Vec::new();
        let data = pattern(1_000_003);
        let interrupted = loop {
            match left.write(&data) {
                Ok(count) => sent.extend_from_slice(&data[..count]),
                Err(error) => break error,
            }
        };
        assert_eq!(net::interrupt_of(&interrupted), Some(Interrupt::TimedOut), "{interrupted}");
        let written = std::error::Error::source(interrupted.get_ref().unwrap())
            .and_then(|source| source.downcast_ref::<io::Error>())
            .and_then(|source| source.get_ref()?.downcast_ref::<net::WriteInterrupted>())
            .unwrap()
            .written_bytes;
        sent.extend_from_slice(&data[..written]);
        // The stream can be used: more follows, in order.
        left.set_write_timeout(None);
        let reading = fibers::spawn(move || read_all(&right).unwrap())?;
        left.write(b"and on")?;
        left.close();
        sent.extend_from_slice(b"and on");
        assert!(reading.join().unwrap() == sent);
        Ok(())
    });
}

#[test]
fn what_was_written_arrives_before_the_close() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        left.set_write_behind(true);
        left.write(&pattern(3_000_000))?;
        left.write(b"the last")?;
        left.close();
        let mut expected = pattern(3_000_000);
        expected.extend_from_slice(b"the last");
        assert!(read_all(&right)? == expected);
        Ok(())
    });
}

#[test]
fn a_handshake_that_is_given_up_leaves_nothing() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = plain_pair()?;
        let error = fibers::with_deadline(Duration::from_millis(5), || tls::wrap(left, "localhost", &client));
        assert_eq!(net::interrupt_of(&error.unwrap_err()), Some(Interrupt::DeadlineExpired));
        // The server has the hello, and then the end.
        let error = tls::accept(right, &server).unwrap_err();
        assert!(tls::is_cut(&error) || net::errno_of(&error).is_some() || is_refusal(&error), "{error}");

        let (left, right) = plain_pair()?;
        let accepting = fibers::spawn(move || tls::accept(right, &server).unwrap_err())?;
        fibers::sleep(Duration::from_millis(5))?;
        accepting.cancel();
        assert_eq!(net::interrupt_of(&accepting.join().unwrap()), Some(Interrupt::Cancelled));
        drop(left);
        Ok(())
    });
}

fn is_refusal(error: &io::Error) -> bool {
    tls::tls_error_of(error).is_some_and(tls::TlsError::is_alert)
}

#[test]
fn a_slow_handshake_is_ended_by_its_timeout() {
    run(|| {
        let authority = Authority::new("authority");
        let server = ServerConfig::builder()
            .identity(authority.identity(&["localhost"]))
            .handshake_timeout(Some(Duration::from_millis(10)))
            .build()?;
        let (left, right) = plain_pair()?;
        let error = tls::accept(right, &server).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        assert!(error.to_string().starts_with("TLS handshake with 127.0.0.1:"), "{error}");
        drop(left);
        Ok(())
    });
}

#[test]
fn both_sides_know_what_was_negotiated() {
    run(|| {
        let authority = Authority::new("authority");
        let server = ServerConfig::builder()
            .identity(authority.identity(&["localhost"]))
            .client_auth(ClientAuth::Required, authority.roots())
            .alpn(["h2", "http/1.1"])
            .build()?;
        let client = ClientConfig::builder()
            .roots(authority.roots())
            .identity(authority.identity(&["somebody"]))
            .alpn(["http/1.1"])
            .build()?;
        let (left, right) = pair(&client, &server)?;
        for stream in [&left, &right] {
            assert_eq!(stream.alpn_protocol().as_deref(), Some(&b"http/1.1"[..]));
            assert_eq!(format!("{:?}", stream.version().unwrap()), "TLSv1_3");
            assert_eq!(stream.key_exchange().as_deref(), Some("X25519MLKEM768"));
            assert!(stream.cipher_suite().unwrap().starts_with("TLS13_"));
            assert_eq!(stream.peer_certificates().len(), 1);
        }
        assert_eq!(right.server_name().as_deref(), Some("localhost"));
        Ok(())
    });
}

#[test]
fn sessions_are_resumed_unless_that_is_off() {
    for version in VERSIONS {
        for resumes in [true, false] {
            run(move || {
                let authority = Authority::new("authority");
                let (_, server) = authority.configs();
                let client = ClientConfig::builder()
                    .roots(authority.roots())
                    .versions(version)
                    .resumption(resumes)
                    .build()?;
                for round in 0..3 {
                    let (left, right) = pair(&client, &server)?;
                    right.write(b"!")?;
                    left.read(&mut [0])?;
                    assert_eq!(left.is_resumed(), resumes && round > 0, "{version:?}, round {round}");
                    assert_eq!(right.is_resumed(), left.is_resumed());
                }
                Ok(())
            });
        }
    }
}

#[test]
fn a_server_chooses_its_certificate_by_name_and_renews_it() {
    run(|| {
        let authority = Authority::new("authority");
        let server = ServerConfig::builder()
            .identity(authority.identity(&["first.example"]))
            .identity(authority.identity(&["second.example", "*.wild.example"]))
            .build()?;
        let client = |name: &str| {
            ClientConfig::builder().roots(authority.roots()).server_name(name).resumption(false).build()
        };
        for name in ["first.example", "second.example", "any.wild.example"] {
            pair(&client(name)?, &server)?;
        }
        let (refused, _) = shake(&client("third.example")?, &server)?;
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("is for first.example, not for third.example"), "{text}");

        server.set_identities([authority.identity(&["third.example"])])?;
        pair(&client("third.example")?, &server)?;
        assert!(shake(&client("first.example")?, &server)?.0.is_err());
        let none = server.set_identities([]).unwrap_err();
        assert!(none.to_string().contains("needs a certificate"), "{none}");
        pair(&client("third.example")?, &server)?;
        Ok(())
    });
}

/// With bytes that were received together with the last plain line, or read too early by a parser.
#[test]
fn a_stream_that_was_used_before_becomes_tls() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = plain_pair()?;
        let serving = fibers::spawn(move || -> io::Result<Vec<u8>> {
            right.write(b"220 ready\r\n")?;
            // Reads all that there is, the hello of the client among it.
            let mut read = Vec::new();
            while !read.windows(2).any(|end| end == b"\r\n") {
                let mut buffer = [0; 4096];
                let count = right.read(&mut buffer)?;
                read.extend_from_slice(&buffer[..count]);
            }
            let end = read.windows(2).position(|end| end == b"\r\n").unwrap() + 2;
            assert_eq!(&read[..end], b"STARTTLS\r\n");
            right.put_back(&read[end..]);
            read_all(&tls::accept(right, &server)?)
        })?;
        let mut greeting = [0; 11];
        left.chunk(&mut greeting)?;
        // Together with the client's first record: nothing waits in between.
        left.write(b"STARTTLS\r\n")?;
        let stream = tls::wrap(left, "localhost", &client)?;
        stream.write(b"inside")?;
        stream.close();
        assert_eq!(serving.join().unwrap()?, b"inside");
        Ok(())
    });
}

#[test]
fn a_server_serves_many_at_once_and_survives_those_that_fail() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let served = Rc::new(RefCell::new(0));
        let count = served.clone();
        let listener = tls::server("127.0.0.1:0", &server, move |stream| {
            *count.borrow_mut() += 1;
            let mut buffer = [0; 100];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                stream.write(&buffer[..count]).unwrap();
            }
        })?;
        let address = listener.localname()?;
        let stranger = net::connect(address)?;
        stranger.write(b"GET / HTTP/1.1\r\n\r\n")?;
        let clients: Vec<_> = (0..40)
            .map(|number: u8| {
                let client = client.clone();
                fibers::spawn(move || -> io::Result<()> {
                    let stream = tls::wrap(net::connect(address)?, "localhost", &client)?;
                    let (mut stream, mut echo) = (&stream, [0; 50]);
                    for _ in 0..10 {
                        stream.write_all(&[number; 50])?;
                        stream.read_exact(&mut echo)?;
                        assert_eq!(echo, [number; 50]);
                    }
                    Ok(())
                })
            })
            .collect::<io::Result<_>>()?;
        for client in clients {
            client.join().unwrap()?;
        }
        assert_eq!(*served.borrow(), 40);
        // The stranger is told, by an alert.
        assert_eq!(stranger.receive()?.unwrap()[0], 21);
        listener.close();
        Ok(())
    });
}

/// Bytes that a cancelled read gives back go to one that waits already.
#[test]
fn what_a_cancelled_read_gives_back_wakes_the_next() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        let left = Rc::new(left);
        let (first, second) = (left.clone(), left.clone());
        let cancelled = fibers::spawn(move || first.chunk(&mut [0; 10]).unwrap_err())?;
        fibers::sleep(Duration::from_millis(1))?;
        right.write(b"abc")?;
        fibers::sleep(Duration::from_millis(20))?;
        let waiting = fibers::spawn(move || {
            let mut buffer = [0; 10];
            let count = second.read(&mut buffer).unwrap();
            buffer[..count].to_vec()
        })?;
        fibers::sleep(Duration::from_millis(1))?;
        cancelled.cancel();
        cancelled.join().unwrap();
        assert_eq!(waiting.join().unwrap(), b"abc");
        Ok(())
    });
}

/// As that of a plain stream: a write to a slow peer goes on as long as records go out, and keeps its place.
#[test]
fn a_write_timeout_is_for_writes_without_progress() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        let reading = fibers::spawn(move || -> io::Result<Vec<u8>> {
            let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
            loop {
                fibers::sleep(Duration::from_millis(100))?;
                match right.chunk(&mut buffer)? {
                    0 => return Ok(all),
                    count => all.extend_from_slice(&buffer[..count]),
                }
            }
        })?;
        left.set_write_timeout(Some(Duration::from_secs(1)));
        let left = Rc::new(left);
        let data = pattern(16 << 20);
        let began = fibers::now();
        let next = left.clone();
        let second = fibers::spawn(move || {
            fibers::sleep(Duration::from_millis(5)).unwrap();
            next.set_write_timeout(None);
            next.write(b"the next")
        })?;
        left.write(&data)?;
        assert!(fibers::now() - began > Duration::from_secs(1), "the peer was too fast for this test");
        second.join().unwrap()?;
        left.close();
        let all = reading.join().unwrap()?;
        assert!(all[..data.len()] == data && &all[data.len()..] == b"the next");
        Ok(())
    });
}

#[test]
fn what_a_buffer_holds_is_written_when_a_panic_drops_it() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        let writing = fibers::spawn(move || {
            let mut buffered = io::BufWriter::new(&left);
            buffered.write_all(b"in the buffer").unwrap();
            std::panic::resume_unwind(Box::new("a panic that prints nothing"));
        })?;
        let result: Result<(), _> = writing.join();
        assert!(result.is_err());
        assert_eq!(read_all(&right)?, b"in the buffer");
        Ok(())
    });
}
