//! The narrow set of requests between who talks to strangers and who holds the engine.
//!
//! A door (`ssh/`, later `http/`) holds no path, no engine and no power of root: it has a grant, asks for a workspace to be ready, and for
//! processes to be opened in it.

use std::any::Any;
use std::time::Duration;

use tokio::sync::watch;

use crate::attach::{Address, AttachError, Duplex, Endpoint, Listening, Process, ProcessSpec, Terminal};
use crate::auth::{Grant, Permit};
use crate::home::Usage;
use crate::name::{AccountName, TemplateName, VolumeName, WorkspaceName};

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
    /// A container of another image is being tried in place of hers.
    Upgrading,
}

/// How a workspace came to be ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StartPath {
    /// It was running.
    Attach,
    /// A container from the pool was given to it.
    Claim,
    /// Its stopped container was started.
    Start,
    /// A container was made.
    Create,
    /// One was made in place of hers, of another image.
    Upgrade,
}

/// A live reason to keep a workspace running. Dropping it is leaving.
pub struct Lease {
    /// What counts it among its account's sessions, where it is one.
    session: Option<Guard>,
    _guard: Guard,
}

/// Held for what its drop does.
type Guard = Box<dyn Any + Send + Sync>;

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
    /// Her home and her volumes, those of them that are nearly full, for people.
    pub fullness: Vec<Fullness>,
    /// What else of it she should know, for people.
    pub notes: Vec<Note>,
    /// The workspace's own variables but for its secrets, which processes are given beside these.
    pub env: Vec<(String, String)>,
    /// How processes at terminals are recorded in it; `None`: they are not. She is to be told.
    pub recorded: Option<Recorded>,
    /// The live reason.
    pub lease: Lease,
}

/// That a session's terminal is recorded, and as whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The session's number.
    pub session: u64,
    /// Whose it is.
    pub account: AccountName,
    /// Of which template.
    pub template: TemplateName,
    /// Whether it may be watched as well.
    pub watchable: bool,
}

/// A volume of a workspace, as people in it know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullVolume {
    /// Its name.
    pub name: VolumeName,
    /// Where it is in the container.
    pub path: String,
}

/// How full a home or a volume is that is nearly full, of what it has least of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fullness {
    /// Which volume it is; `None`: the home.
    pub volume: Option<FullVolume>,
    /// In per cent, at least [`Self::WORTH_SAYING`].
    pub percent: u64,
    /// Bytes or files that are there.
    pub used: u64,
    /// Bytes or files that there may be.
    pub limit: u64,
    /// Whether it is files.
    pub files: bool,
}

/// Something of a workspace that a person in it should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// What should appear at this path from the host does not.
    Absent(String),
    /// Its container was made anew, as what appears in it from the host is something else now.
    Replaced,
    /// Its container was made anew, of another image.
    Upgraded,
}

/// Why a workspace is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The gateway is about to end; running containers go on, sessions end in so long at the latest.
    Draining(Duration),
    /// It is to be stopped for this reason, before long. Said again from time to time, and not at all any more if it was put off.
    Soon {
        /// Why.
        reason: &'static str,
        /// In how long.
        within: Duration,
        /// Whether something inside can put it off.
        can_be_kept: bool,
    },
    /// It is not, after all: who was to stop it has thought better of it.
    Stays,
    /// It is being stopped, for this reason.
    Stopping(&'static str),
    /// It was suspended, for this reason of an administrator's, and is being stopped.
    Suspended(String),
    /// An administrator has deleted it, and it is being stopped.
    Deleted,
    /// An administrator has ended this session; the workspace goes on.
    Ended,
    /// This session is to be recorded and cannot be, and is ended; the workspace goes on.
    Unrecorded,
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
    /// An administrator lets nobody into it, for this reason.
    #[error("workspace is suspended: {0}")]
    Suspended(String),
    /// It was deleted, and is not gone for good yet.
    #[error("workspace is deleted")]
    Deleted,
    /// It is being made or had back right now.
    #[error("workspace is being made or brought back")]
    Passing,
    /// It has no home yet, and less space is free than is to be.
    #[error("less than limits.disk_floor is free, and it has no home yet")]
    DiskLow,
    /// What is set of it cannot be read; the text is for the log.
    #[error("settings: {0}")]
    Settings(String),
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

    /// Somebody has logged in: as [`Self::prepare`], and her login is counted.
    fn logged_in(&self, grant: &Grant) {
        self.prepare(grant);
    }

    /// What somebody is granted who comes to a workspace by another way than a login: what its last login was. `None`: nobody ever came.
    async fn grant_of(&self, workspace: &WorkspaceName) -> Result<Option<Grant>, EnsureError> {
        let _ = workspace;
        Ok(None)
    }

    /// A workspace that runs, without a reason to keep it running; `None`: it does not, or nobody may be in it.
    fn glance(&self, workspace: &WorkspaceName) -> Option<Stay> {
        let _ = workspace;
        None
    }

    /// Whether a port of a workspace needs no link, as is set of it. Asks nobody: it is looked up for strangers.
    fn is_public(&self, workspace: &WorkspaceName, port: u16) -> bool {
        let _ = (workspace, port);
        false
    }

    /// Makes her workspace ready and takes a lease on it: one session of the grant's account. Cancel-safe: dropping it leaves the queue.
    async fn ensure(&self, grant: &Grant, progress: &ProgressSender) -> Result<Stay, EnsureError>;

    /// The same for a forward: a lease, but no session of the account's.
    async fn reach(&self, grant: &Grant) -> Result<Stay, EnsureError>;

    /// What the grant's account may do: what both its template and the grant permit.
    fn permit(&self, grant: &Grant) -> Permit;

    /// Opens a process in it.
    async fn open(&self, stay: &Stay, spec: &ProcessSpec) -> Result<Process, OpenError>;

    /// Connects to something in it.
    async fn connect(&self, stay: &Stay, to: &Address) -> Result<Box<dyn Duplex>, OpenError>;

    /// Listens in it.
    async fn listen(&self, stay: &Stay, on: &Endpoint) -> Result<Listening, OpenError>;

    /// The terminals that are open in it.
    async fn terminals(&self, stay: &Stay) -> Result<Vec<Terminal>, OpenError>;
}

