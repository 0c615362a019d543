//! Writes to the standard streams without panicking if they are closed.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

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

/// Prints what the parser of the command line has instead of a command: an error, or a help text that was asked for.
pub fn explain(error: &clap::Error) -> ExitCode {
    let is_help = !error.use_stderr();
    match error.print().and_then(|()| io::stdout().flush()) {
        Err(failure) if is_help && failure.kind() != io::ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write to standard output: {failure}"));
            ExitCode::FAILURE
        }
        _ => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
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
