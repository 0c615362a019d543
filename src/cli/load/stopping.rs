//! SIGINT, SIGTERM and SIGHUP, which end a run early, and all runs that were to follow it; and conditions that end
//! a run.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringspun::fibers::{Select, SharedChannel, Signal, Signals};
use ringspun_load::{Breach, Recorder, Stopper, Watch, format_duration};

use crate::cli::dumps::Quit;
use crate::cli::output;

/// After how long it is said that responses are waited for.
const TOLD_AFTER: Duration = Duration::from_secs(1);

/// What stops the runs of a command.
pub struct Stopping {
    /// Absent once one has arrived: another one ends the process.
    signals: Rc<RefCell<Option<Rc<Signals>>>>,
    arrived: Rc<Cell<Option<Signal>>>,
    /// Between runs, SIGQUIT is ignored.
    _quit: Quit,
}

impl Stopping {
    /// Begins to handle the signals.
    pub fn new() -> Self {
        let mut ending = vec![Signal::INT, Signal::TERM];
        // `nohup` has it ignored, so that the run goes on when its terminal is closed.
        if !is_ignored(Signal::HUP) {
            ending.push(Signal::HUP);
        }
        let signals = Signals::new(&ending).inspect_err(|error| {
            output::complain(format_args!(
                "cannot handle signals, which would end the run without results: {error}"
            ));
        });
        Self {
            signals: Rc::new(RefCell::new(signals.ok().map(Rc::new))),
            arrived: Rc::default(),
            _quit: Quit::take(),
        }
    }

    /// The signal that has arrived, if a run looked for it.
    pub fn signal(&self) -> Option<Signal> {
        self.arrived.get()
    }

    /// For the hooks of a run, which also ends when `abort` is closed. A signal that arrived before stops it at once,
    /// also one that came too late for the run before. `notify` is called when a signal arrives.
    pub fn stopper(&self, abort: SharedChannel<()>, notify: impl FnOnce() + 'static) -> Option<Stopper> {
        if self.signal().is_some() {
            return Some(Box::new(|| {}));
        }
        let waiting = self.signals.borrow().clone()?;
        let (signals, arrived) = (self.signals.clone(), self.arrived.clone());
        let quit = Quit::take();
        Some(Box::new(move || {
            let _dumps = quit.dump();
            let event = Select::new().on(waiting.next(), Some).take_shared(&abort, |_| None).wait();
            // An error means that the runtime is ending.
            if let Ok(Some(Ok(signal))) = event {
                arrived.set(Some(signal));
                // From here on, another one ends the process.
                signals.take();
                drop(waiting);
                notify();
            }
        }))
    }
}

/// The wait for the last responses, once a signal has arrived.
#[derive(Clone, Default)]
pub struct Waited(Arc<AtomicBool>);

impl Waited {
    /// Says what is waited for, if it takes long: a run that goes on after a signal seems to ignore it.
    pub fn tell_if_long(&self, timeout: Duration) {
        let has_ended = self.0.clone();
        let tell = move || {
            thread::sleep(TOLD_AFTER);
            if !has_ended.load(Ordering::Acquire) {
                output::complain(format_args!(
                    "still waiting for responses, each for at most {} (--timeout); another signal ends this at once, \
                     without results",
                    format_duration(timeout)
                ));
            }
        };
        // Without a thread, nothing is said.
        let _ = thread::Builder::new().name("wait".to_string()).spawn(tell);
    }

    /// There is nothing to say any more.
    pub fn end(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whether the process was started with a signal ignored.
fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the structure is valid for the call, which changes nothing, and has been initialized with zeros.
    let (status, action) =
        unsafe { (libc::sigaction(signal.number(), ptr::null(), action.as_mut_ptr()), action.assume_init()) };
    status == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Watches a run, and closes the channel when a condition holds.
pub fn watch(mut watch: Watch, abort: SharedChannel<()>, breach: Rc<RefCell<Option<Breach>>>) -> Recorder {
    Box::new(move |interval| {
        if breach.borrow().is_none()
            && let Some(found) = watch.look(interval)
        {
            *breach.borrow_mut() = Some(found);
            abort.close();
        }
    })
}
