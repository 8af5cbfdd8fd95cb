//! Recordings of terminals, and watching one that is in use. What was on a screen is an administrator's alone to see, and that she has seen
//! it is in the audit trail.
//!
//! Screens are told as text and looks, never as what a program wrote: nobody who looks on interprets a stranger's bytes.

use std::io;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::sse::Event as Sent;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::events::{AHEAD, Told, event, place, streamed};
use super::page::{Page, page};
use super::problem::{Code, Problem};
use super::take::{Numbered, Query, Recording as Id};
use super::wire::{Moment, is_within, time};
use super::{Api, Asked};
use crate::audit::{Event, What};
use crate::name::WorkspaceName;
use crate::recording::{Broken, Frame, Pace, Reader, Recorded, RecordingId, RecordingsError, play};

/// Which recordings are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those of this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// Only those of this account.
    account: Option<String>,
    /// Only those of this template.
    template: Option<String>,
    /// Only those that are so: `recording`, `complete` or `cut`.
    state: Option<String>,
    /// Only those that began then or later, as `2026-11-30T04:30:00Z`.
    #[param(value_type = Option<String>)]
    since: Option<Moment>,
    /// Only those that began before, as `2026-11-30T04:30:00Z`.
    #[param(value_type = Option<String>)]
    until: Option<Moment>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// How a recording is played.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// How much faster than it was; 1 unless said otherwise.
    #[param(minimum = 0.1, maximum = 100)]
    speed: Option<f64>,
    /// From which second on; all before is one screen.
    #[param(minimum = 0, maximum = 10_000_000)]
    from: Option<f64>,
    /// How many seconds a pause is at most.
    #[param(minimum = 0, maximum = 10_000_000)]
    idle: Option<f64>,
}

/// A recording of a terminal.
#[derive(Serialize, ToSchema)]
pub(super) struct Recording {
    id: String,
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    /// As it was typed at login: a stranger's text.
    account: String,
    template: String,
    /// The session's number, counted since its gateway's start.
    session: u64,
    columns: u16,
    rows: u16,
    started: String,
    /// `null` while it goes on.
    ended: Option<String>,
    seconds: Option<u64>,
    /// How long it is, compressed.
    bytes: u64,
    /// `disk`, or `bucket`: there are all that have ended where `recording.target` is set.
    place: &'static str,
    encrypted: bool,
    /// `recording`, `complete`, or `cut`: it ends where the gateway was killed or the disk took no more.
    state: &'static str,
}

/// The longest pause that can be asked for, in seconds.
const LONGEST: f64 = 1e7;
/// Bytes of a recording that are sent at once.
const PIECE: usize = 64 * 1024;
/// How long a pause is waited for without looking whether anybody is there still.
const LOOK: Duration = Duration::from_secs(1);

/// All recordings, the newest first.
#[utoipa::path(get, path = "/recordings", tag = "recordings", params(Which), responses((status = 200, body = Page<Recording>)), security(("token" = ["read"])))]
pub(super) async fn list_recordings(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Page<Recording>>, Problem> {
    let Which { workspace, account, template, state, since, until, limit, cursor } = which;
    let wanted = |id: &RecordingId, of: &WorkspaceName, by: &str| {
        workspace.as_ref().is_none_or(|workspace| workspace == of)
            && account.as_ref().is_none_or(|account| account == by)
            && is_within(id.began(), since, until)
    };
    let like = |one: &Recording| {
        template.as_ref().is_none_or(|template| one.template == *template) && state.as_ref().is_none_or(|state| one.state == state)
    };
    let all = api.recordings.list(wanted).await?.into_iter().map(Recording::from).filter(like).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Recording| newest_first(&one.id))?))
}

/// One recording.
#[utoipa::path(get, path = "/recordings/{id}", tag = "recordings", params(("id" = String, Path)), responses((status = 200, body = Recording)), security(("token" = ["read"])))]
pub(super) async fn show_recording(State(api): Asked, Id(id): Id) -> Result<Json<Recording>, Problem> {
    Ok(Json(api.recordings.get(id).await?.into()))
}

