//! Writing to the standard streams without panicking when nobody reads them.

use std::fmt;
use std::io::{self, Write};

/// Writes a text to standard output, now.
///
/// A reader that has gone away wanted no more: that is no error.
///
/// # Errors
///
/// Any other failure to write, such as a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line for programs on standard error.
pub fn tell(line: impl fmt::Display) {
    // When even this cannot be written, nobody is left to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Tells the user something on standard error, under the program's name.
pub fn complain(message: impl fmt::Display) {
    // When even this cannot be written, nobody is left to tell.
    let _ = writeln!(io::stderr().lock(), "ringspun: {message}");
}
