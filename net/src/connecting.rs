//! Connecting streams.

use std::io;
use std::rc::Rc;

use ringspun_fibers::WaitReason;
use ringspun_runtime::EventLoop;

use crate::address::Address;
use crate::endpoint::Peer;
use crate::error::OperationError;
use crate::machine::{Connect, SocketKind};
use crate::stream::Stream;
use crate::waiting::{current_loop, resolve, wait_on};

/// Connects to an address over TCP, or to a Unix stream socket, parking until the peer accepts or refuses. Looks up a
/// name that is not numeric on another thread, while other fibers run. Tries all addresses of a name in turn, each for
/// as long as the kernel does (`tcp(7)`, `tcp_syn_retries`): use a deadline, which also ends the lookup.
///
/// # Errors
///
/// The resolver's, or that of the last address tried, with the address in the text; an interrupt of the fiber, which
/// cancels the attempt; `InvalidInput` if the address cannot be parsed; `Unsupported` outside of a runtime.
///
/// # Panics
///
/// Outside of a fiber on a thread that has a runtime, as in a task of a [`Remote`](ringspun_fibers::Remote).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let server = net::server("127.0.0.1:0", |stream| {
///         stream.write(b"hello").unwrap();
///     })?;
///     let address = server.localname()?;
///     let client = fibers::with_deadline(Duration::from_secs(60), || net::connect(address))?;
///     let mut greeting = [0; 5];
///     assert_eq!(client.chunk(&mut greeting)?, 5);
///     assert_eq!(&greeting, b"hello");
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn connect(address: impl Peer) -> io::Result<Stream> {
    let endpoint = address.endpoint()?;
    let event_loop = current_loop()?;
    let connected = resolve(&event_loop, &endpoint, SocketKind::Stream, false)
        .and_then(|addresses| connect_to(event_loop, addresses, Vec::new()));
    connected.map_err(|error| OperationError::wrap("connect to", &endpoint, error))
}

/// As [`connect`], from a local address: to choose a network interface, or for more connections than one address has
/// ports (`ip_local_port_range` in `ip(7)`). With port 0, the kernel chooses a port when it knows the peer (Linux 4.2),
/// so that connections to different peers may share one.
///
/// # Errors
///
/// As [`connect`], and the kernel's if the source is not a local address or has no port left (`AddrNotAvailable`), with
/// both addresses in the text.
///
/// # Panics
///
/// As [`connect`].
///
/// # Examples
///
/// ```
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let listener = net::listen("127.0.0.1:0")?;
///     let client = net::connect_from("127.0.0.1:0", listener.localname()?)?;
///     assert!(client.localname()?.to_string().starts_with("127.0.0.1:"));
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn connect_from(source: impl Peer, address: impl Peer) -> io::Result<Stream> {
    let (source, endpoint) = (source.endpoint()?, address.endpoint()?);
    let event_loop = current_loop()?;
    let look_up = |endpoint| resolve(&event_loop, endpoint, SocketKind::Stream, false);
    let connected = look_up(&source).and_then(|sources| {
        let addresses = look_up(&endpoint)?;
        connect_to(event_loop.clone(), addresses, sources)
    });
    connected
        .map_err(|error| OperationError::wrap("connect to", format_args!("{endpoint} from {source}"), error))
}

fn connect_to(
    event_loop: Rc<EventLoop>,
    addresses: Vec<Address>,
    sources: Vec<Address>,
) -> io::Result<Stream> {
    let connected = wait_on(
        &event_loop,
        Connect::new(event_loop.clone(), addresses, sources),
        None,
        |machine, waiter| machine.poll(waiter).map_err(io::Error::from),
        Connect::abandon,
        |machine| match machine.target() {
            Some(address) => WaitReason::new("connect to", address),
            None => WaitReason::new("connect to", "an address"),
        },
    );
    connected.map(Stream::from_core)
}
