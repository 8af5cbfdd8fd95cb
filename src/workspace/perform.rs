//! Doing what was decided: the actions of one workspace, one at a time, none of which touches the decision.
//!
//! Each step can be the last thing this process does. What it leaves then is written beside it.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::admission::Place;
use super::house::House;
use super::pool::Spare;
use super::recipe::{self, Recipe};
use super::state::Action;
use super::{EnsureError, Progress, StartPath};
use crate::auth::LimitOverrides;
use crate::engine::{Container, ContainerId, EngineError, Limits};
use crate::home::Slot;
use crate::name::{TemplateName, WorkspaceName};

/// What somebody wants of a workspace, as far as its container is concerned.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Wish {
    pub(super) template: Option<TemplateName>,
    pub(super) limits: LimitOverrides,
}

/// What an action may use.
pub(super) struct Tools {
    pub(super) house: Arc<House>,
    pub(super) name: WorkspaceName,
    pub(super) wish: Wish,
    pub(super) slot: Option<Slot>,
    pub(super) spare: Option<Spare>,
    /// The limits that its container is known to have.
    pub(super) has: Option<Limits>,
    /// Whether it has no container yet.
    pub(super) fresh: bool,
    /// Whether somebody waits: if not, it is not worth a place in the queue.
    pub(super) patient: bool,
    pub(super) progress: watch::Sender<Progress>,
}

/// What came of an action.
pub(super) enum Outcome {
    /// There is a place, and perhaps a container from the pool with it.
    Admitted { place: Place, spare: Option<Spare> },
    /// A container runs.
    Ready { id: ContainerId, slot: Slot, path: StartPath, limits: Limits },
    /// No place was free, and nobody would have waited for one.
    Abandoned,
    /// The container stands still.
    Halted,
    /// It was removed.
    Discarded,
    /// Its limits are as wished for.
    Adjusted,
    /// The engine was asked.
    Observed { found: Option<Container>, slot: Option<Slot> },
    /// It did not work. The slot is still answered for, if it was.
    Failed { why: EnsureError, slot: Option<Slot> },
    /// Somebody else was first: there is a container of this name already.
    NameTaken(EnsureError),
}

/// Counted as waiting, until this is dropped.
struct InLine<'a>(&'a IntGauge);

