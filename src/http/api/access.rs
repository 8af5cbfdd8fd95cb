//! Who may ask what. Each route says in its description which scopes open it; that description is what is gone by here, so that a route that
//! says nothing is closed.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::task::JoinError;
use tracing::Instrument;

use super::Api;
use super::once::Named;
use super::problem::{Code, Problem};
use super::tokens::PREFIX;
use crate::audit::{Actor, Audit, Event, Refusal, What};
use crate::http::sessions::{Id, Who, is_same_origin};
use crate::name::{WorkspaceName, printable};
use crate::store::{StoredToken, TokenHash};

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    Admin,
    /// Looking on: nothing that is in a home, said by a service, or a secret.
    Read,
    /// Making workspaces and accounts.
    Provision,
    /// One workspace: how it stands, starting and stopping it, what is in it.
    Workspace(WorkspaceName),
}

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Entrance {
    /// A socket that only this process's user can open: whoever asks there may ask everything.
    Socket,
    /// A port: a token says what may be asked, or the session that one has begun.
    Port,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(in crate::http) struct Caller {
    name: String,
    actor: Actor,
    scopes: Vec<Scope>,
    way: Way,
}

/// How it is known who asks.
#[derive(Debug, Clone)]
enum Way {
    Socket,
    Token(TokenHash),
    Session(Who, Option<Id>),
}

/// Longest part of a path that the audit trail tells, in characters.
const NAMED: usize = 128;

/// How often it is looked whether who is told something without end may still be told.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Whether somebody with a token has spoken on a connection, which then may last.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Acquainted(Arc<AtomicBool>);

/// The address that a connection comes from, if it comes over a network.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Peer(pub(in crate::http) Option<IpAddr>);

/// Beside an answer that is told without end, and is no event stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// What opens each route: its method and path as it is described, and the scopes of which one is enough beside `admin`.
pub(super) type Doors = HashMap<(Method, String), Vec<String>>;

/// What checks requests.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) api: Arc<Api>,
    pub(super) doors: Arc<Doors>,
    pub(super) entrance: Entrance,
}

/// Reads what opens each route out of the description of all.
pub(super) fn doors(document: &Value) -> Doors {
    let mut doors = Doors::new();
    let paths = document["paths"].as_object().into_iter().flatten();
    for (path, method, operation) in
        paths.flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(method, operation)| (path, method, operation)))
    {
        let Ok(method) = Method::from_str(&method.to_ascii_uppercase()) else { continue };
        let ways = operation["security"].as_array().into_iter().flatten();
        let scopes = ways.flat_map(|way| way["token"].as_array().into_iter().flatten());
        doors.insert((method, path.clone()), scopes.filter_map(|scope| scope.as_str().map(str::to_owned)).collect());
    }
    doors
}

/// Lets through who may ask, and nobody else.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match admitted(&guard, request).await {
        Ok((request, act)) => {
            let caller = request.extensions().get::<Caller>().cloned();
            let response = match act {
                Some(act) => to_its_end(Arc::clone(&guard.api), request, next, act).await,
                None => next.run(request).await,
            };
            while_known(&guard.api, caller, response)
        }
        Err(problem) => problem.into_response(),
    }
}

