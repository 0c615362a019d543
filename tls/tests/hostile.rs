//! Peers that cut, send garbage, stop halfway, or send in the smallest pieces.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Stream};
use ringspun_tls::{self as tls, ClientConfig, ServerConfig, TlsStream, Versions};

mod common;

use common::{Authority, pair, plain_pair, read_all, run};

/// Passes on up to `limit` bytes, and then ends both streams. Returns how many came.
fn forward(from: &Stream, to: &Stream, limit: usize) -> usize {
    let mut passed = 0;
    while passed < limit {
        let Ok(Some(bytes)) = from.receive() else { break };
        let count = bytes.len().min(limit - passed);
        passed += count;
        if to.write(&bytes[..count]).is_err() {
            break;
        }
    }
    if passed == limit {
        from.close();
        to.close();
    } else {
        let _ = to.shutdown(Shutdown::Write);
    }
    passed
}

/// The results of both sides of a handshake and a message each way, through a proxy that cuts, and what it passed on.
struct Cut {
    client: io::Result<()>,
    server: io::Result<()>,
    up: usize,
    down: usize,
}

fn through_proxy(client: &ClientConfig, server: &ServerConfig, up: usize, down: usize) -> io::Result<Cut> {
    let (left, near) = plain_pair()?;
    let (far, right) = plain_pair()?;
    let server = server.clone();
    let serving = fibers::spawn(move || -> io::Result<()> {
        let stream = tls::accept(right, &server)?;
        let question = read_all(&stream)?;
        assert_eq!(question, b"question", "a part of a message came as all of it");
        stream.write(b"answer")?;
        stream.close();
        Ok(())
    })?;
    let (near, far) = (Rc::new(near), Rc::new(far));
    let (from, to) = (near.clone(), far.clone());
    let upward = fibers::spawn(move || forward(&from, &to, up))?;
    let downward = fibers::spawn(move || forward(&far, &near, down))?;
    let ask = |left| {
        let stream = tls::wrap(left, "localhost", client)?;
        stream.write(b"question")?;
        stream.shutdown(Shutdown::Write)?;
        let answer = read_all(&stream)?;
        assert_eq!(answer, b"answer", "a part of a message came as all of it");
        Ok(())
    };
    let client = ask(left);
    Ok(Cut {
        client,
        server: serving.join().unwrap(),
        up: upward.join().unwrap(),
        down: downward.join().unwrap(),
    })
}

/// A connection that is cut at any byte, in either direction, fails on both sides: nobody takes a part for the whole.
#[test]
fn a_cut_at_any_byte_is_an_error() {
    // Every byte in TLS 1.3; in TLS 1.2, whose records are much alike, every fifth.
    for (version, step) in [(Versions::Tls13, 1), (Versions::Tls12, 5)] {
        run(move || {
            let authority = Authority::new("authority");
            let (_, server) = authority.configs();
            let builder = ClientConfig::builder().roots(authority.roots()).versions(version);
            let client = builder.resumption(false).build()?;
            let whole = through_proxy(&client, &server, usize::MAX, usize::MAX)?;
            whole.client?;
            whole.server?;
            // The signatures of ECDSA, and so the totals, differ by a few bytes from handshake to handshake.
            for up in (0..whole.up - 8).step_by(step) {
                let cut = through_proxy(&client, &server, up, usize::MAX)?;
                assert!(
                    cut.client.is_err() && cut.server.is_err(),
                    "{version:?}: cut after {up} bytes of the client"
                );
            }
            for down in (0..whole.down - 8).step_by(step) {
                let cut = through_proxy(&client, &server, usize::MAX, down)?;
                assert!(cut.client.is_err(), "{version:?}: cut after {down} bytes of the server");
            }
            Ok(())
        });
    }
}

/// A generator of arbitrary bytes, the same in each run.
fn arbitrary(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[test]
fn garbage_ends_a_handshake_on_both_sides() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let texts = [
            &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\0",
        ];
        for round in 0..100 {
            let mut garbage: Vec<u8> = texts.get(round).map_or_else(Vec::new, |text| text.to_vec());
            // Some that look like records.
            if round % 3 == 0 {
                garbage.extend([20 + round as u8 % 5, 3, 3]);
            }
            garbage.extend(arbitrary(round as u64).take(100 + round * 700));
            for as_server in [true, false] {
                let (left, right) = plain_pair()?;
                let garbage = garbage.clone();
                let flooding = fibers::spawn(move || {
                    // Fails when the victim has closed.
                    let _ = left.write(&garbage);
                    let _ = left.shutdown(Shutdown::Write);
                    while let Ok(Some(_)) = left.receive() {}
                })?;
                let error = match as_server {
                    true => tls::accept(right, &server),
                    false => tls::wrap(right, "localhost", &client),
                }
                .unwrap_err();
                assert!(tls::tls_error_of(&error).is_some(), "{error}");
                flooding.join().unwrap();
            }
        }
        Ok(())
    });
}

