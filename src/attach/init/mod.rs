//! Attaching through a container's init: what is opened inside is handed out as a file descriptor.
//!
//! ```text
//!   gateway                                        container
//!   ───────                                        ─────────
//!   InitAttach ── Link ◀── orders, reports ──▶ /.innkeeper/socket ◀── dials ── innkeeper-init, PID 1
//!       │                       + descriptors (SCM_RIGHTS)                        │
//!       ├─ Pipe  ◀════════════ a command's output, straight ═══════════════════ child
//!       ├─ Socket ◀═ viewer ══════ terminal: PTY, screen, scrollback ═ init ═══ child
//!       └─ Socket ◀═══════════ a connection to its loopback, its files, from its listeners
//! ```
//! [`directories`] has what a container needs from the host for that, [`welcome`] says whether who dials is its init, [`link`] talks to
//! it, and [`descriptor`] reads and writes what it hands out. Nothing from inside is believed about who is speaking: that the caller is the
//! container's first process is asked of the kernel (`SO_PEERCRED`) and of the engine.

mod descriptor;
mod directories;
mod leases;
mod link;
mod process;
mod welcome;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dashmap::DashMap;
use innkeeper_init::protocol::{self, Mode, Order, Report, Variable};
use parking_lot::Mutex;
use rustix::net::AddressFamily;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::descriptor::{Pipe, PipeWriter, Socket};
use self::directories::Directories;
use self::link::{Answered, Link};
use self::process::{InitControl, Output, size_of, terminal_output};
use super::{
    Address, Attach, AttachError, Duplex, Endpoint, Incoming, Listening, Process, ProcessSpec, Program, Question, Service, ServiceState,
    Terminal,
};
use crate::engine::{ContainerId, Engine, EngineError};
use crate::home::SlotId;

/// How long a container's init may take to dial after its container was started, or after the gateway was.
const DIAL: Duration = Duration::from_secs(5);

/// How long init may take for what it can do at once.
const PROMPT: Duration = Duration::from_secs(10);

/// How long it may take to connect to something; it gives up a little before.
const CONNECT: Duration = Duration::from_secs(20);

/// How long the engine may take to notice that a container's first process has ended, and how often it is asked.
const NOTICE: Duration = Duration::from_secs(2);
const NOTICE_AGAIN: Duration = Duration::from_millis(25);

/// Questions from inside that wait for an answer, of all containers together; more get none.
const QUESTIONS: usize = 64;

/// Connections to a listener that wait to be taken.
const WAITING: usize = 16;

/// Longest command, in bytes: the most that Linux lets one argument be.
const LONGEST_COMMAND: usize = 128 * 1024 - 1;

/// Attaches through the inits of an engine's containers.
#[derive(Clone)]
pub struct InitAttach {
    engine: Arc<dyn Engine>,
    directories: Arc<Directories>,
    home: String,
    doors: Arc<DashMap<SlotId, Door>>,
    /// Which slot a container has.
    slots: Arc<DashMap<ContainerId, SlotId>>,
    questions: mpsc::Sender<Question>,
    /// Until somebody comes to answer them.
    asked: Arc<Mutex<Option<mpsc::Receiver<Question>>>>,
}

/// Where one container's init dials.
struct Door {
    /// The container, once it is known.
    container: watch::Sender<Option<ContainerId>>,
    /// The conversation, while there is one.
    link: watch::Receiver<Option<Link>>,
    _close: tokio_util::sync::DropGuard,
}

// === impl InitAttach ===

impl InitAttach {
    /// Keeps what containers need in this directory. `home` is where a process starts in a container that names no home.
    pub fn open(engine: Arc<dyn Engine>, directory: &Path, home: impl Into<String>) -> std::io::Result<Self> {
        let directories = Arc::new(Directories::open(directory)?);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let asked = Arc::new(Mutex::new(Some(asked)));
        Ok(Self { engine, directories, home: home.into(), doors: Arc::default(), slots: Arc::default(), questions, asked })
    }

