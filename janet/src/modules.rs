//! Modules that are part of the program, and defining functions in environments.

use std::ffi::{CStr, c_char};

use crate::api as janet;
use crate::api::{Janet, JanetRegExt, JanetTable};
use crate::dump::{DUMP_FUNCTIONS, DUMP_SOURCE};
use crate::serving::{SERVING_FUNCTIONS, SERVING_SOURCE};
use crate::shims::carry_out;
use crate::stock::{Replacement, replacement};
#[cfg(feature = "tls")]
use crate::tls::{TLS_FUNCTIONS, TLS_SOURCE};
use crate::values::{Verdict, bytes_of, keyword, string, symbol};

/// A module: a source text, and the functions that only it can call.
struct Module {
    name: &'static str,
    file: &'static CStr,
    /// Or why this build does not have it.
    source: Result<&'static str, &'static str>,
    functions: &'static [Replacement],
}

const MODULES: [Module; 3] = [
    Module {
        name: "ringspun",
        file: c"janet/src/serving.janet",
        source: Ok(SERVING_SOURCE),
        functions: &SERVING_FUNCTIONS,
    },
    Module {
        name: "ringspun/dump",
        file: c"janet/src/dump.janet",
        source: Ok(DUMP_SOURCE),
        functions: &DUMP_FUNCTIONS,
    },
    #[cfg(feature = "tls")]
    Module {
        name: "ringspun/tls",
        file: c"janet/src/tls.janet",
        source: Ok(TLS_SOURCE),
        functions: &TLS_FUNCTIONS,
    },
    #[cfg(not(feature = "tls"))]
    Module {
        name: "ringspun/tls",
        file: c"janet/src/modules.rs",
        source: Err("this build has no TLS: it is the feature tls of the crates ringspun and ringspun-janet"),
        functions: &[],
    },
];

/// Makes the modules known to `import` and `require`. Each is compiled when it is first asked for.
const LOADER: &str = "\
(put module/loaders :ringspun (fn load-own [path & _] (load-module path (make-env))))\
(array/insert module/paths 0 [(fn is-own [path] (if (has-module path) path)) :ringspun])";

/// Tells the VM on this thread of the modules, whose core environment this is.
///
/// # Errors
///
/// If the VM refuses.
pub(crate) fn announce(environment: *mut JanetTable) -> Result<(), &'static str> {
    // SAFETY: the VM runs on this thread; the environment is a root of its own, and the table is used by what is
    // evaluated in it only.
    unsafe {
        let own = janet::janet_table(2);
        (*own).proto = environment;
        register(&HAS_MODULE, own, std::ptr::null());
        register(&LOAD_MODULE, own, std::ptr::null());
        evaluate(own, LOADER, c"ringspun").map(|_| ()).ok_or("the VM does not take our modules")
    }
}

/// Evaluates source text; `None` for an error, which has been printed.
///
/// # Safety
///
/// The VM runs on this thread, with a live environment.
pub(crate) unsafe fn evaluate(environment: *mut JanetTable, source: &str, name: &CStr) -> Option<Janet> {
    let (mut value, length) = (string(""), i32::try_from(source.len()).unwrap_or(0));
    // SAFETY: as the caller says; reads `length` bytes, all of which are there.
    let status =
        unsafe { janet::janet_dobytes(environment, source.as_ptr(), length, name.as_ptr(), &mut value) };
    (status == 0).then_some(value)
}

/// The module of a name.
///
/// # Safety
///
/// The value is alive.
unsafe fn module_of(name: Janet) -> Option<&'static Module> {
    // SAFETY: as the caller says, and nothing changes it meanwhile.
    let name = unsafe { bytes_of(name) }?;
    MODULES.iter().find(|module| module.name.as_bytes() == name)
}

const HAS_MODULE: Replacement = replacement!(c"has-module", has_module);

/// Whether a name is that of a module.
unsafe extern "C-unwind" fn has_module(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and plain data only is alive wherever the VM may raise.
    unsafe {
        janet::janet_fixarity(count, 1);
        janet::janet_wrap_boolean(module_of(*arguments).is_some().into())
    }
}

const LOAD_MODULE: Replacement = replacement!(c"load-module", load_module);

/// Fills an environment with the module of a name.
unsafe extern "C-unwind" fn load_module(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as in `has_module`.
    unsafe {
        janet::janet_fixarity(count, 2);
        let environment = janet::janet_gettable(arguments, 1);
        let module = module_of(*arguments);
        carry_out(|| {
            let Some(module) = module else { return Verdict::Raise(string("no such module")) };
            let source = match module.source {
                Ok(source) => source,
                Err(reason) => return Verdict::Raise(string(&format!("{}: {reason}", module.name))),
            };
            for function in module.functions {
                register(function, environment, std::ptr::null());
                if let Some(entry) = entry_of(environment, function.name) {
                    janet::janet_table_put(entry, keyword("private"), janet::janet_wrap_boolean(1));
                }
            }
            match evaluate(environment, source, module.file) {
                Some(_) => Verdict::Return(*arguments.add(1)),
                None => Verdict::Raise(string(&format!("the module {} could not be compiled", module.name))),
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
