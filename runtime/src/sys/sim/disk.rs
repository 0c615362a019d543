//! What simulated files have, and their descriptors.

use std::ffi::CStr;

/// A file, which outlives its descriptors.
pub(super) struct StoredFile {
    pub(super) path: Box<CStr>,
    pub(super) bytes: Vec<u8>,
    /// By byte: it was written after the last synchronization.
    pub(super) is_dirty: Vec<bool>,
}

/// What a descriptor of a file has.
#[derive(Clone, Copy)]
pub(super) struct OpenFile {
    pub(super) file: usize,
    pub(super) flags: i32,
}

impl OpenFile {
    pub(super) fn can_read(self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_WRONLY
    }

    pub(super) fn can_write(self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}
