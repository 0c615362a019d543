//! A server that runs out of descriptors, in a process of its own, whose limit it changes.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringspun_fibers as fibers;
use ringspun_net as net;

const CLIENTS: usize = 20;
/// Long enough for several attempts to accept.
const WITHOUT: Duration = Duration::from_millis(400);
/// An attempt to accept takes a wait or two, once in 5 ms or less often; without pauses, there would be dozens in 1 ms.
const WAITS_PER_MS_MAX: u128 = 1;

/// How often the loop of this thread has waited.
fn waits() -> u64 {
    fibers::event_loop().map_or(0, |event_loop| event_loop.spin_statistics().waits)
}

/// The lowest free descriptor number.
fn next_descriptor() -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    Ok(std::fs::File::open("/dev/null")?.as_raw_fd() as u64)
}

#[test]
fn accepting_waits_for_descriptors_without_spinning_and_goes_on() {
    fibers::run(|| -> io::Result<()> {
        let listener = Rc::new(net::listen("127.0.0.1:0")?);
        let address = listener.localname()?.to_string();
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = TcpStream::connect(&address)?;
            client.write_all(b"hello")?;
            clients.push(client);
        }

        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, next_descriptor()?, hard)?;
        let served = Rc::new(Cell::new(0));
        let (accepting, counted) = (listener.clone(), served.clone());
        let server = fibers::spawn(move || {
            accepting.accept_loop(move |stream| {
                counted.set(counted.get() + 1);
                let mut greeting = [0; 5];
                if stream.chunk(&mut greeting).is_ok() {
                    let _ = stream.write(&greeting);
                }
            })
        })?;
        let (before, since) = (waits(), Instant::now());
        fibers::sleep(WITHOUT)?;
        let waited = waits() - before;
        assert_eq!(served.get(), 0, "there are no descriptors for connections");
        let most = since.elapsed().as_millis() * WAITS_PER_MS_MAX;
        assert!((1..=most).contains(&waited.into()), "{waited} waits while there was nothing to do");

        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        let answers = fibers::blocking(move || {
            clients
                .into_iter()
                .map(|mut client| {
                    let mut answer = [0; 5];
                    client.read_exact(&mut answer).map(|()| answer)
                })
                .collect::<io::Result<Vec<_>>>()
        });
        let answers = answers.unwrap()?;
        assert_eq!((answers.len(), served.get()), (CLIENTS, CLIENTS));
        assert!(answers.iter().all(|answer| answer == b"hello"));
        listener.close();
        let _ = server.join()?;
        Ok(())
    })
    .unwrap()
    .unwrap();
}
