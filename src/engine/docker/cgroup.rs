//! What a container has used, read from the control groups of this host.
//!
//! For engines that are on this host and cannot tell: where not every cgroup hierarchy is mounted, Docker answers with an empty record.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::Usage;

/// Where control groups are mounted, by the convention that engines follow as well.
const ROOT: &str = "/sys/fs/cgroup";

/// The usage of the container whose first process has this id on this host; `None` where it is not to be had.
pub(super) fn usage(pid: i64) -> Option<Usage> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let network = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let v1 = |controller: &str| v1_group(&groups, controller).map(|path| Path::new(ROOT).join(controller).join(path));
    let (cpu, memory, pids, block) = match (v1("cpuacct"), v1("memory"), v1("pids"), v1("blkio")) {
        (Some(cpu), Some(memory), Some(pids), Some(block)) => (
            Duration::from_nanos(number(&cpu.join("cpuacct.usage"))?),
            number(&memory.join("memory.usage_in_bytes"))?.saturating_sub(field(&memory.join("memory.stat"), "total_inactive_file")),
            number(&pids.join("pids.current")).unwrap_or(0),
            bytes_v1(&read(&block.join("blkio.throttle.io_service_bytes"))),
        ),
        _ => {
            let group = Path::new(ROOT).join(groups.lines().find_map(|line| line.strip_prefix("0::/"))?);
            (
                Duration::from_micros(field(&group.join("cpu.stat"), "usage_usec")),
                number(&group.join("memory.current"))?.saturating_sub(field(&group.join("memory.stat"), "inactive_file")),
                number(&group.join("pids.current")).unwrap_or(0),
                bytes_v2(&read(&group.join("io.stat"))),
            )
        }
    };
    Some(Usage { cpu, memory, network: received_and_sent(&network), block, pids })
}

/// A process's group in a v1 hierarchy, without the leading slash.
fn v1_group(groups: &str, controller: &str) -> Option<PathBuf> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then(|| PathBuf::from(path.trim_start_matches('/')))
    })
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    read(path).trim().parse().ok()
}

fn field(path: &Path, name: &str) -> u64 {
    read(path).lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

/// Lines of `8:0 Read 4096`.
fn bytes_v1(text: &str) -> (u64, u64) {
    let sum = |operation: &str| {
        let of_operation = text.lines().filter_map(|line| line.split_once(' ')?.1.strip_prefix(operation));
        of_operation.filter_map(|bytes| bytes.trim().parse::<u64>().ok()).sum()
    };
    (sum("Read "), sum("Write "))
}

/// Lines of `8:0 rbytes=4096 wbytes=0 …`.
fn bytes_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum();
    (sum("rbytes="), sum("wbytes="))
}

/// The container's own interfaces, its loopback not counted.
fn received_and_sent(table: &str) -> (u64, u64) {
    let interfaces = table.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    interfaces.fold((0, 0), |(received, sent), (_, figures)| {
        let figures: Vec<u64> = figures.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        (received + figures.first().unwrap_or(&0), sent + figures.get(8).unwrap_or(&0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_in_hierarchies_that_share_a_mount() {
        let groups = "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/docker/abc\n";
        assert_eq!(v1_group(groups, "cpuacct"), Some(PathBuf::from("docker/abc")));
        assert_eq!(v1_group(groups, "pids"), None);
    }

    #[test]
    fn figures_are_summed() {
        assert_eq!(bytes_v1("8:0 Read 10\n8:0 Write 3\n8:16 Read 1\nTotal 14\n"), (11, 3));
        assert_eq!(bytes_v2("8:0 rbytes=10 wbytes=3 rios=1\n8:16 rbytes=1 wbytes=0\n"), (11, 3));
        let table = "Inter-| Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 5 1 0 0 0 0 0 0 7 1 0\n";
        assert_eq!(received_and_sent(table), (5, 7));
    }
}
