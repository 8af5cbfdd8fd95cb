//! What is done with a whole workspace and may take long, and those that were deleted.
//!
//! A task is an object of one key, like a change. Who hangs up ends nothing. With an `Idempotency-Key` it is begun once, and answered when it is
//! done: how it goes can be told only to who began it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::io::{ReaderStream, StreamReader};
use utoipa::{IntoParams, ToSchema};

use super::events::{Watches, told};
use super::once::{Key, Made};
use super::page::{Page, page};
use super::problem::Problem;
use super::take::{Body, IfMatch, Named, Query};
use super::wire::{Moment, is_within, time};
use super::{Api, Asked};
use crate::backup;
use crate::name::{SnapshotName, WorkspaceName};
use crate::store::Stage;
use crate::workspace::{AskError, BackedUp, DeletedView, Done, Exported, Running, Step, Task};

/// How often it is told how far it is, so that who waits knows that somebody is there.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A task as it is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schema(as = Task)]
pub(super) enum Asking {
    /// It goes away; `now`: for good; `backups`: and what was backed up of it.
    Delete {
        now: bool,
        #[serde(default)]
        #[schema(required = false)]
        backups: bool,
    },
    /// It is had back.
    Undelete {},
    /// Another is made that has in it what this one has.
    Copy {
        #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
        to: WorkspaceName,
    },
    /// What it has is kept under a name, for new homes to start with: `skeleton = "workspace:NAME@SNAPSHOT"`.
    Snapshot {
        #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
        snapshot: SnapshotName,
    },
    /// What was kept under a name is removed for good.
    RemoveSnapshot {
        #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
        snapshot: SnapshotName,
    },
    /// It gets a container of its template's image as it is now.
    Upgrade {},
    /// A backup of it is made.
    BackUp {},
    /// It is made of a backup: of the newest, or of that whose name begins so.
    Restore {
        #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
        from: WorkspaceName,
        backup: Option<String>,
    },
    /// A backup of its own takes the place of what it has, which is kept until that is confirmed or reverted.
    RestoreInPlace { backup: Option<String> },
    /// What was kept is removed for good.
    ConfirmRestore {},
    /// What was kept is brought back.
    RevertRestore {},
}

/// How a workspace is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// For good, at once.
    #[serde(default)]
    #[param(required = false)]
    now: bool,
    /// And what was backed up of it.
    #[serde(default)]
    #[param(required = false)]
    backups: bool,
}

/// Which deleted workspaces are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Gone {
    /// Only those whose name begins so.
    prefix: Option<String>,
    /// Only those that are so: `deleting`, `deleted`, `removing` or `coming-back`.
    state: Option<String>,
    /// Only those that were deleted then or later, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    since: Option<Moment>,
    /// Only those that were deleted before, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    until: Option<Moment>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// What was done.
#[derive(Serialize, ToSchema)]
#[schema(as = Done)]
pub(super) struct WasDone {
    /// The homes that it was done to: the workspace's own by its name, volumes by `name.volume`.
    homes: Vec<String>,
    bytes: Option<u64>,
    /// Until when it can be had back.
    until: Option<String>,
    /// Whether what was copied is all as it was at one moment.
    consistent: Option<bool>,
    /// What was left out.
    skipped: u64,
    /// Whether there was nothing to do.
    unchanged: bool,
    /// Backups that were made.
    backups: Vec<MadeBackup>,
    /// What was found in the repository, where that was read through.
    report: Option<Found>,
    /// What of several could not be done, each with its reason.
    failed: Vec<String>,
}

/// A backup that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct MadeBackup {
    id: String,
    workspace: String,
    files: u64,
    bytes: u64,
    new_bytes: u64,
    consistent: bool,
    left_out: u64,
    /// Some of what was left out, and why.
    examples: Vec<String>,
}

/// What was found in the repository.
#[derive(Serialize, ToSchema)]
#[schema(as = BackupReport)]
pub(super) struct Found {
    files: u64,
    bytes: u64,
    backups: u64,
    wrong: u64,
    examples: Vec<String>,
    damaged: Vec<Damaged>,
}

/// A backup that cannot be read back whole.
#[derive(Serialize, ToSchema)]
pub(super) struct Damaged {
    id: String,
    workspace: String,
}

/// A workspace that was deleted.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    #[schema(value_type = String)]
    name: WorkspaceName,
    state: &'static str,
    deleted: String,
    until: String,
    bytes: Option<u64>,
    homes: Vec<String>,
}

/// Begins a task, and tells how it goes.
#[utoipa::path(post, path = "/workspaces/{name}/tasks", tag = "workspaces", params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header), ("If-Match" = Option<String>, Header)),
    request_body = Asking, responses((status = 200, body = WasDone, description = "done; to who accepts text/event-stream, how it goes")), security(("token" = ["admin"])))]
