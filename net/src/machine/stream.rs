//! Stream sockets: they receive bytes.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use ringspun_runtime::{Completion, Operation, OperationKind};

use super::budget::Budget;
use super::chunk::Chunk;
use super::input::Announced;
use super::output::Output;
use super::socket::{Kind, Socket, Taken, errno_of};
use crate::options::SocketOption;
use crate::system::{is_readable, option_number, receive_now};

/// The kind of stream sockets.
#[derive(Debug)]
pub struct Bytes;

/// The shared part of a stream.
pub type StreamCore = Socket<Bytes>;

/// The minimum weight of a piece, so that a peer cannot make us queue any number of tiny ones.
const OVERHEAD_BYTES: usize = 256;
/// The maximum size of a receive if none of the loop's buffers is free.
const OWN_MEMORY_MAX_BYTES: usize = 64 * 1024;

impl Kind for Bytes {
    type Piece = Chunk;
    type Detached = Box<[u8]>;
    type Output = Output;

    const QUEUE_MAX: usize = 256 * 1024;
    const ERROR_IS_END: bool = true;
    const CLOSE_FREES_PORT: bool = false;
    const TAKE_COST: u8 = Budget::RECEIVE;
    const BUDGET: u8 = Budget::OF_STREAM;

    #[inline]
    fn weight(chunk: &Chunk) -> usize {
        chunk.len().max(OVERHEAD_BYTES)
    }

    fn output_of(_: &OwnedFd) -> Output {
        Output::default()
    }

    fn continuous_operation(core: &StreamCore) -> Option<Operation> {
        let socket = core.descriptor();
        Some(match core.event_loop().is_readiness_based() {
            true => Operation::PollInput { socket },
            false => Operation::Receive { socket },
        })
    }

    #[inline]
    fn only_announces(socket: &StreamCore) -> bool {
        socket.event_loop().is_readiness_based()
    }

    fn take_now(socket: &StreamCore, limit: usize) -> io::Result<Taken<Chunk>> {
        let limit = limit.max(1);
        let chunk = match socket.event_loop().try_receive(socket.socket()?, limit) {
            Ok(buffer) => Chunk::Lent(buffer),
            Err(error) if errno_of(&error) == libc::ENOBUFS => receive_into_own_memory(socket, limit)?,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            return Ok(Taken::End);
        }
        let is_last = match &chunk {
            Chunk::Lent(buffer) => !buffer.is_full() && buffer.len() < limit,
            Chunk::Owned { bytes, .. } => bytes.len() < limit.min(OWN_MEMORY_MAX_BYTES),
        };
        // A reader may keep the chunk during a write, which may wait for a peer that itself waits for a buffer.
        Ok(Taken::Piece { piece: chunk.kept(), is_last })
    }

    #[inline]
    fn piece_of(_socket: &StreamCore, completion: Completion) -> Option<Chunk> {
        #[cfg(feature = "mutations")]
        let buffer = {
            let readers = &_socket.input.readers;
            let more = completion.more;
            completion.buffer.map(|buffer| crate::mutations::without_late_byte(buffer, more, readers))
        };
        #[cfg(not(feature = "mutations"))]
        let buffer = completion.buffer;
        buffer.map(|buffer| Chunk::Lent(buffer).kept())
    }

    fn detach(chunk: Chunk) -> Box<[u8]> {
        Box::from(&*chunk)
    }

    fn attach(bytes: Box<[u8]>) -> Chunk {
        Chunk::owned(bytes)
    }

    #[inline]
    fn output_completed(socket: &Rc<StreamCore>, kind: OperationKind, completion: Completion) {
        match (kind, completion.unsent) {
            (OperationKind::SendSoon, Some(rest)) => socket.message_completed(completion.result, rest),
            (_, unsent) => socket.output_completed(completion.result, unsent),
        }
    }

    fn end_output(socket: &Rc<StreamCore>) {
        socket.end_output();
    }

    fn wake_writers(socket: &StreamCore) {
        socket.writers().wake_all();
    }

    fn check_output(socket: &StreamCore) -> io::Result<()> {
        socket.check_behind()
    }

    fn is_output_over(socket: &StreamCore) -> bool {
        !socket.output_is_in_flight()
    }

    fn is_output_idle(socket: &StreamCore) -> bool {
        socket.output_is_idle() && socket.writers().is_empty()
    }
}

#[cold]
fn receive_into_own_memory(socket: &StreamCore, limit: usize) -> io::Result<Chunk> {
    let mut bytes = vec![0; limit.min(OWN_MEMORY_MAX_BYTES)];
    let count = receive_now(socket.descriptor(), &mut bytes)?;
    bytes.truncate(count);
    Ok(Chunk::owned(bytes))
}

impl StreamCore {
    /// Passes up to `limit` bytes of the next piece to the sink, and returns their number. `None` as for
    /// [`take`](Self::take).
    pub(crate) fn take_bytes(&self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> Option<usize> {
        // Removed from the queue first, as the sink may use the stream.
        let mut chunk = self.take(limit)?;
        let bytes: &[u8] = &chunk;
        let (length, count) = (bytes.len(), bytes.len().min(limit));
        sink(&bytes[..count]);
        if count < length && !self.is_closed() {
            chunk.consume(count);
            let weight = Bytes::weight(&chunk);
            self.input.push_front(chunk.kept(), weight);
        }
        Some(count)
    }

    /// Whether received bytes are queued.
    pub(crate) fn has_unread(&self) -> bool {
        self.input.weight() > 0
    }

    /// Whether there are bytes, an end of the stream or an error to read. Does not consume them.
    pub(crate) fn has_input(&self) -> bool {
        if self.has_unread() {
            return true;
        }
        let is_readable = self.input.announced.get() != Announced::Nothing && is_readable(self.descriptor());
        if !is_readable {
            self.input.announced.set(Announced::Nothing);
        }
        is_readable
    }

    /// Drops what has been received and not read, up to some 64 KiB, without waiting. A close with unread bytes resets
    /// the connection (`tcp(7)`, RFC 2525), and the peer loses what it has not read yet: protocols in which the last
    /// bytes of a peer are of no interest call this before.
    pub fn discard_input(&self) {
        if self.check_open().is_err() {
            return;
        }
        drop(self.input.drain());
        let mut bytes = [0; 4096];
        for _ in 0..16 {
            match receive_now(self.descriptor(), &mut bytes) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
    }

    /// Puts bytes back at the front of the queue, for the next reader.
    pub(crate) fn put_back_bytes(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put_back(Chunk::owned(bytes));
        }
    }

    /// Sends bytes that the kernel holds back to fill a segment, by switching Nagle's algorithm off and on again, as
    /// Janet's `net/flush` does. Does nothing on sockets other than TCP.
    ///
    /// # Errors
    ///
    /// [`Closed`](crate::Closed) on a closed stream; the kernel's.
    pub fn flush(&self) -> io::Result<()> {
        self.check_open()?;
        match option_number(self.descriptor(), libc::IPPROTO_TCP, libc::TCP_NODELAY) {
            Ok(0) => {
                for nodelay in [true, false] {
                    SocketOption::NoDelay(nodelay).set(self.socket()?)?;
                }
                Ok(())
            }
            // The algorithm is off, and must stay off.
            Ok(_) => Ok(()),
            Err(error) if matches!(errno_of(&error), libc::EOPNOTSUPP | libc::ENOPROTOOPT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
