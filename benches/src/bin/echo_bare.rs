//! An echo server without a runtime, the limit that the others are held against: one io_uring loop with multishot
//! accepts, multishot receives into a shared pool of buffers, and sends out of the buffer that was received into.
//! Prints the address it listens on. Linux 6.1 or later.
//!
//! The buffers have 4 KiB, or the size of `--buffer BYTES`. There is no flow control: a peer that never reads can hold
//! all buffers. A runtime has to add that, timeouts, and tasks.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use ringspun_benches::buffers::{self, Buffers};

/// The kind of a completion, in the upper half of its `user_data`; the lower half is the connection's descriptor.
const RECEIVE: u64 = 0;
const SEND: u64 = 1 << 32;
const ACCEPT: u64 = 2 << 32;

/// A connection. It is closed when nothing of it is in the kernel any more, so that its descriptor, which is its
/// index too, stays its own until then.
#[derive(Default)]
struct Connection {
    /// A receive is armed, or waits for buffers.
    receiving: bool,
    /// Buffers to send and how many bytes they hold, in order. The first is being sent: one at a time, since the
    /// kernel may finish two sends in either order.
    unsent: VecDeque<(u16, u32)>,
}

/// Fields are dropped in order: the ring before the buffers that the kernel knows by it.
struct Server {
    ring: IoUring,
    buffers: Buffers,
    listener: TcpListener,
    connections: Vec<Connection>,
    /// How many buffers hold what is unsent.
    held: usize,
    /// Connections whose receive ended because no buffer was left.
    starved: VecDeque<RawFd>,
}

fn main() -> io::Result<()> {
    let buffer_bytes = ringspun_benches::tcp_arguments(4 * 1024).buffer_bytes;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_cqsize(32 * 1024)
        .build(4096)?;
    let mut buffers = Buffers::new(buffer_bytes);
    buffers.register(&ring)?;
    println!("listening on {} (bare)", listener.local_addr()?);
    Server { ring, buffers, listener, connections: Vec::new(), held: 0, starved: VecDeque::new() }.serve()
}

impl Server {
    fn serve(mut self) -> io::Result<()> {
        self.accept()?;
        let mut completions = Vec::new();
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => completions.extend(self.ring.completion()),
            }
            for completion in completions.drain(..) {
                let descriptor = completion.user_data() as u32 as RawFd;
                match completion.user_data() & !u64::from(u32::MAX) {
                    RECEIVE => self.received(descriptor, &completion)?,
                    SEND => self.sent(descriptor, completion.result())?,
                    _ => self.accepted(&completion)?,
                }
            }
        }
    }

    fn accepted(&mut self, completion: &cqueue::Entry) -> io::Result<()> {
        if !cqueue::more(completion.flags()) {
            self.accept()?;
        }
        let descriptor = completion.result();
        if descriptor == -libc::ECONNABORTED {
            return Ok(());
        }
        if descriptor < 0 {
            return Err(io::Error::from_raw_os_error(-descriptor));
        }
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an integer that lives through the call. A failure is of no consequence.
        unsafe {
            let size = size_of::<libc::c_int>() as libc::socklen_t;
            libc::setsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), size);
        }
        if self.connections.len() <= descriptor as usize {
            self.connections.resize_with(descriptor as usize + 1, Connection::default);
        }
        self.connections[descriptor as usize].receiving = true;
        self.receive(descriptor)
    }

    fn received(&mut self, descriptor: RawFd, completion: &cqueue::Entry) -> io::Result<()> {
        let connection = &mut self.connections[descriptor as usize];
        if let (Some(buffer), 1..) = (cqueue::buffer_select(completion.flags()), completion.result()) {
            connection.unsent.push_back((buffer, completion.result() as u32));
            self.held += 1;
            if connection.unsent.len() == 1 {
                self.send(descriptor)?;
            }
        }
        if cqueue::more(completion.flags()) {
            return Ok(());
        }
        match completion.result() {
            1.. => self.receive(descriptor),
            error if error == -libc::ENOBUFS && self.held == usize::from(buffers::COUNT) => {
                self.starved.push_back(descriptor);
                Ok(())
            }
            // Buffers have come back since, or are in completions that follow.
            error if error == -libc::ENOBUFS => self.receive(descriptor),
            _ => {
                self.connections[descriptor as usize].receiving = false;
                self.close_when_idle(descriptor);
                Ok(())
            }
        }
    }

    fn sent(&mut self, descriptor: RawFd, result: i32) -> io::Result<()> {
        let unsent = &mut self.connections[descriptor as usize].unsent;
        let Some(&(_, count)) = unsent.front() else { return Ok(()) };
        // When the peer is gone nothing more can be sent, and the receive ends too.
        let done = if result == count as i32 { 1 } else { unsent.len() };
        for (buffer, _) in unsent.drain(..done) {
            self.buffers.give_back(buffer);
            self.held -= 1;
        }
        if result != count as i32 {
            // SAFETY: closes nothing, and the descriptor is this connection's.
            unsafe { libc::shutdown(descriptor, libc::SHUT_RDWR) };
        }
        self.buffers.publish();
        if !self.connections[descriptor as usize].unsent.is_empty() {
            self.send(descriptor)?;
        }
        if let Some(starved) = self.starved.pop_front() {
            self.receive(starved)?;
        }
        self.close_when_idle(descriptor);
        Ok(())
    }

    fn close_when_idle(&self, descriptor: RawFd) {
        let connection = &self.connections[descriptor as usize];
        if !connection.receiving && connection.unsent.is_empty() {
            // SAFETY: the descriptor is this connection's, and the kernel has no operation on it.
            unsafe { libc::close(descriptor) };
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(Fd(self.listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry.user_data(ACCEPT))
    }

    fn receive(&mut self, descriptor: RawFd) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(Fd(descriptor), 0).build().user_data(RECEIVE | descriptor as u64))
    }

    /// Sends the first unsent buffer. The kernel continues after a partial send.
    fn send(&mut self, descriptor: RawFd) -> io::Result<()> {
        let (buffer, count) = self.connections[descriptor as usize].unsent[0];
        let entry = opcode::Send::new(Fd(descriptor), self.buffers.address(buffer), count)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        self.push(entry.user_data(SEND | descriptor as u64))
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: entries point at buffers that outlive the ring, or at nothing; descriptors stay open until no
        // operation on them is left.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.ring.submit()?;
        }
        Ok(())
    }
}
