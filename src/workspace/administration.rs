//! What an administrator may ask of all workspaces: the narrow set of requests beside [`super::Keeper`], for who looks on rather than in.

use std::time::Duration;

use super::directory::Directory;
use super::driver::Handle;
use super::{
    BackupsView, Change, Changed, Chore, DeletedView, Details, Done, EnsureError, Exported, ImageAge, Import, Running, Task, UpgradeView,
};
use crate::attach::{AttachError, Duplex, Failure, ServiceExit};
use crate::engine::{ContainerId, EngineError};
use crate::name::{ServiceName, TemplateName, WorkspaceName};

/// A workspace as its driver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// Its name.
    pub name: WorkspaceName,
    /// What it is doing: `running`, `stopped`, `queued`, …; `suspended` where nobody may be in it and nothing runs.
    pub state: &'static str,
    /// What its container was made from.
    pub template: TemplateName,
    /// The engine's id of its container, while that runs.
    pub container: Option<String>,
    /// For how long it has run, as far as this process knows.
    pub running_for: Option<Duration>,
    /// How many sessions and forwards keep it.
    pub leases: usize,
    /// For how long nobody has used it; `None` while somebody does.
    pub idle_for: Option<Duration>,
    /// How its services stand.
    pub services: Vec<ServiceView>,
    /// How old its container's image was at the last look; `None`: it has none, or nobody has looked yet.
    pub image: Option<ImageAge>,
    /// Whether it is to get another.
    pub upgrade: Option<UpgradeView>,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// In a word.
    pub standing: Standing,
    /// How often it was started again; `None`: its container has said nothing of it.
    pub restarts: Option<u32>,
    /// How it ended last.
    pub exit: Option<ServiceExit>,
}

/// How a service stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It runs and does its work.
    Ready,
    /// It runs, and does not do its work.
    Unready,
    /// It runs, and nothing says whether it does its work; or its container has said nothing yet.
    Unknown,
    /// It does not run.
    Stopped,
}

/// Why an administrator gets no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// This gateway has seen no workspace of that name.
    #[error("no workspace {0} is known; `innkeeper workspace list` names those that are")]
    NoWorkspace(WorkspaceName),
    /// Nothing runs in it.
    #[error("workspace {0} does not run")]
    NotRunning(WorkspaceName),
    /// It has no services.
    #[error("workspace {0} has no services: its template names none")]
    NoServices(WorkspaceName),
    /// It has no such service.
    #[error("workspace {0} has no service {1}")]
    NoService(WorkspaceName, ServiceName),
    /// What was asked for cannot be: why not, and what could.
    #[error("{0}")]
    Refused(String),
    /// What is set of it cannot be read or written.
    #[error("{0}")]
    Store(String),
    /// There is one of that name.
    #[error("there is a workspace {0} already; delete it for good first, or choose another name")]
    Exists(WorkspaceName),
    /// There is no session of that number, or it has ended.
    #[error("there is no session {0}")]
    NoSession(u64),
    /// It is not as whoever changes it has read it.
    #[error("it was changed meanwhile; read it again")]
    Changed,
    /// It was tried.
    #[error(transparent)]
    Attach(AttachError),
    /// It could not be made ready.
    #[error(transparent)]
    Start(EnsureError),
}

/// What an administrator may ask.
#[async_trait::async_trait]
pub trait Administration: Send + Sync + 'static {
    /// All workspaces that have come up since the gateway started or had a container when it did, by name.
    fn overview(&self) -> Vec<Overview>;

    /// Everything that is known of a workspace, whether it has come up or not.
    async fn details(&self, name: &WorkspaceName) -> Result<Details, AskError>;

    /// Changes what is set of a workspace, which need not be there yet; with a revision, unless it is of another by now. It is written down
    /// when this returns, and gone by as the answer says.
    async fn change(&self, name: &WorkspaceName, change: Change, revision: Option<i64>) -> Result<Changed, AskError>;

    /// Begins something that is done with a whole workspace. It goes on to its end whoever listens; after a kill it is finished or undone.
    fn begin(&self, name: &WorkspaceName, task: Task) -> Running {
        self.begin_if(name, task, None)
    }

    /// The same, with a revision unless what is set of the workspace is of another by then.
    fn begin_if(&self, name: &WorkspaceName, task: Task, revision: Option<i64>) -> Running;

    /// All workspaces that were deleted and are not gone yet, by name.
    async fn deleted(&self) -> Result<Vec<DeletedView>, AskError>;

    /// Begins to export a workspace in one stream.
    async fn export(&self, name: &WorkspaceName) -> Result<Exported, AskError>;

    /// Makes a workspace of such a stream, which is not trusted. It is there when this returns, or nothing of it is.
    async fn import(&self, name: &WorkspaceName, from: Import) -> Result<Done, AskError>;

    /// All backups, or one workspace's, and what restores have left to be decided.
    async fn backups(&self, name: Option<&WorkspaceName>) -> Result<BackupsView, AskError>;

    /// Begins something that is done with all backups. It goes on to its end whoever listens.
    fn begin_chore(&self, chore: Chore) -> Running;

    /// How the services of a workspace stand.
    fn services(&self, name: &WorkspaceName) -> Result<Vec<ServiceView>, AskError>;

    /// What the services of a running workspace have said, one's or all's; with `follow`, what they go on to say as well. Bytes of the
    /// container's: untrusted.
    async fn logs(&self, name: &WorkspaceName, service: Option<&ServiceName>, follow: bool) -> Result<Box<dyn Duplex>, AskError>;
}

