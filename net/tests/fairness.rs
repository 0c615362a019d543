//! One peer that sends continuously, and others with one request each: how much of the flood is served before they are.
//! Counts bytes instead of time.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;

use ringspun_fibers::{self as fibers, JoinHandle};
use ringspun_net::Stream;

use crate::common::run;

const OTHERS: usize = 64;
const REQUEST: [u8; 64] = [7; 64];
/// How much of the flood is served in all: far more than may be served while another waits.
const FLOOD_BYTES: usize = 32 << 20;
const ROUND_TRIPS: usize = 100;
/// Receive buffers of which a fiber echoes the bytes before another one runs: four at once, and one that it waits for.
const TURN_MAX_BYTES: usize = 5 * 64 * 1024;

/// Both ends of an unused connection.
fn pair(listener: &TcpListener) -> io::Result<(TcpStream, OwnedFd)> {
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0.into()))
}

/// Sends as much as the server accepts, and reads the echoes.
fn flood(client: TcpStream) -> io::Result<()> {
    client.set_nonblocking(true)?;
    let message = vec![1; 1 << 20];
    // Nothing more goes in before the server runs.
    while (&client).write(&message).is_ok() {}
    client.set_nonblocking(false)?;
    let mut sender = client.try_clone()?;
    thread::spawn(move || while sender.write_all(&message).is_ok() {});
    let mut receiver = client;
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        while receiver.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    Ok(())
}

/// Adopts an accepted connection.
fn adopt(descriptor: OwnedFd) -> Stream {
    Stream::from_descriptor(fibers::event_loop().unwrap(), descriptor)
}

/// Echoes until `FLOOD` is served and the others are done, and counts the bytes.
fn serve_flood(
    flooded: OwnedFd,
    served_bytes: &Rc<Cell<usize>>,
    others_left: &Rc<Cell<usize>>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    let (stream, served_bytes, others_left) = (adopt(flooded), served_bytes.clone(), others_left.clone());
    fibers::spawn(move || {
        while served_bytes.get() < FLOOD_BYTES || others_left.get() > 0 {
            let bytes = stream.receive()?.expect("the flood does not end");
            stream.write(&bytes)?;
            served_bytes.set(served_bytes.get() + bytes.len());
        }
        stream.shutdown(Shutdown::Both)
    })
}

#[test]
fn requests_that_wait_are_answered_before_more_than_a_part_of_a_flood() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (flooder, flooded) = pair(&listener)?;
        let (mut others, mut served) = (Vec::new(), Vec::new());
        for _ in 0..OTHERS {
            let (mut client, descriptor) = pair(&listener)?;
            client.write_all(&REQUEST)?;
            others.push(client);
            served.push(descriptor);
        }
        flood(flooder)?;

        // All of it is there when the server begins, and the flooder comes first.
        let (flood_bytes, others_left) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(OTHERS)));
        let flooding = serve_flood(flooded, &flood_bytes, &others_left)?;
        let before_answers = Rc::new(RefCell::new(Vec::new()));
        for descriptor in served {
            let stream = adopt(descriptor);
            let (flood_bytes, others_left) = (flood_bytes.clone(), others_left.clone());
            let before_answers = before_answers.clone();
            fibers::spawn(move || {
                let mut request = [0; REQUEST.len()];
                assert_eq!(stream.chunk(&mut request).unwrap(), request.len());
                stream.write(&request).unwrap();
                before_answers.borrow_mut().push(flood_bytes.get());
                others_left.set(others_left.get() - 1);
            })?;
        }
        flooding.join()??;

        let before_answers = before_answers.borrow();
        let most = before_answers.iter().max().unwrap();
        // In one turn; but where the flood has taken all buffers that the kernel had, they wait for some: it has twice
        // as many then, and may meet a lack of them once more.
        let bound = 4 * TURN_MAX_BYTES;
        println!("{most} bytes of the flood were served before the last of the others, {bound} may be");
        assert!(
            *most <= bound,
            "{most} bytes of the flood before the last of the others: {before_answers:?}"
        );
        for mut client in others {
            let mut answer = [0; REQUEST.len()];
            client.read_exact(&mut answer)?;
            assert_eq!(answer, REQUEST);
        }
        Ok(())
    });
}

#[test]
fn round_trips_go_on_during_a_flood() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (flooder, flooded) = pair(&listener)?;
        let (client, descriptor) = pair(&listener)?;
        flood(flooder)?;
        let (flood_bytes, others_left) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(1)));
        let flooding = serve_flood(flooded, &flood_bytes, &others_left)?;
        let (client, served) = (adopt(client.into()), adopt(descriptor));
        let echoing = fibers::spawn(move || -> io::Result<()> {
            while let Some(bytes) = served.receive()? {
                served.write(&bytes)?;
            }
            Ok(())
        })?;
        let (mut most, mut answer) = (0, [0; REQUEST.len()]);
        for _ in 0..ROUND_TRIPS {
            let before = flood_bytes.get();
            client.write(&REQUEST)?;
            assert_eq!(client.chunk(&mut answer)?, REQUEST.len());
            most = most.max(flood_bytes.get() - before);
        }
        client.close();
        others_left.set(0);
        echoing.join()??;
        flooding.join()??;
        // A message to another fiber and its echo take four turns: each is sent in one and received in the next.
        let bound = 4 * TURN_MAX_BYTES;
        println!("{most} bytes of the flood were served during a round trip, {bound} may be");
        assert!(most <= bound, "{most} bytes of the flood were served during a round trip");
        Ok(())
    });
}
