//! What makes crates for blocking sockets work on streams.

use std::io::{self, IoSlice, IoSliceMut};

use super::Stream;

impl io::Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Stream::read(self, buffer)
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_parts(parts)
    }
}

impl io::Write for &Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(data)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_small_parts(parts)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Stream::write(self, data).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Stream::flush(self)
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Stream::read(self, buffer)
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_parts(parts)
    }
}

impl io::Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_part(data)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_small_parts(parts)
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        Stream::write(self, data).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Stream::flush(self)
    }
}
