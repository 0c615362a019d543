//! What interrupts promise: they reach every wait, and neither they nor the end of a runtime lose or
//! repeat a byte, hang, or leave something behind.

use std::cell::Cell;
use std::io::{self, Read as _, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_fibers as fibers;
use ringspun_net::{self as net, Listener, Stream};

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

/// Drains one connection in a thread, as another process would.
fn drain() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(1..) = stream.read(&mut buffer) {}
    });
    address
}

#[test]
fn an_error_of_write_means_that_no_byte_was_taken() {
    let (sent, got) = fibers::run(|| -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut client, served) = pair()?;
        client.set_write_timeout(Some(SOON));
        let data: Vec<u8> = (0..8usize << 20).map(|index| (index / 4096) as u8).collect();
        let mut sent = 0;
        // Until the socket is full. Retries the rest after an error, as the trait allows.
        let timeout = loop {
            match Write::write(&mut client, &data[sent..]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
        };
        assert_eq!(timeout.kind(), io::ErrorKind::TimedOut);
        client.set_write_timeout(None);
        let reader = fibers::spawn(move || -> io::Result<Vec<u8>> {
            let mut got = Vec::new();
            (&served).read_to_end(&mut got)?;
            Ok(got)
        })?;
        client.write_all(&data[sent..])?;
        client.close();
        Ok((data, reader.join()??))
    })
    .unwrap()
    .unwrap();
    assert!(sent == got, "sent {} bytes, got {}", sent.len(), got.len());
}

#[test]
fn a_loop_that_only_writes_ends_with_its_deadline_a_cancel_and_its_runtime() {
    let (first, second, third) = (drain(), drain(), drain());
    fibers::run(move || {
        let stream = net::connect(first).unwrap();
        let error = fibers::with_deadline(SOON, || {
            loop {
                if let Err(error) = stream.write(&[1; 64]) {
                    break error;
                }
            }
        });
        assert_eq!(net::interrupt_of(&error), Some(fibers::Interrupt::DeadlineExpired));
        let endless = |address| {
            let stream = net::connect(address).unwrap();
            fibers::spawn(move || while stream.write(&[1; 64]).is_ok() {}).unwrap()
        };
        let cancelled = endless(second);
        fibers::sleep(SOON).unwrap();
        cancelled.cancel();
        cancelled.join().unwrap();
        drop(endless(third));
        fibers::sleep(SOON).unwrap();
    })
    .unwrap();
}

#[test]
fn two_writers_of_one_stream_take_turns() {
    let address = drain();
    let counts = fibers::run(move || -> io::Result<[usize; 2]> {
        let stream = Rc::new(net::connect(address)?);
        let counts = Rc::new([Cell::new(0), Cell::new(0)]);
        let writers: Vec<_> = (0..2)
            .map(|id| {
                let (stream, counts) = (stream.clone(), counts.clone());
                fibers::spawn(move || {
                    while counts[0].get() + counts[1].get() < 10_000 && stream.write(&[id as u8; 64]).is_ok()
                    {
                        counts[id].set(counts[id].get() + 1);
                    }
                })
            })
            .collect::<io::Result<_>>()?;
        for writer in writers {
            writer.join()?;
        }
        Ok([counts[0].get(), counts[1].get()])
    })
    .unwrap()
    .unwrap();
    assert!(counts.iter().all(|count| (4_900..=5_100).contains(count)), "{counts:?}");
}

#[test]
fn a_sleep_without_end_can_be_cancelled() {
    fibers::run(|| {
        let sleeper = fibers::spawn(|| fibers::sleep(Duration::MAX)).unwrap();
        fibers::yield_now().unwrap();
        sleeper.cancel();
        sleeper.join().unwrap().unwrap_err();
    })
    .unwrap();
}

/// Runs the named test of this binary again, alone in its process.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "RINGSPUN_TEST_ALONE";
    if std::env::var(ALONE).is_ok() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{error}");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// A fiber that ignores the end of its runtime is unwound in the middle of `wait`.
fn run_with_a_stubborn_fiber<T: 'static>(
    prepare: impl FnOnce() -> io::Result<T> + 'static,
    wait: impl Fn(&T) + 'static,
) -> Rc<T> {
    fibers::run(move || {
        let prepared = Rc::new(prepare().unwrap());
        let shared = prepared.clone();
        fibers::spawn(move || {
            loop {
                wait(&shared);
            }
        })
        .unwrap();
        fibers::yield_now().unwrap();
        prepared
    })
    .unwrap()
}

#[test]
fn a_fiber_that_is_unwound_leaves_nothing() {
    alone("a_fiber_that_is_unwound_leaves_nothing", || {
        let run_all = || {
            run_with_a_stubborn_fiber(|| Ok(()), |()| assert!(fibers::sleep(AGES).is_err()));
            run_with_a_stubborn_fiber(pair, |pair| drop(pair.0.read(&mut [0; 4])));
            run_with_a_stubborn_fiber(pair, |pair| drop(pair.0.receive()));
            run_with_a_stubborn_fiber(pair, |pair| drop(pair.0.write(&[0; 1 << 20])));
            run_with_a_stubborn_fiber(|| net::listen("127.0.0.1:0"), |listener| drop(listener.accept()));
            run_with_a_stubborn_fiber(
                || net::listen("127.0.0.1:0"),
                |listener| {
                    drop(net::connect(listener.localname().unwrap()));
                },
            );
        };
        run_all();
        let before = descriptors();
        for _ in 0..10 {
            run_all();
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn what_outlives_its_runtime_gives_errors() {
    let (stream, listener): ((Stream, Stream), Listener) = fibers::run(|| {
        let pair = pair().unwrap();
        let listener = net::listen("127.0.0.1:0").unwrap();
        // The receive and the accept are armed when the runtime ends.
        let _ = fibers::with_deadline(Duration::from_millis(1), || pair.0.read(&mut [0; 4]));
        let _ = fibers::with_deadline(Duration::from_millis(1), || listener.accept());
        (pair, listener)
    })
    .unwrap();
    let start = Instant::now();
    fibers::run(move || {
        fibers::with_deadline(AGES, || {
            for _ in 0..3 {
                assert!(net::is_closed(&stream.0.read(&mut [0; 4]).unwrap_err()));
                assert!(net::is_closed(&stream.1.write(b"hello").unwrap_err()));
                assert!(net::is_closed(&listener.accept().unwrap_err()));
                assert!(listener.accept_loop(drop).is_ok(), "as if closed");
            }
        });
    })
    .unwrap();
    assert!(start.elapsed() < AGES);
}
