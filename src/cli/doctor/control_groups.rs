//! Limits of the control groups that the process is in (`cgroups(7)`), of version 1 and version 2.

use std::fs;
use std::path::{Path, PathBuf};

use super::limits::{Amount, Field, Limit};

/// Version 1 has no word for "no limit", but a number of pages that no machine has.
const MEMORY_UNLIMITED_FROM_BYTES: u64 = 1 << 60;

/// Where the groups are: usual paths, except in tests.
struct Groups<'a> {
    /// What `/proc/self/cgroup` says.
    memberships: &'a str,
    /// The folder of version 2, and of the folders of version 1's controllers.
    root: &'a Path,
}

/// The least that the groups and those above them allow; `None` is no limit.
#[derive(Debug, Default, PartialEq)]
struct Allowed {
    memory_bytes: Option<u64>,
    /// What is left of that.
    memory_room_bytes: Option<u64>,
    /// Of one processor: 150 are one and a half.
    cpu_percent: Option<u64>,
    processes: Option<u64>,
}

/// The limit of the control groups, if there is one.
pub fn limit() -> Option<Limit> {
    described(&allowed())
}

/// The memory available within the limits, if there is one.
pub fn memory_room_bytes() -> Option<u64> {
    allowed().memory_room_bytes
}

fn allowed() -> Allowed {
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Groups { memberships: &memberships, root: Path::new("/sys/fs/cgroup") }.allowed()
}

fn described(allowed: &Allowed) -> Option<Limit> {
    let mut fields = Vec::new();
    let mut add = |name, label, amount: Option<Amount>| {
        fields.extend(amount.map(|amount| Field { name, label, amount }))
    };
    add("memory_bytes", "memory", allowed.memory_bytes.map(Amount::Bytes));
    add("cpu_percent", "CPU %", allowed.cpu_percent.map(Amount::Count));
    add("processes", "threads", allowed.processes.map(Amount::Count));
    if fields.is_empty() {
        return None;
    }
    let meaning = "As containers and units of systemd have them. Beyond the memory, the kernel ends processes; beyond \
                   the processor time, they pause, all of their threads at once; beyond the threads, none can be \
                   started.";
    Some(Limit { name: "control_group", title: "control group", fields, meaning: meaning.to_string() })
}

impl Groups<'_> {
    fn allowed(&self) -> Allowed {
        let memory = self.folders("memory");
        let limit_of = |folder: &PathBuf| {
            let limit = number(&folder.join("memory.max"))
                .or_else(|| number(&folder.join("memory.limit_in_bytes")))?;
            (limit < MEMORY_UNLIMITED_FROM_BYTES).then_some(limit)
        };
        let room_of = |folder: &PathBuf| {
            let used = number(&folder.join("memory.current"))
                .or_else(|| number(&folder.join("memory.usage_in_bytes")));
            Some(limit_of(folder)?.saturating_sub(used.unwrap_or(0)))
        };
        Allowed {
            memory_bytes: memory.iter().filter_map(limit_of).min(),
            memory_room_bytes: memory.iter().filter_map(room_of).min(),
            cpu_percent: self.folders("cpu").iter().filter_map(|folder| cpu_percent(folder)).min(),
            processes: self
                .folders("pids")
                .iter()
                .filter_map(|folder| number(&folder.join("pids.max")))
                .min(),
        }
    }

    /// The folders of the groups that have this controller: that of the process, and all above it. A container may see
    /// only the part of the tree that it is in, whose root then stands for its own.
    fn folders(&self, controller: &str) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        for line in self.memberships.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let root = match controllers {
                "" => self.root.to_path_buf(),
                _ if controllers.split(',').any(|of| of == controller) => {
                    let joined = self.root.join(controllers);
                    if joined.is_dir() { joined } else { self.root.join(controller) }
                }
                _ => continue,
            };
            let own = path.trim_start_matches('/');
            folders.extend(Path::new(own).ancestors().map(|group| root.join(group)));
        }
        folders
    }
}

/// The number in a file; `None` for "max", and without the file.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn cpu_percent(folder: &Path) -> Option<u64> {
    let (quota, period): (u64, u64) = match fs::read_to_string(folder.join("cpu.max")) {
        Ok(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
        // A quota of -1 is none.
        Err(_) => (number(&folder.join("cpu.cfs_quota_us"))?, number(&folder.join("cpu.cfs_period_us"))?),
    };
    (quota * 100).checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is allowed where these files are.
    fn allowed(name: &str, memberships: &str, files: &[(&str, &str)]) -> Allowed {
        let root =
            std::env::temp_dir().join(format!("ringspun-control-groups-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let allowed = Groups { memberships, root: &root }.allowed();
        fs::remove_dir_all(root).unwrap();
        allowed
    }

    #[test]
    fn of_version_2_the_strictest_above_the_process_counts() {
        let files = [
            ("memory.max", "max"),
            ("system.slice/memory.max", "1000"),
            ("system.slice/memory.current", "900"),
            ("system.slice/unit/memory.max", "500"),
            ("system.slice/unit/memory.current", "100"),
            ("system.slice/unit/cpu.max", "150000 100000"),
            ("system.slice/cpu.max", "max 100000"),
            ("system.slice/unit/pids.max", "max"),
        ];
        let right = Allowed {
            memory_bytes: Some(500),
            memory_room_bytes: Some(100),
            cpu_percent: Some(150),
            processes: None,
        };
        assert_eq!(allowed("2", "0::/system.slice/unit\n", &files), right);
    }

    #[test]
    fn of_version_1_each_controller_has_a_tree() {
        let memberships =
            "12:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/docker/abc\n1:name=systemd:/x\n0::/\n";
        let files = [
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/docker/abc/memory.limit_in_bytes", "4096"),
            ("memory/docker/abc/memory.usage_in_bytes", "96"),
            ("cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "50000"),
            ("cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1"),
            // The container sees its own group as the root.
            ("pids/pids.max", "64"),
        ];
        let right = Allowed {
            memory_bytes: Some(4096),
            memory_room_bytes: Some(4000),
            cpu_percent: Some(50),
            processes: Some(64),
        };
        assert_eq!(allowed("1", memberships, &files), right);
        assert!(described(&right).is_some_and(|limit| limit.fields.len() == 3));
    }

    #[test]
    fn without_limits_nothing_is_said() {
        let files = [("memory.max", "max"), ("memory/memory.limit_in_bytes", "9223372036854771712")];
        assert!(described(&allowed("none", "0::/\n1:memory:/\n", &files)).is_none());
    }
}
