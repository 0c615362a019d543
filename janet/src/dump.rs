//! What the Janet module `ringspun/dump` needs besides Janet: the module itself is `dump.janet`.

use crate::api as janet;
use crate::api::Janet;
use crate::inquiry::ANSWER;
use crate::stock::{Replacement, replacement};

/// The source text of the module.
pub(crate) const DUMP_SOURCE: &str = include_str!("dump.janet");

/// The functions that only the module has.
pub(crate) const DUMP_FUNCTIONS: [Replacement; 3] = [ARGUMENTS, CHILD, ANSWER];

const ARGUMENTS: Replacement = replacement!(c"arguments", arguments);

/// `(arguments fiber)`: what a parked fiber has called the C function with that it is in; nil if it is in none.
unsafe extern "C-unwind" fn arguments(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim: called by the VM with `count` arguments, and nothing with a destructor is alive.
    unsafe {
        janet::janet_fixarity(count, 1);
        janet::ringspun_vm_arguments(janet::janet_getfiber(arguments, 0))
    }
}

const CHILD: Replacement = replacement!(c"child", child);

/// `(child fiber)`: the fiber that a fiber has resumed, and that has not come back to it; nil if there is none.
unsafe extern "C-unwind" fn child(count: i32, arguments: *mut Janet) -> Janet {
    // SAFETY: a shim, as above; a fiber keeps its child alive.
    unsafe {
        janet::janet_fixarity(count, 1);
        let child = (*janet::janet_getfiber(arguments, 0)).child;
        if child.is_null() { janet::janet_wrap_nil() } else { janet::janet_wrap_fiber(child) }
    }
}
