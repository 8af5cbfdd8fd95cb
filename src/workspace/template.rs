//! A named recipe for workspaces.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::Limits;
use crate::units::Size;

/// A named recipe: what a workspace's container is made from, and what it may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Template {
    /// The image. Pulled when it is not there.
    pub image: String,
    /// CPUs that it may use at once; fractions are allowed.
    pub cpus: f64,
    /// Memory that it may use. There is no swap beside it.
    pub memory: Size,
    /// Processes and threads that it may have.
    pub pids: u32,
    /// Files that one process may have open.
    pub open_files: u32,
    /// Size of the home. Reported; enforced where the home's driver can.
    pub disk: Size,
    /// Environment of every process in it. Visible to whoever may inspect the container: no secrets.
    pub env: BTreeMap<String, String>,
    /// Where the home appears in the container.
    pub home: String,
    /// What a person reads at a terminal before the first prompt. Programs never see it, nor does who has a `.hushlogin`.
    pub motd: String,
}

impl Template {
    /// What its containers may use.
    pub fn limits(&self) -> Limits {
        Limits { cpus: self.cpus, memory: self.memory, pids: self.pids, open_files: self.open_files }
    }
}

impl Default for Template {
    fn default() -> Self {
        Self {
            image: "innkeeper/user:latest".to_owned(),
            cpus: 2.0,
            memory: Size::gib(8),
            pids: 512,
            open_files: 16_384,
            disk: Size::gib(50),
            env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
            home: "/home/user".to_owned(),
            motd: String::new(),
        }
    }
}
