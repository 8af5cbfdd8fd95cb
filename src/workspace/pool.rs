//! Running containers that nobody owns yet.
//!
//! Filled in the background, one at a time, and only while nobody waits for anything: a person comes first. A container leaves the pool by
//! being claimed or thrown away, and never returns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::EnsureError;
use super::admission::Place;
use super::house::House;
use super::recipe::{self, Recipe};
use crate::attach::{ProcessSpec, Program};
use crate::engine::{Container, ContainerId, ContainerState, ImageId, Propagation};
use crate::home::Slot;
use crate::telemetry::Metrics;

/// The containers that stand ready.
#[derive(Debug, Default)]
pub(super) struct Pool {
    ready: Mutex<VecDeque<Spare>>,
    wake: Notify,
    /// How many people wait for a workspace right now.
    people: std::sync::atomic::AtomicUsize,
    /// Until when the last one who claimed a container has the machine to herself.
    head_start: Mutex<Option<Instant>>,
}

/// A container that nobody owns yet.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) id: ContainerId,
    pub(super) slot: Slot,
    /// Taken out when it is claimed: the place goes with the workspace.
    pub(super) place: Option<Place>,
    recipe: String,
    image: ImageId,
}

/// Somebody waits for a workspace, until this is dropped.
pub(super) struct Waiting<'a>(&'a Pool);

/// First and longest pause after a failure to make one.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often the pool is looked at when nothing has happened: notices a new image behind the same name.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the first process of a container may take until it is left alone.
const WARM: Duration = Duration::from_secs(5);
/// How long to stay out of the way of somebody who waits, before looking again.
const YIELD: Duration = Duration::from_millis(100);
/// How long the pool keeps still after a claim: making the next container would slow down who is just opening her first process.
const HEAD_START: Duration = Duration::from_millis(400);

impl Pool {
    /// Takes the oldest container made from this recipe.
    pub(super) fn claim(&self, wanted: &Recipe, metrics: &Metrics) -> Option<Spare> {
        let fingerprint = wanted.fingerprint();
        let mut ready = self.ready.lock();
        let found = ready.iter().position(|spare| spare.recipe == fingerprint).and_then(|at| ready.remove(at));
        drop(ready);
        if found.is_some() {
            metrics.pool_claims.inc();
            *self.head_start.lock() = Some(Instant::now() + HEAD_START);
        } else {
            metrics.pool_misses.inc();
        }
        self.wake.notify_one();
        found
    }

