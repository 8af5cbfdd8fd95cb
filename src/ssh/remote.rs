//! The places in the container where one connection listens: what `ssh -R` asks for.
//!
//! Asked for and answered in the protocol's own loop, as an answer must come in the order of the requests: whatever is waited for here has a
//! deadline, and never is it the client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::server::Handle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Connection;
use super::forward::{self, Announced, Kind, Refusal, Way};
use super::login::Entered;
use crate::attach::{Address, Endpoint, Failure, Listening};
use crate::name::printable;
use crate::workspace::{OpenError, Stay};

/// How long the connection's first request may wait for a workspace that is not running. Longer would hold up everything else on the
/// connection; whoever must wait longer logs in first.
const READY: Duration = Duration::from_secs(15);

/// How long each later request may, and how long listening itself may take.
const LISTEN: Duration = Duration::from_secs(5);

/// How long a place is waited for that is being given back.
const CLOSE: Duration = Duration::from_secs(2);

/// The places of one connection.
pub(super) struct Listeners {
    connection: Arc<Connection>,
    open: HashMap<Place, Listener>,
    /// Until when requests may wait for the workspace; set by the first.
    patience: Option<Instant>,
}

/// A place, as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A port at an address: empty is all of them.
    Port(String, u16),
    /// A socket.
    Socket(String),
}

/// A task that listens. Dropped, it ends.
pub(super) struct Listener {
    stop: DropGuard,
    ended: CancellationToken,
}

// === impl Listeners ===

impl Listeners {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, open: HashMap::new(), patience: None }
    }

    /// Listens at `place`, and says at which port in the end (0 for a socket); `None` if not.
    pub(super) async fn listen(&mut self, entered: &Entered, handle: Handle, place: Place) -> Option<u16> {
        let kind = place.kind();
        match self.try_listen(entered, handle, &place).await {
            Ok(port) => Some(port),
            Err(why) => {
                self.connection.forwards.refuse(&self.connection, kind, &place.text(), why);
                None
            }
        }
    }

    async fn try_listen(&mut self, entered: &Entered, handle: Handle, place: &Place) -> Result<u16, Refusal> {
        let connection = &self.connection;
        if !place.kind().is_permitted(connection.shared.keeper.permit(&entered.grant)) {
            return Err(Refusal::Denied);
        }
        if connection.shared.draining.is_cancelled() {
            return Err(Refusal::Unready);
        }
        self.open.retain(|_, listener| !listener.ended.is_cancelled());
        if self.open.len() >= connection.live.config.max_listeners {
            return Err(Refusal::Limit);
        }
        if self.open.contains_key(place) {
            return Err(Refusal::Failed(Failure::Taken));
        }
        let address = place.address().ok_or(Refusal::Failed(Failure::Invalid))?;
        let now = Instant::now();
        let patience = *self.patience.get_or_insert(now + READY);
        let reached = tokio::time::timeout_at(patience.max(now + LISTEN), connection.shared.keeper.reach(&entered.grant)).await;
        let stay = match reached {
            Ok(Ok(stay)) => stay,
            Ok(Err(why)) => {
                tracing::warn!(parent: &connection.span, error = %why, "workspace not ready to listen in");
                return Err(Refusal::Unready);
            }
            Err(_) => return Err(Refusal::Unready),
        };
        let listening = listen(connection, &stay, &Endpoint::At { address }).await?;
        let port = if let Address::Tcp { port, .. } = listening.on { port } else { 0 };
        let announced = place.announced(port);
        tracing::info!(parent: &connection.span, kind = place.kind().label(), on = %printable(&forward::text(&listening.on)), "listening");
        let way = Way { connection: connection.clone(), handle, announced, ending: stay.ending.clone(), stay: Some(Arc::new(stay)) };
        let listener = Listener::begin(way, entered.clone(), listening, false);
        self.open.insert(place.at(port), listener);
        Ok(port)
    }

    /// Listens there no more; says whether it did.
    pub(super) async fn cancel(&mut self, place: &Place) -> bool {
        let Some(Listener { stop, ended }) = self.open.remove(place) else { return false };
        drop(stop);
        // Whoever asks for the same place next must find it free.
        let _ = tokio::time::timeout(CLOSE, ended.cancelled()).await;
        true
    }
}

/// Listens in a workspace.
pub(super) async fn listen(connection: &Connection, stay: &Stay, on: &Endpoint) -> Result<Listening, Refusal> {
    match tokio::time::timeout(LISTEN, connection.shared.keeper.listen(stay, on)).await {
        Ok(Ok(listening)) => Ok(listening),
        Ok(Err(OpenError::Gone)) => Err(Refusal::Unready),
        Ok(Err(OpenError::Attach(why))) => {
            tracing::info!(parent: &connection.span, error = %printable(&why.to_string()), "cannot listen");
            Err(Refusal::Failed(forward::failure(&why)))
        }
        Err(_) => Err(Refusal::Failed(Failure::TimedOut)),
    }
}

// === impl Listener ===

impl Listener {
    /// Spawns the task, which listens until it is dropped, the connection is over, or the container is; or for one connection only.
    pub(super) fn begin(way: Way, entered: Entered, mut listening: Listening, once: bool) -> Self {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let listener = Self { stop: stop.clone().drop_guard(), ended: ended.clone() };
        let connection = way.connection.clone();
        let ended = ended.drop_guard();
        connection.shared.clone().tasks.spawn(connection.span.clone(), async move {
            loop {
                let incoming = tokio::select! {
                    incoming = listening.connections.recv() => incoming,
                    () = stop.cancelled() => break,
                    () = connection.over.cancelled() => break,
                };
                let Some(incoming) = incoming else {
                    tracing::info!(kind = way.announced.kind().label(), "nobody can connect any more: the container is gone");
                    break;
                };
                let may = way.announced.kind().is_permitted(connection.shared.keeper.permit(&entered.grant));
                forward::back(way.clone(), may, incoming);
                if once {
                    break;
                }
            }
            // The place is free before anybody hears that it is.
            drop(listening);
            drop(ended);
        });
        listener
    }

    /// Whether nobody can connect to it any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_cancelled()
    }
}

// === impl Place ===

impl Place {
    /// What it is called once it has a port.
    fn at(&self, port: u16) -> Self {
        match self {
            Self::Port(host, _) => Self::Port(host.clone(), port),
            Self::Socket(path) => Self::Socket(path.clone()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Port(..) => Kind::Remote,
            Self::Socket(_) => Kind::RemoteSocket,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Port(host, port) => format!("{host}:{port}"),
            Self::Socket(path) => path.clone(),
        }
    }

    /// Where that is (RFC 4254 section 7.1).
    fn address(&self) -> Option<Address> {
        match self {
            Self::Port(host, port) if host.is_empty() => Some(Address::Tcp { host: String::new(), port: *port }),
            Self::Port(host, port) => forward::port(host, u32::from(*port)),
            Self::Socket(path) => forward::socket(path),
        }
    }

    /// A client finds the forward that a connection belongs to by the words in which it asked.
    fn announced(&self, port: u16) -> Announced {
        match self {
            Self::Port(host, _) => Announced::Port { host: host.clone(), port },
            Self::Socket(path) => Announced::Socket(path.clone()),
        }
    }
}
