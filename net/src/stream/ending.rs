//! The ends of streams: of one direction, and of a conversation.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use ringspun_fibers::{self as fibers, Interrupt::TimedOut};

use super::Stream;
use crate::error::{errno_of, interrupt_of};

impl Stream {
    /// Shuts down reading, writing or both (`shutdown(2)`). After a shutdown of writing, the peer reads the end of the
    /// stream; after one of reading, our own reads do. Does not wait.
    ///
    /// # Errors
    ///
    /// The kernel's, such as no longer being connected; [`Closed`](crate::Closed).
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.core.shutdown(how).map_err(|error| self.failed("shutdown of", error))
    }

    /// Ends the output, as [`shutdown`](Self::shutdown) does, and reads on until the peer ends as well, for up to
    /// `within`; what comes is dropped. To be closed after that: a close while bytes are unread, or still come, resets
    /// the connection, which can take the last of the output away from a peer that is sending.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown); a deadline or a cancel of the fiber. It is no error if the peer does not end in
    /// time, or is gone.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers as fibers;
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let server = net::server("127.0.0.1:0", |stream| {
    ///         // It takes more than this, and does not want it.
    ///         let _ = stream.read(&mut [0; 10]);
    ///         let _ = stream.write(b"too much");
    ///         let _ = stream.finish(Duration::from_secs(10));
    ///     })?;
    ///     let client = net::connect(server.localname()?)?;
    ///     client.write(&vec![0; 3_000_000])?;
    ///     assert_eq!(&*client.receive()?.unwrap(), b"too much");
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn finish(&self, within: Duration) -> io::Result<()> {
        match self.shutdown(Shutdown::Write) {
            Err(error) if errno_of(&error) == Some(libc::ENOTCONN) => return Ok(()),
            ended => ended?,
        }
        let read = fibers::timeout(within, || {
            while self.receive()?.is_some() {}
            Ok(())
        });
        match read {
            Ok(Err(error)) if !matches!(interrupt_of(&error), None | Some(TimedOut)) => Err(error),
            _ => Ok(()),
        }
    }
}