/// Removes a recording for good.
#[utoipa::path(delete, path = "/recordings/{id}", tag = "recordings", params(("id" = String, Path)), responses((status = 204)), security(("token" = ["admin"])))]
pub(super) async fn remove_recording(State(api): Asked, Id(id): Id) -> Result<StatusCode, Problem> {
    api.recordings.remove(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A recording as asciinema writes it, version 2, for its player: what a program wrote is in it as it was. One that is cut says so in its last
/// event; one that is damaged breaks off.
#[utoipa::path(get, path = "/recordings/{id}/download", tag = "recordings", params(("id" = String, Path)),
    responses((status = 200, content_type = "application/x-asciicast", body = Vec<u8>)), security(("token" = ["admin"])))]
pub(super) async fn download_recording(
    State(api): Asked,
    Id(id): Id,
    Extension(caller): Extension<Caller>,
) -> Result<impl IntoResponse, Problem> {
    let permit = place(&api)?;
    let reader = opened(&api, id, &caller, "downloaded").await?.1;
    let (pieces, taken) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        send(reader, &pieces);
    });
    let body = stream::unfold(taken, |mut taken| async move { Some((taken.recv().await?, taken)) });
    let name = format!("attachment; filename=\"{id}.cast\"");
    Ok(([(CONTENT_TYPE, "application/x-asciicast".to_owned()), (CONTENT_DISPOSITION, name)], Body::from_stream(body)))
}

/// A recording as screens, at the pace of its session: an event `recording`, then a `frame` whenever something has changed, at last `end`, with
/// `complete`, or `error`.
#[utoipa::path(get, path = "/recordings/{id}/frames", tag = "recordings", params(("id" = String, Path), How),
    responses((status = 200, content_type = "text/event-stream", body = Told)), security(("token" = ["admin"])))]
pub(super) async fn play_recording(
    State(api): Asked,
    Id(id): Id,
    Query(how): Query<How>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let pace = how.pace()?;
    let permit = place(&api)?;
    let (recorded, reader) = opened(&api, id, &caller, "played").await?;
    let (tell, events) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let size = (recorded.columns, recorded.rows);
        let about = serde_json::to_value(Recording::from(recorded)).unwrap_or_default();
        let mut told = tell.blocking_send(event("recording", &about)).is_ok();
        let mut show = |frame: Frame| {
            told = told && tell.blocking_send(framed(&frame)).is_ok();
            told
        };
        let mut wait = |mut pause: Duration| {
            while !pause.is_zero() && !tell.is_closed() {
                let now = pause.min(LOOK);
                std::thread::sleep(now);
                pause -= now;
            }
            !tell.is_closed()
        };
        let last = match play(reader, size, pace, &mut wait, &mut show) {
            Ok(complete) => event("end", &json!({ "complete": complete })),
            Err(Broken::Cut) => event("end", &json!({ "complete": false })),
            Err(why) => event("error", &serde_json::to_value(Problem::from(RecordingsError::from(why)).wire()).unwrap_or_default()),
        };
        let _ = tell.blocking_send(last);
    });
    Ok(streamed(events))
}

/// What the screen of a session looks like: a `frame` at once and whenever something has changed, at most eight a second, and `end` with the
/// session. Only where the template says `watch = true`; who is watched was told at login that she may be.
#[utoipa::path(get, path = "/sessions/{id}/watch", tag = "sessions", params(("id" = u64, Path)),
    responses((status = 200, content_type = "text/event-stream", body = Told)), security(("token" = ["admin"])))]
pub(super) async fn watch_session(
    State(api): Asked,
    Numbered(session): Numbered,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let permit = place(&api)?;
    let (workspace, recording, mut watch) = api.operations.watch(session)?;
    let record = move |step: &str| {
        let what = What::Watch { session, recording: recording.to_string(), step: step.to_owned() };
        api.audit.record(Event::now(caller.actor(), what).about(&workspace));
    };
    record("began");
    let (tell, events) = mpsc::channel(1);
    tokio::spawn(async move {
        let _permit = permit;
        loop {
            let frame = tokio::select! {
                frame = watch.next() => frame,
                () = tell.closed() => break,
            };
            let next = match &frame {
                Some(frame) => framed(frame),
                None => event("end", &json!({ "reason": "ended" })),
            };
            if tell.send(next).await.is_err() || frame.is_none() {
                break;
            }
        }
        record("ended");
    });
    Ok(streamed(events))
}

/// Opens a recording for somebody, which is recorded.
async fn opened(api: &Api, id: RecordingId, caller: &Caller, step: &str) -> Result<(Recorded, Reader), Problem> {
    let recorded = api.recordings.get(id).await?;
    let reader = api.recordings.read(id).await?;
    let what = What::Recording { recording: id.to_string(), step: step.to_owned(), reason: None };
    api.audit.record(Event::now(caller.actor(), what).about(&recorded.workspace));
    Ok((recorded, reader))
}

