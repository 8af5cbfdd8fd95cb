//! The accept loop. Nothing that happens to one connection, and no shortage, ends it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::admission::{Refusal, Slot};
use super::connection;
use super::server::Shared;
use super::words;
use crate::audit;

/// First and longest pause after the system had no descriptors or memory for a connection.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Least time between two log lines about refused connections.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How long sent data may stay unacknowledged, or a peer's window closed, before the kernel takes the peer for gone.
const USER_TIMEOUT: Duration = Duration::from_secs(180);

/// The kernel's own question to a silent peer: after so long, so often, so many times.
const TCP_KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// Accepts connections for ever; to be dropped in order to stop.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let mut pause = BACK_OFF.0;
    let mut refusals = RefusalLog::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                pause = BACK_OFF.0;
                shared.metrics.connections.inc();
                let admitted = shared.admission.admit(peer.ip(), &shared.live.load().limits);
                match admitted {
                    Ok(slot) => begin(&shared, stream, peer, slot),
                    Err(refusal) => {
                        shared.metrics.connections_refused.with_label_values(&[refusal.label()]).inc();
                        refusals.note(refusal, peer);
                        shared.audit.refuse(audit::Refusal {
                            actor: audit::Actor::Stranger,
                            remote: Some(peer.ip()),
                            workspace: None,
                            door: "ssh",
                            asked: "a connection".to_owned(),
                            reason: refusal.label(),
                        });
                        // Best effort: it fits into the socket's empty buffer, or is not said.
                        let _ = stream.try_write(words::TOO_MANY_CONNECTIONS.as_bytes());
                    }
                }
            }
            // The peer gave up before it was accepted, or a signal came: the next one may be waiting already.
            Err(why) if is_passing(&why) => tracing::debug!(error = %why, "connection lost before it was accepted"),
            // No descriptors or no memory, most likely: they come back when connections end.
            Err(why) => {
                tracing::warn!(error = %why, ?pause, "cannot accept connections");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BACK_OFF.1);
            }
        }
    }
}

fn begin(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, slot: Slot) {
    if let Err(why) = configure(&stream) {
        tracing::debug!(%peer, error = %why, "connection gone at once");
        return;
    }
    connection::begin(shared.clone(), stream, peer, slot);
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let (after, every, times) = TCP_KEEPALIVE;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(after).with_interval(every).with_retries(times))?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn is_passing(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
        || Errno::from_io_error(why) == Some(Errno::PROTO)
}

/// Logs refused connections, a flood of them in few lines.
#[derive(Default)]
struct RefusalLog {
    last: Option<Instant>,
    unsaid: u64,
}

impl RefusalLog {
    fn note(&mut self, refusal: Refusal, peer: SocketAddr) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            self.unsaid += 1;
            return;
        }
        tracing::warn!(reason = refusal.label(), %peer, unsaid = self.unsaid, "connection refused");
        *self = Self { last: Some(Instant::now()), unsaid: 0 };
    }
}
