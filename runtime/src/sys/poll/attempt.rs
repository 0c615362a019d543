//! The operations as system calls that do not block: what each tries, and what the answers mean.
//!
//! | errno | of | meaning | what we do |
//! | --- | --- | --- | --- |
//! | `EINTR` | all | a signal came | try again at once |
//! | `EAGAIN`, `EWOULDBLOCK` | a datagram | there is no room | complete it with the error |
//! | `EAGAIN`, `EWOULDBLOCK` | others but `connect` | not ready | wait for readiness |
//! | `EINPROGRESS` | `connect` | it has begun | wait for readiness, then ask how it ended |
//! | `EAGAIN` | `connect` | the backlog of a Unix listener is full, and no readiness tells of room | complete it with the error |
//! | others | a send that had sent a part | it ends early | complete it with its count |
//! | others | all | it failed | complete it with the error |

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;

use nix::sys::socket::SockaddrLike;

use super::readiness::Readiness;
use super::system::{self, last_errno, uninterrupted, would_block};
use crate::buffers::{BufferPool, datagram};
use crate::completion::RawCompletion;
use crate::operation::{Address, Interest, Operation, OperationKey};
use crate::ready::ReadyQueue;
use crate::sys::SEND_MAX_BYTES;

/// How often one event of one descriptor is followed up, so that a busy one cannot keep the others from
/// their turn: receives that fill their buffer, datagrams, and connections.
const RECEIVES_PER_EVENT: usize = 4;
const DATAGRAMS_PER_EVENT: usize = 16;
const ACCEPTS_PER_EVENT: usize = 64;

/// An operation that is not over.
pub(super) struct Job {
    pub(super) key: OperationKey,
    pub(super) descriptor: RawFd,
    task: Task,
}

/// What there is to do. Pointers are to memory that the operation's slot owns, or that a lender keeps.
enum Task {
    Accept {
        blocks: bool,
    },
    /// On a socket of another family, a receive may come back with less than is there.
    Receive {
        is_inet: bool,
    },
    ReceiveFrom,
    Send {
        start: *const u8,
        length: u32,
        sent: u32,
    },
    SendTo {
        header: *const libc::msghdr,
    },
    Connect {
        address: *const libc::sockaddr,
        length: libc::socklen_t,
        begun: bool,
    },
    Poll {
        events: libc::c_short,
    },
    PollInput {
        is_inet: bool,
    },
}

/// Which of its two kinds of readiness a descriptor has to have for an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Input,
    Output,
}

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The operation is over, and its terminal completion with the others.
    Over,
    /// It got something, and readiness will tell when there is more.
    Advanced,
    /// It left something for the next turn.
    Left,
    /// It was not ready.
    Blocked,
}

/// Sends what the socket has room for.
pub(in crate::sys) fn try_send(socket: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    let length = data.len().min(SEND_MAX_BYTES);
    counted(send(socket.as_raw_fd(), data.as_ptr(), length))
}

/// Sends a datagram, if there is room for it.
pub(in crate::sys) fn try_send_to(
    socket: BorrowedFd<'_>,
    data: &[u8],
    destination: Option<&Address>,
) -> io::Result<usize> {
    let (start, length, flags) = (data.as_ptr(), data.len(), libc::MSG_DONTWAIT | system::NO_SIGNAL);
    let (address, address_length) =
        destination.map_or((std::ptr::null(), 0), |address| (address.as_ptr(), address.len()));
    let socket = socket.as_raw_fd();
    // SAFETY: data and an address that are borrowed until the call is over.
    counted(uninterrupted(|| unsafe {
        libc::sendto(socket, start.cast(), length, flags, address, address_length)
    }))
}

fn counted(result: Result<u32, i32>) -> io::Result<usize> {
    result.map(|count| count as usize).map_err(io::Error::from_raw_os_error)
}

fn send(socket: RawFd, start: *const u8, length: usize) -> Result<u32, i32> {
    let flags = libc::MSG_DONTWAIT | system::NO_SIGNAL;
    // SAFETY: the operation's data, which lives until its terminal completion, or data that is borrowed.
    uninterrupted(|| unsafe { libc::send(socket, start.cast(), length, flags) })
}

/// Receives what is there, up to `size_bytes` bytes.
///
/// # Safety
///
/// There must be `size_bytes` bytes at `start`, which nobody else uses meanwhile.
pub(in crate::sys) unsafe fn try_receive(
    socket: BorrowedFd<'_>,
    start: *mut u8,
    size_bytes: usize,
) -> io::Result<u32> {
    // SAFETY: the caller vouches for the bytes.
    unsafe { receive(socket.as_raw_fd(), start, size_bytes) }.map_err(io::Error::from_raw_os_error)
}

