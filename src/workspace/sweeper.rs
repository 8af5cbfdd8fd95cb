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
use super::driver::{Handle, Request, Seen, StopReason};
use super::house::Rules;
use super::recipe::{self, Owner};
use super::{Ending, IdlePolicy, Template, Volume};
use crate::engine::{Container, ContainerId, ContainerState, EngineError, Usage};
use crate::home::{HomeId, Quota, SlotId};
use crate::name::WorkspaceName;

/// How much CPU time each container had used when it was last looked at.
#[derive(Default)]
struct Samples(HashMap<ContainerId, (Instant, Duration)>);

/// When those are looked at again of which the last look has failed.
#[derive(Default)]
struct Looks(HashMap<WorkspaceName, Look>);

struct Look {
    next: Instant,
    pause: Duration,
}

/// A running workspace that nobody is in: its driver, its container, and what its grant said of its idle limit.
type Candidate = (Handle, ContainerId, Option<Duration>);

/// How long a container has lived, and may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    age: Duration,
    /// The longest that it may; `None`: for ever.
    most: Option<Duration>,
    /// For how much longer something inside asks to be kept, and may.
    kept: Option<Duration>,
    /// How far beyond `most` that may reach.
    keep_max: Duration,
}

/// Share of one CPU, averaged between two sweeps, from which a container counts as busy. A shell at its prompt and an editor's idle
/// server stay well below; anything that computes is far above.
const BUSY: f64 = 0.02;
/// How long after the gateway's start inits may take to come back to it. They try five times a second.
const COME_BACK: Duration = Duration::from_secs(10);
/// The longest pause before a container is looked at again that the engine could not be asked about.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
/// Pause between two sweeps whatever the settings say, so that sweeping is not all that is done.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

