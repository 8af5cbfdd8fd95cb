//! Links to ports of a workspace: whoever has one may reach the port, until it is over or taken back.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::access::Caller;
use super::once::{Key, Made};
use super::page::{Page, page};
use super::problem::{Code, Problem};
use super::take::{Body, LinkNamed, Named, Query};
use super::wire::time;
use super::{Api, Asked};
use crate::audit::{Actor, Event, What};
use crate::name::{AccountName, WorkspaceName};
use crate::units::Span;
use crate::urls::{Config, LinkError, Target};

/// A link that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewLink)]
pub(super) struct New {
    /// The port on the workspace's loopback.
    #[schema(minimum = 1)]
    port: u16,
    /// How long it is good for, from `1m` to `24h`; `urls.link_lifetime` unless said otherwise.
    #[schema(value_type = Option<String>, example = "1h")]
    lifetime: Option<Span>,
    /// For whom it is: the application is told.
    visitor: Option<String>,
}

/// A link that is good. What opens is in the answer to who made it, and nowhere else.
#[derive(Serialize, ToSchema)]
#[schema(as = Link)]
pub(super) struct Listed {
    id: String,
    port: u16,
    visitor: Option<String>,
    made: String,
    ends: String,
}

/// A link that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct LinkMade {
    /// By which it is listed; it opens nothing.
    id: String,
    /// What opens; shown this once, and `null` where the same request is answered again.
    url: Option<String>,
    port: u16,
    visitor: Option<String>,
    ends: String,
    /// For how long it is good.
    seconds: u64,
}

/// What was taken back.
#[derive(Serialize, ToSchema)]
#[schema(as = LinksRevoked)]
pub(super) struct Revoked {
    /// How many links that were good.
    revoked: usize,
}

/// Which links are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those to this port.
    #[param(minimum = 1)]
    port: Option<u16>,
    /// Only those for this one.
    visitor: Option<String>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// Makes a link, whose `url` is shown only once. It becomes a cookie in whoever's browser opens it.
#[utoipa::path(post, path = "/workspaces/{name}/links", tag = "workspaces", params(("name" = String, Path), ("Idempotency-Key" = Option<String>, Header)),
    request_body = New, responses((status = 201, body = LinkMade)), security(("token" = ["provision"]), ("token" = ["workspace"])))]
pub(super) async fn create_link(
    State(api): Asked,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    key: Key,
    Body(New { port, lifetime, visitor }, bytes): Body<New>,
) -> Result<Response, Problem> {
    let config = api.gateway.urls();
    let lifetime = lifetime.unwrap_or(config.link_lifetime).get();
    if !Config::LIFETIME.contains(&lifetime.as_secs()) {
        return Err(Problem::refused("a link is good for 1m to 24h"));
    }
    if port == 0 {
        return Err(Problem::refused("there is no port 0"));
    }
    let visitor = visitor.map(|name| AccountName::parse(&name).map(|name| name.to_string())).transpose()?;
    let target = Target { workspace: name.clone(), port };
    let address = config.address_of(&target);
    let address = address.ok_or_else(|| Problem::refused("`urls.listen` and `urls.domain` are not set: workspaces have no addresses"))?;
    let (asked, actor) = (Arc::clone(&api), caller.actor());
    let known = (Arc::clone(&api), name);
    let free = async move { known.0.workspaces.details(&known.1).await.map(drop).map_err(Problem::from) };
    key.once(api, bytes, free, move |_| async move { make(&asked, actor, target, lifetime, visitor, &address).await }).await
}

