//! Which workspaces have an older image than their template, and having them get it: asking for that, and seeing it through after a kill.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::directory::Directory;
use super::driver::Request;
use super::house::House;
use super::passing::{Done, Step, StepSender};
use super::recipe::{self, Owner};
use super::settings::refused;
use super::terms::Terms;
use super::upgrading::Target;
use super::{AskError, Progress};
use crate::engine::{Container, EngineError, ImageId};
use crate::name::WorkspaceName;
use crate::store::{Alteration, Settings, Upgrade, UpgradeStep};

/// How old a container's image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageAge {
    /// It is what its template names now.
    Current,
    /// Its template names another one now.
    Older,
}

/// An upgrade that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeView {
    /// Since when.
    pub asked: SystemTime,
    /// Why it was undone; `None`: it was not tried yet.
    pub failed: Option<String>,
}

impl From<Upgrade> for UpgradeView {
    fn from(upgrade: Upgrade) -> Self {
        Self { asked: upgrade.asked, failed: upgrade.failed.map(|failed| failed.why) }
    }
}

// === impl ImageAge ===

impl ImageAge {
    /// The word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Older => "older",
        }
    }
}

// === impl Directory ===

impl Directory {
    /// Whether a workspace is to get another container, as its template's image or its recipe is another now. Without a container it is not: the
    /// next one is of that image anyway.
    pub(super) async fn can_be_upgraded(&self, name: &WorkspaceName, settings: &Settings) -> Result<bool, AskError> {
        let engine = |why: EngineError| AskError::Store(why.to_string());
        let container = recipe::container_name(&self.house.rules.load().instance, name);
        let Some(container) = self.house.engine().inspect(&container).await.map_err(engine)? else {
            return if self.is_known(name, settings).await? { Ok(false) } else { Err(AskError::NoWorkspace(name.clone())) };
        };
        let template = recipe::made_from(&container.labels).map(|(template, _)| template);
        let recipe = self.house.recipe(template.as_ref()).map_err(|why| AskError::Refused(format!("{name} cannot be upgraded: {why}")))?;
        let image = self.house.engine().image(&recipe.template.image).await.map_err(engine)?;
        let image = image.ok_or_else(|| {
            let (image, template) = (&recipe.template.image, &recipe.template_name);
            AskError::Refused(format!(
                "{name} cannot be upgraded: the image {image} of template {template} is not here; pull or build it first"
            ))
        })?;
        Ok(!Target::new(image, &recipe).is_of(&container))
    }

    /// Has a workspace upgraded now: its container is stopped, and another tried in its place.
    pub(super) async fn upgrade(&self, name: &WorkspaceName, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        if settings.passage.is_some() {
            return Err(AskError::Refused(format!("{name} is deleted; `innkeeper workspace undelete {name}` brings it back")));
        }
        if settings.suspension.is_some() {
            let why = format!("{name} is suspended; without --now it is upgraded when it starts again");
            return Err(AskError::Refused(why));
        }
        if !self.can_be_upgraded(name, &settings).await? {
            return Ok(Done { unchanged: true, ..Done::default() });
        }
        let settings = self.house.parts.store.alter(name, Alteration::Upgrade(UpgradeStep::Asked)).await.map_err(refused)?;
        // A kill from here on leaves it asked for: tried at the next start, or gone on with, if its container was stopped for it already.
        info!(workspace = %name, "to be upgraded now, by an administrator");
        self.apply(name, Terms::of(name, settings)).await;
        let mut handle = self.handle(name).await;
        let (reply, mut answer) = oneshot::channel();
        let ended = || AskError::Store("the workspace's task ended".to_owned());
        handle.inbox.send(Request::Upgrade { reply: Some(reply) }).await.map_err(|_| ended())?;
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer.map_err(|_| ended())?,
                changed = handle.progress.changed() => {
                    changed.map_err(|_| ended())?;
                    let what = match &*handle.progress.borrow_and_update() {
                        Progress::Asked | Progress::Upgrading => "upgrading",
                        Progress::Queued { .. } => "waiting for a place",
                        Progress::Pulling(_) | Progress::Creating => "making a container",
                        Progress::Starting => "starting its container",
                    };
                    step.send_replace(Step { what, ..Step::default() });
                }
            }
        };
        answer.map_err(|why| AskError::Refused(format!("{name} is not upgraded ({why}); it is tried again at its next start")))?;
        match self.set_of(name).await?.upgrade {
            None => Ok(Done::default()),
            Some(Upgrade { failed: Some(failed), .. }) => {
                Err(AskError::Refused(format!("{name} is not upgraded, and has its former container: {}", failed.why)))
            }
            Some(Upgrade { failed: None, .. }) => {
                Err(AskError::Refused(format!("{name} is not upgraded yet; the log says why, and it is tried again at its next start")))
            }
        }
    }

    /// Has those workspaces started that were stopped for an upgrade which was cut short.
    pub(super) fn resume_those_stopped(&self) {
        for handle in self.handles() {
            let due = {
                let seen = handle.seen.borrow();
                // Of one that could not be looked at it is not known: whoever wants it looks again.
                matches!(seen.state, "stopped" | "unknown")
                    && seen.barred.is_none()
                    && seen.upgrade.as_ref().is_some_and(|upgrade| upgrade.resume)
            };
            if due {
                handle.inbox.try_send(Request::Resume).ok();
            }
        }
    }

    /// Finds out which workspaces' containers are of an older image than their template's.
    pub(super) async fn look_at_images(&self, containers: &[Container]) -> Result<(), EngineError> {
        let mut images: HashMap<String, Option<ImageId>> = HashMap::new();
        let mut ages = HashMap::new();
        for container in containers {
            let Owner::Workspace(name) = self.owner(container) else { continue };
            let template = recipe::made_from(&container.labels).map(|(template, _)| template);
            let Ok(recipe) = self.house.recipe(template.as_ref()) else { continue };
            let reference = recipe.template.image;
            if !images.contains_key(&reference) {
                let image = self.house.engine().image(&reference).await?;
                images.insert(reference.clone(), image);
            }
            // One that is not here is none that it could have.
            let newest = images.get(&reference).and_then(Option::as_ref);
            let older = newest.is_some_and(|newest| *newest != container.image);
            ages.insert(name, if older { ImageAge::Older } else { ImageAge::Current });
        }
        let older = ages.values().filter(|age| **age == ImageAge::Older).count();
        self.house.parts.metrics.outdated.set(i64::try_from(older).unwrap_or(i64::MAX));
        *self.house.ages.lock() = ages;
        Ok(())
    }
}

// === impl House ===

impl House {
    /// Writes down that a workspace runs again that was stopped for an upgrade, and tells its driver.
    pub(super) async fn resumed(self: Arc<Self>, name: WorkspaceName, driver: mpsc::WeakSender<Request>) {
        match self.parts.store.alter(&name, Alteration::Upgrade(UpgradeStep::Resumed)).await {
            Ok(settings) => {
                if let Some(driver) = driver.upgrade() {
                    driver.send(Request::Terms { terms: Terms::of(&name, settings), reply: None }).await.ok();
                }
            }
            Err(why) => warn!(workspace = %name, %why, "cannot write down that it runs again"),
        }
    }
}
