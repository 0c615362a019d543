//! Stopping a server by signal: SIGINT and SIGTERM are taken by a thread of their own, so that no
//! handler has to be async-signal-safe.

use std::io;
use std::process;
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use ringspun::fibers::Remote;

/// SIGINT and SIGTERM, held back until somebody can act on them.
pub struct StopSignals {
    remote: Arc<OnceLock<Remote>>,
}

impl StopSignals {
    /// Takes the signals over from the kernel's default action, for the calling thread and those it
    /// starts: call it before there are others. `stop` runs on the runtime's thread when the first signal
    /// comes, as [`Remote::execute`] has it.
    ///
    /// A signal that comes before [`reach`](Self::reach), or after the first one, ends the process at once.
    ///
    /// # Errors
    ///
    /// The kernel's, if the thread cannot be made.
    pub fn take(stop: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let remote = Arc::new(OnceLock::<Remote>::new());
        let reachable = remote.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            let first = wait(signals);
            let Some(remote) = reachable.get() else { end(first) };
            // A runtime that has ended has nothing left to stop.
            let _ = remote.execute(stop);
            end(wait(signals))
        })?;
        Ok(Self { remote })
    }

    /// From now on, the first signal stops the runtime that `remote` reaches.
    pub fn reach(&self, remote: Remote) {
        // A second runtime would be a mistake in this program, and the first still gets its signal.
        let _ = self.remote.set(remote);
    }
}

fn wait(signals: SigSet) -> Signal {
    loop {
        // It fails for signals that are none, which these are not, or when interrupted.
        if let Ok(signal) = signals.wait() {
            return signal;
        }
    }
}

/// Ends the process with the status by which shells tell of a signal.
fn end(signal: Signal) -> ! {
    process::exit(128 + signal as i32)
}
