//! Tracing, metrics, and the questions whether what is needed is there. Knows nothing of what is measured.

mod config;
mod containers;
mod host;
mod log;
mod metrics;
mod probe;

pub use config::{Config, Format};
pub use containers::{ContainerMetrics, ContainerUsage, VolumeFigures, WorkspaceFigures, WorkspaceLimits};
pub use host::{Disk, Host, HostWatch};
pub use log::{Log, LogError, count_panics, filter, init};
pub use metrics::Metrics;
pub use probe::{Outcome, Probe, ask_all};
