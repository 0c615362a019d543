//! The VM for C programs: its header, and the library that this crate has compiled.
//!
//! The library is the VM that [`Vm`](crate::Vm) runs. In a program without this crate, it is a stock VM, with the VM's
//! own event loop and sockets.
//!
//! A program that links it needs `-lm -ldl -lpthread`. To load native modules, it has to export the VM's functions to
//! them as well, with `-Wl,--export-dynamic-symbol=janet_*` or `-rdynamic`. So has a Rust program that embeds this
//! crate: `println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol=janet_*")` in its build script.

/// The header `janet.h`.
pub const HEADER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/janet.h"));

/// The static library `libjanet.a`.
pub const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libringspun_janet_vm.a"));
