//! Readiness events: from epoll on Linux, from the `polling` crate elsewhere.
//!
//! On Linux, epoll is used directly: a wait of that crate takes five system calls, and it does not request
//! `EPOLLRDHUP`, by which an edge-triggered socket signals an end that follows the bytes of a short receive. With
//! edge-triggered events, the kernel checks a socket once per event, and not again in the next wait.
//! `scripts/measure poll` shows the cost of an echo.

use std::os::fd::RawFd;

#[cfg(target_os = "linux")]
pub(super) use epoll::Readiness;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Readiness;

/// The events that are requested for a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Interests {
    pub(super) input: bool,
    pub(super) output: bool,
    /// Edge-triggered, on systems whose events are otherwise level-triggered.
    pub(super) edge: bool,
}

impl Interests {
    pub(super) fn is_none(self) -> bool {
        !self.input && !self.output
    }
}

/// A readiness event of a descriptor.
#[derive(Clone, Copy)]
pub(super) struct Event {
    pub(super) descriptor: RawFd,
    pub(super) input: bool,
    pub(super) output: bool,
    /// There is an end of the stream, an error or urgent data: a receive that does not fill its buffer does not mean
    /// that nothing is left.
    pub(super) is_special: bool,
}

#[cfg(target_os = "linux")]
mod epoll {
    use std::collections::VecDeque;
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
    use std::time::Duration;

    use super::{Event, Interests};

    /// The maximum number of events per wait.
    const EVENTS_PER_WAIT: usize = 1024;
    /// The flags of special events: see [`Event::is_special`].
    const SPECIAL: i32 = libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLPRI;

    /// `struct __kernel_timespec`. The C library's `timespec` is smaller on some 32-bit systems.
    #[repr(C)]
    #[derive(Debug, PartialEq, Eq)]
    struct KernelTimespec {
        seconds: i64,
        nanoseconds: i64,
    }

    impl From<Duration> for KernelTimespec {
        fn from(duration: Duration) -> Self {
            let seconds = duration.as_secs().try_into().unwrap_or(i64::MAX);
            Self { seconds, nanoseconds: duration.subsec_nanos().into() }
        }
    }

    pub(in super::super) struct Readiness {
        epoll: OwnedFd,
        events: Vec<libc::epoll_event>,
        /// The kernel takes timeouts in nanoseconds (`epoll_pwait2`, Linux 5.11).
        is_precise: bool,
    }

    impl Readiness {
        /// Whether events are edge-triggered: operations must then continue until they would block.
        pub(in super::super) const EDGES: bool = true;

        pub(in super::super) fn new() -> io::Result<Self> {
            // SAFETY: touches no memory.
            let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: our own new descriptor.
            let epoll = unsafe { OwnedFd::from_raw_fd(descriptor) };
            let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT];
            Ok(Self { epoll, events, is_precise: true })
        }

        /// Changes the requested events of a descriptor.
        pub(in super::super) fn request(
            &mut self,
            descriptor: RawFd,
            before: Interests,
            now: Interests,
        ) -> io::Result<()> {
            let operation = match (before.is_none(), now.is_none()) {
                (_, true) => libc::EPOLL_CTL_DEL,
                (true, false) => libc::EPOLL_CTL_ADD,
                (false, false) => libc::EPOLL_CTL_MOD,
            };
            let input = if now.input { libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI } else { 0 };
            let output = if now.output { libc::EPOLLOUT } else { 0 };
            self.control(operation, descriptor, input | output | libc::EPOLLET)
        }

