//! The live view of a run, as a terminal shows it.

use std::io::{self, Read};
use std::net::TcpStream;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::measuring::{error_text, load, tcp_server};
use crate::support::terminal::Session;

/// What a terminal that never scrolls shows after some output; what a view has no use for is refused.
#[derive(Default)]
struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    wraps: bool,
}

impl Screen {
    fn after(output: &str) -> Self {
        let mut screen = Self { wraps: true, ..Self::default() };
        let mut letters = output.chars();
        while let Some(letter) = letters.next() {
            match letter {
                '\r' => screen.column = 0,
                '\n' => screen.row += 1,
                '\x1b' => {
                    assert_eq!(letters.next(), Some('['), "{output:?}");
                    let mut parameter = String::new();
                    let end = letters.by_ref().find(|letter| {
                        parameter.push(*letter);
                        letter.is_ascii_alphabetic()
                    });
                    parameter.pop();
                    screen.control(&parameter, end.unwrap_or('?'));
                }
                _ => screen.put(letter),
            }
        }
        screen
    }

    fn put(&mut self, letter: char) {
        let rows = self.rows.len().max(self.row + 1);
        self.rows.resize(rows, Vec::new());
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = letter;
        self.column += 1;
    }

    fn control(&mut self, parameter: &str, end: char) {
        match (parameter, end) {
            ("", 'K') => self.rows.get_mut(self.row).into_iter().for_each(|row| row.truncate(self.column)),
            ("", 'J') => {
                self.rows.truncate(self.row + 1);
                self.control("", 'K');
            }
            ("?7", 'h' | 'l') => self.wraps = end == 'h',
            ("" | "31" | "33", 'm') => {}
            (count, 'A') => self.row -= count.parse::<usize>().unwrap(),
            other => panic!("the view has no use for {other:?}"),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_string()).collect()
    }
}

fn session(target: &str, arguments: &[&str], columns: u16, variables: &[(&str, &str)]) -> Option<Session> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringspun"));
    command.args(["load", target]).args(arguments).env("TERM", "xterm").env_remove("NO_COLOR");
    command.envs(variables.iter().copied());
    Session::start(command, columns)
}

fn interrupt(session: &Session) {
    kill(Pid::from_raw(session.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
}

fn echo(stream: &TcpStream) {
    let (mut from, mut to) = (stream, stream);
    // A client may go at any time.
    let _ = io::copy(&mut from, &mut to);
}

/// The end of a frame: the cursor returns to the first line.
const FRAME_END: &str = "A\r";

#[test]
fn a_run_is_shown_in_few_lines_which_its_results_replace() {
    let target = tcp_server(|stream, _| echo(&stream));
    for (columns, arguments, expected, lines_max) in [
        (80, &["-c", "4", "-d", "1h"][..], &["left", "/s", "4 of 4 connections", "0 errors", "p99 "][..], 5),
        (120, &["--steps", "50:1h,70:1h"], &["of 2:00:00", "step 1 of 2", "/s of 50/s", "max "], 5),
        (80, &["--repeat", "3", "-d", "1h", "-r", "9"], &["run 1 of 3", "of 1:00:00", "of 9/s"], 5),
        (80, &["--count", "1M", "-r", "100"], &["of 1,000,000", "left", "of 100/s"], 5),
        (40, &["-d", "1h", "-r", "1k"], &["1 of 1 connections", "p99.9", "max "], 8),
    ] {
        let Some(mut session) = session(&target, arguments, columns, &[]) else { return };
        let mut shown = session.shows("p50 ");
        shown += "p50 ";
        shown += &session.shows(FRAME_END);
        shown += FRAME_END;
        let screen = Screen::after(&shown);
        let lines = screen.lines();
        let text = lines.join("\n");
        assert!(expected.iter().all(|part| text.contains(part)), "expected {expected:?}:\n{text}");
        assert!(lines.len() <= lines_max, "{text}");
        assert!(lines.iter().all(|line| line.chars().count() < columns.into()), "{columns}:\n{text}");
        assert_eq!((screen.row, screen.column, screen.wraps), (0, 0, true), "{shown:?}");
        interrupt(&session);
        let (status, rest) = session.ends();
        assert_eq!(status.code(), Some(130), "{rest}");
        let end = Screen::after(&(shown + &rest));
        let lines = end.lines();
        assert!(
            lines.iter().all(|line| !line.contains('▕') && !line.contains("left")),
            "{}",
            lines.join("\n")
        );
        assert!(lines.iter().any(|line| line.starts_with("connections  ")), "{}", lines.join("\n"));
        assert!(end.wraps);
    }
}

#[test]
fn a_view_follows_the_width_of_its_terminal() {
    let target = tcp_server(|stream, _| echo(&stream));
    let Some(mut session) = session(&target, &["-d", "1h", "-r", "100"], 80, &[]) else { return };
    session.shows("p50 ");
    session.shows(FRAME_END);
    session.resize(40);
    // One that was being drawn may be as wide as before.
    session.shows(FRAME_END);
    let frame = session.shows(FRAME_END) + FRAME_END;
    let lines = Screen::after(&frame).lines();
    assert!(lines.len() > 5 && lines.iter().all(|line| line.chars().count() < 40), "{}", lines.join("\n"));
    interrupt(&session);
    session.ends();
}

#[test]
fn errors_are_red_unless_colors_are_unwanted() {
    // Closes without an answer.
    let target = tcp_server(|mut stream, _| drop(stream.read(&mut [0; 64])));
    for (variables, is_red) in [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("NO_COLOR", "")], true)] {
        let Some(mut session) = session(&target, &["-d", "1h"], 80, variables) else { return };
        let shown = session.shows(" errors");
        let number = shown.rfind("   ").map(|at| &shown[at + 3..]).unwrap_or_default();
        assert_eq!(number.starts_with("\x1b[31m"), is_red, "{variables:?}: {number:?}");
        interrupt(&session);
        session.ends();
    }
}

#[test]
fn plain_terminals_and_pipes_get_no_view() {
    let target = tcp_server(|stream, _| echo(&stream));
    for terminal in ["dumb", ""] {
        let variables = [("TERM", terminal)];
        let Some(session) = session(&target, &["-d", "2s", "-r", "100"], 80, &variables) else { return };
        let (status, shown) = session.ends();
        assert!(status.success() && !shown.contains('\x1b') && !shown.contains('▕'), "{shown}");
        assert!(shown.starts_with("tcp://"), "{shown}");
    }
    assert_eq!(error_text(&load(&[&target, "-d", "2s", "-r", "100"])), "");
}

#[test]
fn a_second_signal_leaves_the_cursor_behind_one_line() {
    // Answers nothing, so that the run waits for it.
    let target = tcp_server(|mut stream, _| while let Ok(1..) = stream.read(&mut [0; 64]) {});
    let Some(mut session) = session(&target, &["-d", "1h", "--timeout", "1h"], 80, &[]) else { return };
    let mut shown = session.shows("0 errors");
    interrupt(&session);
    shown += "0 errors";
    shown += &session.shows("at once ");
    shown += "at once ";
    interrupt(&session);
    let (status, rest) = session.ends();
    assert_eq!(status.code(), None, "{rest}");
    let screen = Screen::after(&(shown + &rest));
    assert_eq!(screen.lines(), ["stopping: waits for the last responses; Ctrl-C ends at once"]);
    assert_eq!((screen.row, screen.wraps), (0, true));
}
