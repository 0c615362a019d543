//! `ringspun load`: what it measures, what it prints and writes, and what it exits with.

mod abort;
mod faults;
mod find;
mod hosts;
mod http;
mod pace;
mod page;
mod pipeline;
mod repeat;
mod report;
mod runs;
mod scale;
mod signals;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod workers;
mod workloads;
