//! Child processes: started as by the standard library, and waited for by fibers.
//!
//! ```text
//!   std::process::Command ──► spawn ──► Child ──┬──► stdin, stdout, stderr: pipes
//!                                               ├──► wait, exiting: a pidfd is readable, or SIGCHLD arrives
//!                                               └──► dropped: reaped once it has ended
//! ```

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::task::Poll;

use ringspun_fibers::{self as fibers, NextSignal, Pollable, Ready, Signal, Signals};
use ringspun_runtime::{Completion, EventLoop, Interest, Operation, OperationKind, Owner, Wake};

use crate::error::OperationError;
use crate::pipe::Pipe;
use crate::waiting::current_loop;

/// How long the end of a runtime waits for a child that it has killed, in milliseconds.
const KILLED_WITHIN_MS: i32 = 100;

/// Children that have been dropped while they ran, and that no event loop waits for.
static ORPHANS: Mutex<Vec<std::process::Child>> = Mutex::new(Vec::new());

/// A child process, from [`spawn`].
///
/// Dropping it closes its pipes and lets it run on, unless [`set_kill_on_drop`](Self::set_kill_on_drop) says otherwise.
/// No zombie is left: a dropped child is reaped when it ends while the runtime runs, and otherwise with the next start
/// of a process.
#[derive(Debug)]
pub struct Child {
    /// Its standard input, if that is piped.
    pub stdin: Option<Pipe>,
    /// Its standard output, if that is piped.
    pub stdout: Option<Pipe>,
    /// Its standard error, if that is piped.
    pub stderr: Option<Pipe>,
    /// `None` only while it is dropped.
    process: Option<std::process::Child>,
    end: End,
    kills_on_drop: bool,
    event_loop: Rc<EventLoop>,
}

/// What tells that a child may have ended.
#[derive(Debug)]
enum End {
    /// A descriptor that is readable then (`pidfd_open(2)`, Linux 5.3).
    Descriptor(Rc<OwnedFd>),
    /// Where there is none: the arrival of SIGCHLD.
    Signal(Signals),
}

