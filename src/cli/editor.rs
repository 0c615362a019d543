//! The line editor of `ringspun janet`, with the keys of the `janet` program.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringspun::janet::{Environment, Line, LineEditor};
use rustyline::completion::Completer;
use rustyline::config::{BellStyle, Configurer};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler,
    Helper, KeyEvent, RepeatCount,
};

use super::history::History;

/// How many lines can be called back, and are kept; as many as in the `janet` program.
const HISTORY_LINES: usize = 100;

/// How far to the right documentation is shown.
const INDENT: &str = "    ";

/// The widest that documentation is shown, in columns, and where the terminal does not tell its width.
const WIDEST_COLUMNS: usize = 200;
const USUAL_COLUMNS: usize = 80;

/// A terminal, its history of lines, and the keys of its user.
pub struct Terminal {
    editor: Editor<Symbols, MemHistory>,
    request: Request,
    /// What is kept for later sessions; loaded with the first line.
    history: Option<History>,
}

impl Terminal {
    /// An editor, whose history is not loaded yet.
    ///
    /// # Errors
    ///
    /// If the keys or the history cannot be set up.
    pub fn new() -> Result<Self, ReadlineError> {
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)?
            .history_ignore_dups(true)?
            .completion_type(CompletionType::List)
            .completion_show_all_if_ambiguous(true)
            .completion_prompt_limit(usize::MAX)
            .bell_style(BellStyle::None)
            // What is pasted runs line by line, as in the `janet` program.
            .bracketed_paste(false)
            .build();
        let request = Request::default();
        let mut editor = Editor::with_history(config.clone(), MemHistory::with_config(&config))?;
        // Each change of the screen is one write as it is.
        editor.enable_synchronized_output(false);
        let ask = |what| EventHandler::Conditional(Box::new(Key { what, request: request.clone() }));
        editor.bind_sequence(KeyEvent::ctrl('Q'), ask(Wish::Cancel));
        editor.bind_sequence(KeyEvent::ctrl('G'), ask(Wish::Documentation));
        editor.bind_sequence(KeyEvent::alt(','), Cmd::BeginningOfHistory);
        editor.bind_sequence(KeyEvent::alt('.'), Cmd::EndOfHistory);
        Ok(Self { editor, request, history: None })
    }

    fn load_history(&mut self) -> History {
        let (history, lines) = History::load(HISTORY_LINES);
        for line in lines {
            self.remember(&line);
        }
        history
    }

    /// Whether the line is new in the history.
    fn remember(&mut self, line: &str) -> bool {
        // A history that cannot take the line is no reason to lose it.
        self.editor.add_history_entry(line).unwrap_or(false)
    }

    /// Shows what the symbol at `position` of `line` is, and how it is documented.
    fn document(&mut self, line: &str, position: usize, environment: Option<&Environment<'_>>) {
        let symbol = &line[symbol_start(line, position)..symbol_end(line, position)];
        let Some(text) = environment.and_then(|environment| environment.documentation(symbol)) else {
            return;
        };
        let columns = self.editor.dimensions().map_or(USUAL_COLUMNS, |(columns, _)| usize::from(columns));
        let width = columns.min(WIDEST_COLUMNS).saturating_sub(2 * INDENT.len());
        eprintln!("\n{}\n", text.lines().map(|line| wrapped(line, width)).collect::<Vec<_>>().join("\n"));
    }

    /// Lets the user edit a line, as often as it takes.
    fn edit_line(&mut self, prompt: &str, environment: Option<&Environment<'_>>) -> io::Result<Line> {
        self.editor.set_helper(Some(Symbols(environment.map(Environment::symbols))));
        let mut start = (String::new(), String::new());
        loop {
            let read = self.editor.readline_with_initial(prompt, (&start.0, &start.1));
            match (read, self.request.take()) {
                (Ok(line), Some((Wish::Documentation, position))) => {
                    let position = if line.is_char_boundary(position) { position } else { line.len() };
                    self.document(&line, position, environment);
                    let (left, right) = line.split_at(position);
                    start = (left.to_string(), right.to_string());
                }
                (Ok(line), _) => return Ok(Line::Text(line)),
                (Err(ReadlineError::Eof), _) => return Ok(Line::End),
                (Err(ReadlineError::Interrupted), request) => {
                    if request.is_none() {
                        // Without a handler of the program's own, this is the end of it.
                        kill(Pid::this(), Signal::SIGINT)?;
                    }
                    return Ok(Line::Cancelled);
                }
                (Err(error), _) => return Err(io::Error::other(error)),
            }
        }
    }
}

