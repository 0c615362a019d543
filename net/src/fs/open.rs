//! How files are opened.

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use ringspun_fibers as fibers;
use ringspun_runtime::FileOperation;

use super::file::File;
use super::opening;
use crate::error::{OperationError, interrupt_of};
use crate::waiting::current_loop;

/// How to open a file: as [`std::fs::OpenOptions`].
///
/// # Examples
///
/// ```
/// use std::io::{ErrorKind, Write};
///
/// use ringspun_fibers as fibers;
/// use ringspun_net::fs::{self, File};
///
/// fibers::run(|| -> std::io::Result<()> {
///     let path = std::env::temp_dir().join(format!("ringspun-log-{}", std::process::id()));
///     for line in ["started\n", "ended\n"] {
///         File::options().append(true).create(true).open(&path)?.write_all(line.as_bytes())?;
///     }
///     let exists = File::options().write(true).create_new(true).open(&path).unwrap_err();
///     assert_eq!(exists.kind(), ErrorKind::AlreadyExists);
///     assert_eq!(fs::read_to_string(&path)?, "started\nended\n");
///     fs::remove_file(&path)
/// })
/// .unwrap()
/// .unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    mode: u32,
    custom_flags: i32,
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file for writing, makes it if it does not exist, and removes what is in it.
    ///
    /// # Errors
    ///
    /// As [`OpenOptions::open`].
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// How to open a file in other ways.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            mode: 0o666,
            custom_flags: 0,
        }
    }
}

/// How long a ring may take to open a file: longer than disks do. The kernel has four threads or more for all
/// operations of a ring on files (`min(entries, 4 * cores)`), and an open of a FIFO would keep one for as long as
/// another process likes.
const ON_RING_MAX: Duration = Duration::from_millis(10);

impl OpenOptions {
    /// Nothing is allowed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows reading.
    pub fn read(mut self, on: bool) -> Self {
        self.read = on;
        self
    }

    /// Allows writing.
    pub fn write(mut self, on: bool) -> Self {
        self.write = on;
        self
    }

    /// Allows writing, always to the end of the file.
    pub fn append(mut self, on: bool) -> Self {
        self.append = on;
        self
    }

    /// Removes what is in the file.
    pub fn truncate(mut self, on: bool) -> Self {
        self.truncate = on;
        self
    }

    /// Makes a file that does not exist.
    pub fn create(mut self, on: bool) -> Self {
        self.create = on;
        self
    }

    /// Makes the file, which must not exist.
    pub fn create_new(mut self, on: bool) -> Self {
        self.create_new = on;
        self
    }

    /// The permissions of a file that is made, less the umask; 0o666 unless set.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Further flags of `open(2)`, such as `libc::O_NOFOLLOW`.
    pub fn custom_flags(mut self, flags: i32) -> Self {
        self.custom_flags = flags;
        self
    }

    /// Opens a file: by an operation of the ring, or on another thread. A call that is interrupted there may still make
    /// the file.
    ///
    /// # Errors
    ///
    /// The kernel's, with the path; `InvalidInput` for a combination that makes no sense, and for a path with a zero
    /// byte; an interrupt of the fiber; `Unsupported` outside of a runtime.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        self.try_open(path).map_err(|error| OperationError::wrap("open", path.display(), error))
    }

    fn try_open(&self, path: &Path) -> io::Result<File> {
        let flags = self.flags()?;
        let text = CString::new(path.as_os_str().as_bytes())?;
        let elsewhere = || {
            let options = self.clone();
            opening(path, move |path| options.open_blocking(path)).map(File::from)
        };
        if !current_loop()?.performs_files() {
            return elsewhere();
        }
        let open = || fibers::perform(FileOperation::Open { path: text, flags, mode: self.mode });
        let opened = match flags & libc::O_EXCL {
            0 => fibers::with_time_limit(ON_RING_MAX, open),
            // An open that is given up may have made the file, and is not made twice.
            _ => open(),
        };
        let descriptor = match opened {
            Err(error) if interrupt_of(&error) == Some(fibers::Interrupt::TimedOut) => return elsewhere(),
            opened => opened?,
        };
        // SAFETY: our own new descriptor.
        let file = unsafe { OwnedFd::from_raw_fd(descriptor as RawFd) };
        #[cfg(feature = "mutations")]
        let file = crate::mutations::leak_late_open(file)?;
        Ok(File::from(file))
    }

    /// Opens a file on the calling thread, which may block.
    fn open_blocking(&self, path: &Path) -> io::Result<std::fs::File> {
        #[cfg(feature = "simulation")]
        if let Some(simulation) = ringspun_runtime::simulation::current() {
            let path = CString::new(path.as_os_str().as_bytes())?;
            return simulation.open(&path, self.flags()?).map(Into::into);
        }
        self.to_std().open(path)
    }

    fn to_std(&self) -> std::fs::OpenOptions {
        let mut options = std::fs::OpenOptions::new();
        options.read(self.read).write(self.write).append(self.append).truncate(self.truncate);
        options.create(self.create).create_new(self.create_new);
        options.mode(self.mode).custom_flags(self.custom_flags);
        options
    }

    /// The flags of `open(2)`, with the checks of the standard library.
    fn flags(&self) -> io::Result<i32> {
        let makes = self.truncate || self.create || self.create_new;
        let access = match (self.read, self.write, self.append) {
            (true, false, false) if !makes => libc::O_RDONLY,
            (false, true, false) => libc::O_WRONLY,
            (true, true, false) => libc::O_RDWR,
            (false, _, true) if !self.truncate || self.create_new => libc::O_WRONLY | libc::O_APPEND,
            (true, _, true) if !self.truncate || self.create_new => libc::O_RDWR | libc::O_APPEND,
            _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        let creation = match (self.create, self.truncate, self.create_new) {
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
            (true, true, false) => libc::O_CREAT | libc::O_TRUNC,
            (true, false, false) => libc::O_CREAT,
            (false, true, false) => libc::O_TRUNC,
            (false, false, false) => 0,
        };
        Ok(libc::O_CLOEXEC | access | creation | self.custom_flags & !libc::O_ACCMODE)
    }
}
