//! Attempts operations by non-blocking system calls, and handles their errors.
//!
//! | errno | operation | meaning | handling |
//! | --- | --- | --- | --- |
//! | `EINTR` | all | a signal arrived | retry immediately |
//! | `EAGAIN`, `EWOULDBLOCK` | send of a datagram | no room | complete with the error |
//! | `EAGAIN`, `EWOULDBLOCK` | others except `connect` | not ready | wait for readiness |
//! | `EINPROGRESS` | `connect` | it has begun | wait for readiness, then get its result |
//! | `EAGAIN` | `connect` | full backlog of a Unix listener, whose room is not signalled | complete with the error |
//! | others | send that has sent a part | it ends early | complete with the count |
//! | others | all | failure | complete with the error |

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

/// The maximum number of receives, datagrams and accepted connections per event, so that a busy descriptor cannot
/// starve the others.
const RECEIVES_PER_EVENT: usize = 4;
const DATAGRAMS_PER_EVENT: usize = 16;
const ACCEPTS_PER_EVENT: usize = 64;

/// An operation that is not over.
pub(super) struct Job {
    pub(super) key: OperationKey,
    pub(super) descriptor: RawFd,
    task: Task,
}

/// The system call to make. Pointers are to memory that the operation's slot owns or that a lender keeps.
enum Task {
    Accept {
        blocks: bool,
    },
    /// On sockets of other families, a receive may return fewer bytes than are available.
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

/// The kind of readiness that an operation needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Input,
    Output,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The operation is over; its terminal completion has been queued.
    Over,
    /// It made progress; an event will signal when there is more.
    Advanced,
    /// It used up its share of this turn; no event will signal the rest.
    Left,
    /// It would have blocked.
    Blocked,
}

/// Sends as many bytes as the socket has room for.
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
    // SAFETY: data and address are borrowed during the call.
    counted(uninterrupted(|| unsafe {
        libc::sendto(socket, start.cast(), length, flags, address, address_length)
    }))
}

fn counted(result: Result<u32, i32>) -> io::Result<usize> {
    result.map(|count| count as usize).map_err(io::Error::from_raw_os_error)
}

fn send(socket: RawFd, start: *const u8, length: usize) -> Result<u32, i32> {
    // SAFETY: data of an operation, kept until its terminal completion, or data borrowed during the call.
    uninterrupted(|| unsafe { system::send(socket, start, length) })
}

/// Receives available bytes, up to `size_bytes`.
///
/// # Safety
///
/// `start` must be valid for writes of `size_bytes` bytes, which no other code uses during the call.
pub(in crate::sys) unsafe fn try_receive(
    socket: BorrowedFd<'_>,
    start: *mut u8,
    size_bytes: usize,
) -> io::Result<u32> {
    // SAFETY: the caller guarantees it.
    unsafe { receive(socket.as_raw_fd(), start, size_bytes) }.map_err(io::Error::from_raw_os_error)
}

/// # Safety
///
/// As [`try_receive`].
unsafe fn receive(socket: RawFd, start: *mut u8, size_bytes: usize) -> Result<u32, i32> {
    let size_bytes = size_bytes.min(i32::MAX as usize);
    // SAFETY: the caller guarantees it.
    uninterrupted(|| unsafe { system::receive(socket, start, size_bytes) })
}

