//! Datagram sockets: they receive datagrams, and may have any number of sends in flight.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::{MsgFlags, recv};
use ringspun_runtime::{Completion, Operation, OperationKey, WaitList};
use slab::Slab;

use super::budget::Budget;
use super::chunk::Chunk;
use super::socket::{Kind, Socket, Taken};
use crate::address::{Address, local_address};
use crate::system::shutdown;

/// The overhead of a queued datagram, so that empty ones count too.
const OVERHEAD_BYTES: usize = 256;

/// The kind of datagram sockets.
#[derive(Debug)]
pub struct Datagrams;

/// The shared part of a datagram socket.
pub type DatagramCore = Socket<Datagrams>;

/// A received datagram.
#[derive(Debug)]
pub struct Arrived {
    /// Its bytes.
    pub bytes: Chunk,
    /// The sender's address.
    pub source: Address,
}

/// A datagram that was received ahead, and left to other owners of its socket.
pub type Arrival = (Box<[u8]>, Address);

/// The output side of a datagram socket.
pub struct Sends {
    /// Sends and waits for room in flight.
    pub(super) in_flight: RefCell<Slab<Option<OperationKey>>>,
    /// Senders that pause before a retry.
    pub(super) pausing: WaitList,
    /// Whether this is a Unix socket, whose datagrams can be longer than the loop's buffers: each is received into
    /// memory of its size, once it has arrived.
    is_unix: bool,
    /// The socket has been shut down for reading: the kernel calls it readable from then on, and has nothing.
    is_shut_for_reading: Cell<bool>,
}

impl Kind for Datagrams {
    type Piece = Arrived;
    type Detached = Arrival;
    type Output = Sends;

    /// Beyond this, datagrams stay in the kernel's buffer, which drops those that do not fit.
    const QUEUE_MAX: usize = 256 * 1024;
    const ERROR_IS_END: bool = false;
    const CLOSE_FREES_PORT: bool = true;
    const TAKE_COST: u8 = Budget::MESSAGE;
    const BUDGET: u8 = Budget::OF_SHARED_SOCKET;

    #[inline]
    fn weight(arrived: &Arrived) -> usize {
        arrived.bytes.len() + OVERHEAD_BYTES
    }

    fn output_of(descriptor: &OwnedFd) -> Sends {
        let is_unix = local_address(descriptor).is_ok_and(|address| address.is_unix());
        let is_shut_for_reading = Cell::new(false);
        Sends { in_flight: RefCell::default(), pausing: WaitList::default(), is_unix, is_shut_for_reading }
    }

    fn continuous_operation(socket: &DatagramCore) -> Option<Operation> {
        (!socket.output.is_unix).then(|| Operation::ReceiveFrom { socket: socket.descriptor() })
    }

    fn take_now(socket: &DatagramCore, _: usize) -> io::Result<Taken<Arrived>> {
        loop {
            match receive_whole(socket.descriptor()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return received.map(|piece| Taken::Piece { piece, is_last: false }),
            }
        }
    }

    #[inline]
    fn piece_of(_: &DatagramCore, completion: Completion) -> Option<Arrived> {
        let buffer = completion.buffer?;
        let source = buffer.source().map_or_else(Address::unnamed, Address::from_raw);
        Some(Arrived { bytes: Chunk::Lent(buffer).kept(), source })
    }

    fn detach(arrived: Arrived) -> Arrival {
        (Box::from(&*arrived.bytes), arrived.source)
    }

    fn attach((bytes, source): Arrival) -> Arrived {
        Arrived { bytes: Chunk::owned(bytes), source }
    }

    fn end_output(socket: &Rc<DatagramCore>) {
        let in_flight: Vec<OperationKey> =
            socket.output.in_flight.borrow().iter().filter_map(|(_, key)| *key).collect();
        for key in in_flight {
            // After an error of the loop, the descriptor stays open: the kernel may still use it.
            let _ = socket.event_loop().cancel_and_wait(key);
        }
    }

    fn wake_writers(socket: &DatagramCore) {
        socket.output.pausing.wake_all();
    }

    fn is_output_over(socket: &DatagramCore) -> bool {
        socket.output.in_flight.borrow().is_empty()
    }

    fn is_output_idle(socket: &DatagramCore) -> bool {
        Self::is_output_over(socket) && socket.output.pausing.is_empty()
    }
}

impl DatagramCore {
    /// The next datagram; `None` if it must be waited for, with [`wait_for_input`](Self::wait_for_input).
    pub(crate) fn next_datagram(&self) -> io::Result<Option<Arrived>> {
        self.check_open()?;
        let arrived = self.take(usize::MAX);
        if arrived.is_some() {
            return Ok(arrived);
        }
        self.input_ended()?;
        // As `recv(2)` that may block. Waiting would end at once, again and again.
        let has_ended = self.output.is_shut_for_reading.get() && self.has_nothing_to_take();
        Ok(has_ended.then(|| Arrived { bytes: Chunk::owned([]), source: Address::unnamed() }))
    }

    /// Shuts down one or both directions (`shutdown(2)`).
    ///
    /// # Errors
    ///
    /// The kernel's, such as not being connected; [`Closed`](crate::Closed).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.check_open()?;
        shutdown(self.descriptor(), how)?;
        if how != Shutdown::Write {
            // Those that wait are woken by the kernel.
            self.output.is_shut_for_reading.set(true);
        }
        Ok(())
    }

    /// Sends a datagram without waiting; false if it would block, or if the socket's budget until the next turn of the
    /// loop is used up.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed), or the kernel's.
    pub fn try_send_to(&self, data: &[u8], destination: Option<Address>) -> io::Result<bool> {
        self.check_open()?;
        if !self.budget.spend(self.event_loop(), Budget::MESSAGE, Datagrams::BUDGET) {
            return Ok(false);
        }
        let destination = destination.map(Address::raw);
        match self.event_loop().try_send_to(self.socket()?, data, destination.as_ref()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether an event signals room for a datagram to this destination. A Unix socket only signals room at the peer
    /// that it is connected to.
    pub(crate) fn signals_room(&self, destination: Option<Address>) -> bool {
        !self.output.is_unix || destination.is_none()
    }

    /// Puts bytes back at the front of the queue, for the next reader.
    pub(crate) fn put_back_bytes(&self, bytes: &[u8], source: Address) {
        self.put_back(Arrived { bytes: Chunk::owned(bytes), source });
    }
}

/// Receives one datagram into memory of its size, without waiting.
fn receive_whole(descriptor: RawFd) -> io::Result<Arrived> {
    // With TRUNC, returns the size of the whole datagram.
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
    let mut bytes = vec![0_u8; recv(descriptor, &mut [], peek)?];
    let mut name = [0_u64; size_of::<libc::sockaddr_storage>() / size_of::<u64>()];
    let mut name_length = size_of_val(&name) as libc::socklen_t;
    // SAFETY: the buffer and the name are valid for the lengths that are passed.
    let count = unsafe {
        libc::recvfrom(
            descriptor,
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT,
            name.as_mut_ptr().cast(),
            &raw mut name_length,
        )
    };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(count);
    let name_length = size_of_val(&name).min(name_length as usize);
    // SAFETY: the length is at most that of the name, and its bytes are initialized.
    let name = unsafe { std::slice::from_raw_parts(name.as_ptr().cast::<u8>(), name_length) };
    let source = Address::from_bytes(name).unwrap_or_else(Address::unnamed);
    Ok(Arrived { bytes: Chunk::owned(bytes), source })
}
