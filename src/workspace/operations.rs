//! What an administrator does with workspaces beside what is set of each, and with what they share: making, starting and stopping one, its
//! sessions, the pool, the queue, and the feed of all that happens. Beside [`super::Administration`], for the same who ask.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use tokio::sync::{broadcast, oneshot, watch};
use tracing::info;

use super::directory::Directory;
use super::driver::{Request, Seen, StopReason};
use super::events::{Event, News};
use super::meter::{HistorySpan, Sample};
use super::notice;
use super::settings::{check_limits, check_volumes, refused, unread};
use super::{
    Allowed, AskError, CapacityView, Ending, EnsureError, Overview, OverviewFigures, Progress, SessionView, StartPath, Template, UsageView,
    terms,
};
use crate::auth::{Grant, LimitOverrides};
use crate::name::{AccountName, TemplateName, VariableName, VolumeName, WorkspaceName};
use crate::recording::{RecordingId, View, Watch};
use crate::store::{Founding, Remembered};

/// A workspace, whether it has come up or not.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: WorkspaceName,
    /// What it is doing; `absent` where nothing has come up.
    pub state: &'static str,
    /// The template it was last given.
    pub template: TemplateName,
    /// When it was last used, as far as anybody remembers.
    pub last_active: Option<SystemTime>,
    /// When somebody last logged in to it, as far as anybody remembers.
    pub last_login: Option<SystemTime>,
    /// Whether nobody may be in it.
    pub suspended: bool,
    /// What it may use; nothing where there is no such template.
    pub allowed: Option<Allowed>,
    /// Bytes that may be in each of its volumes.
    pub allowed_volumes: BTreeMap<VolumeName, u64>,
    /// What it used when it was last measured, if it runs.
    pub sample: Option<Sample>,
    /// Bytes in its home and volumes, where somebody has counted them.
    pub disk: Option<u64>,
    /// How it stands, if this gateway has seen it.
    pub now: Option<Overview>,
}

/// A workspace that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewWorkspace {
    /// Its template.
    pub template: TemplateName,
    /// Limits of its own.
    pub limits: LimitOverrides,
    /// Its variables.
    pub env: BTreeMap<VariableName, String>,
}

/// A workspace that is being started, whoever listens.
#[derive(Debug)]
pub struct Starting {
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
    /// What came of it.
    pub done: oneshot::Receiver<Result<StartPath, AskError>>,
}

/// The pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolView {
    /// How many are kept ready of each template.
    pub size: usize,
    /// Whether no new ones are made for now.
    pub paused: bool,
    /// What there is of each template.
    pub spares: Vec<SpareView>,
}

/// Ready containers of one template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpareView {
    /// The template.
    pub template: TemplateName,
    /// How many stand ready.
    pub ready: usize,
}

/// What is to be different about the pool, until the configuration is next loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolChange {
    /// How many are kept ready of each template.
    pub size: Option<usize>,
    /// Whether no new ones are made.
    pub paused: Option<bool>,
}

/// Places, and who waits for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Containers that may run at once.
    pub capacity: usize,
    /// Places that are taken.
    pub taken: usize,
    /// How many wait.
    pub waiting: usize,
    /// The workspaces that wait, in their order, 1 being next.
    pub workspaces: Vec<(usize, WorkspaceName)>,
}

/// Most containers of a template that the pool can be told to keep: more than a host runs.
const LARGEST_POOL: usize = 1000;
/// How much longer than a container may take to end its stop is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a stop that found something else under way is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Whether nothing of it runs that could be stopped.
fn is_at_rest(seen: &Seen) -> bool {
    matches!(seen.state, "stopped" | "absent")
}