/// Garbage inside of a session ends it, and stays its end.
#[test]
fn garbage_after_the_handshake_is_an_error_for_good() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        right.write(b"fine")?;
        right.core().stream().send_detached(b"\x17\x03\x03\x00\x20 this is no record of the session")?;
        let mut read = [0; 4];
        assert_eq!(left.chunk(&mut read)?, 4);
        for _ in 0..2 {
            let error = left.read(&mut read).unwrap_err();
            assert!(tls::tls_error_of(&error).is_some(), "{error}");
            assert!(tls::tls_error_of(&left.write(b"x").unwrap_err()).is_some());
        }
        // The other side is told.
        let error = right.read(&mut read).unwrap_err();
        assert!(tls::tls_error_of(&error).is_some_and(tls::TlsError::is_alert), "{error}");
        Ok(())
    });
}

/// Those that never finish are ended by the timeout, while others are served.
#[test]
fn half_handshakes_end_and_delay_nobody() {
    run(|| {
        let authority = Authority::new("authority");
        let (client, _) = authority.configs();
        let server = ServerConfig::builder()
            .identity(authority.identity(&["localhost"]))
            .handshake_timeout(Some(Duration::from_secs(5)))
            .build()?;
        let listener = tls::server("127.0.0.1:0", &server, |stream| {
            stream.write(b"served").unwrap();
        })?;
        let before = fibers::statistics().unwrap().alive;
        let mut halves = Vec::new();
        for round in 0..200 {
            let stream = net::connect(listener.localname()?)?;
            // A record's head that promises 16 KiB, and some of it.
            stream.write(&[22, 3, 1, 0x40, 0])?;
            stream.write(&vec![1; round * 10])?;
            halves.push(stream);
        }
        let stream = tls::wrap(net::connect(listener.localname()?)?, "localhost", &client)?;
        assert_eq!(read_all(&stream)?, b"served");
        for stream in &halves {
            // An alert, an end or a reset.
            while let Ok(Some(_)) = stream.receive() {}
        }
        while fibers::statistics().unwrap().alive > before {
            fibers::sleep(Duration::from_millis(1))?;
        }
        listener.close();
        Ok(())
    });
}

/// A peer that sends records of one byte gets no more room than any other: what is decrypted is read at once, and the
/// rest stays encrypted, where the bounds of streams hold.
#[test]
fn tiny_records_take_no_more_room() {
    const RECORDS: usize = 50_000;
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        let sent = Rc::new(Cell::new(0));
        let count = sent.clone();
        let flooding = fibers::spawn(move || {
            for number in 0..RECORDS {
                left.write(&[number as u8]).unwrap();
                count.set(number + 1);
            }
            left.close();
        })?;
        // Nobody reads: the flood stops.
        let mut before = 0;
        loop {
            fibers::sleep(Duration::from_millis(50))?;
            if sent.get() == before {
                break;
            }
            before = sent.get();
        }
        let mut received = 0;
        let mut buffer = [0; 7];
        loop {
            let count = right.read(&mut buffer)?;
            assert!(
                buffer[..count].iter().enumerate().all(|(index, byte)| *byte == (received + index) as u8)
            );
            received += count;
            if count == 0 {
                break;
            }
        }
        assert_eq!(received, RECORDS);
        flooding.join().unwrap();
        Ok(())
    });
}

/// What the peer is sent by a peer of ours that does not read: a bounded number of bytes.
#[test]
fn a_peer_that_does_not_read_stops_the_writer() {
    run(|| {
        let (client, server) = Authority::new("authority").configs();
        let (left, right) = pair(&client, &server)?;
        let left: Rc<TlsStream> = Rc::new(left);
        left.set_write_behind(true);
        left.set_write_timeout(Some(Duration::from_millis(50)));
        let mut taken = 0;
        while left.write(&[0; 10_000]).is_ok() {
            taken += 10_000;
            assert!(taken < 100_000_000, "nothing stops it");
        }
        drop(right);
        Ok(())
    });
}