/// Sends a recording's lines, as long as they are taken.
fn send(mut reader: Reader, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    let (mut piece, mut seconds) = (String::new(), "0".to_owned());
    loop {
        let last = match reader.line() {
            Ok(Some(line)) => {
                if let Some((at, _)) = line.strip_prefix('[').and_then(|line| line.split_once(',')) {
                    at.clone_into(&mut seconds);
                }
                piece.push_str(&line);
                piece.push('\n');
                None
            }
            Ok(None) => Some(Ok(())),
            Err(Broken::Cut) => {
                piece.push_str(&format!("[{seconds}, \"m\", \"the recording is cut here\"]\n"));
                Some(Ok(()))
            }
            Err(why) => Some(Err(io::Error::other(why))),
        };
        if (piece.len() >= PIECE || last.is_some()) && pieces.blocking_send(Ok(std::mem::take(&mut piece).into())).is_err() {
            return;
        }
        match last {
            None => {}
            Some(Ok(())) => return,
            Some(Err(why)) => return drop(pieces.blocking_send(Err(why))),
        }
    }
}

fn framed(frame: &Frame) -> Sent {
    event("frame", &serde_json::to_value(frame).unwrap_or_default())
}

/// A key by which the newest is first: ids are in the order of time.
fn newest_first(id: &str) -> String {
    let turned = |digit: char| digit.to_digit(16).and_then(|digit| char::from_digit(15 - digit, 16)).unwrap_or(digit);
    id.chars().map(turned).collect()
}

impl How {
    fn pace(&self) -> Result<Pace, Problem> {
        let within = |name: &str, value: Option<f64>, usual: f64, from: f64, to: f64| match value {
            None => Ok(usual),
            Some(value) if (from..=to).contains(&value) => Ok(value),
            Some(_) => Err(Problem::malformed(format!("{name} must be from {from} to {to}"))),
        };
        Ok(Pace {
            speed: within("speed", self.speed, 1.0, 0.1, 100.0)?,
            from: within("from", self.from, 0.0, 0.0, LONGEST)?,
            idle: within("idle", self.idle, LONGEST, 0.0, LONGEST)?,
        })
    }
}

impl From<Recorded> for Recording {
    fn from(recorded: Recorded) -> Self {
        let Recorded { id, workspace, account, template, session, columns, rows, began, ended, bytes, away, encrypted, state } = recorded;
        let lasted = |ended: SystemTime| ended.duration_since(began).unwrap_or_default().as_secs();
        Self {
            id: id.to_string(),
            workspace,
            account,
            template: template.to_string(),
            session,
            columns,
            rows,
            started: time(began),
            ended: ended.map(time),
            seconds: ended.map(lasted),
            bytes,
            place: if away { "bucket" } else { "disk" },
            encrypted,
            state: state.label(),
        }
    }
}

impl From<RecordingsError> for Problem {
    fn from(why: RecordingsError) -> Self {
        let code = match &why {
            RecordingsError::None => Code::NotFound,
            RecordingsError::GoesOn | RecordingsError::Broken(_) | RecordingsError::Away | RecordingsError::DiskLow => Code::Refused,
            RecordingsError::Slow | RecordingsError::Busy | RecordingsError::Bucket(_) => Code::Unavailable,
            RecordingsError::Place { .. } | RecordingsError::Target(_) | RecordingsError::Fetch(_) | RecordingsError::Stays(_) => {
                Code::Store
            }
        };
        Self::new(code, why.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_first() {
        let mut ids = ["019ad0c1f2a4-5f3c9a10", "019ad0c1f2a5-00000000", "01ffffffffff-ffffffff"];
        ids.sort_by_key(|id| newest_first(id));
        assert_eq!(ids, ["01ffffffffff-ffffffff", "019ad0c1f2a5-00000000", "019ad0c1f2a4-5f3c9a10"]);
    }

    #[test]
    fn a_pace_that_cannot_be_is_refused() {
        let how = |speed| How { speed: Some(speed), from: None, idle: None };
        assert!(how(2.0).pace().is_ok());
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY, 1000.0] {
            assert!(how(speed).pace().is_err(), "{speed}");
        }
    }
}
