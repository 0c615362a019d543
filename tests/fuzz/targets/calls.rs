//! libFuzzer on the checks of `calls`.
#![no_main]

#[path = "../src/calls.rs"]
mod calls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| calls::check(data));
