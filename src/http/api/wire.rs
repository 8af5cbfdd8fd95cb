//! What goes over the wire in more than one route.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::LimitOverrides;
use crate::units::Size;

/// What a workspace may use; what is absent or `null` is as its template says.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
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
}

impl From<Limits> for LimitOverrides {
    fn from(Limits { cpus, memory, pids, disk, inodes }: Limits) -> Self {
        Self { cpus, memory, pids, disk, inodes, sessions: None }
    }
}

impl From<LimitOverrides> for Limits {
    fn from(LimitOverrides { cpus, memory, pids, disk, inodes, sessions: _ }: LimitOverrides) -> Self {
        Self { cpus, memory, pids, disk, inodes }
    }
}

/// To the second, in UTC.
pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
