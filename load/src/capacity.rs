//! Checks before a run whether the limits of the kernel allow the planned connections.

use std::fs;
use std::io;
use std::net::{IpAddr, UdpSocket};

use nix::sys::resource::{Resource, getrlimit};

use crate::plan::Plan;
use crate::quantity::format_count;
use crate::target::Target;

/// Descriptors that an event loop itself takes, rounded up.
const LOOP_FILES: u64 = 8;

/// Fails with the limit that a plan exceeds, and the remedy. `target_addresses` is the number of addresses that
/// connections may go to.
///
/// Ports in use by others or in TIME_WAIT, and the limits of the target, cannot be known here.
pub(crate) fn check(plan: &Plan, target_addresses: usize) -> Result<(), String> {
    for source in &plan.sources {
        // Binding a UDP socket has the same requirements as TCP, and no side effects.
        UdpSocket::bind((*source, 0))
            .map_err(|error| format!("the source address {source} cannot be used: {error}"))?;
    }
    let connections = plan.connections as u64;
    // A limit that cannot be read is not checked.
    if let (Ok((limit, _)), Ok(open)) = (getrlimit(Resource::RLIMIT_NOFILE), open_files()) {
        // Each may have one to each of the other servers as well.
        let connections = connections.saturating_mul(1 + plan.follow_to.len() as u64);
        check_files(connections, limit, open + LOOP_FILES * plan.workers as u64)?;
    }
    if let (false, Ok(ports)) = (matches!(plan.target, Target::Unix(_)), local_ports()) {
        check_ports(connections, &plan.sources, ports, target_addresses as u64)?;
    }
    Ok(())
}

fn check_files(connections: u64, limit: u64, used: u64) -> Result<(), String> {
    let fitting = limit.saturating_sub(used);
    if connections <= fitting {
        return Ok(());
    }
    Err(format!(
        "{} connections do not fit: this process may open {} files (ulimit -Hn), and each connection is one; \
         {} fit. Raise the limit to {} or more (as root: ulimit -Hn; systemd: LimitNOFILE=; containers: --ulimit \
         nofile=), or distribute the connections over several processes or machines",
        format_count(connections),
        format_count(limit),
        format_count(fitting),
        format_count(connections + used)
    ))
}

fn check_ports(
    connections: u64,
    sources: &[IpAddr],
    (first, last): (u64, u64),
    target_addresses: u64,
) -> Result<(), String> {
    let ports = (last + 1).saturating_sub(first);
    let source_count = sources.len().max(1) as u64;
    let fitting = ports.saturating_mul(source_count).saturating_mul(target_addresses.max(1));
    if connections <= fitting || ports == 0 {
        return Ok(());
    }
    let needed = connections.div_ceil(ports.saturating_mul(target_addresses.max(1)));
    Err(format!(
        "{} connections do not fit: each source address has {} ports for them (net.ipv4.ip_local_port_range = \
         {first} {last}); {} fit from {}. Give {needed} source addresses, such as --bind 127.0.0.2,127.0.0.3, or \
         widen the range: sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
        format_count(connections),
        format_count(ports),
        format_count(fitting),
        if source_count == 1 { "one address".to_string() } else { format!("{source_count} addresses") }
    ))
}

fn open_files() -> io::Result<u64> {
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64)
}

/// The first and the last ephemeral port; IPv6 has the same range.
fn local_ports() -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut bounds = text.split_whitespace().map(str::parse);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_files_is_named_with_what_fits_and_what_is_needed() {
        assert_eq!(check_files(19_000, 20_000, 20), Ok(()));
        assert_eq!(check_files(19_980, 20_000, 20), Ok(()));
        let error = check_files(19_981, 20_000, 20).unwrap_err();
        for expected in ["19,981 connections", "may open 20,000 files", "19,980 fit", "to 20,001 or more"] {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn the_ports_of_the_source_addresses_are_counted() {
        let ports = (32_768, 60_999);
        let sources: Vec<IpAddr> = ["127.0.0.2", "127.0.0.3"].map(|text| text.parse().unwrap()).into();
        assert_eq!(check_ports(28_232, &[], ports, 1), Ok(()));
        assert_eq!(check_ports(56_464, &sources, ports, 1), Ok(()));
        assert_eq!(check_ports(56_464, &[], ports, 2), Ok(()));
        let error = check_ports(100_000, &sources, ports, 1).unwrap_err();
        for expected in
            ["100,000 connections", "28,232 ports", "56,464 fit from 2 addresses", "Give 4 source"]
        {
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }
}
