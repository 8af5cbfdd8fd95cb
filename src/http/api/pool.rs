//! The pool of ready containers. What is changed here holds until the configuration is next loaded, which says what is to be for good.

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::take::{Body, IfMatch};
use super::{Api, Asked};
use crate::name::TemplateName;
use crate::workspace::{PoolChange, PoolView, SpareView};

/// The pool.
#[derive(Serialize, ToSchema)]
pub(super) struct Pool {
    /// How many are kept ready of each template.
    size: usize,
    /// Whether no new ones are made.
    paused: bool,
    templates: Vec<Spares>,
}

/// Ready containers of a template.
#[derive(Serialize, ToSchema)]
pub(super) struct Spares {
    #[schema(value_type = String)]
    template: TemplateName,
    ready: usize,
}

/// What was thrown away.
#[derive(Serialize, ToSchema)]
#[schema(as = PoolDrained)]
pub(super) struct Drained {
    /// How many containers stood ready.
    drained: usize,
}

/// What is to be different.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PoolPatch)]
pub(super) struct Patch {
    /// How many are kept ready of each template.
    #[schema(maximum = 1000)]
    size: Option<u32>,
    /// Whether no new ones are made.
    paused: Option<bool>,
}

/// The pool as it is.
#[utoipa::path(get, path = "/pool", tag = "pool", responses((status = 200, body = Pool, headers(("ETag" = String)))), security(("token" = ["read"])))]
pub(super) async fn show_pool(State(api): Asked) -> Response {
    answer(api.operations.pool())
}

/// Resizes the pool, pauses it or lets it go on.
#[utoipa::path(patch, path = "/pool", tag = "pool", params(("If-Match" = Option<String>, Header)), request_body = Patch,
    responses((status = 200, body = Pool, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn patch_pool(State(api): Asked, unchanged: IfMatch, Body(patch, _): Body<Patch>) -> Result<Response, Problem> {
    let as_it_was = as_read(&api, &unchanged)?;
    Ok(answer(api.operations.change_pool(as_it_was, PoolChange { size: patch.size.map(|size| size as usize), paused: patch.paused })?))
}

/// Has the pool make no new containers.
#[utoipa::path(post, path = "/pool/pause", tag = "pool", params(("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Pool, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn pause_pool(State(api): Asked, unchanged: IfMatch) -> Result<Response, Problem> {
    paused(&api, &unchanged, true)
}

/// Has the pool make new containers again.
#[utoipa::path(post, path = "/pool/resume", tag = "pool", params(("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Pool, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn resume_pool(State(api): Asked, unchanged: IfMatch) -> Result<Response, Problem> {
    paused(&api, &unchanged, false)
}

/// Pauses the pool and throws away what stands ready.
#[utoipa::path(post, path = "/pool/drain", tag = "pool", params(("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Drained, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn drain_pool(State(api): Asked, unchanged: IfMatch) -> Result<impl IntoResponse, Problem> {
    let drained = api.operations.drain_pool(as_read(&api, &unchanged)?).await?;
    Ok(([(ETAG, tag(&api.operations.pool()))], Json(Drained { drained })))
}

fn paused(api: &Api, unchanged: &IfMatch, paused: bool) -> Result<Response, Problem> {
    Ok(answer(api.operations.change_pool(as_read(api, unchanged)?, PoolChange { size: None, paused: Some(paused) })?))
}

/// How the pool must be still, where the request says so: should somebody else be quicker, nothing is changed.
fn as_read(api: &Api, unchanged: &IfMatch) -> Result<Option<(usize, bool)>, Problem> {
    let now = api.operations.pool();
    unchanged.check(&tag(&now))?;
    Ok(unchanged.0.is_some().then_some((now.size, now.paused)))
}

fn tag(pool: &PoolView) -> String {
    format!("\"{}-{}\"", pool.size, pool.paused)
}

fn answer(pool: PoolView) -> Response {
    let tag = tag(&pool);
    let templates = pool.spares.into_iter().map(|SpareView { template, ready }| Spares { template, ready }).collect();
    ([(ETAG, tag)], Json(Pool { size: pool.size, paused: pool.paused, templates })).into_response()
}
