//! Janet programs on Ringspun: against the VM's own network code, from the manual, from libraries, and on the command line.

mod command_line;
mod differential;
mod dns;
mod fairness;
mod libraries;
mod manual;
mod repl;
#[path = "../support/mod.rs"]
mod support;
