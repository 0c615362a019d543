//! What takes neither the `ringspun` command nor the Janet VM: the library on its own, and the rules of the project.
//!
//! One of the modules brings an allocator that refuses large blocks, which holds for all tests here.

mod architecture;
#[cfg(feature = "tls")]
mod async_crates;
mod embedding;
#[cfg(feature = "cli")]
mod fuzz_corpus;
mod manual_checklist;
mod packages;
mod reliability;
#[expect(dead_code, reason = "other tests use more of it")]
#[path = "../support/scratch.rs"]
mod scratch;
mod sync_crates;
mod tidy;
