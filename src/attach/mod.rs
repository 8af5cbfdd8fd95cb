//! Opening a process in a container: the [`Attach`] trait.
//!
//! The first way is the engine's exec, a stream of bytes through the engine; another can be put beside it without its callers noticing.
//! This room knows containers and processes, nothing of SSH or of whose workspace it is.

pub mod exec;

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::io::AsyncWrite;

use crate::engine::{ContainerId, EngineError};

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

/// An open process. Dropping its parts does not end it: [`Control::hang_up`] does.
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

    /// Its client is gone: tells it as a terminal that is hung up would.
    async fn hang_up(&self) -> Result<(), AttachError>;
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With a status.
    Status(u32),
    /// By a signal of this name, as in RFC 4254: `TERM`, `KILL`.
    Signal(&'static str),
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
}

/// A way to open processes in containers.
#[async_trait::async_trait]
pub trait Attach: Send + Sync + 'static {
    /// Opens a process in a running container.
    async fn open(&self, container: &ContainerId, spec: &ProcessSpec) -> Result<Process, AttachError>;
}
