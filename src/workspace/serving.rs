//! Telling a container's init what it runs beside sessions, and counting what comes of it.
//!
//! One task a running container, which ends when the container departs. Nobody waits for it: a service that does not start keeps no login
//! out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::directory::Directory;
use super::house::House;
use super::service::{Plan, Service};
use super::{ServiceView, Standing};
use crate::attach::{self, AttachError};
use crate::engine::{ContainerId, EngineError, ImageProgram};
use crate::name::{ServiceName, TemplateName, WorkspaceName};
use crate::store::Variables;

/// Pause before init is told again after it could not be; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest such pause: how long a container that is mended stays without its services.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long init may take to take its services in.
const TELL_DEADLINE: Duration = Duration::from_secs(20);

/// What a container's services were last seen to have been started again; `None`: it ran before this process did, and what it says first
/// is where counting begins.
type Restarts = Option<HashMap<ServiceName, u32>>;

/// What telling and counting share.
pub(super) struct Services {
    /// Told when the settings are others.
    changed: watch::Sender<()>,
    /// Of the containers that run. Their names are the configuration's, so that no container can make it grow.
    restarts: Mutex<HashMap<ContainerId, Restarts>>,
}

/// A container that is told its services, until this is dropped.
pub(super) struct Serving {
    house: Arc<House>,
    id: ContainerId,
    _told: DropGuard,
}

impl Default for Services {
    fn default() -> Self {
        Self { changed: watch::Sender::new(()), restarts: Mutex::default() }
    }
}

impl Services {
    /// Has all containers told again, if something is different for them.
    pub(super) fn settings_changed(&self) {
        self.changed.send_replace(());
    }
}

// === impl Serving ===

