//! Files for fibers: on the ring where the loop has one, otherwise on the threads for blocking calls, with the same
//! results. What concerns names and directories is always done on those threads.
//!
//! Functions here are those of [`std::fs`], for fibers: the fiber parks, and others run. Errors of functions that take
//! a path have it in their text; [`errno_of`](crate::errno_of) finds the kernel's number.
//!
//! An interrupt of the fiber, such as a cancel or a deadline, ends a call that has not begun, and one that opens, or
//! reads by a path, such as [`read`](fn@read). Any other that has begun is waited for, as its buffer may be in use and
//! its outcome should be known: disks answer in time, but a network file system whose server is gone does not. If it
//! succeeds, that is its result, and the interrupt is raised by the next wait.
//!
//! A fiber that panics, as in a destructor that writes what a buffer holds or removes a file, cannot wait: it makes its
//! calls on its own thread, which they block. Those that open a file, or look at one, are refused as after a cancel.
//!
//! ```
//! use std::io::{BufRead, BufReader};
//!
//! use ringspun_fibers as fibers;
//! use ringspun_net::fs::{self, File};
//!
//! fibers::run(|| -> std::io::Result<()> {
//!     let path = std::env::temp_dir().join(format!("ringspun-doc-{}", std::process::id()));
//!     fs::write(&path, "one\ntwo\n")?;
//!     let lines = BufReader::new(File::open(&path)?).lines().collect::<std::io::Result<Vec<_>>>()?;
//!     assert_eq!(lines, ["one", "two"]);
//!     fs::remove_file(&path)
//! })
//! .unwrap()
//! .unwrap();
//! ```

use std::fs::{DirEntry, Metadata, Permissions};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use ringspun_fibers as fibers;
use ringspun_runtime::BlockingKind;

mod file;
#[cfg(target_os = "linux")]
mod known;
mod open;

pub use file::File;
pub use open::OpenOptions;

use crate::error::OperationError;

/// Makes a blocking call on another thread, which may borrow; the fiber parks until it has ended.
fn elsewhere<T: Send>(call: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    if std::thread::panicking() {
        // Parking now would show the thread's panic to other fibers.
        return call();
    }
    fibers::blocking_scoped(call)?
}

/// The same of a call with a path, which errors name.
fn with_path<T: Send>(
    operation: &'static str,
    path: &Path,
    call: impl FnOnce(&Path) -> io::Result<T> + Send,
) -> io::Result<T> {
    elsewhere(|| call(path)).map_err(|error| OperationError::wrap(operation, path.display(), error))
}

/// The same of a call that only looks: it owns what it uses, so that it can be given up, as of a file system whose
/// server is gone.
fn look_at<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let owned = path.to_path_buf();
    let looked = fibers::blocking(move || call(&owned)).unwrap_or_else(|error| Err(error.into()));
    looked.map_err(|error| OperationError::wrap(operation, path.display(), error))
}

/// The same of a call that opens a file and reads it.
fn read_whole<T: Send + 'static>(
    operation: &'static str,
    path: &Path,
    call: impl Fn(&Path) -> io::Result<T> + Clone + Send + 'static,
) -> io::Result<T> {
    opening(path, call).map_err(|error| OperationError::wrap(operation, path.display(), error))
}

/// Makes a call that opens a file on another thread. It owns what it uses, so that it can be given up.
///
/// A FIFO is opened on threads for such waits: until another process has opened its other end, which may be never, it
/// would keep a thread from all other files.
fn opening<T: Send + 'static>(
    path: &Path,
    call: impl Fn(&Path) -> io::Result<T> + Clone + Send + 'static,
) -> io::Result<T> {
    let (owned, open) = (path.to_path_buf(), call.clone());
    let opened = fibers::blocking(move || match is_fifo(&owned) {
        true => Ok(None),
        false => open(&owned).map(Some),
    })??;
    if let Some(opened) = opened {
        return Ok(opened);
    }
    let owned = path.to_path_buf();
    fibers::blocking_of(BlockingKind::Peer, move || call(&owned))?
}

