//! The `[home]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Where homes are, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a home is kept, and with it whether its size is limited: `directory`, a plain one, not limited; `loop`, an image with a file system
    /// of its own, on any disk; `btrfs`, a subvolume, where `root` is on btrfs; `xfs`, a directory with a project quota, where `root` is on XFS
    /// mounted with `prjquota`. Homes that are plain directories are served by all four, and stay what they are.
    pub driver: DriverKind,
    /// The directory that holds the homes. Default: `homes` in `state_dir`.
    pub root: Option<PathBuf>,
    /// For how long the homes of a workspace that was deleted are kept, so that it can be had back. Counts for those that are deleted from then on.
    pub deleted_keep: Span,
}

/// How a home is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// A plain directory. Its size is not limited.
    Directory,
    /// An image with a file system of its own.
    Loop,
    /// A subvolume.
    Btrfs,
    /// A directory with a project quota.
    Xfs,
}

impl Default for Config {
    fn default() -> Self {
        Self { driver: DriverKind::Directory, root: None, deleted_keep: Span::secs(7 * 24 * 60 * 60) }
    }
}
