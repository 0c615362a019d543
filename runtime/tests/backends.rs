//! Every operation on every backend: the same requests end in the same way.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringspun_runtime::{
    Address, BackendKind, Buffer, Completion, Configuration, EventLoop, Interest, Operation, OperationKey,
    OperationKind, Owner, SendData, SpinFor, Wait, Wake,
};

/// One completion: its count or errno, whether more follow, and what it received.
type Entry = (Result<u32, i32>, bool, Option<Buffer>);

/// Records the completions of its operations.
#[derive(Default)]
struct Log(RefCell<Vec<Entry>>);

impl Owner for Log {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        let result = completion.result.map_err(|error| error.raw_os_error().unwrap());
        self.0.borrow_mut().push((result, completion.more, completion.buffer));
    }
}

impl Log {
    /// Turns the loop until `count` operations are over. Returns the received bytes, and the results of the terminal
    /// completions.
    fn outcome(&self, event_loop: &EventLoop, count: usize) -> (Vec<u8>, Vec<Result<u32, i32>>) {
        turn_until(event_loop, || self.0.borrow().iter().filter(|entry| !entry.1).count() >= count);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (result, more, buffer) in self.0.take() {
            bytes.extend_from_slice(buffer.as_deref().unwrap_or_default());
            ends.extend((!more).then_some(result));
        }
        (bytes, ends)
    }
}

fn turn_until(event_loop: &EventLoop, done: impl Fn() -> bool) {
    while !done() {
        event_loop.turn(Wait::Block).unwrap();
    }
}

/// Runs a test on a new loop of each backend.
fn on_each_backend(sizes: Configuration, test: impl Fn(&Rc<EventLoop>, &Rc<Log>)) {
    for kind in [BackendKind::Uring, BackendKind::Poll] {
        let event_loop = match EventLoop::new(&Configuration { backend: Some(kind), ..sizes.clone() }) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported && kind == BackendKind::Uring => {
                assert!(error.to_string().contains("RINGSPUN_BACKEND=poll"), "{error}");
                println!("only on poll: {error}");
                continue;
            }
            made => made.unwrap(),
        };
        println!("on {}", event_loop.backend_name());
        assert_eq!(event_loop.ring_refusal(), None, "it was asked for");
        test(&event_loop, &Rc::default());
        event_loop.shutdown().unwrap();
        assert_eq!(event_loop.statistics(), Default::default());
    }
}

fn receive(event_loop: &EventLoop, socket: &impl AsRawFd, log: &Rc<Log>) -> ringspun_runtime::OperationKey {
    event_loop.submit(Operation::Receive { socket: socket.as_raw_fd() }, log.clone())
}

fn send(
    event_loop: &EventLoop,
    socket: &impl AsRawFd,
    bytes: &[u8],
    log: &Rc<Log>,
) -> ringspun_runtime::OperationKey {
    let data = SendData::Owned(bytes.to_vec());
    event_loop.submit(Operation::Send { socket: socket.as_raw_fd(), data }, log.clone())
}

fn poll(event_loop: &EventLoop, descriptor: RawFd, interest: Interest, log: &Rc<Log>) {
    event_loop.submit(Operation::Poll { descriptor, interest }, log.clone());
}

fn address(listener: &TcpListener) -> Box<Address> {
    match listener.local_addr().unwrap() {
        SocketAddr::V4(address) => Box::new(address.into()),
        SocketAddr::V6(address) => Box::new(address.into()),
    }
}

/// A blocking socket, as a program may adopt.
fn tcp_socket() -> OwnedFd {
    // SAFETY: our own new descriptor.
    unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)) }
}

#[test]
fn bytes_come_and_the_end_of_the_stream() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        // More than fits into one buffer.
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        near.write_all(&bytes).unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        receive(event_loop, &far, log);
        assert_eq!(log.outcome(event_loop, 1), (bytes, vec![Ok(0)]));
        // Half-closed: the other direction still works.
        send(event_loop, &far, b"back", log);
        assert_eq!(log.outcome(event_loop, 1).1, [Ok(4)]);
        let mut back = [0; 4];
        near.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"back");
    });
}

