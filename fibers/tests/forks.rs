//! A child that is forked in a fiber goes on alone, and leaves its parent's runtime as it was, however it ends.

#![cfg(unix)]

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use ringspun_fibers::{self as fibers, Channel, Interrupt, JoinHandle};

const AGES: Duration = Duration::from_secs(3600);

/// How the child ends, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    ExitAtOnce,
    /// By way of exit handlers and the thread's destructors.
    Exit,
    Return,
    Panic,
    Wait,
    /// Starts a fiber, and a runtime of its own, on this thread.
    Start,
}

/// Ends the process without a word of the test harness.
fn end(done: bool) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(if done { 0 } else { 101 }) }
}

/// What the child does in its copy of the fiber that forked.
fn perform(deed: Deed) {
    match deed {
        Deed::ExitAtOnce => end(true),
        // `std::process::exit` waits for a lock that a thread which starts or ends may have held during the fork.
        // SAFETY: what it calls takes no such lock.
        Deed::Exit => unsafe { libc::exit(0) },
        Deed::Return => {}
        // Without a message.
        Deed::Panic => std::panic::resume_unwind(Box::new("in the child")),
        Deed::Wait => {
            let _ = fibers::sleep(AGES);
            end(false);
        }
        Deed::Start => {
            let refused = fibers::spawn(|| ()).unwrap_err();
            assert!(refused.to_string().contains("no runtime of fibers runs on this thread"), "{refused}");
            let answer = fibers::run(|| {
                let asked = fibers::spawn(|| fibers::sleep(Duration::from_millis(1)).map(|()| 42)).unwrap();
                asked.join().unwrap()
            });
            assert_eq!(answer.unwrap(), Ok(42));
            assert!(fibers::is_fiber(), "the fiber that forked is the running one again");
            end(true);
        }
    }
}

/// Notes where its destructor runs.
struct Note(UnixStream);
impl Drop for Note {
    fn drop(&mut self) {
        let _ = self.0.write_all(b"dropped ");
    }
}

/// Fibers in each state, none of which may go on in the child.
struct Others {
    sleeps: JoinHandle<Result<(), Interrupt>>,
    takes: JoinHandle<u32>,
    starter: JoinHandle<JoinHandle<()>>,
    channel: Channel<u32>,
}

impl Others {
    fn start(notes: &UnixStream) -> Self {
        let channel = Channel::bounded(0);
        let (taken, note) = (channel.clone(), Note(notes.try_clone().unwrap()));
        let sleeps = fibers::spawn(move || {
            let _note = note;
            fibers::sleep(AGES)
        });
        let takes = fibers::spawn(move || taken.take().unwrap());
        fibers::yield_now().unwrap();
        Self { sleeps: sleeps.unwrap(), takes: takes.unwrap(), starter: start_after(notes), channel }
    }

    fn go_on(self) {
        self.starter.join().unwrap().join().unwrap();
        self.channel.give(7).unwrap();
        assert_eq!(self.takes.join().unwrap(), 7);
        fibers::sleep(Duration::from_millis(1)).unwrap();
        self.sleeps.cancel();
        assert_eq!(self.sleeps.join().unwrap(), Err(Interrupt::Cancelled));
    }
}

/// Parks the running fiber until it is woken by another, which then starts a third: this one is in the run queue right
/// behind the caller.
fn start_after(notes: &UnixStream) -> JoinHandle<JoinHandle<()>> {
    let go = Channel::bounded(1);
    let (gone, mut notes) = (go.clone(), notes.try_clone().unwrap());
    let starter = fibers::spawn(move || {
        gone.give(()).unwrap();
        fibers::spawn(move || notes.write_all(b"ready ").unwrap()).unwrap()
    });
    go.take().unwrap();
    starter.unwrap()
}

/// Forks; the child does what it is to do, and the parent waits for it while its fibers go on.
fn fork_here(deed: Deed) {
    // SAFETY: the child is this thread alone, and takes no lock that another has.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => perform(deed),
        ForkResult::Parent { child } => {
            let waited = fibers::blocking(move || waitpid(child, None)).unwrap().unwrap();
            assert_eq!(waited, WaitStatus::Exited(child, 0), "{deed:?}");
        }
    }
}

/// Runs a scene in which a fiber forks, the main one or another.
fn check(deed: Deed, in_main: bool) {
    let parent = std::process::id();
    let (notes, mut noted) = UnixStream::pair().unwrap();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        fibers::run(move || {
            let others = Rc::new(RefCell::new(None));
            let others_of_forker = others.clone();
            let scene = move || {
                others_of_forker.replace(Some(Others::start(&notes)));
                fork_here(deed);
            };
            match in_main {
                true => scene(),
                false => fibers::spawn(scene).unwrap().join().unwrap(),
            }
            if std::process::id() == parent {
                others.take().unwrap().go_on();
            }
            "the result of main"
        })
    }));
    if std::process::id() != parent {
        // Here too, in a child that did not end before.
        end(match (deed, in_main) {
            (Deed::Return, true) => matches!(ran, Ok(Ok("the result of main"))),
            (Deed::Panic, true) => ran.is_err(),
            _ => ran.is_ok_and(|ran| ran.unwrap_err().to_string().contains("belongs to process")),
        });
    }
    assert_eq!(ran.unwrap().unwrap(), "the result of main");
    let mut text = String::new();
    noted.read_to_string(&mut text).unwrap();
    assert_eq!(text, "ready dropped ", "{deed:?}: each by the parent, once");
}

fn check_both(deed: Deed) {
    for in_main in [true, false, true, false] {
        check(deed, in_main);
    }
}

#[test]
fn a_child_that_exits_leaves_its_parent_as_it_was() {
    check_both(Deed::Exit);
    check_both(Deed::ExitAtOnce);
}

#[test]
fn a_child_that_returns_ends_its_copy_of_the_runtime_and_runs_no_other_fiber() {
    check_both(Deed::Return);
}

#[test]
fn a_child_that_panics_ends_its_copy_of_the_runtime() {
    check_both(Deed::Panic);
}

#[test]
fn a_wait_in_a_child_ends_its_copy_of_the_runtime() {
    check_both(Deed::Wait);
}

#[test]
fn a_child_may_start_a_runtime_of_its_own_in_the_fiber_that_forked() {
    check_both(Deed::Start);
}