impl<'a> InLine<'a> {
    fn new(length: &'a IntGauge) -> Self {
        length.inc();
        Self(length)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Tools {
    pub(super) async fn perform(mut self, action: Action) -> Outcome {
        let result = match &action {
            Action::Admit => self.admit().await,
            Action::Acquire => self.acquire().await,
            Action::Start(id) => self.start(id).await,
            Action::Unpause(id) => self.unpause(id).await,
            Action::Stop(id) => {
                let grace = self.house.rules.load().idle.stop_grace.get();
                self.house.engine().stop(id, grace).await.map(|()| Outcome::Halted).map_err(EnsureError::from)
            }
            Action::Discard(id) => {
                let slot = self.slot.take();
                self.house.discard(id, slot).await.map(|()| Outcome::Discarded).map_err(EnsureError::from)
            }
            Action::Adjust(id) => self.adjust(id).await,
            Action::Observe => self.observe().await,
        };
        result.unwrap_or_else(|why| Outcome::Failed { why, slot: self.slot.take() })
    }

    /// Waits for a place. One from the pool brings its own, so that it is never waited for while one stands ready.
    async fn admit(&self) -> Result<Outcome, EnsureError> {
        if self.fresh {
            let recipe = self.house.recipe(self.wish.template.as_ref())?;
            if let Some(mut spare) = self.house.pool.claim(&recipe, &self.house.parts.metrics)
                && let Some(place) = spare.place.take()
            {
                return Ok(Outcome::Admitted { place, spare: Some(spare) });
            }
        }
        if let Some(place) = self.house.admission.try_enter() {
            return Ok(Outcome::Admitted { place, spare: None });
        }
        if !self.patient {
            return Ok(Outcome::Abandoned);
        }
        let metrics = &self.house.parts.metrics;
        let ticket = self.house.admission.enqueue().map_err(|full| EnsureError::QueueFull { waiting: full.waiting })?;
        let _in_line = InLine::new(&metrics.queue_length);
        let _waited = metrics.queue_seconds.start_timer();
        let progress = &self.progress;
        let place = ticket.wait(|position| drop(progress.send_replace(Progress::Queued { position }))).await;
        Ok(Outcome::Admitted { place, spare: None })
    }

    async fn acquire(&mut self) -> Result<Outcome, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        if let Some(spare) = self.spare.take() {
            match self.claim(spare, &recipe).await {
                Ok(outcome) => return Ok(outcome),
                Err(why) => {
                    warn!(workspace = %self.name, %why, "cannot claim from the pool, making a container instead");
                    self.house.parts.metrics.pool_failures.inc();
                }
            }
        }
        self.create(&recipe).await
    }

    /// Gives a container that runs already to this workspace, with its home.
    async fn claim(&self, spare: Spare, recipe: &Recipe) -> Result<Outcome, EnsureError> {
        let Spare { id, slot, .. } = spare;
        let slot = match self.mount(slot).await {
            // A kill here leaves a pool container with a home on its slot: thrown away at the next start, the home is only unmounted.
            Ok(slot) => slot,
            Err(why) => {
                self.house.discard(&id, None).await.ok();
                return Err(why);
            }
        };
        let name = recipe::container_name(&recipe.instance, &self.name);
        if let Err(why) = self.house.engine().rename(&id, &name).await {
            self.house.discard(&id, Some(slot)).await.ok();
            return Err(why.into());
        }
        // From here on its name says whose it is; a kill leaves it to be found again.
        let limits = match self.limit(&id, recipe, Some(recipe.template.limits())).await {
            Ok(limits) => limits,
            Err(why) => {
                self.house.discard(&id, Some(slot)).await.ok();
                return Err(why.into());
            }
        };
        info!(workspace = %self.name, container = id.0, "claimed from the pool");
        Ok(Outcome::Ready { id, slot, path: StartPath::Claim, limits })
    }

    async fn create(&self, recipe: &Recipe) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Creating);
        let slots = self.house.parts.slots.clone();
        let slot = self.house.on_disk(move || slots.create()).await?;
        // A kill from here on leaves a slot, perhaps with the home mounted, that nobody holds: the sweeper unmounts it.
        let slot = self.mount(slot).await?;
        let home = self.home().await?;
        let name = recipe::container_name(&recipe.instance, &self.name);
        let mut spec = recipe.container(name.clone(), slot.id(), slot.source(&home));
        spec.limits = recipe.limits(&self.wish.limits);
        let pulling = |line| drop(self.progress.send_replace(Progress::Pulling(line)));
        let id = match self.house.create(&spec, &pulling).await {
            Ok(id) => id,
            Err(why) => {
                self.house.on_disk(move || slot.remove()).await.ok();
                if matches!(why, EngineError::NameTaken(_)) {
                    warn!(workspace = %self.name, container = name, "there is a container of this name already, looking at it");
                    return Ok(Outcome::NameTaken(why.into()));
                }
                return Err(why.into());
            }
        };
        // A kill here leaves a container that was never started: found again, and started at the next login.
        if let Err(why) = self.house.engine().start(&id).await {
            self.house.discard(&id, Some(slot)).await.ok();
            return Err(why.into());
        }
        info!(workspace = %self.name, container = id.0, "created");
        Ok(Outcome::Ready { id, slot, path: StartPath::Create, limits: spec.limits })
    }

    async fn start(&mut self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Starting);
        let Some(slot) = self.slot.take() else {
            // Made by something else under our name: not usable.
            warn!(workspace = %self.name, container = id.0, "container has no slot, making another");
            self.house.discard(id, None).await?;
            return Ok(Outcome::Discarded);
        };
        // After the host was started anew nothing is mounted.
        let slot = self.mount(slot).await?;
        match self.house.engine().start(id).await {
            Ok(()) => {
                info!(workspace = %self.name, container = id.0, "started");
                self.ready(id, slot).await
            }
            Err(why @ (EngineError::Refused { .. } | EngineError::NotFound(_))) => {
                // The home is not in it. A container that does not start is worth nothing.
                warn!(workspace = %self.name, container = id.0, %why, "container does not start, making another");
                self.house.discard(id, Some(slot)).await?;
                Ok(Outcome::Discarded)
            }
            Err(why) => {
                self.slot = Some(slot);
                Err(why.into())
            }
        }
    }

    async fn unpause(&mut self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Starting);
        self.house.engine().unpause(id).await?;
        let Some(slot) = self.slot.take() else { return Err(EnsureError::Engine("a paused container has no slot".to_owned())) };
        self.ready(id, slot).await
    }

    /// A container that was there before runs again.
    async fn ready(&self, id: &ContainerId, slot: Slot) -> Result<Outcome, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        let limits = self.limit(id, &recipe, self.has).await?;
        Ok(Outcome::Ready { id: id.clone(), slot, path: StartPath::Start, limits })
    }

    async fn adjust(&self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        self.limit(id, &recipe, None).await?;
        Ok(Outcome::Adjusted)
    }

    async fn observe(&mut self) -> Result<Outcome, EnsureError> {
        let name = recipe::container_name(&self.house.rules.load().instance, &self.name);
        let found = self.house.engine().inspect(&name).await?;
        let Some(container) = found else {
            if let Some(slot) = self.slot.take() {
                debug!(workspace = %self.name, "container is gone, removing its slot");
                self.house.on_disk(move || slot.remove()).await.ok();
            }
            return Ok(Outcome::Observed { found: None, slot: None });
        };
        let instance = self.house.rules.load().instance.clone();
        if container.labels.get(crate::engine::INSTANCE_LABEL).map(String::as_str) != Some(instance.as_str()) {
            return Err(EnsureError::Engine(format!("a container called {name} exists that is not this instance's")));
        }
        let label = recipe::slot_of(&container);
        if self.slot.as_ref().map(Slot::id) != label.as_ref() {
            self.slot = label.and_then(|id| self.house.parts.slots.adopt(id));
        }
        Ok(Outcome::Observed { found: Some(container), slot: self.slot.take() })
    }

    /// Applies the limits that were wished for, if the container has others.
    async fn limit(&self, id: &ContainerId, recipe: &Recipe, has: Option<Limits>) -> Result<Limits, EngineError> {
        let wanted = recipe.limits(&self.wish.limits);
        if has != Some(wanted) {
            self.house.engine().set_limits(id, &wanted).await?;
        }
        Ok(wanted)
    }

    async fn home(&self) -> Result<std::path::PathBuf, EnsureError> {
        let (house, name) = (Arc::clone(&self.house), self.name.clone());
        self.house.on_disk(move || house.parts.homes.ensure(&name)).await
    }

    async fn mount(&self, slot: Slot) -> Result<Slot, EnsureError> {
        let (house, name) = (Arc::clone(&self.house), self.name.clone());
        self.house
            .on_disk(move || {
                let home = house.parts.homes.ensure(&name)?;
                slot.mount(&home)?;
                Ok(slot)
            })
            .await
    }
}
