//! The symbols of ELF files.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::BTreeSet;

const SECTION_HEADER_SIZE_BYTES: usize = 64;
const SYMBOL_SIZE_BYTES: usize = 24;
/// The table of all symbols.
pub const SYMBOLS: u32 = 2;
/// The table of those that other libraries see at run time.
pub const DYNAMIC_SYMBOLS: u32 = 11;
const LOCAL: u8 = 0;

/// The names of all functions and variables that a 64-bit ELF file defines in a kind of table.
pub fn defined_symbols(file: &[u8], kind_of_table: u32) -> BTreeSet<String> {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().unwrap());
    let long = |at: usize| usize::from_ne_bytes(file[at..at + 8].try_into().unwrap());
    let half = |at: usize| u16::from_ne_bytes(file[at..at + 2].try_into().unwrap());
    let section = |index: usize| long(40) + index * SECTION_HEADER_SIZE_BYTES;
    let tables = (0..usize::from(half(60))).map(section).filter(|at| word(at + 4) == kind_of_table);
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
