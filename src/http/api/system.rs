//! The gateway itself: templates, the queue, leases, the engine, the configuration.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::page::{Page, Part, page};
use super::problem::{Code, Problem};
use super::take::Query;
use super::wire::Limits;
use super::{Asked, EngineView};
use crate::engine::Kind;
use crate::name::{TemplateName, WorkspaceName};
use crate::workspace::QueueView;

/// A template.
#[derive(Serialize, ToSchema)]
pub(super) struct Template {
    #[schema(value_type = String)]
    name: TemplateName,
    image: String,
    limits: Limits,
    /// Where the home appears.
    home: String,
    /// Whether its workspaces go on though nobody is in them.
    keep_running: bool,
    volumes: Vec<String>,
    services: Vec<String>,
}

/// Places, and who waits for one.
#[derive(Serialize, ToSchema)]
pub(super) struct Queue {
    /// Containers that may run at once.
    capacity: usize,
    taken: usize,
    /// How many wait, on this page or not.
    waiting: usize,
    /// Those that wait, the next first.
    items: Vec<Waiting>,
    /// The `cursor` of the next page; `null`: this is the last.
    next: Option<String>,
}

/// Who of the queue is listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Who {
    /// Only this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// Something that runs containers, on a host.
#[derive(Serialize, ToSchema)]
pub(super) struct Engine {
    name: String,
    #[schema(value_type = String, example = "docker")]
    kind: Kind,
    /// Where it is asked.
    address: String,
    /// Whether it answers.
    answers: bool,
    /// Its version; `null` where it does not answer.
    version: Option<String>,
    /// That of its API; `null` where it does not answer.
    api: Option<String>,
    /// Why it does not answer.
    why: Option<String>,
}

/// What came of loading the configuration again.
#[derive(Serialize, ToSchema)]
#[schema(as = Reloaded)]
pub(super) struct Loaded {
    /// The keys that changed.
    changed: Vec<String>,
    /// Those of them that only a restart applies.
    needs_restart: Vec<String>,
}

/// A workspace that waits for a place.
#[derive(Serialize, ToSchema)]
pub(super) struct Waiting {
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    /// 1 is next.
    position: usize,
}

/// What keeps a workspace running.
#[derive(Serialize, ToSchema)]
pub(super) struct Leases {
    #[schema(value_type = String)]
    workspace: WorkspaceName,
    /// Sessions and forwards.
    leases: usize,
    idle_seconds: Option<u64>,
}

/// Which leases are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Those of workspaces too that nobody uses.
    #[serde(default)]
    #[param(required = false)]
    idle: bool,
    /// Only those of this workspace.
    #[param(value_type = Option<String>)]
    workspace: Option<WorkspaceName>,
    /// Only those of workspaces of this template.
    #[param(value_type = Option<String>)]
    template: Option<TemplateName>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// All templates.
#[utoipa::path(get, path = "/templates", tag = "gateway", params(Part), responses((status = 200, body = Page<Template>)),
    security(("token" = ["read"]), ("token" = ["provision"])))]
pub(super) async fn list_templates(State(api): Asked, Query(Part { limit, cursor }): Query<Part>) -> Result<Json<Page<Template>>, Problem> {
    let one = |(name, template): (TemplateName, crate::workspace::Template)| Template {
        name,
        limits: template.as_limits().into(),
        volumes: template.volume.iter().map(|volume| volume.name.to_string()).collect(),
        services: template.service.iter().map(|service| service.name.to_string()).collect(),
        image: template.image,
        home: template.home,
        keep_running: template.keep_running,
    };
    let all = api.operations.templates().into_iter().map(one).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Template| one.name.to_string())?))
}

/// Places, and who waits for one.
#[utoipa::path(get, path = "/queue", tag = "gateway", params(Who), responses((status = 200, body = Queue)), security(("token" = ["read"])))]
pub(super) async fn show_queue(State(api): Asked, Query(Who { workspace, limit, cursor }): Query<Who>) -> Result<Json<Queue>, Problem> {
    let QueueView { capacity, taken, waiting, workspaces } = api.operations.queue();
    let wanted = workspaces.into_iter().filter(|(_, name)| workspace.as_ref().is_none_or(|workspace| workspace == name));
    let all = wanted.map(|(position, workspace)| Waiting { workspace, position }).collect();
    // Who has left meanwhile moves the others up: one may be told of twice, and none is left out.
    let Page { items, next } = page(all, limit, cursor.as_deref(), |one: &Waiting| format!("{:020}.{}", one.position, one.workspace))?;
    Ok(Json(Queue { capacity, taken, waiting, items, next }))
}

/// What keeps workspaces running.
#[utoipa::path(get, path = "/leases", tag = "gateway", params(Which), responses((status = 200, body = Page<Leases>)), security(("token" = ["read"])))]
pub(super) async fn list_leases(
    State(api): Asked,
    Query(Which { idle, workspace, template, limit, cursor }): Query<Which>,
) -> Result<Json<Page<Leases>>, Problem> {
    let all = api.workspaces.overview().into_iter().filter(|one| {
        (idle || one.leases > 0)
            && workspace.as_ref().is_none_or(|workspace| one.name == *workspace)
            && template.as_ref().is_none_or(|template| one.template == *template)
    });
    let one = |seen: crate::workspace::Overview| Leases {
        workspace: seen.name,
        leases: seen.leases,
        idle_seconds: seen.idle_for.map(|span| span.as_secs()),
    };
    Ok(Json(page(all.map(one).collect(), limit, cursor.as_deref(), |one: &Leases| one.workspace.to_string())?))
}

/// What runs the containers, on which hosts.
#[utoipa::path(get, path = "/engines", tag = "gateway", params(Part), responses((status = 200, body = Page<Engine>)), security(("token" = ["read"])))]
pub(super) async fn list_engines(State(api): Asked, Query(Part { limit, cursor }): Query<Part>) -> Result<Json<Page<Engine>>, Problem> {
    let all = api.gateway.engines().await.into_iter().map(Engine::from).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Engine| one.name.clone())?))
}

/// The configuration in effect; secrets are `***`.
#[utoipa::path(get, path = "/config", tag = "gateway", responses((status = 200, body = std::collections::BTreeMap<String, Value>)), security(("token" = ["admin"])))]
pub(super) async fn show_config(State(api): Asked) -> Json<Value> {
    Json(api.gateway.settings())
}

/// Loads the configuration again, as SIGHUP does. One that cannot be used changes nothing.
#[utoipa::path(post, path = "/reload", tag = "gateway", responses((status = 200, body = Loaded)), security(("token" = ["admin"])))]
pub(super) async fn reload(State(api): Asked) -> Result<Json<Loaded>, Problem> {
    let done = api.gateway.reload().await.map_err(|why| Problem::new(Code::Refused, why))?;
    Ok(Json(Loaded { changed: done.changed, needs_restart: done.needs_restart }))
}

impl From<EngineView> for Engine {
    fn from(EngineView { name, kind, address, versions }: EngineView) -> Self {
        let (answers, why) = (versions.is_ok(), versions.as_ref().err().cloned());
        let (version, api) = versions.ok().unzip();
        Self { name, kind, address, answers, version, api, why }
    }
}
