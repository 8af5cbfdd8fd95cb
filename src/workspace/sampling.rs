//! The task that measures: what workspaces use, how full their homes are, how the host does. Everything that shows figures reads what was found
//! here last, so that it costs the engine nothing however many look.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::directory::{ASKED_AT_ONCE, Directory};
use super::house::House;
use super::meter::TreeBytes;
use super::recipe;
use crate::engine::{ContainerId, NetworkSpec};
use crate::home::HomeId;
use crate::name::WorkspaceName;
use crate::telemetry::{Disk, HostWatch};

/// Rounds after which the homes of workspaces that stand still are looked at: nothing changes in them but what an administrator does.
const STILL_EVERY: u32 = 20;
/// Pause between two rounds whatever the settings say.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

impl Directory {
    /// Measures every `capacity.sample_every`, until told to stop.
    pub(super) async fn measure(self, stop: CancellationToken) {
        let (mut watch, mut ran) = (HostWatch::default(), Vec::new());
        for round in 0u32.. {
            let every = self.house.rules.load().capacity.sample_every.get().max(SHORTEST_PAUSE);
            self.look_at_host(&mut watch).await;
            ran = self.look_at_disks(round % STILL_EVERY == 0, ran).await;
            if round % STILL_EVERY == 0 {
                self.look_at_network().await;
            }
            self.look_at_usage(every).await;
            self.house.note_logins().await;
            tokio::select! { () = sleep(every) => {} () = stop.cancelled() => break }
        }
        self.house.note_logins().await;
    }

    async fn look_at_host(&self, watch: &mut HostWatch) {
        let host = watch.look();
        let disks = self.house.parts.disks.clone();
        let of = |path: PathBuf| Disk::of(&path);
        let looked = self.house.on_disk(move || Ok((of(disks.state), of(disks.homes)))).await;
        let (state, homes) = looked.unwrap_or_default();
        self.house.meter.note_host(host, state, homes);
    }

    /// How many containers the network has addresses for: an engine may be told at any time.
    async fn look_at_network(&self) {
        let name = recipe::network_name(&self.house.rules.load().instance);
        match self.house.engine().network_prefix(&NetworkSpec { name }).await {
            Ok(prefix) => self.house.meter.note_network(prefix),
            Err(why) => debug!(%why, "cannot tell how large the network is"),
        }
    }

    /// How full the homes and volumes of workspaces are: of all, or of those that run or have run at the last look, as what was written last is
    /// to be seen after a stop as well. Returns those that run.
    pub(super) async fn look_at_disks(&self, all: bool, ran: Vec<HomeId>) -> Vec<HomeId> {
        let running = self.drivers.iter().filter(|entry| entry.seen.borrow().running.is_some());
        let running: Vec<HomeId> = running.flat_map(|entry| recipe::trees(entry.key(), entry.seen.borrow().volumes.keys())).collect();
        let some: HashSet<HomeId> = running.iter().cloned().chain(ran).collect();
        let house = Arc::clone(&self.house);
        let looked = self.house.on_disk(move || {
            let homes = &house.parts.homes;
            let ids = if all { homes.homes()? } else { some.into_iter().collect() };
            let mut found: HashMap<WorkspaceName, TreeBytes> = HashMap::new();
            for id in ids {
                match homes.usage(&id) {
                    Ok(Some(usage)) => drop(found.entry(id.workspace).or_default().insert(id.volume, usage.bytes)),
                    Ok(None) => {}
                    Err(why) => debug!(home = %id, %why, "cannot tell how full a home is"),
                }
            }
            if all {
                house.meter.retain_disks(&|name| found.contains_key(name));
            }
            found.into_iter().for_each(|(name, bytes)| house.meter.note_disk(&name, bytes));
            Ok(())
        });
        if let Err(why) = looked.await {
            debug!(%why, "cannot tell how full homes are");
        }
        running
    }

    async fn look_at_usage(&self, every: Duration) {
        let running: Vec<_> =
            self.drivers.iter().filter_map(|entry| Some((entry.key().clone(), entry.seen.borrow().running.clone()?))).collect();
        let ids: Vec<ContainerId> = running.iter().map(|(_, id)| id.clone()).collect();
        let ask = |(name, id): (WorkspaceName, ContainerId)| async move {
            if let Ok(usage) = self.house.engine().usage(&id).await {
                self.house.meter.note(&name, &id, &usage, every);
            }
        };
        futures_util::stream::iter(running).map(ask).buffer_unordered(ASKED_AT_ONCE).for_each(|()| std::future::ready(())).await;
        self.house.meter.retain(&ids);
    }
}

impl House {
    /// Somebody begins a session in a workspace. It is written down with others a little later, so that nobody waits for it.
    pub(super) fn logged_in(&self, name: &WorkspaceName) {
        self.logins.lock().insert(name.clone(), SystemTime::now());
    }

    /// Writes down who has logged in where since the last time.
    pub(super) async fn note_logins(&self) {
        let logins = std::mem::take(&mut *self.logins.lock());
        if logins.is_empty() {
            return;
        }
        if let Err(why) = self.parts.store.note_logins(logins.clone()).await {
            warn!(%why, "cannot remember when people logged in");
            let mut pending = self.logins.lock();
            for (name, at) in logins {
                pending.entry(name).or_insert(at);
            }
        }
    }
}
