//! Serving connections, however slow, many or wrong they are.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::{Mode, fchmod};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Pages;
use super::api::{self, Acquainted, Api, Entrance, Peer};
use super::dashboard::{self, Oidc};

/// Where connections come from.
trait Listener: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, Peer(Some(address.ip()))))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        Ok((self.accept().await?.0, Peer(None)))
    }
}

/// Connections at once; the next ones wait to be accepted. Enough for many scrapers, few enough that all stalled ones cost a few MiB.
const CONNECTIONS: usize = 64;

/// How long the head of a request may take to arrive, from the connection or the answer before it on.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// How long the connection of somebody may live who has shown no token, so that nobody who reads slowly keeps a place; who goes on asking
/// connects again.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long requests that have begun may go on after shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The longest head of a request, in bytes. A body is read by the API alone; otherwise a request that has one is answered and its connection
/// closed.
const HEAD_BYTES: usize = 16 * 1024;

/// How long no connection is accepted after accepting failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel holds at the socket while others are accepted: a handful of commands.
const BACKLOG: i32 = 16;

/// Listens at a path, where what an earlier process left is removed. Nobody but this process's user can connect, at no moment.
///
/// Only the one gateway of a state directory may call it: the lock there sees to that.
pub fn listen_for_admin(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        // Anything else is not ours to remove, and is said to be in the way.
        Ok(data) if data.file_type().is_socket() => std::fs::remove_file(path)?,
        _ => {}
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    // Before it has a name: the file is made with the socket's own mode.
    fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
}

/// Serves the pages, and where there is one the API to who has a token, until `shutdown`, then lets the requests that have begun end.
pub async fn serve(listener: TcpListener, pages: Pages, api: Option<Arc<Api>>, oidc: Option<Oidc>, shutdown: CancellationToken) {
    let mut router = pages.router();
    if let Some(api) = api {
        if let Some(sessions) = &api.sessions {
            router = router.merge(dashboard::router(Arc::clone(&api), Arc::clone(sessions), oidc));
        }
        router = router.merge(api::router(api, Entrance::Port));
    }
    serve_on(listener, router, Some(LIFETIME), shutdown).await;
}

/// Serves the API to whoever can open the socket until `shutdown`, then lets the requests that have begun end. Logs may be followed for ever:
/// who does is an administrator, and her process's end is noticed.
pub async fn serve_admin(listener: UnixListener, api: Arc<Api>, shutdown: CancellationToken) {
    let router = api::router(api, Entrance::Socket).fallback(api::nothing);
    serve_on(listener, router, None, shutdown).await;
}

async fn serve_on(listener: impl Listener, router: axum::Router, lifetime: Option<Duration>, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    while let Some(((stream, peer), place)) = shutdown.run_until_cancelled(accept(&listener, &places)).await {
        let (service, shutdown) = (service.clone(), shutdown.clone());
        connections.spawn(async move {
            converse(stream, peer, service, lifetime, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is a place for it.
async fn accept<L: Listener>(listener: &L, places: &Arc<Semaphore>) -> ((L::Stream, Peer), OwnedSemaphorePermit) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { std::future::pending().await };
        match listener.next().await {
            Ok(accepted) => return (accepted, place),
            Err(why) => {
                warn!(%why, "cannot accept an http connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    peer: Peer,
    router: TowerToHyperService<axum::Router>,
    lifetime: Option<Duration>,
    shutdown: CancellationToken,
) {
    let acquainted = Acquainted::default();
    let known = acquainted.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(known.clone());
        request.extensions_mut().insert(peer);
        router.call(request)
    });
    let outlived = async {
        match lifetime {
            Some(lifetime) => sleep(lifetime).await,
            None => std::future::pending().await,
        }
        if acquainted.is_so() {
            std::future::pending::<()>().await;
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = outlived => None,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection.as_mut()).await.ok()
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(why)) => debug!(%why, "http connection ended"),
        None => debug!("http connection took too long"),
    }
}
