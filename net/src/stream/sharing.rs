//! Streams that several fibers share, and calls that do not wait.

use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;

use ringspun_fibers::{Pollable, WaitReason};
use ringspun_runtime::Wake;

use super::Stream;
use crate::machine::{Amount, Read, StreamCore};
use crate::received::Received;
use crate::waiting::{check_loop, reason_of};

/// Parts that are together at most so long are sent as one.
const PARTS_MAX_BYTES: usize = 4 * 1024;

/// Another handle to the same stream, which is closed when the last one is dropped, or by [`Stream::close`] on any. It
/// begins with the same timeouts, and has its own from then on.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
///
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let (client, server) = net::Stream::pair()?;
///     // One half for a fiber that reads, the other for this one, which writes.
///     let lines = BufReader::new(client.clone());
///     let reader = fibers::spawn(move || lines.lines().collect::<std::io::Result<Vec<_>>>())?;
///     client.write(b"are you there?\n")?;
///     server.chunk(&mut [0; 15])?;
///     server.write(b"yes\n")?;
///     drop(server);
///     assert_eq!(reader.join()??, ["yes"]);
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
impl Clone for Stream {
    fn clone(&self) -> Self {
        self.core.add_clone();
        Self {
            core: self.core.clone(),
            read_timeout: Cell::new(self.read_timeout.get()),
            write_timeout: Cell::new(self.write_timeout.get()),
            writes_behind: Cell::new(self.writes_behind.get()),
        }
    }
}

impl Stream {
    /// Two Unix stream sockets that are connected to each other (`socketpair(2)`).
    ///
    /// # Errors
    ///
    /// The kernel's; `Unsupported` outside of a runtime.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((one.try_into()?, other.try_into()?))
    }

    /// As [`read`](Self::read), without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if nothing is there yet; otherwise as [`read`](Self::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Some(piece) = self.core.try_take(buffer.len()) {
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            self.core.put_back_bytes(&piece[count..]);
            return Ok(count);
        }
        match self.core.input_ended() {
            Ok(true) => Ok(0),
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(self.failed("read from", error)),
        }
    }

    /// As [`read`](Self::read), but leaves the bytes to the next read.
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
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, server) = net::Stream::pair()?;
    ///     client.write(b"GET /")?;
    ///     let mut first = [0; 1];
    ///     // TLS begins with 22.
    ///     assert_eq!((server.peek(&mut first)?, first), (1, [b'G']));
    ///     assert_eq!(&*server.receive()?.unwrap(), b"GET /");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            // Does not wait, as no read does that has no room.
            return self.read(buffer);
        }
        let Some(received) = self.receive()? else { return Ok(0) };
        let count = received.len().min(buffer.len());
        buffer[..count].copy_from_slice(&received[..count]);
        self.core.put_back(received.into_chunk());
        Ok(count)
    }

    /// What is received next, to be waited for in a [`Select`](ringspun_fibers::Select): gives what
    /// [`receive`](Self::receive) does, without the read timeout.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Channel, Select};
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let (client, server) = net::Stream::pair()?;
    ///     let messages = Channel::<&str>::bounded(1);
    ///     client.write(b"hello")?;
    ///     // Whatever comes first: bytes, a message of another fiber, or the end of patience.
    ///     let event = Select::new()
    ///         .take(&messages, |message| format!("{message:?}"))
    ///         .on(server.receiving(), |bytes| format!("{} bytes", bytes.unwrap().unwrap().len()))
    ///         .on(fibers::after(Duration::from_secs(60)), |()| "nothing".to_string())
    ///         .wait()?;
    ///     assert_eq!(event, "5 bytes");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn receiving(&self) -> Receiving<'_> {
        Receiving { stream: self, waiter: None }
    }

    /// As [`read`](Self::read), into several parts, each filled before the next.
    pub(super) fn read_parts(&self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        if total == 0 {
            return Ok(0);
        }
        let mut parts = parts.iter_mut();
        let mut room: &mut [u8] = &mut [];
        let mut machine = Read::new(self.core.clone(), Amount::UpTo(total));
        self.wait_readable(|waiter| {
            machine.poll(waiter, &mut |mut bytes| {
                while !bytes.is_empty() {
                    if room.is_empty() {
                        let Some(part) = parts.next() else { return };
                        room = part;
                    }
                    let count = room.len().min(bytes.len());
                    let (filled, rest) = std::mem::take(&mut room).split_at_mut(count);
                    filled.copy_from_slice(&bytes[..count]);
                    (room, bytes) = (rest, &bytes[count..]);
                }
            })
        })
    }

    /// Small parts are copied and sent as one.
    #[inline(never)]
    pub(super) fn write_small_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        if total > PARTS_MAX_BYTES {
            return self.write_some_parts(parts);
        }
        let mut joined = [0; PARTS_MAX_BYTES];
        let mut end = 0;
        for part in parts {
            joined[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        self.write_part(&joined[..end])
    }
}

/// What a stream receives next, from [`Stream::receiving`].
#[derive(Debug)]
pub struct Receiving<'a> {
    stream: &'a Stream,
    waiter: Option<Waiter<'a>>,
}

/// A place among the readers, which is left when this is dropped.
struct Waiter<'a>(&'a Rc<StreamCore>, Rc<dyn Wake>);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.leave_readers(&self.1);
    }
}

impl std::fmt::Debug for Waiter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

impl Pollable for Receiving<'_> {
    type Output = io::Result<Option<Received>>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        let core = &self.stream.core;
        if let Some(chunk) = core.take(usize::MAX) {
            return Poll::Ready(Ok(Some(Received::new(chunk))));
        }
        let ended = check_loop(core.event_loop()).and_then(|()| core.input_ended());
        match ended {
            Ok(true) => return Poll::Ready(Ok(None)),
            Ok(false) => {}
            Err(error) => return Poll::Ready(Err(self.stream.failed("read from", error))),
        }
        core.wait_for_input(waiter);
        if self.waiter.is_none() {
            self.waiter = Some(Waiter(core, waiter.clone()));
        }
        Poll::Pending
    }

    fn reason(&self) -> WaitReason {
        reason_of("read from", &*self.stream.core)
    }
}