    /// Whether this container was made to be attached to this way.
    pub fn knows(&self, container: &ContainerId) -> bool {
        self.slots.contains_key(container)
    }

    /// The conversation with a container's init, as soon as there is one.
    async fn link(&self, container: &ContainerId) -> Result<Link, AttachError> {
        let slot = self.slots.get(container).map(|slot| slot.clone());
        let mut link = slot.and_then(|slot| self.doors.get(&slot).map(|door| door.link.clone())).ok_or_else(|| unknown(container))?;
        let there =
            async { link.wait_for(|link| link.as_ref().is_some_and(|link| !link.gone().is_cancelled())).await.map(|link| link.clone()) };
        match tokio::time::timeout(DIAL, there).await {
            Ok(Ok(Some(link))) => Ok(link),
            Ok(Ok(None) | Err(_)) => Err(unknown(container)),
            // Either it does not run, and then its init cannot be there, or something is wrong with it.
            Err(_) => match self.engine.inspect(&container.0).await? {
                Some(found) if found.pid.is_some() => Err(AttachError::Init("has not dialled".to_owned())),
                _ => Err(EngineError::NotRunning.into()),
            },
        }
    }

    /// The conversation, if there is one right now.
    fn link_now(&self, container: &ContainerId) -> Option<Link> {
        let slot = self.slots.get(container)?.clone();
        let link = self.doors.get(&slot)?.link.borrow().clone();
        link.filter(|link| !link.gone().is_cancelled())
    }

    /// Asks. Where init goes away meanwhile, the engine says whether its container did, so that the caller can have another made ready.
    async fn ask(
        &self,
        container: &ContainerId,
        within: Duration,
        order: impl FnOnce(u64) -> Order,
    ) -> Result<(Link, Answered), AttachError> {
        let link = self.link(container).await?;
        let answered = link.ask(within, order).await;
        if answered.is_err() && link.gone().is_cancelled() {
            self.is_left(container, link.first()).await?;
        }
        Ok((link, answered?))
    }

    /// An error once the engine says that the container does not run, or with another first process than this one. The end of a conversation
    /// is heard of before the engine has noticed that of the process.
    async fn is_left(&self, container: &ContainerId, first: u32) -> Result<(), AttachError> {
        let noticed = async {
            while self.engine.inspect(&container.0).await?.is_some_and(|found| found.pid == Some(first)) {
                tokio::time::sleep(NOTICE_AGAIN).await;
            }
            Err(EngineError::NotRunning.into())
        };
        tokio::time::timeout(NOTICE, noticed).await.unwrap_or(Ok(()))
    }

    fn open_door(&self, slot: &SlotId) -> std::io::Result<()> {
        let socket = self.directories.listen(slot)?;
        let close = CancellationToken::new();
        let (container, expected) = watch::channel(None);
        let (links, link) = watch::channel(None);
        let until = close.clone();
        let host = welcome::Host { engine: Arc::clone(&self.engine), questions: self.questions.clone(), slot: slot.clone() };
        let welcoming = welcome::run(host, socket, expected, links)?;
        tokio::spawn(async move {
            until.run_until_cancelled(welcoming).await;
        });
        self.doors.insert(slot.clone(), Door { container, link, _close: close.drop_guard() });
        Ok(())
    }
}

/// Removes all that an instance's containers needed from the host; for when they are removed for good.
pub fn clean(directory: &Path) -> std::io::Result<()> {
    Directories::clean(directory)
}

fn unknown(container: &ContainerId) -> AttachError {
    EngineError::NotFound(format!("init of container {}", container.0)).into()
}

#[async_trait::async_trait]
impl Attach for InitAttach {
    fn prepare(&self, slot: &SlotId) -> Result<Option<PathBuf>, AttachError> {
        let failed = |why: std::io::Error| AttachError::Init(format!("cannot make its directory: {why}"));
        let path = self.directories.make(slot).map_err(failed)?;
        if let Err(why) = self.open_door(slot) {
            self.release(slot);
            return Err(failed(why));
        }
        Ok(Some(path))
    }

