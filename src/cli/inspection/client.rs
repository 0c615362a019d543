//! What `ringspun ps` and `ringspun top` ask a running process: their side.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::unistd::geteuid;

use super::{LENGTH_DIGITS, PATIENCE, Question, address_of, peer_of};

/// Longer than a process takes for any answer, even if it is asked by several.
const ANSWER_MAX: Duration = PATIENCE.saturating_mul(2);

/// Asks a process.
///
/// # Errors
///
/// In words for users, with what was expected.
pub fn ask(process: u32, question: Question) -> Result<String, String> {
    if cfg!(not(target_os = "linux")) {
        return Err("looking into a running process requires Linux".to_string());
    }
    check_owner(process)?;
    let name = name_of(process);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => format!(
            "process {process} ({name}) does not answer questions: expected a running ringspun serve, load or janet, \
             in this network namespace"
        ),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("process {process} ({name}) has not answered within {ANSWER_MAX:?}: it may be stopped")
        }
        io::ErrorKind::UnexpectedEof => {
            format!("process {process} ({name}) has ended, or does not answer this user, in mid-answer")
        }
        _ => format!("process {process} ({name}): {error}"),
    };
    let mut process_stream =
        address_of(process).and_then(|at| UnixStream::connect_addr(&at)).map_err(failed)?;
    let (other, _) = peer_of(&process_stream).map_err(failed)?;
    if u32::try_from(other) != Ok(process) {
        return Err(format!(
            "process {process} ({name}) does not answer questions: process {other} has taken the name of its socket"
        ));
    }
    exchange(&mut process_stream, question).map_err(failed)
}

fn exchange(stream: &mut UnixStream, question: Question) -> io::Result<String> {
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    writeln!(stream, "{}", question.word())?;
    let mut length = [0; LENGTH_DIGITS + 1];
    stream.read_exact(&mut length)?;
    let length = str::from_utf8(&length).ok().and_then(|text| text.trim_end().parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("the answer does not begin with its length"))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.len() != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(text)
}

/// Refuses processes that are not there, or not this user's.
fn check_owner(process: u32) -> Result<(), String> {
    let status =
        fs::read_to_string(format!("/proc/{process}/status")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("there is no process {process}"),
            _ => format!("process {process}: {error}"),
        })?;
    // Real, effective, saved, and that of the file system.
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let owner = users.split_whitespace().nth(1).and_then(|text| text.parse::<u32>().ok());
    let own = geteuid().as_raw();
    match owner {
        Some(owner) if own != 0 && owner != own => Err(format!(
            "process {process} belongs to user {owner}: expected one of this user's, who is {own}"
        )),
        _ => Ok(()),
    }
}

/// What the system calls the process.
fn name_of(process: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{process}/comm"));
    name.map_or_else(|_| "has ended".to_string(), |name| name.trim_end().to_string())
}