#[test]
fn a_cancel_comes_after_what_was_submitted_before_it() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"early").unwrap();
        let key = receive(event_loop, &far, log);
        event_loop.cancel(key);
        assert_eq!(log.outcome(event_loop, 1), (b"early".to_vec(), vec![Err(libc::ECANCELED)]));
        // Cancelled and armed again: nothing is lost.
        near.write_all(b"late").unwrap();
        let key = receive(event_loop, &far, log);
        turn_until(event_loop, || !log.0.borrow().is_empty());
        event_loop.cancel_and_wait(key).unwrap();
        assert_eq!(log.outcome(event_loop, 1), (b"late".to_vec(), vec![Err(libc::ECANCELED)]));
        // The send is over before the cancel.
        let key = send(event_loop, &far, b"sent", log);
        event_loop.cancel(key);
        assert_eq!(log.outcome(event_loop, 1).1, [Ok(4)]);
        // The key of an operation that is over matches nothing.
        event_loop.cancel(key);
        event_loop.turn(Wait::No).unwrap();
        assert!(log.0.borrow().is_empty());
    });
}

#[test]
fn a_slow_reader_gets_all_and_a_cancelled_send_tells_its_count() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n / 7) as u8).collect();
        send(event_loop, &far, &bytes, log);
        let expected = bytes.clone();
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            for piece in got.chunks_mut(50_000) {
                near.read_exact(piece).unwrap();
            }
            assert!(got == expected);
            near
        });
        assert_eq!(log.outcome(event_loop, 1).1, [Ok(bytes.len() as u32)]);
        let mut near = reader.join().unwrap();
        // The peer does not read: a part is sent, the cancel ends the rest, and the reported count is what arrives.
        let key = send(event_loop, &far, &bytes, log);
        event_loop.turn(Wait::No).unwrap();
        event_loop.cancel(key);
        let ends = log.outcome(event_loop, 1).1;
        let Ok(sent @ 1..) = ends[0] else { panic!("{ends:?}") };
        assert!((sent as usize) < bytes.len());
        drop(far);
        let mut got = Vec::new();
        near.read_to_end(&mut got).unwrap();
        assert!(got == bytes[..sent as usize]);
    });
}

#[test]
fn sends_of_one_stream_keep_their_order() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        for round in 0..200u8 {
            send(event_loop, &far, &[round; 10], log);
        }
        assert_eq!(log.outcome(event_loop, 200).1, [Ok(10); 200]);
        let mut got = [0; 2000];
        near.read_exact(&mut got).unwrap();
        assert!(got.is_sorted());
    });
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (near, far) = UnixStream::pair().unwrap();
        drop(near);
        send(event_loop, &far, b"lost", log);
        assert_eq!(log.outcome(event_loop, 1).1, [Err(libc::EPIPE)]);
        for (operation, errno) in [
            (Operation::Receive { socket: -1 }, libc::EBADF),
            (Operation::Poll { descriptor: -1, interest: Interest::Readable }, libc::EBADF),
        ] {
            event_loop.submit(operation, log.clone());
            assert_eq!(log.outcome(event_loop, 1).1, [Err(errno)]);
        }
        let file = std::fs::File::open(env!("CARGO_MANIFEST_DIR").to_string() + "/Cargo.toml").unwrap();
        receive(event_loop, &file, log);
        assert_eq!(log.outcome(event_loop, 1).1, [Err(libc::ENOTSOCK)]);
    });
}