    fn adopt(&self, slot: &SlotId, container: &ContainerId) {
        if !self.doors.contains_key(slot) {
            // Made by an earlier process, unless it has no init at all.
            if !self.directories.exists(slot) {
                return;
            }
            if let Err(why) = self.open_door(slot) {
                tracing::error!(container = container.0, error = %why, "cannot listen for its init");
                return;
            }
        }
        self.slots.insert(container.clone(), slot.clone());
        if let Some(door) = self.doors.get(slot) {
            door.container.send_if_modified(|known| {
                let news = known.as_ref() != Some(container);
                *known = Some(container.clone());
                news
            });
        }
    }

    fn restarts(&self, container: &ContainerId) {
        if let Some(link) = self.link_now(container) {
            link.hang_up();
        }
    }

    fn release(&self, slot: &SlotId) {
        self.slots.retain(|_, known| known != slot);
        if let Some((_, door)) = self.doors.remove(slot)
            && let Some(link) = &*door.link.borrow()
        {
            link.hang_up();
        }
        if let Err(why) = self.directories.remove(slot) {
            tracing::warn!(slot = slot.as_str(), error = %why, "cannot remove what its init needed");
        }
    }

    fn unheld(&self, is_held: &dyn Fn(&SlotId) -> bool) -> Vec<SlotId> {
        let all = self.directories.all().unwrap_or_else(|why| {
            tracing::warn!(error = %why, "cannot list what inits need");
            Vec::new()
        });
        all.into_iter().filter(|slot| !is_held(slot)).collect()
    }

    async fn open(&self, container: &ContainerId, spec: &ProcessSpec) -> Result<Process, AttachError> {
        let process = process_of(spec, &self.home)?;
        let (link, answered) = self.ask(container, PROMPT, |request| Order::Open { request, process }).await?;
        let (Report::Opened { process, .. }, Some(exit)) = (&answered.report, answered.exit) else { return Err(nonsense()) };
        let control = Arc::new(InitControl { link, process: *process, exit: exit.clone(), terminal: spec.pty.is_some() });
        let mut descriptors = answered.descriptors.into_iter();
        if spec.pty.is_some() {
            let (Some(viewer), None) = (descriptors.next(), descriptors.next()) else { return Err(nonsense()) };
            let socket = Socket::new(viewer, &[AddressFamily::UNIX])?;
            let input = TerminalInput(socket.clone());
            return Ok(Process { input: Box::pin(input), output: terminal_output(socket), control });
        }
        let [Some(stdin), Some(stdout), Some(stderr)] = [(); 3].map(|()| descriptors.next()) else { return Err(nonsense()) };
        let input = PipeWriter(Some(Pipe::writing(stdin)?));
        let output = Output::new(Pipe::reading(stdout)?, Pipe::reading(stderr)?, exit);
        Ok(Process { input: Box::pin(input), output: Box::pin(output), control })
    }

    async fn connect(&self, container: &ContainerId, to: &Address) -> Result<Box<dyn Duplex>, AttachError> {
        let to = to.clone();
        let (_, answered) = self.ask(container, CONNECT, |request| Order::Connect { request, to }).await?;
        Ok(Box::new(only_socket(answered)?))
    }

    async fn listen(&self, container: &ContainerId, on: &Endpoint) -> Result<Listening, AttachError> {
        let on = on.clone();
        let (link, answered) = self.ask(container, PROMPT, |request| Order::Listen { request, on }).await?;
        let (Report::Listening { listener, on, .. }, Some(mut accepted)) = (answered.report, answered.connections) else {
            return Err(nonsense());
        };
        let (sender, connections) = mpsc::channel::<Incoming>(WAITING);
        tokio::spawn(async move {
            loop {
                let incoming = tokio::select! {
                    incoming = accepted.recv() => incoming,
                    () = sender.closed() => break,
                };
                let Some(incoming) = incoming else { return };
                if sender.send(incoming).await.is_err() {
                    break;
                }
            }
            // If init has gone by now there is nothing left to close.
            let _ = link.say(Order::Unlisten { listener }).await;
        });
        Ok(Listening { on, connections })
    }

