//! `ringspun janet`: the Janet command line on Ringspun's network layer.

use std::ffi::OsString;
use std::process::ExitCode;

use nix::sys::signal::{SigHandler, Signal, signal};
use ringspun::janet::Vm;

use super::output;

/// Runs Janet with the arguments that followed the word `janet`, untouched.
pub fn janet(arguments: Vec<OsString>) -> ExitCode {
    match run(&arguments) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(text) => {
            output::complain(&text);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[OsString]) -> Result<i32, String> {
    // Rust programs ignore SIGPIPE, and would hand that on to Janet and to what it starts; a script in
    // a pipe whose reader has left is expected to end.
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.map_err(|error| format!("SIGPIPE: {error}"))?;
    let executable = std::env::current_exe().map_err(|error| format!("the path of this program: {error}"))?;
    let mut vm = Vm::new().map_err(|error| error.to_string())?;
    vm.command_line(executable.as_os_str(), arguments).map_err(|error| error.to_string())
}