// === impl Standing ===

impl Standing {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Unready, Self::Unknown, Self::Stopped];

    /// The word, which is the value of the metric label `state` too.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unready => "unready",
            Self::Unknown => "unknown",
            Self::Stopped => "stopped",
        }
    }
}

// === impl Directory ===

impl Directory {
    /// The template and the running container of a workspace.
    fn resident(&self, name: &WorkspaceName) -> Result<(TemplateName, Option<ContainerId>), AskError> {
        let seen = self.drivers.get(name).map(|handle| handle.seen.borrow().clone());
        let seen = seen.ok_or_else(|| AskError::NoWorkspace(name.clone()))?;
        Ok((seen.record.template, seen.running))
    }

    /// A workspace as its driver sees it, if it has one.
    pub(super) fn overview_of(&self, name: &WorkspaceName) -> Option<Overview> {
        let handle = self.drivers.get(name).map(|handle| handle.clone())?;
        Some(self.view(name.clone(), &handle))
    }

    fn view(&self, name: WorkspaceName, handle: &Handle) -> Overview {
        let seen = handle.seen.borrow().clone();
        Overview {
            image: self.house.ages.lock().get(&name).copied(),
            name,
            // Whatever its container is, as long as nothing can happen in it.
            state: seen.barred.filter(|_| seen.running.is_none()).unwrap_or(seen.state),
            running_for: seen.running.is_some().then(|| seen.since.elapsed()),
            leases: handle.leases.count(),
            upgrade: seen.upgrade.map(UpgradeView::from),
            idle_for: handle.leases.idle(),
            services: self.house.standing(&seen.record.template, seen.running.as_ref()),
            template: seen.record.template,
            container: seen.running.map(|id| id.0),
        }
    }
}

#[async_trait::async_trait]
impl Administration for Directory {
    fn overview(&self) -> Vec<Overview> {
        // Collected first: how services stand is not asked while the map is locked.
        let all: Vec<_> = self.drivers.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        let mut all: Vec<Overview> = all.into_iter().map(|(name, handle)| self.view(name, &handle)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    async fn details(&self, name: &WorkspaceName) -> Result<Details, AskError> {
        self.detail(name).await
    }

    async fn change(&self, name: &WorkspaceName, change: Change, revision: Option<i64>) -> Result<Changed, AskError> {
        self.make(name, change, revision).await
    }

    fn begin_if(&self, name: &WorkspaceName, task: Task, revision: Option<i64>) -> Running {
        self.start(name.clone(), task, revision)
    }

    async fn deleted(&self) -> Result<Vec<DeletedView>, AskError> {
        self.all_deleted().await
    }

    async fn export(&self, name: &WorkspaceName) -> Result<Exported, AskError> {
        self.begin_export(name).await
    }

    async fn import(&self, name: &WorkspaceName, from: Import) -> Result<Done, AskError> {
        self.import_from(name, from).await
    }

    async fn backups(&self, name: Option<&WorkspaceName>) -> Result<BackupsView, AskError> {
        self.all_backups(name).await
    }

    fn begin_chore(&self, chore: Chore) -> Running {
        self.start_chore(chore)
    }

    fn services(&self, name: &WorkspaceName) -> Result<Vec<ServiceView>, AskError> {
        let (template, running) = self.resident(name)?;
        Ok(self.house.standing(&template, running.as_ref()))
    }

    async fn logs(&self, name: &WorkspaceName, service: Option<&ServiceName>, follow: bool) -> Result<Box<dyn Duplex>, AskError> {
        let (_, running) = self.resident(name)?;
        let id = running.ok_or_else(|| AskError::NotRunning(name.clone()))?;
        let logs = self.house.parts.attach.logs(&id, service.map(ServiceName::as_str), follow).await;
        logs.map_err(|why| match (why, service) {
            (AttachError::Failed { why: Failure::NotFound, .. }, Some(service)) => AskError::NoService(name.clone(), service.clone()),
            (AttachError::Failed { why: Failure::NotFound, .. }, None) => AskError::NoServices(name.clone()),
            (AttachError::Engine(EngineError::NotRunning | EngineError::NotFound(_)), _) => AskError::NotRunning(name.clone()),
            (why, _) => AskError::Attach(why),
        })
    }
}
