//! The API of an administrator, a site and a script: `/api/v1`, described by the OpenAPI document that is made from it and served beside it.
//!
//! A route is a function with a `utoipa::path` over it, named in [`routes`]. What that says is the documentation, the check of a token's scopes
//! ([`access`]) and what the tests walk through. Answers are objects, so that more can be said in them later; lists come in pages ([`page`]);
//! every refusal is a [`problem`].

mod access;
mod accounts;
mod audit;
mod backups;
mod capacity;
mod document;
mod events;
mod figures;
mod links;
mod once;
mod operations;
mod page;
mod pool;
mod problem;
mod recordings;
mod sessions;
mod settings;
mod system;
mod take;
mod tasks;
mod tenants;
mod tokens;
mod wire;
mod workspaces;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::{any, get};
use serde_json::Value;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::access::Guard;
pub(super) use self::access::{Acquainted, Caller, Entrance, Peer, vouched};
pub(super) use self::problem::{Code, Problem};
pub(super) use self::take::Body;
pub(super) use self::tokens::PREFIX;
use super::sessions::Sessions;
use crate::address::PublicAddress;
use crate::audit::Audit;
use crate::engine;
use crate::recording::Recordings;
use crate::store::Store;
use crate::urls;
use crate::workspace::{Administration, Operations};

/// Everything that routes ask.
pub struct Api {
    workspaces: Arc<dyn Administration>,
    operations: Arc<dyn Operations>,
    gateway: Arc<dyn Gateway>,
    store: Store,
    recordings: Recordings,
    pub(super) audit: Audit,
    /// Sessions of browsers, where there is a dashboard.
    pub(super) sessions: Option<Arc<Sessions>>,
    /// Streams that may be open still.
    streams: Arc<Semaphore>,
    /// Readers of the audit trail that may be at it still.
    audits: Arc<Semaphore>,
    /// One change of the accounts file at a time, so that what `If-Match` is held against is what is changed.
    accounts: tokio::sync::Mutex<()>,
    /// Names this process.
    run: u64,
}

/// What the program as a whole is asked.
#[async_trait::async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// The settings in effect, without secrets.
    fn settings(&self) -> Value;

    /// Loads the configuration again and goes by it, or changes nothing and says what is wrong with it.
    async fn reload(&self) -> Result<Reloaded, String>;

    /// What runs the containers, each asked how it is.
    async fn engines(&self) -> Vec<EngineView>;

    /// The accounts file, if anybody can log in by it.
    fn accounts_file(&self) -> Option<PathBuf>;

    /// How workspaces are reached by HTTP.
    fn urls(&self) -> urls::Config;

    /// Links to them.
    fn links(&self) -> Arc<urls::Links>;

    /// Where people log in: the name and port that others know it by, as far as they are configured, and the port that is listened on.
    fn ssh_address(&self) -> (Option<PublicAddress>, u16);
}

/// Something that runs containers, on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineView {
    /// Its name among them.
    pub name: String,
    /// What it is.
    pub kind: engine::Kind,
    /// Where it is asked.
    pub address: String,
    /// Its version and that of its API, or why it does not answer.
    pub versions: Result<(String, String), String>,
}

/// A configuration that was loaded again.
#[derive(Debug, Clone, Default)]
pub struct Reloaded {
    /// The keys that changed.
    pub changed: Vec<String>,
    /// Those of them that only a restart applies.
    pub needs_restart: Vec<String>,
}

type Asked = State<Arc<Api>>;

/// Streams at once: each keeps a connection, of which there are a few more.
const STREAMS: usize = 32;

/// Pages of the audit trail that are read at once: each is some megabytes.
const AUDITS: usize = 2;

/// Where the routes are.
const ROOT: &str = "/api/v1";

// === impl Api ===

impl Api {
    /// Asks these.
    pub fn new(
        workspaces: Arc<dyn Administration>,
        operations: Arc<dyn Operations>,
        gateway: Arc<dyn Gateway>,
        store: Store,
        recordings: Recordings,
        audit: Audit,
    ) -> Self {
        let (streams, audits) = (Arc::new(Semaphore::new(STREAMS)), Arc::new(Semaphore::new(AUDITS)));
        Self {
            workspaces,
            operations,
            gateway,
            store,
            recordings,
            audit,
            sessions: None,
            streams,
            audits,
            accounts: tokio::sync::Mutex::default(),
            run: rand::random(),
        }
    }

