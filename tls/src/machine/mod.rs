//! TLS as state machines over the machines of `ringspun-net`: they are polled with a waiter, by fibers and by the Janet
//! bridge alike.
//!
//! What has been encrypted is on its way: the stream sends it from memory of its own, after everything before it,
//! whatever becomes of the machine that encrypted it. So a cancel can neither lose a record nor tear one apart.

mod core;
mod handshake;
mod moving;
mod read;
mod write;

pub use self::core::TlsCore;
pub use handshake::Handshake;
pub use moving::DetachedSession;
pub use read::Read;
pub use write::Write;
