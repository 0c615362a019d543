//! Janet programs on Ringspun: compared with the VM's own network code, those of the manual and of libraries, the
//! command line, and its installation.

mod command_line;
mod differential;
mod dns;
mod fairness;
mod install;
mod libraries;
mod manual;
mod native;
mod repl;
mod serving;
#[path = "../support/mod.rs"]
mod support;
mod tls;
