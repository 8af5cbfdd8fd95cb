//! What goes over the wire in more than one route.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::{LimitOverrides, VolumeLimits};
use crate::home::Hold;
use crate::name::VolumeName;
use crate::units::Size;
use crate::workspace::Enforcement;

/// What a workspace may use; what is absent or `null` is as its template says.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    /// CPUs at once; fractions are allowed.
    #[schema(minimum = 0.01, maximum = 4096)]
    cpus: Option<f64>,
    /// Memory, as `8GiB`.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,6}(MiB|GiB)$", example = "8GiB")]
    memory: Option<Size>,
    /// Processes and threads.
    #[schema(minimum = 8, maximum = 4_194_304)]
    pids: Option<u32>,
    /// Size of the home, as `50GiB`.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,6}(MiB|GiB)$", example = "50GiB")]
    disk: Option<Size>,
    /// Files and directories in the home.
    #[schema(minimum = 64, maximum = 4_294_967_295_u64)]
    inodes: Option<u64>,
    /// Its volumes, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, OfVolume>, required = false)]
    volumes: BTreeMap<VolumeName, OfVolume>,
}

/// What may be in a volume; what is absent or `null` is as the template says.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = VolumeLimits)]
pub(super) struct OfVolume {
    /// Its size, as `2GiB`.
    #[schema(value_type = Option<String>, pattern = "^[0-9]{1,6}(MiB|GiB)$", example = "2GiB")]
    disk: Option<Size>,
    /// Files and directories in it.
    #[schema(minimum = 64, maximum = 4_294_967_295_u64)]
    inodes: Option<u64>,
}

/// How a limit holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LimitEnforcement)]
pub(super) struct Holding {
    /// `cpus`, `memory`, `pids`, `disk`, `inodes`, `volumes.NAME.disk`, `volumes.NAME.inodes`.
    limit: String,
    /// `now`; `at-next-start`, of its container, at the earliest; `measured`: nothing enforces it; `impossible`, as homes are kept.
    enforced: &'static str,
    /// Why not now.
    why: Option<String>,
}

impl From<Enforcement> for Holding {
    fn from(Enforcement { limit, hold }: Enforcement) -> Self {
        let (enforced, why) = match hold {
            Hold::Now => ("now", None),
            Hold::AtNextStart(why) => ("at-next-start", Some(why)),
            Hold::Measured(why) => ("measured", Some(why.to_owned())),
            Hold::Impossible(why) => ("impossible", Some(why)),
        };
        Self { limit, enforced, why }
    }
}

impl From<Limits> for LimitOverrides {
    fn from(Limits { cpus, memory, pids, disk, inodes, volumes }: Limits) -> Self {
        let volumes = volumes.into_iter().map(|(name, OfVolume { disk, inodes })| (name, VolumeLimits { disk, inodes })).collect();
        Self { cpus, memory, pids, disk, inodes, sessions: None, volumes }
    }
}

impl From<LimitOverrides> for Limits {
    fn from(LimitOverrides { cpus, memory, pids, disk, inodes, sessions: _, volumes }: LimitOverrides) -> Self {
        let volumes = volumes.into_iter().map(|(name, VolumeLimits { disk, inodes })| (name, OfVolume { disk, inodes })).collect();
        Self { cpus, memory, pids, disk, inodes, volumes }
    }
}

/// A moment as it is asked for, in UTC: `2026-01-31T12:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Moment(pub(super) SystemTime);

impl TryFrom<String> for Moment {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let parsed = humantime::parse_rfc3339_weak(&text);
        parsed.map(Self).map_err(|_| "since and until are moments in UTC, such as 2026-01-31T12:00:00Z")
    }
}

/// Whether something is of the time from `since` on and before `until`.
pub(super) fn is_within(at: SystemTime, since: Option<Moment>, until: Option<Moment>) -> bool {
    since.is_none_or(|since| at >= since.0) && until.is_none_or(|until| at < until.0)
}

/// To the second, in UTC.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
