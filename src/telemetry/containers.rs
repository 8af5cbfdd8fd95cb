//! What each container uses, by its workspace: the one place where a workspace is a label.
//!
//! The totals are the engine's, so they are set, not counted, and start again at zero with their container. A workspace's series go when
//! its container does: their number is bounded by the containers that run.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, IntCounterVec, Opts};

/// What a container has used, in total since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ContainerUsage {
    /// CPU time of all its processes, in seconds.
    pub cpu_seconds: f64,
    /// Memory in use now, in bytes, without reclaimable page cache.
    pub memory_bytes: u64,
    /// Bytes received and sent.
    pub network_bytes: (u64, u64),
    /// Bytes read from and written to block devices.
    pub block_bytes: (u64, u64),
    /// Processes and threads now.
    pub pids: u64,
}

/// The usage of all containers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContainerMetrics {
    usage: Arc<Mutex<BTreeMap<String, ContainerUsage>>>,
    descs: Vec<Desc>,
}

/// The metrics of one moment.
struct Snapshot {
    cpu: CounterVec,
    memory: GaugeVec,
    network: IntCounterVec,
    block: IntCounterVec,
    pids: GaugeVec,
}

// === impl ContainerMetrics ===

impl ContainerMetrics {
    /// With no container. Fails only if a name or a label is not one that Prometheus allows.
    pub fn new() -> Result<Self, prometheus::Error> {
        let descs = Snapshot::new()?.collectors().iter().flat_map(|metric| metric.desc()).cloned().collect();
        Ok(Self { usage: Arc::default(), descs })
    }

    /// Sets what a workspace's container has used.
    pub fn set(&self, workspace: &str, usage: ContainerUsage) {
        self.usage.lock().insert(workspace.to_owned(), usage);
    }

    /// Forgets every workspace but these.
    pub fn retain(&self, workspaces: &[&str]) {
        self.usage.lock().retain(|workspace, _| workspaces.contains(&workspace.as_str()));
    }
}

impl Collector for ContainerMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let usage = self.usage.lock().clone();
        // The same call has succeeded in `new`.
        let Ok(snapshot) = Snapshot::new() else { return Vec::new() };
        for (workspace, usage) in &usage {
            snapshot.add(workspace, usage);
        }
        snapshot.collectors().iter().flat_map(|metric| metric.collect()).collect()
    }
}

// === impl Snapshot ===

impl Snapshot {
    fn new() -> Result<Self, prometheus::Error> {
        let direction = ["workspace", "direction"];
        let network = Opts::new("container_network_bytes_total", "Bytes that the workspace's container received (in) and sent (out)");
        let block = Opts::new("container_block_bytes_total", "Bytes that the workspace's container read (in) and wrote (out)");
        Ok(Self {
            cpu: CounterVec::new(Opts::new("container_cpu_seconds_total", "CPU time of the workspace's container"), &["workspace"])?,
            memory: GaugeVec::new(Opts::new("container_memory_bytes", "Memory of the workspace's container"), &["workspace"])?,
            network: IntCounterVec::new(network, &direction)?,
            block: IntCounterVec::new(block, &direction)?,
            pids: GaugeVec::new(Opts::new("container_pids", "Processes and threads in the workspace's container"), &["workspace"])?,
        })
    }

    fn add(&self, workspace: &str, usage: &ContainerUsage) {
        // A counter takes no negative number; the engine has no reason to say one.
        self.cpu.with_label_values(&[workspace]).inc_by(usage.cpu_seconds.max(0.0));
        self.memory.with_label_values(&[workspace]).set(usage.memory_bytes as f64);
        for (metric, (inward, outward)) in [(&self.network, usage.network_bytes), (&self.block, usage.block_bytes)] {
            metric.with_label_values(&[workspace, "in"]).inc_by(inward);
            metric.with_label_values(&[workspace, "out"]).inc_by(outward);
        }
        self.pids.with_label_values(&[workspace]).set(usage.pids as f64);
    }

    fn collectors(&self) -> [&dyn Collector; 5] {
        [&self.cpu, &self.memory, &self.network, &self.block, &self.pids]
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    use super::*;

    #[test]
    fn series_are_set_and_go_with_their_container() {
        let metrics = Metrics::new().unwrap();
        let usage = ContainerUsage { cpu_seconds: 1.5, memory_bytes: 7, network_bytes: (1, 2), block_bytes: (3, 4), pids: 5 };
        metrics.container_usage.set("alice", usage);
        metrics.container_usage.set("bob", ContainerUsage::default());
        metrics.container_usage.set("alice", usage);
        let text = metrics.text().unwrap();
        for line in [
            "# TYPE innkeeper_container_cpu_seconds_total counter",
            "innkeeper_container_cpu_seconds_total{workspace=\"alice\"} 1.5",
            "innkeeper_container_memory_bytes{workspace=\"alice\"} 7",
            "innkeeper_container_network_bytes_total{direction=\"in\",workspace=\"alice\"} 1",
            "innkeeper_container_block_bytes_total{direction=\"out\",workspace=\"alice\"} 4",
            "innkeeper_container_pids{workspace=\"bob\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        metrics.container_usage.retain(&["bob"]);
        let text = metrics.text().unwrap();
        assert!(!text.contains("alice") && text.contains("bob"));
    }

    #[test]
    fn the_process_is_measured_under_the_usual_names() {
        let text = Metrics::new().unwrap().text().unwrap();
        assert!(text.contains("\nprocess_resident_memory_bytes ") && text.contains("\ninnkeeper_panics_total 0"), "{text}");
    }
}
