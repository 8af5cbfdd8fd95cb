//! What all workspaces of an instance share, and the few things that are done to containers on behalf of one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::admission::Admission;
use super::driver::Request;
use super::leases::Sessions;
use super::pool::Pool;
use super::recipe::{self, Recipe};
use super::{EnsureError, IdleConfig, LimitsConfig, PoolConfig, Template};
use crate::attach::Attach;
use crate::engine::{ContainerId, Engine, EngineError, ImageId, NetworkSpec};
use crate::home::{HomeError, Homes, Slot, Slots};
use crate::name::{InstanceName, TemplateName, WorkspaceName};
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
    /// What is remembered.
    pub store: Store,
    /// What is counted.
    pub metrics: Metrics,
}

/// Everything that drivers, the pool and the sweeper share.
pub(super) struct House {
    pub(super) parts: Parts,
    pub(super) rules: ArcSwap<Rules>,
    pub(super) admission: Admission,
    pub(super) sessions: Sessions,
    pub(super) pool: Pool,
    /// Which driver to tell of what happens to a running container.
    pub(super) residents: DashMap<ContainerId, mpsc::WeakSender<Request>>,
}

/// How long a file operation may take; beyond it something is wrong with the disk.
const DISK_DEADLINE: Duration = Duration::from_secs(20);

impl House {
    pub(super) fn new(parts: Parts, rules: Rules) -> Self {
        let admission = Admission::new(rules.limits.containers, rules.limits.queue);
        Self {
            parts,
            rules: ArcSwap::from_pointee(rules),
            admission,
            sessions: Sessions::default(),
            pool: Pool::default(),
            residents: DashMap::new(),
        }
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

    /// Makes the network that containers are on, if it is not there.
    pub(super) async fn ensure_network(&self) -> Result<(), EngineError> {
        let name = recipe::network_name(&self.rules.load().instance);
        self.engine().ensure_network(&NetworkSpec { name }).await
    }

    /// Makes a container, fetching its image and making its network if that is what it takes.
    pub(super) async fn create(
        &self,
        spec: &crate::engine::ContainerSpec,
        progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<ContainerId, EngineError> {
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

    /// Removes a container and its slot. What fails is logged: whatever is left belongs to nobody then, and the sweeper finds it.
    pub(super) async fn discard(&self, id: &ContainerId, slot: Option<Slot>) -> Result<(), EngineError> {
        self.engine().remove(id).await.inspect_err(|why| warn!(container = id.0, %why, "cannot remove container"))?;
        if let Some(slot) = slot
            && let Err(why) = self.on_disk(move || slot.remove()).await
        {
            warn!(%why, "cannot remove slot");
        }
        Ok(())
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