    /// With a dashboard, in whose sessions the same may be asked for so long.
    #[must_use]
    pub fn with_dashboard(self, lifetime: Duration) -> Self {
        Self { sessions: Some(Arc::new(Sessions::new(lifetime))), ..self }
    }
}

/// All routes: to add one, name its function here.
fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(workspaces::list_workspaces, operations::create_workspace))
        .routes(routes!(settings::show_workspace, settings::patch_workspace, tasks::delete_workspace))
        .routes(routes!(settings::change_workspace))
        .routes(routes!(operations::start_workspace))
        .routes(routes!(operations::stop_workspace))
        .routes(routes!(operations::restart_workspace))
        .routes(routes!(settings::suspend_workspace))
        .routes(routes!(settings::resume_workspace))
        .routes(routes!(tasks::begin_task))
        .routes(routes!(tasks::undelete_workspace))
        .routes(routes!(tasks::export_workspace, tasks::import_workspace))
        .routes(routes!(workspaces::list_services))
        .routes(routes!(workspaces::read_logs))
        .routes(routes!(links::list_links, links::create_link, links::revoke_links))
        .routes(routes!(links::revoke_link))
        .routes(routes!(tasks::list_deleted))
        .routes(routes!(backups::list_backups, backups::begin_backup_task))
        .routes(routes!(sessions::list_sessions))
        .routes(routes!(sessions::end_session))
        .routes(routes!(recordings::watch_session))
        .routes(routes!(recordings::list_recordings))
        .routes(routes!(recordings::show_recording, recordings::remove_recording))
        .routes(routes!(recordings::download_recording))
        .routes(routes!(recordings::play_recording))
        .routes(routes!(sessions::list_its_sessions))
        .routes(routes!(sessions::end_its_session))
        .routes(routes!(accounts::list_accounts, accounts::create_account))
        .routes(routes!(accounts::show_account, accounts::remove_account))
        .routes(routes!(accounts::set_password))
        .routes(routes!(accounts::list_keys, accounts::add_keys))
        .routes(routes!(accounts::remove_key))
        .routes(routes!(tenants::create_tenant))
        .routes(routes!(tokens::list_tokens, tokens::create_token))
        .routes(routes!(tokens::show_token, tokens::revoke_token))
        .routes(routes!(pool::show_pool, pool::patch_pool))
        .routes(routes!(pool::pause_pool))
        .routes(routes!(pool::resume_pool))
        .routes(routes!(pool::drain_pool))
        .routes(routes!(system::list_templates))
        .routes(routes!(system::show_queue))
        .routes(routes!(system::list_leases))
        .routes(routes!(system::list_engines))
        .routes(routes!(system::show_config))
        .routes(routes!(system::reload))
        .routes(routes!(audit::list_events))
        .routes(routes!(figures::show_overview))
        .routes(routes!(figures::show_usage))
        .routes(routes!(capacity::show_capacity))
        .routes(routes!(events::watch_events))
}

/// The routes as they are served at an entrance, and the document that describes them.
pub(super) fn router(api: Arc<Api>, entrance: Entrance) -> axum::Router {
    let (router, document) = described();
    let doors = Arc::new(access::doors(&document));
    let guard = Guard { api: Arc::clone(&api), doors, entrance };
    let text = axum::body::Bytes::from(document.to_string());
    router
        .route_layer(from_fn_with_state(guard, access::check))
        .with_state(api)
        .route(&format!("{ROOT}/openapi.json"), get(move || async move { ([(CONTENT_TYPE, "application/json")], text) }))
        .route("/api", any(nothing))
        .route("/api/{*rest}", any(nothing))
        .layer(map_response(with_headers))
}

fn described() -> (axum::Router<Arc<Api>>, Value) {
    let (router, document) = OpenApiRouter::with_openapi(document::frame()).nest(ROOT, routes()).split_for_parts();
    (router, document::finished(&document))
}

/// The document that describes the routes.
pub fn openapi() -> Value {
    described().1
}

/// What is answered where there is nothing.
pub(super) async fn nothing() -> Problem {
    Problem::new(Code::NotFound, "there is no such resource; /api/v1/openapi.json lists those that there are")
}

/// Says to browsers and caches that these are data, not pages.
async fn with_headers(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 4] = [
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    response.headers_mut().extend(HEADERS);
    response
}
