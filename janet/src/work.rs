//! What a parked fiber waits for: our machines, what goes into them from the VM and what comes out for it.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use crate::api as janet;
use crate::api::{Janet, JanetBuffer, JanetFunction};
use ringspun_net::is_closed;
use ringspun_net::machine::{
    Accept, Connect, ConnectError, Read, ReceiveFrom, Resolve, SendTo, StreamCore, Write, is_exhausted,
};
use ringspun_runtime::{SendData, Wake};

use crate::parked::Parked;
use crate::socket::Socket;
use crate::sockets::{Next, Purpose};
use crate::values::{address_value, error_string, explained, nil, string};

/// How much of a Janet value is copied for one send on a stream.
const SEND_PIECE_BYTES: usize = 64 * 1024;

/// Where received bytes go.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) buffer: *mut JanetBuffer,
    /// The program did not pass the buffer, so only the result shows it.
    pub(crate) is_own: bool,
}

/// What the fiber waits for, and what the collector has to keep for it. What is large is boxed, so that reads and
/// writes on streams, of which each parked fiber has one, take two cache lines instead of five.
pub(crate) enum Work {
    Read {
        machine: Read,
        target: Target,
    },
    /// With `tells_source`, the result is who sent the datagram, and otherwise the buffer.
    ReceiveFrom {
        machine: Box<ReceiveFrom>,
        target: Target,
        tells_source: bool,
    },
    Write {
        machine: Write,
        data: Janet,
    },
    SendTo {
        machine: Box<SendTo>,
        data: Janet,
    },
    Accept {
        machine: Accept,
    },
    AcceptLoop {
        machine: Accept,
        handler: *mut JanetFunction,
    },
    Resolve {
        machine: Resolve,
        purpose: Box<Purpose>,
    },
    Connect {
        machine: Box<Connect>,
        is_unix: bool,
    },
}

/// How the fiber goes on.
pub(crate) enum Outcome {
    Value(Janet),
    Error(Janet),
}

impl Outcome {
    fn error(error: &std::io::Error) -> Self {
        Self::Error(error_string(error))
    }
}