/// What an administrator may do.
#[async_trait::async_trait]
pub trait Operations: Send + Sync + 'static {
    /// All workspaces of which anything is known, by name; those that are deleted are not among them.
    async fn known(&self) -> Result<Vec<Known>, AskError>;

    /// Whether a workspace can be made: there is none of that name, and there is such a template.
    async fn can_make(&self, name: &WorkspaceName, new: &NewWorkspace) -> Result<(), AskError>;

    /// Makes a workspace, whole or not at all. Its home is made at its first start. With `again` one that is there is taken for made.
    async fn make_workspace(&self, name: &WorkspaceName, new: NewWorkspace, again: bool) -> Result<(), AskError>;

    /// Begins to make a workspace ready, as a login would.
    async fn start(&self, name: &WorkspaceName) -> Result<Starting, AskError>;

    /// Stops a workspace, whoever is in it; returns when it stands still. With `notice` people at its terminals are told so long before,
    /// otherwise as `idle.notice` says. Dropped before that is over, it stops nothing, and they are told.
    async fn stop(&self, name: &WorkspaceName, notice: Option<Duration>) -> Result<(), AskError>;

    /// Begins to stop a workspace as [`Operations::stop`] does, and to make it ready again. With `done` dropped before people's time is over
    /// it stops nothing.
    async fn restart(&self, name: &WorkspaceName, notice: Option<Duration>) -> Result<Starting, AskError>;

    /// The recipes there are.
    fn templates(&self) -> BTreeMap<TemplateName, Template>;

    /// All sessions.
    fn sessions(&self) -> Vec<SessionView>;

    /// Ends a session.
    fn end_session(&self, id: u64) -> Result<(), AskError>;

    /// Begins to watch a session's terminal; says in which workspace it is and which recording it has.
    fn watch(&self, id: u64) -> Result<(WorkspaceName, RecordingId, Watch), AskError>;

    /// The pool.
    fn pool(&self) -> PoolView;

    /// Changes the pool, if it is so still, until the configuration is next loaded.
    fn change_pool(&self, as_it_was: Option<(usize, bool)>, change: PoolChange) -> Result<PoolView, AskError>;

    /// Has the pool make no new containers, if it is so still, and throws away those that stand ready. Says how many.
    async fn drain_pool(&self, as_it_was: Option<(usize, bool)>) -> Result<usize, AskError>;

    /// Places, and who waits for one.
    fn queue(&self) -> QueueView;

    /// How all is, as of the last look.
    async fn overview_figures(&self) -> Result<OverviewFigures, AskError>;

    /// What a workspace uses and has used.
    async fn usage(&self, name: &WorkspaceName, span: HistorySpan) -> Result<UsageView, AskError>;

    /// How many more workspaces fit, and what they cost.
    async fn capacity(&self) -> Result<CapacityView, AskError>;

    /// Everything that happens from now on.
    fn events(&self) -> broadcast::Receiver<Event>;
}

impl Directory {
    /// What a login of nobody in particular would be granted.
    async fn own_grant(&self, name: &WorkspaceName) -> Result<Grant, AskError> {
        let record = self.house.parts.store.recall(name).await.map_err(unread)?;
        let settings = self.set_of(name).await?;
        if record.is_none() && !self.is_known(name, &settings).await? {
            return Err(AskError::NoWorkspace(name.clone()));
        }
        let account = AccountName::parse(name.as_str()).map_err(|why| AskError::Refused(why.to_string()))?;
        let mut grant = Grant { workspace: name.clone(), ..Grant::plain(account) };
        if let Some(record) = record {
            grant.limits = terms::read(name, record.limits.as_deref());
            grant.idle_timeout = record.idle_timeout;
            grant.template = Some(record.template);
        }
        Ok(grant)
    }

    /// Tells people in a workspace that it is about to be stopped, and returns when their time is over.
    async fn give_notice(&self, name: &WorkspaceName, notice: Option<Duration>) {
        let notice = notice.unwrap_or_else(|| self.house.rules.load().idle.notice.get());
        let handle = self.drivers.get(name).map(|handle| handle.clone());
        let Some(handle) = handle.filter(|_| !notice.is_zero() && self.house.roll.counts().contains_key(name)) else { return };
        notice::give(&handle, notice, is_at_rest).await;
    }
}

#[async_trait::async_trait]
impl Operations for Directory {
    async fn known(&self) -> Result<Vec<Known>, AskError> {
        let mut all: BTreeMap<WorkspaceName, Remembered> = BTreeMap::new();
        let mut passing = Vec::new();
        for one in self.house.parts.store.all().await.map_err(unread)? {
            if one.passing {
                passing.push(one.name);
                continue;
            }
            all.insert(one.name.clone(), one);
        }
        let mut seen: BTreeMap<WorkspaceName, Overview> = BTreeMap::new();
        seen.extend(super::Administration::overview(self).into_iter().map(|now| (now.name.clone(), now)));
        passing.iter().for_each(|name| drop(seen.remove(name)));
        let mut known: Vec<Known> =
            all.into_values().map(|one| (seen.remove(&one.name), one)).map(|(now, one)| self.known_of(one, now)).collect();
        known.extend(seen.into_values().map(|now| self.seen_only(now)));
        known.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(known)
    }

