//! Notices when the Janet VM is compiled without optimisation, which halves its speed.
//!
//! The VM's crate passes the C compiler no flag of its own. In this workspace `.cargo/config.toml` sets
//! `CFLAGS=-O2`; a build from outside, such as `cargo install`, does not read that file.

use std::env;

fn main() {
    let target = env::var("TARGET").unwrap_or_default();
    let variables = [
        format!("CFLAGS_{target}"),
        format!("CFLAGS_{}", target.replace('-', "_")),
        "TARGET_CFLAGS".to_string(),
        "CFLAGS".to_string(),
    ];
    for variable in &variables {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    // The C compiler is given the first of them that is set, and of several flags it takes the last.
    let flags = variables.iter().find_map(|variable| env::var(variable).ok()).unwrap_or_default();
    let level = flags.split_whitespace().rev().find_map(|flag| flag.strip_prefix("-O")).unwrap_or("0");
    let optimised = level != "0";
    println!("cargo:rustc-check-cfg=cfg(vm_optimised)");
    if optimised {
        println!("cargo:rustc-cfg=vm_optimised");
    } else {
        println!(
            "cargo:warning=the Janet VM is compiled without optimisation and runs at half its speed; \
             set CFLAGS=-O2 in the environment and build again"
        );
    }
}