impl Serving {
    /// A workspace has a container of this template from now on. `found`: it ran already.
    pub(super) fn begin(house: &Arc<House>, name: WorkspaceName, id: ContainerId, template: TemplateName, found: bool) -> Self {
        house.services.restarts.lock().insert(id.clone(), (!found).then(HashMap::new));
        let departed = CancellationToken::new();
        let telling = Arc::clone(house).keep_told(name, id.clone(), template);
        let token = departed.clone();
        tokio::spawn(async move { token.run_until_cancelled(telling).await });
        Self { house: Arc::clone(house), id, _told: departed.drop_guard() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.house.services.restarts.lock().remove(&self.id);
    }
}

// === impl House ===

impl House {
    /// Tells a container its services, now and whenever the settings have changed.
    async fn keep_told(self: Arc<Self>, name: WorkspaceName, id: ContainerId, template: TemplateName) {
        let mut changed = self.services.changed.subscribe();
        let mut told = Vec::new();
        loop {
            let mut pause = FIRST_PAUSE;
            while let Err(why) = self.tell(&name, &id, &template, &mut told).await {
                self.parts.metrics.service_failures.inc();
                // Another container would be one with an init; this one never is.
                if matches!(why, AttachError::Unsupported(_)) {
                    warn!(workspace = %name, container = id.0, %why, "its services cannot run");
                    break;
                }
                warn!(workspace = %name, container = id.0, %why, again_in = ?pause, "cannot tell a container its services");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells a container the services of its template as they are now, unless it was `told` the same.
    async fn tell(
        &self,
        name: &WorkspaceName,
        id: &ContainerId,
        template: &TemplateName,
        told: &mut Vec<attach::Service>,
    ) -> Result<(), AttachError> {
        // A template that was taken out says nothing of the containers that were made from it.
        let Some(services) = self.rules.load().templates.get(template).map(|template| template.service.clone()) else { return Ok(()) };
        let image = self.image_of(id, &services).await?;
        // Most have none: then nothing is made up for them.
        let variables = if services.is_empty() { Ok(Variables::default()) } else { self.variables(name, template).await };
        let variables = variables.map_err(|why| AttachError::Init(why.to_string()))?;
        let Plan { services, flaws } = Plan::of(&services, &image, name, &variables);
        for flaw in flaws {
            self.parts.metrics.service_failures.inc();
            warn!(workspace = %name, %flaw, "a service is not as configured");
        }
        if services == *told {
            return Ok(());
        }
        let telling = self.parts.attach.serve(id, services.clone());
        timeout(TELL_DEADLINE, telling).await.unwrap_or_else(|_| Err(AttachError::Init("no answer".to_owned())))?;
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        info!(workspace = %name, container = id.0, services = names.join(" "), "services told");
        *told = services;
        Ok(())
    }

    /// Has a container that was just made begin its services, and says what init was told of them; why that cannot be.
    pub(super) async fn tell_first(
        &self,
        name: &WorkspaceName,
        id: &ContainerId,
        template: &TemplateName,
        deadline: Instant,
    ) -> Result<Vec<attach::Service>, String> {
        let mut told = Vec::new();
        while let Err(why) = self.tell(name, id, template, &mut told).await {
            if Instant::now() >= deadline || matches!(why, AttachError::Unsupported(_)) {
                return Err(format!("cannot tell its container its services ({why})"));
            }
            sleep(FIRST_PAUSE).await;
        }
        let rules = self.rules.load();
        let services = rules.templates.get(template).map_or(&[][..], |template| &template.service);
        match services.iter().find(|service| told.iter().all(|told| told.name != service.name.as_str())) {
            Some(service) => Err(format!("service {} cannot be run with this image", service.name)),
            None => Ok(told),
        }
    }

    /// What the image that a container was made from says, if one of the services asks.
    async fn image_of(&self, id: &ContainerId, services: &[Service]) -> Result<ImageProgram, AttachError> {
        if !services.iter().any(Service::asks_image) {
            return Ok(ImageProgram { command: Vec::new(), directory: String::new(), check: None });
        }
        // By its id: the template's reference may mean another image by now.
        let container = self.engine().inspect(&id.0).await?.ok_or_else(|| EngineError::NotFound(id.0.clone()))?;
        let program = self.engine().image_program(&container.image.0).await?;
        Ok(program.ok_or(EngineError::NotFound(container.image.0))?)
    }

    /// How the services of a template stand in a container, or where there is none that runs. What init says of services that are not
    /// configured is not repeated.
    pub(super) fn standing(&self, template: &TemplateName, running: Option<&ContainerId>) -> Vec<ServiceView> {
        let rules = self.rules.load();
        let services = rules.templates.get(template).map_or(&[][..], |template| &template.service);
        // Most have none: nobody is asked for them.
        let reported = running.filter(|_| !services.is_empty()).map(|id| self.parts.attach.services(id)).unwrap_or_default();
        let view = |service: &Service| {
            let state = reported.iter().find(|state| state.name == service.name.as_str());
            let standing = match state {
                _ if running.is_none() => Standing::Stopped,
                Some(state) if !state.running => Standing::Stopped,
                Some(state) => state.ready.map_or(Standing::Unknown, |ready| if ready { Standing::Ready } else { Standing::Unready }),
                None => Standing::Unknown,
            };
            let (restarts, exit) = (state.map(|state| state.restarts), state.and_then(|state| state.exit));
            ServiceView { name: service.name.clone(), standing, restarts, exit }
        };
        services.iter().map(view).collect()
    }

    fn count_restarts(&self, id: &ContainerId, services: &[ServiceView]) {
        let mut book = self.services.restarts.lock();
        let Some(known) = book.get_mut(id) else { return };
        let now: HashMap<ServiceName, u32> =
            services.iter().filter_map(|service| Some((service.name.clone(), service.restarts?))).collect();
        if now.is_empty() {
            // Init has said nothing yet.
            return;
        }
        if let Some(before) = known {
            for (name, restarts) in &now {
                let before = before.get(name).copied().unwrap_or(0);
                // Fewer: it was told anew, and counts from zero.
                let more = restarts.checked_sub(before).unwrap_or(*restarts);
                self.parts.metrics.service_restarts.inc_by(more.into());
            }
        }
        *known = Some(now);
    }
}

// === impl Directory ===

impl Directory {
    /// Brings the metrics of services up to date with what containers last said.
    pub fn count_services(&self) {
        let mut counts: HashMap<Standing, i64> = HashMap::new();
        for handle in self.handles() {
            let seen = handle.seen.borrow().clone();
            let Some(id) = &seen.running else { continue };
            let services = self.house.standing(&seen.record.template, Some(id));
            self.house.count_restarts(id, &services);
            for service in services {
                *counts.entry(service.standing).or_default() += 1;
            }
        }
        for standing in Standing::ALL {
            let count = counts.get(&standing).copied().unwrap_or(0);
            self.house.parts.metrics.services.with_label_values(&[standing.label()]).set(count);
        }
    }
}