impl End {
    /// Of a child that has just been started, and has not been reaped.
    fn of(process: &std::process::Child) -> io::Result<Self> {
        match pidfd(process.id()) {
            Ok(descriptor) => Ok(Self::Descriptor(Rc::new(descriptor))),
            // An old kernel, or a seccomp policy that does not know the call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                Ok(Self::Signal(Signals::new(&[Signal::CHLD])?))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(target_os = "linux")]
fn pidfd(process_id: u32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;

    let no_flags: libc::c_uint = 0;
    // SAFETY: touches no memory. The descriptor is close-on-exec.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process_id, no_flags) };
    match i32::try_from(descriptor) {
        // SAFETY: our own new descriptor.
        Ok(descriptor @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(not(target_os = "linux"))]
fn pidfd(_: u32) -> io::Result<OwnedFd> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Starts a process. Its standard streams that are [`Stdio::piped`] are those of the [`Child`].
///
/// The start itself blocks the thread, as long as it takes to make a process, about a millisecond: another thread would
/// give it other blocked signals.
///
/// # Errors
///
/// The kernel's, with the program in the text; `Unsupported` outside of a runtime.
///
/// # Examples
///
/// ```
/// use std::process::{Command, Stdio};
///
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let mut command = Command::new("tr");
///     let mut child = net::spawn(command.args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
///     child.stdin.take().unwrap().write(b"hello")?;
///     let mut text = [0; 16];
///     let count = child.stdout.as_ref().unwrap().read(&mut text)?;
///     assert_eq!(&text[..count], b"HELLO");
///     assert!(child.wait()?.success());
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let started = start(command);
    started.map_err(|error| OperationError::wrap("start", command.get_program().display(), error))
}

fn start(command: &mut Command) -> io::Result<Child> {
    let event_loop = current_loop()?;
    reap_orphans();
    let mut process = command.spawn()?;
    let made = End::of(&process).and_then(|end| {
        let stdin = process.stdin.take().map(OwnedFd::from).map(Pipe::try_from).transpose()?;
        let stdout = process.stdout.take().map(OwnedFd::from).map(Pipe::try_from).transpose()?;
        let stderr = process.stderr.take().map(OwnedFd::from).map(Pipe::try_from).transpose()?;
        Ok((stdin, stdout, stderr, end))
    });
    match made {
        Ok((stdin, stdout, stderr, end)) => {
            let (process, kills_on_drop) = (Some(process), false);
            Ok(Child { stdin, stdout, stderr, process, end, kills_on_drop, event_loop })
        }
        Err(error) => {
            let _ = process.kill();
            adopt(process);
            Err(error)
        }
    }
}

/// Runs a process to its end, and returns its status.
///
/// # Errors
///
/// As [`spawn`]; an interrupt of the fiber, which kills the process.
///
/// # Panics
///
/// Outside of a fiber.
pub fn status(command: &mut Command) -> io::Result<ExitStatus> {
    let mut child = spawn(command)?;
    child.set_kill_on_drop(true);
    child.wait()
}

/// Runs a process to its end, and returns its status and all that it has written to its standard output and standard
/// error. If its standard input is piped, it is at its end; unless set, it is that of this process.
///
/// # Errors
///
/// As [`spawn`]; an interrupt of the fiber, which kills the process.
///
/// # Panics
///
/// Outside of a fiber.
///
/// # Examples
///
/// ```
/// use std::process::Command;
///
/// use ringspun_fibers as fibers;
/// use ringspun_net as net;
///
/// fibers::run(|| -> std::io::Result<()> {
///     let output = net::output(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))?;
///     assert_eq!((output.status.code(), &*output.stdout, &*output.stderr), (Some(3), &b"out\n"[..], &b"err\n"[..]));
///     Ok(())
/// })
/// .unwrap()
/// .unwrap();
/// ```
pub fn output(command: &mut Command) -> io::Result<Output> {
    let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.set_kill_on_drop(true);
    drop(child.stdin.take());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = fibers::scope(|scope| {
        let reading = scope.spawn(|| read_all(err.as_ref()))?;
        let stdout = read_all(out.as_ref());
        let read = stdout.and_then(|stdout| Ok((stdout, reading.join()??)));
        if read.is_err() {
            // The process may never end, and others may have its standard error.
            scope.cancel();
        }
        read
    })?;
    Ok(Output { status: child.wait()?, stdout, stderr })
}

fn read_all(pipe: Option<&Pipe>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        io::Read::read_to_end(&mut pipe, &mut bytes)?;
    }
    Ok(bytes)
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the process has ended and has been waited for")
}

impl Child {
    /// The process ID, which is not another process's before this one has been waited for.
    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, std::process::Child::id)
    }

    /// Parks until the process ends, and returns its status. Closes its standard input first, so that it cannot wait
    /// for more of that. Waiting again returns the same.
    ///
    /// # Errors
    ///
    /// The interrupt of the fiber, after which the process can be waited for again; the kernel's if other code has
    /// waited for the process.
    ///
    /// # Panics
    ///
    /// Outside of a fiber.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        fibers::wait_for(self.exiting())?
    }

