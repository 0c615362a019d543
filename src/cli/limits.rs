//! Limits of the process that more than one command cares for.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one: each connection takes a descriptor, and the
/// usual soft limit of 1,024 is for programs that call `select(2)`.
///
/// # Errors
///
/// A message for the user. The process can go on with fewer connections.
pub fn raise_open_files() -> Result<(), String> {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| match soft < hard {
        true => setrlimit(Resource::RLIMIT_NOFILE, hard, hard),
        false => Ok(()),
    });
    raised.map_err(|error| format!("the limit on open files cannot be raised to the hard one: {error}"))
}
