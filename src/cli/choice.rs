//! Decides whether a command line is for Janet or for a subcommand of ours.
//!
//! Janet programs run `(dyn *executable*)` with the arguments of `janet`, without a subcommand, so that the
//! decision has to follow from the other arguments and the environment.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;

/// This environment variable is [`JANET`] in processes that Janet programs start.
pub const VARIABLE: &str = "RINGSPUN_COMMAND";
/// The value of [`VARIABLE`], the subcommand, and the program name under which we act as Janet.
pub const JANET: &str = "janet";

/// Returns Janet's arguments, if the command line is for Janet. `arguments` start with the program name, and
/// `variable` is the value of [`VARIABLE`]. The first rule that applies decides:
///
/// 1. If the program name is `janet`, all arguments are for Janet.
/// 2. If the first argument is a subcommand, it is ours; after `janet`, the rest is for Janet.
/// 3. If `variable` says that a Janet program started this process, it is Janet, also without arguments.
/// 4. If the first argument is a flag unknown to us, or names a file, it is Janet. This covers processes that a
///    Janet program started with a different environment.
/// 5. Anything else is ours.
pub fn for_janet<'a>(
    arguments: &'a [OsString],
    variable: Option<&OsStr>,
    ours: &Command,
) -> Option<&'a [OsString]> {
    let (name, rest) = arguments.split_first()?;
    if Path::new(name).file_name() == Some(OsStr::new(JANET)) {
        return Some(rest);
    }
    let started_by_janet = variable == Some(OsStr::new(JANET));
    let Some(first) = rest.first() else { return started_by_janet.then_some(rest) };
    if first == JANET {
        return Some(&rest[1..]);
    }
    if ours.find_subcommand(first).is_some() {
        return None;
    }
    let is_janets = started_by_janet || is_unknown_flag(first, ours) || names_file(first);
    is_janets.then_some(rest)
}

fn is_unknown_flag(argument: &OsStr, ours: &Command) -> bool {
    // All our flags are valid Unicode.
    let text = argument.to_string_lossy();
    let is_ours = |flag: &clap::Arg| match text.strip_prefix("--") {
        // Its value may follow: --log=info.
        Some(long) => flag.get_long() == long.split('=').next(),
        None => flag.get_short().is_some_and(|short| text == format!("-{short}")),
    };
    text.starts_with('-') && !ours.get_arguments().any(is_ours)
}

/// Whether the argument names something readable, such as a file or a pipe.
fn names_file(argument: &OsStr) -> bool {
    Path::new(argument).metadata().is_ok_and(|metadata| !metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use std::ffi::{OsStr, OsString};

    use clap::CommandFactory;

    use super::super::CommandLine;
    use super::for_janet;

    /// Janet's arguments of a command line.
    fn choose(arguments: &[&str], variable: Option<&str>) -> Option<Vec<String>> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let mut ours = CommandLine::command();
        ours.build();
        let chosen = for_janet(&arguments, variable.map(OsStr::new), &ours)?;
        Some(chosen.iter().map(|argument| argument.to_str().unwrap().to_string()).collect())
    }

    fn is_ours(arguments: &[&str], variable: Option<&str>) {
        assert_eq!(choose(arguments, variable), None, "{arguments:?} {variable:?}");
    }

    /// The last `count` arguments are for Janet.
    fn is_janets(arguments: &[&str], variable: Option<&str>, count: usize) {
        let expected = arguments[arguments.len() - count..].iter().map(ToString::to_string).collect();
        assert_eq!(choose(arguments, variable), Some(expected), "{arguments:?} {variable:?}");
    }

    const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");

    #[test]
    fn a_program_called_janet_is_janet() {
        is_janets(&["janet"], None, 0);
        is_janets(&["/some/bin/janet", "janet", "doctor"], None, 2);
        is_janets(&["./janet", "-h"], None, 1);
        is_ours(&["/janet/ringspun"], None);
        is_ours(&["janet.old", "doctor"], None);
    }

    #[test]
    fn subcommands_come_before_what_is_guessed() {
        for variable in [None, Some("janet")] {
            is_ours(&["ringspun", "doctor", "--json"], variable);
            is_ours(&["ringspun", "serve"], variable);
            is_ours(&["ringspun", "install", "--uninstall"], variable);
            is_ours(&["ringspun", "help"], variable);
            is_janets(&["ringspun", "janet", "doctor", "--"], variable, 2);
        }
    }

    #[test]
    fn what_janet_started_is_janet() {
        is_janets(&["ringspun"], Some("janet"), 0);
        is_janets(&["ringspun", "-h"], Some("janet"), 1);
        is_janets(&["ringspun", "--version"], Some("janet"), 1);
        is_janets(&["ringspun", "no-such-file", "doctor"], Some("janet"), 2);
        is_ours(&["ringspun"], Some("something else"));
        is_ours(&["ringspun"], None);
    }

    #[test]
    fn flags_that_are_not_ours_and_files_are_janets() {
        for flag in ["-e", "-", "--", "--eval", "-v", "-he", "---help", "-\u{e9}"] {
            is_janets(&["ringspun", flag, "(print 1)"], None, 2);
        }
        is_janets(&["ringspun", MANIFEST, "-h"], None, 2);
        for flag in ["-h", "--help", "-V", "--version", "--log=info"] {
            is_ours(&["ringspun", flag], None);
        }
        is_ours(&["ringspun", env!("CARGO_MANIFEST_DIR")], None);
        is_ours(&["ringspun", "no-such-file"], None);
        is_ours(&["ringspun", ""], None);
    }
}
