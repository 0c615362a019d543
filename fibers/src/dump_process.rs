//! Dumps of all runtimes of the process, also on a signal.

use std::fmt;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::dump::{Dump, dump};
use crate::join::JoinHandle;
use crate::runtimes::ask_all;
use crate::signals::Signals;
use crate::spawn::FiberBuilder;

/// How long a runtime may take for its dump on a signal. One with a million fibers takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// The name of the fibers that take dumps for others.
const NAME: &str = "dump";
const STACK_SIZE_BYTES: usize = 256 * 1024;

/// The fibers of all runtimes of the process, from [`dump_process`].
#[derive(Debug)]
pub struct ProcessDump {
    dumps: Vec<Dump>,
    silent: Vec<String>,
}

impl ProcessDump {
    /// A dump for each runtime that has answered.
    pub fn dumps(&self) -> &[Dump] {
        &self.dumps
    }

    /// The threads whose runtimes have not: a fiber there has not let others run for so long.
    pub fn silent_threads(&self) -> &[String] {
        &self.silent
    }
}

impl fmt::Display for ProcessDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = std::process::id();
        let threads = self.dumps.len() + self.silent.len();
        let plural = if threads == 1 { "" } else { "s" };
        write!(f, "fibers of process {process}: {threads} thread{plural}")?;
        for thread in &self.silent {
            write!(
                f,
                "\n\nthread '{thread}' does not answer: one of its fibers has not let others run since it was asked"
            )?;
        }
        for dump in &self.dumps {
            write!(f, "\n\n{dump}")?;
        }
        f.write_str("\n")
    }
}

/// Takes a [`dump`] of each runtime of the process at the same time. Blocks the thread for up to `patience`, so it is
/// not for the thread of a runtime, which could not answer: use [`blocking`](crate::blocking), or a thread of its own.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_fibers::{self as fibers, WorkersBuilder};
///
/// let workers = WorkersBuilder::new().count(2).start().unwrap();
/// let dump = fibers::dump_process(Duration::from_secs(60));
/// assert!(dump.silent_threads().is_empty());
/// assert!(dump.to_string().contains("thread 'worker 1'"));
/// workers.join().unwrap();
/// ```
pub fn dump_process(patience: Duration) -> ProcessDump {
    let (dumps, silent) = ask_all(patience, |reply| {
        let builder = FiberBuilder::new().name(NAME).stack_size_bytes(STACK_SIZE_BYTES);
        // Without memory for a stack, the runtime stays silent.
        let _ = builder.spawn(move || reply.send(dump()));
    });
    ProcessDump { dumps, silent }
}

/// Writes dumps to standard error on signals, until it is dropped: from [`dump_on_signals`].
#[derive(Debug)]
pub struct DumpOnSignals(JoinHandle<()>);

impl Drop for DumpOnSignals {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Has each arrival of the signals write a [`dump_process`] to standard error, until the result is dropped. A thread
/// for that is only made then.
///
/// The fiber that waits for the signals runs on this thread: if a fiber here never lets others run, there is no dump.
///
/// # Errors
///
/// As [`spawn`](crate::spawn).
///
/// # Examples
///
/// ```
/// use ringspun_fibers::{self as fibers, Signal, Signals};
///
/// // From here on, SIGQUIT does not end the process.
/// let quit = Signals::new(&[Signal::QUIT]).unwrap();
/// fibers::run(|| {
///     let _dumps = fibers::dump_on_signals(quit).unwrap();
///     // What the program does.
/// })
/// .unwrap();
/// ```
pub fn dump_on_signals(signals: Signals) -> io::Result<DumpOnSignals> {
    let fiber = FiberBuilder::new().name("dumps").spawn(move || {
        // An error means that the runtime is ending, or that nobody is interested any more.
        while signals.wait().is_ok() {
            let printing = thread::Builder::new().name("dump".to_string()).spawn(print);
            if let Err(error) = printing {
                let _ = writeln!(io::stderr(), "ringspun: no thread for a dump of the fibers: {error}");
            }
        }
    })?;
    Ok(DumpOnSignals(fiber))
}

fn print() {
    let text = dump_process(PATIENCE).to_string();
    // In one piece, so that what others print stands before or after it.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
