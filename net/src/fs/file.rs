//! A file, for fibers.

use std::cell::Cell;
use std::fs::Metadata;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use ringspun_fibers as fibers;
use ringspun_runtime::{FileOperation, LentBuffer, LentBytes, SendData};

use super::elsewhere;
#[cfg(target_os = "linux")]
use super::known;
use crate::system::{self, read_now};
use crate::waiting::current_loop;

/// An open file that has offsets: a regular file, a block device, most files of `/proc`. For pipes and terminals there
/// is [`Pipe`](crate::Pipe).
///
/// Its calls are those of [`std::fs::File`], for fibers. On io_uring, opening, reading, writing and synchronizing are
/// operations of the ring; on poll, a read of what is in memory is a system call of its own, and anything else is done
/// on another thread. Buffers are borrowed on both, without a copy.
///
/// The position of [`read`](Read::read), [`write`](Write::write) and [`seek`](Seek::seek) belongs to this `File`, and
/// not to the open file description, which other processes may share. Several fibers can use one file; calls at offsets
/// do not affect one another.
#[derive(Debug)]
pub struct File {
    file: std::fs::File,
    position: Cell<u64>,
}

impl File {
    /// Reads some of the bytes at an offset, and returns their number: 0 at the end of the file, or if the buffer is
    /// empty (`pread(2)`).
    ///
    /// # Errors
    ///
    /// The kernel's; an interrupt of the fiber, after which nothing of the buffer counts; `Unsupported` outside of a
    /// runtime.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net::fs::File;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let file = File::open("/etc/passwd")?;
    ///     let mut text = [0; 4];
    ///     assert_eq!((file.read_at(&mut text, 1)?, &text), (4, b"oot:"));
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if std::thread::panicking() {
            return system::read_at(&self.file, buffer, offset);
        }
        if !current_loop()?.performs_files() {
            fibers::check()?;
            return match read_now(self.file.as_fd(), buffer, offset) {
                Some(count) => Ok(count),
                None => with_file(&self.file, |file| system::read_at(file, buffer, offset)),
            };
        }
        // SAFETY: `perform` returns only once the operation is over, and the buffer is borrowed until then.
        let buffer = unsafe { LentBuffer::new(buffer) };
        let file = self.file.as_raw_fd();
        fibers::perform(FileOperation::Read { file, buffer, offset }).map(|count| count as usize)
    }

    /// As [`read_at`](Self::read_at), until the buffer is full or the file ends; returns the number of bytes. A call
    /// that a signal interrupts (`EINTR`) is made again, as by [`std::io::Read::read_exact`].
    ///
    /// # Errors
    ///
    /// As [`read_at`](Self::read_at).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn chunk_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Writes some of the bytes at an offset, and returns their number (`pwrite(2)`). In a file that was opened for
    /// appending, Linux writes at the end, whatever the offset.
    ///
    /// # Errors
    ///
    /// The kernel's; an interrupt of the fiber, after which nothing has been written; `Unsupported` outside of a
    /// runtime.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        if std::thread::panicking() || !current_loop()?.performs_files() {
            return with_file(&self.file, |file| system::write_at(file, data, offset));
        }
        // SAFETY: `perform` returns only once the operation is over, and the data is borrowed until then.
        let lent = SendData::Lent(unsafe { LentBytes::new(data) });
        let operation = FileOperation::Write { file: self.file.as_raw_fd(), data: lent, offset };
        let written = fibers::perform(operation).map(|count| count as usize);
        #[cfg(feature = "mutations")]
        let written = written.map(|count| crate::mutations::trust_write(count, data.len()));
        written
    }

    /// As [`write_at`](Self::write_at), until all of the bytes have been written. A call that a signal interrupts
    /// (`EINTR`) is made again, as by [`std::io::Write::write_all`].
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at), but some of the bytes may have been written; `WriteZero` if the kernel takes no
    /// more.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    ///
    /// # Examples
    ///
    /// ```
    /// use ringspun_fibers as fibers;
    /// use ringspun_net::fs::{self, File};
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let path = std::env::temp_dir().join(format!("ringspun-table-{}", std::process::id()));
    ///     let file = File::options().read(true).write(true).create(true).open(&path)?;
    ///     file.write_all_at(b"third", 20)?;
    ///     file.sync_data()?;
    ///     assert_eq!(file.metadata()?.len(), 25);
    ///     fs::remove_file(&path)
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut written = 0;
        while written < data.len() {
            match self.write_at(&data[written..], offset + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until all that has been written is on the disk (`fsync(2)`).
    ///
    /// # Errors
    ///
    /// The kernel's: what was written may be lost; an interrupt of the fiber.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn sync_all(&self) -> io::Result<()> {
        self.synchronize(false)
    }

    /// As [`sync_all`](Self::sync_all), but only what is needed to read the bytes again (`fdatasync(2)`).
    ///
    /// # Errors
    ///
    /// As [`sync_all`](Self::sync_all).
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn sync_data(&self) -> io::Result<()> {
        self.synchronize(true)
    }

    fn synchronize(&self, data_only: bool) -> io::Result<()> {
        if std::thread::panicking() || !current_loop()?.performs_files() {
            return with_file(&self.file, |file| system::synchronize(file, data_only));
        }
        let file = self.file.as_raw_fd();
        fibers::perform(FileOperation::Synchronize { file, data_only }).map(drop)
    }

    /// What is known of the file, such as its size in bytes. Of the usual local file systems of Linux the kernel has it
    /// in memory, and the call is made at once; of others, such as NFS and FUSE, on another thread. So it is for the
    /// first file of each file system.
    ///
    /// # Errors
    ///
    /// The kernel's; an interrupt of the fiber.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn metadata(&self) -> io::Result<Metadata> {
        #[cfg(target_os = "linux")]
        {
            if !std::thread::panicking() {
                fibers::check()?;
            }
            if let Some(metadata) = known::metadata_now(&self.file) {
                return metadata;
            }
            let (metadata, is_local) = with_file(&self.file, known::metadata_and_kind)?;
            if is_local {
                known::note_local(&self.file);
            }
            Ok(metadata)
        }
        #[cfg(not(target_os = "linux"))]
        with_file(&self.file, std::fs::File::metadata)
    }

    /// Sets the size of the file in bytes: cuts it off, or fills it up with zeros. On another thread.
    ///
    /// # Errors
    ///
    /// The kernel's; an interrupt of the fiber.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        with_file(&self.file, |file| file.set_len(size_bytes))
    }

    /// The file of the standard library, which has a position of its own.
    pub fn into_std(self) -> std::fs::File {
        self.file
    }

    fn seek_to(&self, to: SeekFrom) -> io::Result<u64> {
        let (start, distance) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(distance) => (self.position.get(), distance),
            SeekFrom::End(distance) => (self.metadata()?.len(), distance),
        };
        let position = start.checked_add_signed(distance).ok_or_else(|| {
            let text =
                format!("a position of {start} and {distance} bytes, expected one at or after the start");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        self.position.set(position);
        Ok(position)
    }
}

/// Makes a blocking call on another thread, and parks until it has ended.
fn with_file<T: Send>(
    file: &std::fs::File,
    call: impl FnOnce(&std::fs::File) -> io::Result<T> + Send,
) -> io::Result<T> {
    elsewhere(|| call(file))
}

impl From<std::fs::File> for File {
    /// Begins at the start, wherever the position of the other is.
    fn from(file: std::fs::File) -> Self {
        Self { file, position: Cell::new(0) }
    }
}

impl From<OwnedFd> for File {
    fn from(descriptor: OwnedFd) -> Self {
        std::fs::File::from(descriptor).into()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Reads at the position, and advances it. After an interrupt it is where it was.
impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(buffer, self.position.get())?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }
}

/// Writes at the position, and advances it. After an interrupt it is where it was. There is nothing to flush:
/// [`File::sync_all`] waits for the disk.
impl Write for &File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.write_at(data, self.position.get())?;
        self.position.set(self.position.get() + count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.seek_to(to)
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.seek_to(to)
    }
}
