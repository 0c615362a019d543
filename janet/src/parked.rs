//! A Janet fiber parked on one of our machines: started by a function, driven by completions, ended by
//! its result, its timeout, or whatever else resumes the fiber.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use evil_janet as janet;
use evil_janet::{Janet, JanetBuffer, JanetFiber, JanetFunction, JanetStream};
use ringspun_net::is_closed;
use ringspun_net::machine::{
    Accept, Connect, ConnectError, EXHAUSTED_PAUSE, Read, StreamCore, Write, is_exhausted,
};
use ringspun_runtime::{SendData, TimerKey, Wake};

use crate::bridge::{Bridge, Socket};
use crate::values::{Verdict, error_string, explained, nil, string};

/// How much of a Janet value is copied for one send.
const SEND_PIECE_BYTES: usize = 64 * 1024;
/// `JANET_FIBER_EV_FLAG_IN_FLIGHT` of the VM's `fiber.h`, which is not in its public header: the fiber's
/// `ev_state` belongs to an operation of the kernel. Without it, a VM that ends frees `ev_state`, which
/// is no memory here.
const EV_FLAG_IN_FLIGHT: i32 = 0x1;

/// What the fiber waits for, and what the collector has to keep for it.
pub(crate) enum Work {
    /// `own_buffer` says that the program did not pass the buffer, so only the result shows it.
    Read {
        machine: Read,
        buffer: *mut JanetBuffer,
        own_buffer: bool,
    },
    Write {
        machine: Write,
        data: Janet,
    },
    Accept {
        machine: Accept,
    },
    AcceptLoop {
        machine: Accept,
        handler: *mut JanetFunction,
    },
    Connect {
        machine: Connect,
    },
}

/// How the fiber goes on.
enum Outcome {
    Value(Janet),
    Error(Janet),
}

/// One parked fiber.
pub(crate) struct Parked {
    bridge: Rc<Bridge>,
    fiber: *mut JanetFiber,
    /// The stream waited on; null while connecting, as there is none yet.
    stream: *mut JanetStream,
    /// The fiber's schedule count when it parked: a higher one means that something else resumes it.
    schedule_id: u32,
    work: RefCell<Option<Work>>,
    /// The loop has the outcome for the fiber, which has not resumed yet.
    delivered: Cell<bool>,
    index: Cell<usize>,
    deadline: Option<Instant>,
    timer: Cell<Option<TimerKey>>,
}

/// Starts `work` for the running fiber: polls it once and, if it is not ready, parks the fiber. Either
/// way the fiber yields to the loop, as with the VM's own functions.
///
/// # Safety
///
/// Called from a function that the VM called, in a fiber of the loop; `stream` is null or alive.
pub(crate) unsafe fn start(
    bridge: &Rc<Bridge>,
    stream: *mut JanetStream,
    work: Work,
    timeout_s: f64,
) -> Verdict {
    // SAFETY: the VM runs a fiber on this thread, so there is a root fiber.
    let (fiber, schedule_id) = unsafe {
        let fiber = janet::janet_root_fiber();
        (fiber, (*fiber).sched_id)
    };
    let parked = Rc::new(Parked {
        bridge: bridge.clone(),
        fiber,
        stream,
        schedule_id,
        work: RefCell::new(Some(work)),
        delivered: Cell::new(false),
        index: Cell::new(usize::MAX),
        deadline: deadline_after(bridge, timeout_s),
        timer: Cell::new(None),
    });
    match parked.poll() {
        Poll::Ready(outcome) => {
            if parked.has_unseen_bytes() {
                parked.clone().park();
            }
            parked.deliver(outcome);
        }
        Poll::Pending => {
            parked.clone().park();
            parked.arm_timer();
        }
    }
    Verdict::Await
}

/// Rounded to milliseconds like the VM's own timeouts; those too far in the future never come.
fn deadline_after(bridge: &Bridge, timeout_s: f64) -> Option<Instant> {
    if timeout_s == f64::INFINITY {
        return None;
    }
    let timeout_ms = (timeout_s * 1000.0).round().max(0.0);
    bridge.event_loop().now().checked_add(Duration::from_millis(timeout_ms as u64))
}

