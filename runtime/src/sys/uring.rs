//! The io_uring backend (`io_uring(7)`), for Linux 6.0 and later.
//!
//! One ring per thread, with task work deferred to our own `io_uring_enter` if the kernel supports it (Linux 6.1):
//! completions are then posted on our core, and only while we are in the kernel anyway.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::socket::SockaddrLike;

use super::termination::Registration;
use super::{Buffers, SEND_MAX_BYTES};
use crate::Configuration;
use crate::buffers::{BufferPool, datagram};
use crate::completion::RawCompletion;
use crate::operation::{FileOperation, Interest, Operation, OperationKey};
use crate::process::ProcessMark;
use crate::ready::ReadyQueue;
use crate::send_soon::Request;
use crate::wake::RemoteWaker;

/// The `user_data` of the poll on the wake-up descriptor.
const WAKE_UP: u64 = u64::MAX;
/// Marks the `user_data` of a cancel, which is otherwise that of its operation: a bit of the slot's index that no slot
/// needs, as 2^31 operations do not fit into memory.
const CANCEL: u64 = 1 << 31;
/// Linux's internal number for an interrupted call, which an open that is cancelled ends with.
const ERESTARTSYS: i32 = 512;
/// What operations on files need, all since Linux 5.6.
const FILE_OPERATIONS: [u8; 4] =
    [opcode::OpenAt::CODE, opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
/// The buffer groups.
const STREAM_GROUP: u16 = 0;
const DATAGRAM_GROUP: u16 = 1;
/// `IORING_ENTER_NO_IOWAIT` of `io_uring_enter(2)`: a thread that waits for its peers does not wait for a disk. Without
/// it, the processor of an idle loop counts as waiting for I/O.
const NO_IOWAIT: u32 = 1 << 7;
/// How many buffers of each group the kernel holds initially. It fills them in turn, so that fewer buffers stay in the
/// cache: echoes of 64 KiB take 5 % less time than with all 128. An `io_uring_enter` completes some 20 receives; if
/// the kernel runs out of buffers, the number is doubled.
const DEPTH: u16 = 32;

/// A ring, and what is registered with it. Fields drop in order: the ring before its buffers.
pub(crate) struct Uring {
    _cancelled_at_termination: Option<Registration>,
    ring: IoUring,
    /// The flags of an `io_uring_enter(2)` that waits.
    wait_flags: u32,
    stream_buffers: BufferRing,
    datagram_buffers: BufferRing,
    /// The header of all receives of datagrams, with the size of the source address.
    receive_header: Box<libc::msghdr>,
    waker: RemoteWaker,
    /// A wake-up was reaped, and no turn has ended since.
    woken: bool,
    performs_files: bool,
    /// Entries that wait because the submission queue is full and the kernel took none.
    backlog: VecDeque<squeue::Entry>,
}

impl Uring {
    pub(crate) fn new(
        configuration: &Configuration,
        buffers: Buffers,
        waker: RemoteWaker,
    ) -> io::Result<Self> {
        let ring = new_ring(configuration)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(super::probe::explain_refusal)?;
        // Multishot receive has no feature bit; like SEND_ZC, it was added in Linux 6.0.
        if !probe.is_supported(opcode::SendZc::CODE) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel's io_uring has no multishot receive, which requires Linux 6.0 or later",
            ));
        }
        let stream_buffers = BufferRing::new(&ring, buffers.streams, STREAM_GROUP)?;
        let datagram_buffers = BufferRing::new(&ring, buffers.datagrams, DATAGRAM_GROUP)?;
        // SAFETY: a zeroed header is valid: it has no pointers.
        let mut receive_header: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        receive_header.msg_namelen = datagram::ADDRESS_SIZE_BYTES as libc::socklen_t;
        let process = ProcessMark::new()?;
        let mut uring = Self {
            _cancelled_at_termination: configuration
                .cancel_at_termination
                .then(|| Registration::new(ring.as_raw_fd(), process)),
            wait_flags: wait_flags(&ring),
            ring,
            stream_buffers,
            datagram_buffers,
            receive_header,
            waker,
            woken: false,
            performs_files: FILE_OPERATIONS.into_iter().all(|code| probe.is_supported(code)),
            backlog: VecDeque::new(),
        };
        uring.arm_wake_up(&mut ReadyQueue::default());
        Ok(uring)
    }

    /// As [`Backend::performs_files`](super::Backend::performs_files).
    pub(crate) fn performs_files(&self) -> bool {
        self.performs_files
    }

    /// Queues the submission of an operation; `io_uring_enter(2)` describes each.
    pub(crate) fn submit(&mut self, user_data: u64, operation: &mut Operation, ready: &mut ReadyQueue) {
        let entry = match operation {
            Operation::Accept { listener } => opcode::AcceptMulti::new(Fd(*listener))
                .flags(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
                .build(),
            Operation::Receive { socket } => opcode::RecvMulti::new(Fd(*socket), STREAM_GROUP).build(),
            Operation::ReceiveFrom { socket } => {
                opcode::RecvMsgMulti::new(Fd(*socket), &raw const *self.receive_header, DATAGRAM_GROUP)
                    .build()
            }
            Operation::SendTo { socket, datagram } => {
                // DONTWAIT, because a retry might send only the rest of the datagram.
                let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
                opcode::SendMsg::new(Fd(*socket), datagram.header()).flags(flags as u32).build()
            }
            Operation::Send { socket, data } => {
                let (start, length) = data.as_raw();
                // With WAITALL, the kernel itself continues after a short send.
                opcode::Send::new(Fd(*socket), start, length.min(SEND_MAX_BYTES) as u32)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            }
            Operation::SendZeroCopy { socket, data } => {
                let (start, length) = data.as_raw();
                opcode::SendZc::new(Fd(*socket), start, length.min(SEND_MAX_BYTES) as u32)
                    .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
                    .build()
            }
            Operation::Connect { socket, address } => {
                opcode::Connect::new(Fd(*socket), address.as_ptr(), address.len()).build()
            }
            Operation::Poll { descriptor, interest } => {
                let events = match interest {
                    Interest::Readable => libc::POLLIN,
                    Interest::Writable => libc::POLLOUT,
                };
                opcode::PollAdd::new(Fd(*descriptor), events as u32).build()
            }
            Operation::PollInput { socket } => {
                let events = libc::POLLIN | libc::POLLRDHUP;
                opcode::PollAdd::new(Fd(*socket), events as u32).multi(true).build()
            }
            Operation::File(operation) => file_entry(operation),
        };
        self.push(entry.user_data(user_data), ready);
    }

    /// Queues a message that is sent on submission. With DONTWAIT, it never waits for room; with WAITALL, a partial
    /// send does not count as a success, whose completion is skipped.
    #[inline]
    pub(crate) fn send_soon(&mut self, request: &Request, ready: &mut ReadyQueue) {
        let entry = opcode::Send::new(Fd(request.socket), request.start, request.length)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(request.user_data);
        self.push(entry, ready);
    }

    /// As [`Backend::has_submitted_all`](super::Backend::has_submitted_all).
    #[inline]
    pub(crate) fn has_submitted_all(&mut self) -> bool {
        let submission = self.ring.submission();
        self.backlog.is_empty() && submission.is_empty() && !submission.cq_overflow()
    }

    pub(crate) fn cancel(&mut self, user_data: u64, ready: &mut ReadyQueue) {
        self.push(opcode::AsyncCancel::new(user_data).build().user_data(user_data | CANCEL), ready);
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.woken
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, ready: &mut ReadyQueue) -> io::Result<()> {
        self.reap(ready);
        self.submit_backlog(ready)?;
        let nothing_new = ready.is_empty() && self.backlog.is_empty() && !self.woken;
        let block = nothing_new && timeout != Some(Duration::ZERO);
        let submission = self.ring.submission();
        let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if block || !idle {
            self.enter(if block { 1 } else { 0 }, timeout)?;
            self.reap(ready);
        }
        Ok(())
    }

    /// As [`Backend::end_turn`](super::Backend::end_turn).
    pub(crate) fn end_turn(&mut self) {
        self.woken = false;
    }

    /// Calls `io_uring_enter(2)`, and handles its errors:
    ///
    /// | errno | meaning | handling |
    /// | --- | --- | --- |
    /// | `EINTR` | a signal arrived | return; the caller retries |
    /// | `ETIME` | the timeout expired | return |
    /// | `EAGAIN` | temporarily no memory for requests | return; queued entries stay queued |
    /// | `EBUSY` | completions overflow | return, so that they are reaped first |
    /// | others | the ring is unusable, or completions are lost (`EBADR`) | fail |
    fn enter(&mut self, want: usize, timeout: Option<Duration>) -> io::Result<()> {
        // Before submitting, so that receives in this batch find them.
        self.stream_buffers.provide_returned();
        self.datagram_buffers.provide_returned();
        let queued = self.ring.submission().len() as u32;
        let submitter = self.ring.submitter();
        let timespec = timeout.map(Timespec::from);
        let arguments = match &timespec {
            Some(timespec) => SubmitArgs::new().timespec(timespec),
            None => SubmitArgs::new(),
        };
        let entered = match want {
            // GETEVENTS also runs pending task work, whose completions would otherwise come a turn later.
            // SAFETY: the kernel only reads the queue, whose entries are valid: see `try_push`.
            0 => unsafe { submitter.enter::<libc::sigset_t>(queued, 0, EnterFlags::GETEVENTS.bits(), None) },
            // SAFETY: as above; the kernel reads the arguments, which are those that the flags announce.
            _ => unsafe { submitter.enter(queued, want as u32, self.wait_flags, Some(&arguments)) },
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Moves completions to `ready`, and nothing more.
    fn reap(&mut self, ready: &mut ReadyQueue) {
        let (mut woken, mut rearm, mut out_of_buffers) = (false, false, false);
        for entry in self.ring.completion() {
            match entry.user_data() {
                WAKE_UP => {
                    woken = true;
                    rearm |= !cqueue::more(entry.flags());
                }
                cancel if cancel & CANCEL != 0 => {
                    // The operation is over, or, rarely, between two attempts, where a cancel does not find it. Other
                    // results of a cancel carry no information.
                    if entry.result() == -libc::ENOENT {
                        let key = OperationKey::from_user_data(cancel & !CANCEL);
                        let missed = RawCompletion::failed(key, libc::ENOENT);
                        ready.push_back(RawCompletion { cancel_missed: true, ..missed });
                    }
                }
                user_data => ready.push_back(RawCompletion {
                    key: OperationKey::from_user_data(user_data),
                    result: match entry.result() {
                        // A cancel interrupts an operation that a kernel thread executes; nothing else does.
                        interrupted if interrupted == -libc::EINTR || interrupted == -ERESTARTSYS => {
                            -libc::ECANCELED
                        }
                        starved if starved == -libc::ENOBUFS => {
                            out_of_buffers = true;
                            starved
                        }
                        result => result,
                    },
                    more: cqueue::more(entry.flags()),
                    buffer: cqueue::buffer_select(entry.flags()),
                    cancel_missed: false,
                }),
            }
        }
        if out_of_buffers {
            self.stream_buffers.deepen();
            self.datagram_buffers.deepen();
        }
        if woken {
            self.waker.acknowledge();
            self.woken = true;
        }
        if rearm {
            self.arm_wake_up(ready);
        }
    }

    fn arm_wake_up(&mut self, ready: &mut ReadyQueue) {
        let poll = opcode::PollAdd::new(Fd(self.waker.descriptor()), libc::POLLIN as u32).multi(true);
        self.push(poll.build().user_data(WAKE_UP), ready);
    }

    /// Queues an entry; if the submission queue is full, submits it first. If the kernel then takes nothing (`EAGAIN`,
    /// `EBUSY`), the entry waits in the backlog, in order; `wait` retries it, and reports a persistent error.
    fn push(&mut self, entry: squeue::Entry, ready: &mut ReadyQueue) {
        if self.backlog.is_empty() {
            if self.try_push(&entry) {
                return;
            }
            let _ = self.enter(0, None);
            self.reap(ready);
            // Reaping may have queued an entry of its own.
            if self.backlog.is_empty() && self.try_push(&entry) {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the data, address or header that an entry points to is in heap memory owned by the operation's slot
        // or this ring, or with a lender who waits: it outlives the operation, and does not move with the slot.
        // Cancels and polls have no pointers.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Submits entries of the backlog until the kernel takes no more.
    fn submit_backlog(&mut self, ready: &mut ReadyQueue) -> io::Result<()> {
        while let Some(entry) = self.backlog.pop_front() {
            if self.try_push(&entry) {
                continue;
            }
            self.enter(0, None)?;
            self.reap(ready);
            if !self.try_push(&entry) {
                self.backlog.push_front(entry);
                break;
            }
        }
        Ok(())
    }
}

fn file_entry(operation: &FileOperation) -> squeue::Entry {
    match operation {
        FileOperation::Open { path, flags, mode } => {
            let entry = opcode::OpenAt::new(Fd(libc::AT_FDCWD), path.as_ptr()).flags(*flags).mode(*mode);
            // Otherwise, the kernel tries it with O_NONBLOCK first, by which a FIFO without a peer opens, or fails.
            entry.build().flags(squeue::Flags::ASYNC)
        }
        FileOperation::Read { file, buffer, offset } => {
            let length = buffer.length.min(SEND_MAX_BYTES) as u32;
            opcode::Read::new(Fd(*file), buffer.start, length).offset(*offset).build()
        }
        FileOperation::Write { file, data, offset } => {
            let (start, length) = data.as_raw();
            opcode::Write::new(Fd(*file), start, length.min(SEND_MAX_BYTES) as u32).offset(*offset).build()
        }
        FileOperation::Synchronize { file, data_only } => {
            let flags = if *data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(Fd(*file)).flags(flags).build()
        }
    }
}

/// The flags of an `io_uring_enter(2)` that waits. The last one needs Linux 6.15.
fn wait_flags(ring: &IoUring) -> u32 {
    let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
    flags.bits() | if ring.params().is_feature_no_iowait() { NO_IOWAIT } else { 0 }
}

/// Sets up a ring with the best flags that the kernel accepts.
fn new_ring(configuration: &Configuration) -> io::Result<IoUring> {
    type Flags = fn(&mut io_uring::Builder);
    // Best first. SINGLE_ISSUER and TASKRUN_FLAG only help together with a task-work mode.
    const MODES: [(&str, Flags); 3] = [
        ("deferred task work", |builder| {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }),
        ("cooperative task work", |builder| {
            builder.setup_coop_taskrun().setup_taskrun_flag();
        }),
        ("default task work", |_| {}),
    ];
    let mut refused = None;
    for (name, apply) in MODES {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(configuration.completion_entries).setup_submit_all().setup_clamp();
        apply(&mut builder);
        match builder.build(configuration.submission_entries) {
            Ok(ring) => {
                tracing::debug!(mode = name, "io_uring set up");
                return Ok(ring);
            }
            // An unknown flag: try without it. Other errors would only repeat.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(super::probe::explain_refusal(error)),
        }
    }
    Err(super::probe::explain_refusal(refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into())))
}

/// The ring that provides buffers to the kernel (`io_uring_register_buf_ring(3)`).
struct BufferRing {
    entries: NonNull<BufRingEntry>,
    mask: u16,
    tail: u16,
    /// The maximum number of buffers that the kernel holds.
    depth: u16,
    buffers: Rc<BufferPool>,
}

impl BufferRing {
    fn new(ring: &IoUring, buffers: Rc<BufferPool>, group: u16) -> io::Result<Self> {
        let count = buffers.count();
        let length = NonZeroUsize::new(usize::from(count) * size_of::<BufRingEntry>());
        debug_assert!(count.is_power_of_two(), "checked by the pool");
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no other memory.
        let memory = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE)? };
        let buffer_ring =
            Self { entries: memory.cast(), mask: count - 1, tail: 0, depth: count.min(DEPTH), buffers };
        // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives the ring: `Uring`
        // drops its ring first.
        let registered = unsafe {
            let start = memory.as_ptr() as u64;
            ring.submitter().register_buf_ring_with_flags(start, count, group, 0)
        };
        registered.map_err(super::probe::explain_refusal)?;
        Ok(buffer_ring)
    }

    /// Provides returned buffers to the kernel, up to the depth, the most recently returned first.
    fn provide_returned(&mut self) {
        let before = self.tail;
        for _ in self.buffers.taken()..self.depth {
            let Some(id) = self.buffers.take_returned() else { break };
            // SAFETY: the masked index is within the mapping. There are as many entries as buffers, so this one is not
            // in use: the kernel only reads entries below the published tail.
            let entry = unsafe { self.entries.add(usize::from(self.tail & self.mask)).as_mut() };
            entry.set_addr(self.buffers.address(id) as u64);
            entry.set_len(self.buffers.buffer_size_bytes() as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
        }
        if self.tail != before {
            // SAFETY: the tail is in the first entry of the mapping, aligned to two bytes, and only this thread writes
            // it; the release store publishes the entries above.
            unsafe {
                let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
                AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
            }
        }
    }
}

impl BufferRing {
    /// Doubles the depth, after the kernel has run out of buffers.
    #[cold]
    fn deepen(&mut self) {
        self.depth = self.depth.saturating_mul(2).min(self.mask + 1);
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        let length = (usize::from(self.mask) + 1) * size_of::<BufRingEntry>();
        // SAFETY: our own mapping, whole; the ring that read it has been closed.
        let unmapped = unsafe { munmap(self.entries.cast(), length) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}
