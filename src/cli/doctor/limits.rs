//! Limits of the process and of the machine, and what each means for the number of connections.

use std::fmt;
use std::fs;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use ringspun::runtime::Configuration;
use ringspun::runtime::probe::Feature;
use ringspun_load::format_count;

/// Descriptors that a server itself needs (standard streams, ring, wake-up, listener), rounded up.
const OWN_DESCRIPTORS: u64 = 10;
/// The backlog of listeners of `ringspun::net`, the same as Janet's.
const LISTENER_BACKLOG: u64 = 1024;
/// Memory of one idle connection of `ringspun serve echo` (docs/scale.md): 4.8 KB in the process, of which a page is
/// its fiber's stack, and 6.9 KB in the kernel, page tables included.
const IDLE_CONNECTION_BYTES: u64 = 11_700;

/// A limit and its meaning.
pub struct Limit {
    /// The name in JSON.
    pub name: &'static str,
    /// The name known to administrators.
    pub title: &'static str,
    pub fields: Vec<Field>,
    pub meaning: String,
}

/// One number of a limit.
pub struct Field {
    /// The name in JSON, with the unit.
    pub name: &'static str,
    /// The label of the number in text; empty if it is the only one.
    pub label: &'static str,
    pub amount: Amount,
}

/// The value of a limit, which knows how people read it: `20,000`, `8 MiB` or `unlimited`.
#[derive(Clone, Copy)]
pub enum Amount {
    Count(u64),
    Bytes(u64),
    Unlimited,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => f.write_str(&format_count(*count)),
            Self::Bytes(bytes) => f.write_str(&binary_size(*bytes)),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// A size in the largest binary unit that it fills, with at most one decimal.
fn binary_size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes >= unit {
            let tenths = (u128::from(bytes) * 10 + u128::from(unit / 2)) / u128::from(unit);
            return match tenths % 10 {
                0 => format!("{} {name}", tenths / 10),
                _ => format!("{}.{} {name}", tenths / 10, tenths % 10),
            };
        }
    }
    format!("{bytes} bytes")
}

/// Reads all limits; those that this system does not provide are omitted. The control groups leave
/// `group_room_bytes` of memory.
pub fn gather(stack_guards: &Feature, group_room_bytes: Option<u64>) -> Vec<Limit> {
    let found = [
        open_files(),
        locked_memory(),
        accept_backlog(),
        mappings(stack_guards.available),
        ring_switch(),
        local_ports(),
        memory(group_room_bytes),
    ];
    found.into_iter().flatten().collect()
}

fn open_files() -> Option<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let meaning = if hard == RLIM_INFINITY {
        "No limit for a process that raises its soft limit, as `ringspun serve` does.".to_string()
    } else {
        let connections = |limit: u64| format_count(limit.saturating_sub(OWN_DESCRIPTORS));
        let below = match soft < hard {
            true => format!(" A program that does not raise its soft limit gets {}.", connections(soft)),
            false => String::new(),
        };
        format!(
            "About {} connections per process: each takes a descriptor.{below} Raise it with ulimit -n, or \
             LimitNOFILE= in a systemd unit.",
            connections(hard)
        )
    };
    let fields = vec![
        Field { name: "soft", label: "soft", amount: resource_amount(soft, Amount::Count) },
        Field { name: "hard", label: "hard", amount: resource_amount(hard, Amount::Count) },
    ];
    Some(Limit { name: "open_files", title: "open files", fields, meaning })
}

fn locked_memory() -> Option<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let loop_bytes = event_loop_locked_bytes();
    let room = match soft {
        RLIM_INFINITY => String::new(),
        _ => format!(": room for {} in all processes of the user", format_count(soft / loop_bytes)),
    };
    let meaning = format!(
        "Connections take none. Each event loop (one per thread) is charged {} since Linux 6.14, unless the \
         process has CAP_IPC_LOCK{room}. Linux 5.12 to 6.13 charge nothing.",
        binary_size(loop_bytes)
    );
    let fields = vec![
        Field { name: "soft_bytes", label: "soft", amount: resource_amount(soft, Amount::Bytes) },
        Field { name: "hard_bytes", label: "hard", amount: resource_amount(hard, Amount::Bytes) },
    ];
    Some(Limit { name: "locked_memory", title: "locked memory", fields, meaning })
}

/// The memory that the kernel charges for an event loop's queues and its receive buffer ring.
fn event_loop_locked_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let sizes = Configuration::default();
    let (submissions, completions) =
        (u64::from(sizes.submission_entries), u64::from(sizes.completion_entries));
    let submission_entries = 64 * submissions;
    // The queues' heads and tails, the completions, and the indices of the submissions.
    let queues = 256 + 16 * completions + 4 * submissions;
    let buffer_ring = 16 * u64::from(sizes.receive_buffers);
    [submission_entries, queues, buffer_ring].iter().map(|bytes| bytes.next_multiple_of(PAGE_BYTES)).sum()
}

