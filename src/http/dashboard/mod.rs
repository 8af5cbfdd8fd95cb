//! The dashboard: pages for an administrator's browser, at `/dashboard/`.
//!
//! The pages are files of this directory, carried in the program as they are: nothing builds them, and they load nothing from elsewhere. They
//! ask the API as any other client does, as part of the session that a login begins ([`login`], [`super::sessions`]). Nothing here knows what
//! they show.

mod login;
mod oidc;
mod throttle;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{any, get};

pub use self::oidc::{Config as OidcConfig, Oidc};
use self::throttle::Throttle;
use super::api::{Api, Code, Problem};
use super::sessions::Sessions;
use crate::audit::{Actor, Refusal};

/// What the routes ask.
struct Dashboard {
    api: Arc<Api>,
    sessions: Arc<Sessions>,
    oidc: Option<Oidc>,
    throttle: Throttle,
}

impl Dashboard {
    /// Tells the audit trail that somebody was refused.
    fn refuse(&self, actor: Actor, remote: Option<IpAddr>, asked: &str, reason: &'static str) {
        self.api.audit.refuse(Refusal { actor, remote, workspace: None, door: "dashboard", asked: asked.to_owned(), reason });
    }
}

/// A file of the pages: below which path, of which kind, and what is in it.
struct File(&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// All files.
const FILES: &[File] = &[
    File("", HTML, include_str!("pages/index.html")),
    File("style.css", CSS, include_str!("pages/style.css")),
    File("icon.svg", SVG, include_str!("pages/icon.svg")),
    File("api.js", JS, include_str!("pages/api.js")),
    File("app.js", JS, include_str!("pages/app.js")),
    File("chart.js", JS, include_str!("pages/chart.js")),
    File("dom.js", JS, include_str!("pages/dom.js")),
    File("format.js", JS, include_str!("pages/format.js")),
    File("live.js", JS, include_str!("pages/live.js")),
    File("parts.js", JS, include_str!("pages/parts.js")),
    File("screen.js", JS, include_str!("pages/screen.js")),
    File("start.js", JS, include_str!("pages/start.js")),
    File("views/accounts.js", JS, include_str!("pages/views/accounts.js")),
    File("views/audit.js", JS, include_str!("pages/views/audit.js")),
    File("views/backups.js", JS, include_str!("pages/views/backups.js")),
    File("views/capacity.js", JS, include_str!("pages/views/capacity.js")),
    File("views/create.js", JS, include_str!("pages/views/create.js")),
    File("views/gateway.js", JS, include_str!("pages/views/gateway.js")),
    File("views/limits.js", JS, include_str!("pages/views/limits.js")),
    File("views/links.js", JS, include_str!("pages/views/links.js")),
    File("views/overview.js", JS, include_str!("pages/views/overview.js")),
    File("views/pool.js", JS, include_str!("pages/views/pool.js")),
    File("views/recordings.js", JS, include_str!("pages/views/recordings.js")),
    File("views/replay.js", JS, include_str!("pages/views/replay.js")),
    File("views/sessions.js", JS, include_str!("pages/views/sessions.js")),
    File("views/watch.js", JS, include_str!("pages/views/watch.js")),
    File("views/workspace.js", JS, include_str!("pages/views/workspace.js")),
    File("views/workspaces.js", JS, include_str!("pages/views/workspaces.js")),
];

/// What pages may do: run and load what is ours, ask us, and make nothing of text but text. Nobody puts them into a page of their own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The routes.
pub(super) fn router(api: Arc<Api>, sessions: Arc<Sessions>, oidc: Option<Oidc>) -> Router {
    let dashboard = Arc::new(Dashboard { api, sessions, oidc, throttle: Throttle::default() });
    let mut router = Router::new();
    for File(path, kind, text) in FILES {
        router = router.route(&format!("/dashboard/{path}"), get(move || async move { ([(CONTENT_TYPE, *kind)], *text) }));
    }
    router
        .route("/", get(|| async { Redirect::temporary("/dashboard/") }))
        .route("/dashboard", get(|| async { Redirect::temporary("/dashboard/") }))
        .route("/dashboard/session", get(login::show).post(login::log_in).delete(login::log_out))
        .route("/dashboard/ways", get(login::ways))
        .route(oidc::BEGIN, get(oidc::begin))
        .route(oidc::BACK, get(oidc::end))
        .route("/dashboard/{*rest}", any(|| async { Problem::new(Code::NotFound, "there is no such page") }))
        .method_not_allowed_fallback(|method: Method| async move {
            Problem::new(Code::MethodNotAllowed, format!("{method} cannot be done to it")).into_response()
        })
        .with_state(dashboard)
        .layer(map_response(with_headers))
}

/// Says to browsers what pages may do, and that nothing is kept.
async fn with_headers(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 6] = [
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ];
    response.headers_mut().extend(HEADERS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_pages_is_served_and_none_of_them_names_another_host() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/dashboard/pages");
        let mut names = Vec::new();
        for dir in [root.to_owned(), format!("{root}/views")] {
            for entry in std::fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    names.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace("index.html", ""));
                }
            }
        }
        names.sort();
        let mut served: Vec<_> = FILES.iter().map(|File(path, ..)| (*path).to_owned()).collect();
        served.sort();
        assert_eq!(names, served);
        for File(path, _, text) in FILES {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"), "{path}");
        }
    }
}
