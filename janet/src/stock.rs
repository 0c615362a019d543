//! The VM's own functions, which serve streams that are not ours (pipes, files), and calls on sockets that do not wait.

use std::ffi::CStr;
use std::sync::OnceLock;

use crate::api as janet;
use crate::api::{Janet, JanetMethod};

use crate::values::symbol;

pub(crate) use janet::JanetCFunction as Function;

/// A function of ours: its name in Janet, and its source location, for stack traces and documentation.
#[derive(Clone, Copy)]
pub(crate) struct Replacement {
    pub(crate) name: &'static CStr,
    pub(crate) function: Function,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

/// A [`Replacement`] for the function defined right below.
macro_rules! replacement {
    ($name:literal, $function:ident) => {
        Replacement { name: $name, function: $function, file: concat!(file!(), "\0"), line: line!() }
    };
}
pub(crate) use replacement;

impl Replacement {
    /// The file without what differs from one build to another.
    pub(crate) fn source(&self) -> &'static CStr {
        let start = self.file.rfind("janet/src/").unwrap_or(0);
        CStr::from_bytes_with_nul(&self.file.as_bytes()[start..]).unwrap_or_default()
    }
}

/// Functions by name, and the methods of our streams.
struct Stock {
    functions: Vec<(&'static CStr, Function)>,
    methods: Box<[JanetMethod]>,
}

// SAFETY: function pointers and static names, which never change once they are made.
unsafe impl Send for Stock {}
// SAFETY: as above.
unsafe impl Sync for Stock {}

static STOCK: OnceLock<Stock> = OnceLock::new();

/// The methods of a socket, in the order of the VM's own, because `keys` of a stream shows it.
const METHODS: [(&CStr, &CStr); 14] = [
    (c"chunk", c"net/chunk"),
    (c"close", c"ev/close"),
    (c"read", c"net/read"),
    (c"write", c"net/write"),
    (c"flush", c"net/flush"),
    (c"accept", c"net/accept"),
    (c"accept-loop", c"net/accept-loop"),
    (c"send-to", c"net/send-to"),
    (c"recv-from", c"net/recv-from"),
    (c"evread", c"ev/read"),
    (c"evchunk", c"ev/chunk"),
    (c"evwrite", c"ev/write"),
    (c"shutdown", c"net/shutdown"),
    (c"setsockopt", c"net/setsockopt"),
];

/// Remembers the VM's own functions of the names of `replacements`, and makes the methods of our streams.
/// The VM must be running on this thread.
///
/// Fails with the name of a function that this VM lacks.
pub(crate) fn remember(replacements: &[Replacement]) -> Result<(), &'static CStr> {
    if STOCK.get().is_some() {
        return Ok(());
    }
    // SAFETY: the VM runs; the table of its functions is alive until the next collection.
    let table = unsafe { janet::janet_core_lookup_table(std::ptr::null_mut()) };
    let find = |name: &'static CStr| -> Result<Function, &'static CStr> {
        // SAFETY: as above; the value is only unwrapped as what it is.
        unsafe {
            let value = janet::janet_table_get(table, symbol(name));
            match janet::janet_checktype(value, janet::JANET_CFUNCTION) {
                0 => Err(name),
                _ => janet::janet_unwrap_cfunction(value).ok_or(name),
            }
        }
    };
    let mut functions = Vec::new();
    for replacement in replacements {
        functions.push((replacement.name, find(replacement.name)?));
    }
    let mut methods = Vec::new();
    for (method, name) in METHODS {
        let ours = replacements.iter().find(|replacement| replacement.name == name);
        let function = ours.map_or_else(|| find(name), |replacement| Ok(replacement.function))?;
        methods.push(JanetMethod { name: method.as_ptr(), cfun: Some(function) });
    }
    methods.push(JanetMethod { name: std::ptr::null(), cfun: None });
    let _ = STOCK.set(Stock { functions, methods: methods.into_boxed_slice() });
    Ok(())
}

fn stock() -> &'static Stock {
    match STOCK.get() {
        Some(stock) => stock,
        // Our functions are only reachable through an environment that was made after it.
        None => unreachable!("a function of ours is called before the VM's own are known"),
    }
}

/// Calls the VM's own function of a name that we replace.
///
/// # Safety
///
/// Called by a shim with the VM's own arguments; nothing with a destructor may be alive in it.
pub(crate) unsafe fn call(name: &'static CStr, count: i32, arguments: *mut Janet) -> Janet {
    // Usually, comparing pointers suffices.
    let found = stock().functions.iter().find(|(known, _)| *known == name).map(|(_, function)| *function);
    match found {
        // SAFETY: as the caller says.
        Some(function) => unsafe { function(count, arguments) },
        None => unreachable!("{name:?} is not among the replaced functions"),
    }
}

/// The method table of our streams, which distinguishes them from others.
pub(crate) fn methods() -> *const JanetMethod {
    stock().methods.as_ptr()
}
