//! What each workspace that runs uses and may use: the one place where a workspace is a label.
//!
//! The totals of a container are the engine's, so they are set, not counted, and start again at zero with their container. All series of a
//! workspace go when its container stops: their number is bounded by the containers that run, whoever logs in and whatever is asked for.

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

/// What a workspace may use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorkspaceLimits {
    /// CPUs.
    pub cpu_cores: f64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes in its home and volumes.
    pub disk_bytes: u64,
}

/// How full a volume of a workspace is. What is not known has no series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeFigures {
    /// Bytes in it, where somebody has counted them.
    pub used_bytes: Option<u64>,
    /// Bytes that may be in it, where its template names it.
    pub limit_bytes: Option<u64>,
}

/// How a workspace that runs does. What is not known has no series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkspaceFigures {
    /// What its container has used, where the engine could say.
    pub usage: Option<ContainerUsage>,
    /// What it may use, where its template is known.
    pub limits: Option<WorkspaceLimits>,
    /// Bytes in its home and volumes, where somebody has counted them.
    pub disk_bytes: Option<u64>,
    /// Its volumes, by their names. A template has few of them.
    pub volumes: BTreeMap<String, VolumeFigures>,
    /// For how long nobody has used it; zero while somebody does.
    pub idle_seconds: f64,
    /// Sessions open now.
    pub sessions: usize,
    /// Logins since the gateway's start, those before its container's start counted: a counter that went back with each stop would lose the
    /// login that starts the next.
    pub logins: u64,
}

/// The figures of all workspaces that run. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContainerMetrics {
    figures: Arc<Mutex<BTreeMap<String, WorkspaceFigures>>>,
    descs: Vec<Desc>,
}

/// The metrics of one moment.
struct Snapshot {
    cpu: CounterVec,
    memory: GaugeVec,
    network: IntCounterVec,
    block: IntCounterVec,
    pids: GaugeVec,
    cpu_limit: GaugeVec,
    memory_limit: GaugeVec,
    pids_limit: GaugeVec,
    disk: GaugeVec,
    disk_limit: GaugeVec,
    volume: GaugeVec,
    volume_limit: GaugeVec,
    idle: GaugeVec,
    sessions: GaugeVec,
    logins: IntCounterVec,
}

// === impl ContainerMetrics ===

impl ContainerMetrics {
    /// With no workspace. Fails only if a name or a label is not one that Prometheus allows.
    pub fn new() -> Result<Self, prometheus::Error> {
        let descs = Snapshot::new()?.collectors().iter().flat_map(|metric| metric.desc()).cloned().collect();
        Ok(Self { figures: Arc::default(), descs })
    }

    /// Sets the figures of all workspaces that run. Every other is forgotten.
    pub fn replace(&self, figures: BTreeMap<String, WorkspaceFigures>) {
        *self.figures.lock() = figures;
    }
}

