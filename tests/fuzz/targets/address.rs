//! libFuzzer on the checks of `address`.
#![no_main]

#[path = "../src/address.rs"]
mod address;

libfuzzer_sys::fuzz_target!(|data: &[u8]| address::check(data));
