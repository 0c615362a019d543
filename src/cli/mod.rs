//! The command line: what can be asked for, and who answers.
//!
//! The exit status is 0 when what was asked for was done, 1 when it failed while running, and 2 when it
//! could not be understood. `load` adds 3, for a gate that breaks.

mod address;
mod choice;
mod doctor;
mod editor;
mod janet;
mod limits;
mod load;
mod output;
mod serve;
mod stop;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  ringspun janet server.janet           run a Janet program on Ringspun's network layer
  ringspun serve echo --tcp [::1]:7000  send back whatever comes in on a port
  ringspun load tcp://[::1]:7000        measure a server that does that
  ringspun doctor                       see what this machine allows, and how far it goes

Where Janet is expected, it is Janet: under the name `janet`, in whatever a Janet program starts, and when
the first argument is a flag of Janet's or a file:
  ringspun -e '(print (+ 1 2))'
  ringspun server.janet";

/// Massively concurrent servers on io_uring and stackful fibers.
#[derive(Parser)]
#[command(name = "ringspun", version, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Janet, with its network module on Ringspun's event loop
    ///
    /// Takes what the `janet` command takes: a script and its arguments, -e, a REPL without either. Sets
    /// RINGSPUN_COMMAND=janet for what it starts, which is then Janet without this word.
    #[command(disable_help_flag = true)]
    Janet {
        /// Janet's own options, a script, and the script's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a built-in server, until SIGINT or SIGTERM
    Serve {
        #[command(subcommand)]
        server: serve::Server,
    },
    /// Measure a server that echoes, or one of HTTP: its rate, its latencies, and its errors
    Load(Box<load::Load>),
    /// Tell whether Ringspun can run here, and what limits the number of connections
    ///
    /// The exit status is 0 if Ringspun can run here, and 1 if it cannot.
    Doctor {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command that the process was started with; `arguments` begin with the program's name.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let name = arguments.first().cloned().unwrap_or_default();
    let mut ours = CommandLine::command();
    ours.build();
    // Janet has flags of its own, and `--` means something to it: clap must not see them.
    let variable = std::env::var_os(choice::VARIABLE);
    if let Some(for_janet) = choice::for_janet(&arguments, variable.as_deref(), &ours) {
        return janet::janet(&name, for_janet);
    }
    match CommandLine::parse_from(&arguments).command {
        Command::Janet { arguments: for_janet } => janet::janet(&name, &for_janet),
        Command::Serve { server } => serve::serve(server),
        Command::Load(options) => load::load(*options),
        Command::Doctor { json } => doctor::doctor(json),
    }
}
