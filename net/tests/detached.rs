//! What is sent without waiting arrives whole and in order, whatever follows: more of it, writes, a shutdown, a close.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Stream};

mod common;

use common::run;

fn pair() -> io::Result<(Stream, Stream)> {
    let listener = net::listen("127.0.0.1:0")?;
    let client = net::connect(listener.localname()?)?;
    Ok((client, listener.accept()?))
}

fn read_all(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.receive()? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Bytes that tell where they stand.
fn numbered(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|index| (index % 251) as u8).collect()
}

/// Small and large ones: batches, sends at once, and sends from memory follow each other in every order.
#[test]
fn sends_of_all_kinds_keep_their_order() {
    for ending in [None, Some(Shutdown::Write)] {
        run(move || {
            let (left, right) = pair()?;
            let mut sent = 0;
            for round in 0..400 {
                let length = [1, 100, 4_096, 5_000, 70_000][round * 7 % 5];
                left.core().send_detached(&numbered(sent, length))?;
                sent += length;
                if round % 60 == 7 {
                    // The loop turns: some have been sent, and some wait.
                    fibers::yield_now()?;
                }
            }
            match ending {
                Some(how) => left.shutdown(how)?,
                None => left.close(),
            }
            let received = read_all(&right)?;
            assert_eq!(received.len(), sent);
            assert!(received == numbered(0, sent));
            Ok(())
        });
    }
}

/// A busy stream sends in batches; another message right behind one in a batch is queued.
#[test]
fn messages_behind_a_batch_follow_it() {
    run(|| {
        let (left, right) = pair()?;
        let echo = fibers::spawn(move || {
            while let Ok(Some(bytes)) = right.receive() {
                right.write(&bytes).unwrap();
            }
        })?;
        let mut sent = 0;
        for round in 0..100 {
            for _ in 0..1 + round % 4 {
                left.core().send_detached(&numbered(sent, 10))?;
                sent += 10;
            }
            let mut answer = vec![0; 10 * (1 + round % 4)];
            left.chunk(&mut answer)?;
            assert_eq!(answer, numbered(sent - answer.len(), answer.len()));
        }
        left.close();
        echo.join().unwrap();
        Ok(())
    });
}

#[test]
fn a_write_waits_for_what_was_sent_before() {
    run(|| {
        let (left, right) = pair()?;
        let (left, big) = (Rc::new(left), numbered(0, 8_000_000));
        left.core().send_detached(&big)?;
        left.set_write_timeout(Some(Duration::from_millis(20)));
        assert_eq!(left.write(b"more").unwrap_err().kind(), io::ErrorKind::TimedOut);
        left.set_write_timeout(None);
        let writer = left.clone();
        let writing = fibers::spawn(move || writer.write(&numbered(8_000_000, 1000)).unwrap())?;
        let reading = fibers::spawn(move || read_all(&right).unwrap())?;
        writing.join().unwrap();
        left.close();
        assert!(reading.join().unwrap() == numbered(0, 8_001_000));
        Ok(())
    });
}

/// As a failed write behind: the next write reports it.
#[test]
fn a_lost_connection_is_reported_by_the_next_write() {
    run(|| {
        let (left, right) = pair()?;
        left.core().send_detached(&numbered(0, 8_000_000))?;
        // A close with unread bytes resets the connection.
        fibers::sleep(Duration::from_millis(5))?;
        right.close();
        let error = loop {
            match left.write(b"x") {
                Ok(_) => fibers::sleep(Duration::from_millis(1))?,
                Err(error) => break error,
            }
        };
        assert!(net::errno_of(&error).is_some(), "{error}");
        Ok(())
    });
}

/// A close with unread bytes would reset the connection, and the peer would lose the last bytes.
#[test]
fn unread_bytes_can_be_dropped_before_a_close() {
    run(|| {
        let (left, right) = pair()?;
        right.write(b"of no interest")?;
        // It has arrived.
        left.receive()?;
        left.put_back(b"nor this");
        right.write(b"nor this")?;
        left.write(&numbered(0, 2_000))?;
        left.core().discard_input();
        left.close();
        assert!(read_all(&right)? == numbered(0, 2_000));
        Ok(())
    });
}
