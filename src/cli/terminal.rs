//! Terminals: what they can do, how large they are, and lines that are redrawn in place.

use std::env;
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd};

/// Where the terminal does not say: columns and rows.
pub const SIZE: (usize, usize) = (80, 24);
/// Clears from the cursor to the end of the line, and to the end of the screen.
const CLEAR: [&str; 2] = ["\x1b[K", "\x1b[J"];
/// Without wrapping, and with it again: a terminal that has become narrower must not move lines down.
const WRAPPING: [&str; 2] = ["\x1b[?7l", "\x1b[?7h"];
/// The first cell of the screen.
const HOME: &str = "\x1b[H";
/// Between the parts of a line.
const GAP: &str = "   ";

/// Whether lines can be redrawn: on a terminal whose type says that it knows more than plain text.
pub fn can_redraw(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Whether text may have colors (no-color.org).
pub fn has_colors() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The columns and rows of a terminal.
pub fn size(terminal: &impl AsFd) -> (usize, usize) {
    // SAFETY: the kernel fills in the structure, which is valid as zeros.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let descriptor = terminal.as_fd().as_raw_fd();
        (libc::ioctl(descriptor, libc::TIOCGWINSZ, &raw mut size) == 0).then_some(size)
    };
    match size {
        Some(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => SIZE,
    }
}

/// A piece of a line that is not split, with its color.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    text: String,
    /// A parameter of SGR.
    color: Option<u8>,
}

impl Part {
    /// In the color of all text.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), color: None }
    }

    /// As a warning.
    pub fn yellow(text: impl Into<String>) -> Self {
        Self { text: text.into(), color: Some(33) }
    }

    /// As an error.
    pub fn red(text: impl Into<String>) -> Self {
        Self { text: text.into(), color: Some(31) }
    }

    fn columns(&self) -> usize {
        self.text.chars().count()
    }

    /// The first columns, as the terminal gets them.
    fn shown(&self, columns: usize, has_colors: bool) -> String {
        let text: String = self.text.chars().take(columns).collect();
        match self.color.filter(|_| has_colors) {
            Some(color) => format!("\x1b[{color}m{text}\x1b[m"),
            None => text,
        }
    }
}

/// The parts in as many lines as they need; one that is too long is cut.
pub fn flow(parts: &[Part], columns: usize, has_colors: bool) -> Vec<String> {
    let (mut lines, mut used) = (Vec::<String>::new(), 0);
    for part in parts {
        let shown = part.shown(columns, has_colors);
        match lines.last_mut() {
            Some(line) if used + GAP.len() + part.columns() <= columns => {
                *line += GAP;
                *line += &shown;
                used += GAP.len() + part.columns();
            }
            _ => {
                lines.push(shown);
                used = part.columns();
            }
        }
    }
    lines
}

/// Cuts a line without colors.
pub fn cut(line: &str, columns: usize) -> String {
    line.chars().take(columns).collect()
}

/// What replaces the text from the cursor's line on, and leaves the cursor where it was: at the beginning of the first
/// line, which is where it stays when the terminal is resized. Nothing is cleared before it is overwritten, so that
/// nothing flickers. Lines have to be shorter than the terminal is wide.
pub fn redraw(lines: &[String]) -> String {
    let up = match lines.len() {
        0 | 1 => String::new(),
        count => format!("\x1b[{}A", count - 1),
    };
    format!("{}{up}\r", over(lines))
}

/// What replaces the whole screen; the cursor is behind the last line.
pub fn redraw_screen(lines: &[String]) -> String {
    format!("{HOME}{}", over(lines))
}

/// What removes the lines that were drawn last.
pub fn clear() -> String {
    format!("\r{}", CLEAR[1])
}

fn over(lines: &[String]) -> String {
    let [line_end, screen_end] = CLEAR;
    let lines: Vec<String> = lines.iter().map(|line| format!("{line}{line_end}")).collect();
    format!("\r{}{}{screen_end}{}", WRAPPING[0], lines.join("\r\n"), WRAPPING[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_do_not_fit_are_in_the_next_line() {
        let parts = [Part::plain("12345"), Part::red("678"), Part::yellow("9")];
        assert_eq!(flow(&parts, 15, false), ["12345   678   9"]);
        assert_eq!(flow(&parts, 14, false), ["12345   678", "9"]);
        assert_eq!(flow(&parts, 4, false), ["1234", "678", "9"]);
        assert_eq!(flow(&parts, 11, true), ["12345   \x1b[31m678\x1b[m", "\x1b[33m9\x1b[m"]);
        assert!(flow(&[], 10, true).is_empty());
    }

    #[test]
    fn lines_are_overwritten_and_the_cursor_returns() {
        let lines = ["a".to_string(), "b".to_string()];
        assert_eq!(redraw(&lines), "\r\x1b[?7la\x1b[K\r\nb\x1b[K\x1b[J\x1b[?7h\x1b[1A\r");
        assert_eq!(redraw(&lines[..1]), "\r\x1b[?7la\x1b[K\x1b[J\x1b[?7h\r");
    }
}
