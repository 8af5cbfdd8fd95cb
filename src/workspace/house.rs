//! What all workspaces of an instance share, and the few things that are done to containers on behalf of one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::admission::Admission;
use super::driver::Request;
use super::events::Events;
use super::floor::{Disks, Floor};
use super::leases::Sessions;
use super::meter::Meter;
use super::policy::PublicPorts;
use super::pool::Pool;
use super::recipe::{self, Recipe};
use super::roll::Roll;
use super::serving::Services;
use super::starts::Starts;
use super::terms::Terms;
use super::{Attachment, CapacityConfig, EnsureError, IdleConfig, ImageAge, LimitsConfig, PoolConfig, Template};
use crate::attach::Attach;
use crate::audit::{Actor, Audit, Event, Removal, What};
use crate::backup::Backups;
use crate::engine::{Container, ContainerId, ContainerSpec, Engine, EngineError, ImageId, NetworkSpec};
use crate::home::{Fence, HomeError, Homes, Slot, SlotId, Slots};
use crate::name::{InstanceName, TemplateName, WorkspaceName};
use crate::recording::Recordings;
use crate::store::{Record, Store};
use crate::telemetry::Metrics;

/// The settings that workspaces go by. Replaced as a whole on a reload.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The instance.
    pub instance: InstanceName,
    /// When what nobody uses is stopped.
    pub idle: IdleConfig,
    /// Ready containers.
    pub pool: PoolConfig,
    /// What all together may use.
    pub limits: LimitsConfig,
    /// What is measured.
    pub capacity: CapacityConfig,
    /// For how long what was deleted can be had back.
    pub deleted_keep: Duration,
    /// Which directories of the host may appear in workspaces.
    pub fence: Fence,
    /// The recipes.
    pub templates: BTreeMap<TemplateName, Template>,
}

/// The parts that workspaces are made with.
pub struct Parts {
    /// What runs containers.
    pub engine: Arc<dyn Engine>,
    /// How processes are opened in them.
    pub attach: Arc<dyn Attach>,
    /// Where homes are.
    pub homes: Homes,
    /// How homes reach containers.
    pub slots: Slots,
    /// What is looked at that it does not fill up.
    pub disks: Disks,
    /// What is remembered.
    pub store: Store,
    /// Where backups go, if anywhere.
    pub backups: Option<Backups>,
    /// What terminals show.
    pub recordings: Recordings,
    /// What is counted.
    pub metrics: Metrics,
    /// What is recorded.
    pub audit: Audit,
    /// Told of each workspace that is deleted, so that what was given out for it is worth nothing to the next of its name.
    pub deleted: Box<dyn Fn(&WorkspaceName) -> Apart + Send + Sync>,
}

/// What others have of a workspace that is deleted.
#[derive(Debug, Clone, Default)]
pub struct Apart {
    /// How many links to it were taken back.
    pub links: usize,
    /// Which accounts land in it still.
    pub accounts: Vec<String>,
}

/// Everything that drivers, the pool and the sweeper share.
pub(super) struct House {
    pub(super) parts: Parts,
    /// Since when there is this gateway.
    pub(super) began: Instant,
    /// Where drivers run, whoever is the first to ask for one.
    pub(super) runtime: Handle,
    pub(super) rules: ArcSwap<Rules>,
    pub(super) admission: Admission,
    pub(super) sessions: Sessions,
    pub(super) pool: Pool,
    /// Everything that happens to workspaces, for who looks on.
    pub(super) events: Events,
    /// Who is in.
    pub(super) roll: Roll,
    /// Which driver to tell of what happens to a running container.
    pub(super) residents: DashMap<ContainerId, mpsc::WeakSender<Request>>,
    pub(super) services: Services,
    pub(super) floor: Floor,
    /// Workspaces that a task is done with right now.
    pub(super) busy: Mutex<HashSet<WorkspaceName>>,
    /// How old the images of workspaces' containers were when they were last looked at.
    pub(super) ages: Mutex<HashMap<WorkspaceName, ImageAge>>,
    /// Ports that are public of one workspace.
    pub(super) public: PublicPorts,
    /// What was measured.
    pub(super) meter: Meter,
    /// How long starts took.
    pub(super) starts: Starts,
    /// When somebody last logged in, of what is not written down yet.
    pub(super) logins: Mutex<BTreeMap<WorkspaceName, SystemTime>>,
}

