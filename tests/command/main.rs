//! The `ringspun` command and the examples, as processes seen from outside: what they print and serve, how much memory
//! and how many system calls they take, and how they survive faults.

#[cfg(target_os = "linux")]
mod book;
mod cli;
#[cfg(target_os = "linux")]
mod core_files;
mod doctor;
mod dumps;
mod examples;
#[cfg(target_os = "linux")]
mod faults;
mod inherited;
mod logs;
mod manual;
#[cfg(target_os = "linux")]
mod memory;
mod metrics;
mod ps;
mod servers;
#[cfg(target_os = "linux")]
mod slow_readers;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod system_calls;
mod tls;
mod top;
mod trace_points;
mod unix_sockets;
