//! Doing what was decided: the actions of one workspace, one at a time, none of which touches the decision.
//!
//! Each step can be the last thing this process does. What it leaves then is written beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::admission::Place;
use super::house::House;
use super::lending::{self, Fit};
use super::pool::Spare;
use super::recipe::{self, Given, Recipe};
use super::state::Action;
use super::terms::Terms;
use super::volume::Volumes;
use super::{EnsureError, NetworkPolicy, Progress, StartPath};
use crate::auth::LimitOverrides;
use crate::engine::{Container, ContainerId, ContainerState, EngineError, Limits, Propagation};
use crate::home::{Applied, HomeError, HomeId, Quota, Slot};
use crate::name::{TemplateName, WorkspaceName};
use crate::store::{StoredMount, Upgrade};

/// How long before their processes are told to end people have to read why.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);

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
    /// What of the host is to appear in it, and what does in the container that it has.
    pub(super) mounts: Vec<StoredMount>,
    pub(super) had: Fit,
    /// Where its network is to lead, if not as its template says.
    pub(super) network: Option<NetworkPolicy>,
    /// Whether it is to get another image.
    pub(super) upgrade: Option<Upgrade>,
    /// What is set of it, where this has changed that.
    pub(super) news: Option<Terms>,
    pub(super) slot: Option<Slot>,
    pub(super) spare: Option<Spare>,
    /// What its container, its home and its volumes are known to have.
    pub(super) has: Option<Given>,
    /// Which volumes its container has.
    pub(super) volumes: Volumes,
    /// Whether it has no container yet.
    pub(super) fresh: bool,
    /// Whether somebody waits: if not, it is not worth a place in the queue.
    pub(super) patient: bool,
    /// Whether somebody is in it.
    pub(super) peopled: bool,
    pub(super) progress: watch::Sender<Progress>,
}

/// What came of an action.
pub(super) enum Outcome {
    /// There is a place, and perhaps a container from the pool with it.
    Admitted { place: Place, spare: Option<Spare> },
    /// A container runs.
    Ready { id: ContainerId, slot: Slot, path: StartPath, given: Given, made: Option<Made>, fit: Fit },
    /// No place was free, and nobody would have waited for one.
    Abandoned,
    /// The container stands still.
    Halted { slot: Option<Slot> },
    /// It was removed; `replaced`, as another is to be had that has something else of the host.
    Discarded { replaced: bool },
    /// Its limits are as wished for.
    Adjusted,
    /// Its homes were let go of, as far as that could be.
    Rested,
    /// The engine was asked.
    Observed { found: Option<Container>, slot: Option<Slot> },
    /// What is set of it has changed by what was done, of which that came otherwise.
    News(Terms, Box<Outcome>),
    /// It did not work. The slot is still answered for, if it was.
    Failed { why: EnsureError, slot: Option<Slot> },
    /// Somebody else was first: there is a container of this name already.
    NameTaken(EnsureError),
}

/// What a container was made from that was made or claimed just now.
pub(super) struct Made {
    pub(super) template: TemplateName,
    pub(super) volumes: Volumes,
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

/// Lets go of all homes of a workspace whose container stands still, or that has none. What cannot be let go of stays mounted where only root
/// sees it.
pub(super) async fn let_go(house: Arc<House>, name: WorkspaceName) -> Outcome {
    let homes = house.parts.homes.clone();
    let rested = house.on_disk(move || {
        let all = homes.homes()?.into_iter().filter(|id| id.workspace == name);
        all.for_each(|id| drop(homes.rest(&id).inspect_err(|why| debug!(home = %id, %why, "cannot let go of the home"))));
        Ok(())
    });
    if let Err(why) = rested.await {
        warn!(%why, "cannot let go of homes");
    }
    Outcome::Rested
}

impl Tools {
    pub(super) async fn perform(mut self, action: Action) -> Outcome {
        let result = match &action {
            Action::Admit => self.admit().await,
            Action::Acquire => self.acquire().await,
            Action::Start(id) => self.start(id).await,
            Action::Unpause(id) => self.unpause(id).await,
            Action::Stop(id) => {
                // Those in it were told just now, and what tells them is about to lose its terminal.
                if self.peopled {
                    tokio::time::sleep(LAST_WORDS).await;
                }
                match self.house.stop(id).await {
                    Ok(()) => Ok(self.rest().await),
                    Err(why) => Err(why.into()),
                }
            }
            Action::Discard(id) => {
                let slot = self.slot.take();
                self.house.discard(id, slot).await.map(|()| Outcome::Discarded { replaced: false }).map_err(EnsureError::from)
            }
            Action::Upgrade(id) => self.upgrade(id).await,
            Action::Adjust(id) => self.adjust(id).await,
            Action::Observe => self.observe().await,
        };
        let outcome = result.unwrap_or_else(|why| Outcome::Failed { why, slot: self.slot.take() });
        match self.news.take() {
            Some(terms) => Outcome::News(terms, Box::new(outcome)),
            None => outcome,
        }
    }

