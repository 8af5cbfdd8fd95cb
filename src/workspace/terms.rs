//! What an administrator has set of a workspace, as its driver goes by it: whether anybody may be in it, what it may use, and what of the host
//! it sees. Its variables are not here: they are nobody's but its processes'.

use tracing::warn;

use super::{Ending, EnsureError, IdlePolicy, NetworkPolicy, policy};
use crate::auth::LimitOverrides;
use crate::name::WorkspaceName;
use crate::store::{Settings, Stage, StoredMount, Upgrade};

/// What a driver goes by. Of two, the one of the higher revision is the newer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Terms {
    pub(super) revision: i64,
    /// Why nobody may be in it.
    pub(super) barred: Option<Barred>,
    pub(super) limits: LimitOverrides,
    pub(super) mounts: Vec<StoredMount>,
    /// When it is stopped, if not as others are.
    pub(super) idle: Option<IdlePolicy>,
    /// Where its network leads, if not as its template says.
    pub(super) network: Option<NetworkPolicy>,
    /// Whether it is to get another image.
    pub(super) upgrade: Option<Upgrade>,
}

/// Why nobody may be in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Barred {
    /// An administrator lets nobody in, for this reason.
    Suspended(String),
    /// It is deleted, or about to be.
    Deleted,
    /// It is being made, or had back.
    Passing,
    /// Its homes are being replaced.
    Replacing,
}

impl Terms {
    pub(super) fn of(name: &WorkspaceName, settings: Settings) -> Self {
        let passing = settings.passage.and_then(|passage| match passage.stage {
            Stage::Deleting | Stage::Deleted | Stage::Purging => Some(Barred::Deleted),
            Stage::Restoring | Stage::Reserved | Stage::Filling => Some(Barred::Passing),
            Stage::Replacing => Some(Barred::Replacing),
            Stage::Confirming => None,
        });
        Self {
            revision: settings.revision,
            barred: passing.or(settings.suspension.map(|suspension| Barred::Suspended(suspension.reason))),
            limits: read(name, settings.limits.as_deref()),
            mounts: settings.mounts,
            idle: policy::idle(&settings.policy),
            network: policy::network(&settings.policy),
            upgrade: settings.upgrade,
        }
    }
}

// === impl Barred ===

impl Barred {
    /// The word for it in a list, and the value of the metric label `reason`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Suspended(_) => "suspended",
            Self::Deleted => "deleted",
            Self::Passing => "passing",
            Self::Replacing => "restoring",
        }
    }

    /// Whether its container goes, rather than stands still.
    pub(super) fn removes(&self) -> bool {
        // A container that stands still has the home it was made for mounted, whatever that is called by now.
        matches!(self, Self::Deleted | Self::Replacing)
    }

    /// What people in it are told.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Suspended(reason) => Ending::Suspended(reason.clone()),
            Self::Deleted => Ending::Deleted,
            Self::Passing => Ending::Stopping("it is being moved"),
            Self::Replacing => Ending::Stopping("it is being restored from a backup"),
        }
    }
}

impl From<Barred> for EnsureError {
    fn from(why: Barred) -> Self {
        match why {
            Barred::Suspended(reason) => Self::Suspended(reason),
            Barred::Deleted => Self::Deleted,
            Barred::Passing | Barred::Replacing => Self::Passing,
        }
    }
}

/// Limits as they were [`written`].
pub(super) fn read(name: &WorkspaceName, text: Option<&str>) -> LimitOverrides {
    let parsed = text.map_or_else(|| Ok(LimitOverrides::default()), serde_json::from_str);
    parsed.unwrap_or_else(|why| {
        // Written by a version that knows others. Those of the template are better than nobody at all in it.
        warn!(workspace = %name, %why, "limits that were set are not understood");
        LimitOverrides::default()
    })
}

/// Limits as they are remembered; `None` where none is set.
pub(super) fn written(limits: &LimitOverrides) -> Option<String> {
    if *limits == LimitOverrides::default() { None } else { serde_json::to_string(limits).ok() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::VolumeLimits;
    use crate::units::Size;

    fn any_limits() -> impl Strategy<Value = LimitOverrides> {
        let size = || proptest::option::of((1u64..1 << 50).prop_map(Size::bytes));
        let cpus = (1u32..409_600).prop_map(|hundredths| f64::from(hundredths) / 100.0);
        let (cpus, count) = (proptest::option::of(cpus), || proptest::option::of(1u32..1 << 22));
        let inodes = || proptest::option::of(1u64..1 << 32);
        let volume = (size(), inodes()).prop_map(|(disk, inodes)| VolumeLimits { disk, inodes });
        let name = prop::sample::select(vec!["data", "cache", "logs"]).prop_map(|name| name.parse().unwrap());
        let volumes = prop::collection::btree_map(name, volume, 0..3);
        (cpus, size(), count(), size(), inodes(), count(), volumes).prop_map(|(cpus, memory, pids, disk, inodes, sessions, volumes)| {
            LimitOverrides { cpus, memory, pids, disk, inodes, sessions, volumes }
        })
    }

    proptest! {
        #[test]
        fn what_is_remembered_of_limits_is_what_was_set(limits in any_limits()) {
            prop_assert_eq!(read(&"alice".parse().unwrap(), written(&limits).as_deref()), limits);
        }

        #[test]
        fn what_is_set_higher_goes_before_what_is_set_lower(above in any_limits(), below in any_limits()) {
            let both = above.clone().over(below.clone());
            prop_assert_eq!(both.cpus, above.cpus.or(below.cpus));
            prop_assert_eq!(both.memory, above.memory.or(below.memory));
            prop_assert_eq!(both.inodes, above.inodes.or(below.inodes));
            for (name, both) in &both.volumes {
                let of = |limits: &LimitOverrides| limits.volumes.get(name).copied().unwrap_or_default();
                prop_assert_eq!(both.disk, of(&above).disk.or(of(&below).disk));
                prop_assert_eq!(both.inodes, of(&above).inodes.or(of(&below).inodes));
            }
            prop_assert_eq!(above.clone().over(LimitOverrides::default()), above);
            prop_assert_eq!(LimitOverrides::default().over(below.clone()), below);
        }
    }

    #[test]
    fn words_of_another_version_limit_nothing() {
        assert_eq!(read(&"alice".parse().unwrap(), Some("{\"cpus\": \"many\"}")), LimitOverrides::default());
        assert_eq!(read(&"alice".parse().unwrap(), None), LimitOverrides::default());
    }
}
