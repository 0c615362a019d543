//! `getline`, which the REPL reads from: plain lines without a terminal, and the program's line editor at one.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::io::{self, IsTerminal};
use std::marker::PhantomData;

use crate::api as janet;
use crate::api::{Janet, JanetBuffer, JanetTable};

use crate::bridge::Bridge;
use crate::stock::{Replacement, replacement};
use crate::values::{catch_panic, keyword, nil, text_of};

/// Terminals that cannot move their cursor, as listed by Janet.
const BARE_TERMINALS: [&str; 3] = ["cons25", "dumb", "emacs"];

/// Special forms of the compiler, which are in no environment.
const SPECIAL_FORMS: [&str; 13] = [
    "break",
    "def",
    "do",
    "fn",
    "if",
    "quasiquote",
    "quote",
    "set",
    "splice",
    "unquote",
    "upscope",
    "var",
    "while",
];

unsafe extern "C" {
    /// The C library's buffer of standard input, which `(file/read stdin)` takes from too.
    static stdin: *mut libc::FILE;
}

thread_local! {
    static EDITOR: Cell<Option<Box<dyn LineEditor>>> = const { Cell::new(None) };
}

/// The user's answer to a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, without the newline at its end.
    Text(String),
    /// The end of the input.
    End,
    /// Discard the current form; the REPL starts a new one.
    Cancelled,
}

/// Lets the user of a terminal edit a line. See [`Vm::set_line_editor`](crate::Vm::set_line_editor).
pub trait LineEditor {
    /// Shows `prompt` and reads a line, in which symbols of `environment` may be completed. Without an
    /// environment, the line is not code.
    ///
    /// Blocks the thread, and with it the VM's loop. A panic becomes an error in Janet; the editor stays installed.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be used. The line is then read as if from a pipe.
    fn edit(&mut self, prompt: &str, environment: Option<&Environment<'_>>) -> io::Result<Line>;
}

/// The environment in which typed code will be compiled, with its prototypes.
#[derive(Debug)]
pub struct Environment<'a> {
    table: *mut JanetTable,
    lifetime: PhantomData<&'a JanetTable>,
}

impl Environment<'_> {
    /// All symbols of the environment and special forms, sorted and unique. Leaves out symbols that are not UTF-8.
    #[must_use]
    pub fn symbols(&self) -> Vec<String> {
        let mut symbols: Vec<String> = SPECIAL_FORMS.map(str::to_string).into();
        let mut table = self.table;
        while !table.is_null() {
            // SAFETY: the table is alive, and so are its prototypes; nothing is put into them meanwhile.
            unsafe {
                let (entries, capacity) = ((*table).data, (*table).capacity);
                let mut entry = janet::janet_dictionary_next(entries, capacity, std::ptr::null());
                while !entry.is_null() {
                    let key = (*entry).key;
                    if janet::janet_checktype(key, janet::JANET_SYMBOL) != 0 {
                        symbols.push(text_of(key));
                    }
                    entry = janet::janet_dictionary_next(entries, capacity, entry);
                }
                table = (*table).proto;
            }
        }
        symbols.retain(|symbol| !symbol.contains(char::REPLACEMENT_CHARACTER));
        symbols.sort_unstable();
        symbols.dedup();
        symbols
    }

    /// What a symbol stands for, where it is defined, and its documentation; nothing if it is unknown or
    /// has no documentation.
    #[must_use]
    pub fn documentation(&self, symbol: &str) -> Option<String> {
        // SAFETY: the table is alive; values are unwrapped as what they were checked to be, and nothing
        // that is called here raises for them.
        unsafe {
            let length = i32::try_from(symbol.len()).ok()?;
            let key = janet::janet_wrap_symbol(janet::janet_symbol(symbol.as_ptr(), length));
            let entry = table_in(janet::janet_table_get(self.table, key))?;
            let get = |name| janet::janet_table_get(entry, keyword(name));
            let documentation = get("doc");
            if janet::janet_checktype(documentation, janet::JANET_STRING) == 0 {
                return None;
            }
            let variable = array_in(get("ref"));
            let kind = match variable {
                _ if janet::janet_truthy(get("macro")) != 0 => "macro".to_string(),
                Some(place) => {
                    let is_set = (*place).count > 0;
                    format!("var ({})", type_name(if is_set { *(*place).data } else { nil() }))
                }
                None => type_name(get("value")),
            };
            let source = match tuple_in(get("source-map")) {
                Some([path, line, column]) => {
                    let [path, line, column] = [path, line, column].map(|value| text_of(*value));
                    format!("{path} on line {line}, column {column}\n")
                }
                _ => String::new(),
            };
            Some(format!("{kind}\n{source}\n{}", text_of(documentation)))
        }
    }
}

