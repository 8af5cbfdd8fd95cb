//! The `[engine]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// What runs the containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which engine.
    pub kind: Kind,
    /// Its Unix socket.
    pub socket: PathBuf,
    /// How long one call may take; pulls of images are not bounded by it.
    pub timeout: Span,
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Docker Engine, 20.10 or later.
    Docker,
}

impl Default for Config {
    fn default() -> Self {
        Self { kind: Kind::Docker, socket: PathBuf::from("/var/run/docker.sock"), timeout: Span::secs(60) }
    }
}
