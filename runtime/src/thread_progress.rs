//! Whether a thread that does not come forward stalls, or gets no processor.

use std::time::Duration;

/// How far a thread of this process has come, as the kernel's scheduler counts (`/proc/self/task/TID/schedstat`, see
/// `proc(5)`), for those that watch it from another thread.
///
/// ```
/// use std::time::Duration;
///
/// use ringspun_runtime::ThreadProgress;
///
/// // This thread has not waited for a processor since a moment ago, for an hour.
/// # #[cfg(target_os = "linux")]
/// let thread = unsafe { libc::gettid() };
/// # #[cfg(not(target_os = "linux"))]
/// # let thread = 0;
/// assert!(!ThreadProgress::of(thread).is_starved(Duration::ZERO));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ThreadProgress {
    thread: i32,
    /// `None` if it is not known.
    ran_for: Option<Duration>,
}

impl ThreadProgress {
    /// That of the thread with this number (`gettid(2)`), now.
    pub fn of(thread: i32) -> Self {
        Self { thread, ran_for: ran_for(thread) }
    }

    /// Whether the thread is ready to run, and has run for less than half of `time`, which has passed since: others
    /// have the processors. False if nothing is known of it, as on systems other than Linux.
    pub fn is_starved(&self, time: Duration) -> bool {
        let ran_since = ran_for(self.thread).zip(self.ran_for).map(|(now, then)| now.saturating_sub(then));
        ran_since.is_some_and(|ran| ran < time / 2) && is_ready(self.thread)
    }
}

#[cfg(target_os = "linux")]
fn ran_for(thread: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Whether it runs or waits for a processor, and not for anything else.
#[cfg(target_os = "linux")]
fn is_ready(thread: i32) -> bool {
    // The number, the name in parentheses, which may have any characters, and the state.
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
}

#[cfg(not(target_os = "linux"))]
fn ran_for(_: i32) -> Option<Duration> {
    None
}

#[cfg(not(target_os = "linux"))]
fn is_ready(_: i32) -> bool {
    false
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn own() -> i32 {
        // SAFETY: no preconditions.
        unsafe { libc::gettid() }
    }

    #[test]
    fn a_thread_that_waits_for_something_else_is_not_starved() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let waiting = thread::spawn(move || {
            tell.send(own()).unwrap();
            let _ = ended.recv();
        });
        let waiting_number = told.recv().unwrap();
        while is_ready(waiting_number) {
            thread::yield_now();
        }
        assert!(!ThreadProgress::of(waiting_number).is_starved(Duration::from_secs(3600)));
        drop(end);
        waiting.join().unwrap();
        // The kernel wakes those that wait for its end while it still runs.
        while std::fs::exists(format!("/proc/self/task/{waiting_number}")).unwrap() {
            thread::yield_now();
        }
        assert!(!ThreadProgress::of(waiting_number).is_starved(Duration::from_secs(3600)), "it has ended");
    }

    #[test]
    fn a_thread_that_runs_for_less_than_half_of_the_time_is_starved() {
        let progress = ThreadProgress::of(own());
        // It has not run for half an hour since.
        assert!(progress.is_starved(Duration::from_secs(3600)));
        // Whatever it has run for, it is more than nothing.
        assert!(!progress.is_starved(Duration::ZERO));
    }
}