impl LineEditor for Terminal {
    fn edit(&mut self, prompt: &str, environment: Option<&Environment<'_>>) -> io::Result<Line> {
        let mut history = self.history.take().unwrap_or_else(|| self.load_history());
        let line = self.edit_line(prompt, environment);
        if let Ok(Line::Text(line)) = &line
            && self.remember(line)
            // Answers to a program's questions are not for others to read.
            && environment.is_some()
        {
            history.keep(line);
        }
        self.history = Some(history);
        line
    }
}

/// What a key asks for beyond editing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wish {
    /// To give up the form.
    Cancel,
    /// To see the documentation of the symbol at the cursor.
    Documentation,
}

/// What was asked for last, and where the cursor was.
#[derive(Clone, Default)]
struct Request(Arc<Mutex<Option<(Wish, usize)>>>);

impl Request {
    fn put(&self, wish: Wish, position: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((wish, position));
    }

    fn take(&self) -> Option<(Wish, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A key that ends the editing, for what can only be done outside of it.
struct Key {
    what: Wish,
    request: Request,
}

impl ConditionalEventHandler for Key {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        self.request.put(self.what, context.pos());
        Some(match self.what {
            Wish::Cancel => Cmd::Interrupt,
            Wish::Documentation => Cmd::AcceptLine,
        })
    }
}

/// The symbols that can be completed, sorted; none where the line is no code.
struct Symbols(Option<Vec<String>>);

impl Helper for Symbols {}
impl Highlighter for Symbols {}
impl Validator for Symbols {}
impl Hinter for Symbols {
    type Hint = String;
}

impl Completer for Symbols {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &Context<'_>,
    ) -> Result<(usize, Vec<String>), ReadlineError> {
        let Some(symbols) = &self.0 else { return Ok((position, vec!["  ".to_string()])) };
        let start = symbol_start(line, position);
        let prefix = &line[start..position];
        if prefix.is_empty() {
            return Ok((start, Vec::new()));
        }
        let first = symbols.partition_point(|symbol| symbol.as_str() < prefix);
        let rest = &symbols[first..];
        let candidates = &rest[..rest.partition_point(|symbol| symbol.starts_with(prefix))];
        // Sorted, so what the outermost two share, all share.
        if let [one, .., other] = candidates {
            let shared = shared_start(one, other);
            if shared.len() > prefix.len() {
                return Ok((start, vec![shared.to_string()]));
            }
        }
        Ok((start, candidates.to_vec()))
    }
}

/// What both texts begin with.
fn shared_start<'a>(one: &'a str, other: &str) -> &'a str {
    let differs = one.char_indices().zip(other.chars()).find(|((_, a), b)| a != b);
    let end = differs.map_or(one.len().min(other.len()), |((index, _), _)| index);
    &one[..end]
}

/// Whether a character may be part of a symbol.
fn is_of_symbol(character: char) -> bool {
    !character.is_ascii() || character.is_ascii_alphanumeric() || "!$%&*+-./:<?=>@^_".contains(character)
}

fn symbol_start(line: &str, position: usize) -> usize {
    line[..position].trim_end_matches(is_of_symbol).len()
}

fn symbol_end(line: &str, position: usize) -> usize {
    line.len() - line[position..].trim_start_matches(is_of_symbol).len()
}

/// A line with its indentation, on as many lines of `width` columns as it takes.
fn wrapped(line: &str, width: usize) -> String {
    let mut text = INDENT.to_string();
    let mut column = 0;
    for word in line.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            text.extend(["\n", INDENT]);
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{shared_start, symbol_end, symbol_start, wrapped};

    #[test]
    fn symbols_end_where_code_does() {
        let line = "(net/read é-x \"a";
        assert_eq!((symbol_start(line, 4), symbol_end(line, 4)), (1, 9));
        assert_eq!((symbol_start(line, 14), symbol_end(line, 14)), (10, 14));
        assert_eq!((symbol_start(line, 15), symbol_end(line, 15)), (15, 15));
        assert_eq!((symbol_start(line, 0), symbol_end(line, 0)), (0, 0));
    }

    #[test]
    fn what_two_symbols_share() {
        assert_eq!(shared_start("net/read", "net/recv-from"), "net/re");
        assert_eq!(shared_start("été", "étê"), "ét");
        assert_eq!(shared_start("do", "doc"), "do");
        assert_eq!(shared_start("a", "b"), "");
    }

    #[test]
    fn documentation_breaks_between_words() {
        assert_eq!(wrapped("one two three", 7), "    one two\n    three");
        assert_eq!(wrapped("unbreakable", 3), "    unbreakable");
        assert_eq!(wrapped("", 3), "    ");
    }
}
