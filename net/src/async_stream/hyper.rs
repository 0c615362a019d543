//! What hyper needs beside a service: streams, a timer, and an executor whose tasks are fibers.
//!
//! Serve each connection in a fiber of its own:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use hyper::server::conn::http1;
//! use hyper::service::service_fn;
//! use ringspun_fibers as fibers;
//! use ringspun_net::{self as net, AsyncStream};
//!
//! fibers::run(|| -> std::io::Result<()> {
//!     let server = net::server("127.0.0.1:0", |stream| {
//!         let hello = service_fn(|_| async { Ok::<_, Infallible>(hyper::Response::new(String::from("hello"))) });
//!         let connection = http1::Builder::new()
//!             .timer(net::hyper::Timer)
//!             .serve_connection(AsyncStream::new(stream), hello);
//!         let _ = fibers::block_on(connection);
//!     })?;
//!     let client = net::connect(server.localname()?)?;
//!     client.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
//!     let mut answer = String::new();
//!     std::io::Read::read_to_string(&mut &client, &mut answer)?;
//!     assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"));
//!     server.close();
//!     Ok(())
//! })
//! .unwrap()
//! .unwrap();
//! ```

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ::hyper::rt::{self, ReadBufCursor};
use ringspun_fibers::{self as fibers, PollableFuture, Remote};
use slab::Slab;

use super::{AsyncStream, PollStream};

impl<S: PollStream + Unpin> rt::Read for AsyncStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let limit = buffer.remaining();
        AsyncStream::poll_read(&mut self, context, limit, |bytes| buffer.put_slice(bytes)).map_ok(|_| ())
    }
}

impl<S: PollStream + Unpin> rt::Write for AsyncStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncStream::poll_write(&mut self, context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncStream::poll_flush(&mut self, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncStream::poll_close(&mut self, context)
    }
}

/// Runs each task of hyper in a fiber of its own, which the end of the runtime cancels. A task that cannot be started,
/// as there is no memory or no runtime, is dropped, and logged by `tracing` as an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Executor;

impl<F: Future + 'static> rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        let spawned = fibers::spawn(move || drop(fibers::block_on(future)));
        if let Err(error) = spawned {
            tracing::error!(%error, "no fiber for a task of hyper");
        }
    }
}

/// The clock and the timers of the thread's event loop. Its sleeps are waited for in fibers; elsewhere they panic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timer;

impl rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep { until: self.now().checked_add(duration), armed: None })
    }

    fn sleep_until(&self, until: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Sleep { until: Some(until), armed: None })
    }

    fn now(&self) -> Instant {
        fibers::event_loop().map_or_else(Instant::now, |event_loop| event_loop.now())
    }
}

thread_local! {
    /// The timers of this thread. What hyper gets must be `Send`, which they are not.
    static TIMERS: RefCell<Slab<(u64, PollableFuture<fibers::Timer>)>> = const { RefCell::new(Slab::new()) };
}

/// Tells the users of a slot apart, on all threads.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

/// A moment to wait for. Polled on another thread, it waits there.
struct Sleep {
    /// `None` beyond the clock's range.
    until: Option<Instant>,
    armed: Option<Armed>,
}

/// A timer of some thread.
struct Armed {
    slot: usize,
    serial: u64,
    home: Remote,
}

impl rt::Sleep for Sleep {}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else { return Poll::Pending };
        let polled =
            self.armed.as_ref().and_then(|armed| with_timer(armed, |timer| Pin::new(timer).poll(context)));
        if let Some(polled) = polled {
            return polled;
        }
        let Some(home) = fibers::remote() else {
            panic!("a timer of fibers was polled where no runtime of fibers runs")
        };
        let mut timer = fibers::as_future(fibers::at(until));
        if Pin::new(&mut timer).poll(context).is_ready() {
            return Poll::Ready(());
        }
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let slot = TIMERS.with_borrow_mut(|timers| timers.insert((serial, timer)));
        self.armed = Some(Armed { slot, serial, home });
        Poll::Pending
    }
}

/// Calls `function` with the timer, if it is one of this thread.
fn with_timer<T>(armed: &Armed, function: impl FnOnce(&mut PollableFuture<fibers::Timer>) -> T) -> Option<T> {
    TIMERS.with_borrow_mut(|timers| {
        let (serial, timer) = timers.get_mut(armed.slot)?;
        (*serial == armed.serial).then(|| function(timer))
    })
}

/// Removes the timer, if it is one of this thread.
fn remove(slot: usize, serial: u64) -> bool {
    // At the end of the thread, there may be none any more.
    let removed = TIMERS.try_with(|timers| {
        let mut timers = timers.borrow_mut();
        let is_here = timers.get(slot).is_some_and(|(of_slot, _)| *of_slot == serial);
        is_here.then(|| timers.remove(slot))
    });
    matches!(removed, Ok(Some(_)))
}

impl Drop for Armed {
    fn drop(&mut self) {
        let (slot, serial) = (self.slot, self.serial);
        if !remove(slot, serial) {
            // On another thread. A runtime that has ended has no timers.
            let _ = self.home.execute(move || {
                remove(slot, serial);
            });
        }
    }
}
