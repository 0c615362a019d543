//! The purposes of lookups, and how they continue: with sockets that listen or connect, or with the addresses
//! themselves.

use std::rc::Rc;

use ringspun_net::Address;
use ringspun_net::machine::{
    Connect, ConnectError, DatagramCore, ListenerCore, Query, Resolve, ResolveError, Reuse, SocketKind,
    connect_datagram, listen_on,
};

use crate::api as janet;
use crate::api::Janet;
use crate::bridge::Bridge;
use crate::socket::Socket;
use crate::values::{address_value, error_string, explained, string};

const DATAGRAM: u32 = janet::JANET_STREAM_UDPSERVER;
const READABLE: u32 = janet::JANET_STREAM_READABLE;
const WRITABLE: u32 = janet::JANET_STREAM_WRITABLE;

/// The purpose of a lookup.
pub(crate) enum Purpose {
    /// `net/address`: the first, or all.
    Address {
        all: bool,
    },
    Listen {
        kind: SocketKind,
        reuse: bool,
    },
    /// The address to connect to; the local address, if given, is looked up next.
    Connect {
        kind: SocketKind,
        source: Option<Query>,
    },
    /// The local address to connect from.
    ConnectFrom {
        kind: SocketKind,
        targets: Vec<Address>,
    },
}

/// The next step after a lookup.
pub(crate) enum Next {
    Value(Janet),
    Error(Janet),
    /// Another lookup.
    Resolve {
        machine: Resolve,
        purpose: Box<Purpose>,
    },
    Connect {
        machine: Box<Connect>,
        is_unix: bool,
    },
}

impl Purpose {
    /// Continues with the addresses, or the error in the VM's words.
    pub(crate) fn proceed(
        &mut self,
        bridge: &Rc<Bridge>,
        answer: Result<Vec<Address>, ResolveError>,
    ) -> Next {
        let whose = if matches!(self, Self::ConnectFrom { .. }) { " for bindhost" } else { "" };
        let addresses = match answer {
            Ok(addresses) => addresses,
            Err(error) => {
                return Next::Error(string(&format!("could not get address info{whose}: {error}")));
            }
        };
        match self {
            Self::Address { all: true } => Next::Value(addresses_value(&addresses)),
            Self::Address { all: false } => match addresses.first() {
                Some(address) => Next::Value(address_value(address)),
                None => Next::Error(string("no data for given address")),
            },
            Self::Listen { kind, reuse } => match listen(bridge, &addresses, *kind, *reuse) {
                Ok(stream) => Next::Value(stream),
                Err(error) => Next::Error(error),
            },
            Self::Connect { kind, source: None } => connect(bridge, *kind, addresses, Vec::new()),
            Self::Connect { kind, source } => match source.take() {
                None => connect(bridge, *kind, addresses, Vec::new()),
                Some(query) => Next::Resolve {
                    machine: Resolve::new(bridge.event_loop(), query),
                    purpose: Box::new(Self::ConnectFrom { kind: *kind, targets: addresses }),
                },
            },
            Self::ConnectFrom { kind, targets } => connect(bridge, *kind, std::mem::take(targets), addresses),
        }
    }
}

/// All addresses, as an array.
fn addresses_value(addresses: &[Address]) -> Janet {
    let capacity = i32::try_from(addresses.len()).unwrap_or(0);
    // SAFETY: the VM runs on this thread, and collects nothing before we return.
    unsafe {
        let array = janet::janet_array(capacity);
        for address in addresses {
            janet::janet_array_push(array, address_value(address));
        }
        janet::janet_wrap_array(array)
    }
}

fn listen(bridge: &Rc<Bridge>, addresses: &[Address], kind: SocketKind, reuse: bool) -> Result<Janet, Janet> {
    let descriptor =
        listen_on(addresses, kind, if reuse { Reuse::Port } else { Reuse::Nothing }).map_err(|error| {
            match addresses.first() {
                Some(address) if address.is_unix() => explained("could not bind socket", &error),
                _ => string("could not bind to any sockets"),
            }
        })?;
    let event_loop = bridge.event_loop().clone();
    Ok(match kind {
        SocketKind::Stream => bridge.stream_value(
            Socket::Listener(ListenerCore::new(event_loop, descriptor), None),
            janet::JANET_STREAM_ACCEPTABLE,
        ),
        SocketKind::Datagram => bridge
            .stream_value(Socket::Datagram(DatagramCore::new(event_loop, descriptor)), DATAGRAM | READABLE),
    })
}

fn connect(bridge: &Rc<Bridge>, kind: SocketKind, targets: Vec<Address>, sources: Vec<Address>) -> Next {
    let is_unix = targets.first().is_some_and(Address::is_unix);
    match kind {
        SocketKind::Stream => {
            let machine = Box::new(Connect::new(bridge.event_loop().clone(), targets, sources));
            Next::Connect { machine, is_unix }
        }
        SocketKind::Datagram => match connect_datagram(bridge.event_loop(), &targets, &sources) {
            Ok(core) => {
                Next::Value(bridge.stream_value(Socket::Datagram(core), DATAGRAM | READABLE | WRITABLE))
            }
            // The VM's own function raises all of these errors immediately.
            Err(error) => Next::Error(connect_error(&error, true)),
        },
    }
}

/// In the words of the VM's own `net/connect`, which meets some errors at once and some later.
pub(crate) fn connect_error(error: &ConnectError, is_unix: bool) -> Janet {
    match error {
        ConnectError::Socket(error) => explained("could not create socket", error),
        ConnectError::Bind(error) => explained("could not bind outgoing address", error),
        ConnectError::Connect(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ETIMEDOUT | libc::EHOSTUNREACH)
                if !is_unix =>
            {
                error_string(error)
            }
            _ => explained("could not connect socket", error),
        },
    }
}