/// Does what changes things to its end, and records it, also if the client hangs up meanwhile: what waits for it here is dropped then.
async fn to_its_end(api: Arc<Api>, request: Request, next: Next, act: Act) -> Response {
    let (audit, begun) = (api.audit.clone(), act.clone());
    let doing = async move {
        let response = next.run(request).await;
        let act = act.of(response.extensions().get::<Named>());
        act.record(&api.audit, &format!("answered {}", response.status().as_u16()));
        response
    };
    match tokio::spawn(doing.in_current_span()).await.map_err(JoinError::try_into_panic) {
        Ok(response) => response,
        Err(Ok(panic)) => {
            begun.record(&audit, "failed in the middle: a bug");
            std::panic::resume_unwind(panic)
        }
        // The gateway ends.
        Err(Err(_)) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Something that may change things, as the audit trail has it.
#[derive(Clone)]
struct Act {
    actor: Actor,
    what: String,
    workspace: Option<WorkspaceName>,
    makes_workspaces: bool,
}

impl Act {
    /// The same, once it is known what was made.
    fn of(mut self, made: Option<&Named>) -> Self {
        if let Some(Named(name)) = made {
            self.what = format!("{}: {}", self.what, printable(name).chars().take(NAMED).collect::<String>());
            if self.makes_workspaces {
                self.workspace = name.parse().ok();
            }
        }
        self
    }

    fn record(self, audit: &Audit, outcome: &str) {
        let what = What::Admin { act: self.what, outcome: outcome.to_owned() };
        audit.record(Event { workspace: self.workspace, ..Event::now(self.actor, what) });
    }
}

/// Why somebody is not let in.
struct Turned {
    problem: Problem,
    /// What the audit trail is told: who it was, and why in a word. Nothing where it is our own fault.
    told: Option<(Actor, &'static str)>,
}

impl From<Problem> for Turned {
    fn from(problem: Problem) -> Self {
        Self { problem, told: None }
    }
}

async fn admitted(guard: &Guard, request: Request) -> Result<(Request, Option<Act>), Problem> {
    let (mut parts, body) = request.into_parts();
    let path = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method.clone() };
    let Some(opens) = guard.doors.get(&(method.clone(), path.clone())) else {
        return Err(Problem::new(Code::MethodNotAllowed, "this cannot be done to it"));
    };
    let (mut named, mut what) = (None, format!("{method} {path}"));
    if let Ok(all) = RawPathParams::from_request_parts(&mut parts, &()).await {
        for (key, value) in &all {
            // What it is done to, as it was asked for: there may be nothing of that name.
            what = what.replace(&format!("{{{key}}}"), &printable(value).chars().take(NAMED).collect::<String>());
            named = named.or_else(|| (key == "name").then(|| value.to_owned()));
        }
    }
    let workspace: Option<WorkspaceName> = named.as_deref().filter(|_| path.contains("/workspaces/")).and_then(|name| name.parse().ok());
    let let_in = who(guard, &parts, &method).await.and_then(|caller| {
        if caller.scopes.iter().any(|scope| scope.opens(opens, named.as_deref())) {
            return Ok(caller);
        }
        let problem = Problem::new(Code::Forbidden, format!("this takes a token with one of these scopes: {}", opens.join(", ")));
        Err(Turned { problem, told: Some((caller.actor(), "scope")) })
    });
    let caller = match let_in {
        Ok(caller) => caller,
        Err(Turned { problem, told }) => {
            if let Some((actor, reason)) = told {
                let remote = parts.extensions.get::<Peer>().and_then(|peer| peer.0);
                guard.api.audit.refuse(Refusal { actor, remote, workspace, door: "api", asked: what, reason });
            }
            return Err(problem);
        }
    };
    let act = (method != Method::GET).then(|| Act {
        actor: caller.actor(),
        what,
        workspace,
        makes_workspaces: path.ends_with("/workspaces") || path.ends_with("/tenants"),
    });
    if let Some(acquainted) = parts.extensions.get::<Acquainted>() {
        acquainted.0.store(true, Ordering::Relaxed);
    }
    parts.extensions.insert(caller);
    Ok((Request::from_parts(parts, body), act))
}

/// Who asks, by the token of the request or by the session that it is part of.
async fn who(guard: &Guard, parts: &Parts, method: &Method) -> Result<Caller, Turned> {
    if guard.entrance == Entrance::Socket {
        return Ok(Caller { name: "socket".to_owned(), actor: Actor::Host, scopes: vec![Scope::Admin], way: Way::Socket });
    }
    let unknown = |actor, reason| {
        let problem = Problem::new(Code::Unauthenticated, "send a token that is known and has not expired: Authorization: Bearer …");
        Turned { problem, told: Some((actor, reason)) }
    };
    let stranger = |reason| unknown(Actor::Stranger, reason);
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer).filter(|token| token.starts_with(PREFIX));
        let hash = TokenHash::of(token.ok_or_else(|| stranger("unknown-token"))?);
        let found = kept(&guard.api, &hash).await?.ok_or_else(|| stranger("unknown-token"))?;
        if found.is_over(SystemTime::now()) {
            return Err(unknown(Actor::Token(found.name), "expired-token"));
        }
        return Ok(Caller::of(found, Way::Token(hash)));
    }
    let sessions = guard.api.sessions.as_ref().ok_or_else(|| stranger("no-token"))?;
    let Some(session) = sessions.of(&parts.headers) else {
        return Err(stranger(if sessions.is_meant_by(&parts.headers) { "session-over" } else { "no-token" }));
    };
    let Some(mut caller) = vouched(&guard.api, &session.who).await? else {
        // It is over with its token.
        sessions.close(session.id);
        return Err(stranger("session-over"));
    };
    let of_a_page = method == Method::GET || (is_same_origin(&parts.headers) && session.is_shown_by(&parts.headers));
    if !of_a_page || is_elsewhere(&parts.headers) {
        let words = "the request does not come from a page of the session: it lacks its CSRF token or origin";
        return Err(Turned { problem: Problem::new(Code::Forbidden, words), told: Some((caller.actor(), "csrf")) });
    }
    caller.way = Way::Session(session.who, Some(session.id));
    Ok(caller)
}