/// How long a file operation may take; beyond it something is wrong with the disk.
const DISK_DEADLINE: Duration = Duration::from_secs(20);

impl Rules {
    /// Whether containers of a template go on though nobody is in them.
    pub(super) fn keeps_running(&self, template: &TemplateName) -> bool {
        self.templates.get(template).is_some_and(|template| template.keep_running)
    }
}

impl House {
    pub(super) fn new(parts: Parts, rules: Rules) -> Self {
        let events = Events::default();
        let roll = Roll::new(events.clone());
        let admission = Admission::new(rules.limits.containers, rules.limits.queue);
        Self {
            began: Instant::now(),
            parts,
            runtime: Handle::current(),
            rules: ArcSwap::from_pointee(rules),
            admission,
            sessions: Sessions::default(),
            pool: Pool::default(),
            events,
            roll,
            residents: DashMap::new(),
            services: Services::default(),
            floor: Floor::default(),
            busy: Mutex::default(),
            ages: Mutex::default(),
            public: PublicPorts::default(),
            meter: Meter::default(),
            starts: Starts::default(),
            logins: Mutex::default(),
        }
    }

    /// Records what became of a workspace by itself.
    pub(super) fn record(&self, name: &WorkspaceName, step: &str, container: Option<&ContainerId>, reason: Option<&str>) {
        let (container, reason) = (container.map(|id| id.0.clone()), reason.map(str::to_owned));
        let what = What::Workspace { step: step.to_owned(), reason, container, removed: None };
        self.parts.audit.record(Event::now(Actor::Gateway, what).about(name));
    }

    /// Records that a workspace was deleted, and what went with it.
    pub(super) fn record_removal(&self, name: &WorkspaceName, step: &str, container: Option<ContainerId>, removed: Removal) {
        let container = container.map(|id| id.0);
        let what = What::Workspace { step: step.to_owned(), reason: None, container, removed: Some(Box::new(removed)) };
        self.parts.audit.record(Event::now(Actor::Gateway, what).about(name));
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.parts.engine
    }

    /// The recipe of a template, or of `default` where none is named.
    pub(super) fn recipe(&self, template: Option<&TemplateName>) -> Result<Recipe, EnsureError> {
        let rules = self.rules.load();
        let name = template.cloned().unwrap_or_default();
        match rules.templates.get(&name) {
            Some(found) => Ok(Recipe { instance: rules.instance.clone(), template_name: name, template: found.clone() }),
            None => Err(EnsureError::NoTemplate(name.to_string())),
        }
    }

    /// What an administrator has set of a workspace.
    pub(super) async fn terms(&self, name: &WorkspaceName) -> Result<Terms, EnsureError> {
        let settings = self.parts.store.settings(name).await.map_err(|why| EnsureError::Settings(why.to_string()))?;
        Ok(Terms::of(name, settings))
    }

