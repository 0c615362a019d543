//! The REPL at a terminal: what a user types, and what the screen shows of it.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use crate::support::scratch::scratch_path;
use crate::support::terminal::Session;

const UP: &str = "\x1b[A";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_G: &str = "\x07";
const CTRL_Q: &str = "\x11";

/// None, and the reason is printed, where there are no terminals.
fn start(terminal: &str, history: Option<&Path>) -> Option<Session> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.args(["janet", "-q", "-n"]).env("TERM", terminal);
    command.env_remove("JANET_HISTFILE");
    command.envs(history.map(|path| ("JANET_HISTFILE", path)));
    command.env_remove("JANET_PROFILE");
    Session::start(command, 80)
}

#[test]
fn lines_are_edited_and_called_back() {
    let Some(mut session) = start("xterm", None) else { return };
    session.shows("repl:1:> ");
    session.answers("(+ 1 2)", "3", "repl:2:> ");
    session.answers(UP, "3", "repl:3:> ");
    // To the start of the line, and a character that belongs there.
    session.answers("+ 20 30)\x01(", "50", "repl:4:> ");
    session.answers(&format!("{UP}{UP}"), "3", "repl:5:> ");
    // Ctrl-D ends nothing as long as the line has something in it.
    session.answers(&format!("x:kept\x01{CTRL_D}"), ":kept", "repl:6:> ");
    session.types(CTRL_D);
    let (status, rest) = session.ends();
    assert!(status.success(), "{status}");
    assert!(!rest.contains("repl:"), "{rest:?}");
}

#[test]
fn symbols_are_completed_and_explained() {
    let Some(mut session) = start("xterm", None) else { return };
    session.shows("repl:1:> ");
    session.answers("(def unmistakable 42)", "42", "repl:2:> ");
    session.answers("(+ 1 unmist\t)", "43", "repl:3:> ");
    // From the core environment, whose table is a prototype of the session's.
    session.types("(string/tri\t");
    session.shows("(string/trim");
    session.types("\t");
    for symbol in ["string/trim ", "string/triml ", "string/trimr"] {
        session.shows(symbol);
    }
    session.answers("l ` x`)", "\"x\"", "repl:4:> ");
    session.types("(defn explained ``Does what it says.`` [] :explained)\r");
    session.shows("repl:5:> ");
    session.types(&format!("(explai\t{CTRL_G}"));
    session.shows("function");
    session.shows("Does what it says.");
    session.shows("(explained");
    session.answers(")", ":explained", "repl:6:> ");
    // What is no code has no symbols.
    session.types("(getline `name: `)\r");
    session.shows("name: ");
    session.answers("unmist\t.", "@\"unmist  .\\n\"", "repl:7:> ");
}

#[test]
fn a_form_takes_lines_until_it_is_whole_or_given_up() {
    let Some(mut session) = start("xterm", None) else { return };
    session.shows("repl:1:> ");
    session.types("(* 6\r");
    session.shows("repl:2:(> ");
    session.answers("7)", "42", "repl:3:> ");
    session.types("(print [1\r");
    session.shows("repl:4:([> ");
    session.types(&format!("2 3{CTRL_Q}"));
    session.shows("2 3\r\n");
    session.shows("repl:4:> ");
    session.answers("(+ 2 3)", "5", "repl:5:> ");
}

#[test]
fn what_is_typed_ahead_is_not_lost() {
    let Some(mut session) = start("xterm", None) else { return };
    session.shows("repl:1:> ");
    session.types("(print `one`)\r(print `two`)\r(print `three`)\r");
    for text in ["\r\none\r\n", "\r\ntwo\r\n", "\r\nthree\r\n", "repl:4:> "] {
        session.shows(text);
    }
    // A program finds the terminal as it was: it echoes, and has lines of its own.
    session.types("(do (print `ready`) (file/read stdin :line))\r");
    session.shows("\r\nready\r\n");
    session.answers("typed", "@\"typed\\n\"", "repl:5:> ");
}

