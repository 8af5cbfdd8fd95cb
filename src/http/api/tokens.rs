//! Tokens: made, listed and revoked. A value is shown when it is made and at no other time.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::access::Scope;
use super::once::{Key, Made};
use super::page::{Page, page};
use super::problem::{Code, Problem};
use super::take::{Body, Named, Query};
use super::tasks::Part;
use super::wire::time;
use super::{Api, Asked};
use crate::name::WorkspaceName;
use crate::store::{StoredToken, TokenHash};
use crate::units::Span;

/// What every token begins with, so that one is known where it should not be.
pub(in crate::http) const PREFIX: &str = "ink_";

/// A token that is to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
pub(super) struct New {
    /// What it is for, in the form of a workspace's name.
    #[schema(value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,31}$")]
    name: WorkspaceName,
    /// What it opens: `admin`, `read`, `provision`, `workspace:NAME`.
    #[schema(min_items = 1, max_items = 32)]
    scopes: Vec<String>,
    /// For how long, as `30d`; for ever unless said.
    #[schema(value_type = Option<String>, pattern = "^[1-9][0-9]{0,3}(s|m|h|d)$", example = "30d")]
    expires_in: Option<Span>,
}

/// A token as it is listed.
#[derive(Serialize, ToSchema)]
pub(super) struct Token {
    name: String,
    scopes: Vec<String>,
    made: String,
    expires: Option<String>,
    /// When it last opened something, to the minute.
    used: Option<String>,
    /// Whether it opens nothing any more.
    expired: bool,
}

/// Most scopes of a token.
const MOST_SCOPES: usize = 32;

/// All tokens.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(Part), responses((status = 200, body = Page<Token>)), security(("token" = ["admin"])))]
pub(super) async fn list_tokens(State(api): Asked, Query(Part { limit, cursor }): Query<Part>) -> Result<Json<Page<Token>>, Problem> {
    let all = api.store.tokens().await.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
    Ok(Json(page(all.into_iter().map(Token::from).collect(), limit, cursor.as_deref(), |one: &Token| one.name.clone())?))
}

/// Makes a token. Its value is in this answer, and nowhere else from then on: the same `Idempotency-Key` sent again is answered without it.
#[utoipa::path(post, path = "/tokens", tag = "tokens", params(("Idempotency-Key" = Option<String>, Header)), request_body = New,
    responses((status = 201, body = Value)), security(("token" = ["admin"])))]
pub(super) async fn create_token(State(api): Asked, key: Key, Body(new, bytes): Body<New>) -> Result<Response, Problem> {
    let scopes = new.scopes.iter().map(|scope| scope.parse()).collect::<Result<Vec<Scope>, Problem>>()?;
    if !(1..=MOST_SCOPES).contains(&scopes.len()) {
        return Err(Problem::refused(format!("a token has 1 to {MOST_SCOPES} scopes")));
    }
    let expires = match new.expires_in.map(Span::get) {
        None => None,
        Some(span) if span.is_zero() => return Err(Problem::refused("expires_in must be longer than that; leave it out for ever")),
        Some(span) => Some(SystemTime::now().checked_add(span).ok_or_else(|| Problem::refused("expires_in is too long"))?),
    };
    let name = new.name;
    let (free, asked) = ((api.clone(), name.clone()), api.clone());
    let free = async move { is_free(&free.0, &free.1).await };
    key.once(api, bytes, free, move |again| async move {
        if again {
            // Nobody was told its value.
            asked.store.revoke_token(name.as_str()).await.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
        }
        let value = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>()));
        let scopes: Vec<String> = scopes.iter().map(Scope::to_string).collect();
        let stored = StoredToken { name: name.to_string(), scopes: scopes.join(" "), made: SystemTime::now(), expires, used: None };
        let kept = asked.store.keep_token(&TokenHash::of(&value), stored).await;
        if !kept.map_err(|why| Problem::new(Code::Store, why.to_string()))? {
            return Err(exists(&name));
        }
        tracing::info!(token = %name, ?scopes, "token made");
        let again = json!({ "name": name, "scopes": scopes, "expires": expires.map(time), "token": Value::Null });
        let mut body = again.clone();
        body["token"] = value.into();
        Ok(Made { status: StatusCode::CREATED, body, again, named: None })
    })
    .await
}

/// Revokes a token: from now on it opens nothing.
#[utoipa::path(delete, path = "/tokens/{name}", tag = "tokens", params(("name" = String, Path)), responses((status = 204)), security(("token" = ["admin"])))]
pub(super) async fn revoke_token(State(api): Asked, Named(name): Named) -> Result<StatusCode, Problem> {
    let gone = api.store.revoke_token(name.as_str()).await.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
    if !gone {
        return Err(Problem::new(Code::NotFound, format!("there is no token {name}")));
    }
    tracing::info!(token = %name, "token revoked");
    Ok(StatusCode::NO_CONTENT)
}

async fn is_free(api: &Api, name: &WorkspaceName) -> Result<(), Problem> {
    let all = api.store.tokens().await.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
    if all.iter().any(|token| token.name == name.as_str()) { Err(exists(name)) } else { Ok(()) }
}

fn exists(name: &WorkspaceName) -> Problem {
    Problem::new(Code::Exists, format!("there is a token {name} already"))
}

impl From<StoredToken> for Token {
    fn from(token: StoredToken) -> Self {
        Self {
            name: token.name,
            scopes: token.scopes.split(' ').map(str::to_owned).collect(),
            made: time(token.made),
            expired: token.expires.is_some_and(|expires| expires <= SystemTime::now()),
            expires: token.expires.map(time),
            used: token.used.map(time),
        }
    }
}
