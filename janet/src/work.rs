//! What a parked fiber waits for: our machines, what goes into them from the VM and what comes out for it.

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use crate::api as janet;
use crate::api::{Janet, JanetBuffer, JanetFiber, JanetFunction, JanetStream};
use ringspun_net::is_closed;
use ringspun_net::machine::{
    Accept, Connect, Read, ReceiveFrom, Resolve, SendTo, StreamCore, Write, is_exhausted,
};
use ringspun_runtime::{SendData, Wake};

use crate::bridge::Bridge;
use crate::resolving::{Next, Purpose, connect_error};
use crate::secured::{ServerConfig, machine as tls};
use crate::socket::Socket;
use crate::values::{address_value, bytes_of, error_string, nil, string};

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
    /// With `tells_source`, the result is the sender of the datagram, otherwise the buffer.
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
        tls: Option<Rc<ServerConfig>>,
    },
    AcceptLoop {
        machine: Accept,
        handler: *mut JanetFunction,
        tls: Option<Rc<ServerConfig>>,
    },
    TlsRead {
        machine: Box<tls::Read>,
        target: Target,
    },
    TlsWrite {
        machine: Box<tls::Write>,
        data: Janet,
    },
    /// The result is the stream.
    #[cfg_attr(not(feature = "tls"), expect(dead_code))]
    Handshake {
        machine: tls::Handshake,
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

/// How the fiber continues.
pub(crate) enum Outcome {
    Value(Janet),
    Error(Janet),
}

impl Outcome {
    fn error(error: &std::io::Error) -> Self {
        Self::Error(error_string(error))
    }
}

/// The context of the work.
pub(crate) struct Context<'a> {
    pub(crate) bridge: &'a Rc<Bridge>,
    /// The fiber that waits.
    pub(crate) fiber: *mut JanetFiber,
    /// The stream waited on; null while connecting, as there is none yet.
    pub(crate) stream: *mut JanetStream,
}

impl Context<'_> {
    /// The stream waited on has been closed.
    fn is_stream_closed(&self) -> bool {
        // SAFETY: alive: a parked operation marks its stream, a running function's arguments do.
        !self.stream.is_null() && unsafe { (*self.stream).flags } & janet::JANET_STREAM_CLOSED != 0
    }

    /// The channel that the fiber's supervisor reads, for fibers that it starts.
    fn supervisor_channel(&self) -> *mut c_void {
        // SAFETY: alive: it runs, or its operation marks it.
        unsafe { (*self.fiber).supervisor_channel }
    }
}

/// The progress of the work.
pub(crate) enum Step {
    Ready(Outcome),
    /// The waiter will be woken.
    Pending,
    /// The waiter must retry after a pause: no event signals that descriptors are available again.
    Paused,
}

impl From<Poll<Outcome>> for Step {
    fn from(polled: Poll<Outcome>) -> Self {
        match polled {
            Poll::Ready(outcome) => Self::Ready(outcome),
            Poll::Pending => Self::Pending,
        }
    }
}

impl Work {
    pub(crate) fn poll(&mut self, context: &Context<'_>, waiter: &Rc<dyn Wake>) -> Step {
        match self {
            Self::AcceptLoop { machine, handler, tls } => {
                poll_accept_loop(context, machine, waiter, *handler, tls.as_deref())
            }
            Self::Resolve { machine, purpose } => match machine.poll(waiter) {
                Poll::Pending => Step::Pending,
                Poll::Ready(answer) => match purpose.proceed(context.bridge, answer) {
                    Next::Value(value) => Step::Ready(Outcome::Value(value)),
                    Next::Error(error) => Step::Ready(Outcome::Error(error)),
                    Next::Resolve { machine, purpose } => {
                        *self = Self::Resolve { machine, purpose };
                        self.poll(context, waiter)
                    }
                    Next::Connect { machine, is_unix } => {
                        *self = Self::Connect { machine, is_unix };
                        self.poll(context, waiter)
                    }
                },
            },
            _ => self.poll_machine(context, waiter).into(),
        }
    }

