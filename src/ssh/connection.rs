//! One connection, watched from outside its protocol: the login deadline, a farewell, and the drain.
//!
//! The protocol's task answers the client and can be kept waiting by it; this one cannot.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::Disconnect;
use russh::server::run_stream;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Slot;
use super::aids::Agent;
use super::forward::Forwards;
use super::guard::Guard;
use super::handler::Handler;
use super::inputs::Inputs;
use super::leaving::{Parting, Went};
use super::prompt::Prompt;
use super::server::{Live, Shared};
use super::words;
use crate::audit::{Actor, Event, What};
use crate::auth::Grant;
use crate::name::ConnectionId;

/// How long a client may take to read why it is disconnected.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Channels that one connection may have one after another. The library keeps about 3.5 KiB of each that we close first until the connection
/// ends; with this it is at most 35 MiB, and clients that share connections (OpenSSH, JetBrains) make another by themselves.
pub(super) const CHANNELS_IN_A_LIFE: usize = 10_000;

/// How long a client without a session is given to leave by itself before it is disconnected.
const PARTING: Duration = Duration::from_secs(1);

/// What the watcher, the protocol's handler and the sessions of one connection share.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    /// The configuration as it was when the connection was accepted.
    pub(super) live: Arc<Live>,
    pub(super) id: ConnectionId,
    pub(super) remote: SocketAddr,
    pub(super) local: SocketAddr,
    /// When the login must have succeeded.
    pub(super) deadline: Option<Instant>,
    /// The client's identification line, once it was read. Untrusted text.
    pub(super) identification: Arc<OnceLock<String>>,
    pub(super) stage: watch::Sender<Stage>,
    /// How its client left, once it has.
    pub(super) parting: Arc<Parting>,
    /// One permit for each session that may be open.
    pub(super) sessions: Arc<Semaphore>,
    /// The input of all channels.
    pub(super) inputs: Inputs,
    /// The forwarded connections.
    pub(super) forwards: Forwards,
    /// The client's key agent, as far as it has lent it.
    pub(super) agent: Agent,
    /// Cancelled to end it; it is over then, also if it ended by itself.
    pub(super) over: CancellationToken,
    /// The tasks of the sessions and forwards. A session gives its permit back shortly before it has said its last.
    pub(super) session_tasks: TaskTracker,
    /// Who has logged in.
    pub(super) who: OnceLock<Arc<Grant>>,
    /// Whether the grant's message was shown.
    pub(super) message_shown: AtomicBool,
    /// Whether the first byte of the first session has come.
    pub(super) first_byte_seen: AtomicBool,
    pub(super) span: tracing::Span,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody is logged in.
    Login,
    /// Somebody is.
    Open,
    /// It is to be ended, and the client told why.
    Over(Farewell),
}

/// What a client is told as the last thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It has failed to log in too often.
    TooManyTries,
    /// Nobody can say whether it may.
    LoginServiceDown,
    /// The gateway ends.
    ShuttingDown,
    /// It has had as many sessions as a connection may have in its life.
    WornOut,
}

/// Why a connection is over.
enum Ended {
    ByPeer,
    Deadline,
    Told(Farewell),
}

/// Spawns the task of an admitted connection.
pub(super) fn begin(shared: Arc<Shared>, stream: TcpStream, remote: SocketAddr, slot: Slot) {
    let Ok(local) = stream.local_addr() else { return };
    let live = shared.live.load_full();
    let id = ConnectionId::random();
    let span = tracing::info_span!("connection", %id, %remote);
    let connection = Arc::new(Connection {
        deadline: live.config.login_grace.unless_zero().map(|grace| Instant::now() + grace),
        sessions: Arc::new(Semaphore::new(live.config.max_sessions)),
        session_tasks: TaskTracker::new(),
        inputs: Inputs::default(),
        forwards: Forwards::new(live.config.max_forwards),
        agent: Agent::default(),
        over: CancellationToken::new(),
        shared: shared.clone(),
        live,
        id,
        remote,
        local,
        identification: Arc::default(),
        stage: watch::Sender::new(Stage::Login),
        parting: Arc::default(),
        who: OnceLock::new(),
        message_shown: AtomicBool::new(false),
        first_byte_seen: AtomicBool::new(false),
        span: span.clone(),
    });
    shared.tasks.spawn(span, connection.run(stream, slot));
}

impl Connection {
    /// Records something that was done over it, by whoever has logged in.
    pub(super) fn record(&self, what: What) {
        let Some(who) = self.who.get() else { return };
        self.shared
            .audit
            .record(Event::now(Actor::account(who.account.as_str()), what).about(&who.workspace).from(self.remote.ip(), self.id));
    }