fn accept_backlog() -> Option<Limit> {
    let value = sysctl("net/core/somaxconn")?;
    let meaning = format!(
        "Up to {} connections can wait to be accepted (a listener asks for {}). Clients beyond that retry \
         after a second. Does not limit open connections.",
        format_count(value.min(LISTENER_BACKLOG)),
        format_count(LISTENER_BACKLOG)
    );
    Some(Limit { name: "somaxconn", title: "net.core.somaxconn", fields: single(value), meaning })
}

fn mappings(guards_take_none: bool) -> Option<Limit> {
    let value = sysctl("vm/max_map_count")?;
    let meaning = match guards_take_none {
        true => "No limit for fibers here: their stack guards take no mappings.".to_string(),
        false => format!(
            "About {} fibers per process, and so connections: before Linux 6.13, each stack and its guard take \
             two mappings.",
            format_count(value / 2)
        ),
    };
    Some(Limit { name: "max_map_count", title: "vm.max_map_count", fields: single(value), meaning })
}

fn ring_switch() -> Option<Limit> {
    let value = sysctl("kernel/io_uring_disabled")?;
    let meaning = match value {
        0 => "Every process may use io_uring, unless a seccomp profile forbids it.",
        1 => {
            "Only CAP_SYS_ADMIN and the group in sysctl kernel.io_uring_group may use io_uring. Set it to 0 to \
             allow it for every process."
        }
        _ => "No process may use io_uring. Set it to 0 to allow it.",
    };
    Some(Limit {
        name: "io_uring_disabled",
        title: "kernel.io_uring_disabled",
        fields: single(value),
        meaning: meaning.to_string(),
    })
}

fn local_ports() -> Option<Limit> {
    let text = read_sysctl("net/ipv4/ip_local_port_range")?;
    let mut bounds = text.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    let ports = (last + 1).saturating_sub(first);
    let meaning = format!(
        "Up to {} connections from one local address to one remote address and port: a limit for clients, \
         such as load generators, not for servers.",
        format_count(ports)
    );
    let fields = vec![
        Field { name: "first", label: "first", amount: Amount::Count(first) },
        Field { name: "last", label: "last", amount: Amount::Count(last) },
        Field { name: "ports", label: "ports", amount: Amount::Count(ports) },
    ];
    Some(Limit { name: "local_ports", title: "net.ipv4.ip_local_port_range", fields, meaning })
}

fn memory(group_room_bytes: Option<u64>) -> Option<Limit> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let bytes_of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    };
    let (total, machine) = (bytes_of("MemTotal:")?, bytes_of("MemAvailable:")?);
    let available = group_room_bytes.map_or(machine, |room| room.min(machine));
    let bound = if available < machine { " The limit of the control group applies." } else { "" };
    let meaning = format!(
        "Room for about {} idle connections of `ringspun serve echo`, at {} each, 60 % of it in the kernel, \
         plus the bytes in socket buffers.{bound}",
        format_count(rounded(available / IDLE_CONNECTION_BYTES)),
        binary_size(IDLE_CONNECTION_BYTES)
    );
    let fields = vec![
        Field { name: "available_bytes", label: "available", amount: Amount::Bytes(available) },
        Field { name: "total_bytes", label: "total", amount: Amount::Bytes(total) },
    ];
    Some(Limit { name: "memory", title: "memory", fields, meaning })
}

/// Rounds to two significant digits: an estimate should not look more precise.
fn rounded(estimate: u64) -> u64 {
    let digits = estimate.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    estimate / unit * unit
}

fn resource_amount(limit: u64, unit: fn(u64) -> Amount) -> Amount {
    if limit == RLIM_INFINITY { Amount::Unlimited } else { unit(limit) }
}

fn single(value: u64) -> Vec<Field> {
    vec![Field { name: "value", label: "", amount: Amount::Count(value) }]
}

fn read_sysctl(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()
}

fn sysctl(path: &str) -> Option<u64> {
    read_sysctl(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_keep_two_digits() {
        assert_eq!([0, 7, 42, 123, 2_595_667].map(rounded), [0, 7, 42, 120, 2_500_000]);
    }

    #[test]
    fn sizes_have_one_decimal_at_most() {
        let texts = [0, 1023, 1024, 9500, 8 << 20, u64::MAX].map(binary_size);
        assert_eq!(texts, ["0 bytes", "1023 bytes", "1 KiB", "9.3 KiB", "8 MiB", "17179869184 GiB"]);
    }

    #[test]
    fn a_loop_locks_whole_pages() {
        assert!(event_loop_locked_bytes() > 0 && event_loop_locked_bytes().is_multiple_of(4096));
    }

    #[test]
    fn older_kernels_are_told_that_mappings_limit_fibers() {
        let meaning = |guards_take_none| mappings(guards_take_none).map(|limit| limit.meaning);
        // Absent on systems without this limit.
        assert!(meaning(true).is_none_or(|text| text.starts_with("No limit for fibers here")));
        assert!(meaning(false).is_none_or(|text| text.starts_with("About ")));
    }
}
