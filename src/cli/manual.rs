//! `ringspun man` and `ringspun completions`: manual pages and completions of shells, from the definition of the
//! command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output;

/// Options of `ringspun man`.
#[derive(Args)]
pub struct Man {
    /// The folder that gets ringspun.1 and a page for each subcommand
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Options of `ringspun completions`.
#[derive(Args)]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Writes the manual pages.
pub fn man(options: &Man, command: Command) -> ExitCode {
    let written = fs::create_dir_all(&options.folder).and_then(|()| write_pages(&options.folder, command));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("{}: {error}", options.folder.display()));
            ExitCode::FAILURE
        }
    }
}

/// A page for the command, and for each one below it that has options of its own.
fn write_pages(folder: &Path, mut command: Command) -> io::Result<()> {
    // Names as in `ringspun serve echo`.
    command.build();
    let mut left = vec![command];
    while let Some(command) = left.pop() {
        left.extend(command.get_subcommands().filter(|command| command.get_name() != "help").cloned());
        let name = command.get_display_name().unwrap_or(command.get_name()).to_string();
        let mut page = Vec::new();
        clap_mangen::Man::new(command).title(name.to_uppercase()).render(&mut page)?;
        fs::write(folder.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// Prints the completions.
pub fn completions(options: &Completions, mut command: Command) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "ringspun", &mut script);
    match output::print(&String::from_utf8_lossy(&script)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}
