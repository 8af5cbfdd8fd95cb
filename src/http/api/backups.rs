//! Backups: those that there are, and what is done with all of them. One workspace's are made and restored by its tasks.

use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use super::events::{Watches, told};
use super::once::Key;
use super::page::{Page, page};
use super::problem::Problem;
use super::take::{Body, Query};
use super::tasks::{WasDone, once, said, steps, waited};
use super::wire::{Moment, is_within, time};
use crate::backup;
use crate::name::WorkspaceName;
use crate::workspace::{BackupsView, Chore, Running};

/// What is asked for of all backups.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schema(as = BackupTask)]
pub(super) enum Asking {
    /// Every workspace is backed up.
    BackUp {},
    /// The repository is read, and so much of its data: from 0 to 1.
    Verify {
        #[schema(minimum = 0, maximum = 1)]
        share: f64,
    },
}

/// Which backups are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those of this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// Only those of then or later, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    since: Option<Moment>,
    /// Only those of before, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    until: Option<Moment>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// A backup.
#[derive(Serialize, ToSchema)]
pub(super) struct Backup {
    id: String,
    workspace: String,
    /// The homes that are in it: the workspace's own by its name, volumes by `name.volume`.
    homes: Vec<String>,
    at: String,
    bytes: u64,
    files: u64,
    /// Whether all of it is as it was at one moment.
    consistent: bool,
}

/// A restore in place that is not decided on yet.
#[derive(Serialize, ToSchema)]
pub(super) struct Unconfirmed {
    workspace: String,
    since: String,
    homes: Vec<String>,
}

/// A page of backups.
#[derive(Serialize, ToSchema)]
#[schema(as = Backups)]
pub(super) struct Answer {
    /// The newest first.
    items: Vec<Backup>,
    /// The `cursor` of the next page; `null`: this is the last.
    next: Option<String>,
    /// What restores in place have left to be decided; the same on each page.
    unconfirmed: Vec<Unconfirmed>,
}

/// Backups, the newest first, and what restores have left to be decided.
#[utoipa::path(get, path = "/backups", tag = "backups", params(Which), responses((status = 200, body = Answer)), security(("token" = ["read"])))]
pub(super) async fn list_backups(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Answer>, Problem> {
    let Which { workspace, since, until, limit, cursor } = which;
    let BackupsView { mut backups, unconfirmed } = api.workspaces.backups(workspace.as_ref()).await?;
    backups.retain(|one| is_within(one.at, since, until));
    let Page { items, next } = page(backups, limit, cursor.as_deref(), newest_first)?;
    let backup = |one: backup::Backup| Backup {
        id: one.id,
        workspace: one.home,
        homes: one.roots,
        at: time(one.at),
        bytes: one.bytes,
        files: one.files,
        consistent: one.consistent,
    };
    let kept =
        |one: crate::workspace::Unconfirmed| Unconfirmed { workspace: one.workspace.to_string(), since: time(one.since), homes: one.homes };
    Ok(Json(Answer { items: items.into_iter().map(backup).collect(), next, unconfirmed: unconfirmed.into_iter().map(kept).collect() }))
}

/// A key by which the newest is first.
fn newest_first(one: &backup::Backup) -> String {
    let since = one.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{:040}.{}", u128::MAX - since, one.id)
}

/// Backs up every workspace, or reads the repository through.
#[utoipa::path(post, path = "/backups", tag = "backups", params(("Idempotency-Key" = Option<String>, Header)), request_body = Asking,
    responses((status = 200, body = WasDone, description = "done; to who accepts text/event-stream, how it goes")), security(("token" = ["admin"])))]
pub(super) async fn begin_backup_task(
    State(api): Asked,
    watches: Watches,
    key: Key,
    Body(asking, bytes): Body<Asking>,
) -> Result<Response, Problem> {
    let chore = match asking {
        Asking::BackUp {} => Chore::BackUp,
        Asking::Verify { share } if (0.0..=1.0).contains(&share) => Chore::Verify { share },
        Asking::Verify { .. } => return Err(Problem::refused("the share is from 0 to 1")),
    };
    if key.is_for_an_answer(&watches)? {
        let asked = api.clone();
        return once(key, api, bytes, None, (StatusCode::OK, said), async move || waited(asked.workspaces.begin_chore(chore)).await).await;
    }
    let Running { step, done } = api.workspaces.begin_chore(chore);
    told(&api, watches, done, steps(step), |done| (StatusCode::OK, said(done))).await
}
