//! The stream of events, when the engine goes away and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

#[path = "common/container.rs"]
mod container;
#[path = "common/engine.rs"]
mod engine;

use std::path::{Path, PathBuf};

use container::{TestContainer, within};
use engine::docker;
use futures_util::{Stream, StreamExt};
use innkeeper::engine::docker::Docker;
use innkeeper::engine::{Config, ContainerId, Engine, Event, EventKind};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// A socket through which the engine is reached, until this is dropped.
struct Relay {
    path: PathBuf,
    _connections: JoinSet<()>,
}

impl Relay {
    fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut server = UnixStream::connect(Config::default().socket).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { path: path.to_owned(), _connections: tasks }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn a_broken_stream_comes_back_and_says_so() {
    let container = TestContainer::start("events", "busybox").await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let relay = Relay::listen(&socket);
    let engine = Docker::connect(&Config { socket: socket.clone(), ..Config::default() }, &container.instance.0.parse().unwrap()).unwrap();
    let mut events = engine.events();

    // What happened before the first look at the stream, but after it was asked for, is in it.
    docker(&["pause", &container.id.0]);
    docker(&["unpause", &container.id.0]);
    assert_eq!(next(&mut events).await, Event { id: container.id.clone(), kind: EventKind::Paused });
    assert_eq!(next(&mut events).await, Event { id: container.id.clone(), kind: EventKind::Unpaused });

    drop(relay);
    let missed = tokio::spawn(async move { (next(&mut events).await, events) });
    docker(&["kill", &container.id.0]);
    docker(&["wait", &container.id.0]);
    let _relay = Relay::listen(&socket);
    let (gap, mut events) = missed.await.unwrap();
    assert_eq!(gap, Event { id: ContainerId(String::new()), kind: EventKind::Gap });
    docker(&["start", &container.id.0]);
    // The death may have been told late, and then it is in the new stream.
    let mut event = next(&mut events).await;
    if event.kind == EventKind::Died {
        event = next(&mut events).await;
    }
    assert_eq!(event, Event { id: container.id.clone(), kind: EventKind::Started });
    docker(&["rm", "-f", &container.id.0]);
    assert_eq!(next(&mut events).await.kind, EventKind::Died);
    assert_eq!(next(&mut events).await.kind, EventKind::Removed);
}

async fn next(events: &mut (impl Stream<Item = Event> + Unpin)) -> Event {
    within(events.next()).await.unwrap()
}
