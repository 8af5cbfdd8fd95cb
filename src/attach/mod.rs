//! Opening a process in a container: the [`Attach`] trait.
//!
//! The first way is through the container's init, which hands out file descriptors; the second is the engine's exec, a stream of bytes through
//! the engine, for containers that have no init. Callers do not notice which.
//! This room knows containers and processes, nothing of SSH or of whose workspace it is.

pub mod exec;
pub mod init;
mod ways;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
pub use innkeeper_init::protocol::{
    Address, Check, Endpoint, Exit as ServiceExit, Failure, Ready, Restart, Service, ServiceState, Terminal, Variable,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::engine::{ContainerId, EngineError};
use crate::home::SlotId;
use crate::name::TerminalName;
pub use ways::Ways;

/// A process to open.
#[derive(Clone)]
pub struct ProcessSpec {
    /// What runs.
    pub program: Program,
    /// With a terminal, or with pipes.
    pub pty: Option<Pty>,
    /// Environment, beside the container's own and what a login sets (`USER`, `HOME`, `SHELL`, `LOGNAME`).
    pub env: Vec<(String, String)>,
    /// What a person reads before her shell's first prompt, unless there is a `.hushlogin` in her home. Only for a login shell at a terminal.
    pub greeting: Option<String>,
    /// The name of its terminal, which outlives those who watch it. If there is one of this name, that is shown instead.
    pub terminal: Option<TerminalName>,
    /// For how long a terminal without a name goes on when nobody watches it any more, unless it is hung up.
    pub keep_lost: Duration,
}

/// What a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The user's login shell, as a login shell.
    LoginShell,
    /// A command line for the login shell's `-c`. Bytes, not UTF-8.
    Command(Vec<u8>),
    /// The image's sftp-server.
    Sftp,
}

/// A terminal to open a process with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pty {
    /// `TERM`.
    pub term: String,
    /// Its size from the first byte.
    pub size: WindowSize,
    /// Terminal modes by their RFC 4254 section 8 opcodes.
    pub modes: Vec<(u8, u32)>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error; never with a terminal.
    Stderr,
}

/// Some output, in the order it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it came from.
    pub kind: OutputKind,
    /// The bytes; never empty.
    pub data: Bytes,
}

/// An open process. Dropping its parts does not end it: [`Control::hang_up`] does. A terminal that nobody watches goes on, by itself, for as
/// long as it was opened for; another process finds that nobody reads what it says.
pub struct Process {
    /// Its input. `shutdown` half-closes.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
    /// Its output, until it has all arrived. Reading slowly holds the process up; nothing is buffered beyond a fixed amount.
    pub output: Pin<Box<dyn Stream<Item = io::Result<Chunk>> + Send>>,
    /// What else can be asked of it.
    pub control: Arc<dyn Control>,
}

/// What can be asked of an open process.
#[async_trait::async_trait]
pub trait Control: Send + Sync + 'static {
    /// Its terminal has another size.
    async fn resize(&self, size: WindowSize) -> Result<(), AttachError>;

    /// Sends a signal to the foreground process group of its terminal, or to its own group. `name` is as in RFC 4254: `TERM`, `INT`.
    async fn signal(&self, name: &str) -> Result<(), AttachError>;

    /// How it ended. To be asked once its output has ended.
    async fn exit(&self) -> Result<Exit, AttachError>;

    /// Returns when the container's first process is gone, and everything in the container with it; never where that cannot be known.
    async fn orphaned(&self) {
        std::future::pending().await
    }

    /// Its client is gone: tells it as a terminal that is hung up would.
    async fn hang_up(&self) -> Result<(), AttachError>;

    /// Whether its terminal goes on, and can be found again, when its parts are dropped. One that cannot must be hung up instead.
    fn outlives(&self) -> bool {
        true
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Status(u32),
    /// By a signal of this name, as in RFC 4254: `TERM`, `KILL`.
    Signal(&'static str),
}

impl ProcessSpec {
    /// This program with pipes, and nothing else said.
    pub fn new(program: Program) -> Self {
        Self { program, pty: None, env: Vec::new(), greeting: None, terminal: None, keep_lost: Duration::ZERO }
    }
}

/// Why a process could not be opened or asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttachError {
    /// The engine did not.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Not possible with this way to attach.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// It was tried inside the container.
    #[error("{text}")]
    Failed {
        /// Why not.
        why: Failure,
        /// The same in words. Untrusted text.
        text: String,
    },
    /// The container's init is not there, or does not do as it should.
    #[error("init: {0}")]
    Init(String),
}

