//! The audit trail, from its end.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use super::page::{MOST, Page, USUAL};
use super::problem::{Code, Problem};
use super::take::Query;
use super::wire::Moment;
use crate::audit::{Mark, Wanted};

/// Which events are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those of this kind, such as `login-refused`.
    kind: Option<String>,
    /// Only what this account did or tried.
    account: Option<String>,
    /// Only what is about this workspace.
    workspace: Option<String>,
    /// Not before this, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    since: Option<Moment>,
    /// Before this, as `2026-01-31T12:00:00Z`.
    #[param(value_type = Option<String>)]
    until: Option<Moment>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// A line of the trail, which is answered as it was written: what each has, and beside that what its kind has.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEvent)]
pub(super) struct Recorded {
    /// Its number.
    seq: u64,
    at: String,
    /// Its kind, such as `login-refused`.
    event: String,
    /// Whose doing it was: `gateway`, `host`, `stranger`, or an object with one member, such as `{"token": "site"}`.
    #[schema(schema_with = actor)]
    actor: Value,
    /// From where, if it came over the network.
    remote: Option<String>,
    /// The workspace it was about.
    workspace: Option<String>,
    /// The connection it belongs to.
    connection: Option<String>,
    /// The digest of it and of the line before.
    chain: String,
}

/// Whose doing something was: a word, or an object of one member.
fn actor() -> OneOfBuilder {
    let name = ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Null]));
    let named = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(name));
    OneOfBuilder::new().item(ObjectBuilder::new().schema_type(Type::String)).item(named)
}

/// What was recorded, the newest first. A page has fewer entries than asked for, or none, and a `next`, where much was looked at for it.
#[utoipa::path(get, path = "/audit", tag = "gateway", params(Which), responses((status = 200, body = Page<Recorded>)),
    security(("token" = ["read"])))]
pub(super) async fn list_events(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Page<Value>>, Problem> {
    let Which { kind, account, workspace, since, until, limit, cursor } = which;
    let limit = limit.map_or(USUAL, |limit| limit as usize);
    if !(1..=MOST).contains(&limit) {
        return Err(Problem::malformed(format!("limit must be from 1 to {MOST}")));
    }
    let wanted = Wanted { kind, account, workspace, since: since.map(written), until: until.map(written) };
    let from = cursor.map(|text| mark(&text).ok_or_else(|| Problem::malformed("cursor is not one that was given out"))).transpose()?;
    // Each reads some megabytes; others wait.
    let busy = |_| Problem::new(Code::Unavailable, "the audit trail is read by too many; ask again");
    let place = Arc::clone(&api.audits).acquire_owned().await.map_err(busy)?;
    let audit = api.audit.clone();
    let read = tokio::task::spawn_blocking(move || {
        let _place = place;
        audit.page(&wanted, from, limit)
    });
    let read = read.await.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
    let page = read.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
    let page = page.ok_or_else(|| Problem::new(Code::NotFound, "there is no audit trail: `audit.enabled` is false"))?;
    let cursor = |mark: Mark| BASE64URL_NOPAD.encode(format!("{}.{}", mark.first, mark.before).as_bytes());
    Ok(Json(Page { items: page.events, next: page.next.map(cursor) }))
}

/// A moment as lines have it.
fn written(Moment(at): Moment) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}

fn mark(text: &str) -> Option<Mark> {
    let text = String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()?;
    let (first, before) = text.split_once('.')?;
    Some(Mark { first: first.parse().ok()?, before: before.parse().ok()? })
}
