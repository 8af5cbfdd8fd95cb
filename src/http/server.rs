//! Serving connections, however slow, many or wrong they are.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::Pages;

/// Connections at once; the next ones wait to be accepted. Enough for many scrapers, few enough that all stalled ones cost a few MiB.
const CONNECTIONS: usize = 64;

/// How long the head of a request may take to arrive, from the connection or the answer before it on.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may live at all, so that nobody who reads slowly keeps a place; who goes on asking connects again.
const LIFETIME: Duration = Duration::from_secs(60);

/// How long requests that have begun may go on after shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The longest head of a request, in bytes. Bodies are never read: a request that has one is answered and its connection closed.
const HEAD_BYTES: usize = 16 * 1024;

/// How long no connection is accepted after accepting failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the pages until `shutdown`, then lets the requests that have begun end.
pub async fn serve(listener: TcpListener, pages: Pages, shutdown: CancellationToken) {
    let service = TowerToHyperService::new(pages.router());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = TaskTracker::new();
    while let Some((stream, place)) = shutdown.run_until_cancelled(accept(&listener, &places)).await {
        let (service, shutdown) = (service.clone(), shutdown.clone());
        connections.spawn(async move {
            converse(stream, service, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

/// The next connection, once there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(place) = Arc::clone(places).acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(why) => {
                warn!(%why, "cannot accept an http connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, service: TowerToHyperService<axum::Router>, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = timeout(LIFETIME, connection.as_mut()) => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN, connection.as_mut()).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(why)) => debug!(%why, "http connection ended"),
        Err(_) => debug!("http connection took too long"),
    }
}
