//! libFuzzer on the checks of `hdr`.
#![no_main]

#[path = "../src/allocation.rs"]
mod allocation;
#[path = "../src/hdr.rs"]
mod hdr;

libfuzzer_sys::fuzz_target!(|data: &[u8]| hdr::check(data));