impl Parked {
    /// Hangs the operation onto the fiber, as the VM's own do, so that whatever resumes the fiber in
    /// another way ends the operation.
    fn park(self: Rc<Self>) {
        let bridge = self.bridge.clone();
        let index = bridge.park(self.clone());
        self.index.set(index);
        // SAFETY: the root fiber of this thread's VM, which is running and so has no operation. The
        // VM marks `ev_stream` and reads two of its fields when the operation ends, so it must be there
        // even while there is no stream yet.
        unsafe {
            debug_assert!((*self.fiber).ev_callback.is_none());
            (*self.fiber).ev_callback = Some(fiber_event);
            (*self.fiber).ev_stream = if self.stream.is_null() { bridge.anchor() } else { self.stream };
            (*self.fiber).ev_state = std::ptr::without_provenance_mut(index + 1);
            (*self.fiber).flags |= EV_FLAG_IN_FLIGHT;
            janet::janet_ev_inc_refcount();
        }
    }

    /// Takes the operation off the fiber.
    fn unpark(&self) {
        if self.bridge.unpark(self.index.replace(usize::MAX)).is_none() {
            return;
        }
        // SAFETY: alive, because it was marked until now.
        unsafe {
            (*self.fiber).ev_callback = None;
            (*self.fiber).ev_stream = std::ptr::null_mut();
            (*self.fiber).ev_state = std::ptr::null_mut();
            (*self.fiber).flags &= !EV_FLAG_IN_FLIGHT;
            janet::janet_ev_dec_refcount();
        }
    }

    /// Whether bytes have been received into a buffer that the program does not have yet.
    fn has_unseen_bytes(&self) -> bool {
        match &*self.work.borrow() {
            Some(Work::Read { machine, own_buffer, .. }) => *own_buffer && machine.received() > 0,
            _ => false,
        }
    }

    fn is_parked(&self) -> bool {
        self.index.get() != usize::MAX
    }

    fn arm_timer(self: Rc<Self>) {
        if let Some(deadline) = self.deadline {
            let timer = self.bridge.event_loop().insert_timer(deadline, self.clone());
            self.timer.set(Some(timer));
        }
    }

    fn disarm_timer(&self) {
        if let Some(timer) = self.timer.take() {
            self.bridge.event_loop().remove_timer(timer);
        }
    }

    /// Has the loop resume the fiber. With bytes that only the outcome shows, the operation stays on the
    /// fiber until it resumes: something else may still overtake the outcome, and then they go back.
    fn deliver(&self, outcome: Outcome) {
        self.disarm_timer();
        self.delivered.set(true);
        if !self.has_unseen_bytes() {
            self.unpark();
        }
        let (value, signal) = match outcome {
            Outcome::Value(value) => (value, janet::JanetSignal_JANET_SIGNAL_OK),
            Outcome::Error(value) => (value, janet::JanetSignal_JANET_SIGNAL_ERROR),
        };
        // SAFETY: a live root fiber of this thread's VM; scheduling neither raises nor collects.
        unsafe { janet::janet_schedule_signal(self.fiber, value, signal) };
    }

    /// Gives up, because something else resumes the fiber.
    fn abandon(self: &Rc<Self>) {
        self.disarm_timer();
        let waiter: Rc<dyn Wake> = self.clone();
        let work = self.work.take();
        match work {
            Some(Work::Read { machine, buffer, own_buffer }) => {
                // SAFETY: alive, by its mark; what abandoning wakes does not touch this buffer, which
                // the program has not seen.
                let bytes = unsafe {
                    let count = usize::try_from((*buffer).count).unwrap_or(0);
                    let unseen = own_buffer && count > 0;
                    if unseen { std::slice::from_raw_parts((*buffer).data, count) } else { &[] }
                };
                machine.abandon(&waiter, bytes);
            }
            Some(Work::Write { machine, .. }) => machine.abandon(&waiter),
            Some(Work::Accept { machine } | Work::AcceptLoop { machine, .. }) => machine.abandon(&waiter),
            Some(Work::Connect { machine }) => machine.abandon(&waiter),
            None => {}
        }
    }

    fn poll(self: &Rc<Self>) -> Poll<Outcome> {
        let waiter: Rc<dyn Wake> = self.clone();
        let mut work = self.work.borrow_mut();
        let Some(work) = work.as_mut() else { return Poll::Pending };
        match work {
            Work::Read { machine, buffer, .. } => poll_read(machine, &waiter, *buffer),
            Work::Write { machine, data } => self.poll_write(machine, &waiter, *data),
            Work::Accept { machine } => machine.poll(&waiter).map(|accepted| match accepted {
                Ok(connection) => Outcome::Value(self.connection(connection)),
                Err(error) if is_closed(&error) => Outcome::Value(nil()),
                Err(error) => Outcome::Error(error_string(&error)),
            }),
            Work::AcceptLoop { machine, handler } => self.poll_accept_loop(machine, &waiter, *handler),
            Work::Connect { machine } => machine.poll(&waiter).map(|connected| match connected {
                Ok(core) => Outcome::Value(self.stream_value(core)),
                Err(error) => Outcome::Error(connect_error(&error)),
            }),
        }
    }

