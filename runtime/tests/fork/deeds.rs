//! What a forked child does with its copy of a loop, none of which may affect its parent.

use std::cell::RefCell;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use ringspun_runtime::{
    BackendKind, Completion, Configuration, EventLoop, Operation, OperationKey, OperationKind, Owner,
    SendData, Wait, Wake,
};

#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Ends immediately.
    End,
    /// Exits with exit handlers and thread-local destructors, which drop the loop.
    Exit,
    /// Drops the loop and all that belongs to it.
    Drop,
    ShutDown,
    /// Cancels all that is in flight, and waits for it.
    Cancel,
    /// Makes all other calls.
    Call,
    /// Uses a loop of its own, beside the parent's and after it.
    OwnLoop,
    /// Executes another program.
    Execute,
    Crash,
    /// Is killed.
    Kill,
    /// Is ended by a signal that its parent's loop has a handler for.
    Terminate,
    /// Likewise, with a loop of its own.
    TerminateOwnLoop,
}

impl Deed {
    pub const ALL: [Self; 12] = [
        Self::End,
        Self::Exit,
        Self::Drop,
        Self::ShutDown,
        Self::Cancel,
        Self::Call,
        Self::OwnLoop,
        Self::Execute,
        Self::Crash,
        Self::Kill,
        Self::Terminate,
        Self::TerminateOwnLoop,
    ];

    fn expected(self, child: Pid) -> WaitStatus {
        match self {
            Self::Crash => WaitStatus::Signaled(child, Signal::SIGABRT, false),
            Self::Kill => WaitStatus::Signaled(child, Signal::SIGKILL, false),
            Self::Terminate | Self::TerminateOwnLoop => WaitStatus::Signaled(child, Signal::SIGTERM, false),
            _ => WaitStatus::Exited(child, 0),
        }
    }

    fn perform<T: 'static>(self, event_loop: Rc<EventLoop>, in_flight: &[OperationKey], others: T) {
        match self {
            Self::End => {}
            Self::Exit => {
                thread_local! { static KEPT: RefCell<Option<Box<dyn std::any::Any>>> = const { RefCell::new(None) }; }
                KEPT.set(Some(Box::new((event_loop, others))));
                // That of the standard library also waits for threads of the parent that were starting.
                // SAFETY: runs the handlers of exits, which is what this is for.
                unsafe { libc::exit(0) };
            }
            Self::Drop => drop((event_loop, others)),
            Self::ShutDown => event_loop.shutdown().unwrap(),
            Self::Cancel => {
                in_flight.iter().for_each(|key| event_loop.cancel(*key));
                in_flight.iter().for_each(|key| event_loop.cancel_and_wait(*key).unwrap());
                assert_eq!(event_loop.statistics().operations_in_flight, 0);
            }
            Self::Call => call_all(&event_loop),
            Self::OwnLoop => {
                work_with_own_loop(event_loop.backend_name());
                let kind = event_loop.backend_name();
                drop((event_loop, others));
                work_with_own_loop(kind);
            }
            Self::Execute => {
                // SAFETY: the strings and the list are terminated; only returns on error.
                unsafe {
                    libc::execl(c"/bin/true".as_ptr(), c"true".as_ptr(), std::ptr::null::<libc::c_char>())
                };
                panic!("/bin/true: {}", io::Error::last_os_error());
            }
            Self::Crash => {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: the limit is valid; it prevents a core dump.
                unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
                std::process::abort();
            }
            // SAFETY: touches no memory.
            Self::Kill => drop(unsafe { libc::raise(libc::SIGKILL) }),
            // SAFETY: likewise.
            Self::Terminate => drop(unsafe { libc::raise(libc::SIGTERM) }),
            Self::TerminateOwnLoop => {
                let own = EventLoop::new(&Configuration::default()).unwrap();
                // SAFETY: likewise.
                unsafe { libc::raise(libc::SIGTERM) };
                drop(own);
            }
        }
    }
}

/// Ends the process without output of the test harness.
fn end(status: i32) -> ! {
    // SAFETY: ends the process immediately.
    unsafe { libc::_exit(status) }
}

pub struct Child {
    deed: Deed,
    process: Pid,
}

impl Child {
    /// Forks a child that does the deed with the loop, its operations in flight, and other objects, which `others`
    /// makes the child's own.
    pub fn that_does<T: 'static>(
        deed: Deed,
        event_loop: &Rc<EventLoop>,
        in_flight: &[OperationKey],
        others: impl FnOnce() -> T,
    ) -> Self {
        // SAFETY: the child has only this thread, and uses no lock that another may have held: it never prints.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self { deed, process: child },
            ForkResult::Child => {
                // SAFETY: the child's copy of the parent's reference, which it never uses again.
                let event_loop = unsafe { Rc::from_raw(Rc::as_ptr(event_loop)) };
                std::panic::set_hook(Box::new(|panic| {
                    let text = format!("in the child: {panic}\n");
                    // SAFETY: the text is valid for its length.
                    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
                }));
                let done = catch_unwind(AssertUnwindSafe(|| deed.perform(event_loop, in_flight, others())));
                end(if done.is_ok() { 0 } else { 101 })
            }
        }
    }

    /// Waits for the child, and checks its status.
    pub fn ended(self) {
        assert_eq!(waitpid(self.process, None).unwrap(), self.deed.expected(self.process), "{:?}", self.deed);
    }
}

