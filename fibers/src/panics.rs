//! Names the fiber that panics: the message of the standard library names only the thread.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::current::with_running;

/// Puts a hook before the one that is installed, once in the process. A hook that the program installs later replaces
/// both.
pub(crate) fn install_hook() {
    static IS_INSTALLED: AtomicBool = AtomicBool::new(false);
    // A thread that panics must not touch the hook: the next runtime tries again.
    if std::thread::panicking() || IS_INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        name_fiber();
        next(panic);
    }));
}

/// Prints which fiber runs. Nothing for the main fiber, whose thread's name says as much.
fn name_fiber() {
    let name = with_running(|fiber| {
        let (id, name) = fiber?.identity();
        (id > 0).then(|| name.map(|name| format!("fiber {id} '{name}':")).unwrap_or(format!("fiber {id}:")))
    });
    if let Some(name) = name {
        // Unlike `eprintln!`, does not panic where standard error is closed.
        let _ = writeln!(io::stderr(), "{name}");
    }
}