/// Starts to receive twelve bytes into two buffers of four, which the log keeps.
fn receive_twelve_bytes_into_eight(event_loop: &EventLoop, far: &UnixStream, log: &Rc<Log>) -> OperationKey {
    let key = receive(event_loop, far, log);
    turn_until(event_loop, || log.0.borrow().len() == 2);
    (0..10).for_each(|_| event_loop.turn(Wait::No).unwrap());
    assert_eq!(event_loop.statistics().operations_in_flight, 1, "the receive waits for buffers");
    key
}

#[test]
fn a_receive_that_lacks_buffers_goes_on_when_some_come_back() {
    let sizes =
        Configuration { receive_buffers: 2, receive_buffer_size_bytes: 4, ..Configuration::default() };
    on_each_backend(sizes, |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"twelve bytes").unwrap();
        drop(near);
        receive_twelve_bytes_into_eight(event_loop, &far, log);
        let first: Vec<u8> =
            log.0.take().into_iter().flat_map(|(_, _, bytes)| bytes.unwrap().to_vec()).collect();
        assert_eq!(first, b"twelve b");
        assert_eq!(log.outcome(event_loop, 1), (b"ytes".to_vec(), vec![Ok(0)]));
    });
}

#[test]
fn a_receive_that_lacks_buffers_can_be_cancelled() {
    let sizes =
        Configuration { receive_buffers: 2, receive_buffer_size_bytes: 4, ..Configuration::default() };
    on_each_backend(sizes, |event_loop, log| {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(b"twelve bytes").unwrap();
        let key = receive_twelve_bytes_into_eight(event_loop, &far, log);
        event_loop.cancel(key);
        turn_until(event_loop, || log.0.borrow().iter().any(|entry| !entry.1));
        assert_eq!(log.outcome(event_loop, 1), (b"twelve b".to_vec(), vec![Err(libc::ECANCELED)]));
        let mut rest = [0; 8];
        assert_eq!(far.read(&mut rest).unwrap(), 4, "what was not received is still there");
    });
}

#[test]
fn connections_are_accepted_and_made_on_sockets_that_block() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepted = Rc::new(Log::default());
        let key = event_loop.submit(Operation::Accept { listener: listener.as_raw_fd() }, accepted.clone());
        let sockets: Vec<OwnedFd> = (0..40).map(|_| tcp_socket()).collect();
        for socket in &sockets {
            let operation = Operation::Connect { socket: socket.as_raw_fd(), address: address(&listener) };
            event_loop.submit(operation, log.clone());
        }
        assert_eq!(log.outcome(event_loop, 40).1, [Ok(0); 40]);
        turn_until(event_loop, || accepted.0.borrow().len() == 40);
        for (result, more, _) in accepted.0.take() {
            assert!(more);
            // SAFETY: an accepted connection belongs to its owner.
            let connection = unsafe { OwnedFd::from_raw_fd(result.unwrap() as RawFd) };
            // SAFETY: reads flags.
            let flags = unsafe {
                (
                    libc::fcntl(connection.as_raw_fd(), libc::F_GETFL),
                    libc::fcntl(connection.as_raw_fd(), libc::F_GETFD),
                )
            };
            assert!(flags.0 & libc::O_NONBLOCK != 0 && flags.1 & libc::FD_CLOEXEC != 0);
        }
        // SAFETY: reads flags.
        let flags = unsafe { libc::fcntl(sockets[0].as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_NONBLOCK, 0, "it blocks as before");
        event_loop.cancel(key);
        assert_eq!(accepted.outcome(event_loop, 1).1, [Err(libc::ECANCELED)]);
        // The listener is closed.
        let gone = address(&listener);
        drop(listener);
        let socket = tcp_socket();
        event_loop.submit(Operation::Connect { socket: socket.as_raw_fd(), address: gone }, log.clone());
        assert_eq!(log.outcome(event_loop, 1).1, [Err(libc::ECONNREFUSED)]);
    });
}

