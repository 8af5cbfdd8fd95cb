//! Making workspaces, starting and stopping them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use super::events::{Watches, told};
use super::once::{Key, Made};
use super::problem::Problem;
use super::take::{Body, Named, Query};
use super::tasks::{WasDone, once, waited};
use super::wire::Limits;
use crate::name::{TemplateName, VariableName, WorkspaceName};
use crate::units::Span;
use crate::workspace::{Done, NewWorkspace, Progress, StartPath, Starting, Task};

/// A workspace that is to be made: from a template, or as a copy of another.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWorkspace)]
pub(super) struct New {
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
    name: WorkspaceName,
    /// Its template; `default` unless said otherwise.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,31}$", example = "default")]
    template: Option<TemplateName>,
    /// The workspace to have a copy of; nothing else is said then.
    #[schema(value_type = Option<String>, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
    copy_of: Option<WorkspaceName>,
    /// Limits of its own.
    limits: Option<Limits>,
    /// Its variables.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>, required = false)]
    env: BTreeMap<VariableName, String>,
}

/// A workspace that was made, which has no home yet.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkspaceMade)]
pub(super) struct Plain {
    #[schema(value_type = String)]
    name: WorkspaceName,
    #[schema(value_type = String)]
    template: TemplateName,
    /// `absent`: it has no container.
    state: &'static str,
}

/// A workspace that was made: anew, or as a copy.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = WorkspaceMadeOrCopied)]
pub(super) enum Created {
    New(Plain),
    Copy(WasDone),
}

/// What came of a start.
#[derive(Serialize, ToSchema)]
pub(super) struct Started {
    /// `running`.
    state: &'static str,
    /// The way it took: `attach`, it ran; `claim`, it got a container of the pool; `start`, its container was started; `create` or `upgrade`, it
    /// got another.
    how: &'static str,
}

/// What came of a stop.
#[derive(Serialize, ToSchema)]
pub(super) struct Stopped {
    /// `stopped`.
    state: &'static str,
}

/// Makes a workspace. Its home is made at its first start.
#[utoipa::path(post, path = "/workspaces", tag = "workspaces", params(("Idempotency-Key" = Option<String>, Header)), request_body = New,
    responses((status = 201, body = Created)), security(("token" = ["provision"])))]
pub(super) async fn create_workspace(State(api): Asked, key: Key, Body(new, bytes): Body<New>) -> Result<Response, Problem> {
    let New { name, template, copy_of, limits, env } = new;
    let asked = Arc::clone(&api);
    if let Some(from) = copy_of {
        if template.is_some() || limits.is_some() || !env.is_empty() {
            return Err(Problem::refused("a copy has what the other has: say copy_of and nothing else"));
        }
        let task = Task::Copy { to: name.clone() };
        let work = async move || waited(asked.workspaces.begin(&from, task)).await;
        let said = |done: Done| serde_json::to_value(Created::Copy(done.into())).unwrap_or_default();
        return once(key, api, bytes, Some(name), (StatusCode::CREATED, said), work).await;
    }
    let new = NewWorkspace { template: template.unwrap_or_default(), limits: limits.unwrap_or_default().into(), env };
    let (free, wanted) = ((asked.clone(), name.clone(), new.clone()), new);
    let free = async move { Ok(free.0.operations.can_make(&free.1, &free.2).await?) };
    key.once(api, bytes, free, move |again| async move {
        let template = wanted.template.clone();
        asked.operations.make_workspace(&name, wanted, again).await?;
        let made = Created::New(Plain { name, template, state: "absent" });
        Ok(Made::plain(StatusCode::CREATED, serde_json::to_value(made).unwrap_or_default()))
    })
    .await
}

/// Makes a workspace ready, as a login would.
#[utoipa::path(post, path = "/workspaces/{name}/start", tag = "workspaces", params(("name" = String, Path)),
    responses((status = 200, body = Started, description = "it runs; to who accepts text/event-stream, how it goes")), security(("token" = ["workspace"]), ("token" = ["provision"])))]