    /// The status of a process that has ended, without waiting.
    ///
    /// # Errors
    ///
    /// The kernel's if other code has waited for the process.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.as_mut().ok_or_else(gone)?.try_wait()
    }

    /// The end of the process, to be waited for in a [`Select`](fibers::Select).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Command;
    /// use std::time::Duration;
    ///
    /// use ringspun_fibers::{self as fibers, Select, Signal};
    /// use ringspun_net as net;
    ///
    /// fibers::run(|| -> std::io::Result<()> {
    ///     let mut child = net::spawn(Command::new("sleep").arg("1000"))?;
    ///     let ended = Select::new()
    ///         .on(child.exiting(), |status| Some(status))
    ///         .on(fibers::after(Duration::from_millis(5)), |()| None)
    ///         .wait()?;
    ///     assert!(ended.is_none());
    ///     child.signal(Signal::TERM)?;
    ///     assert!(!child.wait()?.success());
    ///     Ok(())
    /// })
    /// .unwrap()
    /// .unwrap();
    /// ```
    pub fn exiting(&mut self) -> Exiting<'_> {
        let ready = match &self.end {
            End::Descriptor(descriptor) => {
                Waiting::Descriptor(fibers::ready(descriptor.clone(), Interest::Readable), descriptor.clone())
            }
            End::Signal(signals) => Waiting::Signal(signals.next(), signals),
        };
        Exiting { process: self.process.as_mut(), ready }
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the process has ended and been waited for; the kernel's.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.try_wait()?.is_some() {
            return Err(gone());
        }
        // SAFETY: touches no memory. The ID is the process's, as nobody has waited for it.
        match unsafe { libc::kill(self.id() as libc::pid_t, signal.number()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Ends the process by SIGKILL; does nothing if it has ended. It must still be waited for, or dropped.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn kill(&mut self) -> io::Result<()> {
        match &mut self.process {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Whether dropping this kills the process: with true, a fiber that is cancelled while it waits for the process,
    /// and returns, takes the process with it.
    pub fn set_kill_on_drop(&mut self, on: bool) {
        self.kills_on_drop = on;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // In a forked child, it is not this process's child.
        if self.event_loop.check_process().is_err() || !matches!(process.try_wait(), Ok(None)) {
            return;
        }
        if self.kills_on_drop {
            let _ = process.kill();
        }
        match &self.end {
            End::Descriptor(descriptor) => {
                let operation = Operation::Poll {
                    descriptor: std::os::fd::AsRawFd::as_raw_fd(&**descriptor),
                    interest: Interest::Readable,
                };
                let process = RefCell::new(Some(process));
                let (descriptor, is_killed) = (descriptor.clone(), self.kills_on_drop);
                self.event_loop.submit(operation, Rc::new(Orphan { process, descriptor, is_killed }));
            }
            End::Signal(_) => adopt(process),
        }
    }
}

/// A dropped child that still runs: the loop waits for its end.
struct Orphan {
    process: RefCell<Option<std::process::Child>>,
    descriptor: Rc<OwnedFd>,
    is_killed: bool,
}

impl Owner for Orphan {
    fn complete(self: Rc<Self>, _: OperationKind, _: Completion) {
        let Some(mut process) = self.process.take() else { return };
        if self.is_killed {
            // It ends now, also when the loop does.
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&*self.descriptor);
            let mut descriptor = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid descriptor.
            unsafe { libc::poll(&raw mut descriptor, 1, KILLED_WITHIN_MS) };
        }
        if matches!(process.try_wait(), Ok(None)) {
            adopt(process);
        }
    }
}

fn adopt(process: std::process::Child) {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner).push(process);
}

/// Reaps the children without a loop that have ended.
fn reap_orphans() {
    // Whoever has the lock does it. In a forked child, it may be held for good.
    if let Ok(mut orphans) = ORPHANS.try_lock() {
        orphans.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
    }
}

/// The end of a process, from [`Child::exiting`].
pub struct Exiting<'a> {
    process: Option<&'a mut std::process::Child>,
    ready: Waiting<'a>,
}

enum Waiting<'a> {
    Descriptor(Ready<OwnedFd>, Rc<OwnedFd>),
    Signal(NextSignal<'a>, &'a Signals),
}

impl Pollable for Exiting<'_> {
    type Output = io::Result<ExitStatus>;

    fn poll(&mut self, waiter: &Rc<dyn Wake>) -> Poll<Self::Output> {
        let Some(process) = &mut self.process else { return Poll::Ready(Err(gone())) };
        loop {
            if let Some(status) = process.try_wait()? {
                return Poll::Ready(Ok(status));
            }
            let ready = match &mut self.ready {
                Waiting::Descriptor(ready, _) => ready.poll(waiter),
                Waiting::Signal(next, _) => next.poll(waiter).map_ok(drop),
            };
            match ready {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => match &mut self.ready {
                    Waiting::Descriptor(ready, descriptor) => {
                        *ready = fibers::ready(descriptor.clone(), Interest::Readable);
                    }
                    Waiting::Signal(next, signals) => *next = signals.next(),
                },
            }
        }
    }
}

impl std::fmt::Debug for Exiting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exiting {{ process: {:?} }}", self.process.as_ref().map(|process| process.id()))
    }
}
