//! One forwarded connection: whether there may be one, how it comes about, and what is counted and logged of it.
//!
//! Those that the client opens go to an address in the container ([`toward`]); those that somebody in the container opens come from a place
//! where we listen for the client ([`back`]). What is carried is nobody's business here: `tunnel` does that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::connection::{CHANNELS_IN_A_LIFE, Connection, Farewell, Stage};
use super::login::Entered;
use super::tunnel::{self, Closed};
use super::words;
use crate::attach::{Address, AttachError, Duplex, Failure, Incoming};
use crate::audit::What;
use crate::auth::{Grant, Permit};
use crate::name::printable;
use crate::telemetry::Metrics;
use crate::workspace::{Ending, OpenError, Stay};

/// How often a workspace is made ready again whose container went away before the connection was there.
const TRIES: usize = 3;

/// How long connecting may take. The kernel itself gives up on a TCP peer that does not answer after two minutes.
const CONNECT: Duration = Duration::from_secs(30);

/// Longest name of a host, in bytes (RFC 1035).
const MAX_HOST: usize = 255;

/// Longest path of a socket, in bytes, as for any other path. What a socket's address holds is shorter, and the container's affair.
const MAX_PATH: usize = 4096;

/// Refused forwards of one connection that are logged: a client that asks without end does not fill the log.
const LOGGED: usize = 50;

/// What kind of forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// To a port in the container.
    Local,
    /// To a socket in the container.
    LocalSocket,
    /// From a port in the container.
    Remote,
    /// From a socket in the container.
    RemoteSocket,
    /// To the client's key agent.
    Agent,
    /// To the client's display.
    X11,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not permitted.
    Denied,
    /// There are as many as may be.
    Limit,
    /// The workspace is not ready.
    Unready,
    /// What was to be reached is not there, or does not want to.
    Failed(Failure),
}

/// What one connection has of forwards.
pub(super) struct Forwards {
    /// One permit for each that may be open.
    places: Arc<Semaphore>,
    /// Channels that we have closed before the client did.
    closed_first: AtomicUsize,
    /// Refusals so far.
    refused: AtomicUsize,
}

/// The place of one that is open.
struct Place {
    permit: Option<OwnedSemaphorePermit>,
    metrics: Metrics,
}

/// What a connection from the container is announced to the client as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Announced {
    /// A connection to a port where the client listens, under the name that it gave the place.
    Port {
        /// As the client said it.
        host: String,
        /// Where it listens in the end.
        port: u16,
    },
    /// The same for a socket.
    Socket(String),
    /// Somebody wants the key agent.
    Agent,
    /// Somebody wants the display.
    X11,
}

/// Where connections from the container come from and go to.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) connection: Arc<Connection>,
    pub(super) handle: Handle,
    pub(super) announced: Announced,
    /// The workspace's end.
    pub(super) ending: watch::Receiver<Option<Ending>>,
    /// What keeps the workspace running; without one, whoever connects does.
    pub(super) stay: Option<Arc<Stay>>,
}

/// A TCP address that a client names, if there can be such a one.
pub(super) fn port(host: &str, port: u32) -> Option<Address> {
    let fits = !host.is_empty() && is_name(host, MAX_HOST);
    Some(Address::Tcp { host: host.to_owned(), port: u16::try_from(port).ok().filter(|_| fits)? })
}

/// A socket's path that a client names, if there can be such a one.
pub(super) fn socket(path: &str) -> Option<Address> {
    (!path.is_empty() && is_name(path, MAX_PATH)).then(|| Address::Unix { path: path.to_owned() })
}

/// Whether it may be the name of something: bounded, and without what would end or change it on its way.
fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest && !text.contains(|c: char| c.is_control())
}

/// The client wants to reach `to` in the container; `None` is an address that cannot be. Its channel is answered later, so that one that
/// takes long holds nothing up.
pub(super) async fn toward(
    connection: &Arc<Connection>,
    entered: &Entered,
    kind: Kind,
    to: Option<Address>,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
) {
    let may = connection.shared.keeper.permit(&entered.grant).forwards_in();
    let target = to.as_ref().map(text).unwrap_or_default();
    let place = match (to, connection.forwards.admit(connection, may)) {
        (Some(to), Ok(place)) => (to, place),
        (None, Ok(_)) => return refuse(connection, kind, "", Refusal::Failed(Failure::Invalid), reply).await,
        (_, Err(why)) => return refuse(connection, kind, &target, why, reply).await,
    };
    let (to, place) = place;
    let span = tracing::info_span!(parent: &connection.span, "forward", kind = kind.label(), to = %printable(&target));
    let tracked = connection.session_tasks.token();
    let (shared, connection, grant) = (connection.shared.clone(), connection.clone(), entered.grant.clone());
    shared.tasks.spawn(span, async move {
        let reached = connection.over.run_until_cancelled(reach(&connection, &grant, &to)).await;
        match reached {
            Some(Ok((stay, far))) => {
                let input = connection.inputs.begin(channel.id());
                connection.forwards.count(&connection, kind, &target, "opened");
                reply.accept().await;
                let closed = tunnel::carry(channel, &input, far, stay.ending.clone()).await;
                connection.forwards.note(closed);
            }
            Some(Err(why)) => refuse(&connection, kind, &target, why, reply).await,
            None => {}
        }
        drop((place, tracked));
    });
}