impl Work {
    pub(crate) fn poll(&mut self, parked: &Rc<Parked>, waiter: &Rc<dyn Wake>) -> Poll<Outcome> {
        match self {
            Self::Read { machine, target } => {
                receive(*target, |sink| machine.poll(waiter, sink)).map(|read| match read {
                    Ok(count) => bytes_outcome(*target, count),
                    Err(outcome) => outcome,
                })
            }
            Self::ReceiveFrom { machine, target, tells_source } => {
                receive(*target, |sink| machine.poll(waiter, sink)).map(|received| match received {
                    Ok((_, source)) if *tells_source => Outcome::Value(address_value(&source)),
                    Ok((count, _)) => bytes_outcome(*target, count),
                    Err(outcome) => outcome,
                })
            }
            Self::Write { machine, data } => {
                let copy = |offset| copy_of(parked, *data, offset, SEND_PIECE_BYTES);
                let total = with_bytes(*data, <[u8]>::len);
                machine.poll(waiter, total, copy).map(|written| sent_outcome(parked, written))
            }
            Self::SendTo { machine, data } => machine
                .poll(waiter, &mut || copy_of(parked, *data, 0, usize::MAX))
                .map(|sent| sent_outcome(parked, sent)),
            Self::Accept { machine } => machine.poll(waiter).map(|accepted| match accepted {
                Ok(connection) => Outcome::Value(connection_value(parked, connection)),
                Err(error) if is_closed(&error) => Outcome::Value(nil()),
                Err(error) => Outcome::error(&error),
            }),
            Self::AcceptLoop { machine, handler } => poll_accept_loop(parked, machine, waiter, *handler),
            Self::Connect { machine, is_unix } => machine.poll(waiter).map(|connected| match connected {
                Ok(core) => Outcome::Value(stream_value(parked, core)),
                Err(error) => Outcome::Error(connect_error(&error, *is_unix)),
            }),
            Self::Resolve { machine, purpose } => match machine.poll(waiter) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(answer) => match purpose.proceed(parked.bridge(), answer) {
                    Next::Outcome(outcome) => Poll::Ready(outcome),
                    Next::Work(work) => {
                        *self = work;
                        self.poll(parked, waiter)
                    }
                },
            },
        }
    }

    /// Gives up, because something else resumes the fiber.
    pub(crate) fn abandon(self, waiter: &Rc<dyn Wake>) {
        match self {
            Self::Read { machine, target } => machine.abandon(waiter, unseen_bytes(target)),
            Self::ReceiveFrom { machine, target, .. } => machine.abandon(waiter, unseen_bytes(target)),
            Self::Write { machine, .. } => machine.abandon(waiter),
            Self::SendTo { machine, .. } => machine.abandon(waiter),
            Self::Accept { machine } | Self::AcceptLoop { machine, .. } => machine.abandon(waiter),
            Self::Connect { machine, .. } => machine.abandon(waiter),
            // Dropping it is what ends it.
            Self::Resolve { .. } => {}
        }
    }

    /// Whether bytes have been received into a buffer that the program does not have yet.
    pub(crate) fn has_unseen_bytes(&self) -> bool {
        match self {
            Self::Read { machine, target } => target.is_own && machine.received() > 0,
            Self::ReceiveFrom { machine, target, .. } => target.is_own && machine.received() > 0,
            _ => false,
        }
    }

    /// Shows the collector everything that this holds.
    pub(crate) fn mark(&self, mark: &dyn Fn(Janet)) {
        // SAFETY: these were alive when the fiber parked, and have been marked ever since.
        unsafe {
            match self {
                Self::Read { target, .. } | Self::ReceiveFrom { target, .. } => {
                    mark(janet::janet_wrap_buffer(target.buffer));
                }
                Self::Write { data, .. } | Self::SendTo { data, .. } => mark(*data),
                Self::AcceptLoop { handler, .. } => mark(janet::janet_wrap_function(*handler)),
                Self::Accept { .. } | Self::Connect { .. } | Self::Resolve { .. } => {}
            }
        }
    }
}

/// Polls a machine whose bytes go into a Janet buffer.
fn receive<T>(
    target: Target,
    poll: impl FnOnce(&mut dyn FnMut(&[u8])) -> Poll<std::io::Result<T>>,
) -> Poll<Result<T, Outcome>> {
    let mut refused = None;
    let polled = poll(&mut |bytes| {
        if refused.is_none() {
            refused = append(target.buffer, bytes).err();
        }
    });
    if let Some(reason) = refused {
        return Poll::Ready(Err(Outcome::Error(string(reason))));
    }
    polled.map(|received| {
        received.map_err(|error| match is_closed(&error) {
            true => Outcome::Value(nil()),
            false => Outcome::error(&error),
        })
    })
}

/// The buffer, or nothing at the end of the stream.
fn bytes_outcome(target: Target, count: usize) -> Outcome {
    match count {
        0 => Outcome::Value(nil()),
        // SAFETY: alive: a parked operation marks its buffer, a running function's arguments do.
        _ => Outcome::Value(unsafe { janet::janet_wrap_buffer(target.buffer) }),
    }
}

/// What a buffer of our own has received.
fn unseen_bytes<'a>(target: Target) -> &'a [u8] {
    // SAFETY: alive, by its mark, while the operation is parked; what abandoning it wakes does not touch
    // this buffer, which the program has not seen.
    unsafe {
        let count = usize::try_from((*target.buffer).count).unwrap_or(0);
        let unseen = target.is_own && count > 0;
        if unseen { std::slice::from_raw_parts((*target.buffer).data, count) } else { &[] }
    }
}

