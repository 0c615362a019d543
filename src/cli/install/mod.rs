//! `ringspun install`: a `janet` for other programs, with all that they expect of an installation of Janet.

mod files;

use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringspun::janet::c_api;
use serde_json::json;

use self::files::{Content, Staged, is_this_program};
use super::output;

/// What is installed. The program is the last to be put in place, and the first to be removed: where there is a
/// `janet`, there is what it needs.
const FILES: [(&str, Content); 6] = [
    ("include/janet/janet.h", Content::Bytes(c_api::HEADER)),
    ("include/janet.h", Content::Bytes(c_api::HEADER)),
    ("lib/libjanet.a", Content::Bytes(c_api::LIBRARY)),
    ("lib/pkgconfig/janet.pc", Content::Text(include_str!("janet.pc"))),
    ("share/man/man1/janet.1", Content::Text(include_str!("janet.1"))),
    (PROGRAM, Content::ThisProgram),
];
const PROGRAM: &str = "bin/janet";

/// The folder for modules.
const MODULES: &str = "lib/janet";
/// A folder that Janet makes in it.
const BUNDLES: &str = "lib/janet/bundle";
/// The folders that are removed once they are empty. The others are not Janet's alone.
const OWN_FOLDERS: [&str; 2] = ["include/janet", MODULES];

/// Options of `ringspun install`.
#[derive(Args)]
pub struct Install {
    /// The folder that gets bin/janet and what belongs to it
    #[arg(long, value_name = "DIR", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Remove what was installed there; installed modules stay
    #[arg(long)]
    uninstall: bool,
    /// Print as JSON what was done
    #[arg(long)]
    json: bool,
}

/// What was done with a file or folder.
struct Step {
    state: &'static str,
    path: PathBuf,
}

/// Installs, or removes what was installed, and prints what was done.
pub fn install(options: &Install) -> ExitCode {
    let mut steps = Vec::new();
    let done = path::absolute(&options.prefix)
        .map_err(|error| format!("--prefix {:?}: {error}", options.prefix))
        .and_then(|prefix| match options.uninstall {
            true => remove_from(&prefix, &mut steps),
            false => install_into(&prefix, &mut steps),
        });
    let text = if options.json { as_json(&steps) } else { as_text(&steps) };
    // Also what was done before an error.
    let printed = output::print(&text).map_err(|error| error.to_string());
    match done.and(printed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            output::complain(text);
            ExitCode::FAILURE
        }
    }
}

/// Writes all files beside their places first, so that an error there changes nothing.
fn install_into(prefix: &Path, steps: &mut Vec<Step>) -> Result<(), String> {
    let mut staged = Vec::new();
    for (path, content) in FILES {
        staged.push(Staged::write(prefix.join(path), &content)?);
    }
    let modules = prefix.join(MODULES);
    files::create_folder(&modules)?;
    steps.push(Step { state: "installed", path: modules });
    for file in staged {
        steps.push(Step { state: "installed", path: file.put_in_place()? });
    }
    Ok(())
}

fn remove_from(prefix: &Path, steps: &mut Vec<Step>) -> Result<(), String> {
    let program = prefix.join(PROGRAM);
    if program.symlink_metadata().is_ok() && !is_this_program(&program)? {
        return Err(format!("{} is not ringspun: nothing was removed", program.display()));
    }
    for (path, _) in FILES.iter().rev() {
        steps.push(remove(prefix.join(path), |path| fs::remove_file(path))?);
    }
    // Empty once all bundles are uninstalled.
    let _ = fs::remove_dir(prefix.join(BUNDLES));
    for path in OWN_FOLDERS {
        steps.push(remove(prefix.join(path), remove_folder)?);
    }
    Ok(())
}

/// Removes an empty folder. A link to one is the user's own.
fn remove_folder(path: &Path) -> io::Result<()> {
    if path.is_symlink() { Err(io::ErrorKind::DirectoryNotEmpty.into()) } else { fs::remove_dir(path) }
}

fn remove(path: PathBuf, remove: fn(&Path) -> io::Result<()>) -> Result<Step, String> {
    let state = match remove(&path) {
        Ok(()) => "removed",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "missing",
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => "kept",
        Err(error) => return Err(format!("cannot remove {}: {error}", path.display())),
    };
    Ok(Step { state, path })
}

fn as_text(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{:<9} {}\n", step.state, step.path.display())).collect()
}

/// One object. Fields may be added; incompatible changes increment `version`.
fn as_json(steps: &[Step]) -> String {
    let steps: Vec<_> = steps
        .iter()
        .map(|step| json!({ "state": step.state, "path": step.path.to_string_lossy() }))
        .collect();
    format!("{:#}\n", json!({ "version": 1, "steps": steps }))
}