/// Connects to something in a workspace that is ready, which is made so again should its container go away in between.
async fn reach(connection: &Connection, grant: &Grant, to: &Address) -> Result<(Stay, Box<dyn Duplex>), Refusal> {
    let keeper = &connection.shared.keeper;
    for _ in 0..TRIES {
        let stay = keeper.reach(grant).await.map_err(|why| {
            tracing::warn!(error = %why, "workspace not ready for a forward");
            Refusal::Unready
        })?;
        match tokio::time::timeout(CONNECT, keeper.connect(&stay, to)).await {
            Ok(Ok(far)) => return Ok((stay, far)),
            Ok(Err(OpenError::Gone)) => tracing::info!("container went away before the forward was open"),
            Ok(Err(OpenError::Attach(why))) => {
                tracing::debug!(error = %printable(&why.to_string()), "forward not connected");
                return Err(Refusal::Failed(failure(&why)));
            }
            Err(_) => return Err(Refusal::Failed(Failure::TimedOut)),
        }
    }
    Err(Refusal::Unready)
}

/// Why something was not possible in a container.
pub(super) fn failure(why: &AttachError) -> Failure {
    match why {
        AttachError::Failed { why, .. } => *why,
        AttachError::Engine(_) | AttachError::Unsupported(_) | AttachError::Init(_) => Failure::Other,
    }
}

async fn refuse(connection: &Arc<Connection>, kind: Kind, target: &str, why: Refusal, reply: ChannelOpenHandle) {
    connection.forwards.refuse(connection, kind, target, why);
    let code = why.reason().code();
    reply.reject(ChannelOpenFailure::Other { code, reason: words::no_forward(why).to_owned() }).await;
}

/// Somebody in the container has connected to a place where we listen for the client.
pub(super) fn back(way: Way, may: bool, incoming: Incoming) {
    let Way { connection, handle, announced, ending, stay } = way;
    let kind = announced.kind();
    let place = match connection.forwards.admit(&connection, may) {
        Ok(place) => place,
        Err(why) => return connection.forwards.refuse(&connection, kind, "", why),
    };
    let span = tracing::info_span!(parent: &connection.span, "forward", kind = kind.label());
    let tracked = connection.session_tasks.token();
    connection.shared.clone().tasks.spawn(span, async move {
        // Not given up before it is answered: the library would end the connection if the client then said no. A client that never answers
        // keeps a place, and so ends up without.
        match announced.open(&handle, incoming.from).await {
            Ok(channel) => {
                let input = connection.inputs.begin(channel.id());
                connection.forwards.count(&connection, kind, "", "opened");
                let closed = tunnel::carry(channel, &input, incoming.stream, ending).await;
                connection.forwards.note(closed);
            }
            Err(why) => {
                tracing::debug!(error = %printable(&why.to_string()), "client takes no forward");
                connection.forwards.count(&connection, kind, "", Refusal::Failed(Failure::Refused).label());
            }
        }
        drop((place, tracked, stay));
    });
}

/// An address, as a log line has it; not yet fit for one.
pub(super) fn text(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Address::Tcp { host, port } => format!("{host}:{port}"),
        Address::Unix { path } => path.clone(),
    }
}

// === impl Forwards ===

