//! Reads files that the command line names.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Reads at most one byte more than allowed, which reveals an excess: some files never end.
///
/// # Errors
///
/// A message that names the file.
pub fn read_bounded(path: &Path, max_bytes: usize) -> Result<Vec<u8>, String> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error: io::Error| format!("cannot read {}: {error}", path.display()))
}
