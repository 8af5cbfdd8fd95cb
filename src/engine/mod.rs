//! What runs containers: the [`Engine`] trait, and Docker behind it.
//!
//! This room knows containers, images and networks. It knows nothing of workspaces, homes, accounts or the pool: a container is a name,
//! some labels and a specification.

mod config;
#[cfg(test)]
mod contract;
pub mod docker;
#[cfg(test)]
#[allow(dead_code, reason = "a kit for the tests of other rooms")]
pub(crate) mod fake;
mod spec;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

pub use config::{Config, Kind};
pub use spec::{ContainerSpec, INIT_OPEN_FILES, Limits, Mount, NetworkSpec, Propagation};

/// The label that every container, network and image innkeeper makes carries; its value is the instance's name.
pub const INSTANCE_LABEL: &str = "innkeeper";

/// The engine's own id of a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(pub String);

/// The engine's own id of an image: changes when a tag is built or pulled anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageId(pub String);

/// What a container is doing, as the engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerState {
    /// Made and never started.
    Created,
    /// Its first process runs.
    Running,
    /// Frozen; all its processes stand still.
    Paused,
    /// Its first process has ended.
    Exited,
    /// Between states, or broken: to be removed, not used.
    Unusable,
}

/// A container as the engine describes it.
#[derive(Debug, Clone)]
pub struct Container {
    /// The engine's id.
    pub id: ContainerId,
    /// Its name, without a leading slash.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub state: ContainerState,
    /// The image it was made from.
    pub image: ImageId,
    /// Its first process, as this host counts. Known only of one that runs and was asked for by itself ([`Engine::inspect`]).
    pub pid: Option<u32>,
}

/// What an image says of the program that it is for. Its environment is not here: every process of a container has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageProgram {
    /// Program and arguments: its ENTRYPOINT and CMD. Empty: it names none.
    pub command: Vec<String>,
    /// Where the program starts: its WORKDIR, or `/`.
    pub directory: String,
    /// How it is found out whether the program does its work: its HEALTHCHECK.
    pub check: Option<ImageCheck>,
}

/// An image's HEALTHCHECK. What it does not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageCheck {
    /// Program and arguments. Ends with status 0 if all is well.
    pub command: Vec<String>,
    /// How often.
    pub every: Option<Duration>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How many in a row must fail until all is not well.
    pub retries: Option<u32>,
    /// For how long after the start failures do not count.
    pub grace: Option<Duration>,
}

/// Something that happened to one of the instance's containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which.
    pub id: ContainerId,
    /// What.
    pub kind: EventKind,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Its first process started.
    Started,
    /// Its first process ended, for whatever reason.
    Died,
    /// It was frozen.
    Paused,
    /// It goes on.
    Unpaused,
    /// It is gone.
    Removed,
    /// The stream of events was broken: anything may have happened to any container, `id` is empty.
    Gap,
}

/// What a container has used, in total since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU time of all its processes.
    pub cpu: Duration,
    /// Bytes of memory, without reclaimable page cache.
    pub memory: u64,
    /// Bytes received and sent.
    pub network: (u64, u64),
    /// Bytes read from and written to block devices.
    pub block: (u64, u64),
    /// Processes and threads.
    pub pids: u64,
}

/// A process to start in a running container.
#[derive(Clone)]
pub struct ExecSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, beside the container's own.
    pub env: Vec<(String, String)>,
    /// With a terminal of the engine's making.
    pub tty: bool,
    /// Numeric user and group: names would be looked up in a file that the container's user may write.
    pub user: (u32, u32),
    /// Where it starts.
    pub working_dir: Option<String>,
}

/// A started process and its bytes.
///
/// With a terminal the bytes are raw; without, output is in the engine's frames, which [`docker::demux`] takes apart.
pub struct ExecStream {
    /// The engine's id of the process, for [`Engine::exec_resize`] and [`Engine::exec_exit`].
    pub id: ExecId,
    /// Its output.
    pub output: Pin<Box<dyn AsyncRead + Send>>,
    /// Its input. Shutting it down half-closes: the process sees end of file, its output still arrives.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// The engine's own id of an exec.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExecId(pub String);

/// How an exec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecState {
    /// Not ended yet.
    Running,
    /// Ended with this status; 128 + n where signal n ended it.
    Exited(i64),
}