impl Forwards {
    pub(super) fn new(max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), closed_first: AtomicUsize::new(0), refused: AtomicUsize::new(0) }
    }

    /// Channels that the library still remembers, because we closed them first.
    pub(super) fn closed_first(&self) -> usize {
        self.closed_first.load(Ordering::Relaxed)
    }

    /// A place for one more.
    fn admit(&self, connection: &Connection, may: bool) -> Result<Place, Refusal> {
        if !may {
            return Err(Refusal::Denied);
        }
        if connection.shared.draining.is_cancelled() {
            return Err(Refusal::Unready);
        }
        if self.closed_first() >= CHANNELS_IN_A_LIFE {
            connection.stage.send_replace(Stage::Over(Farewell::WornOut));
            return Err(Refusal::Limit);
        }
        let permit = self.places.clone().try_acquire_owned().map_err(|_| Refusal::Limit)?;
        let metrics = connection.shared.metrics.clone();
        metrics.forwards_open.inc();
        Ok(Place { permit: Some(permit), metrics })
    }

    fn count(&self, connection: &Connection, kind: Kind, target: &str, outcome: &str) {
        connection.shared.metrics.forwards.with_label_values(&[kind.label(), outcome]).inc();
        let (kind, target, outcome) = (kind.label().to_owned(), target.to_owned(), outcome.to_owned());
        connection.record(What::Forward { kind, target, outcome });
    }

    fn note(&self, closed: Closed) {
        if closed == Closed::ByUs {
            self.closed_first.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts and logs one that there is not. What merely does not answer is the client's affair, not the administrator's; what cannot be meant
    /// well, a device where a socket should be, is the administrator's too.
    pub(super) fn refuse(&self, connection: &Connection, kind: Kind, target: &str, why: Refusal) {
        self.count(connection, kind, target, why.label());
        let is_told = !matches!(why, Refusal::Failed(failure) if failure != Failure::Invalid);
        let before = self.refused.fetch_add(usize::from(is_told), Ordering::Relaxed);
        if !is_told || before >= LOGGED {
            tracing::debug!(parent: &connection.span, kind = kind.label(), target = %printable(target), why = why.label(), "forward refused");
        } else {
            tracing::info!(parent: &connection.span, kind = kind.label(), target = %printable(target), why = why.label(), "forward refused");
        }
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        // First: who sees the count go down finds the place free.
        drop(self.permit.take());
        self.metrics.forwards_open.dec();
    }
}

// === impl Refusal ===

impl Refusal {
    fn reason(self) -> ChannelOpenFailure {
        match self {
            Self::Denied => ChannelOpenFailure::AdministrativelyProhibited,
            Self::Limit | Self::Failed(Failure::Exhausted) => ChannelOpenFailure::ResourceShortage,
            Self::Unready | Self::Failed(_) => ChannelOpenFailure::ConnectFailed,
        }
    }

    /// The value of the metric label `outcome`.
    fn label(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::Unready => "unready",
            Self::Failed(Failure::Invalid) => "invalid",
            Self::Failed(_) => "failed",
        }
    }
}

// === impl Kind ===

impl Kind {
    /// The value of the metric label `kind`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::LocalSocket => "local_socket",
            Self::Remote => "remote",
            Self::RemoteSocket => "remote_socket",
            Self::Agent => "agent",
            Self::X11 => "x11",
        }
    }

    /// Whether an account with this permit may have one.
    pub(super) fn is_permitted(self, permit: Permit) -> bool {
        match self {
            Self::Local | Self::LocalSocket => permit.forwards_in(),
            Self::Remote | Self::RemoteSocket => permit.forwards_out(),
            Self::Agent => permit.agent_forwarding,
            Self::X11 => permit.forwards_x11(),
        }
    }
}

// === impl Announced ===

impl Announced {
    /// Which kind of forward it is.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Port { .. } => Kind::Remote,
            Self::Socket(_) => Kind::RemoteSocket,
            Self::Agent => Kind::Agent,
            Self::X11 => Kind::X11,
        }
    }

    /// Opens the channel.
    async fn open(&self, handle: &Handle, from: Option<Address>) -> Result<Channel<Msg>, russh::Error> {
        let (from, from_port) = match from {
            Some(Address::Tcp { host, port }) => (host, u32::from(port)),
            Some(Address::Unix { .. }) | None => ("127.0.0.1".to_owned(), 0),
        };
        match self {
            Self::Port { host, port } => handle.channel_open_forwarded_tcpip(host.as_str(), u32::from(*port), from, from_port).await,
            Self::Socket(path) => handle.channel_open_forwarded_streamlocal(path.as_str()).await,
            Self::Agent => handle.channel_open_agent().await,
            Self::X11 => handle.channel_open_x11(from, from_port).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_an_address_is_asked_for() {
        assert_eq!(port("::1", 80), Some(Address::Tcp { host: "::1".into(), port: 80 }));
        assert!(port("", 80).is_none() && port("a\0b", 80).is_none() && port("a", 65_536).is_none() && port(&"a".repeat(256), 1).is_none());
        assert_eq!(socket("/run/x"), Some(Address::Unix { path: "/run/x".into() }));
        assert!(socket("").is_none() && socket("/a\nb").is_none() && socket(&"a".repeat(5000)).is_none());
    }

    #[test]
    fn a_client_can_tell_policy_from_a_closed_port_and_from_a_limit() {
        for (why, code) in [
            (Refusal::Denied, 1),
            (Refusal::Unready, 2),
            (Refusal::Failed(Failure::Refused), 2),
            (Refusal::Failed(Failure::NotFound), 2),
            (Refusal::Failed(Failure::Denied), 2),
            (Refusal::Failed(Failure::Exhausted), 4),
            (Refusal::Limit, 4),
        ] {
            assert_eq!(why.reason().code(), code, "{why:?}");
        }
    }
}