    fn poll_machine(&mut self, context: &Context<'_>, waiter: &Rc<dyn Wake>) -> Poll<Outcome> {
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
                let copy = |offset| copy_of(context, *data, offset, SEND_PIECE_BYTES);
                let total = with_bytes(*data, <[u8]>::len);
                machine.poll(waiter, total, copy).map(|written| sent_outcome(context, written))
            }
            Self::SendTo { machine, data } => machine
                .poll(waiter, &mut || copy_of(context, *data, 0, usize::MAX))
                .map(|sent| sent_outcome(context, sent)),
            Self::TlsRead { machine, target } => {
                receive(*target, |sink| machine.poll(waiter, sink)).map(|read| match read {
                    Ok(count) => bytes_outcome(*target, count),
                    Err(outcome) => outcome,
                })
            }
            Self::TlsWrite { machine, data } => with_bytes(*data, |bytes| machine.poll(waiter, bytes))
                .map(|written| sent_outcome(context, written)),
            Self::Handshake { machine } => machine.poll(waiter).map(|shaken| match shaken {
                // SAFETY: alive: a parked operation marks its stream, a running function's arguments do.
                Ok(()) => Outcome::Value(unsafe { janet::janet_wrap_abstract(context.stream.cast()) }),
                Err(error) => Outcome::error(&error),
            }),
            Self::Accept { machine, tls } => machine.poll(waiter).map(|accepted| match accepted {
                Ok(connection) => match connection_value(context, connection, tls.as_deref()) {
                    Ok(stream) => Outcome::Value(stream),
                    Err(error) => Outcome::error(&error),
                },
                Err(error) if is_closed(&error) => Outcome::Value(nil()),
                Err(error) => Outcome::error(&error),
            }),
            Self::Connect { machine, is_unix } => machine.poll(waiter).map(|connected| match connected {
                Ok(core) => Outcome::Value(stream_value(context, core)),
                Err(error) => Outcome::Error(connect_error(&error, *is_unix)),
            }),
            // These are handled above.
            Self::AcceptLoop { .. } | Self::Resolve { .. } => Poll::Pending,
        }
    }

    /// Gives up, because something else resumes the fiber.
    pub(crate) fn abandon(self, waiter: &Rc<dyn Wake>) {
        match self {
            Self::Read { machine, target } => machine.abandon(waiter, unseen_bytes(target)),
            Self::ReceiveFrom { machine, target, .. } => machine.abandon(waiter, unseen_bytes(target)),
            Self::Write { machine, .. } => machine.abandon(waiter),
            Self::SendTo { machine, .. } => machine.abandon(waiter),
            Self::Accept { machine, .. } | Self::AcceptLoop { machine, .. } => machine.abandon(waiter),
            Self::TlsRead { machine, target } => machine.abandon(waiter, unseen_bytes(target)),
            Self::TlsWrite { machine, .. } => machine.abandon(waiter),
            Self::Handshake { machine } => machine.abandon(waiter),
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
            Self::TlsRead { machine, target } => target.is_own && machine.received() > 0,
            _ => false,
        }
    }

    /// Shows the collector everything that this holds.
    pub(crate) fn mark(&self, mark: &dyn Fn(Janet)) {
        // SAFETY: these were alive when the fiber parked, and have been marked ever since.
        unsafe {
            match self {
                Self::Read { target, .. }
                | Self::ReceiveFrom { target, .. }
                | Self::TlsRead { target, .. } => {
                    mark(janet::janet_wrap_buffer(target.buffer));
                }
                Self::Write { data, .. } | Self::SendTo { data, .. } | Self::TlsWrite { data, .. } => {
                    mark(*data);
                }
                Self::AcceptLoop { handler, .. } => mark(janet::janet_wrap_function(*handler)),
                Self::Accept { .. }
                | Self::Connect { .. }
                | Self::Resolve { .. }
                | Self::Handshake { .. } => {}
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

/// Appends to a Janet buffer. Returns an error where the VM would raise, across our frames.
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
fn copy_of(context: &Context<'_>, data: Janet, offset: usize, limit_bytes: usize) -> SendData {
    let mut piece = context.bridge.event_loop().take_send_buffer();
    with_bytes(data, |bytes| {
        // The buffer may have shrunk meanwhile; then there is nothing left to send.
        let rest = bytes.get(offset..).unwrap_or_default();
        piece.extend_from_slice(&rest[..rest.len().min(limit_bytes)]);
    });
    SendData::Owned(piece)
}

/// Passes the bytes of a buffer, or of a value that `janet_getbytes` accepts, to `look`.
#[inline]
pub(crate) fn with_bytes<T>(data: Janet, look: impl FnOnce(&[u8]) -> T) -> T {
    // SAFETY: the caller keeps the value alive and has checked that it has bytes, so the VM does not
    // raise. `look` calls nothing of the VM, so the bytes stay where they are.
    unsafe {
        if let Some(bytes) = bytes_of(data) {
            return look(bytes);
        }
        // An abstract type with bytes.
        let view = janet::janet_getbytes(&data, 0);
        let length = usize::try_from(view.len).unwrap_or(0);
        if view.bytes.is_null() || length == 0 {
            return look(&[]);
        }
        look(std::slice::from_raw_parts(view.bytes, length))
    }
}

fn sent_outcome(context: &Context<'_>, sent: std::io::Result<()>) -> Outcome {
    match sent {
        Ok(()) => Outcome::Value(nil()),
        Err(error) => Outcome::Error(sent_error(&error, context.is_stream_closed())),
    }
}

/// The error of a failed send, in the words of the VM's own functions.
pub(crate) fn sent_error(error: &std::io::Error, is_stream_closed: bool) -> Janet {
    match error.kind() {
        _ if is_stream_closed => string("stream closed"),
        std::io::ErrorKind::WriteZero => string("disconnect"),
        _ => error_string(error),
    }
}

fn poll_accept_loop(
    context: &Context<'_>,
    machine: &mut Accept,
    waiter: &Rc<dyn Wake>,
    handler: *mut JanetFunction,
    tls: Option<&ServerConfig>,
) -> Step {
    loop {
        match machine.poll(waiter) {
            Poll::Pending => return Step::Pending,
            Poll::Ready(Ok(connection)) => {
                let argument = match connection_value(context, connection, tls) {
                    Ok(argument) => argument,
                    Err(error) => return Step::Ready(Outcome::error(&error)),
                };
                // SAFETY: the handler is alive, by its mark or as an argument. A fiber that cannot take
                // one argument is refused with a null.
                unsafe {
                    let fiber = janet::janet_fiber(handler, 64, 1, &argument);
                    if fiber.is_null() {
                        let text = "handler function must take exactly 1 argument";
                        return Step::Ready(Outcome::Error(string(text)));
                    }
                    (*fiber).supervisor_channel = context.supervisor_channel();
                    janet::janet_schedule(fiber, nil());
                }
            }
            Poll::Ready(Err(error)) if is_closed(&error) => return Step::Ready(Outcome::Value(nil())),
            Poll::Ready(Err(error)) if is_exhausted(&error) => {
                return Step::Paused;
            }
            Poll::Ready(Err(error)) => return Step::Ready(Outcome::error(&error)),
        }
    }
}

/// The stream of an accepted connection. With TLS, its first read or write performs the handshake.
fn connection_value(
    context: &Context<'_>,
    descriptor: OwnedFd,
    tls: Option<&ServerConfig>,
) -> std::io::Result<Janet> {
    let core = StreamCore::new(context.bridge.event_loop().clone(), descriptor);
    let Some(config) = tls else { return Ok(stream_value(context, core)) };
    let session = config.connection().inspect_err(|_| core.close())?;
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE;
    Ok(context.bridge.stream_value(Socket::Tls(tls::TlsCore::new(core, session)), flags))
}

fn stream_value(context: &Context<'_>, core: Rc<StreamCore>) -> Janet {
    let flags = janet::JANET_STREAM_READABLE | janet::JANET_STREAM_WRITABLE;
    context.bridge.stream_value(Socket::Stream(core), flags)
}
