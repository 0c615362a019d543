//! The bridge from a thread's VM to the ring: its streams, its parked operations, and the turn of the loop.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::api as janet;
use crate::api::{Janet, JanetStream};
use ringspun_runtime::{
    Completion, Configuration, EventLoop, Interest, Operation, OperationKey, OperationKind, Owner, Wait,
};
use slab::Slab;

use crate::socket::Socket;
use crate::stalls;
use crate::stock::methods;

/// The maximum number of operations that run before the sockets and the VM are served again.
const RUNS_PER_TURN_MAX: usize = 10_000;

/// An operation whose fiber waits for it, as the bridge sees it.
pub(crate) trait Waiting {
    /// Polls the operation again after a wake.
    fn run(self: Rc<Self>);

    /// The VM resumes the fiber, by the operation's outcome or by anything else.
    fn resumed(self: Rc<Self>);

    /// Shows the collector everything that the operation holds.
    fn mark(&self, mark: &dyn Fn(Janet));

    /// Drops the work of an operation whose VM has ended, so that nothing in it may be accessed.
    fn forget(&self);

    /// Takes the operation off its fiber, which nothing resumes then: in a forked child, it is the parent's.
    fn leave_to_parent(&self);
}

#[derive(Clone)]
struct Entry {
    stream: *mut JanetStream,
    socket: Socket,
}

/// The index of a stream, a field that the VM uses for nothing, as it waits by epoll. A bit says that the stream is
/// registered with the VM's epoll instance, since C code waits on it or did so last; another, that C code wants it
/// level-triggered there. Above them is one more than its descriptor, which C code may have taken out of the stream.
const LENT: u32 = 1;
const LEVEL: u32 = 2;
const DESCRIPTOR_SHIFT: u32 = 2;

/// A native module has been loaded that may use the descriptors of streams.
static ARE_STREAMS_SHARED: AtomicBool = AtomicBool::new(false);

/// Has all streams leave in the kernel what nobody has asked for, so that C code finds it there: those of this thread
/// now, those of others in the next turn of their loops.
pub(crate) fn share_streams_of_process() {
    ARE_STREAMS_SHARED.store(true, Ordering::Relaxed);
    if let Some(bridge) = Bridge::current() {
        bridge.share_streams();
    }
}

thread_local! {
    static BRIDGE: RefCell<Option<OfThread>> = const { RefCell::new(None) };
    /// The same, for a look that costs little; null without one.
    static CURRENT: Cell<*const Bridge> = const { Cell::new(std::ptr::null()) };
}

/// Detaches the bridge when its thread ends, also where the VM ends without us: in `ev/thread`.
struct OfThread(Rc<Bridge>);

impl Drop for OfThread {
    fn drop(&mut self) {
        // Also where the thread ends without us.
        CURRENT.set(std::ptr::null());
        self.0.detach();
    }
}

/// The ring of the VM on this thread.
pub(crate) struct Bridge {
    event_loop: Rc<EventLoop>,
    /// The open streams, by descriptor: a number stays taken until its socket is closed.
    streams: RefCell<Vec<Option<Entry>>>,
    /// Sockets of streams that the collector has taken, to be closed before the next wait.
    collected: RefCell<Vec<Socket>>,
    parked: RefCell<Slab<Rc<dyn Waiting>>>,
    /// Operations that were woken and have not run since.
    woken: RefCell<VecDeque<Rc<dyn Waiting>>>,
    vm_epoll: Rc<VmEpoll>,
    /// The one root under which the collector finds what all parked operations hold. It has the form of
    /// a stream without waiters, and stands in for the stream that a connecting fiber does not have yet.
    anchor: *mut JanetStream,
    /// The streams leave everything in the kernel ([`ARE_STREAMS_SHARED`]).
    are_streams_shared: Cell<bool>,
    /// The thread is ending: the VM must not be called any more.
    detached: Cell<bool>,
}

/// The VM's own epoll descriptor as an operation of our loop.
struct VmEpoll {
    descriptor: RawFd,
    armed: Cell<Option<OperationKey>>,
    ready: Cell<bool>,
}

impl Owner for VmEpoll {
    fn complete(self: Rc<Self>, _: OperationKind, _: Completion) {
        self.armed.set(None);
        // An error is readiness too: the VM's own call will meet it and say so.
        self.ready.set(true);
    }
}

impl Bridge {
    /// The bridge of this thread, if it has one.
    #[inline]
    pub(crate) fn current() -> Option<Rc<Self>> {
        let bridge = CURRENT.get();
        if bridge.is_null() {
            return None;
        }
        // SAFETY: points into the `Rc` in BRIDGE, which is reset before that is let go.
        unsafe {
            Rc::increment_strong_count(bridge);
            Some(Rc::from_raw(bridge))
        }
    }