/// What the engine says of itself.
#[derive(Debug, Clone)]
pub struct Version {
    /// The engine's version, `20.10.24`.
    pub engine: String,
    /// The newest version of the API that it speaks, `1.41`.
    pub api: String,
}

/// Why the engine did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// No such container, image or exec (any more).
    #[error("no such {0}")]
    NotFound(String),
    /// The name is taken: somebody else was first.
    #[error("name already in use: {0}")]
    NameTaken(String),
    /// The container is not in a state for this.
    #[error("container is not running")]
    NotRunning,
    /// The image is not here and cannot be pulled.
    #[error("image {image}: {why}")]
    Image {
        /// Which.
        image: String,
        /// Why not.
        why: String,
    },
    /// Nobody answers at the engine's socket, or the connection broke.
    #[error("engine unreachable: {0}")]
    Unreachable(String),
    /// No answer within the deadline.
    #[error("engine did not answer {0} in time")]
    TimedOut(&'static str),
    /// The disk under the engine is full.
    #[error("no space left for the engine: {0}")]
    NoSpace(String),
    /// Anything else it refused.
    #[error("engine refused {call}: {why}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// What it answered.
        why: String,
    },
}

/// A shell script as it is sent: without its comments and indentation. None may have a document or a string of several lines in it.
pub(crate) fn shell_code(script: &str) -> String {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>().join("\n")
}

/// What runs containers. All calls have deadlines of their own; none retries.
///
/// `start`, `stop`, `pause`, `unpause` and `remove` of something that is already so is a success.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Is it there, and what is it?
    async fn version(&self) -> Result<Version, EngineError>;

    /// Makes the network if it is not there.
    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError>;

    /// The bits of the prefix of a network's IPv4 addresses, where it is there and the engine says.
    async fn network_prefix(&self, network: &NetworkSpec) -> Result<Option<u32>, EngineError> {
        let _ = network;
        Ok(None)
    }

    /// The image that a reference means now, if it is here.
    async fn image(&self, reference: &str) -> Result<Option<ImageId>, EngineError>;

    /// What an image, named by a reference or its id, says of its program, if it is here.
    async fn image_program(&self, image: &str) -> Result<Option<ImageProgram>, EngineError>;

    /// Fetches an image. `progress` is told a short line now and then.
    async fn pull(&self, reference: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<ImageId, EngineError>;

    /// Makes a container, not started. Its name is a lock: of two who ask for the same name one gets [`EngineError::NameTaken`].
    /// [`EngineError::NotFound`]: the image is not here.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, EngineError>;

    /// Starts it.
    async fn start(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Asks its processes to end, and ends them after `grace`.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError>;

    /// Lets a frozen one go on.
    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Ends and removes it, with its anonymous volumes.
    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Gives it another name, atomically.
    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), EngineError>;

    /// Changes the limits of a container, running or not; all but the open files, which are fixed when it is made.
    async fn set_limits(&self, id: &ContainerId, limits: &Limits) -> Result<(), EngineError>;

    /// The container of this name or id, if there is one. It need not be the instance's own: look at the labels.
    async fn inspect(&self, name_or_id: &str) -> Result<Option<Container>, EngineError>;

    /// All containers of the instance, whatever their state.
    async fn list(&self) -> Result<Vec<Container>, EngineError>;

    /// What a running container has used; [`EngineError::NotRunning`] if it is not.
    async fn usage(&self, id: &ContainerId) -> Result<Usage, EngineError>;

    /// What happens to the instance's containers from now on. Never ends: it reconnects with back-off, and says [`EventKind::Gap`] after.
    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>>;

    /// Starts a process in a running container.
    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecStream, EngineError>;

    /// Sets the size of an exec's terminal, in columns and rows.
    async fn exec_resize(&self, exec: &ExecId, columns: u16, rows: u16) -> Result<(), EngineError>;

    /// How an exec stands.
    async fn exec_state(&self, exec: &ExecId) -> Result<ExecState, EngineError>;

    /// Removes every container and network of the instance. For `innkeeper clean`.
    async fn remove_everything(&self) -> Result<(), EngineError>;
}
