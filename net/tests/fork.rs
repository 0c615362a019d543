//! A child forked in a fiber does not affect its parent's sockets, whatever it calls on them, and however it ends.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use ringspun_fibers::{self as fibers, JoinHandle};
use ringspun_net::{self as net, Address, DatagramSocket, Listener, SocketOption, Stream};

/// What a child does in the middle of its parent's fiber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Exits with thread-local destructors, which drop the runtime.
    Exit,
    /// Closes every socket, and finds the descriptors closed.
    Close,
    /// Makes all other calls.
    Call,
    /// Runs a server and a client of its own.
    Serve,
    /// Waits, which its copy of the runtime cannot.
    Wait,
    /// Returns from the main fiber.
    Return,
}

/// How much a writer has left when the socket is full.
const MUCH_BYTES: usize = 8 << 20;

/// What the parent holds, with a fiber that waits on each.
struct Scene {
    reading: Rc<Stream>,
    writing: Rc<Stream>,
    /// A stream with a detached send.
    behind: Rc<Stream>,
    listener: Rc<Listener>,
    datagrams: Rc<DatagramSocket>,
    /// Of these.
    address: Address,
}

impl Scene {
    fn descriptors(&self) -> [RawFd; 3] {
        [self.reading.as_raw_fd(), self.writing.as_raw_fd(), self.behind.as_raw_fd()]
    }
}

/// A connection, whose far end belongs to the test.
fn pair() -> io::Result<(Rc<Stream>, TcpStream)> {
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let address = listener.localname()?.to_string();
    let accepting = fibers::spawn(move || listener.accept())?;
    let peer = fibers::blocking(move || TcpStream::connect(address)).unwrap()?;
    Ok((Rc::new(accepting.join()??), peer))
}

/// Ends the process without output of the test harness.
fn end(done: bool) -> ! {
    // SAFETY: ends the process immediately.
    unsafe { libc::_exit(if done { 0 } else { 101 }) }
}

/// Whether a call has failed because it was made in a child.
fn is_refused<T>(result: io::Result<T>) -> bool {
    let parent = format!("belongs to process {}; ", std::os::unix::process::parent_id());
    result.is_err_and(|error| error.to_string().contains(&parent))
}

fn call_all(scene: &Scene) {
    let Scene { reading, writing, behind, listener, datagrams, address } = scene;
    for stream in [reading, writing, behind] {
        assert!(is_refused(stream.read(&mut [0; 8])), "read");
        assert!(is_refused(stream.write(b"from the child")), "write");
        assert!(is_refused(stream.flush()), "flush");
        assert!(is_refused(stream.shutdown(Shutdown::Both)), "shutdown");
        assert!(is_refused(stream.set_option(SocketOption::KeepAlive(true))), "set_option");
    }
    assert!(is_refused(listener.accept()), "accept");
    assert!(is_refused(listener.set_option(SocketOption::KeepAlive(true))), "set_option");
    assert!(is_refused(datagrams.recv_from(&mut [0; 8])), "recv_from");
    assert!(is_refused(datagrams.send_to(address, b"from the child")), "send_to");
}

fn close_all(scene: &Scene) {
    let descriptors = scene.descriptors();
    scene.listener.close();
    scene.datagrams.close();
    for stream in [&scene.reading, &scene.writing, &scene.behind] {
        stream.close();
    }
    for descriptor in descriptors {
        // SAFETY: only asks whether there is such a descriptor.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
        assert_eq!(fcntl(descriptor, FcntlArg::F_GETFD), Err(Errno::EBADF));
    }
}

/// Checks that a runtime made in the child works.
fn serve() {
    let serving = || {
        fibers::run(|| -> io::Result<()> {
            let server = net::server("localhost:0", |stream| {
                let received = stream.receive().unwrap().unwrap();
                stream.write(&received).unwrap();
            })?;
            let client = net::connect(server.localname()?)?;
            client.write(b"Echo...")?;
            let mut answer = [0; 7];
            client.chunk(&mut answer)?;
            assert_eq!(&answer, b"Echo...");
            server.close();
            Ok(())
        })
    };
    // On another thread, as the forking fiber still runs on this one.
    std::thread::spawn(serving).join().unwrap().unwrap().unwrap();
}

/// Runs the child's action; unless that ends it, the child continues in its copy of the main fiber.
fn perform(deed: Deed, scene: &Scene) -> io::Result<()> {
    let call = |function: &dyn Fn()| end(catch_unwind(AssertUnwindSafe(function)).is_ok());
    match deed {
        // `std::process::exit` waits for a lock that a thread which starts or ends may have held during the fork.
        // SAFETY: what it calls takes no such lock.
        Deed::Exit => unsafe { libc::exit(0) },
        Deed::Close => call(&|| close_all(scene)),
        Deed::Call => call(&|| call_all(scene)),
        Deed::Serve => call(&serve),
        // Long: a sleep that is over before it could wait does not fail.
        Deed::Wait => Ok(fibers::sleep(Duration::from_secs(3600))?),
        Deed::Return => Ok(()),
    }
}