impl Directory {
    /// Sweeps every `idle.sweep_every`, until told to stop.
    pub(super) async fn sweep(self, stop: CancellationToken) {
        let (mut samples, mut looks) = (Samples::default(), Looks::default());
        loop {
            if let Err(why) = self.tidy().await {
                warn!(%why, "cannot look for what nobody owns");
            }
            self.resume_those_stopped();
            self.look_again(&mut looks);
            self.stop_idle(&mut samples).await;
            self.remember_all().await;
            self.time_stops();
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
        let rules = self.house.rules.load_full();
        let idle = |handle: &Handle| {
            let seen = handle.seen.borrow().clone();
            let id = seen.running.as_ref()?;
            let may_go = !self.is_awaited(id) && self.life(&rules, &seen, id).kept.is_none() && !rules.goes_on(&seen);
            may_go.then(|| handle.leases.idle()).flatten()
        };
        let longest = self.handles().into_iter().filter_map(|handle| Some((idle(&handle)?, handle))).max_by_key(|(idle, _)| *idle);
        let Some((_, handle)) = longest else { return false };
        let mut seen = handle.seen.clone();
        seen.mark_unchanged();
        if handle.inbox.send(Request::Stop { reason: StopReason::Room }).await.is_err() {
            return false;
        }
        // Until it stands still, or somebody has come back to it.
        let grace = rules.idle.stop_grace.get() + Duration::from_secs(10);
        let stopped = seen.wait_for(|seen| seen.state != "running" && seen.state != "stopping");
        tokio::time::timeout(grace, stopped).await.is_ok_and(|seen| seen.is_ok())
    }

    /// Has drivers look once more at containers of which nobody knows how they are, since the engine could not say: each time after twice the
    /// pause before. What was to be stopped and runs still is stopped by whoever wanted it stopped.
    fn look_again(&self, looks: &mut Looks) {
        let blind: HashMap<WorkspaceName, Handle> = self
            .drivers
            .iter()
            .filter(|entry| entry.seen.borrow().blind)
            .map(|entry| (entry.key().clone(), entry.value().clone()))
            .collect();
        looks.0.retain(|name, _| blind.contains_key(name));
        let every = self.house.rules.load().idle.sweep_every.get().max(SHORTEST_PAUSE);
        for (name, handle) in blind {
            let now = Instant::now();
            let look = looks.0.entry(name).or_insert(Look { next: now, pause: every });
            if look.next <= now {
                handle.inbox.try_send(Request::Doubt { reply: None }).ok();
                (look.next, look.pause) = (now + look.pause, (look.pause * 2).min(LONGEST_PAUSE.max(every)));
            }
        }
    }

    async fn stop_idle(&self, samples: &mut Samples) {
        let rules = self.house.rules.load_full();
        let mut candidates = Vec::new();
        for handle in self.handles() {
            let seen = handle.seen.borrow().clone();
            let Some(id) = seen.running.clone() else { continue };
            if seen.barred.is_some() {
                // It could not be stopped when it was suspended, or somebody else has started it.
                handle.inbox.try_send(Request::Enforce).ok();
                continue;
            }
            if self.is_awaited(&id) {
                continue;
            }
            let life = self.life(&rules, &seen, &id);
            match life.left() {
                Some(Duration::ZERO) => {
                    handle.inbox.try_send(Request::Stop { reason: StopReason::Lifetime }).ok();
                    continue;
                }
                Some(within) if within <= rules.idle.warn.get() => {
                    let attach = &self.house.parts.attach;
                    let can_be_kept = life.can_be_longer() && attach.can_be_kept(&id);
                    let soon = Ending::Soon { reason: StopReason::Lifetime.said(), within, can_be_kept };
                    handle.inbox.try_send(Request::Announce(soon)).ok();
                }
                _ => {}
            }
            if life.kept.is_some() {
                handle.leases.touch();
            } else if handle.leases.idle().is_some() && !rules.goes_on(&seen) {
                candidates.push((handle, id, rules.idle_limit(&seen)));
            }
        }
        if rules.idle.keep_busy {
            candidates = self.not_busy(samples, candidates).await;
        }
        // Drivers stop theirs at the same time as others.
        for (handle, _, limit) in candidates {
            if limit.zip(handle.leases.idle()).is_some_and(|(limit, idle)| idle >= limit) {
                handle.inbox.try_send(Request::Stop { reason: StopReason::Idle }).ok();
            }
        }
        // Nobody says so when something inside no longer asks to be kept.
        self.house.admission.look_for_room();
    }

    /// Whether something in it may have asked the gateway before this one to be kept, and has not had the time to ask again.
    fn is_awaited(&self, id: &ContainerId) -> bool {
        self.house.began.elapsed() < COME_BACK && self.house.parts.attach.is_awaited(id)
    }

    /// How long a running workspace has lived, and may.
    pub(super) fn life(&self, rules: &Rules, seen: &Seen, id: &ContainerId) -> Life {
        let template = seen.record.template.clone();
        let keep_max = rules.templates.get(&template).map(|template| template.keep_max.get()).unwrap_or_default();
        let kept = self.house.parts.attach.kept(id).map(|kept| kept.min(keep_max)).filter(|kept| !kept.is_zero());
        Life { age: seen.since.elapsed(), most: rules.idle.max_lifetime.unless_zero(), kept, keep_max }
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

    /// Makes what new homes take longest for ahead; and finds out, one after the other, how large the homes of running workspaces are that
    /// nobody counts. Until told to stop.
    pub(super) async fn look_after_homes(self, stop: CancellationToken) {
        let mut ran: HashSet<HomeId> = HashSet::new();
        loop {
            let of = |template: &Template| [template.quota()].into_iter().chain(template.volume.iter().map(Volume::quota)).collect();
            let quotas: Vec<Quota> = self.house.rules.load().templates.values().flat_map::<Vec<Quota>, _>(of).collect();
            let homes = self.house.parts.homes.clone();
            if let Err(why) = self.house.on_disk(move || homes.make_ready(&quotas)).await {
                warn!(%why, "cannot make homes ready ahead");
            }
            let every = self.house.rules.load().idle.sweep_every.get().max(SHORTEST_PAUSE);
            tokio::select! { () = sleep(every) => {} () = stop.cancelled() => return }
            let running = self.drivers.iter().filter(|entry| entry.seen.borrow().running.is_some());
            let running: Vec<HomeId> = running.flat_map(|entry| recipe::trees(entry.key(), entry.seen.borrow().volumes.keys())).collect();
            // What was written last in one that stands still by now is to be seen as well.
            let stands = |name: &WorkspaceName| {
                self.drivers.get(name).is_none_or(|driver| matches!(driver.seen.borrow().state, "absent" | "stopped"))
            };
            let left: Vec<HomeId> = ran.iter().filter(|id| stands(&id.workspace)).cloned().collect();
            ran.retain(|id| !left.contains(id));
            ran.extend(running.iter().cloned());
            let (homes, stopped, last) = (self.house.parts.homes.clone(), stop.clone(), left.clone());
            let (over, wait) = tokio::sync::oneshot::channel::<()>();
            // A thread of its own, which nobody waits for when the gateway ends: a million files take a while.
            std::thread::spawn(move || {
                let all = last.into_iter().chain(running.into_iter().filter(|id| homes.is_unmeasured(id)));
                for id in all.take_while(|_| !stopped.is_cancelled()) {
                    if let Err(why) = homes.measure(&id) {
                        debug!(home = %id, %why, "cannot tell how large a home is");
                    }
                }
                drop(over);
            });
            tokio::select! { _ = wait => {} () = stop.cancelled() => return }
            if !left.is_empty() {
                self.look_at_disks(false, left).await;
            }
        }
    }

    /// Removes what nobody owns, and has drivers look at what is not as they know it.
    async fn tidy(&self) -> Result<(), EngineError> {
        // In this order: whatever is made after the first step is held by somebody before the second.
        let slots = self.house.parts.slots.clone();
        let unheld = self.house.on_disk(move || slots.unheld()).await.unwrap_or_else(|why| {
            warn!(%why, "cannot list slots");
            Vec::new()
        });
        let attach = Arc::clone(&self.house.parts.attach);
        let slots = self.house.parts.slots.clone();
        let unreached = self.house.on_disk(move || Ok(attach.unheld(&|slot| slots.is_held(slot)))).await.unwrap_or_default();
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
                Owner::Former(name) => {
                    used.extend(slot);
                    let seen = self.drivers.get(&name).map(|handle| handle.seen.borrow().state);
                    let at_it = matches!(seen, Some("queued" | "creating" | "starting" | "stopping"));
                    if !at_it {
                        self.look(&name).await;
                    }
                }
                Owner::Pool | Owner::Stranger if !held => self.remove_orphan(container).await,
                Owner::Pool | Owner::Stranger => {}
            }
        }
        for id in unheld.into_iter().filter(|id| !used.contains(id)) {
            let Some(slot) = self.house.parts.slots.adopt(id) else { continue };
            if self.house.vacate(slot).await.is_ok() {
                self.house.parts.metrics.orphans.with_label_values(&["slot"]).inc();
            }
        }
        // What was made for slots that are gone without it: where nothing can be mounted a slot is a name only.
        for slot in unreached.into_iter().filter(|slot| !used.contains(slot) && !self.house.parts.slots.is_held(slot)) {
            let attach = Arc::clone(&self.house.parts.attach);
            let release = move || {
                attach.release(&slot);
                Ok(())
            };
            self.house.on_disk(release).await.ok();
        }
        let homes = self.house.parts.homes.clone();
        match self.house.on_disk(move || homes.sweep()).await {
            Ok(0) => {}
            Ok(found) => self.house.parts.metrics.orphans.with_label_values(&["home"]).inc_by(found as u64),
            Err(why) => warn!(%why, "cannot look for what was left among homes"),
        }
        self.detach_loose().await;
        self.count(&containers);
        self.look_at_images(&containers).await
    }

