//! Server-sent events: how something that was asked for goes, and the feed of all that happens.
//!
//! Something that takes long is answered when it is done, or, to who accepts `text/event-stream`, as events: `progress` each time there is
//! something to say, and at last `done` with the answer or `error` with a problem.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem};
use super::take::Query;
use super::wire::time;
use super::{Api, Asked};
use crate::name::WorkspaceName;
use crate::workspace::{Event, News};

/// Whether the client wants to see how it goes.
pub(super) struct Watches(pub(super) bool);

/// Of what the feed is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Only what happens to this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// After how many seconds the stream ends; without it, it goes on.
    #[param(minimum = 1, maximum = 86400)]
    seconds: Option<u64>,
}

/// For how long a stream can be asked for, in seconds.
const LONGEST: u64 = 24 * 60 * 60;
/// An event of a stream, which is described as that: each of a `text/event-stream` is one.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamEvent)]
pub(super) struct Told {
    /// Its kind.
    event: String,
    /// What it says: an object, as JSON.
    data: String,
    /// Its number, where it has one.
    id: Option<String>,
}

/// How often something is sent though nothing happens, so that both sides know that the other is there.
const ALIVE: Duration = Duration::from_secs(15);
/// Events that wait for who reads slowly, beside those that wait for everybody.
pub(super) const AHEAD: usize = 16;

impl<S: Send + Sync> FromRequestParts<S> for Watches {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let accepts = parts.headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
        Ok(Self(accepts.split(',').any(|kind| kind.split(';').next().unwrap_or_default().trim() == "text/event-stream")))
    }
}

/// Answers with what comes of something, or with how it goes. Who hangs up ends nothing.
pub(super) async fn told<T, W>(
    api: &Api,
    Watches(watches): Watches,
    mut done: oneshot::Receiver<Result<T, W>>,
    progress: impl Stream<Item = Value> + Send + 'static,
    said: impl FnOnce(T) -> (StatusCode, Value) + Send + 'static,
) -> Result<Response, Problem>
where
    T: Send + 'static,
    W: Into<Problem> + Send + 'static,
{
    let early = || Problem::new(Code::Store, "the gateway ended early; the next start finishes or undoes it");
    if !watches {
        let done = done.await.map_err(|_| early())?.map_err(Into::into)?;
        let (status, body) = said(done);
        return Ok((status, Json(body)).into_response());
    }
    let permit = place(api)?;
    let (tell, events) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _permit = permit;
        let mut progress = Box::pin(progress);
        let mut more = true;
        let last = loop {
            tokio::select! {
                biased;
                done = &mut done => break match done {
                    Ok(Ok(done)) => event("done", &said(done).1),
                    Ok(Err(why)) => failed(&why.into()),
                    Err(_) => failed(&early()),
                },
                () = tell.closed() => return,
                step = progress.next(), if more => match step {
                    // It waits for who reads slowly; what is done does not.
                    Some(step) => drop(tell.send(event("progress", &step)).await),
                    None => more = false,
                },
            }
        };
        tell.send(last).await.ok();
    });
    Ok(streamed(events))
}

/// Everything that happens from now on. Who reads too slowly is told how much she missed, and then no more: what is now, the lists say.
#[utoipa::path(get, path = "/events", tag = "events", params(Of),
    responses((status = 200, content_type = "text/event-stream", body = Told)), security(("token" = ["read"])))]
pub(super) async fn watch_events(State(api): Asked, Query(Of { workspace, seconds }): Query<Of>) -> Result<Response, Problem> {
    if seconds.is_some_and(|seconds| !(1..=LONGEST).contains(&seconds)) {
        return Err(Problem::malformed(format!("seconds must be from 1 to {LONGEST}")));
    }
    let permit = place(&api)?;
    let mut news = api.operations.events();
    let (tell, events) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _permit = permit;
        let over = async {
            match seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        // So that who listens knows since when.
        let mut next = event("listening", &json!({}));
        loop {
            tokio::select! {
                sent = tell.send(next) => if sent.is_err() { return },
                () = &mut over => return,
            }
            next = loop {
                let heard = tokio::select! {
                    heard = news.recv() => heard,
                    () = tell.closed() => return,
                    () = &mut over => return,
                };
                match heard {
                    Ok(news) if workspace.as_ref().is_none_or(|wanted| *of(&news) == *wanted) => break described(&news),
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tell.send(event("missed", &json!({ "events": missed }))).await.ok();
                        return;
                    }
                }
            };
        }
    });
    Ok(streamed(events))
}

pub(super) fn place(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    let full = |_| Problem::new(Code::TooManyStreams, "as many streams are open as may be; close one, or ask again without");
    Arc::clone(&api.streams).try_acquire_owned().map_err(full)
}

pub(super) fn streamed(events: mpsc::Receiver<Sent>) -> Response {
    let events = stream::unfold(events, |mut events| async move { Some((Ok::<_, Infallible>(events.recv().await?), events)) });
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}

pub(super) fn event(name: &str, data: &Value) -> Sent {
    Sent::default().event(name).data(data.to_string())
}

fn failed(problem: &Problem) -> Sent {
    event("error", &serde_json::to_value(problem.wire()).unwrap_or_default())
}

fn of(event: &Event) -> &WorkspaceName {
    match &event.news {
        News::State { workspace, .. }
        | News::Changed { workspace, .. }
        | News::Made { workspace }
        | News::SessionBegan { workspace, .. }
        | News::SessionEnded { workspace, .. } => workspace,
    }
}

fn described(news: &Event) -> Sent {
    let at = time(news.at);
    let (name, data) = match &news.news {
        News::State { workspace, state } => ("workspace", json!({ "at": at, "workspace": workspace, "state": state })),
        News::Changed { workspace, what } => ("changed", json!({ "at": at, "workspace": workspace, "what": what })),
        News::Made { workspace } => ("made", json!({ "at": at, "workspace": workspace })),
        News::SessionBegan { session, account, workspace } => {
            ("session-began", json!({ "at": at, "session": session, "account": account.as_str(), "workspace": workspace }))
        }
        News::SessionEnded { session, account, workspace } => {
            ("session-ended", json!({ "at": at, "session": session, "account": account.as_str(), "workspace": workspace }))
        }
    };
    event(name, &data).id(news.number.to_string())
}
