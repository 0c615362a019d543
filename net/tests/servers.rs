//! Servers on several workers: where connections go, what a worker has for itself, and how servers end.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ringspun_fibers::{self as fibers, SharedChannel, WorkersBuilder};
use ringspun_net::{self as net, Server, ServerBuilder, ServerHandle, Stream};

const AGES: Duration = Duration::from_secs(3600);

fn echo(stream: Stream) {
    while let Ok(Some(bytes)) = stream.receive() {
        if stream.write(&bytes).is_err() {
            break;
        }
    }
}

fn echo_server(workers: usize) -> Server {
    ServerBuilder::new().workers(workers).serve("127.0.0.1:0", echo).start().unwrap()
}

fn connect(server: &ServerHandle) -> TcpStream {
    TcpStream::connect(server.addresses()[0].to_string()).unwrap()
}

/// The connection has been placed once this returns.
fn check_echo(mut client: &TcpStream) {
    client.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn live(server: &ServerHandle) -> Vec<usize> {
    server.statistics().iter().map(|worker| worker.connections).collect()
}

/// Waits until `done`; a server learns of an end when its fibers run.
fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn long_connections_are_even_one_by_one_and_at_once() {
    let server = echo_server(4);
    let is_even = |live: &[usize]| live.iter().all(|live| (15..=17).contains(live));
    let one_by_one: Vec<_> = (0..64).map(|_| connect(&server)).inspect(check_echo).collect();
    assert!(is_even(&live(&server)), "{:?}", live(&server));
    drop(one_by_one);
    wait_until(|| live(&server) == [0; 4]);

    let at_once: Vec<_> = (0..64).map(|_| connect(&server)).collect();
    at_once.iter().for_each(check_echo);
    assert!(is_even(&live(&server)), "{:?}", live(&server));
    let statistics = server.statistics();
    assert_eq!(statistics.iter().map(|worker| worker.served).sum::<u64>(), 128);
    assert_eq!(statistics.len(), 4);
}

#[test]
fn each_worker_has_a_state_of_its_own_made_on_its_thread() {
    // Not `Send`.
    let server = ServerBuilder::with_state(|worker| Rc::new((worker, thread::current().id(), Cell::new(0))))
        .workers(3)
        .serve_with("127.0.0.1:0", |stream, state: &Rc<(usize, thread::ThreadId, Cell<u32>)>| {
            assert_eq!(thread::current().id(), state.1);
            state.2.set(state.2.get() + 1);
            let _ = stream.write(&[state.0 as u8, state.2.get() as u8]);
            // It lives until its client has gone.
            let _ = stream.receive();
        })
        .start()
        .unwrap();
    let clients: Vec<_> = (0..30).map(|_| connect(&server)).collect();
    let mut seen = [0; 3];
    for mut client in &clients {
        let mut answer = [0; 2];
        client.read_exact(&mut answer).unwrap();
        seen[usize::from(answer[0])] = seen[usize::from(answer[0])].max(answer[1]);
    }
    // The last of each worker's counts is the number of its connections.
    assert_eq!(seen.map(usize::from).to_vec(), live(&server));
}

#[test]
fn one_server_has_addresses_of_several_kinds() {
    let path = std::env::temp_dir().join(format!("ringspun-servers-{}", std::process::id()));
    let unix = format!("unix:{}", path.display());
    let server = ServerBuilder::new()
        .workers(2)
        .serve("127.0.0.1:0", echo)
        .serve(unix.as_str(), echo)
        .serve_datagrams("127.0.0.1:0", |socket| {
            while let Ok((bytes, source)) = socket.receive() {
                let _ = socket.send_to(&source, &bytes);
            }
        })
        .start()
        .unwrap();
    let mut clients: Vec<_> = (0..6).map(|_| UnixStream::connect(&path).unwrap()).collect();
    std::fs::remove_file(&path).unwrap();
    for client in &mut clients {
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    // Accepted by one worker, and served by both.
    assert!(live(&server).iter().all(|live| (2..=4).contains(live)), "{:?}", live(&server));
    check_echo(&connect(&server));
    let flows: Vec<_> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for flow in &flows {
        flow.send_to(b"datagram", server.addresses()[2].to_string()).unwrap();
        let mut answer = [0; 16];
        assert_eq!(flow.recv_from(&mut answer).unwrap().0, 8);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_datagrams_of_a_sender_stay_on_one_worker() {
    let server = ServerBuilder::with_state(|worker| worker as u8)
        .workers(3)
        .serve_datagrams_with("127.0.0.1:0", |socket, worker| {
            while let Ok((_, source)) = socket.receive() {
                let _ = socket.send_to(&source, &[*worker]);
            }
        })
        .start()
        .unwrap();
    let address = server.addresses()[0].to_string();
    let mut workers = BTreeSet::new();
    for _ in 0..60 {
        let flow = UdpSocket::bind("127.0.0.1:0").unwrap();
        flow.connect(&address).unwrap();
        let answers: BTreeSet<u8> = (0..5)
            .map(|_| {
                let mut answer = [0];
                flow.send(b"who?").unwrap();
                flow.recv(&mut answer).unwrap();
                answer[0]
            })
            .collect();
        assert_eq!(answers.len(), 1);
        workers.extend(answers);
    }
    // The chance that a fair kernel leaves one out is below 10^-10.
    assert_eq!(workers.len(), 3);
}

#[test]
fn a_port_is_shared_only_by_those_that_ask() {
    let server = echo_server(2);
    let address = server.addresses()[0];
    let again = ServerBuilder::new().workers(2).serve(address, echo).start();
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(std::net::TcpListener::bind(address.to_string()).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(server);
    let first = ServerBuilder::new().workers(2).shares_port(true).serve("127.0.0.1:0", echo).start().unwrap();
    let address = first.addresses()[0];
    let again = |shares_port: bool| {
        ServerBuilder::new().workers(2).shares_port(shares_port).serve(address, echo).start()
    };
    assert_eq!(again(false).unwrap_err().kind(), ErrorKind::AddrInUse);
    if cfg!(target_os = "linux") {
        let second = again(true).unwrap();
        let clients: Vec<_> = (0..64).map(|_| connect(&first)).collect();
        clients.iter().for_each(check_echo);
        assert_eq!(live(&first).iter().chain(&live(&second)).sum::<usize>(), 64);
    }
}

#[test]
fn a_server_can_use_workers_that_run_already() {
    let ran = WorkersBuilder::new().count(3).run(|workers| -> io::Result<()> {
        let builder = || ServerBuilder::new().serve("127.0.0.1:0", echo);
        let (first, second) = (builder().start_on(workers)?, builder().start_on(workers)?);
        for server in [&first, &second] {
            let client = net::connect(server.addresses()[0])?;
            client.write(b"hello")?;
            assert_eq!(&*client.receive()?.unwrap(), b"hello");
        }
        let drained = first.drain(AGES)?;
        assert_eq!((drained.cancelled, drained.left), (0, 0));
        // The other goes on.
        let client = net::connect(second.addresses()[0])?;
        client.write(b"hello")?;
        assert_eq!(&*client.receive()?.unwrap(), b"hello");
        first.wait()
    });
    ran.unwrap().unwrap();
}

#[test]
fn a_handler_that_panics_ends_its_connection_alone() {
    let server = ServerBuilder::new()
        .workers(2)
        .serve("127.0.0.1:0", |stream| {
            let mut first = [0];
            while stream.read(&mut first).is_ok_and(|count| count == 1) {
                assert_ne!(first[0], b'!', "asked to");
                let _ = stream.write(&first);
            }
        })
        .start()
        .unwrap();
    let mut clients: Vec<_> = (0..8).map(|_| connect(&server)).collect();
    for client in &mut clients[..4] {
        client.write_all(b"!").unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    }
    for client in &mut clients[4..] {
        client.write_all(b".").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    wait_until(|| live(&server).iter().sum::<usize>() == 4);
}

#[test]
fn a_server_that_cannot_begin_says_why_and_leaves_nothing() {
    let error = ServerBuilder::with_state(|worker| assert_ne!(worker, 1, "no state for it"))
        .workers(3)
        .serve("127.0.0.1:0", echo)
        .start()
        .unwrap_err();
    assert!(error.to_string().contains("no state for it"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = ServerBuilder::new().serve("127.0.0.1:0", echo).serve(address, echo).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert_eq!(
        ServerBuilder::new().serve("nowhere", echo).start().unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn a_drain_lets_connections_end_and_cancels_the_rest() {
    let (asked, told) = mpsc::channel();
    let answer = SharedChannel::<()>::bounded(1);
    let may_answer = answer.clone();
    let server = ServerBuilder::new()
        .workers(2)
        .serve("127.0.0.1:0", move |stream| {
            if let Ok(Some(request)) = stream.receive() {
                let is_patient = &*request == b"patient";
                drop(request);
                asked.send(()).unwrap();
                if is_patient {
                    let _ = may_answer.take();
                    let _ = stream.write(b"answer");
                } else {
                    // Until it is cancelled.
                    let _ = stream.receive();
                }
            }
        })
        .start()
        .unwrap();
    let mut patient: Vec<_> = (0..5).map(|_| connect(&server)).collect();
    let mut idle: Vec<_> = (0..3).map(|_| connect(&server)).collect();
    patient.iter_mut().for_each(|client| client.write_all(b"patient").unwrap());
    idle.iter_mut().for_each(|client| client.write_all(b"idle").unwrap());
    (0..8).for_each(|_| told.recv().unwrap());

    let handle = server.handle();
    let draining = thread::spawn(move || handle.drain(Duration::from_secs(5)));
    let address = server.addresses()[0].to_string();
    // It accepts no more.
    wait_until(|| TcpStream::connect(&address).is_err());
    answer.close();
    for client in &mut patient {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
    }
    let drained = draining.join().unwrap().unwrap();
    // Connections that were accepted while it stopped listening, by the loop above, count as well.
    assert_eq!((drained.cancelled, drained.left), (3, 0));
    assert!(drained.ended >= 5, "{drained:?}");
    assert!(idle.iter_mut().all(|client| client.read(&mut [0]).unwrap_or(0) == 0));
    server.wait().unwrap();
}

#[test]
fn what_waits_in_the_kernel_is_served_before_a_drain_ends() {
    let (stall, go_on) = (SharedChannel::<()>::bounded(1), SharedChannel::<()>::bounded(1));
    let (stalled, goes_on) = (stall.clone(), go_on.clone());
    // The worker computes while connections come.
    let busy = ServerBuilder::new()
        .workers(1)
        .serve("127.0.0.1:0", move |stream| {
            let mut kind = [0];
            if stream.read(&mut kind).is_ok_and(|count| count == 1) && kind[0] == b'b' {
                stalled.try_give(()).unwrap();
                while goes_on.try_take() == Ok(None) {}
            }
            let _ = stream.write(&kind);
        })
        .start()
        .unwrap();
    let mut first = connect(&busy);
    first.write_all(b"b").unwrap();
    stall.take().unwrap();
    let mut waiting: Vec<_> = (0..100).map(|_| connect(&busy)).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"w").unwrap());
    let handle = busy.handle();
    let draining = thread::spawn(move || handle.drain(AGES));
    go_on.try_give(()).unwrap();
    for client in waiting.iter_mut().chain([&mut first]) {
        client.read_exact(&mut [0]).unwrap();
    }
    let drained = draining.join().unwrap().unwrap();
    assert_eq!((drained.cancelled, drained.left), (0, 0));
    // Some may have ended before the worker had time for the drain.
    assert!(drained.ended <= 101, "{drained:?}");
}

#[test]
fn a_drain_of_requests_answers_what_has_come_and_ends_idle_connections() {
    let (stall, go_on) = (SharedChannel::<()>::bounded(1), SharedChannel::<()>::bounded(1));
    let (stalled, goes_on) = (stall.clone(), go_on.clone());
    let server = ServerBuilder::new()
        .workers(2)
        .serve("127.0.0.1:0", move |stream| {
            while let Ok(Some(request)) = stream.receive() {
                if request.starts_with(b"slow") {
                    stalled.give(()).unwrap();
                    goes_on.take().unwrap();
                }
                let _ = stream.write(&request);
            }
        })
        .start()
        .unwrap();
    let mut idle: Vec<_> = (0..20).map(|_| connect(&server)).inspect(check_echo).collect();
    let mut slow = connect(&server);
    slow.write_all(b"slow").unwrap();
    stall.take().unwrap();
    // It comes while the one before is being answered.
    slow.write_all(b"next").unwrap();

    let handle = server.handle();
    let draining = thread::spawn(move || handle.drain_requests(AGES));
    // No time has to pass for them.
    idle.iter_mut().for_each(|client| assert_eq!(client.read(&mut [0]).unwrap(), 0));
    go_on.give(()).unwrap();
    let mut answers = String::new();
    slow.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, "slownext");
    let drained = draining.join().unwrap().unwrap();
    assert_eq!((drained.cancelled, drained.left), (0, 0));
    server.wait().unwrap();
}

#[test]
fn a_drain_of_requests_ends_connections_that_come_during_it() {
    let (stall, go_on) = (SharedChannel::<()>::bounded(1), SharedChannel::<()>::bounded(1));
    let (stalled, goes_on) = (stall.clone(), go_on.clone());
    // The worker computes while connections come, of which it learns after the drain has begun.
    let server = ServerBuilder::new()
        .workers(1)
        .serve("127.0.0.1:0", move |stream| {
            while let Ok(Some(request)) = stream.receive() {
                if *request == *b"busy" {
                    stalled.give(()).unwrap();
                    while goes_on.try_take() == Ok(None) {}
                }
                let _ = stream.write(&request);
            }
        })
        .start()
        .unwrap();
    let mut busy = connect(&server);
    busy.write_all(b"busy").unwrap();
    stall.take().unwrap();
    let mut late: Vec<_> = (0..10).map(|_| connect(&server)).collect();
    late.iter_mut().for_each(|client| client.write_all(b"late").unwrap());
    let handle = server.handle();
    let draining = thread::spawn(move || handle.drain_requests(AGES));
    go_on.give(()).unwrap();
    for (client, answer) in late.iter_mut().map(|client| (client, "late")).chain([(&mut busy, "busy")]) {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, answer);
    }
    assert_eq!(draining.join().unwrap().unwrap().cancelled, 0);
}

#[test]
fn there_are_no_more_connections_than_there_may_be() {
    for workers in [1, 3] {
        let server = ServerBuilder::new()
            .workers(workers)
            .connections_max(5)
            .serve("127.0.0.1:0", echo)
            .start()
            .unwrap();
        let mut clients: Vec<_> = (0..5).map(|_| connect(&server)).inspect(check_echo).collect();
        for _ in 0..20 {
            // Closed at once; a reset says the same.
            assert_eq!(connect(&server).read(&mut [0]).unwrap_or(0), 0);
        }
        let served = || server.statistics().iter().map(|worker| worker.served).sum::<u64>();
        assert_eq!((live(&server).iter().sum::<usize>(), served()), (5, 5));
        // The others do not notice, and one that ends makes room for one.
        clients.iter().for_each(check_echo);
        clients.pop();
        wait_until(|| live(&server).iter().sum::<usize>() == 4);
        clients.push(connect(&server));
        clients.iter().for_each(check_echo);
        assert_eq!(server.drain_requests(AGES).unwrap().ended, 5);
    }
}

#[test]
fn dropping_a_server_ends_it() {
    let server = echo_server(2);
    let mut clients: Vec<_> = (0..4).map(|_| connect(&server)).collect();
    clients.iter().for_each(check_echo);
    let (address, handle) = (server.addresses()[0].to_string(), server.handle());
    drop(server);
    assert!(clients.iter_mut().all(|client| client.read(&mut [0]).unwrap_or(0) == 0));
    wait_until(|| TcpStream::connect(&address).is_err());
    wait_until(|| live(&handle) == [0, 0]);
    // The threads end soon after their last connection.
    wait_until(|| handle.drain(AGES).is_err());
}

#[test]
fn on_shared_workers_a_dropped_server_ends_as_well() {
    let workers = WorkersBuilder::new().count(2).start().unwrap();
    let server = ServerBuilder::new().serve("127.0.0.1:0", echo).start_on(&workers).unwrap();
    let mut client = connect(&server);
    check_echo(&client);
    let address = server.addresses()[0].to_string();
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    wait_until(|| TcpStream::connect(&address).is_err());
    assert_eq!(workers.get(0).unwrap().spawn(fibers::is_fiber).unwrap().join().ok(), Some(true));
}

#[test]
fn only_a_listener_can_be_served_on() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (connected, _peer) = UnixStream::pair().unwrap();
    let sockets: [std::os::fd::OwnedFd; 2] = [datagrams.into(), connected.into()];
    for socket in sockets {
        let started = ServerBuilder::new().workers(1).serve_on(socket, |_, ()| ()).start();
        let error = started.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let started = ServerBuilder::new().workers(1).serve_on(file, |_, ()| ()).start();
    let error = started.map(|_| ()).unwrap_err();
    assert_eq!(net::errno_of(&error), Some(libc::ENOTSOCK), "{error}");
    assert!(error.to_string().starts_with("listen a socket: "), "{error}");
}