/// The name of a value's type, as `type` gives it.
unsafe fn type_name(value: Janet) -> String {
    // SAFETY: the caller's value is alive; the VM has a static, terminated name for each of its types.
    unsafe {
        let kind = janet::janet_type(value);
        let name = if kind == janet::JANET_ABSTRACT {
            (*(*janet::janet_abstract_head(janet::janet_unwrap_abstract(value))).r#type).name
        } else {
            janet::janet_type_names[kind as usize]
        };
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

unsafe fn table_in(value: Janet) -> Option<*mut JanetTable> {
    // SAFETY: unwrapped as what it was checked to be.
    unsafe {
        let is_table = janet::janet_checktype(value, janet::JANET_TABLE) != 0;
        is_table.then(|| janet::janet_unwrap_table(value))
    }
}

unsafe fn array_in(value: Janet) -> Option<*mut janet::JanetArray> {
    // SAFETY: unwrapped as what it was checked to be.
    unsafe {
        let is_array = janet::janet_checktype(value, janet::JANET_ARRAY) != 0;
        is_array.then(|| janet::janet_unwrap_array(value))
    }
}

unsafe fn tuple_in<'a>(value: Janet) -> Option<&'a [Janet]> {
    // SAFETY: the caller's value is alive for as long as it looks at the slice; a tuple has as many values
    // as its head says.
    unsafe {
        if janet::janet_checktype(value, janet::JANET_TUPLE) == 0 {
            return None;
        }
        let tuple = janet::janet_unwrap_tuple(value);
        let count = (*janet::janet_tuple_head(tuple)).length;
        Some(std::slice::from_raw_parts(tuple, usize::try_from(count).unwrap_or(0)))
    }
}

/// The editor of this thread's VM, or none.
pub(crate) fn set_editor(editor: Option<Box<dyn LineEditor>>) {
    // A VM that is itself a variable of the thread may be dropped after this one.
    let former = EDITOR.try_with(|current| current.replace(editor));
    drop(former);
}

/// The result of letting a user edit a line. Plain data, for the shim.
enum Attempt {
    /// The buffer has what `getline` returns.
    Done,
    Cancelled,
    /// Standard input is not a terminal, or cannot show a prompt.
    NoTerminal,
    /// Standard input is a terminal, but there is no editor.
    NoEditor,
    /// The editor has panicked.
    Panicked(Janet),
}

/// `(getline &opt prompt buf env)`.
pub(crate) const GETLINE: Replacement = replacement!(c"getline", getline);

unsafe extern "C-unwind" fn getline(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM
    // may raise.
    unsafe {
        janet::janet_arity(count, 0, 3);
        let prompt = if count >= 1 { janet::janet_getstring(arguments, 0) } else { c"".as_ptr().cast() };
        let buffer = if count >= 2 { janet::janet_getbuffer(arguments, 1) } else { janet::janet_buffer(10) };
        let environment = if count >= 3 { janet::janet_gettable(arguments, 2) } else { std::ptr::null_mut() };
        (*buffer).count = 0;
        match edit(CStr::from_ptr(prompt.cast()), buffer, environment) {
            Attempt::Done => {}
            Attempt::Cancelled => return keyword("cancel"),
            Attempt::Panicked(error) => janet::janet_panicv(error),
            Attempt::NoTerminal => read_line(buffer),
            Attempt::NoEditor => {
                show(prompt);
                read_line(buffer);
            }
        }
        janet::janet_wrap_buffer(buffer)
    }
}

unsafe fn edit(prompt: &CStr, buffer: *mut JanetBuffer, environment: *mut JanetTable) -> Attempt {
    // However the line is read, that blocks the thread.
    if let Some(bridge) = Bridge::current() {
        bridge.flush();
    }
    // Checks `isatty` and `TERM` each time, as a program may change both.
    let is_bare = std::env::var("TERM").is_ok_and(|terminal| BARE_TERMINALS.contains(&terminal.as_str()));
    if is_bare || !io::stdin().is_terminal() {
        return Attempt::NoTerminal;
    }
    let Some(mut editor) = EDITOR.take() else { return Attempt::NoEditor };
    let environment = Environment { table: environment, lifetime: PhantomData };
    let known = (!environment.table.is_null()).then_some(&environment);
    let line = catch_panic(|| editor.edit(&prompt.to_string_lossy(), known));
    EDITOR.set(Some(editor));
    let line = match line {
        Ok(line) => line,
        Err(error) => return Attempt::Panicked(error),
    };
    match line {
        Ok(Line::Text(mut text)) => {
            text.push('\n');
            let length = i32::try_from(text.len()).unwrap_or(0);
            // SAFETY: copies `length` bytes, all of which are there; the buffer was empty, so they fit
            // into it and nothing raises.
            unsafe { janet::janet_buffer_push_bytes(buffer, text.as_ptr(), length) };
            Attempt::Done
        }
        Ok(Line::End) => Attempt::Done,
        Ok(Line::Cancelled) => Attempt::Cancelled,
        Err(error) => {
            tracing::debug!(%error, "the terminal cannot be used to edit a line");
            Attempt::NoTerminal
        }
    }
}

/// Writes a prompt to where the program prints.
unsafe fn show(prompt: *const u8) {
    // SAFETY: the caller has a terminated string; a file that the program has closed is null.
    unsafe {
        let output = janet::janet_dynfile(c"out".as_ptr(), std::ptr::null_mut());
        if output.is_null() {
            return;
        }
        libc::fputs(prompt.cast(), output);
        libc::fflush(output);
    }
}

/// Appends a line of `(dyn :in)` to the buffer, with its newline if it has one.
///
/// # Safety
///
/// The VM may raise: nothing with a destructor may be alive in the callers.
unsafe fn read_line(buffer: *mut JanetBuffer) {
    const NEWLINE: c_int = b'\n' as c_int;
    // SAFETY: as the caller says; a file that the program has closed is null.
    unsafe {
        let input: *mut libc::FILE = janet::janet_dynfile(c"in".as_ptr(), stdin);
        if input.is_null() {
            return;
        }
        loop {
            let byte = libc::fgetc(input);
            let Ok(value) = u8::try_from(byte) else {
                // A signal is not the end; its handler runs in the loop's next turn.
                if libc::feof(input) == 0 && *libc::__errno_location() == libc::EINTR {
                    continue;
                }
                return;
            };
            janet::janet_buffer_push_u8(buffer, value);
            if byte == NEWLINE {
                return;
            }
        }
    }
}