    async fn can_make(&self, name: &WorkspaceName, new: &NewWorkspace) -> Result<(), AskError> {
        check_limits(&new.limits)?;
        if new.env.values().any(|value| value.contains('\0')) {
            return Err(AskError::Refused("the value of a variable has a zero byte".to_owned()));
        }
        let recipe = self.house.recipe(Some(&new.template)).map_err(AskError::Start)?;
        check_volumes(&new.limits, &new.template, recipe.template.volumes().into_keys().collect())?;
        let settings = self.set_of(name).await?;
        if self.is_known(name, &settings).await? { Err(AskError::Exists(name.clone())) } else { Ok(()) }
    }

    async fn make_workspace(&self, name: &WorkspaceName, new: NewWorkspace, again: bool) -> Result<(), AskError> {
        match self.can_make(name, &new).await {
            Err(AskError::Exists(_)) if again => return Ok(()),
            can => can?,
        }
        let _busy = self.busy(name)?;
        let founding = Founding { template: new.template, limits: terms::written(&new.limits), env: new.env };
        if !self.house.parts.store.found(name, founding).await.map_err(refused)? {
            return Err(AskError::Exists(name.clone()));
        }
        // A kill from here on leaves it made.
        info!(workspace = %name, "made by an administrator");
        self.house.events.tell(News::Made { workspace: name.clone() });
        // A driver that somebody has woken before knows nothing of this yet.
        if self.drivers.contains_key(name) {
            let settings = self.set_of(name).await?;
            self.apply(name, terms::Terms::of(name, settings)).await;
        }
        Ok(())
    }

    async fn start(&self, name: &WorkspaceName) -> Result<Starting, AskError> {
        if self.is_draining() {
            return Err(AskError::Start(EnsureError::Draining));
        }
        let grant = self.own_grant(name).await?;
        let (tell, progress) = watch::channel(Progress::default());
        let (answer, done) = oneshot::channel();
        let directory = self.clone();
        tokio::spawn(async move {
            let ready = directory.wait_ready(&grant, &tell).await;
            // Its lease is dropped at once: nobody is in, and its idle clock begins.
            let _ = answer.send(ready.map(|ready| ready.path).map_err(AskError::Start));
        });
        Ok(Starting { progress, done })
    }

    async fn stop(&self, name: &WorkspaceName, notice: Option<Duration>) -> Result<(), AskError> {
        let handle = self.drivers.get(name).map(|handle| handle.clone());
        let Some(handle) = handle else {
            let settings = self.set_of(name).await?;
            return if self.is_known(name, &settings).await? { Ok(()) } else { Err(AskError::NoWorkspace(name.clone())) };
        };
        let mut seen = handle.seen.clone();
        let within = self.house.rules.load().idle.stop_grace.get() + PATIENCE;
        self.give_notice(name, notice).await;
        let stopped = async {
            while !is_at_rest(&seen.borrow()) {
                if handle.inbox.send(Request::Stop { reason: StopReason::Asked }).await.is_err() {
                    // It was deleted meanwhile, and its task ended with it.
                    return;
                }
                // It is asked again after a while if something else was under way. Every request is published, and none is a reason to ask.
                if let Ok(Err(_ended)) = tokio::time::timeout(ASK_AGAIN, seen.wait_for(is_at_rest)).await {
                    return;
                }
            }
        };
        let late = |_| AskError::Start(EnsureError::TimedOut(within));
        tokio::time::timeout(within, stopped).await.map_err(late)
    }

