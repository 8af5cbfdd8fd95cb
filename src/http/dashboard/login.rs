//! Logging in at the dashboard by a token, and out again.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::Dashboard;
use crate::audit::{Actor, Event, What};
use crate::http::api::{Body, Caller, Code, PREFIX, Peer, Problem, vouched};
use crate::http::sessions::{Opened, Session, Who, forgotten, is_encrypted, is_same_origin};
use crate::store::TokenHash;

/// What somebody shows.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    token: SecretString,
}

/// A session as its pages see it.
#[derive(Serialize)]
pub(super) struct Seen {
    /// Whose it is.
    name: String,
    /// What it opens.
    scopes: Vec<String>,
    /// What requests that change something send along.
    csrf: String,
    /// For how long it goes on.
    seconds: u64,
}

/// The ways to log in beside a token.
#[derive(Serialize)]
pub(super) struct Ways {
    /// What the button says that leads to the provider, if there is one.
    oidc: Option<String>,
}

type Here = State<Arc<Dashboard>>;

/// What the login page offers.
pub(super) async fn ways(State(dashboard): Here) -> Json<Ways> {
    Json(Ways { oidc: dashboard.oidc.as_ref().map(|oidc| oidc.label().to_owned()) })
}

/// Begins a session for who has a token.
pub(super) async fn log_in(
    State(dashboard): Here,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    Body(Shown { token }, _): Body<Shown>,
) -> Result<impl IntoResponse, Problem> {
    from_here(&dashboard, &headers, peer, "log in")?;
    let who = Who::Token(TokenHash::of(token.expose_secret().trim()));
    let known = if token.expose_secret().trim().starts_with(PREFIX) { vouched(&dashboard.api, &who).await? } else { None };
    let Some(caller) = known else {
        let full = || Problem::new(Code::Unavailable, "too many log in wrongly; try again in a moment");
        dashboard.refuse(Actor::Dashboard(None), peer, "log in", "unknown-token");
        let waiting = dashboard.throttle.wrong(peer).ok_or_else(full)?;
        waiting.over().await;
        return Err(Problem::new(Code::Unauthenticated, "this token is not known, or has expired"));
    };
    // The one before is of no more use to this browser.
    dashboard.sessions.of(&headers).into_iter().for_each(|session| dashboard.sessions.close(session.id));
    let Opened { session, cookie } = dashboard.sessions.open(who, is_encrypted(&headers));
    let what = What::Admin { act: "log in".to_owned(), outcome: "done".to_owned() };
    dashboard.api.audit.record(Event { remote: peer, ..Event::now(Actor::Dashboard(Some(caller.name().to_owned())), what) });
    Ok((StatusCode::CREATED, AppendHeaders([(SET_COOKIE, cookie)]), Json(Seen::of(&session, &caller))))
}

/// Whose session it is; `null` where there is none, or none any more.
pub(super) async fn show(State(dashboard): Here, headers: HeaderMap) -> Result<Json<Option<Seen>>, Problem> {
    let Some(session) = dashboard.sessions.of(&headers) else { return Ok(Json(None)) };
    let caller = vouched(&dashboard.api, &session.who).await?;
    Ok(Json(caller.map(|caller| Seen::of(&session, &caller))))
}

/// Ends a session.
pub(super) async fn log_out(
    State(dashboard): Here,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    from_here(&dashboard, &headers, peer, "log out")?;
    if let Some(session) = dashboard.sessions.of(&headers) {
        if !session.is_shown_by(&headers) {
            dashboard.refuse(Actor::Dashboard(None), peer, "log out", "csrf");
            return Err(Problem::new(Code::Forbidden, "the request must show the session's CSRF token"));
        }
        dashboard.sessions.close(session.id);
    }
    let [secure, plain] = forgotten();
    Ok((StatusCode::NO_CONTENT, AppendHeaders([(SET_COOKIE, secure), (SET_COOKIE, plain)])))
}

fn from_here(dashboard: &Dashboard, headers: &HeaderMap, peer: Option<IpAddr>, asked: &str) -> Result<(), Problem> {
    if is_same_origin(headers) {
        return Ok(());
    }
    dashboard.refuse(Actor::Dashboard(None), peer, asked, "csrf");
    Err(Problem::new(Code::Forbidden, "the request does not come from a page of this gateway; a proxy before it must pass on Host"))
}

impl Seen {
    fn of(session: &Session, caller: &Caller) -> Self {
        Self { name: caller.name().to_owned(), scopes: caller.scopes(), csrf: session.csrf.clone(), seconds: session.left.as_secs() }
    }
}
