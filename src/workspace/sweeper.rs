//! The task that stops what nobody uses, and puts back what drifted.
//!
//! It looks first and acts after, asks drivers rather than acting itself, and a failure with one thing does not keep it from the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::directory::Directory;
use super::driver::{Handle, Request, StopReason};
use super::house::Rules;
use super::recipe::{self, Owner};
use crate::engine::{Container, ContainerId, ContainerState, EngineError, Usage};
use crate::home::SlotId;

/// How much CPU time each container had used when it was last looked at.
#[derive(Default)]
struct Samples(HashMap<ContainerId, (Instant, Duration)>);

/// A running workspace that nobody is in: its driver, its container, and what its grant said of its idle limit.
type Candidate = (Handle, ContainerId, Option<Duration>);

/// Share of one CPU, averaged between two sweeps, from which a container counts as busy. A shell at its prompt and an editor's idle
/// server stay well below; anything that computes is far above.
const BUSY: f64 = 0.02;
/// Pause between two sweeps whatever the settings say, so that sweeping is not all that is done.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

impl Directory {
    /// Sweeps every `idle.sweep_every`, until told to stop.
    pub(super) async fn sweep(self, stop: CancellationToken) {
        let mut samples = Samples::default();
        loop {
            if let Err(why) = self.tidy().await {
                warn!(%why, "cannot look for what nobody owns");
            }
            self.stop_idle(&mut samples).await;
            self.remember_all().await;
            self.house.parts.metrics.sweeps.inc();
            let every = self.house.rules.load().idle.sweep_every.get().max(SHORTEST_PAUSE);
            tokio::select! { () = sleep(every) => {} () = stop.cancelled() => return }
        }
    }

    /// Makes room whenever somebody waits for a place.
    pub(super) async fn make_room(self, stop: CancellationToken) {
        loop {
            tokio::select! { () = self.house.admission.pressed() => {} () = stop.cancelled() => return }
            while self.house.admission.waiting() > 0 && self.give_up_one().await {}
        }
    }

    /// Gives up a ready container, or stops the workspace that has been idle longest. `false`: there is nothing to give up.
    async fn give_up_one(&self) -> bool {
        if let Some(spare) = self.house.pool.give_up() {
            info!(container = spare.id.0, "making room, giving up a pool container");
            self.house.throw_away(spare).await;
            return true;
        }
        let idle = |handle: &Handle| handle.seen.borrow().running.is_some().then(|| handle.leases.idle()).flatten();
        let longest = self.handles().into_iter().filter_map(|handle| Some((idle(&handle)?, handle))).max_by_key(|(idle, _)| *idle);
        let Some((_, handle)) = longest else { return false };
        let mut seen = handle.seen.clone();
        seen.mark_unchanged();
        if handle.inbox.send(Request::Stop { reason: StopReason::Room }).await.is_err() {
            return false;
        }
        // Until it stands still, or somebody has come back to it.
        let grace = self.house.rules.load().idle.stop_grace.get() + Duration::from_secs(10);
        let stopped = seen.wait_for(|seen| seen.state != "running" && seen.state != "stopping");
        tokio::time::timeout(grace, stopped).await.is_ok_and(|seen| seen.is_ok())
    }

    async fn stop_idle(&self, samples: &mut Samples) {
        let rules = self.house.rules.load_full();
        let mut candidates = Vec::new();
        for handle in self.handles() {
            let seen = handle.seen.borrow().clone();
            let Some(id) = seen.running else { continue };
            let outlived = rules.idle.max_lifetime.unless_zero().is_some_and(|most| seen.since.elapsed() >= most);
            if outlived {
                handle.inbox.try_send(Request::Stop { reason: StopReason::Lifetime }).ok();
            } else if handle.leases.idle().is_some() {
                candidates.push((handle, id, seen.record.idle_timeout));
            }
        }
        if rules.idle.keep_busy {
            candidates = self.not_busy(samples, candidates).await;
        }
        // Drivers stop theirs at the same time as others.
        for (handle, _, timeout) in candidates {
            if is_idle(&rules, &handle, timeout) {
                handle.inbox.try_send(Request::Stop { reason: StopReason::Idle }).ok();
            }
        }
    }