fn is_fifo(path: &Path) -> bool {
    #[cfg(feature = "simulation")]
    if ringspun_runtime::simulation::current().is_some() {
        // Its files are others.
        return false;
    }
    std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Defines functions with a path that are those of the standard library, on another thread.
macro_rules! functions {
    ($by:ident: $($(#[$comment:meta])* $name:ident($operation:literal) -> $result:ty;)+) => {$(
        $(#[$comment])*
        ///
        /// # Errors
        ///
        /// The kernel's, with the path; an interrupt of the fiber.
        ///
        /// # Panics
        ///
        /// Outside of a fiber.
        pub fn $name(path: impl AsRef<Path>) -> io::Result<$result> {
            $by($operation, path.as_ref(), |path| std::fs::$name(path))
        }
    )+};
}

functions! {
    read_whole:
    /// The contents of a file: [`std::fs::read`].
    read("read") -> Vec<u8>;
    /// The contents of a file of UTF-8: [`std::fs::read_to_string`].
    read_to_string("read") -> String;
}

functions! {
    look_at:
    /// What is known of a file, or of that which a link points to: [`std::fs::metadata`].
    metadata("metadata of") -> Metadata;
    /// What is known of a file or of a link: [`std::fs::symlink_metadata`].
    symlink_metadata("metadata of") -> Metadata;
    /// The path without links and dots: [`std::fs::canonicalize`].
    canonicalize("canonicalize") -> PathBuf;
    /// Where a link points to: [`std::fs::read_link`].
    read_link("read the link") -> PathBuf;
}

functions! {
    with_path:
    /// Makes a directory: [`std::fs::create_dir`].
    create_dir("create the directory") -> ();
    /// Makes a directory and those above it: [`std::fs::create_dir_all`].
    create_dir_all("create the directory") -> ();
    /// Removes a file: [`std::fs::remove_file`].
    remove_file("remove") -> ();
    /// Removes an empty directory: [`std::fs::remove_dir`].
    remove_dir("remove the directory") -> ();
    /// Removes a directory with all that is in it: [`std::fs::remove_dir_all`].
    remove_dir_all("remove the directory") -> ();
}

/// The entries of a directory, in no order. Unlike [`std::fs::read_dir`], it reads all of them at once.
///
/// # Errors
///
/// The kernel's, with the path; an interrupt of the fiber.
///
/// # Panics
///
/// Outside of a fiber.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<Vec<DirEntry>> {
    look_at("read the directory", path.as_ref(), |path| std::fs::read_dir(path)?.collect())
}

/// Writes a file, which replaces what was in it: [`std::fs::write`].
///
/// # Errors
///
/// The kernel's, with the path; an interrupt of the fiber.
///
/// # Panics
///
/// Outside of a fiber.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    let contents = contents.as_ref();
    with_path("write", path.as_ref(), |path| std::fs::write(path, contents))
}

/// Renames a file, and replaces one of the new name: [`std::fs::rename`].
///
/// # Errors
///
/// The kernel's, with the first path; an interrupt of the fiber.
///
/// # Panics
///
/// Outside of a fiber.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let to = to.as_ref();
    with_path("rename", from.as_ref(), |from| std::fs::rename(from, to))
}

/// Copies a file, and returns how many bytes it has: [`std::fs::copy`].
///
/// # Errors
///
/// The kernel's, with the first path; an interrupt of the fiber.
///
/// # Panics
///
/// Outside of a fiber.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
    let to = to.as_ref();
    with_path("copy", from.as_ref(), |from| std::fs::copy(from, to))
}

/// Sets the permissions of a file: [`std::fs::set_permissions`].
///
/// # Errors
///
/// The kernel's, with the path; an interrupt of the fiber.
///
/// # Panics
///
/// Outside of a fiber.
pub fn set_permissions(path: impl AsRef<Path>, permissions: Permissions) -> io::Result<()> {
    with_path("permissions of", path.as_ref(), |path| std::fs::set_permissions(path, permissions))
}
