//! The narrow set of requests between who talks to strangers and who holds the engine.
//!
//! A door (`ssh/`, later `http/`) holds no path, no engine and no power of root: it has a grant, asks for a workspace to be ready, and for
//! processes to be opened in it.

use std::any::Any;
use std::time::Duration;

use tokio::sync::watch;

use crate::attach::{AttachError, Process, ProcessSpec};
use crate::auth::Grant;
use crate::name::WorkspaceName;

/// What is happening while somebody waits for her workspace. The newest is what counts.
pub type ProgressSender = watch::Sender<Progress>;

/// What is happening while somebody waits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Progress {
    /// Nothing worth saying yet.
    #[default]
    Asked,
    /// Everything is taken; the place in the queue, 1 being next.
    Queued {
        /// 1 is next.
        position: usize,
    },
    /// The image is being fetched; a short line from the engine.
    Pulling(String),
    /// A container is being made.
    Creating,
    /// Her container is being started.
    Starting,
}

/// How a workspace came to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPath {
    /// It was running.
    Attach,
    /// A container from the pool was given to it.
    Claim,
    /// Its stopped container was started.
    Start,
    /// A container was made.
    Create,
}

/// A live reason to keep a workspace running. Dropping it is leaving.
pub struct Lease(#[allow(dead_code, reason = "held for its drop")] Box<dyn Any + Send + Sync>);

/// A workspace that is ready, for as long as this is held.
pub struct Stay {
    /// Which workspace.
    pub workspace: WorkspaceName,
    /// Which container it is in, so that processes are opened in that one or not at all.
    pub container: String,
    /// How it came to be ready.
    pub path: StartPath,
    /// Becomes `Some` when the workspace stops being there, or is about to.
    pub ending: watch::Receiver<Option<Ending>>,
    /// The template's message of the day, for people.
    pub motd: Option<String>,
    /// The live reason.
    pub lease: Lease,
}

/// Why a workspace is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The gateway is about to end; running containers go on, sessions end in so long at the latest.
    Draining(Duration),
    /// It is being stopped, for this reason.
    Stopping(&'static str),
    /// Its container ended, was killed or removed by somebody else.
    Died,
}

/// Why a workspace is not ready.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnsureError {
    /// Everything is taken and the queue is full as well.
    #[error("all places are taken and {waiting} are waiting already")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// A place did not come free in time.
    #[error("no place came free within {}", humantime::format_duration(*.waited))]
    QueueTimedOut {
        /// How long she waited.
        waited: Duration,
    },
    /// The account has as many sessions as it may have.
    #[error("this account has {limit} sessions open, as many as it may have")]
    TooManySessions {
        /// How many it may have.
        limit: u32,
    },
    /// The grant names a template that is not configured.
    #[error("there is no template {0}")]
    NoTemplate(String),
    /// The home cannot be made or mounted.
    #[error("home: {0}")]
    Home(String),
    /// The engine did not do its part; the text is for the log, not for a user.
    #[error("engine: {0}")]
    Engine(String),
    /// The image is missing and cannot be fetched.
    #[error("image: {0}")]
    Image(String),
    /// No answer within the deadline.
    #[error("not ready within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The gateway is about to end.
    #[error("the gateway is shutting down")]
    Draining,
}

/// Why a process was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The container is gone; asking again makes it ready again.
    #[error("the container stopped")]
    Gone,
    /// It was not possible.
    #[error(transparent)]
    Attach(AttachError),
}

/// What may be asked of those who hold the engine.
#[async_trait::async_trait]
pub trait Keeper: Send + Sync + 'static {
    /// Somebody is about to arrive: starts to make her workspace ready, and returns at once.
    fn prepare(&self, grant: &Grant);

    /// Makes her workspace ready and takes a lease on it: one session of the grant's account. Cancel-safe: dropping it leaves the queue.
    async fn ensure(&self, grant: &Grant, progress: &ProgressSender) -> Result<Stay, EnsureError>;

    /// Opens a process in it.
    async fn open(&self, stay: &Stay, spec: &ProcessSpec) -> Result<Process, OpenError>;
}

// === impl EnsureError ===

impl EnsureError {
    /// The value of the metric label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } => "queue_full",
            Self::QueueTimedOut { .. } => "queue_timeout",
            Self::TooManySessions { .. } => "sessions",
            Self::NoTemplate(_) => "template",
            Self::Home(_) => "home",
            Self::Engine(_) => "engine",
            Self::Image(_) => "image",
            Self::TimedOut(_) => "timeout",
            Self::Draining => "draining",
        }
    }
}

// === impl StartPath ===

impl StartPath {
    /// The value of the metric label `path`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Attach => "attach",
            Self::Claim => "claim",
            Self::Start => "start",
            Self::Create => "create",
        }
    }
}

// === impl Lease ===

impl Lease {
    /// A lease that holds `guard` until it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self(Box::new(guard))
    }
}
