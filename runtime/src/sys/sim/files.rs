//! Simulated files, in memory: their operations on the ring, and the calls that threads make on them.

use std::ffi::CStr;
use std::os::fd::{IntoRawFd, OwnedFd};

use super::disk::{OpenFile, StoredFile};
use super::faults::Fault;
use super::in_flight::{FileTask, Outcome};
use super::socket::{Kind, Socket, SocketId};
use super::world::{World, trace};

impl World {
    /// Carries out an operation on a file.
    pub(super) fn try_file(&mut self, id: SocketId, task: &FileTask) -> Option<Outcome> {
        Outcome::last(match task {
            // The receiver of the completion owns it.
            FileTask::Open { path, flags } => {
                self.open_file(path, *flags).map(|descriptor| descriptor.into_raw_fd() as usize)
            }
            FileTask::Read { start, length, offset } => {
                let start = *start;
                self.read_file(id, *offset, *length, |piece| {
                    // SAFETY: the buffer has `length` bytes, which its lender leaves to the operation until the
                    // terminal completion.
                    unsafe { start.copy_from_nonoverlapping(piece.as_ptr(), piece.len()) };
                })
            }
            FileTask::Write { data, offset } => {
                if !data.is_unchanged() {
                    self.violate(format!("bytes for file {id} changed before the terminal completion"));
                }
                self.write_file(id, *offset, &data.bytes)
            }
            FileTask::Synchronize => self.synchronize_file(id).map(|()| 0),
        })
    }

    pub(super) fn open_file(&mut self, path: &CStr, flags: i32) -> Result<OwnedFd, i32> {
        self.fail_file(&[libc::EMFILE, libc::ENFILE, libc::ENOMEM])?;
        let found = self.files.iter().position(|file| *file.path == *path);
        let file = match found {
            Some(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => return Err(libc::EEXIST),
            Some(found) => found,
            None if flags & libc::O_CREAT == 0 => return Err(libc::ENOENT),
            None => {
                let (bytes, is_dirty) = (Vec::new(), Vec::new());
                self.files.push(StoredFile { path: path.into(), bytes, is_dirty });
                self.files.len() - 1
            }
        };
        if flags & libc::O_TRUNC != 0 {
            self.files[file].bytes.clear();
            self.files[file].is_dirty.clear();
        }
        let id = self.sockets.len();
        self.sockets.push(Socket::new(Kind::File(OpenFile { file, flags })));
        trace!(self, "file {path:?} opened as {id}");
        self.open(id).map_err(|error| error.raw_os_error().unwrap_or(libc::EMFILE))
    }

    /// Reads up to `most` bytes at an offset, possibly fewer.
    pub(super) fn read_file(
        &mut self,
        id: SocketId,
        offset: u64,
        most: usize,
        piece: impl FnOnce(&[u8]),
    ) -> Result<usize, i32> {
        let open = self.open_file_of(id, OpenFile::can_read)?;
        self.fail_file(&[libc::EIO])?;
        let size = self.files[open.file].bytes.len();
        let start = usize::try_from(offset).map_or(size, |offset| offset.min(size));
        let available = most.min(size - start);
        let count = self.shortened(available, Fault::ShortRead);
        piece(&self.files[open.file].bytes[start..start + count]);
        trace!(self, "file {id}: {count} of {most} bytes read at {offset}");
        Ok(count)
    }

    /// Writes bytes at an offset, possibly not all.
    pub(super) fn write_file(&mut self, id: SocketId, offset: u64, bytes: &[u8]) -> Result<usize, i32> {
        let open = self.open_file_of(id, OpenFile::can_write)?;
        self.fail_file(&[libc::EIO, libc::ENOSPC])?;
        let count = self.shortened(bytes.len(), Fault::ShortWrite);
        let file = &mut self.files[open.file];
        let start = match open.flags & libc::O_APPEND {
            0 => usize::try_from(offset).map_err(|_| libc::EFBIG)?,
            _ => file.bytes.len(),
        };
        let end = start.checked_add(count).ok_or(libc::EFBIG)?;
        if file.bytes.len() < end {
            file.bytes.resize(end, 0);
            file.is_dirty.resize(end, false);
        }
        file.bytes[start..end].copy_from_slice(&bytes[..count]);
        file.is_dirty[start..end].fill(true);
        trace!(self, "file {id}: {count} of {} bytes written at {start}", bytes.len());
        Ok(count)
    }

    pub(super) fn synchronize_file(&mut self, id: SocketId) -> Result<(), i32> {
        let open = self.open_file_of(id, |_| true)?;
        self.fail_file(&[libc::EIO])?;
        self.files[open.file].is_dirty.fill(false);
        trace!(self, "file {id} synchronized");
        Ok(())
    }

    /// The bytes of a part of a file, each with whether it is on the disk.
    pub(super) fn stored(&self, path: &CStr) -> Option<Vec<(u8, bool)>> {
        let file = self.files.iter().find(|file| *file.path == *path)?;
        Some(file.bytes.iter().zip(&file.is_dirty).map(|(byte, is_dirty)| (*byte, !is_dirty)).collect())
    }

    fn open_file_of(&self, id: SocketId, allows: impl FnOnce(OpenFile) -> bool) -> Result<OpenFile, i32> {
        match &self.sockets[id].kind {
            Kind::File(open) if allows(*open) => Ok(*open),
            _ => Err(libc::EBADF),
        }
    }

    fn fail_file(&mut self, errors: &[i32]) -> Result<(), i32> {
        if self.strikes(Fault::FileInterrupted) {
            return Err(libc::EINTR);
        }
        match self.strikes(Fault::FileFailed) {
            true => Err(*self.random.pick(errors)),
            false => Ok(()),
        }
    }

    fn shortened(&mut self, count: usize, fault: Fault) -> usize {
        match count > 1 && self.strikes(fault) {
            true => self.random.between(1, count - 1),
            false => count,
        }
    }
}