struct Nobody;
impl Wake for Nobody {
    fn wake(self: Rc<Self>) {
        panic!("nobody waits in the child");
    }
}

/// The result of an operation.
#[derive(Default)]
struct Ends(RefCell<Vec<Result<u32, i32>>>);

impl Owner for Ends {
    fn complete(self: Rc<Self>, _: OperationKind, completion: Completion) {
        self.0.borrow_mut().push(completion.result.map_err(|error| error.raw_os_error().unwrap()));
    }
}

/// Whether an error names the loop's process.
fn names_the_parent(error: &io::Error) -> bool {
    error.to_string().contains(&format!("belongs to process {}; ", std::os::unix::process::parent_id()))
}

fn call_all(event_loop: &EventLoop) {
    let (mut sender, receiver) = UnixStream::pair().unwrap();
    sender.write_all(b"not for the loop").unwrap();
    let socket = receiver.as_raw_fd();
    for wait in [Wait::No, Wait::Block] {
        assert!(names_the_parent(&event_loop.turn(wait).unwrap_err()));
    }
    assert!(names_the_parent(&event_loop.check_process().unwrap_err()));
    assert!(names_the_parent(&event_loop.call_blocking(|| ()).map(drop).unwrap_err()));
    assert!(event_loop.is_shut_down());
    event_loop.remote_waker().wake();
    let is_refused = |error: io::Error| error.raw_os_error() == Some(libc::ECANCELED);
    assert!(event_loop.try_send(receiver.as_fd(), &[1]).is_err_and(is_refused));
    assert!(event_loop.try_send_to(receiver.as_fd(), &[1], None).is_err_and(is_refused));
    assert!(event_loop.try_receive(receiver.as_fd(), 1).is_err_and(is_refused));
    let timer = event_loop.insert_timer(event_loop.now(), Rc::new(Nobody));
    event_loop.remove_timer(timer);
    event_loop.wake_next_turn(Rc::new(Nobody));
    let ends = Rc::new(Ends::default());
    // More than fit into the submission queue.
    let submit = || event_loop.submit(Operation::Receive { socket }, ends.clone());
    let submitted: Vec<_> = (0..1100).map(|_| submit()).collect();
    for key in submitted {
        event_loop.cancel_and_wait(key).unwrap();
    }
    assert_eq!(*ends.0.borrow(), [Err(libc::ECANCELED); 1100]);
}

/// Checks that a loop made in the child works.
fn work_with_own_loop(backend: &str) {
    let kind = if backend == "poll" { BackendKind::Poll } else { BackendKind::Uring };
    let configuration = Configuration { backend: Some(kind), ..Configuration::default() };
    let event_loop = EventLoop::new(&configuration).unwrap();
    let (sender, receiver) = UnixStream::pair().unwrap();
    let (sent, received) = (Rc::new(Ends::default()), Rc::new(Ends::default()));
    let receive = Operation::Receive { socket: receiver.as_raw_fd() };
    let receiving = event_loop.submit(receive, received.clone());
    let data = SendData::Owned(b"hello".to_vec());
    event_loop.submit(Operation::Send { socket: sender.as_raw_fd(), data }, sent.clone());
    struct Turned;
    impl Wake for Turned {
        fn wake(self: Rc<Self>) {}
    }
    let waiter: Rc<dyn Wake> = Rc::new(Turned);
    let mut call = event_loop.call_blocking(|| 42).unwrap();
    let answer = loop {
        match call.poll(&waiter) {
            Poll::Ready(answer) => break answer,
            Poll::Pending => event_loop.turn(Wait::Block).unwrap(),
        }
    };
    assert_eq!(answer.unwrap(), 42);
    // The call's result may be there before the loop has processed its end.
    let has_call = || event_loop.statistics().blocking_calls > 0;
    while sent.0.borrow().is_empty() || received.0.borrow().is_empty() || has_call() {
        event_loop.turn(Wait::Block).unwrap();
    }
    event_loop.cancel_and_wait(receiving).unwrap();
    assert_eq!((*sent.0.borrow()).as_slice(), [Ok(5)]);
    assert_eq!(received.0.borrow()[0], Ok(5));
    event_loop.shutdown().unwrap();
    assert_eq!(event_loop.statistics(), Default::default());
}
