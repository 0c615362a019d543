//! `ringspun janet`: the Janet command line on Ringspun's network layer.

use std::ffi::{OsStr, OsString};
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;
use std::{env, io};

use nix::sys::signal::{SigHandler, Signal, signal};
use ringspun::janet::{Net, StallWatch, Vm};

use super::choice::{JANET, VARIABLE};
use super::editor::Terminal;
use super::{inspection, output, stalls};

/// SIGQUIT has the fibers of the VM told on standard error, instead of the process ended. The module is loaded then.
const DUMP_ON_QUIT: &str =
    r#"(os/sigaction :quit (fn dump [] ((get-in (require "ringspun/dump") ['write :value]))))"#;

/// Runs Janet with the arguments that are its own, untouched; `name` is what this program was called as.
pub fn janet(name: &OsStr, arguments: &[OsString]) -> ExitCode {
    match run(name, arguments) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
        Err(text) => {
            output::complain(&text);
            ExitCode::FAILURE
        }
    }
}

fn run(name: &OsStr, arguments: &[OsString]) -> Result<i32, String> {
    // Rust programs ignore SIGPIPE, and would hand that on to Janet and to what it starts; a script in
    // a pipe whose reader has left is expected to end. They survive the first SIGSEGV and SIGBUS that others send.
    for default in [Signal::SIGPIPE, Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the default action runs no code of ours.
        unsafe { signal(default, SigHandler::SigDfl) }.map_err(|error| format!("{default}: {error}"))?;
    }
    let executable = executable(name).map_err(|error| format!("the path of this program: {error}"))?;
    let net = Net::from_environment().map_err(|error| error.to_string())?;
    let mut vm = Vm::with_net(net).map_err(|error| error.to_string())?;
    let prepare = format!("(os/setenv {VARIABLE:?} {JANET:?})");
    vm.run_string(&prepare).map_err(|error| error.to_string())?;
    vm.run_string(DUMP_ON_QUIT).map_err(|error| error.to_string())?;
    // Stock is for comparison, and another thread would slow the C library's system calls down.
    if net == Net::Ring {
        inspection::start().set_vm(vm.inquirer());
    }
    let watch = stalls::limit()?.map(|limit| StallWatch::start(limit, |_| {}));
    let _watch = watch.transpose().map_err(|error| format!("stalls cannot be told of: {error}"))?;
    vm.set_line_editor(Terminal::new().map_err(|error| format!("the line editor: {error}"))?);
    vm.command_line(executable.as_os_str(), arguments).map_err(|error| error.to_string())
}

/// What Janet programs see as `(dyn *executable*)`: the path by which this program was called, and not
/// the one that a link called `janet` points to, because by that name it is Janet.
fn executable(name: &OsStr) -> io::Result<PathBuf> {
    let name = Path::new(name);
    if name.components().count() > 1 {
        return path::absolute(name);
    }
    let executable = env::current_exe()?;
    let folders = env::var_os("PATH").unwrap_or_default();
    let called = env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.canonicalize().is_ok_and(|path| path == executable));
    Ok(called.unwrap_or(executable))
}
