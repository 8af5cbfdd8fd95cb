//! The `[http]` section.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Health and metrics over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on; empty: none. Anybody who reaches it can read health and metrics.
    pub listen: String,
    /// Whether `/metrics` has each container's CPU, memory, network and block I/O.
    pub container_metrics: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: "127.0.0.1:2280".to_owned(), container_metrics: true }
    }
}
