//! What the rest of this crate uses of TLS: the types of `ringspun-tls` or, in a build without the feature `tls`, types
//! of the same names that have no values. No other file tells the two builds apart, but for the module itself.

#[cfg(feature = "tls")]
pub(crate) use ringspun_tls::{ServerConfig, machine};

#[cfg(not(feature = "tls"))]
pub(crate) use absent::{ServerConfig, machine};

/// Stand-ins. A method takes a value, so none is ever called.
#[cfg(not(feature = "tls"))]
mod absent {
    use std::convert::Infallible;
    use std::io;

    /// In place of a server's configuration.
    pub(crate) struct ServerConfig(Infallible);

    impl ServerConfig {
        pub(crate) fn connection(&self) -> io::Result<machine::Connection> {
            match self.0 {}
        }
    }

    pub(crate) mod machine {
        use std::convert::Infallible;
        use std::io;
        use std::net::Shutdown;
        use std::rc::Rc;
        use std::task::Poll;

        use ringspun_net::machine::{Amount, StreamCore};
        use ringspun_runtime::Wake;

        /// In place of a session's state.
        pub(crate) struct Connection(Infallible);

        /// In place of a session above a stream.
        pub(crate) struct TlsCore(Infallible);

        impl TlsCore {
            pub(crate) fn new(_: Rc<StreamCore>, connection: Connection) -> Rc<Self> {
                match connection.0 {}
            }

            pub(crate) fn stream(&self) -> &Rc<StreamCore> {
                match self.0 {}
            }

            pub(crate) fn try_write(&self, _: &[u8]) -> io::Result<usize> {
                match self.0 {}
            }

            pub(crate) fn shutdown(&self, _: Shutdown) -> io::Result<()> {
                match self.0 {}
            }

            pub(crate) fn close(&self) {
                match self.0 {}
            }
        }

        /// In place of a read.
        pub(crate) struct Read(Infallible);

        impl Read {
            pub(crate) fn new(core: Rc<TlsCore>, _: Amount) -> Self {
                match core.0 {}
            }

            pub(crate) fn poll(
                &mut self,
                _: &Rc<dyn Wake>,
                _: &mut dyn FnMut(&[u8]),
            ) -> Poll<io::Result<usize>> {
                match self.0 {}
            }

            pub(crate) fn received(&self) -> usize {
                match self.0 {}
            }

            pub(crate) fn abandon(self, _: &Rc<dyn Wake>, _: &[u8]) {
                match self.0 {}
            }
        }

        /// In place of a write.
        pub(crate) struct Write(Infallible);

        impl Write {
            pub(crate) fn after(core: Rc<TlsCore>, _: usize) -> Self {
                match core.0 {}
            }

            pub(crate) fn poll(&mut self, _: &Rc<dyn Wake>, _: &[u8]) -> Poll<io::Result<()>> {
                match self.0 {}
            }

            pub(crate) fn abandon(self, _: &Rc<dyn Wake>) {
                match self.0 {}
            }
        }

        /// In place of a handshake.
        pub(crate) struct Handshake(Infallible);

        impl Handshake {
            pub(crate) fn poll(&mut self, _: &Rc<dyn Wake>) -> Poll<io::Result<()>> {
                match self.0 {}
            }

            pub(crate) fn abandon(self, _: &Rc<dyn Wake>) {
                match self.0 {}
            }
        }
    }
}