/// Whether a browser says that a request comes from a page of another site. One without a page, as by an address that was typed, says `none`.
fn is_elsewhere(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// What may be asked in a session of this one's; nothing where it is over.
pub(in crate::http) async fn vouched(api: &Api, who: &Who) -> Result<Option<Caller>, Problem> {
    let way = Way::Session(who.clone(), None);
    Ok(match who {
        Who::Token(hash) => stored(api, hash).await?.map(|token| Caller::of(token, way)),
        Who::Person { name, scopes } => {
            let actor = Actor::Dashboard(Some(name.clone()));
            Some(Caller { name: name.clone(), actor, scopes: parsed(scopes), way })
        }
    })
}

/// A token that opens something still.
async fn stored(api: &Api, hash: &TokenHash) -> Result<Option<StoredToken>, Problem> {
    Ok(kept(api, hash).await?.filter(|token| !token.is_over(SystemTime::now())))
}

/// A token that was not revoked.
async fn kept(api: &Api, hash: &TokenHash) -> Result<Option<StoredToken>, Problem> {
    api.store.token(hash).await.map_err(|why| Problem::new(Code::Store, why.to_string()))
}

/// What a later version has made opens nothing here.
fn parsed(scopes: &str) -> Vec<Scope> {
    scopes.split(' ').filter_map(|scope| scope.parse().ok()).collect()
}

/// Ends what is told without end when who hears it may not any more.
fn while_known(api: &Arc<Api>, caller: Option<Caller>, response: Response) -> Response {
    let is_events = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let endless = is_events || response.extensions().get::<Endless>().is_some();
    let Some(caller) = caller.filter(|caller| endless && !matches!(caller.way, Way::Socket)) else { return response };
    let api = Arc::clone(api);
    let over = async move {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            // Records that cannot be read right now end nothing.
            if matches!(caller.is_known(&api).await, Ok(false)) {
                return;
            }
        }
    };
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(Box::pin(over))))
}

/// The token of an `Authorization` header.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

// === impl Acquainted ===

impl Acquainted {
    pub(in crate::http) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Caller ===

impl Caller {
    fn of(token: StoredToken, way: Way) -> Self {
        let name = format!("token {}", token.name);
        let actor = match &way {
            Way::Session(..) => Actor::Dashboard(Some(name.clone())),
            Way::Socket | Way::Token(_) => Actor::Token(token.name),
        };
        Self { name, actor, scopes: parsed(&token.scopes), way }
    }

    /// Who it is, of which there is one.
    pub(in crate::http) fn name(&self) -> &str {
        &self.name
    }

    /// What may be asked, in words.
    pub(in crate::http) fn scopes(&self) -> Vec<String> {
        self.scopes.iter().map(Scope::to_string).collect()
    }

    /// The same, as the audit trail has it.
    pub(super) fn actor(&self) -> Actor {
        self.actor.clone()
    }

    /// Whether it is still known that this one may ask.
    async fn is_known(&self, api: &Api) -> Result<bool, Problem> {
        match &self.way {
            Way::Socket => Ok(true),
            Way::Token(hash) => Ok(stored(api, hash).await?.is_some()),
            Way::Session(who, id) => {
                let goes_on = id.is_none_or(|id| api.sessions.as_ref().is_some_and(|sessions| sessions.goes_on(id)));
                Ok(goes_on && vouched(api, who).await?.is_some())
            }
        }
    }
}

// === impl Scope ===

impl Scope {
    /// Whether it is one of those that open a route, whose path names this workspace.
    fn opens(&self, route: &[String], named: Option<&str>) -> bool {
        let says = |word: &str| route.iter().any(|scope| scope == word);
        match self {
            Self::Admin => true,
            Self::Read => says("read"),
            Self::Provision => says("provision"),
            Self::Workspace(name) => says("workspace") && named == Some(name.as_str()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("admin"),
            Self::Read => f.write_str("read"),
            Self::Provision => f.write_str("provision"),
            Self::Workspace(name) => write!(f, "workspace:{name}"),
        }
    }
}

impl FromStr for Scope {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        match text {
            "admin" => Ok(Self::Admin),
            "read" => Ok(Self::Read),
            "provision" => Ok(Self::Provision),
            _ => match text.strip_prefix("workspace:") {
                Some(name) => Ok(Self::Workspace(name.parse()?)),
                None => Err(Problem::refused("a scope is admin, read, provision, or workspace: and a name")),
            },
        }
    }
}
