//! What `ringspun ps` and `ringspun top` ask a running process: the process's side.
//!
//! A thread of its own listens on an abstract Unix socket whose name has the number of the process. No signal is sent:
//! a process that does not answer is not disturbed. Only its own user and root get an answer.

pub mod client;
mod dump;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::geteuid;
use ringspun::fibers::dump_process;
use ringspun::janet::Inquirer;

use self::dump::OfVm;
use super::metrics::{self, Source};

/// How long a process has for its answer. One with a million fibers takes some seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The same for counts, which are of the moment.
const COUNTS_PATIENCE: Duration = Duration::from_secs(1);
/// How long a client has to send its question, and to take the answer.
const CLIENT_MAX: Duration = Duration::from_secs(5);
const QUESTION_MAX_BYTES: u64 = 64;
/// The length of an answer is in its first line, with so many digits.
const LENGTH_DIGITS: usize = 20;

/// What a process is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// What its fibers wait for, as text.
    Dump,
    /// The same as JSON.
    JsonDump,
    /// Its counts, as `serve --metrics` has them.
    Metrics,
}

impl Question {
    const ALL: [Self; 3] = [Self::Dump, Self::JsonDump, Self::Metrics];

    fn word(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::JsonDump => "dump-json",
            Self::Metrics => "metrics",
        }
    }
}

/// Who answers besides the runtimes of the process.
#[derive(Clone, Default)]
pub struct Sources(Arc<Mutex<Answerers>>);

#[derive(Clone, Default)]
struct Answerers {
    counts: Option<Source>,
    vm: Option<Inquirer>,
}

impl Sources {
    /// Adds counts of the process's own.
    pub fn set_counts(&self, counts: Source) {
        self.lock().counts = Some(counts);
    }

    /// Adds the VM of the main thread.
    pub fn set_vm(&self, vm: Inquirer) {
        self.lock().vm = Some(vm);
    }

    fn lock(&self) -> MutexGuard<'_, Answerers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, question: Question) -> String {
        // Not locked while others answer, as they may be about to set their own.
        let Answerers { counts, vm } = self.lock().clone();
        let of_vm = || vm.as_ref().map(dump_of);
        match question {
            Question::Dump => dump::text(vm.is_none().then(|| dump_process(PATIENCE)), of_vm()),
            Question::JsonDump => dump::json(&dump_process(PATIENCE), of_vm()),
            Question::Metrics => {
                let mut metrics = ringspun::metrics();
                if let Some(counts) = counts {
                    counts.add_to(&mut metrics);
                }
                if let Some(vm) = vm.and_then(|vm| vm.statistics(COUNTS_PATIENCE)) {
                    metrics::add_vm(&mut metrics, &vm);
                }
                metrics.to_string()
            }
        }
    }
}

fn dump_of(vm: &Inquirer) -> OfVm {
    vm.dump(PATIENCE).map_or_else(|| OfVm::Silent(vm.running()), OfVm::Dump)
}

/// Where a process listens. Other systems have no names outside of the file system, which end with their process.
#[cfg(target_os = "linux")]
fn address_of(process: u32) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(format!("ringspun-inspection-{process}"))
}

#[cfg(not(target_os = "linux"))]
fn address_of(_: u32) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Who is at the other end: the numbers of the process and of the user (`SO_PEERCRED` in `unix(7)`).
#[cfg(target_os = "linux")]
fn peer_of(stream: &UnixStream) -> io::Result<(i32, u32)> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let credentials = getsockopt(stream, PeerCredentials)?;
    Ok((credentials.pid(), credentials.uid()))
}

#[cfg(not(target_os = "linux"))]
fn peer_of(_: &UnixStream) -> io::Result<(i32, u32)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Answers until the process ends. Without it, the process does all the same what it is for.
pub fn start() -> Sources {
    let sources = Sources::default();
    if let Err(error) = listen(sources.clone()) {
        tracing::info!(%error, "ringspun ps and ringspun top cannot look into this process");
    }
    sources
}

fn listen(sources: Sources) -> io::Result<()> {
    let listener = UnixListener::bind_addr(&address_of(std::process::id())?)?;
    // Signals are for the threads of the program, from this one's beginning on.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = thread::Builder::new().name("inspection".to_string()).spawn(move || {
        loop {
            let served = listener.accept().and_then(|(client, _)| serve(client, &sources));
            if let Err(error) = served {
                tracing::debug!(%error, "a question of ringspun ps or ringspun top was not answered");
                // Descriptors may have run out.
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    mask.thread_set_mask()?;
    started.map(drop)
}

fn serve(client: UnixStream, sources: &Sources) -> io::Result<()> {
    let (_, user) = peer_of(&client)?;
    // Of this process's user, or root.
    if user != 0 && user != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user has asked"));
    }
    client.set_read_timeout(Some(CLIENT_MAX))?;
    client.set_write_timeout(Some(CLIENT_MAX))?;
    let mut word = String::new();
    BufReader::new((&client).take(QUESTION_MAX_BYTES)).read_line(&mut word)?;
    let question = Question::ALL.into_iter().find(|question| question.word() == word.trim_end());
    let question = question.ok_or_else(|| io::Error::other(format!("{word:?} is no question")))?;
    let text = sources.answer(question);
    (&client).write_all(format!("{:0LENGTH_DIGITS$}\n{text}", text.len()).as_bytes())
}
