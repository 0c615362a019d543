//! Paths and folders for files that a test makes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process};

/// A path at which nothing is, and which no other test uses. It is short, as that of a Unix socket has to be.
pub fn scratch_path(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}-{name}", process::id()))
}

/// A new folder, which is removed with all that is in it when the test ends.
pub struct ScratchFolder(PathBuf);

impl ScratchFolder {
    /// Makes a folder at a [`scratch_path`].
    pub fn new(name: &str) -> Self {
        let path = scratch_path(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