    /// Somebody waits: the pool keeps still.
    pub(super) fn person_waits(&self) -> Waiting<'_> {
        self.people.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Waiting(self)
    }

    /// Something happened to a container: if it is one of these, it is no good any more.
    pub(super) fn lose(&self, id: &ContainerId) -> Option<Spare> {
        let mut ready = self.ready.lock();
        let at = ready.iter().position(|spare| spare.id == *id)?;
        let lost = ready.remove(at);
        drop(ready);
        self.wake.notify_one();
        lost
    }

    /// One that is not among these, if there is any: it is no good any more.
    pub(super) fn lose_one_not_in(&self, running: &[&ContainerId]) -> Option<Spare> {
        let mut ready = self.ready.lock();
        let at = ready.iter().position(|spare| !running.contains(&&spare.id))?;
        ready.remove(at)
    }

    /// Gives up one container, the newest, to make room.
    pub(super) fn give_up(&self) -> Option<Spare> {
        self.ready.lock().pop_back()
    }

    /// How many of a recipe stand ready.
    pub(super) fn ready(&self, fingerprint: &str) -> usize {
        self.ready.lock().iter().filter(|spare| spare.recipe == fingerprint).count()
    }

    /// Looks again now, as the settings have changed.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    fn people_wait(&self) -> bool {
        self.people.load(std::sync::atomic::Ordering::Relaxed) > 0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.people.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl House {
    /// Keeps the pool filled, until told to stop.
    pub(super) async fn fill_pool(self: Arc<Self>, stop: CancellationToken) {
        let mut back_off = BACK_OFF.0;
        while !stop.is_cancelled() {
            let head_start = self.pool.head_start.lock().take();
            if let Some(end) = head_start {
                tokio::select! { () = sleep_until(end) => continue, () = stop.cancelled() => return }
            }
            let pause = match self.fill_one().await {
                Ok(true) => {
                    back_off = BACK_OFF.0;
                    continue;
                }
                Ok(false) if self.pool.people_wait() => YIELD,
                Ok(false) => LOOK_EVERY,
                Err(why) => {
                    self.parts.metrics.pool_failures.inc();
                    warn!(%why, retry_in = ?back_off, "cannot fill the pool");
                    let pause = back_off;
                    back_off = (back_off * 2).min(BACK_OFF.1);
                    // A failure is waited out even if somebody claims meanwhile.
                    tokio::select! { () = sleep(pause) => continue, () = stop.cancelled() => return }
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.pool.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One step towards a full pool of the right kinds. Says whether there is more to do.
    async fn fill_one(&self) -> Result<bool, EnsureError> {
        let rules = self.rules.load_full();
        // A home cannot reach a container that runs where nothing can be mounted.
        let size = if self.parts.slots.can_mount() { rules.pool.size } else { 0 };
        let recipes: Result<Vec<Recipe>, _> = rules.pool.template.names().iter().map(|name| self.recipe(Some(name))).collect();
        let recipes = recipes?;
        self.replace_stale(&recipes, size).await?;
        let mut short = None;
        for recipe in recipes {
            let fingerprint = recipe.fingerprint();
            let have = self.pool.ready.lock().iter().filter(|spare| spare.recipe == fingerprint).count();
            let metrics = &self.parts.metrics;
            let label = [recipe.template_name.as_str()];
            metrics.pool_desired.with_label_values(&label).set(i64::try_from(size).unwrap_or(i64::MAX));
            metrics.pool_ready.with_label_values(&label).set(i64::try_from(have).unwrap_or(i64::MAX));
            if have < size && short.is_none() {
                short = Some(recipe);
            }
        }
        let Some(recipe) = short else { return Ok(false) };
        if rules.pool.paused || self.pool.people_wait() || self.admission.waiting() > 0 {
            return Ok(false);
        }
        let Some(place) = self.admission.try_enter() else { return Ok(false) };
        let spare = self.make_spare(&recipe, place).await?;
        debug!(container = spare.id.0, "pool container ready");
        self.pool.ready.lock().push_back(spare);
        Ok(true)
    }

    /// Throws away what is too many, or was made from another image or template than would be used now.
    async fn replace_stale(&self, recipes: &[Recipe], size: usize) -> Result<(), EnsureError> {
        if self.pool.ready.lock().is_empty() {
            return Ok(());
        }
        let mut wanted = HashMap::new();
        for recipe in recipes {
            wanted.insert(recipe.fingerprint(), (self.engine().image(&recipe.template.image).await?, size));
        }
        let mut stale = Vec::new();
        {
            let mut ready = self.pool.ready.lock();
            for spare in std::mem::take(&mut *ready) {
                match wanted.get_mut(&spare.recipe) {
                    // An image that was removed can still be run from: only another one counts.
                    Some((image, left)) if *left > 0 && image.as_ref().is_none_or(|image| *image == spare.image) => {
                        *left -= 1;
                        ready.push_back(spare);
                    }
                    _ => stale.push(spare),
                }
            }
        }
        for spare in stale {
            info!(container = spare.id.0, "pool container is not what would be kept now, removing it");
            self.throw_away(spare).await;
        }
        Ok(())
    }

    /// Throws a pool container away. If that fails nobody holds it any more, and the sweeper tries again.
    pub(super) async fn throw_away(&self, spare: Spare) {
        let Spare { id, slot, place, .. } = spare;
        self.discard(&id, Some(slot)).await.ok();
        drop(place);
    }

    async fn make_spare(&self, recipe: &Recipe, place: Place) -> Result<Spare, EnsureError> {
        let slot = self.make_slot(recipe).await?;
        let name = recipe::pool_name(&recipe.instance, slot.id());
        let sources = recipe.places().iter().map(|(volume, _)| slot.path(volume.as_ref())).collect();
        let spec = recipe.container(name, slot.id(), sources, Propagation::Slave);
        let id = match self.create(recipe, spec, slot.id(), &|line| debug!(line, "pulling for the pool")).await {
            Ok(id) => id,
            Err(why) => {
                self.vacate(slot).await.ok();
                return Err(why.into());
            }
        };
        let started = self.engine().start(&id).await;
        let image = self.engine().inspect(&id.0).await;
        match (started, image) {
            (Ok(()), Ok(Some(Container { image, state: ContainerState::Running, .. }))) => {
                self.warm(&id).await;
                Ok(Spare { id, slot, place: Some(place), recipe: recipe.fingerprint(), image })
            }
            (started, looked) => {
                self.discard(&id, Some(slot)).await.ok();
                started?;
                looked?;
                Err(EnsureError::Engine("a new container ended at once; does its image have a shell?".to_owned()))
            }
        }
    }

    /// Runs a command that does nothing, as its owner's first will run: the first process in a container finds its shell, its libraries and what
    /// nearly every command leads to cold, which takes about as long as all the rest of a claim. What fails is not worth a word: whoever comes next
    /// sees for herself.
    async fn warm(&self, id: &ContainerId) {
        let spec = ProcessSpec::new(Program::Command(b"ls -d . | cat".to_vec()));
        let run = async {
            let Ok(mut process) = self.parts.attach.open(id, &spec).await else { return };
            while process.output.next().await.is_some() {}
        };
        let _ = tokio::time::timeout(WARM, run).await;
    }

    /// Takes a container that an earlier process made for the pool, if it is as good as new. `false`: it is nobody's.
    pub(super) async fn adopt_spare(&self, container: &Container) -> bool {
        let Some(slot) = self.adopt(container) else { return false };
        let Some((template, fingerprint)) = recipe::made_from(&container.labels) else { return false };
        let current = self.recipe(Some(&template)).is_ok_and(|recipe| fingerprint == recipe.fingerprint());
        // A home or a volume on the slot: a claim was cut short after the mount.
        if container.state != ContainerState::Running || !current || !matches!(slot.is_vacant(), Ok(true)) {
            return false;
        }
        let spare = Spare {
            id: container.id.clone(),
            slot,
            place: Some(self.admission.enter_anyway()),
            recipe: fingerprint.to_owned(),
            image: container.image.clone(),
        };
        self.pool.ready.lock().push_back(spare);
        true
    }
}