        /// Requests level-triggered events for input of a descriptor until it is closed.
        pub(in super::super) fn add_persistent(&mut self, descriptor: RawFd) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_ADD, descriptor, libc::EPOLLIN)
        }

        /// Does nothing: requests persist.
        pub(in super::super) fn rearm_persistent(&mut self, _: RawFd) -> io::Result<()> {
            Ok(())
        }

        /// Whether an event ends its request: no.
        pub(in super::super) fn is_oneshot(&self) -> bool {
            false
        }

        fn control(&self, operation: i32, descriptor: RawFd, events: i32) -> io::Result<()> {
            let mut event = libc::epoll_event { events: events as u32, u64: descriptor as u64 };
            // SAFETY: the event is valid during the call.
            match unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, descriptor, &raw mut event) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }

        /// Waits for events. A signal ends it early.
        pub(in super::super) fn wait(
            &mut self,
            timeout: Option<Duration>,
            due: &mut VecDeque<Event>,
        ) -> io::Result<()> {
            let count = match self.fetch(timeout) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => 0,
                fetched => fetched?,
            };
            due.extend(self.events[..count].iter().map(|event| {
                let flags = event.events as i32;
                let is_over = flags & (libc::EPOLLHUP | libc::EPOLLERR) != 0;
                Event {
                    descriptor: event.u64 as RawFd,
                    input: is_over || flags & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI) != 0,
                    output: is_over || flags & libc::EPOLLOUT != 0,
                    is_special: flags & SPECIAL != 0,
                }
            }));
            Ok(())
        }

        fn fetch(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
            if self.is_precise {
                match self.fetch_precisely(timeout) {
                    // An old kernel, or a seccomp policy that does not know the call.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                        self.is_precise = false;
                    }
                    fetched => return fetched,
                }
            }
            // Rounded up: after an early return, no timer would be due, and the loop would spin.
            let round_up = |timeout: Duration| timeout.as_nanos().div_ceil(1_000_000);
            let timeout_ms =
                timeout.map_or(-1, |timeout| i32::try_from(round_up(timeout)).unwrap_or(i32::MAX));
            let (events, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
            let no_mask = std::ptr::null();
            // SAFETY: `events` has room for `room` events.
            let count =
                unsafe { libc::epoll_pwait(self.epoll.as_raw_fd(), events, room, timeout_ms, no_mask) };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        }

        fn fetch_precisely(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
            let timeout = timeout.map(KernelTimespec::from);
            let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
            let (events, room) = (self.events.as_mut_ptr(), self.events.len() as i32);
            let (no_mask, mask_size) = (std::ptr::null::<libc::sigset_t>(), 0_usize);
            // SAFETY: `events` has room for `room` events, and the timeout is null or valid. Not by `epoll_pwait2(3)`,
            // which old C libraries lack.
            let count = unsafe {
                let epoll = self.epoll.as_raw_fd();
                libc::syscall(libc::SYS_epoll_pwait2, epoll, events, room, timeout, no_mask, mask_size)
            };
            usize::try_from(count).map_err(|_| io::Error::last_os_error())
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_timeout_has_the_form_of_the_kernel_on_every_system() {
            assert_eq!(
                (size_of::<KernelTimespec>(), std::mem::offset_of!(KernelTimespec, nanoseconds)),
                (16, 8)
            );
            let timespec = KernelTimespec::from(Duration::new(3, 7));
            assert_eq!(timespec, KernelTimespec { seconds: 3, nanoseconds: 7 });
            assert_eq!(KernelTimespec::from(Duration::MAX).seconds, i64::MAX);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::collections::VecDeque;
    use std::io;
    use std::num::NonZeroUsize;
    use std::os::fd::{BorrowedFd, RawFd};
    use std::time::Duration;

    use polling::{Events, PollMode, Poller};

    use super::{Event, Interests};

    /// The maximum number of events per wait.
    const EVENTS_PER_WAIT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

    pub(in super::super) struct Readiness {
        poller: Poller,
        events: Events,
    }

    impl Readiness {
        /// Whether events are edge-triggered: they repeat while the descriptor is ready.
        pub(in super::super) const EDGES: bool = false;

        pub(in super::super) fn new() -> io::Result<Self> {
            Ok(Self { poller: Poller::new()?, events: Events::with_capacity(EVENTS_PER_WAIT) })
        }

        /// Changes the requested events of a descriptor.
        pub(in super::super) fn request(
            &mut self,
            descriptor: RawFd,
            before: Interests,
            now: Interests,
        ) -> io::Result<()> {
            let event = polling::Event::new(descriptor as usize, now.input, now.output);
            let mode = match now.edge && self.poller.supports_edge() {
                true => PollMode::Edge,
                false => self.mode(),
            };
            // SAFETY: operations end before their descriptor is closed.
            let source = unsafe { BorrowedFd::borrow_raw(descriptor) };
            match (before.is_none(), now.is_none()) {
                (_, true) => self.poller.delete(source),
                // SAFETY: the registration ends with the last operation, before the descriptor is closed.
                (true, false) => unsafe { self.poller.add_with_mode(descriptor, event, mode) },
                (false, false) => self.poller.modify_with_mode(source, event, mode),
            }
        }

        /// Requests events for input of a descriptor until it is closed.
        pub(in super::super) fn add_persistent(&mut self, descriptor: RawFd) -> io::Result<()> {
            let event = polling::Event::readable(descriptor as usize);
            // SAFETY: the caller keeps the descriptor open as long as this.
            unsafe { self.poller.add_with_mode(descriptor, event, self.mode()) }
        }

        /// Renews a persistent request after an event, which may have ended it.
        pub(in super::super) fn rearm_persistent(&mut self, descriptor: RawFd) -> io::Result<()> {
            if self.poller.supports_level() {
                return Ok(());
            }
            // SAFETY: the caller keeps the descriptor open as long as this.
            let source = unsafe { BorrowedFd::borrow_raw(descriptor) };
            let event = polling::Event::readable(descriptor as usize);
            self.poller.modify_with_mode(source, event, self.mode())
        }

        /// Waits for events.
        pub(in super::super) fn wait(
            &mut self,
            timeout: Option<Duration>,
            due: &mut VecDeque<Event>,
        ) -> io::Result<()> {
            self.events.clear();
            self.poller.wait(&mut self.events, timeout)?;
            due.extend(self.events.iter().map(|event| Event {
                descriptor: event.key as RawFd,
                input: event.readable,
                output: event.writable,
                is_special: true,
            }));
            Ok(())
        }

        /// Whether an event ends its request.
        pub(in super::super) fn is_oneshot(&self) -> bool {
            !self.poller.supports_level()
        }

        fn mode(&self) -> PollMode {
            if self.poller.supports_level() { PollMode::Level } else { PollMode::Oneshot }
        }
    }
}