// === impl Fullness ===

impl Fullness {
    /// From how many per cent on she is told.
    pub const WORTH_SAYING: u64 = 80;
    /// From how many per cent on she is told that it is pressing.
    pub const PRESSING: u64 = 90;

    /// That of a home, or of a volume, if it is worth saying.
    pub(super) fn of(volume: Option<FullVolume>, usage: &Usage) -> Option<Self> {
        let percent = |used: u64, limit: u64| u64::try_from(u128::from(used) * 100 / u128::from(limit.max(1))).unwrap_or(u64::MAX);
        let one = |used: u64, limit: Option<u64>, files| limit.map(|limit| (percent(used, limit), used, limit, files));
        let files = usage.inodes.and_then(|inodes| one(inodes, usage.limit.inodes, true));
        let fullest = files.into_iter().chain(one(usage.bytes, usage.limit.bytes, false)).max_by_key(|(percent, ..)| *percent);
        let (percent, used, limit, files) = fullest.filter(|(percent, ..)| *percent >= Self::WORTH_SAYING)?;
        Some(Self { volume, percent, used, limit, files })
    }
}

// === impl Ending ===

impl Ending {
    /// Whether it is there, rather than to come.
    pub fn is_now(&self) -> bool {
        matches!(self, Self::Stopping(_) | Self::Suspended(_) | Self::Deleted | Self::Ended | Self::Unrecorded | Self::Died)
    }
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
            Self::Suspended(_) => "suspended",
            Self::Deleted => "deleted",
            Self::Passing => "passing",
            Self::DiskLow => "disk_low",
            Self::Settings(_) => "settings",
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
            Self::Upgrade => "upgrade",
        }
    }
}

// === impl Lease ===

impl Lease {
    /// A lease that holds `guard` until it is dropped.
    pub fn new(guard: impl Any + Send + Sync) -> Self {
        Self { session: None, _guard: Box::new(guard) }
    }

    /// The same, which holds `session` as well, until that is over or it is dropped.
    pub fn of_session(guard: impl Any + Send + Sync, session: impl Any + Send + Sync) -> Self {
        Self { session: Some(Box::new(session)), ..Self::new(guard) }
    }

    /// Its session is over; the workspace is to be kept running nevertheless.
    pub fn end_session(&mut self) {
        self.session = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Quota;

    #[test]
    fn the_scarcer_of_bytes_and_files_is_told_from_80_per_cent_on() {
        let of = |bytes, inodes, limit: (u64, Option<u64>)| {
            let usage = Usage { bytes, inodes, limit: Quota { bytes: Some(limit.0), inodes: limit.1 } };
            Fullness::of(None, &usage).map(|fullness| (fullness.percent, fullness.files))
        };
        assert_eq!(of(799, Some(10), (1000, Some(100))), None);
        assert_eq!(of(800, Some(10), (1000, Some(100))), Some((80, false)));
        assert_eq!(of(800, Some(95), (1000, Some(100))), Some((95, true)));
        assert_eq!(of(u64::MAX, Some(95), (u64::MAX, None)), Some((100, false)));
        assert_eq!(of(5000, None, (1000, Some(1))), Some((500, false)), "what is only reported may be far beyond");
    }
}