    fn poll_write(&self, machine: &mut Write, waiter: &Rc<dyn Wake>, data: Janet) -> Poll<Outcome> {
        let mut copy = |offset: usize| {
            let mut piece = self.bridge.event_loop().take_send_buffer();
            with_bytes(data, |bytes| {
                // The buffer may have shrunk since the last look; then there is nothing left to send.
                let rest = bytes.get(offset..).unwrap_or_default();
                piece.extend_from_slice(&rest[..rest.len().min(SEND_PIECE_BYTES)]);
            });
            SendData::Owned(piece)
        };
        let total = with_bytes(data, <[u8]>::len);
        machine.poll(waiter, total, &mut copy).map(|written| match written {
            Ok(()) => Outcome::Value(nil()),
            Err(_) if self.is_stream_closed() => Outcome::Error(string("stream closed")),
            Err(error) if error.kind() == std::io::ErrorKind::WriteZero => {
                Outcome::Error(string("disconnect"))
            }
            Err(error) => Outcome::Error(error_string(&error)),
        })
    }

    fn is_stream_closed(&self) -> bool {
        // SAFETY: alive: a parked operation marks its stream, a running function's arguments do.
        !self.stream.is_null() && unsafe { (*self.stream).flags } & janet::JANET_STREAM_CLOSED != 0
    }

    fn poll_accept_loop(
        self: &Rc<Self>,
        machine: &mut Accept,
        waiter: &Rc<dyn Wake>,
        handler: *mut JanetFunction,
    ) -> Poll<Outcome> {
        loop {
            match machine.poll(waiter) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(connection)) => {
                    let argument = self.connection(connection);
                    // SAFETY: the handler is alive, by its mark or as an argument. A fiber that cannot
                    // take one argument is refused with a null.
                    unsafe {
                        let fiber = janet::janet_fiber(handler, 64, 1, &argument);
                        if fiber.is_null() {
                            let text = "handler function must take exactly 1 argument";
                            return Poll::Ready(Outcome::Error(string(text)));
                        }
                        (*fiber).supervisor_channel = (*self.fiber).supervisor_channel;
                        janet::janet_schedule(fiber, nil());
                    }
                }
                Poll::Ready(Err(error)) if is_closed(&error) => {
                    return Poll::Ready(Outcome::Value(nil()));
                }
                Poll::Ready(Err(error)) if is_exhausted(&error) => {
                    let event_loop = self.bridge.event_loop();
                    let later = event_loop.now() + EXHAUSTED_PAUSE;
                    self.disarm_timer();
                    self.timer.set(Some(event_loop.insert_timer(later, self.clone())));
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Outcome::Error(error_string(&error))),
            }
        }
    }

    fn connection(&self, descriptor: OwnedFd) -> Janet {
        self.stream_value(StreamCore::new(self.bridge.event_loop().clone(), descriptor))
    }

    fn stream_value(&self, core: Rc<StreamCore>) -> Janet {
        let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE;
        let stream = self.bridge.adopt(Socket::Stream(core), flags);
        // SAFETY: a stream that was just made.
        unsafe { janet::janet_wrap_abstract(stream.cast()) }
    }

    /// Shows the collector everything that this operation holds.
    pub(crate) fn mark(&self, mark: &dyn Fn(Janet)) {
        // SAFETY: these were alive when the fiber parked, and have been marked ever since.
        unsafe {
            mark(janet::janet_wrap_fiber(self.fiber));
            if !self.stream.is_null() {
                mark(janet::janet_wrap_abstract(self.stream.cast()));
            }
            match &*self.work.borrow() {
                Some(Work::Read { buffer, .. }) => mark(janet::janet_wrap_buffer(*buffer)),
                Some(Work::Write { data, .. }) => mark(*data),
                Some(Work::AcceptLoop { handler, .. }) => mark(janet::janet_wrap_function(*handler)),
                Some(Work::Accept { .. } | Work::Connect { .. }) | None => {}
            }
        }
    }
}

impl Wake for Parked {
    /// A completion, the timer, or a close: looks again.
    fn wake(self: Rc<Self>) {
        if !self.is_parked() || self.delivered.get() || self.bridge.is_detached() {
            return;
        }
        // SAFETY: alive, because it is marked while it is parked.
        if unsafe { (*self.fiber).sched_id } != self.schedule_id {
            // Something else resumes the fiber: bytes that are here now are for the next reader.
            return;
        }
        let outcome = match self.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                let expired =
                    self.deadline.is_some_and(|deadline| self.bridge.event_loop().now() >= deadline);
                if !expired {
                    return;
                }
                self.abandon();
                Outcome::Error(string("timeout"))
            }
        };
        self.deliver(outcome);
    }
}

