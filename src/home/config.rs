//! The `[home]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where homes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a home is kept.
    pub driver: Driver,
    /// The directory that holds the homes. Default: `homes` in `state_dir`.
    pub root: Option<PathBuf>,
}

/// How a home is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A plain directory. Its size is not limited.
    Directory,
}

impl Default for Config {
    fn default() -> Self {
        Self { driver: Driver::Directory, root: None }
    }
}