async fn make(
    api: &Arc<Api>,
    actor: Actor,
    target: Target,
    lifetime: Duration,
    visitor: Option<String>,
    address: &str,
) -> Result<Made, Problem> {
    let (links, wanted) = (api.gateway.links(), target.clone());
    let made = tokio::task::spawn_blocking(move || links.make(&wanted, lifetime, visitor)).await;
    let made = made.map_err(|why| Problem::new(Code::Store, why.to_string()))?.map_err(problem)?;
    let ends = time(made.link.ends());
    let what = What::LinkMade { link: made.id.clone(), port: target.port, visitor: made.link.visitor.clone(), ends: ends.clone() };
    api.audit.record(Event::now(actor, what).about(&target.workspace));
    tracing::info!(workspace = %target.workspace, port = target.port, link = made.id, "link made");
    let (port, visitor) = (target.port, made.link.visitor);
    let again = LinkMade { id: made.id, url: None, port, visitor, ends, seconds: lifetime.as_secs() };
    let again = serde_json::to_value(again).unwrap_or_default();
    let mut body = again.clone();
    body["url"] = format!("{address}{}?t={}", crate::urls::OPEN, made.text).into();
    Ok(Made { status: StatusCode::CREATED, body, again, named: None })
}

/// The links to a workspace that are good still.
#[utoipa::path(get, path = "/workspaces/{name}/links", tag = "workspaces", params(("name" = String, Path), Which),
    responses((status = 200, body = Page<Listed>)), security(("token" = ["read"]), ("token" = ["provision"]), ("token" = ["workspace"])))]
pub(super) async fn list_links(
    State(api): Asked,
    Named(name): Named,
    Query(Which { port, visitor, limit, cursor }): Query<Which>,
) -> Result<Json<Page<Listed>>, Problem> {
    let listed = |(id, link): (String, crate::urls::Link)| Listed {
        port: link.port(),
        made: time(link.made()),
        ends: time(link.ends()),
        visitor: link.visitor,
        id,
    };
    let wanted = |one: &Listed| {
        port.is_none_or(|port| one.port == port) && visitor.as_ref().is_none_or(|visitor| one.visitor.as_ref() == Some(visitor))
    };
    let all = api.gateway.links().of(&name).into_iter().map(listed).filter(wanted).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Listed| one.id.clone())?))
}

/// Takes back every link to a workspace; cookies that they became end as well.
#[utoipa::path(delete, path = "/workspaces/{name}/links", tag = "workspaces", params(("name" = String, Path)),
    responses((status = 200, body = Revoked)), security(("token" = ["provision"]), ("token" = ["workspace"])))]
pub(super) async fn revoke_links(
    State(api): Asked,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
) -> Result<Json<Revoked>, Problem> {
    let (links, wanted) = (api.gateway.links(), name.clone());
    let revoked = tokio::task::spawn_blocking(move || links.revoke(&wanted)).await;
    let revoked = revoked.map_err(|why| Problem::new(Code::Store, why.to_string()))?.map_err(problem)?;
    record_revoked(&api, &caller, &name, None);
    Ok(Json(Revoked { revoked }))
}

/// Takes one link back; the cookie that it became ends as well.
#[utoipa::path(delete, path = "/workspaces/{name}/links/{link}", tag = "workspaces", params(("name" = String, Path), ("link" = String, Path)),
    responses((status = 204)), security(("token" = ["provision"]), ("token" = ["workspace"])))]
pub(super) async fn revoke_link(
    State(api): Asked,
    Extension(caller): Extension<Caller>,
    Named(name): Named,
    LinkNamed(id): LinkNamed,
) -> Result<StatusCode, Problem> {
    let (links, wanted, asked) = (api.gateway.links(), name.clone(), id.clone());
    let revoked = tokio::task::spawn_blocking(move || links.revoke_one(&wanted, &asked)).await;
    if !revoked.map_err(|why| Problem::new(Code::Store, why.to_string()))?.map_err(problem)? {
        return Err(Problem::new(Code::NotFound, "there is no such link, or it is over"));
    }
    record_revoked(&api, &caller, &name, Some(id));
    Ok(StatusCode::NO_CONTENT)
}

fn record_revoked(api: &Api, caller: &Caller, name: &WorkspaceName, link: Option<String>) {
    tracing::info!(workspace = %name, link, "links taken back");
    api.audit.record(Event::now(caller.actor(), What::LinkRevoked { link }).about(name));
}

fn problem(why: LinkError) -> Problem {
    match why {
        LinkError::TooMany => Problem::refused(why.to_string()),
        LinkError::Disk { .. } => Problem::new(Code::Store, why.to_string()),
    }
}