pub(super) async fn begin_task(
    State(api): Asked,
    Named(name): Named,
    watches: Watches,
    key: Key,
    unchanged: IfMatch,
    Body(asking, bytes): Body<Asking>,
) -> Result<Response, Problem> {
    let revision = unchanged.revision()?;
    if !key.is_for_an_answer(&watches)? {
        return begun(&api, watches, &name, asking.into(), revision).await;
    }
    let makes = match &asking {
        Asking::Copy { to } => Some(to.clone()),
        Asking::Restore { .. } => Some(name.clone()),
        _ => None,
    };
    let (task, asked) = (asking.into(), api.clone());
    once(key, api, bytes, makes, (StatusCode::OK, said), async move || waited(asked.workspaces.begin_if(&name, task, revision)).await).await
}

/// Deletes a workspace: people in it are told, its container and its secrets go, its home can be had back for a while.
#[utoipa::path(delete, path = "/workspaces/{name}", tag = "workspaces", params(("name" = String, Path), How, ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = WasDone, description = "done; to who accepts text/event-stream, how it goes")), security(("token" = ["admin"])))]
pub(super) async fn delete_workspace(
    State(api): Asked,
    Named(name): Named,
    Query(How { now, backups }): Query<How>,
    watches: Watches,
    unchanged: IfMatch,
) -> Result<Response, Problem> {
    begun(&api, watches, &name, Task::Delete { now, backups }, unchanged.revision()?).await
}

/// Has a deleted workspace back, but for its secrets.
#[utoipa::path(post, path = "/workspaces/{name}/undelete", tag = "workspaces", params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = WasDone, description = "done; to who accepts text/event-stream, how it goes")), security(("token" = ["admin"])))]
pub(super) async fn undelete_workspace(
    State(api): Asked,
    Named(name): Named,
    watches: Watches,
    unchanged: IfMatch,
) -> Result<Response, Problem> {
    begun(&api, watches, &name, Task::Undelete, unchanged.revision()?).await
}

/// A workspace in one stream, which breaks off where that was not all of it.
#[utoipa::path(get, path = "/workspaces/{name}/archive", tag = "workspaces", params(("name" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)), security(("token" = ["workspace"])))]
pub(super) async fn export_workspace(State(api): Asked, Named(name): Named) -> Result<impl IntoResponse, Problem> {
    let Exported { bytes, whole } = api.workspaces.export(&name).await?;
    let broken = stream::once(async move {
        let whole = whole.await.unwrap_or_else(|_| Err(AskError::Store("the gateway ended early".to_owned())));
        whole.map(|()| bytes::Bytes::new()).map_err(io::Error::other)
    });
    Ok(([(CONTENT_TYPE, "application/octet-stream")], Bytes::from_stream(ReaderStream::new(bytes).chain(broken))))
}

/// Makes a workspace of such a stream, however long it takes to arrive. Of a request with a key the stream is not compared with that of the first.
#[utoipa::path(post, path = "/workspaces/{name}/archive", tag = "workspaces", params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 200, body = WasDone)), security(("token" = ["admin"])))]
pub(super) async fn import_workspace(State(api): Asked, Named(name): Named, key: Key, body: Bytes) -> Result<Response, Problem> {
    let bytes = StreamReader::new(Box::pin(body.into_data_stream().map_err(io::Error::other)));
    let asked = api.clone();
    once(key, api, Vec::new(), Some(name.clone()), (StatusCode::OK, said), async move || {
        asked.workspaces.import(&name, Box::new(bytes)).await
    })
    .await
}

/// All workspaces that were deleted and are not gone yet.
#[utoipa::path(get, path = "/deleted", tag = "workspaces", params(Gone), responses((status = 200, body = Page<Deleted>)), security(("token" = ["read"])))]
pub(super) async fn list_deleted(State(api): Asked, Query(gone): Query<Gone>) -> Result<Json<Page<Deleted>>, Problem> {
    let Gone { prefix, state, since, until, limit, cursor } = gone;
    let of_then = api.workspaces.deleted().await?.into_iter().filter(|one| is_within(one.since, since, until));
    let wanted = |one: &Deleted| {
        prefix.as_ref().is_none_or(|prefix| one.name.as_str().starts_with(prefix)) && state.as_ref().is_none_or(|state| one.state == state)
    };
    let all = of_then.map(Deleted::from).filter(wanted).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Deleted| one.name.to_string())?))
}

