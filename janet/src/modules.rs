//! Modules that are part of the program, and defining functions in environments.

use std::ffi::{CStr, c_char};

use crate::api as janet;
use crate::api::{Janet, JanetRegExt, JanetTable};
use crate::shims::carry_out;
use crate::stock::{Replacement, replacement};
use crate::tls::{TLS_FUNCTIONS, TLS_SOURCE};
use crate::values::{Verdict, keyword, string, symbol};

/// Makes the module known to `import` and `require`. It is compiled when it is first asked for.
const LOADER: &str = "\
(put module/loaders :ringspun/tls (fn load-tls [path & _] (ringspun/tls-module (make-env))))\
(array/push module/paths [(fn is-tls [path] (if (= path \"ringspun/tls\") path)) :ringspun/tls])";

/// Tells the VM on this thread of the modules, whose core environment this is.
///
/// # Errors
///
/// If the VM refuses.
pub(crate) fn announce(environment: *mut JanetTable) -> Result<(), &'static str> {
    // SAFETY: the VM runs on this thread; the environment is a root of its own, and the table is used by what is
    // evaluated in it only.
    unsafe {
        let own = janet::janet_table(1);
        (*own).proto = environment;
        register(&TLS_MODULE, own, std::ptr::null());
        if evaluate(own, LOADER, c"ringspun") { Ok(()) } else { Err("the VM does not take our modules") }
    }
}

/// Evaluates source text; false for an error, which has been printed.
///
/// # Safety
///
/// The VM runs on this thread, with a live environment.
unsafe fn evaluate(environment: *mut JanetTable, source: &str, name: &CStr) -> bool {
    let (mut value, length) = (string(""), i32::try_from(source.len()).unwrap_or(0));
    // SAFETY: as the caller says; reads `length` bytes, all of which are there.
    unsafe { janet::janet_dobytes(environment, source.as_ptr(), length, name.as_ptr(), &mut value) == 0 }
}

const TLS_MODULE: Replacement = replacement!(c"ringspun/tls-module", tls_module);

/// Fills an environment with the module `ringspun/tls`.
unsafe extern "C-unwind" fn tls_module(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM may raise.
    unsafe {
        janet::janet_fixarity(count, 1);
        let environment = janet::janet_gettable(arguments, 0);
        carry_out(|| {
            for function in &TLS_FUNCTIONS {
                register(function, environment, std::ptr::null());
                if let Some(entry) = entry_of(environment, function.name) {
                    janet::janet_table_put(entry, keyword("private"), janet::janet_wrap_boolean(1));
                }
            }
            match evaluate(environment, TLS_SOURCE, c"janet/src/tls.janet") {
                true => Verdict::Return(*arguments),
                false => Verdict::Raise(string("the module ringspun/tls could not be compiled")),
            }
        })
    }
}

/// Registers the name and source location of a function with the VM, and defines it in the environment unless that is
/// null.
///
/// # Safety
///
/// The VM runs on this thread; the documentation is null or terminated.
pub(crate) unsafe fn register(
    replacement: &Replacement,
    environment: *mut JanetTable,
    documentation: *const c_char,
) {
    let name = replacement.name.as_ptr();
    let entry = JanetRegExt {
        name,
        cfun: Some(replacement.function),
        documentation,
        source_file: replacement.source().as_ptr(),
        source_line: i32::try_from(replacement.line).unwrap_or(0),
    };
    let end = JanetRegExt {
        name: std::ptr::null(),
        cfun: None,
        documentation: std::ptr::null(),
        source_file: std::ptr::null(),
        source_line: 0,
    };
    // SAFETY: as the caller says; what the VM keeps is static, and the list ends with an entry without a name.
    unsafe { janet::janet_cfuns_ext(environment, std::ptr::null(), [entry, end].as_ptr()) };
}

/// The entry of a name in an environment.
pub(crate) fn entry_of(environment: *mut JanetTable, name: &CStr) -> Option<*mut JanetTable> {
    // SAFETY: the VM runs on this thread, and the value is unwrapped as what it is checked to be.
    unsafe {
        let entry = janet::janet_table_get(environment, symbol(name));
        let is_table = janet::janet_checktype(entry, janet::JANET_TABLE) != 0;
        is_table.then(|| janet::janet_unwrap_table(entry))
    }
}