    /// Lets go of loop devices that nobody needs.
    pub(super) async fn detach_loose(&self) {
        let homes = self.house.parts.homes.clone();
        match self.house.on_disk(move || homes.detach_loose()).await {
            Ok(gone) => self.house.parts.metrics.orphans.with_label_values(&["loop"]).inc_by(gone as u64),
            Err(why) => warn!(%why, "cannot look for loop devices that nobody needs"),
        }
    }

    async fn remove_orphan(&self, container: &Container) {
        info!(container = container.name, "nobody owns this container, removing it");
        let slot = self.house.adopt(container);
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

    fn time_stops(&self) {
        let longest = self.drivers.iter().filter_map(|entry| entry.seen.borrow().stopping).map(|since| since.elapsed()).max();
        let seconds = longest.unwrap_or_default().as_secs();
        self.house.parts.metrics.stopping_longest.set(i64::try_from(seconds).unwrap_or(i64::MAX));
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
            // Deleted meanwhile: what is forgotten stays so.
            if self.drivers.get(&name).is_some_and(|entry| entry.seen.borrow().running.is_some()) {
                Arc::clone(&self.house).remember(name, record).await;
            }
        }
    }
}

impl Rules {
    /// Whether a workspace goes on though nobody is in it: what is set of it goes before what its template says.
    fn goes_on(&self, seen: &Seen) -> bool {
        match seen.idle {
            Some(IdlePolicy::Never) => true,
            Some(IdlePolicy::After(_)) => false,
            None => self.keeps_running(&seen.record.template),
        }
    }

    /// For how long a workspace runs though nobody is in it; `None`: for ever.
    pub(super) fn idle_limit(&self, seen: &Seen) -> Option<Duration> {
        if self.goes_on(seen) {
            return None;
        }
        let limit = seen.idle.and_then(IdlePolicy::limit).or(seen.record.idle_timeout).unwrap_or_else(|| self.idle.timeout.get());
        (!limit.is_zero()).then_some(limit)
    }
}

impl Life {
    /// How much of it is left; `None`: no end is set.
    pub(super) fn left(self) -> Option<Duration> {
        let most = self.most?;
        let asked = self.age + self.kept.unwrap_or_default();
        Some(asked.max(most).min(most + self.keep_max).saturating_sub(self.age))
    }

    /// Whether it can be made longer by what is inside.
    fn can_be_longer(self) -> bool {
        self.left().zip(self.most).is_some_and(|(left, most)| self.age + left < most + self.keep_max)
    }
}

impl Samples {
    /// Whether it used CPU since the last look; `None` if there was none.
    fn busy(&self, id: &ContainerId, usage: &Usage) -> Option<bool> {
        let (then, before) = self.0.get(id)?;
        let used = usage.cpu.saturating_sub(*before).as_secs_f64();
        Some(used > BUSY * then.elapsed().as_secs_f64())
    }
}
