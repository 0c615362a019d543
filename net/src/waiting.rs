//! Drives machines from fibers, which park between polls, and abandons them on interrupts.

use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_fibers::{self as fibers, WaitReason};
use ringspun_runtime::{EventLoop, Wake};

use crate::address::{Address, local_address, peer_address};
use crate::endpoint::{Endpoint, Peer};
use crate::error::{OperationError, closed};
use crate::machine::{Kind, Resolve, Socket, SocketKind};

/// The event loop of this thread's runtime.
pub(crate) fn current_loop() -> io::Result<Rc<EventLoop>> {
    fibers::event_loop().ok_or_else(|| {
        let text = "no runtime of fibers runs on this thread: start one with ringspun_fibers::run";
        io::Error::new(io::ErrorKind::Unsupported, text)
    })
}

/// Runs `function`, with a time limit if there is a timeout.
#[inline]
pub(crate) fn within<T>(timeout: Option<Duration>, function: impl FnOnce() -> T) -> T {
    match timeout {
        Some(timeout) => fibers::with_time_limit(timeout, function),
        None => function(),
    }
}

/// Fails unless the fiber's runtime turns `event_loop`: otherwise, the fiber would never be woken.
///
/// # Panics
///
/// Outside of a fiber.
#[inline]
pub(crate) fn check_loop(event_loop: &Rc<EventLoop>) -> io::Result<()> {
    if fibers::runs_on(event_loop) { Ok(()) } else { Err(of_another_loop(event_loop)) }
}

#[cold]
fn of_another_loop(event_loop: &EventLoop) -> io::Error {
    // Panics outside of a fiber.
    let _ = fibers::waiter();
    if event_loop.is_shut_down() {
        return closed(event_loop);
    }
    let text = "the socket belongs to another event loop than the one that this thread's runtime turns";
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Parks until `poll` is ready. If the fiber is interrupted, calls `abandon` with the machine and the waiter. `reason`
/// says in a dump what the fiber waits for.
pub(crate) fn wait_on<M, T>(
    event_loop: &Rc<EventLoop>,
    mut machine: M,
    timeout: Option<Duration>,
    mut poll: impl FnMut(&mut M, &Rc<dyn Wake>) -> Poll<io::Result<T>>,
    abandon: impl FnOnce(M, &Rc<dyn Wake>),
    reason: impl Fn(&M) -> WaitReason,
) -> io::Result<T> {
    check_loop(event_loop)?;
    fibers::check()?;
    let waited = within(timeout, || fibers::wait_telling(&mut machine, &mut poll, &reason));
    waited.unwrap_or_else(|interrupt| {
        abandon(machine, &fibers::waiter());
        Err(interrupt.into())
    })
}

/// Why a fiber waits that does `operation` with a socket: named by its peer, or else by its own address.
#[cold]
pub(crate) fn reason_of<K: Kind>(operation: &'static str, socket: &Socket<K>) -> WaitReason {
    let local = socket.socket().and_then(local_address);
    match (socket.socket().and_then(peer_address), local) {
        (Ok(peer), Ok(local)) => WaitReason::new(operation, format_args!("{peer} (at {local})")),
        (Ok(address), Err(_)) | (Err(_), Ok(address)) => WaitReason::new(operation, address),
        (Err(_), Err(_)) => WaitReason::new(operation, "a closed socket"),
    }
}

/// Parks until the addresses of an endpoint are known.
pub(crate) fn resolve(
    event_loop: &Rc<EventLoop>,
    endpoint: &Endpoint,
    kind: SocketKind,
    passive: bool,
) -> io::Result<Vec<Address>> {
    let machine = Resolve::endpoint(event_loop, endpoint, kind, passive)?;
    let poll = |machine: &mut Resolve, waiter: &Rc<_>| machine.poll(waiter).map_err(io::Error::from);
    wait_on(event_loop, machine, None, poll, |_, _| {}, |_| WaitReason::new("the addresses of", endpoint))
}

/// The first address of a name: Janet's `net/address`.
///
/// Looks up a name that is not numeric by `getaddrinfo(3)` on another thread, while other fibers run. An interrupt of
/// the fiber, such as a deadline, ends the wait.
///
/// # Errors
///
/// The resolver's, with the name in the text; an interrupt of the fiber; `InvalidInput` if the name cannot be parsed;
/// `Unsupported` outside of a runtime.
///
/// # Panics
///
/// Outside of a fiber on a thread that has a runtime.
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| {
///     let address = net::address("127.0.0.1:80").unwrap();
///     assert_eq!(address.port(), Some(80));
///     assert!(net::addresses("localhost:80").unwrap().iter().all(|address| address.port() == Some(80)));
/// })
/// .unwrap();
/// ```
pub fn address(peer: impl Peer) -> io::Result<Address> {
    let endpoint = peer.endpoint()?;
    addresses(&endpoint)?
        .into_iter()
        .next()
        .ok_or_else(|| OperationError::wrap("look up", &endpoint, io::ErrorKind::NotFound.into()))
}

/// All addresses of a name, in the order in which to try them (RFC 6724): Janet's `net/address` with `multi`.
///
/// # Errors
///
/// As [`address`].
///
/// # Panics
///
/// As [`address`].
pub fn addresses(peer: impl Peer) -> io::Result<Vec<Address>> {
    let endpoint = peer.endpoint()?;
    resolve(&current_loop()?, &endpoint, SocketKind::Stream, false)
        .map_err(|error| OperationError::wrap("look up", &endpoint, error))
}