/// Appends to a Janet buffer, or says why not: where the VM would raise, across our frames.
fn append(buffer: *mut JanetBuffer, bytes: &[u8]) -> Result<(), &'static str> {
    // SAFETY: the caller keeps the buffer alive. The checks are those under which the VM raises.
    unsafe {
        let length = i32::try_from(bytes.len()).map_err(|_| "buffer overflow")?;
        let count = (*buffer).count.checked_add(length).ok_or("buffer overflow")?;
        let fixed = (*buffer).gc.flags & janet::JANET_BUFFER_FLAG_NO_REALLOC != 0;
        if fixed && count > (*buffer).capacity {
            return Err("buffer cannot reallocate foreign memory");
        }
        janet::janet_buffer_push_bytes(buffer, bytes.as_ptr(), length);
    }
    Ok(())
}

/// A copy of a value's bytes from an offset on, up to `limit_bytes` of them.
fn copy_of(parked: &Parked, data: Janet, offset: usize, limit_bytes: usize) -> SendData {
    let mut piece = parked.bridge().event_loop().take_send_buffer();
    with_bytes(data, |bytes| {
        // The buffer may have shrunk since the last look; then there is nothing left to send.
        let rest = bytes.get(offset..).unwrap_or_default();
        piece.extend_from_slice(&rest[..rest.len().min(limit_bytes)]);
    });
    SendData::Owned(piece)
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

fn sent_outcome(parked: &Parked, sent: std::io::Result<()>) -> Outcome {
    match sent {
        Ok(()) => Outcome::Value(nil()),
        Err(_) if parked.is_stream_closed() => Outcome::Error(string("stream closed")),
        Err(error) if error.kind() == std::io::ErrorKind::WriteZero => Outcome::Error(string("disconnect")),
        Err(error) => Outcome::error(&error),
    }
}

fn poll_accept_loop(
    parked: &Rc<Parked>,
    machine: &mut Accept,
    waiter: &Rc<dyn Wake>,
    handler: *mut JanetFunction,
) -> Poll<Outcome> {
    loop {
        match machine.poll(waiter) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(connection)) => {
                let argument = connection_value(parked, connection);
                // SAFETY: the handler is alive, by its mark or as an argument. A fiber that cannot take
                // one argument is refused with a null.
                unsafe {
                    let fiber = janet::janet_fiber(handler, 64, 1, &argument);
                    if fiber.is_null() {
                        let text = "handler function must take exactly 1 argument";
                        return Poll::Ready(Outcome::Error(string(text)));
                    }
                    (*fiber).supervisor_channel = parked.supervisor_channel();
                    janet::janet_schedule(fiber, nil());
                }
            }
            Poll::Ready(Err(error)) if is_closed(&error) => return Poll::Ready(Outcome::Value(nil())),
            Poll::Ready(Err(error)) if is_exhausted(&error) => {
                parked.look_again_later();
                return Poll::Pending;
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Outcome::error(&error)),
        }
    }
}

fn connection_value(parked: &Parked, descriptor: OwnedFd) -> Janet {
    stream_value(parked, StreamCore::new(parked.bridge().event_loop().clone(), descriptor))
}

fn stream_value(parked: &Parked, core: Rc<StreamCore>) -> Janet {
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE;
    parked.bridge().stream_value(Socket::Stream(core), flags)
}

/// In the words of the VM's own `net/connect`, which meets some errors at once and some later.
pub(crate) fn connect_error(error: &ConnectError, is_unix: bool) -> Janet {
    match error {
        ConnectError::Socket(error) => explained("could not create socket", error),
        ConnectError::Bind(error) => explained("could not bind outgoing address", error),
        ConnectError::Connect(error) => match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET | libc::ETIMEDOUT | libc::EHOSTUNREACH)
                if !is_unix =>
            {
                error_string(error)
            }
            _ => explained("could not connect socket", error),
        },
    }
}
