//! Exports the C API of the Janet VM from the program, so that native modules find it there.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let has_vm = std::env::var_os("CARGO_FEATURE_JANET").is_some();
    let is_linux = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    if has_vm && is_linux {
        // Without the program's other symbols, which -rdynamic would export too.
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol=janet_*");
    }
}