/// # Safety
///
/// As [`try_receive`].
unsafe fn receive(socket: RawFd, start: *mut u8, size_bytes: usize) -> Result<u32, i32> {
    let size_bytes = size_bytes.min(i32::MAX as usize);
    // SAFETY: the caller vouches for the bytes.
    uninterrupted(|| unsafe { libc::recv(socket, start.cast(), size_bytes, libc::MSG_DONTWAIT) })
}

/// The buffers of one kind.
pub(super) struct Supply {
    pool: Rc<BufferPool>,
    /// Whether this turn has used any. If so, a lack of them is no reason to end an operation: those that
    /// this turn fills may be back in the next one, which finds the descriptor ready again.
    used: bool,
}

impl Supply {
    pub(super) fn new(pool: Rc<BufferPool>) -> Self {
        Self { pool, used: false }
    }

    pub(super) fn begin_turn(&mut self) {
        self.used = false;
    }
}

/// The buffers of both kinds.
pub(super) struct Supplies {
    pub(super) streams: Supply,
    pub(super) datagrams: Supply,
}

impl Job {
    pub(super) fn new(key: OperationKey, operation: &mut Operation) -> Self {
        let (descriptor, task) = match operation {
            Operation::Accept { listener } => (*listener, Task::Accept { blocks: system::blocks(*listener) }),
            Operation::Receive { socket } => (*socket, Task::Receive { is_inet: system::is_inet(*socket) }),
            Operation::ReceiveFrom { socket } => (*socket, Task::ReceiveFrom),
            Operation::Send { socket, data } => {
                let (start, length) = data.as_raw();
                (*socket, Task::Send { start, length: length.min(SEND_MAX_BYTES) as u32, sent: 0 })
            }
            Operation::SendTo { socket, datagram } => (*socket, Task::SendTo { header: datagram.header() }),
            Operation::Connect { socket, address } => {
                let (address, length) = (address.as_ptr(), address.len());
                (*socket, Task::Connect { address, length, begun: false })
            }
            Operation::Poll { descriptor, interest } => {
                let events = match interest {
                    Interest::Readable => libc::POLLIN,
                    Interest::Writable => libc::POLLOUT,
                };
                (*descriptor, Task::Poll { events })
            }
            Operation::PollInput { socket } => {
                (*socket, Task::PollInput { is_inet: system::is_inet(*socket) })
            }
        };
        Self { key, descriptor, task }
    }

    pub(super) fn direction(&self) -> Direction {
        match self.task {
            Task::Accept { .. } | Task::Receive { .. } | Task::ReceiveFrom | Task::PollInput { .. } => {
                Direction::Input
            }
            Task::Poll { events } if events == libc::POLLIN => Direction::Input,
            Task::Send { .. } | Task::SendTo { .. } | Task::Connect { .. } | Task::Poll { .. } => {
                Direction::Output
            }
        }
    }

    /// Operations that go on for as long as their descriptor gives anything. For them, asking for readiness
    /// tells as much as a first attempt does, and they have to ask anyway.
    pub(super) fn is_multishot(&self) -> bool {
        match self.task {
            Task::Accept { .. } | Task::Receive { .. } | Task::ReceiveFrom | Task::PollInput { .. } => true,
            Task::Send { .. } | Task::SendTo { .. } | Task::Connect { .. } | Task::Poll { .. } => false,
        }
    }

    /// Operations that take nothing from the descriptor, and so never wait for their turn.
    pub(super) fn only_looks(&self) -> bool {
        matches!(self.task, Task::Poll { .. } | Task::PollInput { .. })
    }

    /// Operations that are over after one attempt.
    pub(super) fn never_waits(&self) -> bool {
        matches!(self.task, Task::SendTo { .. })
    }

    /// Ends the operation before its time.
    pub(super) fn cut_short(&self, errno: i32, ready: &mut ReadyQueue) {
        ready.push_back(match self.task {
            Task::Send { sent: sent @ 1.., .. } => self.counted(sent),
            _ => RawCompletion::failed(self.key, errno),
        });
    }

