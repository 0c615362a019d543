//! SIGQUIT prints what the fibers of the process wait for.

use ringspun::fibers::{DumpOnSignals, Signal, Signals, dump_on_signals};

use super::output;

/// SIGQUIT, which no longer ends the process.
pub struct Quit(Option<Signals>);

impl Quit {
    /// Begins to handle the signal, which is answered once there is a fiber for it.
    pub fn take() -> Self {
        Self(Signals::new(&[Signal::QUIT]).inspect_err(complain).ok())
    }

    /// Prints dumps from now on, and until the result is dropped. To be called in a fiber.
    pub fn dump(self) -> Option<DumpOnSignals> {
        dump_on_signals(self.0?).inspect_err(complain).ok()
    }
}

fn complain(error: &std::io::Error) {
    output::complain(format_args!("SIGQUIT prints no fibers: {error}"));
}