impl Collector for ContainerMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let figures = self.figures.lock().clone();
        // The same call has succeeded in `new`.
        let Ok(snapshot) = Snapshot::new() else { return Vec::new() };
        for (workspace, figures) in &figures {
            snapshot.add(workspace, figures);
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
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["workspace"]);
        let of_volume = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["workspace", "volume"]);
        Ok(Self {
            cpu: CounterVec::new(Opts::new("container_cpu_seconds_total", "CPU time of the workspace's container"), &["workspace"])?,
            memory: gauge("container_memory_bytes", "Memory of the workspace's container")?,
            network: IntCounterVec::new(network, &direction)?,
            block: IntCounterVec::new(block, &direction)?,
            pids: gauge("container_pids", "Processes and threads in the workspace's container")?,
            cpu_limit: gauge("workspace_cpu_limit_cores", "CPUs that the workspace may use at once")?,
            memory_limit: gauge("workspace_memory_limit_bytes", "Memory that the workspace may use")?,
            pids_limit: gauge("workspace_pids_limit", "Processes and threads that the workspace may have")?,
            disk: gauge("workspace_disk_used_bytes", "Bytes in the workspace's home and volumes, as last measured")?,
            disk_limit: gauge("workspace_disk_limit_bytes", "Bytes that the workspace's home and volumes may have in them")?,
            volume: of_volume("workspace_volume_used_bytes", "Bytes in the workspace's volume, as last measured")?,
            volume_limit: of_volume("workspace_volume_limit_bytes", "Bytes that the workspace's volume may have in it")?,
            idle: gauge("workspace_idle_seconds", "For how long nobody has used the workspace; 0 while somebody does")?,
            sessions: gauge("workspace_sessions", "Sessions open in the workspace now")?,
            logins: IntCounterVec::new(Opts::new("workspace_logins_total", "Logins to the workspace"), &["workspace"])?,
        })
    }

    fn add(&self, workspace: &str, figures: &WorkspaceFigures) {
        let set = |metric: &GaugeVec, value: f64| metric.with_label_values(&[workspace]).set(value);
        if let Some(usage) = &figures.usage {
            // A counter takes no negative number; the engine has no reason to say one.
            self.cpu.with_label_values(&[workspace]).inc_by(usage.cpu_seconds.max(0.0));
            set(&self.memory, usage.memory_bytes as f64);
            for (metric, (inward, outward)) in [(&self.network, usage.network_bytes), (&self.block, usage.block_bytes)] {
                metric.with_label_values(&[workspace, "in"]).inc_by(inward);
                metric.with_label_values(&[workspace, "out"]).inc_by(outward);
            }
            set(&self.pids, usage.pids as f64);
        }
        if let Some(limits) = &figures.limits {
            set(&self.cpu_limit, limits.cpu_cores);
            set(&self.memory_limit, limits.memory_bytes as f64);
            set(&self.pids_limit, f64::from(limits.pids));
            set(&self.disk_limit, limits.disk_bytes as f64);
        }
        if let Some(bytes) = figures.disk_bytes {
            set(&self.disk, bytes as f64);
        }
        for (volume, VolumeFigures { used_bytes, limit_bytes }) in &figures.volumes {
            for (metric, bytes) in [(&self.volume, used_bytes), (&self.volume_limit, limit_bytes)] {
                bytes.iter().for_each(|bytes| metric.with_label_values(&[workspace, volume]).set(*bytes as f64));
            }
        }
        set(&self.idle, figures.idle_seconds);
        set(&self.sessions, figures.sessions as f64);
        self.logins.with_label_values(&[workspace]).inc_by(figures.logins);
    }

    fn collectors(&self) -> [&dyn Collector; 15] {
        [
            &self.cpu,
            &self.memory,
            &self.network,
            &self.block,
            &self.pids,
            &self.cpu_limit,
            &self.memory_limit,
            &self.pids_limit,
            &self.disk,
            &self.disk_limit,
            &self.volume,
            &self.volume_limit,
            &self.idle,
            &self.sessions,
            &self.logins,
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::telemetry::Metrics;

    use super::*;

    /// The workspaces that have series.
    fn labelled(text: &str) -> std::collections::BTreeSet<&str> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split_once("workspace=\"")?.1.split('"').next()).collect()
    }

    #[test]
    fn series_are_set_and_go_with_their_workspace() {
        let metrics = Metrics::new().unwrap();
        let usage = ContainerUsage { cpu_seconds: 1.5, memory_bytes: 7, network_bytes: (1, 2), block_bytes: (3, 4), pids: 5 };
        let limits = WorkspaceLimits { cpu_cores: 0.5, memory_bytes: 70, pids: 50, disk_bytes: 700 };
        let alice = WorkspaceFigures {
            usage: Some(usage),
            limits: Some(limits),
            disk_bytes: Some(600),
            volumes: [
                ("data".to_owned(), VolumeFigures { used_bytes: Some(60), limit_bytes: Some(80) }),
                ("old".to_owned(), VolumeFigures { used_bytes: Some(5), limit_bytes: None }),
            ]
            .into(),
            idle_seconds: 2.5,
            sessions: 3,
            logins: 4,
        };
        let bob = WorkspaceFigures::default();
        // Set, not added to.
        for _ in 0..2 {
            metrics.container_usage.replace([("alice".to_owned(), alice.clone()), ("bob".to_owned(), bob.clone())].into());
        }
        let text = metrics.text().unwrap();
        for line in [
            "# TYPE innkeeper_container_cpu_seconds_total counter",
            "innkeeper_container_cpu_seconds_total{workspace=\"alice\"} 1.5",
            "innkeeper_container_memory_bytes{workspace=\"alice\"} 7",
            "innkeeper_container_network_bytes_total{direction=\"in\",workspace=\"alice\"} 1",
            "innkeeper_container_block_bytes_total{direction=\"out\",workspace=\"alice\"} 4",
            "innkeeper_container_pids{workspace=\"alice\"} 5",
            "innkeeper_workspace_cpu_limit_cores{workspace=\"alice\"} 0.5",
            "innkeeper_workspace_memory_limit_bytes{workspace=\"alice\"} 70",
            "innkeeper_workspace_pids_limit{workspace=\"alice\"} 50",
            "innkeeper_workspace_disk_used_bytes{workspace=\"alice\"} 600",
            "innkeeper_workspace_disk_limit_bytes{workspace=\"alice\"} 700",
            "innkeeper_workspace_volume_used_bytes{volume=\"data\",workspace=\"alice\"} 60",
            "innkeeper_workspace_volume_limit_bytes{volume=\"data\",workspace=\"alice\"} 80",
            "innkeeper_workspace_volume_used_bytes{volume=\"old\",workspace=\"alice\"} 5",
            "innkeeper_workspace_idle_seconds{workspace=\"alice\"} 2.5",
            "innkeeper_workspace_sessions{workspace=\"alice\"} 3",
            "# TYPE innkeeper_workspace_logins_total counter",
            "innkeeper_workspace_logins_total{workspace=\"alice\"} 4",
            "innkeeper_workspace_logins_total{workspace=\"bob\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        let unknown = ["container_memory_bytes", "workspace_memory_limit_bytes", "workspace_disk_used_bytes"];
        assert!(unknown.iter().all(|name| !text.contains(&format!("{name}{{workspace=\"bob\"}}"))), "what is not known is not zero");
        assert!(!text.contains("volume_limit_bytes{volume=\"old\""), "nor of a volume");
        metrics.container_usage.replace([("bob".to_owned(), bob)].into());
        assert_eq!(labelled(&metrics.text().unwrap()), ["bob"].into());
        metrics.container_usage.replace(BTreeMap::new());
        assert!(labelled(&metrics.text().unwrap()).is_empty());
    }

    #[test]
    fn the_process_is_measured_under_the_usual_names() {
        let text = Metrics::new().unwrap().text().unwrap();
        assert!(text.contains("\nprocess_resident_memory_bytes ") && text.contains("\ninnkeeper_panics_total 0"), "{text}");
    }
}
