//! Process limits used by several commands.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Raises the soft limit on open files to the hard limit: each connection takes a descriptor, and the usual soft
/// limit of 1,024 exists for programs that use `select(2)`.
///
/// # Errors
///
/// A message for the user. The process can continue, with fewer connections.
pub fn raise_open_files() -> Result<(), String> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    raised.map_err(|error| format!("cannot raise the soft limit on open files to the hard limit: {error}"))
}

/// Has a write beyond the limit on the size of files (`ulimit -f`) fail, as on a full disk. By default, SIGXFSZ would
/// end the process there, and all results would be lost.
pub fn survive_file_size() {
    // SAFETY: an ignored signal runs no code of ours. The call cannot fail for this signal.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
}
