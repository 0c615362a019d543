//! `ringspun janet`: the Janet command line on Ringspun's network layer.

use std::ffi::OsString;
use std::process::ExitCode;

use super::output;

/// Runs Janet with the arguments that followed the word `janet`, untouched.
pub fn janet(_arguments: Vec<OsString>) -> ExitCode {
    output::complain("janet: not built yet");
    ExitCode::FAILURE
}
