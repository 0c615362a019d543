//! What the kernel says of an open file without waiting for a disk or a server.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
    fstatfs,
};

/// File systems of this machine alone, which keep in memory what `fstat(2)` says of an open file. Those of a server and
/// of FUSE may ask for it. ext2 and ext3 have the number of ext4.
const LOCAL: [FsType; 6] = [
    BTRFS_SUPER_MAGIC,
    EXT4_SUPER_MAGIC,
    F2FS_SUPER_MAGIC,
    OVERLAYFS_SUPER_MAGIC,
    TMPFS_MAGIC,
    XFS_SUPER_MAGIC,
];

/// From `linux/magic.h`: nix does not have it for musl.
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);

thread_local! {
    /// The devices of local file systems that have been met. One that is unmounted may leave its number to that of a
    /// server: then a call for its metadata can block the loop, and is right.
    static LOCAL_DEVICES: RefCell<Vec<(u32, u32)>> = const { RefCell::new(Vec::new()) };
}

/// The metadata, unless asking for it may block.
pub(super) fn metadata_now(file: &File) -> Option<io::Result<Metadata>> {
    let device = device_now(file)?;
    LOCAL_DEVICES.with_borrow(|devices| devices.contains(&device)).then(|| file.metadata())
}

/// The metadata, and whether the file system is a local one, by calls that may block.
pub(super) fn metadata_and_kind(file: &File) -> io::Result<(Metadata, bool)> {
    let metadata = file.metadata()?;
    let is_local = fstatfs(file.as_fd()).is_ok_and(|answer| LOCAL.contains(&answer.filesystem_type()));
    Ok((metadata, is_local))
}

/// Keeps in mind that the file's metadata can be asked for without a wait.
pub(super) fn note_local(file: &File) {
    if let Some(device) = device_now(file) {
        LOCAL_DEVICES.with_borrow_mut(|devices| {
            if !devices.contains(&device) {
                devices.push(device);
            }
        });
    }
}

/// The device, as far as this machine knows without asking a server (`AT_STATX_DONT_SYNC` in `statx(2)`).
fn device_now(file: &File) -> Option<(u32, u32)> {
    // SAFETY: zeros are valid for a structure of numbers.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path ends with a zero byte, and the answer is valid for writes.
    let status = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, 0, &raw mut answer) };
    (status == 0).then_some((answer.stx_dev_major, answer.stx_dev_minor))
}
