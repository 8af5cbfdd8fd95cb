//! Who is in.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use super::page::{Page, page};
use super::problem::Problem;
use super::take::{Named, Numbered, Query};
use super::wire::{Moment, is_within, time};
use crate::name::WorkspaceName;
use crate::workspace::{AskError, SessionView};

/// Which sessions are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those in this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// Only those of this account.
    account: Option<String>,
    /// Only those that began then or later, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    since: Option<Moment>,
    /// Only those that began before, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    until: Option<Moment>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// Which sessions in a workspace are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Whose {
    /// Only those of this account.
    account: Option<String>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// A session.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// Its number, counted since the gateway's start.
    id: u64,
    /// As it was typed at login: a stranger's text.
    account: String,
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    since: String,
    seconds: u64,
    /// Its recording, while it is recorded.
    recording: Option<String>,
    /// Whether it can be watched.
    watchable: bool,
}

/// All sessions.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(Which), responses((status = 200, body = Page<Session>)), security(("token" = ["read"])))]
pub(super) async fn list_sessions(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Page<Session>>, Problem> {
    let Which { workspace, account, since, until, limit, cursor } = which;
    let mut all = api.operations.sessions();
    all.retain(|one| {
        workspace.as_ref().is_none_or(|workspace| one.workspace == *workspace)
            && account.as_ref().is_none_or(|account| one.account.as_str() == account)
            && is_within(one.since, since, until)
    });
    let all = all.into_iter().map(Session::from).collect();
    // In the order of their numbers, whose text is in another.
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Session| format!("{:020}", one.id))?))
}

/// Ends a session: its process is hung up, and its client told why.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions", params(("id" = u64, Path)), responses((status = 204)), security(("token" = ["admin"])))]
pub(super) async fn end_session(State(api): Asked, Numbered(id): Numbered) -> Result<StatusCode, Problem> {
    api.operations.end_session(id)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The sessions in a workspace.
#[utoipa::path(get, path = "/workspaces/{name}/sessions", tag = "sessions", params(("name" = String, Path), Whose),
    responses((status = 200, body = Page<Session>)), security(("token" = ["read"]), ("token" = ["workspace"])))]
pub(super) async fn list_its_sessions(
    State(api): Asked,
    Named(name): Named,
    Query(Whose { account, limit, cursor }): Query<Whose>,
) -> Result<Json<Page<Session>>, Problem> {
    let is_wanted = |one: &SessionView| one.workspace == name && account.as_ref().is_none_or(|account| one.account.as_str() == account);
    let its = api.operations.sessions().into_iter().filter(is_wanted).map(Session::from).collect();
    Ok(Json(page(its, limit, cursor.as_deref(), |one: &Session| format!("{:020}", one.id))?))
}

/// Ends a session in a workspace: its process is hung up, and its client told why.
#[utoipa::path(delete, path = "/workspaces/{name}/sessions/{id}", tag = "sessions", params(("name" = String, Path), ("id" = u64, Path)),
    responses((status = 204)), security(("token" = ["workspace"])))]
pub(super) async fn end_its_session(State(api): Asked, Named(name): Named, Numbered(id): Numbered) -> Result<StatusCode, Problem> {
    // Another's is not there, as far as anybody is told. A number is given once, so that it cannot become another's meanwhile.
    if !api.operations.sessions().iter().any(|one| one.id == id && one.workspace == name) {
        return Err(AskError::NoSession(id).into());
    }
    api.operations.end_session(id)?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<SessionView> for Session {
    fn from(seen: SessionView) -> Self {
        let SessionView { id, account, workspace, since, lasted, recording, watchable } = seen;
        Self {
            id,
            account: account.as_str().to_owned(),
            workspace,
            since: time(since),
            seconds: lasted.as_secs(),
            recording: recording.map(|id| id.to_string()),
            watchable,
        }
    }
}
