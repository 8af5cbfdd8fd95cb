//! Logging in at the dashboard through an OpenID Connect provider: the authorization code flow, with PKCE, a state and a nonce.

mod config;
mod pending;
mod provider;

use std::sync::Arc;

use axum::extract::{Extension, Query, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::Deserialize;
use tracing::{info, warn};

pub use self::config::Config;
use self::pending::{Seal, forgotten};
use self::provider::{Provider, ProviderError};
use super::Dashboard;
use crate::audit::{Actor, Event, What};
use crate::http::api::Peer;
use crate::http::sessions::Who;
use crate::name::printable;

pub(super) use self::provider::BACK;

/// What the routes need.
pub struct Oidc {
    provider: Provider,
    seal: Seal,
}

/// What the provider sends a browser back with.
#[derive(Deserialize)]
pub(super) struct Back {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    error: Option<String>,
}

/// How a login ended that opened nothing, as the login page is told.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    /// It took too long, or began in another browser.
    Expired,
    /// The provider has refused.
    Denied,
    /// The provider cannot be asked, or answers what cannot be used.
    Broken,
    /// She is who she is, and nothing is open to her.
    NotPermitted,
    /// Too many log in wrongly at once.
    Busy,
}

/// Where the way to the provider begins.
pub(super) const BEGIN: &str = "/dashboard/oidc";

type Here = State<Arc<Dashboard>>;

// === impl Oidc ===

impl Oidc {
    /// What is configured, or why it cannot be used.
    pub fn new(config: &Config) -> Result<Option<Self>, String> {
        if config.issuer.is_empty() {
            return Ok(None);
        }
        let seal = Seal::new().ok_or("http.oidc: no key")?;
        Ok(Some(Self { provider: Provider::new(config.clone())?, seal }))
    }

    /// What the button says.
    pub(super) fn label(&self) -> &str {
        &self.provider.config().label
    }
}

/// Sends a browser to the provider.
pub(super) async fn begin(State(dashboard): Here) -> Response {
    let Some(oidc) = &dashboard.oidc else { return StatusCode::NOT_FOUND.into_response() };
    let encrypted = oidc.provider.is_encrypted();
    let (url, pending) = match oidc.provider.begin().await {
        Ok(begun) => begun,
        Err(why) => {
            warn!(%why, "cannot begin a login at the dashboard");
            return Refusal::Broken.page(encrypted);
        }
    };
    let Some(cookie) = oidc.seal.cookie(&pending, encrypted) else { return Refusal::Broken.page(encrypted) };
    (StatusCode::SEE_OTHER, AppendHeaders([(SET_COOKIE, cookie)]), [(LOCATION, url.to_string())]).into_response()
}

/// Begins a session for whom the provider vouches for.
pub(super) async fn end(
    State(dashboard): Here,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Response {
    let Some(oidc) = &dashboard.oidc else { return StatusCode::NOT_FOUND.into_response() };
    let encrypted = oidc.provider.is_encrypted();
    let refuse = |name: Option<String>, reason| dashboard.refuse(Actor::Dashboard(name), peer, "log in", reason);
    let Some(pending) = oidc.seal.open(&headers, &back.state, encrypted) else {
        refuse(None, "not-begun-here");
        return Refusal::Expired.page(encrypted);
    };
    if let Some(error) = back.error {
        let error: String = printable(&error).chars().take(100).collect();
        info!(error, "the provider has refused a login at the dashboard");
        refuse(None, "provider-refused");
        return Refusal::Denied.page(encrypted);
    }
    let person = match oidc.provider.end(back.code, pending).await {
        Ok(person) => person,
        Err(why) => {
            let reason = match why {
                ProviderError::Broken(_) => "not-vouched-for",
                ProviderError::Unfit(_) => "claims-not-enough",
            };
            refuse(None, reason);
            let Some(waiting) = dashboard.throttle.wrong(peer) else { return Refusal::Busy.page(encrypted) };
            warn!(%why, "nobody was let in at the dashboard");
            waiting.over().await;
            return Refusal::Broken.page(encrypted);
        }
    };
    let Some(scopes) = oidc.provider.config().opens(&person.name, &person.groups) else {
        refuse(Some(person.name), "nothing-open");
        return Refusal::NotPermitted.page(encrypted);
    };
    let what = What::Admin { act: "log in".to_owned(), outcome: "done".to_owned() };
    dashboard.api.audit.record(Event { remote: peer, ..Event::now(Actor::Dashboard(Some(person.name.clone())), what) });
    let who = Who::Person { name: person.name, scopes: scopes.to_owned() };
    let opened = dashboard.sessions.open(who, encrypted);
    (AppendHeaders([(SET_COOKIE, opened.cookie), (SET_COOKIE, forgotten(encrypted))]), onwards("")).into_response()
}

/// A page that goes on to the dashboard by itself. A redirect would still be the other site's doing, for which browsers send no session's cookie.
fn onwards(fragment: &str) -> impl IntoResponse + use<> {
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"0;url=/dashboard/{fragment}\">\
         <title>innkeeper</title><p><a href=\"/dashboard/{fragment}\">Go on</a>\n"
    );
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], text)
}

// === impl Refusal ===

impl Refusal {
    /// Back to the login page, which says why.
    fn page(self, encrypted: bool) -> Response {
        let fragment = match self {
            Self::Expired => "#login-expired",
            Self::Denied => "#login-denied",
            Self::Broken => "#login-broken",
            Self::NotPermitted => "#login-not-permitted",
            Self::Busy => "#login-busy",
        };
        (AppendHeaders([(SET_COOKIE, forgotten(encrypted))]), onwards(fragment)).into_response()
    }
}