#[test]
fn a_connect_to_a_unix_listener_with_a_full_backlog_ends_at_once() {
    let folder = std::env::temp_dir().join(format!("ringspun-backends-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    on_each_backend(Configuration::default(), |event_loop, log| {
        let path = folder.join("listener");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: makes the queue of our own listener short.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let unix: Address = nix::sys::socket::UnixAddr::new(&path).map(unix_address).unwrap();
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
        let sockets: Vec<OwnedFd> = (0..2)
            // SAFETY: our own new descriptor.
            .map(|_| unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, kind, 0)) })
            .collect();
        let connect = |socket: &OwnedFd| {
            let operation = Operation::Connect { socket: socket.as_raw_fd(), address: Box::new(unix) };
            event_loop.submit(operation, log.clone());
            log.outcome(event_loop, 1).1[0]
        };
        assert_eq!(connect(&sockets[0]), Ok(0));
        assert_eq!(connect(&sockets[1]), Err(libc::EAGAIN));
        drop(listener.accept().unwrap());
        assert_eq!(connect(&sockets[1]), Ok(0), "there is room now");
    });
    let _ = std::fs::remove_dir_all(&folder);
}

fn unix_address(address: nix::sys::socket::UnixAddr) -> Address {
    use nix::sys::socket::SockaddrLike;
    // SAFETY: an address of the kernel's form, with its length.
    unsafe { Address::from_raw(address.as_ptr().cast(), Some(address.len())) }.unwrap()
}

#[test]
fn polls_tell_what_poll_tells() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (reader, mut writer) = io::pipe().unwrap();
        poll(event_loop, reader.as_raw_fd(), Interest::Readable, log);
        poll(event_loop, writer.as_raw_fd(), Interest::Writable, log);
        assert_eq!(log.outcome(event_loop, 1).1, [Ok(libc::POLLOUT as u32)]);
        assert!(log.0.borrow().is_empty(), "there is nothing to read yet");
        writer.write_all(b"now").unwrap();
        assert_eq!(log.outcome(event_loop, 1).1, [Ok(libc::POLLIN as u32)]);
        drop(writer);
        poll(event_loop, reader.as_raw_fd(), Interest::Readable, log);
        assert_eq!(log.outcome(event_loop, 1).1, [Ok((libc::POLLIN | libc::POLLHUP) as u32)]);
        // A file is always ready.
        let file = std::fs::File::open(env!("CARGO_MANIFEST_DIR").to_string() + "/Cargo.toml").unwrap();
        poll(event_loop, file.as_raw_fd(), Interest::Readable, log);
        assert_eq!(log.outcome(event_loop, 1).1, [Ok(libc::POLLIN as u32)]);
    });
}

#[test]
fn polls_and_receives_share_a_descriptor() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        let polls = Rc::new(Log::default());
        for _ in 0..2 {
            poll(event_loop, far.as_raw_fd(), Interest::Readable, &polls);
        }
        event_loop.turn(Wait::No).unwrap();
        let key = receive(event_loop, &far, log);
        event_loop.turn(Wait::No).unwrap();
        near.write_all(b"for all").unwrap();
        assert_eq!(polls.outcome(event_loop, 2).1, [Ok(libc::POLLIN as u32); 2]);
        turn_until(event_loop, || !log.0.borrow().is_empty());
        event_loop.cancel(key);
        assert_eq!(log.outcome(event_loop, 1), (b"for all".to_vec(), vec![Err(libc::ECANCELED)]));
    });
}

/// Whether the loop blocks while it is idle.
fn assert_it_sleeps(event_loop: &EventLoop) {
    let alarm = Rc::new(Flag::default());
    event_loop.insert_timer(Instant::now() + Duration::from_millis(100), alarm.clone());
    let mut turns = 0;
    while !alarm.0.get() {
        event_loop.turn(Wait::Block).unwrap();
        turns += 1;
    }
    assert!(turns < 20, "{turns} turns in a tenth of a second");
}

