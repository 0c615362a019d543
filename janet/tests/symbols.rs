//! A program with the VM in it leaves the C library's functions as they are for everybody else in the process.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;

use ringspun_janet::{Net, Vm};

const SECTION_HEADER_SIZE_BYTES: usize = 64;
const SYMBOL_SIZE_BYTES: usize = 24;
const SYMBOL_TABLE: u32 = 2;
const LOCAL: u8 = 0;

/// The names of all functions and variables that a 64-bit ELF file defines for others to link with.
fn defined_symbols(file: &[u8]) -> BTreeSet<String> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
    let long = |at: usize| usize::from_ne_bytes(file[at..at + 8].try_into().unwrap());
    let half = |at: usize| u16::from_ne_bytes(file[at..at + 2].try_into().unwrap());
    let section = |index: usize| long(40) + index * SECTION_HEADER_SIZE_BYTES;
    let tables = (0..usize::from(half(60))).map(section).filter(|at| word(at + 4) == SYMBOL_TABLE);
    let mut names = BTreeSet::new();
    for table in tables {
        let (start, size_bytes) = (long(table + 24), long(table + 32));
        let texts = long(section(word(table + 40) as usize) + 24);
        for symbol in (start..start + size_bytes).step_by(SYMBOL_SIZE_BYTES) {
            let is_global = file[symbol + 4] >> 4 != LOCAL;
            let is_defined = half(symbol + 6) != 0;
            if is_global && is_defined {
                let name = &file[texts + word(symbol) as usize..];
                let name = name.split(|byte| *byte == 0).next().unwrap();
                names.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    names
}

#[test]
fn no_symbol_of_the_c_library_is_defined() {
    /// Those that the linker and the C library's start files put into every program.
    const OF_EVERY_PROGRAM: [&str; 6] =
        ["_IO_stdin_used", "__bss_start", "_edata", "_end", "environ", "data_start"];
    // Linked into this program, with all that it needs.
    Vm::with_net(Net::Ring).unwrap().run_string("(net/listen \"127.0.0.1\" \"0\")").unwrap();
    let names = defined_symbols(&fs::read("/proc/self/exe").unwrap());
    assert!(names.contains("janet_init"), "the VM is not among the {} symbols", names.len());
    for name in &names {
        let text = CString::new(name.as_str()).unwrap();
        // SAFETY: looks a terminated name up in the libraries behind this program.
        let other = unsafe { libc::dlsym(libc::RTLD_NEXT, text.as_ptr()) };
        let is_everywhere = OF_EVERY_PROGRAM.contains(&name.as_str());
        assert!(other.is_null() || is_everywhere, "{name} takes the place of that of a library");
    }
}
