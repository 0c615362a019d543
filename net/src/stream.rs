//! Streams for fibers: calls that park instead of blocking the thread.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt::TimedOut};
use ringspun_runtime::{EventLoop, LentBytes, SendData};

use crate::address::{Address, local_address, peer_address};
use crate::error::{Closed, OperationError, WriteInterrupted, interrupt_of};
use crate::machine::{Amount, Read, Sent, StreamCore, Write};
use crate::options::SocketOption;
use crate::received::Received;
use crate::waiting::{check_loop, reason_of, wait_on, within};

mod direct;
mod ending;
mod io_traits;
mod movable;
mod sharing;
mod unix;

pub use direct::TransferError;
pub use movable::{Movable, MoveError};
pub use sharing::Receiving;
pub use unix::{Credentials, ReceivedDescriptors};

/// A connected stream of bytes. Dropping the last of its clones closes it.
///
/// All methods take `&self`, and clones share a stream: one fiber may read while another writes. Concurrent writes are
/// queued; their bytes never interleave. `Stream` and `&Stream` implement [`io::Read`] and [`io::Write`], so that
/// crates written for blocking sockets work on fibers; a cancel of the fiber is then an error of the kind `Other`, not
/// `Interrupted`, which those crates would retry.
///
/// Bytes stay in the kernel until they are read, except on io_uring, where those of a stream that is read repeatedly
/// are received ahead of the reader, up to about 256 KiB; after that, the kernel slows the peer down.
#[derive(Debug)]
pub struct Stream {
    core: Rc<StreamCore>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
    writes_behind: Cell<bool>,
}

impl Stream {
    pub(crate) fn from_core(core: Rc<StreamCore>) -> Self {
        let (read_timeout, write_timeout) = (Cell::new(None), Cell::new(None));
        Self { core, read_timeout, write_timeout, writes_behind: Cell::new(false) }
    }

    /// Adopts a connected stream socket, such as one inherited from another process. `event_loop` must be that of this
    /// thread's runtime ([`fibers::event_loop`]): with another, calls that need to wait fail.
    pub fn from_descriptor(event_loop: Rc<EventLoop>, descriptor: OwnedFd) -> Self {
        Self::from_core(StreamCore::new(event_loop, descriptor))
    }

