//! libFuzzer on the checks of `tls`.
#![no_main]

#[path = "../src/tls.rs"]
mod tls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tls::check(data));
