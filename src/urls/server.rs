//! Listening, and connections however slow, many or wrong they are.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use super::Config;
use super::links::Links;
use super::places::Places;
use super::proxy::{Entrance, Proxy};
use super::stays::Stays;
use super::target::Target;
use super::tls::{Tls, TlsError};
use super::upstream::Upstream;
use crate::audit::Audit;
use crate::telemetry::Metrics;
use crate::workspace::Keeper;

/// How long a handshake, or the head of a request, may take; the next one on the same connection too.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(30);
/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 128;
/// How often what nobody needs any more is let go of.
const SWEEP: Duration = Duration::from_secs(1);
/// How long no connection is accepted after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests that have begun may go on after shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// An address that is listened on, without waiting, and where all that comes there goes, if it does: a target, and whether it is public.
pub type Entry = (std::net::TcpListener, Option<(Target, bool)>);

/// What serves workspace URLs.
pub struct Server {
    proxy: Arc<Proxy>,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Ready to serve with this configuration. To be called where workspaces are made ready, which may be another runtime than that of
    /// [`serve`].
    pub fn new(config: Config, links: Arc<Links>, keeper: Arc<dyn Keeper>, metrics: Metrics, audit: Audit) -> Result<Self, TlsError> {
        let tls = match (&config.tls_cert, &config.tls_key) {
            (Some(cert), Some(key)) => Some(Tls::open(cert, key)?),
            _ => None,
        };
        let stays = Stays::new(Arc::clone(&keeper), config.requests_per_workspace);
        let upstream = Arc::new(Upstream::new(keeper));
        Ok(Self { proxy: Arc::new(Proxy { config, links, stays, upstream, metrics, audit }), tls })
    }
}

/// Serves on these until `shutdown`.
pub async fn serve(server: Server, listeners: Vec<Entry>, shutdown: CancellationToken) {
    let Server { proxy, tls } = server;
    let tasks = TaskTracker::new();
    if let Some(tls) = &tls {
        tasks.spawn(Arc::clone(tls).follow(shutdown.clone()));
    }
    let (sweeping, stops) = (Arc::clone(&proxy), shutdown.clone());
    tasks.spawn(async move {
        while stops.run_until_cancelled(sleep(SWEEP)).await.is_some() {
            sweeping.stays.sweep();
            sweeping.upstream.sweep();
        }
    });
    let places = Arc::new(Places::new(proxy.config.connections, proxy.config.connections_per_address));
    for (listener, fixed) in listeners {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(why) => {
                error!(%why, "cannot accept connections to workspaces");
                continue;
            }
        };
        let (proxy, tls, places, shutdown) = (Arc::clone(&proxy), tls.clone(), Arc::clone(&places), shutdown.clone());
        let (fixed, connections) = (fixed.map(Arc::new), tasks.clone());
        tasks.spawn(async move {
            while let Some((stream, remote, permit)) = shutdown.run_until_cancelled(accept(&listener, &places)).await {
                let Some(place) = places.give(permit, remote.ip()) else {
                    debug!(%remote, "too many connections from one address");
                    proxy.metrics.connections_refused.with_label_values(&["urls_per_address"]).inc();
                    continue;
                };
                let entrance = Entrance { from: remote.ip().to_canonical(), encrypted: tls.is_some(), fixed: fixed.clone() };
                let (proxy, tls, shutdown) = (Arc::clone(&proxy), tls.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _place = place;
                    // Small answers must not wait for more.
                    let _ = stream.set_nodelay(true);
                    let Some(tls) = tls else { return converse(stream, proxy, entrance, shutdown).await };
                    match timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
                        Ok(Ok(stream)) => converse(stream, proxy, entrance, shutdown).await,
                        Ok(Err(why)) => debug!(%why, "no handshake"),
                        Err(_) => debug!("a handshake took too long"),
                    }
                });
            }
        });
    }
    shutdown.cancelled().await;
    tasks.close();
    tasks.wait().await;
}

async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Some(place) = places.one().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, remote)) => return (stream, remote, place),
            Err(why) => {
                warn!(%why, "cannot accept a connection to a workspace");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    proxy: Arc<Proxy>,
    entrance: Entrance,
    shutdown: CancellationToken,
) {
    let asked = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&asked);
    let service = service_fn(move |request| {
        first.store(true, Ordering::Relaxed);
        let (proxy, entrance) = (Arc::clone(&proxy), entrance.clone());
        async move { Ok::<_, io::Error>(proxy.answer(&entrance, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).half_close(false);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES as u32);
    builder.http2().keep_alive_interval(HEAD).keep_alive_timeout(HEAD);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Until it is known what the client speaks, the library waits without end.
    let silent = async {
        sleep(HEAD).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = silent => None,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection.as_mut()).await.ok()
        }
    };
    if let Some(Err(why)) = ended {
        debug!(%why, "a connection to a workspace ended");
    }
}