pub(super) async fn start_workspace(State(api): Asked, Named(name): Named, watches: Watches) -> Result<Response, Problem> {
    let Starting { progress, done } = api.operations.start(&name).await?;
    told(&api, watches, done, steps(progress), started).await
}

/// When a workspace is stopped.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct When {
    /// How long before, at most an hour, people at its terminals are told: `5m`, or `0s` for at once. Otherwise as `idle.notice` says.
    #[serde(rename = "in")]
    #[param(value_type = Option<String>)]
    within: Option<Span>,
}

/// The longest that people may be told before a stop: somebody waits for the answer.
const LONGEST_NOTICE: Duration = Duration::from_secs(3600);

impl When {
    fn notice(&self) -> Result<Option<Duration>, Problem> {
        match self.within.map(Span::get) {
            Some(within) if within > LONGEST_NOTICE => Err(Problem::refused("at most 1h: somebody waits for the answer")),
            within => Ok(within),
        }
    }
}

/// Stops a workspace, whoever is in it. Its home stays, and the next login starts it again. People at its terminals are told some time before,
/// and who hangs up before that is over takes it back.
#[utoipa::path(post, path = "/workspaces/{name}/stop", tag = "workspaces", params(("name" = String, Path), When),
    responses((status = 200, body = Stopped, description = "it stands still; to who accepts text/event-stream, how it goes")), security(("token" = ["workspace"])))]
pub(super) async fn stop_workspace(
    State(api): Asked,
    Named(name): Named,
    Query(when): Query<When>,
    watches: Watches,
) -> Result<Response, Problem> {
    let notice = when.notice()?;
    let (mut answer, done) = oneshot::channel();
    let operations = api.operations.clone();
    tokio::spawn(async move {
        let stopped = tokio::select! {
            stopped = operations.stop(&name, notice) => stopped,
            () = answer.closed() => return,
        };
        let _ = answer.send(stopped);
    });
    let steps = stream::iter([json!({ "step": "stopping", "detail": "whoever is in it is told" })]);
    told(&api, watches, done, steps, stopped).await
}

/// Stops a workspace, as a stop does, and starts it again.
#[utoipa::path(post, path = "/workspaces/{name}/restart", tag = "workspaces", params(("name" = String, Path), When),
    responses((status = 200, body = Started, description = "it runs; to who accepts text/event-stream, how it goes")), security(("token" = ["workspace"])))]
pub(super) async fn restart_workspace(
    State(api): Asked,
    Named(name): Named,
    Query(when): Query<When>,
    watches: Watches,
) -> Result<Response, Problem> {
    let Starting { progress, done } = api.operations.restart(&name, when.notice()?).await?;
    told(&api, watches, done, steps(progress), started).await
}

fn stopped((): ()) -> (StatusCode, Value) {
    (StatusCode::OK, serde_json::to_value(Stopped { state: "stopped" }).unwrap_or_default())
}

fn started(path: StartPath) -> (StatusCode, Value) {
    (StatusCode::OK, serde_json::to_value(Started { state: "running", how: path.label() }).unwrap_or_default())
}

/// How far a start is, each time it is somewhere else.
fn steps(progress: watch::Receiver<Progress>) -> impl Stream<Item = Value> + Send {
    stream::unfold(progress, |mut progress| async move {
        progress.changed().await.ok()?;
        let step = match &*progress.borrow_and_update() {
            Progress::Asked => json!({ "step": "asked" }),
            Progress::Queued { position } => json!({ "step": "queued", "position": position }),
            Progress::Pulling(line) => json!({ "step": "pulling", "detail": line }),
            Progress::Creating => json!({ "step": "creating" }),
            Progress::Starting => json!({ "step": "starting" }),
            Progress::Upgrading => json!({ "step": "upgrading" }),
        };
        Some((step, progress))
    })
}
