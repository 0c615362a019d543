//! A program that knows nothing of the VM and loads the plugin, with all of its symbols resolved at once.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;

fn main() {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("expected the path of the plugin");
        std::process::exit(2);
    };
    let Ok(path) = CString::new(path.into_vec()) else { std::process::exit(2) };
    // SAFETY: the plugin's initialisers are those of Rust's standard library; the function has this type.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        let function = if library.is_null() { library } else { libc::dlsym(library, c"plug".as_ptr()) };
        if function.is_null() {
            eprintln!("{}", CStr::from_ptr(libc::dlerror()).to_string_lossy());
            std::process::exit(1);
        }
        std::mem::transmute::<*mut libc::c_void, extern "C" fn()>(function)();
    }
}