    async fn restart(&self, name: &WorkspaceName, notice: Option<Duration>) -> Result<Starting, AskError> {
        if self.is_draining() {
            return Err(AskError::Start(EnsureError::Draining));
        }
        let grant = self.own_grant(name).await?;
        let (tell, progress) = watch::channel(Progress::default());
        let (mut answer, done) = oneshot::channel();
        let (directory, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            // Once it is being stopped it is started again, whoever listens.
            tokio::select! {
                () = directory.give_notice(&name, notice) => {}
                () = answer.closed() => return,
            }
            let started = match directory.stop(&name, Some(Duration::ZERO)).await {
                Ok(()) => directory.wait_ready(&grant, &tell).await.map(|ready| ready.path).map_err(AskError::Start),
                Err(why) => Err(why),
            };
            let _ = answer.send(started);
        });
        Ok(Starting { progress, done })
    }

    fn templates(&self) -> BTreeMap<TemplateName, Template> {
        self.house.rules.load().templates.clone()
    }

    fn sessions(&self) -> Vec<SessionView> {
        self.house.roll.all()
    }

    fn end_session(&self, id: u64) -> Result<(), AskError> {
        if self.house.roll.end(id, Ending::Ended) { Ok(()) } else { Err(AskError::NoSession(id)) }
    }

    fn watch(&self, id: u64) -> Result<(WorkspaceName, RecordingId, Watch), AskError> {
        let (workspace, view) = self.house.roll.view(id).ok_or(AskError::NoSession(id))?;
        let not = "this session cannot be watched: it has no terminal, or its template does not say `watch = true`";
        let view = view.filter(View::is_watchable).ok_or_else(|| AskError::Refused(not.to_owned()))?;
        let many = || AskError::Refused("as many watch this session as may".to_owned());
        Ok((workspace, view.id(), view.watch().ok_or_else(many)?))
    }

    fn pool(&self) -> PoolView {
        let rules = self.house.rules.load();
        let spare = |template: &TemplateName| {
            let ready = self.house.recipe(Some(template)).map_or(0, |recipe| self.house.pool.ready(&recipe.fingerprint()));
            SpareView { template: template.clone(), ready }
        };
        PoolView { size: rules.pool.size, paused: rules.pool.paused, spares: rules.pool.template.names().iter().map(spare).collect() }
    }

    fn change_pool(&self, as_it_was: Option<(usize, bool)>, change: PoolChange) -> Result<PoolView, AskError> {
        if change.size.is_some_and(|size| size > LARGEST_POOL) {
            return Err(AskError::Refused(format!("the pool keeps at most {LARGEST_POOL} of a template")));
        }
        let mut fits = true;
        self.house.rules.rcu(|rules| {
            let pool = &rules.pool;
            fits = as_it_was.is_none_or(|was| was == (pool.size, pool.paused));
            let mut rules = super::Rules::clone(rules);
            if fits {
                rules.pool.size = change.size.unwrap_or(rules.pool.size);
                rules.pool.paused = change.paused.unwrap_or(rules.pool.paused);
            }
            rules
        });
        if !fits {
            return Err(AskError::Changed);
        }
        info!(?change, "pool changed by an administrator, until the configuration is next loaded");
        self.house.pool.wake();
        Ok(self.pool())
    }

    async fn drain_pool(&self, as_it_was: Option<(usize, bool)>) -> Result<usize, AskError> {
        // One that is being made right now comes after this; the next look throws none away, and it stays until it is claimed.
        self.change_pool(as_it_was, PoolChange { size: None, paused: Some(true) })?;
        let mut drained = 0;
        while let Some(spare) = self.house.pool.give_up() {
            self.house.throw_away(spare).await;
            drained += 1;
        }
        info!(drained, "pool drained by an administrator");
        Ok(drained)
    }

    fn queue(&self) -> QueueView {
        let (capacity, taken) = self.house.admission.places();
        let place = |progress: &Progress| match progress {
            Progress::Queued { position } => Some(*position),
            Progress::Asked | Progress::Pulling(_) | Progress::Creating | Progress::Starting | Progress::Upgrading => None,
        };
        let waits =
            |handle: &super::driver::Handle| if handle.seen.borrow().state == "queued" { place(&handle.progress.borrow()) } else { None };
        let mut workspaces: Vec<_> = self.drivers.iter().filter_map(|entry| Some((waits(entry.value())?, entry.key().clone()))).collect();
        workspaces.sort();
        QueueView { capacity, taken, waiting: self.house.admission.waiting(), workspaces }
    }

    async fn overview_figures(&self) -> Result<OverviewFigures, AskError> {
        self.all_figures().await
    }

    async fn usage(&self, name: &WorkspaceName, span: HistorySpan) -> Result<UsageView, AskError> {
        self.usage_of(name, span).await
    }

    async fn capacity(&self) -> Result<CapacityView, AskError> {
        self.capacity_view().await
    }

    fn events(&self) -> broadcast::Receiver<Event> {
        self.house.events.listen()
    }
}
