//! Tokens: made, listed and revoked. A value is shown when it is made and at no other time.

use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::access::Scope;
use super::once::{Key, Made};
use super::page::{Page, page};
use super::problem::{Code, Problem};
use super::take::{Body, IfMatch, Named, Query};
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

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenMade {
    #[schema(value_type = String)]
    name: WorkspaceName,
    scopes: Vec<String>,
    expires: Option<String>,
    /// Its value; shown this once, and `null` where the same request is answered again.
    token: Option<String>,
}

/// Which tokens are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only those with this scope, such as `read` or `workspace:alice`.
    scope: Option<String>,
    /// Only those that have expired, or only those that have not.
    expired: Option<bool>,
    /// Most entries of a page; 100 unless said otherwise.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
}

/// Most scopes of a token.
const MOST_SCOPES: usize = 32;

/// All tokens.
#[utoipa::path(get, path = "/tokens", tag = "tokens", params(Which), responses((status = 200, body = Page<Token>)), security(("token" = ["admin"])))]
pub(super) async fn list_tokens(State(api): Asked, Query(which): Query<Which>) -> Result<Json<Page<Token>>, Problem> {
    let Which { scope, expired, limit, cursor } = which;
    let wanted =
        |one: &Token| scope.as_ref().is_none_or(|scope| one.scopes.contains(scope)) && expired.is_none_or(|expired| one.expired == expired);
    let all = kept(&api).await?.into_iter().map(Token::from).filter(wanted).collect();
    Ok(Json(page(all, limit, cursor.as_deref(), |one: &Token| one.name.clone())?))
}

/// A token, without its value.
#[utoipa::path(get, path = "/tokens/{name}", tag = "tokens", params(("name" = String, Path)),
    responses((status = 200, body = Token, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn show_token(State(api): Asked, Named(name): Named) -> Result<impl IntoResponse, Problem> {
    let token = named(&api, &name).await?;
    Ok(([(ETAG, tag(&token))], Json(Token::from(token))))
}

/// Makes a token. Its value is in this answer, and nowhere else from then on: the same `Idempotency-Key` sent again is answered without it.
#[utoipa::path(post, path = "/tokens", tag = "tokens", params(("Idempotency-Key" = Option<String>, Header)), request_body = New,
    responses((status = 201, body = TokenMade)), security(("token" = ["admin"])))]
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
        let again = serde_json::to_value(TokenMade { name, scopes, expires: expires.map(time), token: None }).unwrap_or_default();
        let mut body = again.clone();
        body["token"] = value.into();
        Ok(Made { status: StatusCode::CREATED, body, again, named: None })
    })
    .await
}

/// Revokes a token: from now on it opens nothing.
#[utoipa::path(delete, path = "/tokens/{name}", tag = "tokens", params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 204)), security(("token" = ["admin"])))]
pub(super) async fn revoke_token(State(api): Asked, Named(name): Named, unchanged: IfMatch) -> Result<StatusCode, Problem> {
    // A token is never changed; it is another where that name was given anew.
    unchanged.check(&tag(&named(&api, &name).await?))?;
    let gone = api.store.revoke_token(name.as_str()).await.map_err(|why| Problem::new(Code::Store, why.to_string()))?;
    if !gone {
        return Err(unknown(&name));
    }
    tracing::info!(token = %name, "token revoked");
    Ok(StatusCode::NO_CONTENT)
}

async fn is_free(api: &Api, name: &WorkspaceName) -> Result<(), Problem> {
    let all = kept(api).await?;
    if all.iter().any(|token| token.name == name.as_str()) { Err(exists(name)) } else { Ok(()) }
}

async fn kept(api: &Api) -> Result<Vec<StoredToken>, Problem> {
    api.store.tokens().await.map_err(|why| Problem::new(Code::Store, why.to_string()))
}

async fn named(api: &Api, name: &WorkspaceName) -> Result<StoredToken, Problem> {
    kept(api).await?.into_iter().find(|token| token.name == name.as_str()).ok_or_else(|| unknown(name))
}

/// Differs for each that was made under a name, as far as anybody can tell them apart.
fn tag(token: &StoredToken) -> String {
    let mut digest = Sha256::new();
    let expires = token.expires.map_or_else(|| "never".to_owned(), time);
    for part in [token.name.as_str(), &token.scopes, &time(token.made), &expires] {
        digest.update(part);
        digest.update([0]);
    }
    format!("\"{}\"", &HEXLOWER.encode(&digest.finalize())[..32])
}

fn unknown(name: &WorkspaceName) -> Problem {
    Problem::new(Code::NotFound, format!("there is no token {name}"))
}

fn exists(name: &WorkspaceName) -> Problem {
    Problem::new(Code::Exists, format!("there is a token {name} already"))
}

impl From<StoredToken> for Token {
    fn from(token: StoredToken) -> Self {
        Self {
            expired: token.is_over(SystemTime::now()),
            name: token.name,
            scopes: token.scopes.split(' ').map(str::to_owned).collect(),
            made: time(token.made),
            expires: token.expires.map(time),
            used: token.used.map(time),
        }
    }
}