    /// Those that have used no CPU to speak of since the last look. The idle clock of the others starts anew; what was not looked at
    /// before is not judged yet.
    async fn not_busy(&self, samples: &mut Samples, candidates: Vec<Candidate>) -> Vec<Candidate> {
        let usages = join_all(candidates.iter().map(|(_, id, _)| self.house.engine().usage(id))).await;
        let (mut fresh, mut idle) = (HashMap::new(), Vec::new());
        for (candidate, usage) in candidates.into_iter().zip(usages) {
            let (handle, id, _) = &candidate;
            let usage = match usage {
                Ok(usage) => usage,
                // Better stopped too early than never: its processes get their grace, and nothing of hers is lost.
                Err(why) => {
                    debug!(container = id.0, %why, "cannot tell whether it is busy");
                    idle.push(candidate);
                    continue;
                }
            };
            fresh.insert(id.clone(), (Instant::now(), usage.cpu));
            match samples.busy(id, &usage) {
                Some(true) => handle.leases.touch(),
                Some(false) => idle.push(candidate),
                None => {}
            }
        }
        samples.0 = fresh;
        idle
    }

    /// Removes what nobody owns, and has drivers look at what is not as they know it.
    async fn tidy(&self) -> Result<(), EngineError> {
        // In this order: whatever is made after the first step is held by somebody before the second.
        let slots = self.house.parts.slots.clone();
        let unheld = self.house.on_disk(move || slots.unheld()).await.unwrap_or_else(|why| {
            warn!(%why, "cannot list slots");
            Vec::new()
        });
        let containers = self.house.engine().list().await?;
        let mut used: HashSet<SlotId> = HashSet::new();
        for container in &containers {
            let slot = recipe::slot_of(container);
            let held = slot.as_ref().is_some_and(|slot| self.house.parts.slots.is_held(slot));
            match self.owner(container) {
                Owner::Workspace(name) => {
                    used.extend(slot);
                    let seen = self.drivers.get(&name).map(|handle| handle.seen.borrow().clone());
                    let runs = container.state == ContainerState::Running;
                    let settled = seen.as_ref().is_some_and(|seen| seen.state == "running" || seen.state == "stopped");
                    let as_known = seen.as_ref().is_some_and(|seen| seen.running.is_some() == runs);
                    if seen.is_none() || (settled && !as_known) {
                        info!(workspace = %name, state = ?container.state, "container is not as known, looking at it");
                        self.look(&name).await;
                    }
                }
                Owner::Pool | Owner::Stranger if !held => self.remove_orphan(container).await,
                Owner::Pool | Owner::Stranger => {}
            }
        }
        for id in unheld.into_iter().filter(|id| !used.contains(id)) {
            let Some(slot) = self.house.parts.slots.adopt(id) else { continue };
            match self.house.on_disk(move || slot.remove()).await {
                Ok(()) => self.house.parts.metrics.orphans.with_label_values(&["slot"]).inc(),
                Err(why) => warn!(%why, "cannot remove a slot that nobody owns"),
            }
        }
        self.count(&containers);
        Ok(())
    }

    async fn remove_orphan(&self, container: &Container) {
        info!(container = container.name, "nobody owns this container, removing it");
        let slot = recipe::slot_of(container).and_then(|id| self.house.parts.slots.adopt(id));
        if self.house.discard(&container.id, slot).await.is_ok() {
            self.house.parts.metrics.orphans.with_label_values(&["container"]).inc();
        }
    }

    fn count(&self, containers: &[Container]) {
        let gauge = &self.house.parts.metrics.containers;
        let states = [
            ("created", ContainerState::Created),
            ("running", ContainerState::Running),
            ("paused", ContainerState::Paused),
            ("exited", ContainerState::Exited),
            ("unusable", ContainerState::Unusable),
        ];
        for (label, state) in states {
            let count = containers.iter().filter(|container| container.state == state).count();
            gauge.with_label_values(&[label]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Writes down when each running workspace was last used, so that idle clocks go on after a restart.
    pub(super) async fn remember_all(&self) {
        let running: Vec<_> = self
            .drivers
            .iter()
            .filter(|entry| entry.seen.borrow().running.is_some())
            .map(|entry| {
                let mut record = entry.seen.borrow().record.clone();
                record.last_active = SystemTime::now() - entry.leases.idle().unwrap_or_default();
                (entry.key().clone(), record)
            })
            .collect();
        for (name, record) in running {
            Arc::clone(&self.house).remember(name, record).await;
        }
    }
}

fn is_idle(rules: &Rules, handle: &Handle, timeout: Option<Duration>) -> bool {
    let limit = match timeout {
        Some(limit) => (!limit.is_zero()).then_some(limit),
        None => rules.idle.timeout.unless_zero(),
    };
    matches!((limit, handle.leases.idle()), (Some(limit), Some(idle)) if idle >= limit)
}

impl Samples {
    /// Whether it used CPU since the last look; `None` if there was none.
    fn busy(&self, id: &ContainerId, usage: &Usage) -> Option<bool> {
        let (then, before) = self.0.get(id)?;
        let used = usage.cpu.saturating_sub(*before).as_secs_f64();
        Some(used > BUSY * then.elapsed().as_secs_f64())
    }
}
