//! What a workspace has beside its home, as a template says it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::VolumeLimits;
use crate::home::{Quota, Skeleton};
use crate::name::VolumeName;
use crate::units::Size;

/// A directory beside the home that is kept as the home is, with a limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Volume {
    /// Its name, of `a-z`, `0-9` and `-`. No two of a template have the same. What a workspace has in a volume goes by this name, whatever
    /// template its container is made from.
    pub name: VolumeName,
    /// Where it appears in the container: an absolute path, of letters, digits and `._+@-`, that is not in or around the home or another volume,
    /// nor where the container has its programs and devices.
    pub path: String,
    /// Its size. Enforced, reported and changed as the home's is: `innkeeper workspace limit` and a grant go before it.
    pub disk: Size,
    /// Files and directories that it may have. Default: as for a home.
    pub inodes: Option<u64>,
    /// What a new one starts with: as for a home. Of a snapshot it is the volume of the same name.
    pub skeleton: Option<Skeleton>,
}

/// Which volumes a container has, and where each is in it.
pub(super) type Volumes = BTreeMap<VolumeName, String>;

impl Volume {
    /// The same as limits.
    pub(super) fn as_limits(&self) -> VolumeLimits {
        VolumeLimits { disk: Some(self.disk), inodes: self.inodes }
    }

    /// What may be in it.
    pub fn quota(&self) -> Quota {
        Quota { bytes: Some(self.disk.get()), inodes: self.inodes }
    }
}

impl Default for Volume {
    fn default() -> Self {
        Self { name: VolumeName::default(), path: "/data".to_owned(), disk: Size::gib(10), inodes: None, skeleton: None }
    }
}
