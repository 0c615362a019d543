//! Functions of the embedder that Janet code calls.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::api as janet;
use crate::api::{Janet, JanetTable};
use crate::modules::{evaluate, register};
use crate::shims::carry_out;
use crate::stock::{Replacement, replacement};
use crate::values::{Verdict, bytes_of, keyword, nil, string, symbol_of};

/// A value that goes to a function of the embedder, or comes from it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `nil`.
    Nil,
    /// `true` or `false`.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// The bytes of a string; as an argument also of a buffer, a symbol or a keyword.
    Text(Vec<u8>),
}

impl Value {
    /// A number; `None` for anything else.
    pub fn as_number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// A text, with what is not UTF-8 replaced; `None` for anything else.
    pub fn as_text(&self) -> Option<String> {
        if let Self::Text(bytes) = self { Some(String::from_utf8_lossy(bytes).into_owned()) } else { None }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Boolean(value) => value.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
        }
    }
}

/// A function of the embedder. The error is raised in Janet.
pub(crate) type Function = dyn Fn(&[Value]) -> Result<Value, String>;

thread_local! {
    /// Those of the VM on this thread.
    static FUNCTIONS: RefCell<Vec<Rc<Function>>> = const { RefCell::new(Vec::new()) };
}

/// Forgets the functions of a VM that has ended.
pub(crate) fn forget_functions() {
    // A VM that is itself a variable of the thread may be dropped after this one.
    let functions = FUNCTIONS.try_with(RefCell::take);
    drop(functions);
}

/// Defines a function in an environment; false if its name is no symbol.
pub(crate) fn define(
    environment: *mut JanetTable,
    name: &str,
    documentation: &str,
    function: Rc<Function>,
) -> bool {
    let index = FUNCTIONS.with_borrow_mut(|functions| {
        functions.push(function);
        functions.len() - 1
    });
    let source = format!("(fn {name} [& arguments] (call-embedder {index} ;arguments))");
    // SAFETY: the VM runs on this thread; the environment is a root of its own, and the table is used by what is
    // evaluated in it only. The function refers to it, and is in the environment before anything is collected.
    unsafe {
        let own = janet::janet_table(1);
        (*own).proto = environment;
        register(&CALL_EMBEDDER, own, std::ptr::null());
        let Some(value) = evaluate(own, &source, c"embedder") else { return false };
        let entry = janet::janet_table(2);
        janet::janet_table_put(entry, keyword("value"), value);
        janet::janet_table_put(entry, keyword("doc"), string(documentation));
        janet::janet_table_put(environment, symbol_of(name), janet::janet_wrap_table(entry));
    }
    true
}

const CALL_EMBEDDER: Replacement = replacement!(c"call-embedder", call_embedder);

/// `(call-embedder index & arguments)`: calls the function with this index.
unsafe extern "C-unwind" fn call_embedder(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM may raise.
    unsafe {
        janet::janet_arity(count, 1, -1);
        let index = janet::janet_getnat(arguments, 0) as usize;
        carry_out(|| {
            let function = FUNCTIONS.with_borrow(|functions| functions.get(index).cloned());
            let Some(function) = function else { return Verdict::Raise(string("no such function")) };
            let values = (1..count as usize).map(|index| value_of(*arguments.add(index)));
            let called = values.collect::<Result<Vec<_>, _>>().and_then(|values| function(&values));
            match called {
                Ok(value) => Verdict::Return(janet_of(&value)),
                Err(text) => Verdict::Raise(string(&text)),
            }
        })
    }
}

/// The value of an argument.
///
/// # Safety
///
/// The argument is alive.
unsafe fn value_of(argument: Janet) -> Result<Value, String> {
    // SAFETY: as the caller says, and each is read as what it is checked to be.
    unsafe {
        if let Some(bytes) = bytes_of(argument) {
            return Ok(Value::Text(bytes.to_vec()));
        }
        match argument.kind() {
            janet::JANET_NIL => Ok(Value::Nil),
            janet::JANET_BOOLEAN => Ok(Value::Boolean(janet::janet_truthy(argument) != 0)),
            janet::JANET_NUMBER => Ok(Value::Number(janet::janet_unwrap_number(argument))),
            _ => Err("expected nil, a boolean, a number or a text as argument".to_string()),
        }
    }
}

fn janet_of(value: &Value) -> Janet {
    // SAFETY: makes values of the VM on this thread; of the bytes, so many are copied as there are.
    unsafe {
        match value {
            Value::Nil => nil(),
            Value::Boolean(value) => janet::janet_wrap_boolean((*value).into()),
            Value::Number(number) => janet::janet_wrap_number(*number),
            Value::Text(bytes) => {
                let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                janet::janet_wrap_string(janet::janet_string(bytes.as_ptr(), length))
            }
        }
    }
}
