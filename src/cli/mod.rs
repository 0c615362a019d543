//! The command line interface.
//!
//! Exit status: 0 for success, 1 for a failure, 2 for an invalid command line. `load` adds 3 for a failed gate.

mod address;
mod choice;
mod doctor;
mod dumps;
mod echoes;
mod editor;
mod history;
mod inspection;
mod install;
mod janet;
mod limits;
mod load;
mod logging;
mod manual;
mod metrics;
mod output;
mod ps;
mod serve;
mod stalls;
mod terminal;
mod top;
mod unix_sockets;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  ringspun janet server.janet           run a Janet program on Ringspun's network layer
  ringspun serve echo --tcp [::1]:7000  run an echo server
  ringspun load tcp://[::1]:7000        measure it
  ringspun install --prefix ~/.local    install it as janet
  ringspun doctor                       check this machine's features and limits

The program acts as `janet` if it is installed under that name, in processes started by Janet programs, and
if the first argument is a flag of Janet or a file:
  ringspun -e '(print (+ 1 2))'
  ringspun server.janet

Environment variables:
  RINGSPUN_LOG=LEVEL         as --log; the default is warn
  RINGSPUN_BACKEND=BACKEND   uring or poll, in place of the best that is available
  RINGSPUN_SPIN=FOR          when to poll before sleeping: cpu (the default), latency or off
  RINGSPUN_SPIN_MAX_US=TIME  the longest that a wait polls, in microseconds
  RINGSPUN_STALL_MS=TIME     report fibers that block their loop for longer: serve, janet; off by default
  RINGSPUN_RECORD_WAITS=1    show in dumps since when each fiber waits
  RINGSPUN_NET=stock         run Janet programs on the VM's own network code
  RINGSPUN_COMMAND=janet     act as janet; set for processes that Janet programs start

`ringspun ps PID` prints what each fiber of a running serve, load or janet waits for; on SIGQUIT, it does so itself.";

/// This program's version, and that of the VM in it.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (Janet {})", env!("CARGO_PKG_VERSION"), ringspun::janet::vm_version()));

/// Massively concurrent servers on io_uring and stackful fibers.
#[derive(Parser)]
#[command(name = "ringspun", version = VERSION.as_str(), after_help = EXAMPLES)]
struct CommandLine {
    /// What is logged to standard error: a level from off to trace, json for lines of JSON, or both: --log info,json
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<logging::Log>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run Janet with its network module on Ringspun's event loop
    ///
    /// Takes the arguments of the `janet` command: a script and its arguments, or -e; without any, it starts a
    /// REPL. Sets RINGSPUN_COMMAND=janet for child processes, which then act as Janet without this subcommand.
    #[command(disable_help_flag = true)]
    Janet {
        /// Options of Janet, a script, and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run a built-in server until SIGINT or SIGTERM
    Serve {
        #[command(subcommand)]
        server: serve::Server,
    },
    /// Measure a server: throughput, latencies, and errors
    Load(Box<load::Load>),
    /// Install a Janet that programs, tools and native modules find where they expect one
    ///
    /// Puts in place DIR/bin/janet, headers, libjanet.a, janet.pc, a manual page and DIR/lib/janet for modules, and
    /// prints what is where. Replaces what is there.
    Install(install::Install),
    /// Check whether Ringspun can run here, and what limits the number of connections
    ///
    /// The exit status is 0 if Ringspun can run here, and on the backend of --require, otherwise 1.
    Doctor {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        /// Fail if programs do not get this backend here
        #[arg(long, value_name = "BACKEND")]
        require: Option<doctor::Required>,
    },
    /// Print what each fiber of a running process waits for, with its stack
    Ps(ps::Ps),
    /// Show the counts of a running process live: connections, fibers, loops
    Top(top::Top),
    /// Write manual pages of all commands
    Man(manual::Man),
    /// Print completions for a shell
    #[command(after_help = "\
Examples:
  ringspun completions bash > ~/.local/share/bash-completion/completions/ringspun
  ringspun completions fish > ~/.config/fish/completions/ringspun.fish")]
    Completions(manual::Completions),
}

/// Runs the command line; `arguments` start with the program name.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let name = arguments.first().cloned().unwrap_or_default();
    let mut ours = CommandLine::command();
    ours.build();
    // Janet's flags, and its own meaning of `--`, must not get to clap.
    let variable = std::env::var_os(choice::VARIABLE);
    if let Some(for_janet) = choice::for_janet(&arguments, variable.as_deref(), &ours) {
        logging::start(None);
        return janet::janet(&name, for_janet);
    }
    let command_line = match CommandLine::try_parse_from(&arguments) {
        Ok(command_line) => command_line,
        Err(error) => return output::explain(&error),
    };
    logging::start(command_line.log);
    match command_line.command {
        Command::Janet { arguments: for_janet } => janet::janet(&name, &for_janet),
        Command::Serve { server } => serve::serve(server),
        Command::Load(options) => load::load(*options),
        Command::Install(options) => install::install(&options),
        Command::Doctor { json, require } => doctor::doctor(json, require),
        Command::Ps(options) => ps::ps(&options),
        Command::Top(options) => top::top(&options),
        Command::Man(options) => manual::man(&options, CommandLine::command()),
        Command::Completions(options) => manual::completions(&options, CommandLine::command()),
    }
}