#[test]
fn an_interrupt_is_a_signal() {
    let Some(mut session) = start("xterm", None) else { return };
    session.shows("repl:1:> ");
    session.types(&format!("(no form{CTRL_C}"));
    let (status, _) = session.ends();
    assert_eq!(status.signal(), Some(2), "{status}");
}

#[test]
fn a_program_that_handles_the_interrupt_goes_on() {
    let Some(mut session) = start("xterm", None) else { return };
    session.shows("repl:1:> ");
    session.types("(os/sigaction :int (fn [] (print `handled`)))\r");
    session.shows("repl:2:> ");
    session.types(&format!("(no form{CTRL_C}"));
    session.shows("(no form\r\n");
    // Handlers run when the loop turns.
    session.types("(do (ev/sleep 0) :after)\r");
    session.shows("\r\nhandled\r\n");
    session.shows(":after\r\n");
}

#[test]
fn lines_are_kept_for_the_next_session() {
    let path = scratch_path("history");
    let start = || {
        let mut session = start("xterm", Some(&path))?;
        session.shows("repl:1:> ");
        Some(session)
    };
    let Some(mut session) = start() else { return };
    session.answers("(+ 1 2)", "3", "repl:2:> ");
    // Once, and neither what is empty nor an answer to a program.
    session.answers("(+ 1 2)", "3", "repl:3:> ");
    session.types("\r");
    session.shows("repl:4:> ");
    session.types("(length (getline `secret: `))\r");
    session.shows("secret: ");
    session.answers("hidden", "7", "repl:5:> ");
    // Each is written when it is entered: the session may end in any way.
    session.types(&format!("(* 6 7){CTRL_C}"));
    assert_eq!(session.ends().0.signal(), Some(2));
    let kept = "(+ 1 2)\n(length (getline `secret: `))\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let Some(mut session) = start() else { return };
    session.answers(&format!("{UP}{UP}"), "3", "repl:2:> ");
    session.answers(&format!("{UP}{UP}{UP}"), "3", "repl:3:> ");
    session.types("(os/exit 0)\r");
    assert!(session.ends().0.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{kept}(+ 1 2)\n(os/exit 0)\n"));
}

#[test]
fn a_history_of_any_kind_does_no_harm() {
    let path = scratch_path("long_history");
    let lines = |numbers: Range<u32>| numbers.map(|number| format!("{number}\n")).collect::<String>();
    let mut bytes = lines(0..300).into_bytes();
    // The last line has no end, and is not UTF-8.
    bytes.extend(b":\xff");
    fs::write(&path, bytes).unwrap();
    let Some(mut session) = start("xterm", Some(&path)) else { return };
    session.shows("repl:1:> ");
    session.answers(&format!("{UP}{UP}"), "299", "repl:2:> ");
    // The first of the last hundred.
    session.answers("\x1b,", "202", "repl:3:> ");
    session.types(CTRL_D);
    assert!(session.ends().0.success());
    let left = [lines(201..300).as_bytes(), b":\xff\n299\n202\n"].concat();
    assert_eq!(fs::read(&path).unwrap(), left);

    let folder = scratch_path("history_folder");
    fs::create_dir_all(&folder).unwrap();
    // To read the second would never end.
    for (path, reason) in
        [(folder.as_path(), "Is a directory"), (Path::new("/dev/zero"), "expected a regular file")]
    {
        let Some(mut session) = start("xterm", Some(path)) else { return };
        let told = session.shows("repl:1:> ");
        assert!(told.contains("ringspun: JANET_HISTFILE=") && told.contains(reason), "{told:?}");
        session.answers("(+ 1 2)", "3", "repl:2:> ");
        session.answers(UP, "3", "repl:3:> ");
    }
}

#[test]
fn a_terminal_that_can_nothing_is_a_pipe() {
    for terminal in ["dumb", "emacs"] {
        let Some(mut session) = start(terminal, None) else { return };
        session.types("(+ 1 2)\n");
        // What the terminal echoes, and no prompt.
        assert_eq!(session.shows("(+ 1 2)\r\n3\r\n"), "");
        session.types(CTRL_D);
        let (status, rest) = session.ends();
        assert!(status.success() && rest.is_empty(), "{status} {rest:?}");
    }
}
