//! The `[idle]`, `[pool]`, `[limits]`, `[mounts]` and `[capacity]` sections.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::TemplateName;
use crate::units::{Size, Span};

/// When a workspace that nobody uses is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdleConfig {
    /// How long after the last session ended; `0s`: never.
    pub timeout: Span,
    /// How often the sweeper looks.
    pub sweep_every: Span,
    /// Whether a container that uses CPU is not idle.
    pub keep_busy: bool,
    /// How long a container may run at all; `0s`: for ever.
    pub max_lifetime: Span,
    /// How long before the end of `max_lifetime` people at a terminal are told; `0s`: not before it is there.
    pub warn: Span,
    /// How long before an administrator's stop or restart people at a terminal are told, where somebody is in the workspace and the request
    /// names no other time; `0s`: when it begins.
    pub notice: Span,
    /// How long its processes may take to end before they are killed.
    pub stop_grace: Span,
}

/// Ready containers that nobody owns yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// How many are kept ready of each template; 0: none.
    pub size: usize,
    /// Of which template, or of which: `"default"` or `["default", "python"]`.
    pub template: Templates,
    /// Whether no new ones are made for now.
    pub paused: bool,
}

/// One template's name, or several in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Templates {
    /// One.
    One(TemplateName),
    /// Several.
    Several(Vec<TemplateName>),
}

/// What all workspaces together may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Containers running at once, the pool's included; the rest wait in the queue.
    pub containers: usize,
    /// Logins that may wait for a place.
    pub queue: usize,
    /// How long a login waits for a place.
    pub queue_timeout: Span,
    /// Sessions at once of one account.
    pub sessions_per_account: u32,
    /// How long a workspace may take to be ready once it has a place, a pull of its image not counted.
    pub start_timeout: Span,
    /// How long an upgraded container may take until its services are ready, each by its own `ready` or its image's HEALTHCHECK. Beyond it the
    /// former container comes back. Who logs in meanwhile waits.
    pub upgrade_timeout: Span,
    /// How much is to be free on the disks of `state_dir` and of the homes. Below it whoever has no home yet is refused; everybody else goes on.
    pub disk_floor: Size,
    /// Space in `state_dir` that is kept for the gateway's own records and given up to them when the disk is full; `0B`: none.
    pub reserve: Size,
}

/// Directories of the host that may be mounted into workspaces, by `innkeeper workspace mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MountsConfig {
    /// Those in which a directory must lie, or be one. Empty: none may be mounted. The state directory and the engine's socket never are.
    pub allow: Vec<PathBuf>,
}

/// What is measured of workspaces and the host, and what the host costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CapacityConfig {
    /// How often running workspaces and the host are measured; at least `1s`. Of each workspace 240 samples are kept, and 240 averages of the
    /// last day, in memory.
    pub sample_every: Span,
    /// What the host costs a month, so that `innkeeper capacity` can say what a workspace does; 0: it does not say.
    pub host_price: f64,
    /// In what currency.
    pub currency: String,
}

impl Default for CapacityConfig {
    fn default() -> Self {
        Self { sample_every: Span::secs(15), host_price: 0.0, currency: "EUR".to_owned() }
    }
}

impl Default for IdleConfig {
    fn default() -> Self {
        Self {
            timeout: Span::secs(30 * 60),
            sweep_every: Span::secs(30),
            keep_busy: true,
            max_lifetime: Span::secs(0),
            warn: Span::secs(5 * 60),
            notice: Span::secs(10),
            stop_grace: Span::secs(10),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { size: 3, template: Templates::One(TemplateName::default()), paused: false }
    }
}

impl Templates {
    /// The names.
    pub fn names(&self) -> &[TemplateName] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            containers: 12,
            queue: 100,
            queue_timeout: Span::secs(300),
            sessions_per_account: 100,
            start_timeout: Span::secs(60),
            upgrade_timeout: Span::secs(120),
            disk_floor: Size::gib(1),
            reserve: Size::mib(64),
        }
    }
}
