//! What happens to the instance's containers, as a stream that survives the engine's restarts.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{Stream, StreamExt, stream};
use tracing::{info, warn};

use super::Docker;
use crate::engine::{ContainerId, Event, EventKind, INSTANCE_LABEL};

/// First and longest wait before the engine is asked again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

type Messages = Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>> + Send>>;

/// Events from now on.
pub(super) fn events(docker: Docker) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
    // Subscribed to when it is first polled, but from this moment on: the engine remembers what happened a moment ago.
    let messages = subscribe(&docker, now());
    Box::pin(stream::unfold((docker, messages), |(docker, mut messages)| async move {
        loop {
            match messages.next().await {
                Some(Ok(message)) => {
                    if let Some(event) = understood(message) {
                        return Some((event, (docker, messages)));
                    }
                }
                broken => {
                    let why = broken.map(|result| result.err().map(|error| error.to_string()));
                    warn!(why = ?why.flatten(), "stream of engine events broke");
                    messages = reconnected(&docker).await;
                    info!("stream of engine events is back");
                    let gap = Event { id: ContainerId(String::new()), kind: EventKind::Gap };
                    return Some((gap, (docker, messages)));
                }
            }
        }
    }))
}

/// Waits for the engine. What happens between its first answer and the subscription is in the new stream: a listing made in between
/// misses nothing.
async fn reconnected(docker: &Docker) -> Messages {
    let mut wait = BACK_OFF.0;
    loop {
        tokio::time::sleep(wait).await;
        let since = now();
        if crate::engine::Engine::version(docker).await.is_ok() {
            return subscribe(docker, since);
        }
        wait = (wait * 2).min(BACK_OFF.1);
    }
}

fn subscribe(docker: &Docker, since: Duration) -> Messages {
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let filters = HashMap::from([
        ("type".to_owned(), names(&["container"])),
        ("event".to_owned(), names(&["start", "die", "pause", "unpause", "destroy"])),
        ("label".to_owned(), vec![format!("{INSTANCE_LABEL}={}", docker.instance)]),
    ]);
    let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
    Box::pin(docker.api.events(Some(EventsOptionsBuilder::new().filters(&filters).since(&since).build())))
}

fn understood(message: EventMessage) -> Option<Event> {
    let kind = match message.action?.as_str() {
        "start" => EventKind::Started,
        "die" => EventKind::Died,
        "pause" => EventKind::Paused,
        "unpause" => EventKind::Unpaused,
        "destroy" => EventKind::Removed,
        _ => return None,
    };
    Some(Event { id: ContainerId(message.actor?.id?), kind })
}

/// The engine's clock is the host's own.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
