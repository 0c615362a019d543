//! A server that runs out of descriptors, in a process of its own, whose limit it changes.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use ringspun_fibers as fibers;
use ringspun_net as net;

const CLIENTS: usize = 20;
/// Long enough for several attempts to accept.
const WITHOUT: Duration = Duration::from_millis(400);

fn processor_time() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds =
        [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
    Ok(Duration::from_micros(microseconds.iter().sum::<i64>().unsigned_abs()))
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
        let before = processor_time()?;
        fibers::sleep(WITHOUT)?;
        let spent = processor_time()? - before;
        assert_eq!(served.get(), 0, "there are no descriptors for connections");
        assert!(spent < WITHOUT / 4, "{spent:?} of the processor's time while there was nothing to do");

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
