//! Whether the limits of a workspace hold: each of them now, from a next start on, or never where homes are kept as they are. Looked at, not
//! remembered: what was set is one thing, what a disk does is another.

use std::sync::Arc;

use super::directory::Directory;
use super::recipe::Given;
use super::settings::Applied;
use crate::auth::LimitOverrides;
use crate::home::{Hold, HomeId, Quota};
use crate::name::{VolumeName, WorkspaceName};

/// How one limit of a workspace holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enforcement {
    /// Which: `cpus`, `memory`, `pids`, `disk`, `inodes`, `volumes.data.disk` …
    pub limit: String,
    /// How.
    pub hold: Hold,
}

impl Directory {
    /// How all limits of a workspace hold; `applied` says whether its container goes by its own.
    pub(super) async fn enforcement(&self, name: &WorkspaceName, given: &Given, applied: &Applied) -> Vec<Enforcement> {
        let runs = self.drivers.get(name).is_some_and(|handle| handle.seen.borrow().running.is_some());
        let container = match applied {
            Applied::NotYet(why) => Hold::AtNextStart(why.clone()),
            _ if runs => Hold::Now,
            _ => Hold::AtNextStart("it does not run".to_owned()),
        };
        let mut all: Vec<Enforcement> =
            ["cpus", "memory", "pids"].map(|limit| Enforcement { limit: limit.to_owned(), hold: container.clone() }).into();
        let (house, trees) = (Arc::clone(&self.house), given.trees(name));
        let looked = self.house.on_disk(move || trees.into_iter().map(|(id, quota)| of_tree(&house.parts.homes, id, quota)).collect());
        let of_homes: Vec<Vec<Enforcement>> = looked.await.unwrap_or_default();
        all.extend(of_homes.into_iter().flatten());
        all
    }
}

/// How the limits of a home or of a volume hold, those that it has.
fn of_tree(homes: &crate::home::Homes, id: HomeId, quota: Quota) -> Result<Vec<Enforcement>, crate::home::HomeError> {
    let holds = homes.holds(&id, &quota)?;
    let of = |limit: &str| id.volume.as_ref().map_or_else(|| limit.to_owned(), |volume| format!("volumes.{volume}.{limit}"));
    let bytes = quota.bytes.map(|_| Enforcement { limit: of("disk"), hold: holds.bytes });
    let inodes = quota.inodes.map(|_| Enforcement { limit: of("inodes"), hold: holds.inodes });
    Ok(bytes.into_iter().chain(inodes).collect())
}

impl LimitOverrides {
    /// Whether one of these sets a limit of this name.
    pub(super) fn sets(&self, limit: &str) -> bool {
        match limit {
            "cpus" => self.cpus.is_some(),
            "memory" => self.memory.is_some(),
            "pids" => self.pids.is_some(),
            "disk" => self.disk.is_some(),
            "inodes" => self.inodes.is_some(),
            _ => self.sets_of_volume(limit).unwrap_or_default(),
        }
    }

    fn sets_of_volume(&self, limit: &str) -> Option<bool> {
        let (volume, limit) = limit.strip_prefix("volumes.")?.split_once('.')?;
        let of = self.volumes.get(&volume.parse::<VolumeName>().ok()?)?;
        Some(if limit == "disk" { of.disk.is_some() } else { of.inodes.is_some() })
    }
}
