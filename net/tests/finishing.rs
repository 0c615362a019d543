//! The end of a conversation with a peer that is still sending: what was written last reaches it.

mod common;

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Elapsed, Interrupt};
use ringspun_net::{self as net, Stream};

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

#[test]
fn a_refusal_reaches_a_peer_that_sends_more_than_is_wanted() {
    run(|| {
        for (client, server) in pairs()? {
            let refusing = fibers::spawn(move || -> io::Result<()> {
                server.read(&mut [0; 10])?;
                server.write(b"too much")?;
                server.finish(AGES)
            })?;
            // More than the kernel keeps of a connection: the server reads it, or the write does not end.
            assert_eq!(client.write(&vec![7; 20_000_000])?, 20_000_000);
            client.shutdown(Shutdown::Write)?;
            refusing.join()??;
            assert_eq!(&*client.receive()?.unwrap(), b"too much");
            assert!(client.receive()?.is_none());
        }
        Ok(())
    });
}

#[test]
fn a_peer_that_does_not_end_is_waited_for_so_long_and_no_longer() {
    run(|| {
        for (client, server) in pairs()? {
            client.write(b"and I go on")?;
            server.peek(&mut [0])?;
            server.finish(SOON)?;
            // What it waited for is dropped, and the input is still open.
            client.write(b"more")?;
            assert_eq!(&*server.receive()?.unwrap(), b"more");
            assert!(client.receive()?.is_none());
            // A read timeout of the stream ends it as well.
            server.set_read_timeout(Some(SOON));
            server.finish(AGES)?;
        }
        Ok(())
    });
}

#[test]
fn a_cancel_and_a_deadline_end_it() {
    run(|| {
        for (client, server) in pairs()? {
            let finishing = server.clone();
            let cancelled = fibers::spawn(move || finishing.finish(AGES))?;
            fibers::yield_now()?;
            cancelled.cancel();
            let error = cancelled.join()?.unwrap_err();
            assert_eq!(net::interrupt_of(&error), Some(Interrupt::Cancelled));
            assert!(matches!(fibers::timeout(SOON, || server.finish(AGES)), Err(Elapsed)));
            drop(client);
            server.finish(AGES)?;
            server.close();
            assert!(net::is_closed(&server.finish(AGES).unwrap_err()));
        }
        Ok(())
    });
}

#[test]
fn a_runtime_ends_while_it_waits() {
    let ended = fibers::run(|| -> io::Result<()> {
        let (client, server) = Stream::pair()?;
        fibers::spawn(move || {
            let _client = client;
            server.finish(AGES)
        })?;
        fibers::yield_now()?;
        Ok(())
    });
    ended.unwrap().unwrap();
}
