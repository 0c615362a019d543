//! Listeners that close for good, where a program expects one.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{Shutdown, shutdown};

/// A listener for a target that dies, at an address of its own where there are several: a port that it leaves would be
/// another test's within the run, which would then answer.
pub fn mortal_listener() -> TcpListener {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let second = 1 + COUNT.fetch_add(1, Ordering::Relaxed) % 200;
    let is_linux = cfg!(target_os = "linux");
    let host = if is_linux { format!("127.{second}.{high}.{low}") } else { "127.0.0.1".to_string() };
    TcpListener::bind((host, 0)).unwrap()
}

/// Ends a listener at once, whoever else has it: a child that another test has just forked has all descriptors until it
/// is another program.
pub fn close(listener: impl AsFd) {
    // Some systems refuse it for a listener, which then ends a moment later.
    let _ = shutdown(listener.as_fd().as_raw_fd(), Shutdown::Both);
}

/// A target at which nobody listens.
pub fn dead_target() -> String {
    let listener = mortal_listener();
    let target = format!("tcp://{}", listener.local_addr().unwrap());
    close(listener);
    target
}

/// The socket of a server that was killed.
pub fn leave_dead_socket(path: &Path) {
    close(UnixListener::bind(path).unwrap());
}