/// Runs `test` in a runtime; a child that comes out of it, too, ends here.
fn run_with_child(deed: Deed, test: impl FnOnce() -> io::Result<()> + 'static) {
    let parent = std::process::id();
    let ran = catch_unwind(AssertUnwindSafe(|| fibers::run(test)));
    if std::process::id() != parent {
        end(match deed {
            Deed::Return => matches!(ran, Ok(Ok(Ok(())))),
            // A wait fails, as the child has no loop.
            _ => ran.is_ok_and(is_refused),
        });
    }
    ran.unwrap_or_else(|_| panic!("{deed:?}")).unwrap().unwrap();
}

fn ended(child: Pid, deed: Deed) {
    // While the fibers of this thread run.
    let waited = fibers::blocking(move || waitpid(child, None)).unwrap().unwrap();
    assert_eq!(waited, WaitStatus::Exited(child, 0), "{deed:?}");
}

fn parent_goes_on(deed: Deed) -> io::Result<()> {
    let ((reading, mut reading_peer), (writing, writing_peer), (behind, behind_peer)) =
        (pair()?, pair()?, pair()?);
    let listener = Rc::new(net::listen("127.0.0.1:0")?);
    let datagrams = Rc::new(net::listen_datagram("127.0.0.1:0")?);
    let (reader, writer) = (reading.clone(), writing.clone());
    let (acceptor, receiver) = (listener.clone(), datagrams.clone());
    let reader: JoinHandle<io::Result<Vec<u8>>> = fibers::spawn(move || {
        let mut bytes = vec![0; 64];
        reader.read(&mut bytes).map(|count| bytes[..count].to_vec())
    })?;
    let writer = fibers::spawn(move || writer.write(&vec![7; MUCH_BYTES]))?;
    let acceptor = fibers::spawn(move || acceptor.accept().map(drop))?;
    let receiver = fibers::spawn(move || receiver.recv_from(&mut [0; 64]).map(|(count, _)| count))?;
    let sleeper = fibers::spawn(|| fibers::sleep(Duration::from_millis(20)))?;
    // Nothing with a lock, which the parent's thread may hold during a fork.
    let (mut release, mut released) = UnixStream::pair()?;
    let blocked = fibers::spawn(move || fibers::blocking(move || released.read_exact(&mut [0]))?)?;
    for _ in 0..10 {
        fibers::yield_now()?;
    }
    assert!(!writer.is_finished(), "the socket took all");
    behind.set_write_behind(true);
    behind.write(b"left behind")?;
    let address = datagrams.localname()?;
    let scene = Scene { reading, writing, behind, listener, datagrams, address };
    // SAFETY: the child has only this thread, and prints nothing.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Child => return perform(deed, &scene),
        ForkResult::Parent { child } => child,
    };
    ended(child, deed);
    let read_all = |mut peer: TcpStream, count: usize| {
        move || -> io::Result<Vec<u8>> {
            let mut bytes = vec![0; count];
            peer.read_exact(&mut bytes)?;
            // Neither more nor an end.
            peer.set_nonblocking(true)?;
            let next = peer.read(&mut [0]);
            assert!(next.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "{next:?}");
            Ok(bytes)
        }
    };
    assert_eq!(fibers::blocking(read_all(behind_peer, 11)).unwrap()?, b"left behind");
    assert!(fibers::blocking(read_all(writing_peer, MUCH_BYTES)).unwrap()?.iter().all(|byte| *byte == 7));
    assert_eq!(writer.join()??, MUCH_BYTES);
    reading_peer.write_all(b"for the parent")?;
    assert_eq!(reader.join()??, b"for the parent");
    let address = scene.listener.localname()?.to_string();
    let _client = fibers::blocking(move || TcpStream::connect(address)).unwrap()?;
    acceptor.join()??;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", scene.datagrams.localname()?.to_string())?;
    assert_eq!(receiver.join()??, 5);
    sleeper.join()??;
    release.write_all(&[0])?;
    blocked.join()?
}

fn check(deed: Deed) {
    for _ in 0..5 {
        run_with_child(deed, move || parent_goes_on(deed));
    }
}

#[test]
fn a_child_that_exits_leaves_its_parent_as_it_was() {
    check(Deed::Exit);
}

#[test]
fn a_child_that_closes_sockets_closes_its_own_descriptors() {
    check(Deed::Close);
}

#[test]
fn calls_in_a_child_are_refused() {
    check(Deed::Call);
}

#[test]
fn a_child_can_run_a_runtime_of_its_own() {
    check(Deed::Serve);
}

#[test]
fn a_wait_in_a_child_ends_its_copy_of_the_runtime() {
    check(Deed::Wait);
}

#[test]
fn a_child_that_returns_from_the_main_fiber_leaves_its_parent_as_it_was() {
    check(Deed::Return);
}