/// Bytes both ways, each of which can end by itself.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A place in a container where somebody listens for us. Dropping it is listening no more.
pub struct Listening {
    /// Where it is: the port that was chosen, the path that was made.
    pub on: Address,
    /// Who connects; it ends when nobody can any more.
    pub connections: mpsc::Receiver<Incoming>,
}

/// Somebody in a container wants to know how her workspace stands.
pub struct Question {
    /// Which container.
    pub container: ContainerId,
    /// To be answered soon, or dropped.
    pub answer: oneshot::Sender<Standing>,
}

/// How a workspace stands, for people in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Lines that she reads.
    pub text: String,
    /// For how long at a time something in it may ask for it to be kept running.
    pub longest_lease: Duration,
}

/// A connection that somebody in a container has made.
pub struct Incoming {
    /// It.
    pub stream: Box<dyn Duplex>,
    /// From where; a Unix socket's peer has no address.
    pub from: Option<Address>,
}

/// A way to open processes in containers.
#[async_trait::async_trait]
pub trait Attach: Send + Sync + 'static {
    /// Opens a process in a running container.
    async fn open(&self, container: &ContainerId, spec: &ProcessSpec) -> Result<Process, AttachError>;

    /// Connects to something in a running container: its own loopback, its own files.
    async fn connect(&self, container: &ContainerId, to: &Address) -> Result<Box<dyn Duplex>, AttachError> {
        let _ = (container, to);
        Err(AttachError::Unsupported("a connection into a container without init"))
    }

    /// Listens in a running container.
    async fn listen(&self, container: &ContainerId, on: &Endpoint) -> Result<Listening, AttachError> {
        let _ = (container, on);
        Err(AttachError::Unsupported("listening in a container without init"))
    }

    /// The terminals that are open in a running container.
    async fn terminals(&self, container: &ContainerId) -> Result<Vec<Terminal>, AttachError> {
        let _ = container;
        Ok(Vec::new())
    }

    /// Has a running container run these services, and no others: those of the same name and content go on as they are.
    async fn serve(&self, container: &ContainerId, services: Vec<Service>) -> Result<(), AttachError> {
        let _ = (container, services);
        Err(AttachError::Unsupported("services in a container without init"))
    }

    /// What a container's services have said, one's or all's; with `follow`, what they go on to say as well. Dropping it is enough of it.
    async fn logs(&self, container: &ContainerId, service: Option<&str>, follow: bool) -> Result<Box<dyn Duplex>, AttachError> {
        let _ = (container, service, follow);
        Err(AttachError::Unsupported("services in a container without init"))
    }

    /// How a container's services stand, as was last reported. Waits for nobody. What a container says of itself: untrusted.
    fn services(&self, container: &ContainerId) -> Vec<ServiceState> {
        let _ = container;
        Vec::new()
    }

    /// Whether something inside can ask for its container to be kept running.
    fn can_be_kept(&self, container: &ContainerId) -> bool {
        let _ = container;
        false
    }

    /// Whether it is not known yet if something inside asks for that: its init has not come back to this gateway.
    fn is_awaited(&self, container: &ContainerId) -> bool {
        let _ = container;
        false
    }

    /// For how much longer something inside asks for that; `None`: nothing does.
    fn kept(&self, container: &ContainerId) -> Option<Duration> {
        let _ = container;
        None
    }

    /// Questions from inside about how things stand; there is one who answers, and who asks first gets them. `None`: there are none.
    fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        None
    }

    /// Makes ready on the host what a container of this slot needs, before it is made: the directory that it must have. `None`: nothing.
    fn prepare(&self, slot: &SlotId) -> Result<Option<PathBuf>, AttachError> {
        let _ = slot;
        Ok(None)
    }

    /// Tells which container has this slot: one that was just made, or is found again.
    fn adopt(&self, slot: &SlotId, container: &ContainerId) {
        let _ = (slot, container);
    }

    /// A container that was made before is about to be started: whoever spoke for it is gone, whether that was heard of yet or not.
    fn restarts(&self, container: &ContainerId) {
        let _ = container;
    }

    /// The slot's container is gone, or was not made after all.
    fn release(&self, slot: &SlotId) {
        let _ = slot;
    }

    /// Slots for which there is something on the host that nobody holds.
    fn unheld(&self, is_held: &dyn Fn(&SlotId) -> bool) -> Vec<SlotId> {
        let _ = is_held;
        Vec::new()
    }
}
