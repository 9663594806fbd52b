//! How much memory there is, and what a query may use of it.

use std::path::Path;

use super::ServerFlags;
use crate::config::parse_bytes;

/// Bytes that a query may use; 0 is no limit.
pub fn max_memory_bytes(flags: &ServerFlags) -> u64 {
    flags.query_max_memory_bytes.unwrap_or_else(|| available(Path::new("/")).map_or(0, |bytes| bytes / 4))
}

/// A number of bytes, or a size with a unit.
pub(super) fn parse_memory(text: &str) -> Result<u64, String> {
    text.parse().or_else(|_| parse_bytes(text))
}

/// Memory of the machine, or what the control group of this process may use of it if that is less. `None` where the
/// system does not say. `root` is the root of the file system.
fn available(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let total = read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let number = |path: String| read(&path).and_then(|text| text.trim().parse::<u64>().ok());
    let mut limits: Vec<u64> = total.into_iter().collect();
    limits.extend(number("sys/fs/cgroup/memory.max".to_owned()));
    limits.extend(number("sys/fs/cgroup/memory/memory.limit_in_bytes".to_owned()));
    for line in read("proc/self/cgroup").unwrap_or_default().lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let file = match controllers {
            "" => "memory.max",
            "memory" => "memory.limit_in_bytes",
            _ => continue,
        };
        let folder = if controllers.is_empty() { "sys/fs/cgroup" } else { "sys/fs/cgroup/memory" };
        // A group may be bounded by those that it is in.
        let mut group = group.trim_matches('/');
        while !group.is_empty() {
            limits.extend(number(format!("{folder}/{group}/{file}")));
            group = group.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_of_machine_and_control_groups_counts() {
        let info = ("proc/meminfo", "MemTotal:        4000 kB\nMemFree:  1 kB\n");
        assert_eq!(available(machine(&[info]).path()), Some(4_096_000));
        let max = |text| machine(&[info, ("sys/fs/cgroup/memory.max", text)]);
        assert_eq!(available(max("max\n").path()), Some(4_096_000));
        assert_eq!(available(max("1000\n").path()), Some(1000));
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let inner =
            [info, group, ("sys/fs/cgroup/a/memory.max", "7\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")];
        assert_eq!(available(machine(&inner).path()), Some(7));
        let old = [
            info,
            ("proc/self/cgroup", "4:memory:/x\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9\n"),
        ];
        assert_eq!(available(machine(&old).path()), Some(9));
        assert_eq!(available(machine(&[]).path()), None);
    }

    #[test]
    fn memory_is_a_number_of_bytes_or_has_a_unit() {
        assert_eq!((parse_memory("0"), parse_memory("123"), parse_memory("1KB")), (Ok(0), Ok(123), Ok(1024)));
        assert!(parse_memory("x").is_err());
    }
}
