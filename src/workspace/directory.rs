//! All workspaces of an instance: finds or starts the driver of each, and is the [`Keeper`] that doors talk to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use futures_util::StreamExt;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::driver::{Driver, Handle, Ready, Request};
use super::house::{House, Parts, Rules};
use super::leases::Counted;
use super::perform::Wish;
use super::recipe::{self, Owner, Recipe};
use super::terms::{self, Terms};
use super::{
    Ending, EnsureError, FullVolume, Fullness, Keeper, Lease, OpenError, Progress, ProgressSender, Recorded, Recording, StartPath, Stay,
};
use crate::attach::{Address, AttachError, Duplex, Endpoint, Listening, Process, ProcessSpec, Terminal};
use crate::auth::{Grant, Permit};
use crate::engine::{Container, ContainerId, ContainerState, EngineError, EventKind};
use crate::name::{AccountName, WorkspaceName};

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
pub(super) const ASKED_AT_ONCE: usize = 8;
/// How long a login waits at most to be told how full its home and its volumes are: what counts it answers in a fraction of this.
const USAGE: Duration = Duration::from_millis(100);
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
            self.learn_public_ports().await;
            // Before anybody can be let in: it is not known yet whether there is room.
            self.house.look_at_disks().await;
            match self.recover().await {
                Ok(()) => break,
                Err(why) => warn!(%why, retry_in = ?RECOVER_AGAIN, "cannot look for containers"),
            }
            tokio::select! { () = tokio::time::sleep(RECOVER_AGAIN) => {} () = stop.cancelled() => return }
        }
        let tasks = TaskTracker::new();
        tasks.spawn(Arc::clone(&self.house).fill_pool(stop.clone()));
        tasks.spawn(self.clone().listen(stop.clone()));
        tasks.spawn(self.clone().answer_questions(stop.clone()));
        tasks.spawn(self.clone().sweep(stop.clone()));
        tasks.spawn(self.clone().finish_all(stop.clone()));
        tasks.spawn(self.clone().look_after_homes(stop.clone()));
        tasks.spawn(self.clone().watch_disks(stop.clone()));
        tasks.spawn(self.clone().measure(stop.clone()));
        tasks.spawn(self.clone().make_room(stop));
        tasks.close();
        tasks.wait().await;
        self.remember_all().await;
    }

    /// Other settings from now on. What runs keeps what it was made with; idle limits apply at the next sweep, services at once.
    pub fn reload(&self, rules: Rules) {
        self.house.admission.resize(rules.limits.containers, rules.limits.queue);
        self.house.rules.store(Arc::new(rules));
        self.house.pool.wake();
        self.house.services.settings_changed();
    }

    /// The gateway is about to end: tells everybody, and lets nobody in any more.
    pub fn drain(&self, within: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        for driver in self.drivers.iter() {
            driver.inbox.try_send(Request::Announce(Ending::Draining(within))).ok();
        }
    }

    /// Whether it lets nobody in any more.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// What is public is known before anybody asks; what cannot be read needs a link.
    async fn learn_public_ports(&self) {
        match self.house.parts.store.public_ports().await {
            Ok(all) => all.into_iter().for_each(|(name, ports)| self.house.public.set(&name, Some(ports))),
            Err(why) => warn!(%why, "cannot read which ports are public"),
        }
    }

    /// Adopts the containers that are there already.
    async fn recover(&self) -> Result<(), EngineError> {
        let homes = self.house.parts.homes.clone();
        if let Err(why) = self.house.on_disk(move || homes.recover()).await {
            warn!(%why, "cannot put back what was left among homes");
        }
        self.detach_loose().await;
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
                Owner::Former(name) => self.look(&name).await,
                // The first sweep throws these away.
                Owner::Pool | Owner::Stranger => {}
            }
        }
        self.rest_those_reached().await;
        self.resume_those_stopped();
        info!(workspaces, spares, "found again");
        Ok(())
    }

    /// Has homes let go of that nobody uses: a backup or a copy that was killed has left them reachable.
    async fn rest_those_reached(&self) {
        let homes = self.house.parts.homes.clone();
        match self.house.on_disk(move || homes.reached()).await {
            Ok(reached) => {
                let names: BTreeSet<WorkspaceName> = reached.into_iter().map(|home| home.workspace).collect();
                for name in names {
                    // Only its driver knows whether it is used, and that nobody is about to.
                    self.handle(&name).await.inbox.send(Request::Rest).await.ok();
                }
            }
            Err(why) => warn!(%why, "cannot see which homes are reachable"),
        }
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
        let terms = self.house.terms(name).await.unwrap_or_else(|why| {
            // Nobody is let in without: whoever comes reads them again.
            warn!(workspace = %name, %why, "cannot read what is set of it");
            Terms::default()
        });
        let spawn = || Driver::spawn(Arc::clone(&self.house), name.clone(), record.as_ref(), terms.clone());
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

    /// The driver of a workspace, which goes by what is set now; unless nobody may be in it.
    async fn go_by_terms(&self, name: &WorkspaceName) -> Result<Handle, EnsureError> {
        let terms = self.house.terms(name).await?;
        if let Some(barred) = terms.barred {
            return Err(barred.into());
        }
        let handle = self.handle(name).await;
        // Only if it could not be read before: otherwise whoever has changed something has told.
        if handle.seen.borrow().revision < terms.revision {
            handle.inbox.send(Request::Terms { terms, reply: None }).await.map_err(|_| gone())?;
        }
        Ok(handle)
    }

    pub(super) async fn wait_ready(&self, grant: &Grant, progress: &ProgressSender) -> Result<Ready, EnsureError> {
        let mut handle = self.go_by_terms(&grant.workspace).await?;
        let (reply, mut answer) = oneshot::channel();
        let want = Request::Want { wish: wish(grant), idle_timeout: grant.idle_timeout, reply: Some(reply) };
        let start = self.house.rules.load().limits.start_timeout.get();
        let queue = self.house.rules.load().limits.queue_timeout.get();
        let asked = Instant::now();
        let upgrade = start + self.house.rules.load().limits.upgrade_timeout.get() + self.house.rules.load().idle.stop_grace.get();
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
                        Progress::Upgrading => Instant::now() + upgrade,
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

    /// Starts to make a workspace ready for somebody who is about to arrive, after a login or by another way.
    fn arriving(&self, grant: &Grant, login: bool) {
        if self.draining.load(Ordering::SeqCst) {
            return;
        }
        let (directory, grant) = (self.clone(), grant.clone());
        tokio::spawn(async move {
            let want = Request::Want { wish: wish(&grant), idle_timeout: grant.idle_timeout, reply: None };
            // Nobody depends on it: whoever comes asks again.
            if let Ok(handle) = directory.go_by_terms(&grant.workspace).await {
                if login {
                    handle.leases.count_login();
                }
                handle.inbox.try_send(want).ok();
            }
        });
    }

    async fn enter(&self, grant: &Grant, progress: &ProgressSender, session: Option<Counted>) -> Result<Stay, EnsureError> {
        let asked = Instant::now();
        let _waiting = self.house.pool.person_waits();
        let ready = self.wait_ready(grant, progress).await?;
        let metrics = &self.house.parts.metrics;
        metrics.starts.with_label_values(&[ready.path.label()]).inc();
        metrics.start_seconds.with_label_values(&[ready.path.label()]).observe(asked.elapsed().as_secs_f64());
        self.house.starts.note(ready.path, asked.elapsed());
        let env = match session {
            Some(_) => self.public_variables(&grant.workspace).await?,
            None => Vec::new(),
        };
        let Recipe { template_name, template, .. } = self.house.recipe(grant.template.as_ref())?;
        let motd = template.motd;
        let (session, ending, recorded) = match session {
            Some(session) => {
                self.house.logged_in(&grant.workspace);
                let (entry, ending) = self.house.roll.enter(&grant.account, &grant.workspace, ready.ending);
                let recorded = (template.recording == Recording::Terminals).then(|| Recorded {
                    session: entry.id(),
                    account: grant.account.clone(),
                    template: template_name,
                    watchable: template.watch,
                });
                (Some((session, entry)), ending, recorded)
            }
            None => (None, ready.ending, None),
        };
        Ok(Stay {
            workspace: grant.workspace.clone(),
            container: ready.container.0,
            path: ready.path,
            ending,
            motd: (!motd.is_empty()).then_some(motd),
            fullness: self.fullness(&grant.workspace).await,
            notes: ready.notes,
            env,
            recorded,
            lease: match session {
                Some(session) => Lease::of_session(ready.lease, session),
                None => Lease::new(ready.lease),
            },
        })
    }

    /// Her home and her volumes, those of which it is worth saying how full they are. A login does not fail by it, nor wait for it to speak of.
    async fn fullness(&self, name: &WorkspaceName) -> Vec<Fullness> {
        let volumes = self.drivers.get(name).map(|handle| handle.seen.borrow().volumes.clone()).unwrap_or_default();
        let (house, trees) = (Arc::clone(&self.house), recipe::trees(name, volumes.keys()));
        let asked = self.house.on_disk(move || {
            let places = std::iter::once(None).chain(volumes.into_iter().map(|(name, path)| Some(FullVolume { name, path })));
            let mut full = Vec::new();
            for (id, volume) in trees.iter().zip(places) {
                full.extend(house.parts.homes.usage(id)?.and_then(|usage| Fullness::of(volume, &usage)));
            }
            Ok(full)
        });
        match tokio::time::timeout(USAGE, asked).await {
            Ok(Ok(full)) => full,
            Ok(Err(why)) => {
                warn!(workspace = %name, %why, "cannot tell how full the home is");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    /// What came of asking a container for something; if it is gone, its driver has looked before she asks again, so that she is not given
    /// the same one.
    async fn or_gone<T>(&self, stay: &Stay, answer: Result<T, AttachError>) -> Result<T, OpenError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(AttachError::Engine(EngineError::NotRunning | EngineError::NotFound(_))) => {
                self.look(&stay.workspace).await;
                Err(OpenError::Gone)
            }
            Err(why) => Err(OpenError::Attach(why)),
        }
    }
}

#[async_trait::async_trait]
impl Keeper for Directory {
    fn prepare(&self, grant: &Grant) {
        self.arriving(grant, false);
    }

    fn logged_in(&self, grant: &Grant) {
        self.arriving(grant, true);
    }

    async fn grant_of(&self, workspace: &WorkspaceName) -> Result<Option<Grant>, EnsureError> {
        let record = self.house.parts.store.recall(workspace).await.map_err(|why| EnsureError::Settings(why.to_string()))?;
        let Some(record) = record else { return Ok(None) };
        let Ok(account) = AccountName::parse(workspace.as_str()) else { return Ok(None) };
        let limits = terms::read(workspace, record.limits.as_deref());
        let (template, idle_timeout) = (Some(record.template), record.idle_timeout);
        Ok(Some(Grant { workspace: workspace.clone(), template, limits, idle_timeout, ..Grant::plain(account) }))
    }

    fn glance(&self, workspace: &WorkspaceName) -> Option<Stay> {
        let seen = self.drivers.get(workspace).map(|handle| handle.seen.borrow().clone())?;
        let container = seen.running.filter(|_| seen.barred.is_none())?;
        Some(Stay {
            workspace: workspace.clone(),
            container: container.0,
            path: StartPath::Attach,
            recorded: None,
            ending: watch::channel(None).1,
            motd: None,
            fullness: Vec::new(),
            notes: Vec::new(),
            env: Vec::new(),
            lease: Lease::new(()),
        })
    }

    fn is_public(&self, workspace: &WorkspaceName, port: u16) -> bool {
        self.house.public.has(workspace, port)
    }

    async fn ensure(&self, grant: &Grant, progress: &ProgressSender) -> Result<Stay, EnsureError> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(EnsureError::Draining);
        }
        let limit = grant.limits.sessions.unwrap_or(self.house.rules.load().limits.sessions_per_account);
        let counted = self.house.sessions.begin(&grant.account, limit).ok_or(EnsureError::TooManySessions { limit })?;
        self.enter(grant, progress, Some(counted)).await
    }

    async fn reach(&self, grant: &Grant) -> Result<Stay, EnsureError> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(EnsureError::Draining);
        }
        self.enter(grant, &ProgressSender::new(Progress::default()), None).await
    }

    fn permit(&self, grant: &Grant) -> Permit {
        // Of a template that is not there nothing can be had anyway, and `ensure` says why.
        self.house.recipe(grant.template.as_ref()).map_or(grant.permit, |recipe| recipe.template.permit.and(grant.permit))
    }

    async fn open(&self, stay: &Stay, spec: &ProcessSpec) -> Result<Process, OpenError> {
        let _waiting = self.house.pool.person_waits();
        let mut spec = spec.clone();
        let secrets = self.secret_variables(&stay.workspace).await;
        spec.env.extend(secrets.map_err(|why| OpenError::Attach(AttachError::Init(why.to_string())))?);
        // The host name of a container that was claimed is its template's: this is how a prompt can tell whose it is.
        spec.env.push(("INNKEEPER_WORKSPACE".to_owned(), stay.workspace.to_string()));
        let opened = self.house.parts.attach.open(&ContainerId(stay.container.clone()), &spec).await;
        let opened = self.or_gone(stay, opened).await?;
        Ok(match (&stay.recorded, &spec.pty) {
            (Some(recorded), Some(pty)) => self.record(&stay.workspace, recorded, pty, opened),
            _ => opened,
        })
    }

    async fn connect(&self, stay: &Stay, to: &Address) -> Result<Box<dyn Duplex>, OpenError> {
        let connected = self.house.parts.attach.connect(&ContainerId(stay.container.clone()), to).await;
        self.or_gone(stay, connected).await
    }

    async fn listen(&self, stay: &Stay, on: &Endpoint) -> Result<Listening, OpenError> {
        let listening = self.house.parts.attach.listen(&ContainerId(stay.container.clone()), on).await;
        self.or_gone(stay, listening).await
    }

    async fn terminals(&self, stay: &Stay) -> Result<Vec<Terminal>, OpenError> {
        let listed = self.house.parts.attach.terminals(&ContainerId(stay.container.clone())).await;
        self.or_gone(stay, listed).await
    }
}

fn wish(grant: &Grant) -> Wish {
    Wish { template: grant.template.clone(), limits: grant.limits.clone() }
}

/// A driver ended while somebody waited for it: a bug, which the next login does not meet again.
fn gone() -> EnsureError {
    EnsureError::Engine("the workspace's task ended".to_owned())
}