    async fn terminals(&self, container: &ContainerId) -> Result<Vec<Terminal>, AttachError> {
        let (_, answered) = self.ask(container, PROMPT, |request| Order::List { request }).await?;
        match answered.report {
            Report::Terminals { terminals, .. } => Ok(terminals),
            _ => Err(nonsense()),
        }
    }

    async fn serve(&self, container: &ContainerId, services: Vec<Service>) -> Result<(), AttachError> {
        self.link(container).await?.say(Order::Serve { services }).await
    }

    async fn logs(&self, container: &ContainerId, service: Option<&str>, follow: bool) -> Result<Box<dyn Duplex>, AttachError> {
        let service = service.map(str::to_owned);
        let (_, answered) = self.ask(container, PROMPT, |request| Order::Logs { request, service, follow }).await?;
        Ok(Box::new(only_socket(answered)?))
    }

    fn services(&self, container: &ContainerId) -> Vec<ServiceState> {
        self.link_now(container).map(|link| link.services()).unwrap_or_default()
    }

    fn can_be_kept(&self, container: &ContainerId) -> bool {
        self.knows(container)
    }

    fn is_awaited(&self, container: &ContainerId) -> bool {
        self.knows(container) && self.link_now(container).is_none()
    }

    fn kept(&self, container: &ContainerId) -> Option<Duration> {
        self.link_now(container).and_then(|link| link.leases().kept())
    }

    fn questions(&self) -> Option<mpsc::Receiver<Question>> {
        self.asked.lock().take()
    }
}

/// A process in the protocol's words.
fn process_of(spec: &ProcessSpec, home: &str) -> Result<protocol::Process, AttachError> {
    let program = match &spec.program {
        Program::LoginShell => protocol::Program::LoginShell,
        Program::Sftp => protocol::Program::Sftp,
        Program::Command(bytes) if bytes.contains(&0) => return Err(AttachError::Unsupported("a NUL in a command")),
        Program::Command(bytes) if bytes.len() > LONGEST_COMMAND => {
            return Err(AttachError::Unsupported("a command longer than one argument can be"));
        }
        Program::Command(bytes) => protocol::Program::Command(bytes.clone()),
    };
    let pty = spec.pty.as_ref().map(|pty| protocol::Pty {
        term: pty.term.clone(),
        size: size_of(pty.size),
        modes: pty.modes.iter().map(|(opcode, value)| Mode { opcode: *opcode, value: *value }).collect(),
    });
    Ok(protocol::Process {
        program,
        pty,
        env: spec.env.iter().map(|(name, value)| Variable { name: name.clone(), value: value.clone() }).collect(),
        greeting: spec.greeting.clone().filter(|_| spec.program == Program::LoginShell),
        name: spec.terminal.as_ref().map(ToString::to_string),
        keep: u32::try_from(spec.keep_lost.as_secs()).unwrap_or(u32::MAX),
        home: home.to_owned(),
    })
}

/// The one socket of an answer.
fn only_socket(answered: Answered) -> Result<Socket, AttachError> {
    let mut descriptors = answered.descriptors.into_iter();
    match (&answered.report, descriptors.next(), descriptors.next()) {
        (Report::Connected { .. }, Some(socket), None) => {
            Socket::new(socket, &[AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6])
        }
        _ => Err(nonsense()),
    }
}

fn nonsense() -> AttachError {
    AttachError::Init("answers something else than it was asked".to_owned())
}

/// The input of a terminal. It has no end: a terminal's end of input is a key, and a viewer whose end is closed has left.
struct TerminalInput(Socket);

impl AsyncWrite for TerminalInput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
