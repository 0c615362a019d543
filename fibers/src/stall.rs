//! A fiber that does not let others run, with its stack while it runs.

use std::fmt;

#[cfg(target_os = "linux")]
use crate::sample::Sample;

/// What keeps a worker from turning its loop: see [`WorkerEvent::Stalled`](crate::WorkerEvent::Stalled). Printed, it
/// has the stack.
#[derive(Clone)]
pub struct StalledFiber {
    id: u64,
    name: Option<Box<str>>,
    addresses: Box<[usize]>,
}

impl StalledFiber {
    /// The fiber that the thread runs now; `None` if it runs none, or has not answered.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_thread(thread: i32) -> Option<Self> {
        let sample: Sample = crate::sample::take(thread)?;
        Some(Self { id: sample.fiber, name: sample.name(), addresses: sample.addresses().into() })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of_thread(_: i32) -> Option<Self> {
        None
    }

    /// The fiber's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The fiber's name, if it has one; of a long name, the first 64 bytes.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The functions on its stack, the innermost first, each with its place in the source if it is known. They are
    /// looked up now: for a program with debug information, that takes a second the first time. Without symbols, they
    /// are addresses.
    pub fn stack(&self) -> Vec<String> {
        names::of(&self.addresses)
    }
}

impl fmt::Display for StalledFiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fiber {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " '{name}'")?;
        }
        self.stack().iter().try_for_each(|frame| write!(f, "\n        {frame}"))
    }
}

impl fmt::Debug for StalledFiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fiber {} {:?}", self.id, self.name)
    }
}

#[cfg(target_os = "linux")]
mod names {
    use backtrace::{Symbol, resolve};

    use crate::frames::is_above;

    /// By which a signal enters the stack.
    const SIGNAL_FRAME: &str = "__restore_rt";

    pub(super) fn of(addresses: &[usize]) -> Vec<String> {
        let mut frames = Vec::new();
        for (index, &address) in addresses.iter().enumerate() {
            // A return address may be that of the next function.
            let at = address.saturating_sub(usize::from(index > 0));
            let before = frames.len();
            // A function that others are inlined into comes after them.
            resolve(at as *mut _, |symbol| frames.extend(described(symbol)));
            if frames.len() == before {
                frames.push(format!("{address:#x}"));
            }
            frames.retain(|frame| frame != SIGNAL_FRAME);
        }
        let end = frames.iter().position(|frame| frame.contains(crate::frames::END_OF_STACK));
        frames.truncate(end.unwrap_or(frames.len()));
        while frames.last().is_some_and(|frame| is_above(frame)) {
            frames.pop();
        }
        frames
    }

    fn described(symbol: &Symbol) -> Option<String> {
        // Without the hash.
        let function = format!("{:#}", symbol.name()?);
        let Some((file, line)) = symbol.filename().zip(symbol.lineno()) else { return Some(function) };
        let folder = std::env::current_dir().unwrap_or_default();
        Some(match file.strip_prefix(&folder) {
            Ok(own) => format!("{function} at ./{}:{line}", own.display()),
            Err(_) => format!("{function} at {}:{line}", file.display()),
        })
    }
}

#[cfg(not(target_os = "linux"))]
mod names {
    pub(super) fn of(_: &[usize]) -> Vec<String> {
        Vec::new()
    }
}
