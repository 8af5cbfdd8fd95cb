//! All workspaces of an instance: finds or starts the driver of each, and is the [`Keeper`] that doors talk to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use dashmap::DashMap;
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::driver::{Driver, Handle, Ready, Request};
use super::house::{House, Parts, Rules};
use super::leases::{Counted, Held};
use super::perform::Wish;
use super::recipe::{self, Owner};
use super::{Ending, EnsureError, Keeper, Lease, OpenError, Progress, ProgressSender, Stay};
use crate::attach::{AttachError, Process, ProcessSpec};
use crate::auth::Grant;
use crate::engine::{Container, ContainerId, ContainerState, EngineError, EventKind, Usage};
use crate::name::WorkspaceName;

/// All workspaces of an instance.
#[derive(Clone)]
pub struct Directory {
    pub(super) house: Arc<House>,
    pub(super) drivers: Arc<DashMap<WorkspaceName, Handle>>,
    draining: Arc<AtomicBool>,
}

/// How long a pull may take: a large image over a slow line.
const PULL_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// Containers whose use is asked for at once: the engine takes a millisecond or two for each, and has others to serve.
const ASKED_AT_ONCE: usize = 8;
/// Pause before the engine is asked again when it could not be reached at start-up.
const RECOVER_AGAIN: Duration = Duration::from_secs(2);

impl Directory {
    /// A directory in which nothing is known yet.
    pub fn new(parts: Parts, rules: Rules) -> Self {
        Self { house: Arc::new(House::new(parts, rules)), drivers: Arc::default(), draining: Arc::default() }
    }

