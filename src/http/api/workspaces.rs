//! Workspaces as they stand: the list of all, the services of one and what those say.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use super::access::Endless;
use super::figures::{May, Used};
use super::page::{Page, page};
use super::problem::Problem;
use super::take::{Named, Query};
use super::wire::time;
use crate::attach::ServiceExit;
use crate::name::{ServiceName, TemplateName, WorkspaceName};
use crate::workspace::{ImageAge, Known, Overview, ServiceView, UpgradeView};

/// Which workspaces are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those that are doing this: `running`, `stopped`, `absent`, `suspended`, …
    state: Option<String>,
    /// Only those of this template.
    #[param(value_type = Option<String>)]
    template: Option<TemplateName>,
    /// Only those whose name begins so.
    prefix: Option<String>,
    /// Only those that nobody is let into, or only the others.
    suspended: Option<bool>,
    /// Only those whose container is of its template's image as it is now, `current`, or as it was, `older`.
    image: Option<String>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// Which services are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Of {
    /// Only those that are so: `ready`, `unready`, `unknown` or `stopped`.
    state: Option<String>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// What is wanted of the logs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only this service.
    #[param(value_type = Option<String>)]
    service: Option<ServiceName>,
    /// Go on with what is said from now on.
    #[serde(default)]
    #[param(required = false)]
    follow: bool,
}

/// A workspace as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Workspace {
    #[schema(value_type = String)]
    name: WorkspaceName,
    /// What it is doing; `absent`: it has no container.
    state: &'static str,
    template: String,
    /// The engine's id of its container, while that runs.
    container: Option<String>,
    running_seconds: Option<u64>,
    /// For how long nobody has used it; `null` while somebody does, or where nothing has come up.
    idle_seconds: Option<u64>,
    /// How many sessions and forwards keep it.
    leases: usize,
    services: Vec<Service>,
    /// `current` or `older`: whether its container is of its template's image.
    image: Option<&'static str>,
    upgrade: Option<Pending>,
    /// Whether an administrator lets nobody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<bool>,
    /// When it was last used, as far as anybody remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_active: Option<String>,
    /// When somebody last logged in to it, as far as anybody remembers.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_login: Option<String>,
    /// What it uses, as of a moment ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Used>,
    /// What it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<May>,
}

/// An upgrade that is asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upgrade)]
pub(super) struct Pending {
    asked: String,
    /// Why it was undone; nothing of one that waits for the next start.
    failed: Option<String>,
}

/// A service as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Service {
    #[schema(value_type = String)]
    name: ServiceName,
    state: &'static str,
    restarts: Option<u32>,
    /// How it ended last.
    exit: Option<Exit>,
}

/// How a service ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ServiceExit)]
pub(super) enum Exit {
    /// By itself, with this status.
    Status(u8),
    /// By this signal.
    Signal(u8),
}

/// All workspaces that there are.
#[utoipa::path(get, path = "/workspaces", tag = "workspaces", params(Which), responses((status = 200, body = Page<Workspace>)),
    security(("token" = ["read"]), ("token" = ["provision"])))]
pub(super) async fn list_workspaces(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Page<Workspace>>, Problem> {
    let Which { state, template, prefix, suspended, image, limit, cursor } = which;
    let mut all = api.operations.known().await?;
    all.retain(|one| {
        state.as_ref().is_none_or(|state| one.state == state)
            && template.as_ref().is_none_or(|template| one.template == *template)
            && prefix.as_ref().is_none_or(|prefix| one.name.as_str().starts_with(prefix))
            && suspended.is_none_or(|suspended| one.suspended == suspended)
            && image.as_ref().is_none_or(|image| one.now.as_ref().and_then(|now| now.image).is_some_and(|age| age.label() == image))
    });
    let all = all.into_iter().map(Workspace::from).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Workspace| one.name.to_string())?))
}

/// How the services of a workspace stand.
#[utoipa::path(get, path = "/workspaces/{name}/services", tag = "workspaces", params(("name" = String, Path), Of),
    responses((status = 200, body = Page<Service>)), security(("token" = ["read"]), ("token" = ["workspace"])))]
pub(super) async fn list_services(
    State(api): Asked,
    Named(name): Named,
    Query(Of { state, limit, cursor }): Query<Of>,
) -> Result<Json<Page<Service>>, Problem> {
    let wanted = |one: &Service| state.as_ref().is_none_or(|state| one.state == state);
    let all = api.workspaces.services(&name)?.into_iter().map(Service::from).enumerate().filter(|(_, one)| wanted(one)).collect();
    // In the order in which the template has them.
    let Page { items, next } = page(all, limit, cursor.as_deref(), |(place, _): &(usize, Service)| format!("{place:08}"))?;
    Ok(Json(Page { items: items.into_iter().map(|(_, one)| one).collect(), next }))
}

/// What the services of a workspace have said, byte for byte.
#[utoipa::path(get, path = "/workspaces/{name}/logs", tag = "workspaces", params(("name" = String, Path), Wanted),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>)), security(("token" = ["workspace"])))]
pub(super) async fn read_logs(State(api): Asked, Named(name): Named, Query(wanted): Query<Wanted>) -> Result<impl IntoResponse, Problem> {
    let said = api.workspaces.logs(&name, wanted.service.as_ref(), wanted.follow).await?;
    // Read no faster than the client takes it; when the client hangs up it is dropped, and the container told.
    let endless = wanted.follow.then_some(Extension(Endless));
    Ok((endless, [(CONTENT_TYPE, "application/octet-stream")], Body::from_stream(ReaderStream::new(said))))
}

// === impl Workspace, Service ===

impl From<Overview> for Workspace {
    fn from(seen: Overview) -> Self {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        Self {
            name: seen.name,
            state: seen.state,
            template: seen.template.to_string(),
            container: seen.container,
            running_seconds: seconds(seen.running_for),
            idle_seconds: seconds(seen.idle_for),
            leases: seen.leases,
            services: seen.services.into_iter().map(Service::from).collect(),
            image: seen.image.map(ImageAge::label),
            upgrade: seen.upgrade.map(Pending::from),
            suspended: None,
            last_active: None,
            last_login: None,
            usage: None,
            allowed: None,
        }
    }
}

impl From<Known> for Workspace {
    fn from(known: Known) -> Self {
        let (suspended, last_active, last_login) = (Some(known.suspended), known.last_active.map(time), known.last_login.map(time));
        let (usage, allowed) = (Some(Used::of(&known)), known.allowed.map(May::from));
        match known.now {
            Some(now) => Self { suspended, last_active, last_login, usage, allowed, ..now.into() },
            None => Self {
                name: known.name,
                state: known.state,
                template: known.template.to_string(),
                container: None,
                running_seconds: None,
                idle_seconds: None,
                leases: 0,
                services: Vec::new(),
                image: None,
                upgrade: None,
                suspended,
                last_active,
                last_login,
                usage,
                allowed,
            },
        }
    }
}

impl From<UpgradeView> for Pending {
    fn from(UpgradeView { asked, failed }: UpgradeView) -> Self {
        Self { asked: time(asked), failed }
    }
}

impl From<ServiceView> for Service {
    fn from(seen: ServiceView) -> Self {
        let exit = seen.exit.map(|exit| match exit {
            ServiceExit::Status(status) => Exit::Status(status),
            ServiceExit::Signal(signal) => Exit::Signal(signal),
        });
        Self { name: seen.name, state: seen.standing.label(), restarts: seen.restarts, exit }
    }
}
