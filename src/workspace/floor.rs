//! The least space that is left on the disks of the state and of the homes. Below it nobody gets a first home: who has one is kept writing for
//! longer. Looked at in the background, so that a login waits for no disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::EnsureError;
use super::directory::Directory;
use super::house::House;
use crate::home::HomeId;
use crate::name::WorkspaceName;
use crate::store::Ballast;

/// The disks that are looked at.
#[derive(Debug, Clone)]
pub struct Disks {
    /// A directory on that of the gateway's records.
    pub state: PathBuf,
    /// A directory on that of the homes.
    pub homes: PathBuf,
    /// The space that is kept for records.
    pub ballast: Option<Arc<Ballast>>,
}

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Floor {
    low: AtomicBool,
}

/// How often it is looked: a fast disk gets a few GiB fuller in between.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Directory {
    /// Whether less is free on a disk than `limits.disk_floor`, as of a few seconds ago.
    pub fn is_low(&self) -> bool {
        self.house.floor.low.load(Ordering::Relaxed)
    }

    /// Looks at the disks until told to stop.
    pub(super) async fn watch_disks(self, stop: CancellationToken) {
        loop {
            tokio::select! { () = tokio::time::sleep(LOOK_EVERY) => {} () = stop.cancelled() => return }
            self.house.look_at_disks().await;
        }
    }
}

impl House {
    /// Looks at the disks once, and keeps the reserve as large as it is to be.
    pub(super) async fn look_at_disks(&self) {
        let (rules, disks) = (self.rules.load_full(), self.parts.disks.clone());
        let reserve = rules.limits.reserve.get();
        let looked = self.on_disk(move || {
            let free = |path: &PathBuf| rustix::fs::statvfs(path).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
            let free = [("state", free(&disks.state)), ("homes", free(&disks.homes))];
            let kept = disks.ballast.as_ref().map_or(Ok(()), |ballast| ballast.keep(reserve));
            Ok((free, kept))
        });
        let (free, kept) = match looked.await {
            Ok(looked) => looked,
            Err(why) => return warn!(%why, "cannot look how full the disks are"),
        };
        if let Err(why) = kept {
            warn!(%why, "cannot reserve space for records");
        }
        let metrics = &self.parts.metrics;
        let mut low = false;
        for (which, free) in free {
            match free {
                Ok(free) => {
                    metrics.disk_free.with_label_values(&[which]).set(i64::try_from(free).unwrap_or(i64::MAX));
                    low |= free < rules.limits.disk_floor.get();
                }
                Err(why) => warn!(which, %why, "cannot tell how full a disk is"),
            }
        }
        metrics.disk_low.set(low.into());
        if self.floor.low.swap(low, Ordering::Relaxed) != low {
            let floor = rules.limits.disk_floor;
            if low {
                warn!(%floor, "less than limits.disk_floor is free: nobody gets a first home");
            } else {
                info!(%floor, "more than limits.disk_floor is free again");
            }
        }
    }

    /// Whether a workspace may have a container made now: its home is there, or there is room for one.
    pub(super) async fn has_room_for(self: &Arc<Self>, name: &WorkspaceName) -> Result<(), EnsureError> {
        if !self.floor.low.load(Ordering::Relaxed) {
            return Ok(());
        }
        let (house, id) = (Arc::clone(self), HomeId::home(name.clone()));
        let exists = self.on_disk(move || house.parts.homes.exists(&id)).await?;
        if exists { Ok(()) } else { Err(EnsureError::DiskLow) }
    }
}
