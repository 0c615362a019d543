//! Writes to the standard streams without panicking if they are closed.

use std::fmt;
use std::io::{self, Write};

/// Writes to standard output and flushes it. A closed pipe is not an error.
///
/// # Errors
///
/// Any other error, such as a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error.
pub fn tell(line: impl fmt::Display) {
    // There is nowhere left to report an error.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes a message to standard error, prefixed with the program name.
pub fn complain(message: impl fmt::Display) {
    // There is nowhere left to report an error.
    let _ = writeln!(io::stderr().lock(), "ringspun: {message}");
}