    /// Does what can be done without blocking. If `is_special`, a receive that comes back with less than it could
    /// is no sign that there is nothing more.
    pub(super) fn attempt(
        &mut self,
        supplies: &mut Supplies,
        is_special: bool,
        ready: &mut ReadyQueue,
    ) -> Attempt {
        let result = match self.task {
            Task::PollInput { is_inet } => return self.announce_input(is_special || !is_inet, ready),
            Task::Accept { blocks } => return self.accept(blocks, ready),
            Task::Receive { is_inet } => {
                return self.receive(is_special || !is_inet, &mut supplies.streams, ready);
            }
            Task::ReceiveFrom => return self.receive_from(&mut supplies.datagrams, ready),
            Task::Send { start, length, ref mut sent } => {
                let rest = (length - *sent) as usize;
                let result = send(self.descriptor, start.wrapping_add(*sent as usize), rest);
                if let Ok(count) = result {
                    *sent += count;
                    // A stream takes a part when its buffer is full.
                    if *sent < length {
                        return Attempt::Left;
                    }
                }
                result.map(|_| length)
            }
            Task::SendTo { header } => {
                let flags = libc::MSG_DONTWAIT | system::NO_SIGNAL;
                // SAFETY: the header and what it points to live until the terminal completion.
                uninterrupted(|| unsafe { libc::sendmsg(self.descriptor, header, flags) })
            }
            Task::Connect { begun: true, .. } => self.connected(),
            Task::Connect { address, length, ref mut begun } => {
                system::prepare_socket(self.descriptor);
                let result = system::without_blocking(self.descriptor, || {
                    // SAFETY: the address lives until the terminal completion.
                    match unsafe { libc::connect(self.descriptor, address, length) } {
                        0 => Ok(0),
                        _ => Err(last_errno()),
                    }
                });
                match result {
                    // An interrupted one goes on by itself.
                    Err(libc::EINPROGRESS | libc::EINTR) => {
                        *begun = true;
                        return Attempt::Blocked;
                    }
                    // The backlog of a Unix listener is full, and no readiness tells when there is room.
                    Err(errno) if would_block(errno) => {
                        self.cut_short(errno, ready);
                        return Attempt::Over;
                    }
                    other => other,
                }
            }
            Task::Poll { events } => self.poll(events),
        };
        match result {
            Err(errno) if would_block(errno) && !self.never_waits() => return Attempt::Blocked,
            Ok(count) => ready.push_back(self.counted(count)),
            Err(errno) => self.cut_short(errno, ready),
        }
        Attempt::Over
    }

    /// Tells that there may be input. Where the system does not tell by itself what is new, but again and again
    /// what is there, it is told once.
    #[inline]
    fn announce_input(&self, may_be_short: bool, ready: &mut ReadyQueue) -> Attempt {
        let events = if may_be_short { libc::POLLIN | libc::POLLHUP } else { libc::POLLIN };
        ready.push_back(RawCompletion { more: Readiness::EDGES, ..self.counted(events as u32) });
        if Readiness::EDGES { Attempt::Advanced } else { Attempt::Over }
    }

    fn accept(&self, blocks: bool, ready: &mut ReadyQueue) -> Attempt {
        let mut attempt = Attempt::Blocked;
        for _ in 0..ACCEPTS_PER_EVENT {
            let accept = || system::accept(self.descriptor);
            let accepted = if blocks { system::without_blocking(self.descriptor, accept) } else { accept() };
            match accepted {
                Ok(connection) => ready.push_back(RawCompletion { more: true, ..self.counted(connection) }),
                Err(errno) if would_block(errno) => return attempt,
                Err(errno) => {
                    self.cut_short(errno, ready);
                    return Attempt::Over;
                }
            }
            attempt = Attempt::Advanced;
        }
        Attempt::Left
    }

    fn receive(&self, may_be_short: bool, supply: &mut Supply, ready: &mut ReadyQueue) -> Attempt {
        let mut attempt = Attempt::Blocked;
        for _ in 0..RECEIVES_PER_EVENT {
            let Some(buffer) = supply.pool.take_returned() else { return self.starve(supply, ready) };
            let size = supply.pool.buffer_size_bytes();
            // SAFETY: the buffer is `size` bytes long, and nobody else uses it while it is taken.
            match unsafe { receive(self.descriptor, supply.pool.address(buffer), size) } {
                Ok(count @ 1..) => {
                    supply.used = true;
                    ready.push_back(RawCompletion {
                        more: true,
                        buffer: Some(buffer),
                        ..self.counted(count)
                    });
                    attempt = Attempt::Advanced;
                    // What comes after a buffer that was not filled has its own event.
                    if (count as usize) < size && !may_be_short {
                        return attempt;
                    }
                }
                unused => {
                    supply.pool.put_back(buffer);
                    match unused {
                        Err(errno) if would_block(errno) => return attempt,
                        Err(errno) => self.cut_short(errno, ready),
                        Ok(end) => ready.push_back(self.counted(end)),
                    }
                    return Attempt::Over;
                }
            }
        }
        Attempt::Left
    }