    /// Finds again what earlier processes left, then keeps the pool filled, sweeps, and listens to the engine, until told to stop.
    ///
    /// Returns when all that has ended. Containers are left running.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            match self.recover().await {
                Ok(()) => break,
                Err(why) => warn!(%why, retry_in = ?RECOVER_AGAIN, "cannot look for containers"),
            }
            tokio::select! { () = tokio::time::sleep(RECOVER_AGAIN) => {} () = stop.cancelled() => return }
        }
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&self.house).fill_pool(stop.clone()));
        tasks.spawn(self.clone().listen(stop.clone()));
        tasks.spawn(self.clone().sweep(stop.clone()));
        tasks.spawn(self.clone().make_room(stop));
        tasks.close();
        tasks.wait().await;
        self.remember_all().await;
    }

    /// Other settings from now on. What runs keeps what it was made with; idle limits apply at the next sweep.
    pub fn reload(&self, rules: Rules) {
        self.house.admission.resize(rules.limits.containers, rules.limits.queue);
        self.house.rules.store(Arc::new(rules));
        self.house.pool.wake();
    }

    /// The gateway is about to end: tells everybody, and lets nobody in any more.
    pub fn drain(&self, within: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        for driver in self.drivers.iter() {
            driver.inbox.try_send(Request::Announce(Ending::Draining(within))).ok();
        }
    }

    /// Whether the engine answers.
    pub async fn engine_ready(&self) -> Result<(), EngineError> {
        self.house.engine().version().await.map(drop)
    }

    /// What each running workspace has used. One that cannot be asked is left out.
    pub async fn usage(&self) -> Vec<(WorkspaceName, Usage)> {
        let running: Vec<_> =
            self.drivers.iter().filter_map(|entry| Some((entry.key().clone(), entry.seen.borrow().running.clone()?))).collect();
        let ask = |(name, id): (WorkspaceName, ContainerId)| async move { Some((name, self.house.engine().usage(&id).await.ok()?)) };
        futures_util::stream::iter(running).map(ask).buffer_unordered(ASKED_AT_ONCE).filter_map(std::future::ready).collect().await
    }

    /// Adopts the containers that are there already.
    async fn recover(&self) -> Result<(), EngineError> {
        self.house.ensure_network().await?;
        let containers = self.house.engine().list().await?;
        let (mut workspaces, mut spares) = (0, 0);
        for container in &containers {
            match self.owner(container) {
                Owner::Workspace(name) => {
                    self.look(&name).await;
                    workspaces += 1;
                }
                Owner::Pool if self.house.adopt_spare(container).await => spares += 1,
                // The first sweep throws these away.
                Owner::Pool | Owner::Stranger => {}
            }
        }
        info!(workspaces, spares, "found again");
        Ok(())
    }

    pub(super) fn owner(&self, container: &Container) -> Owner {
        recipe::owner(&self.house.rules.load().instance, &container.name)
    }

    /// Has the driver of a workspace look at its container, and waits until it has.
    pub(super) async fn look(&self, name: &WorkspaceName) {
        let (reply, looked) = oneshot::channel();
        if self.handle(name).await.inbox.send(Request::Doubt { reply: Some(reply) }).await.is_ok() {
            looked.await.ok();
        }
    }

    /// The driver of a workspace, started if there is none.
    pub(super) async fn handle(&self, name: &WorkspaceName) -> Handle {
        if let Some(handle) = self.running_handle(name) {
            return handle;
        }
        let record = self.house.parts.store.recall(name).await.unwrap_or_else(|why| {
            warn!(workspace = %name, %why, "cannot recall when it was used");
            None
        });
        let idle_for = record.as_ref().and_then(|record| SystemTime::now().duration_since(record.last_active).ok());
        let spawn = || {
            let timeout = record.as_ref().and_then(|record| record.idle_timeout);
            Driver::spawn(Arc::clone(&self.house), name.clone(), idle_for.unwrap_or_default(), timeout)
        };
        // Between the look above and this one somebody else may have started it: the entry decides.
        let mut entry = self.drivers.entry(name.clone()).or_insert_with(spawn);
        if entry.inbox.is_closed() {
            *entry = spawn();
        }
        entry.clone()
    }

    fn running_handle(&self, name: &WorkspaceName) -> Option<Handle> {
        self.drivers.get(name).filter(|handle| !handle.inbox.is_closed()).map(|handle| handle.clone())
    }

    /// Tells drivers and the pool what happens to their containers.
    async fn listen(self, stop: CancellationToken) {
        let mut events = self.house.engine().events();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = stop.cancelled() => return,
            };
            match event {
                None => return,
                Some(event) if event.kind == EventKind::Gap => {
                    for handle in self.handles() {
                        handle.inbox.send(Request::Doubt { reply: None }).await.ok();
                    }
                    self.check_pool().await;
                }
                Some(event) if event.kind != EventKind::Started => self.tell(&event.id, event.kind).await,
                Some(_) => {}
            }
        }
    }

    async fn tell(&self, id: &ContainerId, kind: EventKind) {
        let driver = self.house.residents.get(id).map(|driver| driver.clone());
        if let Some(driver) = driver.and_then(|driver| driver.upgrade()) {
            driver.send(Request::Doubt { reply: None }).await.ok();
        } else if kind != EventKind::Unpaused
            && let Some(spare) = self.house.pool.lose(id)
        {
            info!(container = id.0, ?kind, "pool container lost");
            self.house.throw_away(spare).await;
        }
    }

    /// Throws away the pool's containers that do not run any more.
    async fn check_pool(&self) {
        let Ok(containers) = self.house.engine().list().await else { return };
        let running: Vec<_> =
            containers.iter().filter(|container| container.state == ContainerState::Running).map(|container| &container.id).collect();
        while let Some(spare) = self.house.pool.lose_one_not_in(&running) {
            self.house.throw_away(spare).await;
        }
    }

    pub(super) fn handles(&self) -> Vec<Handle> {
        // Collected first: nothing is awaited while the map is locked.
        self.drivers.iter().map(|entry| entry.value().clone()).collect()
    }

    async fn wait_ready(&self, grant: &Grant, progress: &ProgressSender) -> Result<Ready, EnsureError> {
        let mut handle = self.handle(&grant.workspace).await;
        let (reply, mut answer) = oneshot::channel();
        let want = Request::Want { wish: wish(grant), idle_timeout: grant.idle_timeout, reply: Some(reply) };
        let start = self.house.rules.load().limits.start_timeout.get();
        let queue = self.house.rules.load().limits.queue_timeout.get();
        let asked = Instant::now();
        let mut deadline = asked + start;
        let sending = tokio::time::timeout_at(deadline, handle.inbox.send(want)).await;
        sending.map_err(|_| EnsureError::TimedOut(start))?.map_err(|_| gone())?;
        loop {
            tokio::select! {
                biased;
                ready = &mut answer => return ready.unwrap_or_else(|_| Err(gone())),
                changed = handle.progress.changed() => {
                    changed.map_err(|_| gone())?;
                    let now = handle.progress.borrow_and_update().clone();
                    deadline = match now {
                        Progress::Queued { .. } => asked + queue,
                        Progress::Pulling(_) => asked + PULL_DEADLINE,
                        Progress::Asked | Progress::Creating | Progress::Starting => Instant::now() + start,
                    };
                    progress.send_replace(now);
                }
                () = sleep_until(deadline) => {
                    let queued = matches!(*handle.progress.borrow(), Progress::Queued { .. });
                    return Err(if queued { EnsureError::QueueTimedOut { waited: asked.elapsed() } } else { EnsureError::TimedOut(start) });
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Keeper for Directory {
    fn prepare(&self, grant: &Grant) {
        if self.draining.load(Ordering::SeqCst) {
            return;
        }
        let (directory, grant) = (self.clone(), grant.clone());
        tokio::spawn(async move {
            let want = Request::Want { wish: wish(&grant), idle_timeout: grant.idle_timeout, reply: None };
            // Nobody depends on it: whoever comes asks again.
            directory.handle(&grant.workspace).await.inbox.try_send(want).ok();
        });
    }

    async fn ensure(&self, grant: &Grant, progress: &ProgressSender) -> Result<Stay, EnsureError> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(EnsureError::Draining);
        }
        let limit = grant.limits.sessions.unwrap_or(self.house.rules.load().limits.sessions_per_account);
        let counted = self.house.sessions.begin(&grant.account, limit).ok_or(EnsureError::TooManySessions { limit })?;
        let asked = Instant::now();
        let _waiting = self.house.pool.person_waits();
        let ready = self.wait_ready(grant, progress).await?;
        let metrics = &self.house.parts.metrics;
        metrics.starts.with_label_values(&[ready.path.label()]).inc();
        metrics.start_seconds.with_label_values(&[ready.path.label()]).observe(asked.elapsed().as_secs_f64());
        let motd = self.house.recipe(grant.template.as_ref())?.template.motd;
        Ok(Stay {
            workspace: grant.workspace.clone(),
            container: ready.container.0,
            path: ready.path,
            ending: ready.ending,
            motd: (!motd.is_empty()).then_some(motd),
            lease: Lease::new(Both { _session: counted, _lease: ready.lease }),
        })
    }

    async fn open(&self, stay: &Stay, spec: &ProcessSpec) -> Result<Process, OpenError> {
        let _waiting = self.house.pool.person_waits();
        let mut spec = spec.clone();
        // The host name of a container that was claimed is its template's: this is how a prompt can tell whose it is.
        spec.env.push(("INNKEEPER_WORKSPACE".to_owned(), stay.workspace.to_string()));
        match self.house.parts.attach.open(&ContainerId(stay.container.clone()), &spec).await {
            Ok(process) => Ok(process),
            Err(AttachError::Engine(EngineError::NotRunning | EngineError::NotFound(_))) => {
                // Before she asks again, so that she is not given the same one.
                self.look(&stay.workspace).await;
                Err(OpenError::Gone)
            }
            Err(why) => Err(OpenError::Attach(why)),
        }
    }
}

/// What a lease holds: the workspace running, and one of the account's sessions.
struct Both {
    _session: Counted,
    _lease: Held,
}

fn wish(grant: &Grant) -> Wish {
    Wish { template: grant.template.clone(), limits: grant.limits }
}

/// A driver ended while somebody waited for it: a bug, which the next login does not meet again.
fn gone() -> EnsureError {
    EnsureError::Engine("the workspace's task ended".to_owned())
}