    /// Gives this thread a bridge, or takes it, and returns what it had before.
    fn replace(bridge: Option<Rc<Self>>) -> Option<OfThread> {
        CURRENT.set(bridge.as_ref().map_or(std::ptr::null(), Rc::as_ptr));
        // At the end of the thread, what was there may have gone already.
        BRIDGE.try_with(|current| current.replace(bridge.map(OfThread))).ok().flatten()
    }

    /// The bridge of this thread, made when first used. The VM must be running on this thread.
    // Without `always`, an echo takes 42 instructions more.
    #[inline(always)]
    pub(crate) fn get_or_make() -> io::Result<Rc<Self>> {
        match Self::current() {
            Some(bridge) if bridge.event_loop.check_process().is_ok() => Ok(bridge),
            _ => Self::make(),
        }
    }

    #[cold]
    fn make() -> io::Result<Rc<Self>> {
        // In a forked child, the VM gets descriptors of its own, and then a bridge of its own.
        // SAFETY: the VM runs on this thread, and is in none of its calls that this concerns.
        unsafe { janet::ringspun_vm_check_process() };
        if let Some(bridge) = Self::current() {
            return Ok(bridge);
        }
        // SAFETY: reads a number of the VM on this thread.
        let vm_epoll = unsafe { janet::ringspun_vm_epoll() };
        let event_loop = EventLoop::new(&Configuration::default())?;
        // SAFETY: the VM runs on this thread; all fields are set before the collector can look. The
        // root lives until the VM ends.
        let anchor = unsafe {
            let anchor: *mut JanetStream =
                janet::janet_abstract(&raw const PARKED_TYPE.0, size_of::<JanetStream>()).cast();
            anchor.write(JanetStream {
                handle: -1,
                flags: janet::JANET_STREAM_CLOSED,
                index: 0,
                read_fiber: std::ptr::null_mut(),
                write_fiber: std::ptr::null_mut(),
                methods: std::ptr::null(),
            });
            janet::janet_gcroot(janet::janet_wrap_abstract(anchor.cast()));
            anchor
        };
        let bridge = Rc::new(Self {
            event_loop,
            anchor,
            streams: RefCell::default(),
            collected: RefCell::default(),
            parked: RefCell::default(),
            woken: RefCell::default(),
            vm_epoll: Rc::new(VmEpoll {
                descriptor: vm_epoll,
                armed: Cell::new(None),
                ready: Cell::new(false),
            }),
            are_streams_shared: Cell::new(false),
            detached: Cell::new(false),
        });
        Self::replace(Some(bridge.clone()));
        stalls::note_vm();
        Ok(bridge)
    }

    pub(crate) fn event_loop(&self) -> &Rc<EventLoop> {
        &self.event_loop
    }

    pub(crate) fn anchor(&self) -> *mut JanetStream {
        self.anchor
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.detached.get()
    }

    /// One turn of the loop; true if the VM's epoll descriptor has events.
    pub(crate) fn wait(&self) -> io::Result<bool> {
        if !self.are_streams_shared.get() && ARE_STREAMS_SHARED.load(Ordering::Relaxed) {
            self.share_streams();
        }
        // Closing a listener turns the loop: the list must not be borrowed.
        let collected = self.collected.take();
        collected.iter().for_each(Socket::close);
        let vm_epoll = &self.vm_epoll;
        // One-shot, and armed anew for each wait: arming looks at the present state, so events that
        // did not fit into the VM's last call are seen.
        if vm_epoll.armed.get().is_none() {
            let operation = Operation::Poll { descriptor: vm_epoll.descriptor, interest: Interest::Readable };
            vm_epoll.armed.set(Some(self.event_loop.submit(operation, vm_epoll.clone())));
        }
        let nothing_is_left = self.woken.borrow().is_empty();
        self.event_loop.turn(if nothing_is_left { Wait::Block } else { Wait::No })?;
        self.run_woken();
        Ok(vm_epoll.ready.take())
    }

