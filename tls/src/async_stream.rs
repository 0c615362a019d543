//! TLS streams for crates that are written for futures.

use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::Poll;

use ringspun_net::PollStream;
use ringspun_net::machine::Amount;
use ringspun_runtime::Wake;

use crate::machine::{Read, Write};
use crate::stream::TlsStream;
use crate::waiting::check_loop;

/// For [`AsyncStream`](ringspun_net::AsyncStream): TLS under crates for futures.
///
/// # Examples
///
/// ```
/// use std::future::poll_fn;
///
/// use ringspun_fibers as fibers;
/// use ringspun_net::AsyncStream;
/// use ringspun_tls::{self as tls, ClientConfig, Identity, Roots, ServerConfig};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let identity = Identity::self_signed(&["localhost"])?;
///     let trusted = Roots::from_pem(identity.certificate_pem().as_bytes())?;
///     let server = tls::server("localhost:0", &ServerConfig::builder().identity(identity).build()?, |stream| {
///         stream.write(b"hello").unwrap();
///     })?;
///     let port = server.localname()?.port().unwrap();
///     let client = tls::connect_with(("localhost", port), &ClientConfig::builder().roots(trusted).build()?)?;
///     let (mut client, mut read) = (AsyncStream::new(client), Vec::new());
///     let reading = poll_fn(|context| client.poll_read(context, 16, |bytes| read.extend_from_slice(bytes)));
///     fibers::block_on(reading)??;
///     assert_eq!(read, b"hello");
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
impl PollStream for TlsStream {
    fn poll_read(
        &self,
        waiter: &Rc<dyn Wake>,
        limit: usize,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        check_loop(self.core().stream())?;
        Read::new(self.core().clone(), Amount::UpTo(limit))
            .poll(waiter, sink)
            .map_err(|error| self.failed("read from", error))
    }

    fn poll_write(&self, waiter: &Rc<dyn Wake>, data: &[u8]) -> Poll<io::Result<usize>> {
        check_loop(self.core().stream())?;
        let mut machine = Write::new(self.core().clone(), true);
        match machine.poll(waiter, data) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(data.len())),
            // What has been encrypted is on its way. The next call returns the error, or waits.
            _ if machine.written() > 0 => {
                let written = machine.written();
                machine.abandon(waiter);
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failed("write to", error))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_flush(&self, waiter: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
        self.core().stream().poll_sent(waiter).map_err(|error| self.failed("write to", error))
    }

    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }

    fn leave_readers(&self, waiter: &Rc<dyn Wake>) {
        self.core().stream().leave_readers(waiter);
    }

    fn leave_writers(&self, waiter: &Rc<dyn Wake>) {
        self.core().stream().leave_writers(waiter);
    }
}
