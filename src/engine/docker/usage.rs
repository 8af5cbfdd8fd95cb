//! What a container has used, out of what Docker counts.

use std::time::Duration;

use bollard::models::{ContainerMemoryStats, ContainerStatsResponse};

use crate::engine::Usage;

/// The usage in an answer; `None` where it is the empty one that Docker gives for a container that does not run.
pub(super) fn usage(stats: &ContainerStatsResponse) -> Option<Usage> {
    if stats.read.as_deref().is_none_or(|at| at.starts_with("0001-")) {
        return None;
    }
    let cpu = stats.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage).unwrap_or(0);
    let networks = stats.networks.iter().flat_map(|networks| networks.values());
    let blocks = stats.blkio_stats.iter().flat_map(|block| block.io_service_bytes_recursive.iter().flatten());
    let block = |operation: &str| {
        let entries = blocks.clone().filter(|entry| entry.op.as_deref().is_some_and(|op| op.eq_ignore_ascii_case(operation)));
        entries.filter_map(|entry| entry.value).sum()
    };
    Some(Usage {
        cpu: Duration::from_nanos(cpu),
        memory: stats.memory_stats.as_ref().map_or(0, memory),
        network: networks.fold((0, 0), |(rx, tx), net| (rx + net.rx_bytes.unwrap_or(0), tx + net.tx_bytes.unwrap_or(0))),
        block: (block("read"), block("write")),
        pids: stats.pids_stats.as_ref().and_then(|pids| pids.current).unwrap_or(0),
    })
}

/// Page cache that has not been used lately is the kernel's to take back: it is not what the container needs.
fn memory(stats: &ContainerMemoryStats) -> u64 {
    let reclaimable = |name: &str| stats.stats.as_ref().and_then(|stats| stats.get(name).copied());
    // The first is cgroup v1's name, whose plain `inactive_file` leaves out child groups; the second is v2's.
    let cache = reclaimable("total_inactive_file").or_else(|| reclaimable("inactive_file")).unwrap_or(0);
    stats.usage.unwrap_or(0).saturating_sub(cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(memory: &str) -> ContainerStatsResponse {
        serde_json::from_str(&format!(
            r#"{{"read":"2026-11-22T05:00:00Z","cpu_stats":{{"cpu_usage":{{"total_usage":1500000000}}}},"memory_stats":{memory},
                "networks":{{"eth0":{{"rx_bytes":5,"tx_bytes":7}},"eth1":{{"rx_bytes":1,"tx_bytes":1}}}},"pids_stats":{{"current":3}},
                "blkio_stats":{{"io_service_bytes_recursive":[{{"op":"Read","value":10}},{{"op":"Read","value":1}},{{"op":"write","value":4}}]}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn cache_is_not_memory_on_either_kind_of_cgroup() {
        let v1 = usage(&stats(r#"{"usage":100,"stats":{"total_inactive_file":30,"inactive_file":20}}"#)).unwrap();
        let v2 = usage(&stats(r#"{"usage":100,"stats":{"inactive_file":30}}"#)).unwrap();
        assert_eq!(v1, Usage { cpu: Duration::from_millis(1500), memory: 70, network: (6, 8), block: (11, 4), pids: 3 });
        assert_eq!(v2, v1);
    }

    #[test]
    fn an_empty_answer_is_no_usage() {
        assert_eq!(usage(&serde_json::from_str(r#"{"read":"0001-01-01T00:00:00Z"}"#).unwrap()), None);
    }
}