    /// Parks until there are bytes, and reads up to `buffer.len()` of them. Returns 0 at the end of the stream, or if
    /// the buffer is empty.
    ///
    /// # Errors
    ///
    /// The kernel's, such as a reset; [`Closed`] once the stream has been closed locally; `TimedOut` after the read
    /// timeout; a deadline or a cancel of the fiber. Bytes that arrive after an interrupt are kept for the next read:
    /// none is lost.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_amount(Amount::UpTo(buffer.len()), buffer)
    }

    /// As [`read`](Self::read), but waits until the buffer is full or the stream ends. Returns the number of bytes
    /// read.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read). Bytes that arrived before the error are kept for the next read, too.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn chunk(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_amount(Amount::Exactly(buffer.len()), buffer)
    }

    fn read_amount(&self, amount: Amount, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut machine = Read::new(self.core.clone(), amount);
        let mut filled = 0;
        let read = self.wait_readable(|waiter| {
            machine.poll(waiter, &mut |bytes| {
                buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
                filled += bytes.len();
            })
        });
        // An error carries no count, so the bytes are kept for the next read.
        if read.is_err() {
            self.core.put_back_bytes(&buffer[..filled]);
        }
        read
    }

    /// Parks until there are bytes, and returns them without copying them; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::net::Shutdown;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let echo = net::server("127.0.0.1:0", |stream| {
    ///         while let Ok(Some(bytes)) = stream.receive() {
    ///             stream.write(&bytes).unwrap();
    ///         }
    ///     })?;
    ///     let client = net::connect(echo.localname()?)?;
    ///     client.write(b"hello")?;
    ///     client.shutdown(Shutdown::Write)?;
    ///     let mut answer = Vec::new();
    ///     while let Some(bytes) = client.receive()? {
    ///         answer.extend_from_slice(&bytes);
    ///     }
    ///     assert_eq!(answer, b"hello");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn receive(&self) -> io::Result<Option<Received>> {
        match self.read_timeout.get() {
            None => self.receive_untimed(),
            Some(timeout) => fibers::with_time_limit(timeout, || self.receive_untimed()),
        }
    }

    /// Keeps its frame small, as each parked fiber's is a cache miss when it resumes.
    fn receive_untimed(&self) -> io::Result<Option<Received>> {
        let core = &*self.core;
        if let Err(error) = check_loop(core.event_loop()).and_then(|()| Ok(fibers::check()?)) {
            return Err(self.failed("read from", error));
        }
        loop {
            if let Some(chunk) = core.take(usize::MAX) {
                return Ok(Some(Received::new(chunk)));
            }
            match core.input_ended() {
                Ok(false) => {}
                Ok(true) => return Ok(None),
                Err(error) => return Err(self.failed("read from", error)),
            }
            let mut is_waiting = false;
            let poll = |is_waiting: &mut bool, waiter: &Rc<_>| {
                if *is_waiting {
                    return Poll::Ready(());
                }
                self.core.wait_for_input(waiter);
                *is_waiting = true;
                Poll::Pending
            };
            let woken = fibers::wait_telling(&mut is_waiting, poll, |_| reason_of("read from", core));
            if let Err(interrupt) = woken {
                self.core.leave_readers(&fibers::waiter());
                return Err(self.failed("read from", interrupt.into()));
            }
        }
    }

    /// Waits for input with the read timeout, and removes the waiter if the wait is interrupted.
    fn wait_readable<T>(
        &self,
        mut poll: impl FnMut(&Rc<dyn ringspun_runtime::Wake>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        wait_on(
            self.core.event_loop(),
            (),
            self.read_timeout.get(),
            |(), waiter| poll(waiter),
            |(), waiter| self.core.leave_readers(waiter),
            |_| reason_of("read from", &*self.core),
        )
        .map_err(|error| self.failed("read from", error))
    }

    /// Writes all of `data`, parking until the kernel has taken it, and returns its length. Does not copy the data.
    /// [`io::Write::write_all`] does the same; [`io::Write::write`], whose contract asks for it, returns the count
    /// instead of an error if some of the data has been written.
    ///
    /// # Errors
    ///
    /// The kernel's, such as a broken pipe; [`Closed`] once the stream has been closed locally. After a timeout, a
    /// deadline or a cancel, [`WriteInterrupted`], with the number of bytes that the kernel took: the write then
    /// returns once the kernel no longer reads the data.
    ///
    /// In a fiber that panics, as from a `BufWriter` that is dropped, a write sends what there is room for. As it
    /// cannot wait then, the rest fails as after a cancel.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    #[inline]
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self.write_within(data) {
            Ok(()) => Ok(data.len()),
            Err((written_bytes, error)) => Err(self.write_failed(error, written_bytes, data.len())),
        }
    }

    #[cold]
    fn write_failed(&self, error: WriteError, written_bytes: usize, total_bytes: usize) -> io::Error {
        let error = match error {
            WriteError::Interrupted(interrupt) => {
                WriteInterrupted { interrupt, written_bytes, total_bytes }.into()
            }
            WriteError::Failed(error) => error,
        };
        self.failed("write to", error)
    }

    /// A write with the contract of [`io::Write::write`]: an error means that no byte was written. After a partial
    /// write, the next call returns the interrupt or the error.
    fn write_part(&self, data: &[u8]) -> io::Result<usize> {
        match self.write_within(data) {
            Ok(()) => Ok(data.len()),
            Err((written_bytes @ 1.., _)) => Ok(written_bytes),
            Err((0, WriteError::Interrupted(interrupt))) => Err(self.failed("write to", interrupt.into())),
            Err((0, WriteError::Failed(error))) => Err(self.failed("write to", error)),
        }
    }

    /// Writes all of `data`, or until the write timeout passes without progress. An error comes with the number of
    /// bytes that the kernel has taken.
    #[inline]
    fn write_within(&self, data: &[u8]) -> Result<(), (usize, WriteError)> {
        if std::thread::panicking() {
            return self.write_without_parking(data);
        }
        let sent = match self.write_at_once(data) {
            Ok(Sent::All) => return Ok(()),
            Ok(Sent::Part(sent)) => sent,
            Err(error) => return Err((0, error)),
        };
        self.write_rest(data, sent)
    }

    #[inline]
    fn write_at_once(&self, data: &[u8]) -> Result<Sent, WriteError> {
        self.check_may_write()?;
        self.core.try_send(data, self.writes_behind.get()).map_err(WriteError::Failed)
    }

    /// Before any write: raises a pending interrupt, and the end of a timeout of zero.
    #[inline]
    fn check_may_write(&self) -> Result<(), WriteError> {
        // Consumes the interrupt, so that the next wait does not raise it again.
        fibers::check().map_err(WriteError::Interrupted)?;
        match self.write_timeout.get() {
            Some(Duration::ZERO) => self.check_zero_timeout(),
            _ => Ok(()),
        }
    }

    /// With a timeout of zero, nothing is written.
    #[cold]
    fn check_zero_timeout(&self) -> Result<(), WriteError> {
        within(Some(Duration::ZERO), fibers::check).map_err(WriteError::Interrupted)
    }

    /// Writes what follows the first `sent` bytes. Each time the timeout passes, looks whether the kernel has taken
    /// some bytes meanwhile, and goes on then. Out of line, for the sake of the frames of writes that need not wait.
    #[inline(never)]
    fn write_rest(&self, data: &[u8], sent: usize) -> Result<(), (usize, WriteError)> {
        self.write_by(Write::after(self.core.clone(), sent), data)
    }

    fn write_by(&self, mut machine: Write, data: &[u8]) -> Result<(), (usize, WriteError)> {
        let timeout = self.write_timeout.get();
        let checked = check_loop(self.core.event_loop());
        checked.map_err(|error| (machine.written(), WriteError::Failed(error)))?;
        /// Leaves the queue of writers, in which a paused write has kept its place.
        struct Leave<'a>(&'a StreamCore);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.leave_writers(&fibers::waiter());
            }
        }
        let _leave = timeout.map(|_| Leave(&self.core));
        loop {
            let before = machine.written();
            match within(timeout, || self.write_until_interrupted(&mut machine, data)) {
                Ok(()) => return Ok(()),
                Err(WriteError::Interrupted(TimedOut))
                    if machine.is_paused() && machine.written() > before => {}
                Err(error) => return Err((machine.written(), error)),
            }
        }
    }

    #[inline]
    fn write_until_interrupted(&self, machine: &mut Write, data: &[u8]) -> Result<(), WriteError> {
        let result = fibers::wait_for_completion(
            machine,
            |machine, waiter| {
                machine.poll(waiter, data.len(), |offset| {
                    // SAFETY: `wait_for_completion` returns only once the machine is ready, when no send is in
                    // flight; `data` is borrowed until then.
                    SendData::Lent(unsafe { LentBytes::new(&data[offset..]) })
                })
            },
            |machine| match fibers::pending_interrupt() {
                // What is sent without a copy cannot be left to go on later: see `write_zero_copy`.
                Some(TimedOut) if !machine.is_zero_copy() => machine.pause(),
                _ => machine.cancel(),
            },
            |_| reason_of("write to", &*self.core),
        );
        result.map_err(WriteError::of)
    }

    /// Waits until the kernel has all that earlier writes have left behind
    /// ([`set_write_behind`](Self::set_write_behind)); without these there is nothing to wait for. [`io::Write::flush`]
    /// does the same.
    ///
    /// # Errors
    ///
    /// [`Closed`], and the errors of earlier writes.
    ///
    /// # Panics
    ///
    /// Outside of a fiber, with [`set_write_behind`](Self::set_write_behind).
    pub fn flush(&self) -> io::Result<()> {
        self.core.check_open().map_err(|error| self.failed("flush of", error))?;
        self.wait_behind()
    }

    /// Sends bytes that the kernel holds back to fill a segment (Nagle's algorithm), as Janet's `net/flush` does: sets
    /// `TCP_NODELAY` and resets it, unless it was set. Before that, [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush), and the kernel's.
    ///
    /// # Panics
    ///
    /// As [`flush`](Self::flush).
    pub fn push(&self) -> io::Result<()> {
        self.wait_behind()?;
        self.core.flush()
    }

    fn wait_behind(&self) -> io::Result<()> {
        if self.writes_behind.get() { self.wait_sent() } else { Ok(()) }
    }

    /// Waits for sends of writes that have returned.
    fn wait_sent(&self) -> io::Result<()> {
        wait_on(
            self.core.event_loop(),
            (),
            self.write_timeout.get(),
            |(), waiter| self.core.poll_behind(waiter),
            |(), waiter| self.core.leave_writers(waiter),
            |_| reason_of("write to", &*self.core),
        )
        .map_err(|error| self.failed("write to", error))
    }

    /// Puts bytes back in front of those that will be read next: what a parser has read and does not use, such as bytes
    /// that already belong to another protocol. Does nothing on a closed stream.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let server = net::server("127.0.0.1:0", |stream| {
    ///         stream.write(b"STARTTLS\nrest").unwrap();
    ///     })?;
    ///     let client = net::connect(server.localname()?)?;
    ///     let mut read = [0; 13];
    ///     client.chunk(&mut read)?;
    ///     client.put_back(&read[9..]);
    ///     let mut rest = [0; 4];
    ///     client.chunk(&mut rest)?;
    ///     assert_eq!(&rest, b"rest");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn put_back(&self, bytes: &[u8]) {
        self.core.put_back_bytes(bytes);
    }

    /// The shared part, for machines of other protocols above the stream. Its reads and writes and those of the stream
    /// take turns.
    pub fn core(&self) -> &Rc<StreamCore> {
        &self.core
    }

    /// The local address (`getsockname(2)`).
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's.
    pub fn localname(&self) -> io::Result<Address> {
        self.core.check_open()?;
        local_address(self.core.socket()?)
    }

    /// The address of the peer (`getpeername(2)`).
    ///
    /// # Errors
    ///
    /// [`Closed`], or the kernel's, such as no longer being connected.
    pub fn peername(&self) -> io::Result<Address> {
        self.core.check_open()?;
        peer_address(self.core.socket()?)
    }

    /// Sets an option of the socket, such as [`SocketOption::NoDelay`].
    ///
    /// # Errors
    ///
    /// The kernel's; [`Closed`].
    pub fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.core.set_option(option)
    }

    /// Sets how long each read may wait before it fails with `TimedOut`: with `None`, indefinitely; with zero, not at
    /// all. A [`chunk`](Self::chunk) is one read, while [`io::Read::read_exact`] makes several. After a timeout, the
    /// caller may read again. A deadline of the code around it
    /// ([`with_deadline`](fibers::with_deadline)) is an error of another kind, so that it ends such a loop.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) {
        self.read_timeout.set(timeout);
    }

    /// Sets how long each write may wait without progress, that is, without the kernel taking any of its bytes, before
    /// it fails with `TimedOut` and [`WriteInterrupted`]: with `None`, indefinitely; with zero, nothing is written. It
    /// is the same for every way to write. A large write to a slow peer may take longer than this; a deadline limits
    /// the whole.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) {
        self.write_timeout.set(timeout);
    }

    /// Lets writes of up to 4 KiB return before the kernel has their bytes: the loop's next turn, once this fiber waits
    /// for anything, sends them together with those of all other streams. A second write waits for the first. A server
    /// that answers many clients saves a wait per answer. Off by default.
    ///
    /// A failed send is reported once: by the next write, by a read that reaches the end of the stream, or by
    /// [`flush`](Self::flush), which waits for pending sends; without any of these it goes unreported.
    /// [`shutdown`](Self::shutdown) and [`close`](Self::close) take effect after everything written before them, even
    /// if the peer has no room for a while. When the runtime ends, it sends what the peer has room for; a process
    /// that exits in another way must flush first, or loses what its fibers have just written.
    ///
    /// Has no effect on poll, where each send is a system call anyway.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let server = net::server("127.0.0.1:0", |stream| {
    ///         stream.set_write_behind(true);
    ///         while let Ok(Some(bytes)) = stream.receive() {
    ///             if stream.write(&bytes).is_err() {
    ///                 break;
    ///             }
    ///         }
    ///     })?;
    ///     let client = net::connect(server.localname()?)?;
    ///     client.write(b"hello")?;
    ///     let mut answer = [0; 5];
    ///     assert_eq!(client.chunk(&mut answer)?, 5);
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn set_write_behind(&self, on: bool) {
        self.writes_behind.set(on);
    }

    /// Closes the stream. Operations in flight are cancelled; fibers that wait in them get [`Closed`].
    /// Unread bytes are dropped. Does not wait: the descriptor is closed once the kernel no longer uses it. If a
    /// write that did not wait ([`set_write_behind`](Self::set_write_behind)) is pending, that is when the peer has
    /// made room; after 30 seconds without room, the connection is reset, or, on a Unix socket, ended. Closing again
    /// does nothing.
    pub fn close(&self) {
        self.core.close();
    }

    /// Out of line, so that the stacks of waiting fibers have no room for errors.
    #[cold]
    pub(crate) fn failed(&self, operation: &'static str, error: io::Error) -> io::Error {
        if self.core.is_closed() {
            return OperationError::wrap(operation, "a closed stream", Closed.into());
        }
        match self.core.socket().and_then(peer_address) {
            Ok(address) => OperationError::wrap(operation, address, error),
            Err(_) => OperationError::wrap(operation, "a lost peer", error),
        }
    }
}

/// Why a write ended early.
enum WriteError {
    Interrupted(fibers::Interrupt),
    Failed(io::Error),
}

impl WriteError {
    #[cold]
    fn of(error: io::Error) -> Self {
        if error.raw_os_error() != Some(libc::ECANCELED) {
            return Self::Failed(error);
        }
        // Consumes the interrupt, so that the next wait does not raise it again.
        fibers::check().err().map_or(Self::Failed(error), Self::Interrupted)
    }

    /// The same of an error of `wait_on`, whose interrupt has been raised.
    #[cold]
    fn of_wait(error: io::Error) -> Self {
        interrupt_of(&error).map_or(Self::Failed(error), Self::Interrupted)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.core.drop_clone() {
            self.core.close();
        }
    }
}

impl AsRawFd for Stream {
    /// For socket options. Reading from or writing to the descriptor interferes with the stream; after
    /// [`close`](Self::close), the number may refer to another file.
    fn as_raw_fd(&self) -> RawFd {
        self.core.descriptor()
    }
}