    /// Does something that may wait for the disk.
    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HomeError> + Send + 'static,
    ) -> Result<T, EnsureError> {
        match tokio::time::timeout(DISK_DEADLINE, tokio::task::spawn_blocking(work)).await {
            Ok(Ok(done)) => done.map_err(|why| EnsureError::Home(why.to_string())),
            Ok(Err(panicked)) => Err(EnsureError::Home(panicked.to_string())),
            Err(_) => Err(EnsureError::Home("the disk does not answer".to_owned())),
        }
    }

    /// Makes a slot for a container of this recipe.
    pub(super) async fn make_slot(&self, recipe: &Recipe) -> Result<Slot, EnsureError> {
        let (slots, volumes) = (self.parts.slots.clone(), recipe.template.volumes());
        self.on_disk(move || slots.create(volumes.keys())).await
    }

    /// Makes the network that containers are on, if it is not there.
    pub(super) async fn ensure_network(&self) -> Result<(), EngineError> {
        let name = recipe::network_name(&self.rules.load().instance);
        self.engine().ensure_network(&NetworkSpec { name }).await
    }

    /// Makes a container that has this slot, with all that its kind needs on the host.
    pub(super) async fn create(
        &self,
        recipe: &Recipe,
        mut spec: ContainerSpec,
        slot: &SlotId,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<ContainerId, EngineError> {
        if recipe.template.attach == Attachment::Init {
            let (attach, id) = (Arc::clone(&self.parts.attach), slot.clone());
            // A kill from here on leaves what was made for a slot that nobody holds: the sweeper removes it.
            let prepared = tokio::task::spawn_blocking(move || attach.prepare(&id)).await;
            let failed = |why: String| EngineError::Refused { call: "init", why };
            spec.init = prepared.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(why.to_string()))?;
        }
        let id = self.create_from(&spec, progress).await?;
        self.parts.attach.adopt(slot, &id);
        Ok(id)
    }

    /// Makes a container, fetching its image and making its network if that is what it takes.
    async fn create_from(&self, spec: &ContainerSpec, progress: &(dyn Fn(String) + Send + Sync)) -> Result<ContainerId, EngineError> {
        // Trying first costs the usual case nothing.
        let engine = self.engine();
        let missing = match engine.create(spec).await {
            Err(EngineError::NotFound(what)) => what,
            other => return other,
        };
        if engine.image(&spec.image).await?.is_none() {
            info!(image = spec.image, "image is not here, pulling it");
            progress(spec.image.clone());
            let image: ImageId = engine.pull(&spec.image, progress).await?;
            info!(image = spec.image, id = image.0, "pulled");
        } else {
            warn!(missing, "something the container needs is not there, making the network again");
            self.ensure_network().await?;
        }
        match engine.create(spec).await {
            // The network is made again by whoever starts the container; anything else is an answer.
            Err(EngineError::NotFound(_)) => {
                self.ensure_network().await?;
                engine.create(spec).await
            }
            other => other,
        }
    }

    /// Remembers a workspace. What fails is logged: it costs an idle clock, not a login.
    pub(super) async fn remember(self: Arc<Self>, name: WorkspaceName, record: Record) {
        if let Err(why) = self.parts.store.remember(&name, record).await {
            warn!(workspace = %name, %why, "cannot remember when it was used");
        }
    }

    /// Stops a container, with the grace that it gets. What fails is counted: it goes on to take up its place.
    pub(super) async fn stop(&self, id: &ContainerId) -> Result<(), EngineError> {
        let grace = self.rules.load().idle.stop_grace.get();
        let stopped = self.engine().stop(id, grace).await;
        // One that is gone need not be stopped any more.
        if stopped.as_ref().is_err_and(|why| !matches!(why, EngineError::NotFound(_))) {
            self.parts.metrics.stop_failures.inc();
        }
        stopped
    }

    /// Removes a container and its slot. What fails is logged: whatever is left belongs to nobody then, and the sweeper finds it.
    pub(super) async fn discard(&self, id: &ContainerId, slot: Option<Slot>) -> Result<(), EngineError> {
        self.engine().remove(id).await.inspect_err(|why| warn!(container = id.0, %why, "cannot remove container"))?;
        if let Some(slot) = slot {
            self.vacate(slot).await.ok();
        }
        Ok(())
    }

    /// Removes a slot whose container is gone, and all else that was made for it.
    pub(super) async fn vacate(&self, slot: Slot) -> Result<(), EnsureError> {
        let attach = Arc::clone(&self.parts.attach);
        let removed = self.on_disk(move || {
            attach.release(slot.id());
            slot.remove()
        });
        removed.await.inspect_err(|why| warn!(%why, "cannot remove slot"))
    }

    /// Answers for the slot of a container that is found again.
    pub(super) fn adopt(&self, container: &Container) -> Option<Slot> {
        let slot = recipe::slot_of(container).and_then(|id| self.parts.slots.adopt(id))?;
        self.parts.attach.adopt(slot.id(), &container.id);
        Some(slot)
    }
}

impl From<EngineError> for EnsureError {
    fn from(why: EngineError) -> Self {
        match why {
            EngineError::Image { .. } => Self::Image(why.to_string()),
            other => Self::Engine(other.to_string()),
        }
    }
}
