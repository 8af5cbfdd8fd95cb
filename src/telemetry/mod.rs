//! Tracing and metrics. Knows nothing of what is measured.

mod config;
mod metrics;

pub use config::{Config, Format};
pub use metrics::Metrics;