    fn receive_from(&self, supply: &mut Supply, ready: &mut ReadyQueue) -> Attempt {
        let mut attempt = Attempt::Blocked;
        for _ in 0..DATAGRAMS_PER_EVENT {
            let Some(buffer) = supply.pool.take_returned() else { return self.starve(supply, ready) };
            let start = supply.pool.address(buffer);
            let mut vector = libc::iovec {
                iov_base: start.wrapping_add(datagram::BYTES_START).cast(),
                iov_len: supply.pool.buffer_size_bytes().saturating_sub(datagram::BYTES_START),
            };
            // SAFETY: a header of zeros is valid: it refers to nothing.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = start.wrapping_add(datagram::ADDRESS_START).cast();
            header.msg_namelen = datagram::ADDRESS_SIZE_BYTES as libc::socklen_t;
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            let flags = libc::MSG_DONTWAIT;
            // SAFETY: address and bytes lie one after the other in the buffer, with their lengths, and
            // nobody else uses it while it is taken.
            match uninterrupted(|| unsafe { libc::recvmsg(self.descriptor, &raw mut header, flags) }) {
                Ok(count) => {
                    supply.used = true;
                    supply.pool.write_datagram_head(buffer, header.msg_namelen, header.msg_flags as u32);
                    // An empty one ends the operation, as with io_uring: a socket that was shut down gives
                    // nothing else.
                    let more = count > 0;
                    let count = count + datagram::BYTES_START as u32;
                    ready.push_back(RawCompletion { more, buffer: Some(buffer), ..self.counted(count) });
                    if !more {
                        return Attempt::Over;
                    }
                    attempt = Attempt::Advanced;
                }
                Err(errno) => {
                    supply.pool.put_back(buffer);
                    if would_block(errno) {
                        return attempt;
                    }
                    self.cut_short(errno, ready);
                    return Attempt::Over;
                }
            }
        }
        Attempt::Left
    }

    /// There is no buffer.
    fn starve(&self, supply: &Supply, ready: &mut ReadyQueue) -> Attempt {
        if supply.used {
            return Attempt::Left;
        }
        self.cut_short(libc::ENOBUFS, ready);
        Attempt::Over
    }

    /// How a connect that has begun stands.
    fn connected(&self) -> Result<u32, i32> {
        self.poll(libc::POLLOUT)?;
        let mut errno: libc::c_int = 0;
        let mut size = size_of_val(&errno) as libc::socklen_t;
        uninterrupted(|| {
            // SAFETY: the option is written to `errno`, with its size.
            unsafe {
                let option = (&raw mut errno).cast();
                libc::getsockopt(self.descriptor, libc::SOL_SOCKET, libc::SO_ERROR, option, &raw mut size)
            }
        })?;
        if errno != 0 {
            return Err(errno);
        }
        // SAFETY: an address of zeros is valid: it is of no family.
        let mut peer: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut size = size_of_val(&peer) as libc::socklen_t;
        let named = uninterrupted(|| {
            // SAFETY: the address is written to `peer`, with its size.
            unsafe { libc::getpeername(self.descriptor, (&raw mut peer).cast(), &raw mut size) }
        });
        // No error and no peer: someone has shut the socket down meanwhile.
        named.map_err(|errno| if errno == libc::ENOTCONN { libc::ECONNABORTED } else { errno })
    }

    /// The events that the descriptor has now; `EAGAIN` if there are none.
    fn poll(&self, events: libc::c_short) -> Result<u32, i32> {
        let mut entry = libc::pollfd { fd: self.descriptor, events, revents: 0 };
        // SAFETY: one entry, which is ours.
        uninterrupted(|| unsafe { libc::poll(&raw mut entry, 1, 0) })?;
        match entry.revents {
            0 => Err(libc::EAGAIN),
            invalid if invalid & libc::POLLNVAL != 0 => Err(libc::EBADF),
            events => Ok(events as u16 as u32),
        }
    }

    /// A terminal completion with this count.
    fn counted(&self, count: u32) -> RawCompletion {
        RawCompletion { key: self.key, result: count as i32, more: false, buffer: None, cancel_missed: false }
    }
}