/// The buffers of one kind.
pub(super) struct Supply {
    pool: Rc<BufferPool>,
    /// Whether this turn has used any. If so, running out does not end an operation: the buffers filled in this turn
    /// may have been returned by the next one, which retries the operation.
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
            Operation::Send { socket, data } | Operation::SendZeroCopy { socket, data } => {
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
            // Not submitted to this backend, and not a descriptor that can be waited for.
            Operation::File(_) => (-1, Task::Poll { events: 0 }),
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

    /// Whether the operation continues after a completion. Such operations need readiness events anyway, which also
    /// replace a first attempt.
    pub(super) fn is_multishot(&self) -> bool {
        match self.task {
            Task::Accept { .. } | Task::Receive { .. } | Task::ReceiveFrom | Task::PollInput { .. } => true,
            Task::Send { .. } | Task::SendTo { .. } | Task::Connect { .. } | Task::Poll { .. } => false,
        }
    }

    /// Whether the operation consumes nothing, so that it need not queue behind others on its descriptor.
    pub(super) fn only_polls(&self) -> bool {
        matches!(self.task, Task::Poll { .. } | Task::PollInput { .. })
    }

    /// Whether the operation is over after one attempt.
    pub(super) fn never_waits(&self) -> bool {
        matches!(self.task, Task::SendTo { .. })
    }

    /// Ends the operation early: with the error, or with the count of a partial send.
    pub(super) fn cut_short(&self, errno: i32, ready: &mut ReadyQueue) {
        ready.push_back(match self.task {
            Task::Send { sent: sent @ 1.., .. } => self.counted(sent),
            _ => RawCompletion::failed(self.key, errno),
        });
    }

    /// Does what is possible without blocking. If `is_special`, a receive that does not fill its buffer does not mean
    /// that nothing is left.
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
                    // The socket buffer is full.
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
                    // An interrupted connect continues asynchronously.
                    Err(libc::EINPROGRESS | libc::EINTR) => {
                        *begun = true;
                        return Attempt::Blocked;
                    }
                    // The backlog of a Unix listener is full; no event signals when it has room.
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

    /// Completes a poll for input. Without edge-triggered events, it ends, as it would complete again and again.
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
            // SAFETY: the buffer is `size` bytes long, and exclusively ours while it is taken.
            match unsafe { receive(self.descriptor, supply.pool.address(buffer), size) } {
                Ok(count @ 1..) => {
                    supply.used = true;
                    ready.push_back(RawCompletion {
                        more: true,
                        buffer: Some(buffer),
                        ..self.counted(count)
                    });
                    attempt = Attempt::Advanced;
                    // The socket is empty; later data causes another event.
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
            // SAFETY: a zeroed header is valid: it has no pointers.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = start.wrapping_add(datagram::ADDRESS_START).cast();
            header.msg_namelen = datagram::ADDRESS_SIZE_BYTES as libc::socklen_t;
            header.msg_iov = &raw mut vector;
            header.msg_iovlen = 1;
            let flags = libc::MSG_DONTWAIT;
            // SAFETY: the address and the payload are within the buffer, which is exclusively ours while it is taken.
            match uninterrupted(|| unsafe { libc::recvmsg(self.descriptor, &raw mut header, flags) }) {
                Ok(count) => {
                    supply.used = true;
                    supply.pool.write_datagram_head(buffer, header.msg_namelen, header.msg_flags as u32);
                    // As with io_uring, an empty datagram ends the operation: a socket that was shut down yields
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

    /// No buffer is free.
    fn starve(&self, supply: &Supply, ready: &mut ReadyQueue) -> Attempt {
        if supply.used {
            return Attempt::Left;
        }
        self.cut_short(libc::ENOBUFS, ready);
        Attempt::Over
    }

    /// The result of a connect that has begun.
    fn connected(&self) -> Result<u32, i32> {
        self.poll(libc::POLLOUT)?;
        let mut errno: libc::c_int = 0;
        let mut size = size_of_val(&errno) as libc::socklen_t;
        uninterrupted(|| {
            // SAFETY: writes the option to `errno`, whose size is passed.
            unsafe {
                let option = (&raw mut errno).cast();
                libc::getsockopt(self.descriptor, libc::SOL_SOCKET, libc::SO_ERROR, option, &raw mut size)
            }
        })?;
        if errno != 0 {
            return Err(errno);
        }
        // SAFETY: a zeroed address is valid: its family is unspecified.
        let mut peer: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut size = size_of_val(&peer) as libc::socklen_t;
        let named = uninterrupted(|| {
            // SAFETY: writes the address to `peer`, whose size is passed.
            unsafe { libc::getpeername(self.descriptor, (&raw mut peer).cast(), &raw mut size) }
        });
        // No error and no peer: the socket has been shut down meanwhile.
        named.map_err(|errno| if errno == libc::ENOTCONN { libc::ECONNABORTED } else { errno })
    }

    /// The current events of the descriptor; `EAGAIN` if there are none.
    fn poll(&self, events: libc::c_short) -> Result<u32, i32> {
        let mut entry = libc::pollfd { fd: self.descriptor, events, revents: 0 };
        // SAFETY: a single, valid entry.
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