/// What comes of a task, or how it goes.
async fn begun(api: &Api, watches: Watches, name: &WorkspaceName, task: Task, revision: Option<i64>) -> Result<Response, Problem> {
    let Running { step, done } = api.workspaces.begin_if(name, task, revision);
    told(api, watches, done, steps(step), |done| (StatusCode::OK, said(done))).await
}

/// What comes of something, when it is done.
pub(super) async fn waited(running: Running) -> Result<Done, AskError> {
    running.done.await.unwrap_or_else(|_| Err(AskError::Store("the gateway ended early".to_owned())))
}

/// Answers with what comes of something that may make a workspace, once where the request has a key.
pub(super) async fn once<W>(
    key: Key,
    api: Arc<Api>,
    bytes: Vec<u8>,
    makes: Option<WorkspaceName>,
    (status, said): (StatusCode, fn(Done) -> Value),
    work: impl FnOnce() -> W + Send + 'static,
) -> Result<Response, Problem>
where
    W: Future<Output = Result<Done, AskError>> + Send + 'static,
{
    // Without a key the work itself looks, and knows more: what a killed gateway has left of that name is in nobody's way.
    let (asked, name) = (api.clone(), makes.clone().filter(|_| key.is_some()));
    let free = async move {
        let Some(name) = name else { return Ok(()) };
        match asked.workspaces.details(&name).await {
            Ok(_) => Err(AskError::Exists(name).into()),
            Err(AskError::NoWorkspace(_)) => Ok(()),
            Err(why) => Err(why.into()),
        }
    };
    let make = move |again| async move {
        let done = match work().await {
            // An earlier process has come to its end, and was killed before it had answered.
            Err(AskError::Exists(_)) if again => Done { unchanged: true, ..Done::default() },
            done => done?,
        };
        let made = Made::plain(status, said(done));
        Ok(match makes {
            Some(name) => made.of(name),
            None => made,
        })
    };
    key.once(api, bytes, free, make).await
}

/// How far it is, every second.
pub(super) fn steps(step: watch::Receiver<Step>) -> impl Stream<Item = Value> + Send {
    stream::unfold(step, |step| async move {
        tokio::time::sleep(TELL_EVERY).await;
        let Step { what, entries, bytes } = *step.borrow();
        Some((json!({ "what": what, "entries": entries, "bytes": bytes }), step))
    })
}

pub(super) fn said(done: Done) -> Value {
    serde_json::to_value(WasDone::from(done)).unwrap_or_default()
}

impl From<Done> for WasDone {
    fn from(Done { homes, bytes, until, consistent, skipped, unchanged, backups, report, failed }: Done) -> Self {
        let backup = |BackedUp { workspace, done, consistent }: BackedUp| {
            let backup::Done { id, files, bytes, new_bytes, left_out, examples } = done;
            MadeBackup { id, workspace: workspace.to_string(), files, bytes, new_bytes, consistent, left_out, examples }
        };
        let report = report.map(|backup::Report { files, bytes, backups, wrong, examples, damage }| {
            let damaged = damage.into_iter().map(|backup::Damage { id, home }| Damaged { id, workspace: home }).collect();
            Found { files, bytes, backups, wrong, examples, damaged }
        });
        let backups = backups.into_iter().map(backup).collect();
        Self { homes, bytes, until: until.map(time), consistent, skipped, unchanged, backups, report, failed }
    }
}

impl From<DeletedView> for Deleted {
    fn from(DeletedView { name, stage, since, until, bytes, homes }: DeletedView) -> Self {
        let state = match stage {
            Stage::Deleting => "deleting",
            Stage::Purging => "removing",
            Stage::Restoring => "coming-back",
            Stage::Deleted | Stage::Reserved | Stage::Filling | Stage::Replacing | Stage::Confirming => "deleted",
        };
        Self { name, state, deleted: time(since), until: time(until), bytes, homes }
    }
}

impl From<Asking> for Task {
    fn from(asking: Asking) -> Self {
        match asking {
            Asking::Delete { now, backups } => Self::Delete { now, backups },
            Asking::Undelete {} => Self::Undelete,
            Asking::Copy { to } => Self::Copy { to },
            Asking::Snapshot { snapshot } => Self::Snapshot(snapshot),
            Asking::RemoveSnapshot { snapshot } => Self::RemoveSnapshot(snapshot),
            Asking::Upgrade {} => Self::Upgrade,
            Asking::BackUp {} => Self::BackUp,
            Asking::Restore { from, backup } => Self::Restore { from, backup },
            Asking::RestoreInPlace { backup } => Self::RestoreInPlace { backup },
            Asking::ConfirmRestore {} => Self::ConfirmRestore,
            Asking::RevertRestore {} => Self::RevertRestore,
        }
    }
}