    /// Waits for a place. One from the pool brings its own, so that it is never waited for while one stands ready.
    async fn admit(&self) -> Result<Outcome, EnsureError> {
        if self.fresh {
            self.house.has_room_for(&self.name).await?;
        }
        // Nothing can be added to a container that runs already.
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        if self.fresh
            && self.mounts.is_empty()
            && self.network_of(&recipe) == recipe.template.network
            && let Some(mut spare) = self.house.pool.claim(&recipe, &self.house.parts.metrics)
            && let Some(place) = spare.place.take()
        {
            return Ok(Outcome::Admitted { place, spare: Some(spare) });
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
                Ok(outcome) => {
                    self.upgrade_is_over().await;
                    return Ok(outcome);
                }
                Err(why) => {
                    warn!(workspace = %self.name, %why, "cannot claim from the pool, making a container instead");
                    self.house.parts.metrics.pool_failures.inc();
                }
            }
        }
        let outcome = self.create(&recipe).await?;
        if matches!(outcome, Outcome::Ready { .. }) {
            self.upgrade_is_over().await;
        }
        Ok(outcome)
    }

    /// Gives a container that runs already to this workspace, with its home and its volumes.
    async fn claim(&self, spare: Spare, recipe: &Recipe) -> Result<Outcome, EnsureError> {
        let Spare { id, slot, .. } = spare;
        let trees = recipe.given(&self.wish.limits).trees(&self.name);
        let slot = match self.mount(slot, trees, recipe).await {
            // A kill here leaves a pool container with a home on its slot: thrown away at the next start, the home is only unmounted.
            Ok((slot, _)) => slot,
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
        let given = match self.limit(&id, recipe, Some(recipe.template.limits())).await {
            Ok(given) => given,
            Err(why) => {
                self.house.discard(&id, Some(slot)).await.ok();
                return Err(why.into());
            }
        };
        info!(workspace = %self.name, container = id.0, "claimed from the pool");
        self.house.record(&self.name, "claimed", Some(&id), None);
        Ok(Outcome::Ready {
            id,
            slot,
            path: StartPath::Claim,
            given,
            made: Some(Made::from(recipe)),
            fit: Fit { network: recipe.template.network, ..Fit::default() },
        })
    }

    pub(super) async fn create(&self, recipe: &Recipe) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Creating);
        let slot = self.house.make_slot(recipe).await?;
        // A kill from here on leaves a slot, perhaps with the home mounted, that nobody holds: the sweeper unmounts it.
        let trees = recipe.given(&self.wish.limits).trees(&self.name);
        let (slot, sources) = self.mount(slot, trees, recipe).await?;
        let inside = &recipe.template.home;
        let offer = self.house.offer(&self.name, &self.mounts, recipe).await;
        // A kill from here on leaves what is lent with the slot, which goes with it.
        let (slot, lent, fit) = self.house.lend(offer, slot, self.home().await?, inside.clone()).await?;
        let fit = Fit { network: self.network_of(recipe), ..fit };
        let name = recipe::container_name(&recipe.instance, &self.name);
        let propagation = if self.house.parts.slots.can_mount() { Propagation::Slave } else { Propagation::Private };
        let mut spec = recipe.container(name.clone(), slot.id(), sources, propagation);
        let given = recipe.given(&self.wish.limits);
        spec.limits = given.limits;
        recipe.connect(&mut spec, fit.network);
        spec.mounts.extend(lent);
        spec.labels.extend(fit.label.clone().map(|label| (lending::LABEL.to_owned(), label)));
        let pulling = |line| drop(self.progress.send_replace(Progress::Pulling(line)));
        let id = match self.house.create(recipe, spec.clone(), slot.id(), &pulling).await {
            Ok(id) => id,
            Err(why) => {
                self.house.vacate(slot).await.ok();
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
        self.house.record(&self.name, "created", Some(&id), None);
        Ok(Outcome::Ready { id, slot, path: StartPath::Create, given, made: Some(Made::from(recipe)), fit })
    }

    pub(super) async fn start(&mut self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Starting);
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        if self.slot.is_some()
            && let Some(target) = self.due(id, &recipe).await?
        {
            return self.swap(id, &recipe, &target, false).await;
        }
        let Some(slot) = self.slot.take() else {
            // Made by something else under our name: not usable.
            warn!(workspace = %self.name, container = id.0, "container has no slot, making another");
            self.house.discard(id, None).await?;
            return Ok(Outcome::Discarded { replaced: false });
        };
        // One that an upgrade has brought back stays as it is.
        let held_back = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.failed.is_some());
        if self.volumes != recipe.template.volumes() && !held_back {
            return self.replace(id, slot, &recipe).await;
        }
        // Where nothing is lent, and nothing was, this costs nothing. Otherwise what can be had now is what counts, not what is set.
        let inside = recipe.template.home.clone();
        let offer = self.house.offer(&self.name, &self.mounts, &recipe).await;
        if offer.label() != self.had.label {
            info!(workspace = %self.name, container = id.0, "what appears in it from the host has changed, making another");
            self.house.discard(id, Some(slot)).await?;
            return Ok(Outcome::Discarded { replaced: true });
        }
        if self.network_of(&recipe) != self.had.network {
            info!(workspace = %self.name, container = id.0, "its network is to lead elsewhere, making another");
            self.house.discard(id, Some(slot)).await?;
            return Ok(Outcome::Discarded { replaced: false });
        }
        // After the host was started anew nothing is mounted.
        let given = recipe.given(&self.wish.limits);
        let trees = self.trees().into_iter().map(|id| (id.clone(), given.quota_of(id.volume.as_ref()))).collect();
        let (slot, _) = self.mount(slot, trees, &recipe).await?;
        let (slot, fit) = if self.mounts.is_empty() {
            (slot, Fit::default())
        } else {
            let (slot, _, fit) = self.house.lend(offer, slot, self.home().await?, inside).await?;
            (slot, fit)
        };
        let fit = Fit { network: self.had.network, ..fit };
        self.house.parts.attach.restarts(id);
        match self.house.engine().start(id).await {
            Ok(()) => {
                info!(workspace = %self.name, container = id.0, "started");
                self.house.record(&self.name, "started", Some(id), None);
                self.ready(id, slot, fit).await
            }
            Err(why @ (EngineError::Refused { .. } | EngineError::NotFound(_))) => {
                // The home is not in it. A container that does not start is worth nothing.
                warn!(workspace = %self.name, container = id.0, %why, "container does not start, making another");
                self.house.discard(id, Some(slot)).await?;
                Ok(Outcome::Discarded { replaced: false })
            }
            Err(why) => {
                self.slot = Some(slot);
                Err(why.into())
            }
        }
    }

    /// Removes a container that stands still and has other volumes than one that would be made now. Docker adds no mount to a container that is
    /// there; another is made or claimed then.
    async fn replace(&self, id: &ContainerId, slot: Slot, recipe: &Recipe) -> Result<Outcome, EnsureError> {
        let wanted = recipe.template.volumes();
        info!(
            workspace = %self.name, container = id.0, has = ?self.volumes, ?wanted,
            "the template's volumes are others now, replacing the container; its files are all in its home and volumes"
        );
        // A kill after the removal leaves a slot that nobody holds.
        self.house.discard(id, Some(slot)).await?;
        self.let_go_of_lost(&wanted).await;
        Ok(Outcome::Discarded { replaced: false })
    }

    /// Lets go of the volumes that the former container had, and a new one has not.
    pub(super) async fn let_go_of_lost(&self, wanted: &Volumes) {
        let lost = recipe::trees(&self.name, self.volumes.keys().filter(|name| !wanted.contains_key(name)));
        let house = Arc::clone(&self.house);
        // The home is needed at once. What cannot be let go of stays mounted where only root sees it.
        let rested = self.house.on_disk(move || lost.iter().skip(1).try_for_each(|id| house.parts.homes.rest(id)));
        if let Err(why) = rested.await {
            warn!(workspace = %self.name, %why, "cannot let go of a volume");
        }
    }

    async fn unpause(&mut self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Starting);
        self.house.engine().unpause(id).await?;
        let Some(slot) = self.slot.take() else { return Err(EnsureError::Engine("a paused container has no slot".to_owned())) };
        let outcome = self.ready(id, slot, self.had.clone()).await?;
        self.fit(&self.house.recipe(self.wish.template.as_ref())?.given(&self.wish.limits)).await;
        Ok(outcome)
    }

    /// A container that was there before runs again.
    pub(super) async fn ready(&self, id: &ContainerId, slot: Slot, fit: Fit) -> Result<Outcome, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        let given = self.limit(id, &recipe, self.has.as_ref().map(|has| has.limits)).await?;
        Ok(Outcome::Ready { id: id.clone(), slot, path: StartPath::Start, given, made: None, fit })
    }

    async fn adjust(&self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        let given = self.limit(id, &recipe, self.has.as_ref().map(|has| has.limits)).await?;
        self.fit(&given).await;
        Ok(Outcome::Adjusted)
    }

    /// Nobody needs the home of a container that stands still: an image is let go of, with its loop device. It is mounted again before the
    /// container is started.
    async fn rest(&mut self) -> Outcome {
        if !self.house.parts.homes.must_rest() {
            return Outcome::Halted { slot: self.slot.take() };
        }
        let Some(slot) = self.slot.take() else { return Outcome::Halted { slot: None } };
        let (house, trees) = (Arc::clone(&self.house), self.trees());
        let resting = self.house.on_disk(move || {
            // A kill here, or a failure, leaves it mounted: that is how it is while the container runs.
            let rested = slot.unmount().and_then(|()| {
                // Each is tried, whatever became of the one before.
                let failed: Vec<HomeError> = trees.iter().filter_map(|id| house.parts.homes.rest(id).err()).collect();
                failed.into_iter().next().map_or(Ok(()), Err)
            });
            Ok((slot, rested))
        });
        match resting.await {
            Ok((slot, rested)) => {
                if let Err(why) = rested {
                    warn!(workspace = %self.name, %why, "cannot let go of the home");
                }
                Outcome::Halted { slot: Some(slot) }
            }
            Err(why) => {
                warn!(workspace = %self.name, %why, "cannot let go of the home");
                Outcome::Halted { slot: None }
            }
        }
    }

    /// Gives the home, and the volumes that the container has, the quotas that are wished for. What fails is logged: a limit that cannot be
    /// changed keeps nobody out.
    async fn fit(&self, given: &Given) {
        let has = |id: &HomeId| id.volume.as_ref().is_none_or(|name| self.volumes.contains_key(name));
        for (id, quota) in given.trees(&self.name).into_iter().filter(|(id, _)| has(id)) {
            let (house, home) = (Arc::clone(&self.house), id.clone());
            match self.house.on_disk(move || house.parts.homes.set_quota(&home, &quota)).await {
                Ok(Applied::Now | Applied::Reported(_)) => {}
                Ok(Applied::Later(why)) => info!(home = %id, why, "the home's limit is changed later"),
                Err(why) => warn!(home = %id, %why, "cannot change the home's limit"),
            }
        }
    }

    async fn observe(&mut self) -> Result<Outcome, EnsureError> {
        self.settle_former().await?;
        let name = recipe::container_name(&self.house.rules.load().instance, &self.name);
        let found = self.house.engine().inspect(&name).await?;
        let Some(container) = found else {
            if let Some(slot) = self.slot.take() {
                debug!(workspace = %self.name, "container is gone, removing its slot");
                self.house.vacate(slot).await.ok();
            }
            return Ok(Outcome::Observed { found: None, slot: None });
        };
        let instance = self.house.rules.load().instance.clone();
        if container.labels.get(crate::engine::INSTANCE_LABEL).map(String::as_str) != Some(instance.as_str()) {
            return Err(EnsureError::Engine(format!("a container called {name} exists that is not this instance's")));
        }
        let label = recipe::slot_of(&container);
        if self.slot.as_ref().map(Slot::id) != label.as_ref() {
            self.slot = self.house.adopt(&container);
        }
        // Started by somebody else while its home was at rest.
        if container.state == ContainerState::Running
            && let Some(slot) = self.slot.take()
        {
            self.volumes = recipe::volumes_of(&container.labels);
            let (house, trees) = (Arc::clone(&self.house), self.trees());
            let mounting = self.house.on_disk(move || {
                for id in trees {
                    let volume = id.volume.as_ref();
                    if house.parts.slots.can_mount() && !slot.is_mounted(volume)? {
                        slot.mount(volume, &house.parts.homes.reach(&id)?)?;
                    }
                }
                Ok(slot)
            });
            self.slot = Some(mounting.await?);
        }
        Ok(Outcome::Observed { found: Some(container), slot: self.slot.take() })
    }

    /// Applies the limits that were wished for, if the container has others.
    async fn limit(&self, id: &ContainerId, recipe: &Recipe, has: Option<Limits>) -> Result<Given, EngineError> {
        let wanted = recipe.given(&self.wish.limits);
        if has != Some(wanted.limits) {
            self.house.engine().set_limits(id, &wanted.limits).await?;
        }
        Ok(wanted)
    }

    async fn home(&self) -> Result<PathBuf, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        let quota = recipe.given(&self.wish.limits).quota;
        let (house, id, skeleton) = (Arc::clone(&self.house), HomeId::home(self.name.clone()), recipe.template.skeleton);
        self.house.on_disk(move || house.parts.homes.ensure_from(&id, &quota, skeleton.as_ref())).await
    }

    /// Where its network is to lead.
    fn network_of(&self, recipe: &Recipe) -> NetworkPolicy {
        self.network.unwrap_or(recipe.template.network)
    }

    /// The home, and the volumes that the container has.
    fn trees(&self) -> Vec<HomeId> {
        recipe::trees(&self.name, self.volumes.keys())
    }

    /// Makes the home and the volumes of a container reachable and mounts them on its slot. Says what such a container has to bind, in the
    /// same order.
    async fn mount(&self, slot: Slot, trees: Vec<(HomeId, Quota)>, recipe: &Recipe) -> Result<(Slot, Vec<PathBuf>), EnsureError> {
        self.house.sources_are_there(&trees, &recipe.template).await?;
        let (house, template) = (Arc::clone(&self.house), recipe.template.clone());
        self.house
            .on_disk(move || {
                let mut sources = Vec::with_capacity(trees.len());
                for (id, quota) in &trees {
                    let tree = house.parts.homes.ensure_from(id, quota, template.skeleton_of(id.volume.as_ref()))?;
                    slot.mount(id.volume.as_ref(), &tree)?;
                    sources.push(slot.source(id.volume.as_ref(), tree));
                }
                Ok((slot, sources))
            })
            .await
    }
}

impl From<&Recipe> for Made {
    fn from(recipe: &Recipe) -> Self {
        Self { template: recipe.template_name.clone(), volumes: recipe.template.volumes() }
    }
}
