//! The file that `JANET_HISTFILE` names: it keeps the lines of one session for the next.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::{env, mem};

use super::output;

/// The environment variable with the path of the file. Without it, nothing is kept.
const VARIABLE: &str = "JANET_HISTFILE";

/// The file, as long as it can be used.
pub struct History {
    file: Option<(PathBuf, File)>,
}

impl History {
    /// Opens the file, or creates it for its user alone. Returns its last lines with it, the oldest first, and leaves
    /// no more than these in it.
    pub fn load(lines_max: usize) -> (Self, Vec<String>) {
        let path = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let Some(path) = path else { return (Self { file: None }, Vec::new()) };
        match open(&path).and_then(|mut file| Ok((read_last(&mut file, lines_max)?, file))) {
            Ok((lines, file)) => (Self { file: Some((path, file)) }, lines),
            Err(error) => {
                warn(&path, &error);
                (Self { file: None }, Vec::new())
            }
        }
    }

    /// Appends a line at once, so that it is kept however the session ends.
    pub fn keep(&mut self, line: &str) {
        let Some((path, mut file)) = mem::take(&mut self.file) else { return };
        match file.write_all(format!("{line}\n").as_bytes()) {
            Ok(()) => self.file = Some((path, file)),
            Err(error) => warn(&path, &error),
        }
    }
}

/// Opens a regular file: to read a pipe or a device such as /dev/zero may take forever.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("expected a regular file")),
    }
}

/// Reads a file's last lines, and removes what is before them.
fn read_last(file: &mut File, lines_max: usize) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let last = &lines[lines.len().saturating_sub(lines_max)..];
    let is_cut = last.last().is_some_and(|line| !line.ends_with(b"\n"));
    if last.len() < lines.len() {
        file.set_len(0)?;
        file.write_all(&last.concat())?;
    }
    if is_cut {
        file.write_all(b"\n")?;
    }
    Ok(last.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_string()).collect())
}

fn warn(path: &Path, error: &io::Error) {
    output::complain(format_args!("{VARIABLE}={}: {error}; lines are not kept", path.display()));
}