    /// Hands over to the kernel what is to be sent, before something blocks the thread or ends the program: a small
    /// write returns before that.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.event_loop.check_process().and_then(|()| self.event_loop.turn(Wait::No)) {
            tracing::debug!(%error, "what was to be sent could not be handed over");
        }
    }

    /// Sends the messages of writes that have returned. Usually there are none.
    pub(crate) fn flush_writes(&self) {
        if self.event_loop.has_messages() {
            self.flush();
        }
    }

    /// Enqueues an operation to run. The caller ensures that it is in the list only once.
    pub(crate) fn enqueue(&self, operation: Rc<dyn Waiting>) {
        // Closing the sockets of a VM that has ended wakes those who waited for them. Nothing runs them, and they hold
        // this bridge: in the list, they and the loop would live on.
        if !self.is_detached() {
            self.woken.borrow_mut().push_back(operation);
        }
    }

    /// Runs woken operations, and those that they wake, up to a limit: the rest runs in the next turn.
    ///
    /// A wake may happen anywhere, so it only enqueues. Code that may have woken an operation calls this before it
    /// returns to the VM, which may have nothing else to run.
    pub(crate) fn run_woken(&self) {
        for _ in 0..RUNS_PER_TURN_MAX {
            // The borrow ends before the operation runs.
            let Some(operation) = self.woken.borrow_mut().pop_front() else { return };
            operation.run();
        }
    }

    /// Makes the Janet stream of a socket.
    pub(crate) fn stream_value(&self, socket: Socket, flags: u32) -> Janet {
        // SAFETY: the VM runs on this thread. The stream's fields are all set before anyone sees it.
        let stream = unsafe {
            let stream: *mut JanetStream =
                janet::janet_abstract(&raw const janet::janet_stream_type, size_of::<JanetStream>()).cast();
            stream.write(JanetStream {
                handle: socket.descriptor(),
                flags: flags | janet::JANET_STREAM_SOCKET,
                index: 0,
                read_fiber: std::ptr::null_mut(),
                write_fiber: std::ptr::null_mut(),
                methods: methods().cast(),
            });
            stream
        };
        self.enter(stream, socket);
        // SAFETY: the stream that was just made.
        unsafe { janet::janet_wrap_abstract(stream.cast()) }
    }

    fn enter(&self, stream: *mut JanetStream, socket: Socket) {
        let Ok(descriptor) = usize::try_from(socket.descriptor()) else { return };
        if ARE_STREAMS_SHARED.load(Ordering::Relaxed) {
            socket.leave_in_kernel();
        }
        // SAFETY: a live stream of this thread's VM.
        unsafe { (*stream).index |= (descriptor as u32 + 1) << DESCRIPTOR_SHIFT };
        let replaced = {
            let mut streams = self.streams.borrow_mut();
            if streams.len() <= descriptor {
                streams.resize_with(descriptor + 1, || None);
            }
            streams[descriptor].replace(Entry { stream, socket })
        };
        if let Some(Entry { socket, .. }) = replaced {
            // Other code has taken its descriptor over and closed it: the number is another's now.
            socket.leave_descriptor_open();
            socket.close();
        }
    }

    /// Has the streams of this thread leave everything in the kernel.
    #[cold]
    fn share_streams(&self) {
        self.are_streams_shared.set(true);
        // Ending what is in flight turns the loop: the list must not be borrowed.
        let sockets: Vec<_> =
            self.streams.borrow().iter().flatten().map(|entry| entry.socket.clone()).collect();
        sockets.iter().for_each(Socket::share_with_c);
        self.flush();
    }

    /// C code is about to wait on a stream. What was written before has been handed over to the kernel then.
    pub(crate) fn lend(&self, stream: *mut JanetStream) {
        let socket = self.entered(stream);
        // SAFETY: a live stream of this thread's VM.
        if unsafe { (*stream).index } & LENT == 0 {
            socket.share_with_c();
            self.flush();
        }
    }

    /// A process is about to inherit a stream.
    pub(crate) fn share_with_process(&self, stream: *mut JanetStream) {
        let socket = self.socket_of(stream);
        match ARE_STREAMS_SHARED.load(Ordering::Relaxed) {
            // The descriptor must not block C code, as it does not with the VM's own.
            true => socket.leave_in_kernel(),
            false => socket.share_with_process(),
        }
    }

    /// Whether a stream has something that was received and that nobody has read.
    pub(crate) fn has_received(&self, stream: *mut JanetStream) -> bool {
        self.entered(stream).has_received()
    }

    /// Janet code uses a lent stream.
    #[cold]
    fn take_back_if_unused(stream: *mut JanetStream) {
        // SAFETY: a live stream of this thread's VM.
        unsafe {
            let is_used = !(*stream).read_fiber.is_null() || !(*stream).write_fiber.is_null();
            if (*stream).index & LENT != 0 && !is_used {
                Self::take_back(stream);
            }
        }
    }

    /// Ends the registration of a stream with the VM's epoll instance.
    fn take_back(stream: *mut JanetStream) {
        // SAFETY: a live stream of this thread's VM, with an open descriptor.
        unsafe {
            (*stream).index &= !LENT;
            janet::ringspun_vm_take_back((*stream).handle);
        }
    }

    fn entry_at(&self, descriptor: RawFd) -> Option<Entry> {
        let index = usize::try_from(descriptor).ok()?;
        let entry = self.streams.borrow().get(index)?.clone()?;
        // SAFETY: a stream has its entry for as long as it lives, at most.
        let handle = unsafe { (*entry.stream).handle };
        // Otherwise, C code has taken the descriptor over, and the number may be another's.
        (handle == descriptor).then_some(entry)
    }

    /// The socket of a stream that is ours and open, as its flags say, for use by Janet code. A stream that came from
    /// another thread is taken in when it is first used here.
    #[inline]
    pub(crate) fn socket_of(&self, stream: *mut JanetStream) -> Socket {
        // SAFETY: a live stream of this thread's VM.
        let (descriptor, index) = unsafe { ((*stream).handle, (*stream).index) };
        if let Some(Some(entry)) = self.streams.borrow().get(descriptor as usize)
            && entry.stream == stream
            && index & LENT == 0
        {
            return entry.socket.clone();
        }
        let socket = self.entered(stream);
        Self::take_back_if_unused(stream);
        socket
    }

    /// Has a stream go on with another socket of the same descriptor: with TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn replace_socket(&self, stream: *mut JanetStream, socket: Socket) {
        let mut streams = self.streams.borrow_mut();
        let entry =
            usize::try_from(socket.descriptor()).ok().and_then(|index| streams.get_mut(index)?.as_mut());
        if let Some(entry) = entry.filter(|entry| entry.stream == stream) {
            entry.socket = socket;
        }
    }

    #[cold]
    fn entered(&self, stream: *mut JanetStream) -> Socket {
        // SAFETY: a live stream of this thread's VM.
        match self.entry_at(unsafe { (*stream).handle }) {
            Some(entry) if entry.stream == stream => entry.socket,
            _ => self.take_in(stream),
        }
    }

    /// Takes in a stream that came from another thread or, in a forked child, from the parent.
    #[cold]
    fn take_in(&self, stream: *mut JanetStream) -> Socket {
        // SAFETY: a live stream of this thread's VM.
        let (descriptor, flags) = unsafe { ((*stream).handle, (*stream).flags) };
        // SAFETY: unmarshalling made this duplicate for this stream, which is open; from now on the
        // socket owns it, and the stream's number is taken back in `release`.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let socket = Socket::adopt(&self.event_loop, descriptor, flags);
        // SAFETY: as above. Without a waiter, the index may not be set yet, and the VM may have registered the stream:
        // in a forked child, or where C code has made it.
        unsafe {
            let is_waited_for = !(*stream).read_fiber.is_null() || !(*stream).write_fiber.is_null();
            if is_waited_for {
                (*stream).index = LENT | (*stream).index & LEVEL;
            } else {
                (*stream).index = 0;
                janet::ringspun_vm_take_back((*stream).handle);
            }
        }
        self.enter(stream, socket.clone());
        socket
    }

    /// Closes a stream of ours: `(:close stream)`.
    pub(crate) fn close(&self, stream: *mut JanetStream) {
        let socket = self.socket_of(stream);
        // SAFETY: a live stream of this thread's VM.
        if unsafe { (*stream).flags } & janet::JANET_STREAM_NOT_CLOSEABLE != 0 {
            socket.leave_descriptor_open();
        }
        self.release(stream, &socket);
        // Wakes operations parked on it: no borrow may be held.
        socket.close();
        self.run_woken();
    }

    /// The VM has duplicated a descriptor, to send its stream to a thread, or to make a file of it; true if the stream
    /// is one of this thread.
    pub(crate) fn duplicated(&self, descriptor: RawFd, duplicate: RawFd) -> bool {
        let Some(entry) = self.entry_at(descriptor) else { return false };
        // What was written before comes before what others write.
        self.flush();
        entry.socket.hand_over(duplicate);
        true
    }

    /// The VM forgets the stream on this descriptor; true if it was ours.
    ///
    /// The collector calls this in the middle of its work, also in its last one, when the VM ends and
    /// fibers that are still parked may have been freed: it must not wake anything.
    pub(crate) fn release_descriptor(&self, descriptor: RawFd) -> bool {
        let Some(entry) = self.entry_at(descriptor) else { return false };
        self.let_go(entry);
        true
    }

    /// The collector frees a stream of ours, and does not close its descriptor if C code has taken it over.
    pub(crate) fn collected(&self, stream: *mut JanetStream) {
        // SAFETY: its memory is still there.
        let (handle, flags, index) = unsafe { ((*stream).handle, (*stream).flags, (*stream).index) };
        let Some(descriptor) = (index >> DESCRIPTOR_SHIFT).checked_sub(1) else { return };
        let entry = self.streams.borrow().get(descriptor as usize).cloned().flatten();
        let Some(entry) = entry.filter(|entry| entry.stream == stream) else { return };
        let is_closeable = flags & janet::JANET_STREAM_NOT_CLOSEABLE == 0;
        if handle != entry.socket.descriptor() || !is_closeable {
            entry.socket.leave_descriptor_open();
            self.let_go(entry);
        }
    }

    /// Ends a stream in the middle of the collector's work.
    fn let_go(&self, entry: Entry) {
        self.release(entry.stream, &entry.socket);
        if !entry.socket.close_if_idle() {
            self.collected.borrow_mut().push(entry.socket);
        }
    }

    fn release(&self, stream: *mut JanetStream, socket: &Socket) {
        // The registration may outlive the number, and refers to the stream.
        // SAFETY: as below.
        if unsafe { (*stream).index } & LENT != 0 {
            Self::take_back(stream);
        }
        // SAFETY: a live stream of this thread's VM, or one that is being collected, whose memory is
        // still there. Without a descriptor, the VM has nothing to close.
        unsafe {
            (*stream).handle = -1;
            (*stream).flags |= janet::JANET_STREAM_CLOSED;
        }
        let descriptor = usize::try_from(socket.descriptor()).unwrap_or(usize::MAX);
        let entry = self.streams.borrow_mut().get_mut(descriptor).and_then(Option::take);
        drop(entry);
    }

    pub(crate) fn park(&self, operation: Rc<dyn Waiting>) -> usize {
        self.parked.borrow_mut().insert(operation)
    }

    pub(crate) fn unpark(&self, index: usize) -> Option<Rc<dyn Waiting>> {
        self.parked.borrow_mut().try_remove(index)
    }

    pub(crate) fn parked(&self, index: usize) -> Option<Rc<dyn Waiting>> {
        self.parked.borrow().get(index).cloned()
    }

    /// Ends the operation on the VM's epoll descriptor, which the VM is about to close.
    pub(crate) fn let_go_of_vm(&self) -> io::Result<()> {
        self.vm_epoll.armed.get().map_or(Ok(()), |key| self.event_loop.cancel_and_wait(key))
    }

    /// In a forked child: leaves everything to the parent. Its loop does nothing here anyway; the child's own
    /// bridge adopts the sockets of its streams when they are used.
    pub(crate) fn leave_to_parent() {
        let Some(of_thread) = Self::replace(None) else { return };
        for (_, operation) in &*of_thread.0.parked.borrow() {
            operation.leave_to_parent();
        }
        // It would close descriptors that streams of this process still have.
        std::mem::forget(of_thread);
    }

    /// Takes the bridge from this thread, for its VM has ended.
    pub(crate) fn end_of_vm() {
        // Detached outside of the borrow: what it closes may ask for the current bridge.
        let of_thread = Self::replace(None);
        drop(of_thread);
    }

    /// Cancels and drains everything; the VM on this thread has ended, or its thread is ending.
    fn detach(&self) {
        if self.detached.replace(true) {
            return;
        }
        for parked in self.parked.take().drain() {
            // A connect refers to a stream whose waiters refer to it.
            parked.forget();
        }
        self.woken.take();
        let (streams, collected) = (self.streams.take(), self.collected.take());
        let open = streams.iter().flatten().map(|entry| &entry.socket);
        open.chain(&collected).for_each(Socket::close);
        if let Err(error) = self.event_loop.shutdown() {
            tracing::error!(%error, "the ring of a Janet VM could not be drained");
        }
    }
}

/// The type of [`Bridge::anchor`].
struct ParkedType(janet::JanetAbstractType);

// SAFETY: nobody writes to it; its name is a static text.
unsafe impl Sync for ParkedType {}

static PARKED_TYPE: ParkedType = ParkedType(janet::JanetAbstractType {
    name: c"ringspun/parked-operations".as_ptr(),
    gc: None,
    gcmark: Some(mark_parked),
    others: [None; 12],
});

unsafe extern "C" fn mark_parked(_: *mut c_void, _: usize) -> c_int {
    if let Some(bridge) = Bridge::current() {
        for (_, parked) in &*bridge.parked.borrow() {
            parked.mark(&|value: Janet| {
                // SAFETY: called by the collector, with values that were alive when they were parked
                // and have been marked by us since.
                unsafe { janet::janet_mark(value) };
            });
        }
    }
    0
}
