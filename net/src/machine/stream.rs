//! Sockets of streams: what is received are bytes.

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

/// Bytes, as a stream brings them.
#[derive(Debug)]
pub struct Bytes;

/// The shared part of a stream.
pub type StreamCore = Socket<Bytes>;

/// What each piece takes besides its bytes, so that a peer cannot have us hold any number of tiny ones.
const OVERHEAD_BYTES: usize = 256;
/// How much is received at a time where it cannot be into one of the loop's buffers.
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
    fn only_tells(socket: &StreamCore) -> bool {
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
        // A reader may keep it for as long as a write takes, which may be waiting for one who lacks a buffer.
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
    /// Takes up to `limit` bytes of the next piece, which the sink looks at, and returns their count. `None` as for
    /// [`take`](Self::take).
    pub(crate) fn take_bytes(&self, limit: usize, sink: &mut dyn FnMut(&[u8])) -> Option<usize> {
        // Taken out while the sink looks at it: the sink may use the stream.
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

    /// Whether something has been received that nobody has taken.
    pub(crate) fn has_unread(&self) -> bool {
        self.input.weight() > 0
    }

    /// Whether there is something to read, or an end or an error to be told, all of which stays where it is.
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

    /// Puts bytes back in front of what is unread, for the next reader.
    pub(crate) fn put_back_bytes(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put_back(Chunk::owned(bytes));
        }
    }

    /// Sends what the kernel holds back to fill a segment, by switching Nagle's algorithm off and on again, as Janet's
    /// `net/flush` does. There is no other buffering. On a socket that is not of TCP, there is nothing to do.
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
            // With the algorithm off, nothing is held back, and it must stay off.
            Ok(_) => Ok(()),
            Err(error) if matches!(errno_of(&error), libc::EOPNOTSUPP | libc::ENOPROTOOPT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
