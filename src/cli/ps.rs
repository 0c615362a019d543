//! `ringspun ps`: what the fibers of a running process wait for.

use std::process::ExitCode;

use clap::Args;

use super::inspection::{Question, client};
use super::load::whole::whole;
use super::output;

/// The process to ask.
#[derive(Args)]
#[command(after_help = "\
Examples:
  ringspun ps 4242
  ringspun ps 4242 --json | jq '.threads[].fibers[] | select(.operation == \"read from\")'

Asks a ringspun serve, load or janet of this user, or of any user if root asks. The process goes on, and no
signal is sent: any other process is not disturbed.

With RINGSPUN_RECORD_WAITS=1 in the environment of the process, it also shows since when each fiber waits.")]
pub struct Ps {
    /// The number of the process
    #[arg(value_name = "PID", value_parser = whole(1..=u32::MAX))]
    process: u32,
    /// Print the fibers as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the dump of a process.
pub fn ps(options: &Ps) -> ExitCode {
    let question = if options.json { Question::JsonDump } else { Question::Dump };
    let printed = client::ask(options.process, question)
        .and_then(|text| output::print(&text).map_err(|error| error.to_string()));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}