    async fn run(self: Arc<Self>, stream: TcpStream, mut slot: Slot) {
        tracing::debug!("connection accepted");
        let began = Instant::now();
        let kill = &self.over;
        let handle = OnceLock::new();
        let stage = self.stage.subscribe();
        let stream = Prompt::new(stream, move || *stage.borrow() == Stage::Login);
        let guarded = Guard::new(stream, kill, self.identification.clone(), self.parting.clone());
        // On the heap, and gone as soon as the handshake is over.
        let protocol = Box::pin(run_stream(self.live.protocol.clone(), guarded, Handler::new(self.clone())));
        let served = async {
            let running = protocol.await?;
            let _ = handle.set(running.handle());
            running.await
        };
        tokio::pin!(served);
        let ended = tokio::select! {
            result = &mut served => {
                self.note_end(result);
                Ended::ByPeer
            }
            ended = self.watch(&mut slot) => ended,
        };
        // If it was not the client that ended it, it was us, and she wants to come back.
        self.parting.note(Went::Lost);
        let mut over = matches!(ended, Ended::ByPeer);
        if let (Ended::Told(farewell), Some(handle)) = (&ended, handle.get()) {
            let told = handle.disconnect(farewell.reason(), farewell.words().to_owned(), String::new());
            let _ = tokio::time::timeout(LAST_WORDS, told).await;
            over = tokio::time::timeout(LAST_WORDS, &mut served).await.is_ok();
        }
        kill.cancel();
        if !over {
            // The protocol's task ends as soon as it touches its stream; a question to the authenticator has its own deadline.
            let _ = tokio::time::timeout(LAST_WORDS, &mut served).await;
        }
        drop(slot);
        tracing::debug!(reason = ended.label(), after = ?began.elapsed(), "connection ended");
    }

    /// Returns when the connection must end, whatever its peer wants.
    async fn watch(&self, slot: &mut Slot) -> Ended {
        let mut stage = self.stage.subscribe();
        let deadline = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let login = tokio::select! {
            Ok(stage) = stage.wait_for(|stage| *stage != Stage::Login) => *stage,
            () = deadline => {
                tracing::info!("login took too long");
                return Ended::Deadline;
            }
            () = self.shared.draining.cancelled() => return Ended::Told(Farewell::ShuttingDown),
        };
        if let Stage::Over(farewell) = login {
            return Ended::Told(farewell);
        }
        slot.logged_in();
        // From here on new sessions are refused.
        let last_session = async {
            let _ = stage.wait_for(|stage| matches!(stage, Stage::Over(_))).await;
            self.session_tasks.close();
            self.session_tasks.wait().await;
            // A client whose last session has ended leaves by itself, and with that session's status.
            tokio::time::sleep(PARTING).await;
        };
        tokio::select! {
            () = last_session => return Ended::Told(Farewell::WornOut),
            () = self.shared.draining.cancelled() => {}
        }
        self.session_tasks.close();
        let within = self.live.config.drain_timeout.get();
        if tokio::time::timeout(within, self.session_tasks.wait()).await.is_ok() {
            tokio::time::sleep(PARTING).await;
        }
        Ended::Told(Farewell::ShuttingDown)
    }

    fn note_end(&self, result: Result<(), russh::Error>) {
        self.parting.note(match &result {
            Ok(()) | Err(russh::Error::Disconnect | russh::Error::HUP) => Went::Closed,
            Err(russh::Error::IO(why)) => Went::of(why),
            Err(_) => Went::Lost,
        });
        match result {
            Ok(()) | Err(russh::Error::Disconnect | russh::Error::HUP) => {}
            Err(russh::Error::Join(_)) => {
                self.shared.metrics.panics.inc();
                tracing::error!("connection panicked");
            }
            Err(russh::Error::IO(why)) => tracing::debug!(error = %why, "connection lost"),
            Err(why @ (russh::Error::KeepaliveTimeout | russh::Error::InactivityTimeout)) => tracing::info!(error = %why, "client gone"),
            // Its text may quote what the client sent.
            Err(why) => tracing::info!(error = %crate::name::printable(&why.to_string()), "protocol error"),
        }
    }
}

impl Farewell {
    /// What the client's person reads.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::TooManyTries => words::TOO_MANY_TRIES,
            Self::LoginServiceDown => words::LOGIN_SERVICE_DOWN,
            Self::ShuttingDown => words::SHUTTING_DOWN,
            Self::WornOut => words::WORN_OUT,
        }
    }

    fn reason(self) -> Disconnect {
        match self {
            Self::TooManyTries => Disconnect::NoMoreAuthMethodsAvailable,
            Self::LoginServiceDown => Disconnect::ServiceNotAvailable,
            Self::ShuttingDown | Self::WornOut => Disconnect::ByApplication,
        }
    }
}

impl Ended {
    fn label(&self) -> &'static str {
        match self {
            Self::ByPeer => "closed",
            Self::Deadline => "login deadline",
            Self::Told(Farewell::ShuttingDown) => "drained",
            Self::Told(Farewell::WornOut) => "worn out",
            Self::Told(Farewell::TooManyTries | Farewell::LoginServiceDown) => "login refused",
        }
    }
}