#[test]
fn urgent_data_does_not_keep_the_loop_awake() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        receive(event_loop, &far, log);
        event_loop.turn(Wait::No).unwrap();
        // SAFETY: one byte, which is alive.
        assert_eq!(unsafe { libc::send(near.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) }, 1);
        assert_it_sleeps(event_loop);
        (&near).write_all(b"usual").unwrap();
        drop(near);
        assert_eq!(log.outcome(event_loop, 1), (b"usual".to_vec(), vec![Ok(0)]));
    });
}

/// An unread error queue keeps a socket ready (`IP_RECVERR` in `ip(7)`).
#[cfg(target_os = "linux")]
#[test]
fn a_socket_that_is_ready_for_nothing_does_not_keep_the_loop_awake() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let on: libc::c_int = 1;
        // SAFETY: the option is read from `on`, with its size.
        let set = unsafe {
            let size = size_of_val(&on) as libc::socklen_t;
            let option = (&raw const on).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, option, size)
        };
        assert_eq!(set, 0);
        socket.send_to(b"nobody there", gone).unwrap();
        let receive_from = || {
            event_loop.submit(Operation::ReceiveFrom { socket: socket.as_raw_fd() }, log.clone());
        };
        receive_from();
        assert_eq!(log.outcome(event_loop, 1).1, [Err(libc::ECONNREFUSED)]);
        receive_from();
        assert_it_sleeps(event_loop);
        socket.send_to(b"still here", socket.local_addr().unwrap()).unwrap();
        turn_until(event_loop, || !log.0.borrow().is_empty());
        assert_eq!(log.0.take()[0].2.as_deref(), Some(&b"still here"[..]));
    });
}

#[derive(Default)]
struct Flag(std::cell::Cell<bool>);
impl Wake for Flag {
    fn wake(self: Rc<Self>) {
        self.0.set(true);
    }
}

#[test]
fn another_thread_ends_a_turn_as_often_as_it_likes() {
    on_each_backend(Configuration::default(), |event_loop, _| {
        let waker = event_loop.remote_waker();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            for () in receiver {
                waker.wake();
            }
        });
        for _ in 0..1000 {
            sender.send(()).unwrap();
            event_loop.turn(Wait::Block).unwrap();
        }
        drop(sender);
        thread.join().unwrap();
    });
}

#[test]
fn many_streams_are_served_in_one_go() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        // More than there are buffers, which poll fills over several turns. Before Linux 6.13, the kernel fills all
        // that it has at once, 32 initially, and then ends the receive.
        let count = if event_loop.backend_name() == "poll" { 300 } else { 30 };
        let mut pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().unwrap()).collect();
        for (_, far) in &pairs {
            receive(event_loop, far, log);
        }
        event_loop.turn(Wait::No).unwrap();
        for round in 0..3u8 {
            pairs.iter_mut().for_each(|(near, _)| near.write_all(&[round]).unwrap());
            turn_until(event_loop, || {
                // Copied immediately, so that buffers are returned.
                let mut log = log.0.borrow_mut();
                log.iter_mut().for_each(|entry| drop(entry.2.take()));
                log.len() >= count
            });
            let received = log.0.take();
            assert_eq!(received.len(), count);
            assert!(received.iter().all(|entry| entry.0 == Ok(1) && entry.1));
        }
        pairs.iter().for_each(|(near, _)| near.shutdown(Shutdown::Both).unwrap());
        assert_eq!(log.outcome(event_loop, count).1, vec![Ok(0); count]);
    });
}

