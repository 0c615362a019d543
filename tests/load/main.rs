//! `ringspun load`: what it measures, what it prints and writes, and what it exits with.

mod abort;
mod counts;
mod early;
mod faults;
mod find;
mod hosts;
mod http;
mod http2;
mod live;
mod pace;
mod page;
mod pipeline;
mod prometheus;
mod redirects;
mod repeat;
mod report;
mod requests;
mod runs;
mod scale;
mod script_rates;
mod scripts;
mod secured_scripts;
mod sessions;
mod signals;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod websocket;
mod workers;
mod workloads;