fn poll_read(machine: &mut Read, waiter: &Rc<dyn Wake>, buffer: *mut JanetBuffer) -> Poll<Outcome> {
    let mut refused = None;
    let polled = machine.poll(waiter, &mut |bytes| {
        if refused.is_none() {
            refused = append(buffer, bytes).err();
        }
    });
    if let Some(reason) = refused {
        return Poll::Ready(Outcome::Error(string(reason)));
    }
    polled.map(|read| match read {
        Ok(0) => Outcome::Value(nil()),
        // SAFETY: alive: a parked operation marks its buffer, a running function's arguments do.
        Ok(_) => Outcome::Value(unsafe { janet::janet_wrap_buffer(buffer) }),
        Err(error) if is_closed(&error) => Outcome::Value(nil()),
        Err(error) => Outcome::Error(error_string(&error)),
    })
}

/// Appends to a Janet buffer, or says why not: where the VM would raise, across our frames.
fn append(buffer: *mut JanetBuffer, bytes: &[u8]) -> Result<(), &'static str> {
    // SAFETY: the caller keeps the buffer alive. The checks are those under which the VM raises.
    unsafe {
        let length = i32::try_from(bytes.len()).map_err(|_| "buffer overflow")?;
        let count = (*buffer).count.checked_add(length).ok_or("buffer overflow")?;
        let fixed = (*buffer).gc.flags & janet::JANET_BUFFER_FLAG_NO_REALLOC as i32 != 0;
        if fixed && count > (*buffer).capacity {
            return Err("buffer cannot reallocate foreign memory");
        }
        janet::janet_buffer_push_bytes(buffer, bytes.as_ptr(), length);
    }
    Ok(())
}

/// Looks at the bytes of a buffer, or of a value that `janet_getbytes` takes.
fn with_bytes<T>(data: Janet, look: impl FnOnce(&[u8]) -> T) -> T {
    // SAFETY: the caller keeps the value alive and has checked that it has bytes, so the VM does not
    // raise. `look` calls nothing of the VM, so the bytes stay where they are.
    unsafe {
        let view = janet::janet_getbytes(&data, 0);
        let length = usize::try_from(view.len).unwrap_or(0);
        if view.bytes.is_null() || length == 0 {
            return look(&[]);
        }
        look(std::slice::from_raw_parts(view.bytes, length))
    }
}

/// In the words of the VM's own `net/connect`, which meets some errors at once and some later.
fn connect_error(error: &ConnectError) -> Janet {
    match error {
        ConnectError::Socket(error) => explained("could not create socket", error),
        ConnectError::Bind(error) => explained("could not bind outgoing address", error),
        ConnectError::Connect(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ETIMEDOUT | libc::EHOSTUNREACH) => {
                error_string(error)
            }
            _ => explained("could not connect socket", error),
        },
    }
}

/// Called by the VM when the fiber resumes, by our outcome or by anything else.
unsafe extern "C-unwind" fn fiber_event(fiber: *mut JanetFiber, event: janet::JanetAsyncEvent) {
    if event != janet::JanetAsyncEvent_JANET_ASYNC_EVENT_DEINIT {
        return;
    }
    // SAFETY: the VM passes a live fiber whose callback this is, so `ev_state` is ours: an index plus
    // one. It must be null when we return, or the VM would free it; without the flag, the VM counts the
    // operation as ended.
    let index = unsafe {
        let index = (*fiber).ev_state.addr();
        (*fiber).ev_state = std::ptr::null_mut();
        (*fiber).flags &= !EV_FLAG_IN_FLIGHT;
        index.wrapping_sub(1)
    };
    let Some(bridge) = Bridge::current() else { return };
    if let Some(parked) = bridge.parked(index) {
        // SAFETY: the VM is about to take one root of this stream back, which its own operations add
        // when they start and ours do not.
        unsafe { janet::janet_gcroot(janet::janet_wrap_abstract((*fiber).ev_stream.cast())) };
        // SAFETY: as above.
        let resumed_by = unsafe { (*fiber).sched_id };
        let overtaken = resumed_by != parked.schedule_id.wrapping_add(1);
        if overtaken || !parked.delivered.get() {
            parked.abandon();
        }
        parked.index.set(usize::MAX);
        bridge.unpark(index);
    }
}