#[test]
fn input_is_told_of_each_time_it_comes() {
    on_each_backend(Configuration::default(), |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let socket = far.as_raw_fd();
        let key = event_loop.submit(Operation::PollInput { socket }, log.clone());
        for text in [&b"one"[..], b"three", b"seven"] {
            near.write_all(text).unwrap();
            turn_until(event_loop, || !log.0.borrow().is_empty());
            let told = log.0.take();
            let is_input =
                |entry: &Entry| entry.1 && entry.0.is_ok_and(|events| events & libc::POLLIN as u32 != 0);
            assert!(told.iter().all(is_input), "{told:?}");
            assert_eq!(receive_now(event_loop, &far, 100).unwrap(), text);
        }
        assert_eq!(event_loop.is_readiness_based(), event_loop.backend_name() == "poll");
        assert_eq!(receive_now(event_loop, &far, 100), Err(libc::EAGAIN));
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive_now(event_loop, &far, 100).unwrap(), b"", "the end of the stream");
        event_loop.cancel(key);
        assert_eq!(log.outcome(event_loop, 1).1, [Err(libc::ECANCELED)]);
        assert_eq!(event_loop.statistics().buffers_lent, 0);
    });
}

/// Receives directly, as a user does if no buffer is free.
fn receive_now(event_loop: &EventLoop, mut socket: &UnixStream, limit_bytes: usize) -> Result<Vec<u8>, i32> {
    match event_loop.try_receive(socket.as_fd(), limit_bytes) {
        Ok(buffer) => Ok(buffer.to_vec()),
        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
            let mut bytes = vec![0; limit_bytes];
            let count = socket.read(&mut bytes).map_err(|error| error.raw_os_error().unwrap())?;
            Ok(bytes[..count].to_vec())
        }
        Err(error) => Err(error.raw_os_error().unwrap()),
    }
}

#[test]
fn direct_receives_keep_to_their_limit_and_fail_where_no_buffer_is_free() {
    let sizes = Configuration { receive_buffers: 2, receive_buffer_size_bytes: 4, ..Default::default() };
    on_each_backend(sizes, |event_loop, _| {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"0123456789ab").unwrap();
        // A ring takes all buffers in its first turn.
        let receive = |limit_bytes| event_loop.try_receive(far.as_fd(), limit_bytes);
        let (first, second) = (receive(100).unwrap(), receive(3).unwrap());
        assert_eq!((&*first, &*second, first.is_full()), (&b"0123"[..], &b"456"[..], true));
        assert_eq!(receive(100).unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        drop(first);
        assert_eq!(&*receive(100).unwrap(), b"789a");
    });
}

/// In some hundred waits, a loop blocks and busy-polls; this is for wake-ups, data and timers in turn.
#[test]
fn a_loop_notices_all_in_both_ways_of_waiting() {
    let sizes = Configuration {
        spin_max: Some(Duration::from_micros(50)),
        spin_for: Some(SpinFor::Latency),
        ..Configuration::default()
    };
    on_each_backend(sizes, |event_loop, log| {
        let (mut near, far) = UnixStream::pair().unwrap();
        receive(event_loop, &far, log);
        let (ask, asked) = std::sync::mpsc::channel();
        let waker = event_loop.remote_waker();
        let other = std::thread::spawn(move || {
            for number in asked {
                match number % 2 {
                    0 => waker.wake(),
                    _ => near.write_all(b"x").unwrap(),
                }
            }
        });
        let mut received = 0;
        for number in 0..600 {
            match number % 3 {
                2 => {
                    let alarm = Rc::new(Flag::default());
                    event_loop.insert_timer(Instant::now() + Duration::from_micros(200), alarm.clone());
                    turn_until(event_loop, || alarm.0.get());
                }
                _ => {
                    ask.send(number).unwrap();
                    event_loop.turn(Wait::Block).unwrap();
                }
            }
            received += log.0.take().iter().filter_map(|(_, _, buffer)| buffer.as_deref()).flatten().count();
        }
        drop(ask);
        other.join().unwrap();
        received += log.outcome(event_loop, 1).0.len();
        assert_eq!(received, 200);
        let statistics = event_loop.spin_statistics();
        assert!((1..statistics.waits).contains(&statistics.busy_polled), "{statistics:?}");
    });
}
