//! A program with the VM in it leaves the C library's functions as they are for everybody else in the process.

use std::ffi::CString;
use std::fs;

use elf::{SYMBOLS, defined_symbols};
use ringspun_janet::{Net, Vm};

#[path = "support/elf.rs"]
mod elf;

#[test]
fn no_symbol_of_the_c_library_is_defined() {
    /// Those that the linker and the C library's start files put into every program.
    const OF_EVERY_PROGRAM: [&str; 6] =
        ["_IO_stdin_used", "__bss_start", "_edata", "_end", "environ", "data_start"];
    // Linked into this program, with all that it needs.
    Vm::with_net(Net::Ring).unwrap().run_string("(net/listen \"127.0.0.1\" \"0\")").unwrap();
    let names = defined_symbols(&fs::read("/proc/self/exe").unwrap(), SYMBOLS);
    assert!(names.contains("janet_init"), "the VM is not among the {} symbols", names.len());
    for name in &names {
        let text = CString::new(name.as_str()).unwrap();
        // SAFETY: looks a terminated name up in the libraries behind this program.
        let other = unsafe { libc::dlsym(libc::RTLD_NEXT, text.as_ptr()) };
        let is_everywhere = OF_EVERY_PROGRAM.contains(&name.as_str());
        assert!(other.is_null() || is_everywhere, "{name} takes the place of that of a library");
    }
}
