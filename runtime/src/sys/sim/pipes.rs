//! System calls on simulated pipes and files.

use std::ffi::CStr;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::calls::Simulation;
use super::faults::Fault;
use super::socket::{Connection, Kind, Socket};
use super::world::{World, trace};

/// System calls on pipes and files. Each fails with the errors of that call, injected ones among them.
impl Simulation {
    /// `pipe(2)`: first the end to read from. What is written arrives some time later.
    ///
    /// # Errors
    ///
    /// The kernel's, if descriptors run out.
    pub fn pipe(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let world = self.world();
        let world = &mut *world.borrow_mut();
        let (reader, writer) = (world.sockets.len(), world.sockets.len() + 1);
        let capacity = world.capacity_bytes;
        world.sockets.push(Socket::new(Kind::Connection(Connection::pipe(writer, capacity, true))));
        world.sockets.push(Socket::new(Kind::Connection(Connection::pipe(reader, capacity, false))));
        trace!(world, "pipe from {writer} to {reader}");
        Ok((world.open(reader)?, world.open(writer)?))
    }

    /// `read(2)` from a pipe, without blocking.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if nothing has arrived; `EINTR`.
    pub fn read(&self, pipe: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
        self.with_socket(pipe, |world, id| {
            world.interrupt()?;
            let mut filled = 0;
            let most = buffer.len();
            let most = if most > 1 && world.strikes(Fault::ShortRead) { most / 2 } else { most };
            world.receive(id, most, false, |piece| {
                buffer[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
            })
        })
    }

    /// `write(2)` to a pipe, without blocking.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is no room; `EPIPE` if nobody can read; `EINTR`.
    pub fn write(&self, pipe: RawFd, data: &[u8]) -> io::Result<usize> {
        self.with_socket(pipe, |world, id| {
            world.interrupt()?;
            let sent = world.send(id, data);
            trace!(world, "{} bytes written to pipe {id}: {sent:?}", data.len());
            sent
        })
    }

    /// `open(2)`
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EEXIST`; injected faults.
    pub fn open(&self, path: &CStr, flags: i32) -> io::Result<OwnedFd> {
        let opened = self.world().borrow_mut().open_file(path, flags);
        opened.map_err(io::Error::from_raw_os_error)
    }

    /// `pread(2)`
    ///
    /// # Errors
    ///
    /// `EBADF`; injected faults.
    pub fn read_at(&self, file: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with_socket(file, |world, id| {
            let most = buffer.len();
            world.read_file(id, offset, most, |piece| buffer[..piece.len()].copy_from_slice(piece))
        })
    }

    /// `preadv2(2)` with `RWF_NOWAIT`: `None` if it would wait, or fails.
    pub fn read_now(&self, file: RawFd, buffer: &mut [u8], offset: u64) -> Option<usize> {
        if self.world().borrow_mut().random.chance(512) {
            return None;
        }
        self.read_at(file, buffer, offset).ok()
    }

    /// `pwrite(2)`
    ///
    /// # Errors
    ///
    /// `EBADF`; injected faults.
    pub fn write_at(&self, file: RawFd, data: &[u8], offset: u64) -> io::Result<usize> {
        self.with_socket(file, |world, id| world.write_file(id, offset, data))
    }

    /// `fsync(2)`
    ///
    /// # Errors
    ///
    /// Injected faults.
    pub fn synchronize(&self, file: RawFd) -> io::Result<()> {
        self.with_socket(file, World::synchronize_file)
    }

    /// The bytes of a file, each with whether it is on the disk; `None` if there is no such file.
    pub fn stored(&self, path: &CStr) -> Option<Vec<(u8, bool)>> {
        self.world().borrow().stored(path)
    }
}

impl World {
    fn interrupt(&mut self) -> Result<(), i32> {
        if self.strikes(Fault::FileInterrupted) { Err(libc::EINTR) } else { Ok(()) }
    }
}
