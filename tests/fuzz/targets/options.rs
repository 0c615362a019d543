//! libFuzzer on the checks of `options`.
#![no_main]

#[path = "../src/options.rs"]
mod options;

libfuzzer_sys::fuzz_target!(|data: &[u8]| options::check(data));
