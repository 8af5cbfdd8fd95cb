//! One request: whose it is, whether it may, and to the application and back.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONNECTION, HOST, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tracing::{debug, info};

use super::Config;
use super::access::{self, Access};
use super::body::Body;
use super::headers::{self, Visitor};
use super::links::{Links, Shown};
use super::pages::{Page, is_browser};
use super::stays::{Hold, Stays, Unheld};
use super::target::{Addressed, Astray, Target};
use super::upstream::{Failed, Upstream};
use crate::audit::{Actor, Audit, Event, Refusal, What};
use crate::telemetry::Metrics;
use crate::workspace::EnsureError;

/// How long somebody at a browser looks at nothing before she is told that it is being started.
const BLANK: Duration = Duration::from_millis(1500);
/// How long a program waits for a workspace to be ready.
const READY: Duration = Duration::from_secs(60);

/// What all requests share.
pub(super) struct Proxy {
    pub(super) config: Config,
    pub(super) links: Arc<Links>,
    pub(super) stays: Stays,
    pub(super) upstream: Arc<Upstream>,
    pub(super) metrics: Metrics,
    pub(super) audit: Audit,
}

/// Where a connection came in.
#[derive(Clone)]
pub(super) struct Entrance {
    pub(super) from: IpAddr,
    pub(super) encrypted: bool,
    /// The address's only target, and whether it is public.
    pub(super) fixed: Option<Arc<(Target, bool)>>,
}

impl Proxy {
    pub(super) async fn answer(&self, entrance: &Entrance, request: Request<Incoming>) -> Response<Body> {
        let (browser, version) = (is_browser(request.headers()), request.version());
        let (outcome, mut response) = match self.conclude(entrance, request).await {
            Ok(response) => ("answered", response),
            Err((outcome, page)) => (outcome, page.answer(browser)),
        };
        if outcome == "malformed" && version < Version::HTTP_2 {
            // What follows may be of the same kind.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.url_requests.with_label_values(&[outcome]).inc();
        response
    }

    async fn conclude(&self, entrance: &Entrance, request: Request<Incoming>) -> Result<Response<Body>, (&'static str, Page)> {
        let fixed = entrance.fixed.as_deref();
        let at = Addressed::of(&request, &self.config, fixed.map(|(target, _)| target)).map_err(|why| match why {
            Astray::Malformed => ("malformed", Page::Malformed),
            Astray::Nowhere => {
                let named = request.headers().get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
                let named = request.uri().host().map(str::to_owned).or(named).unwrap_or_default();
                self.refuse(entrance, None, named, "no-such-address")
            }
        })?;
        // A tunnel to somewhere else is none of ours.
        if request.method() == Method::CONNECT {
            return Err(("malformed", Page::Malformed));
        }
        if at.path.path() == access::OPEN {
            return self.open(entrance, &at);
        }
        let public =
            fixed.map_or_else(|| self.config.public.contains(&at.target.port), |(_, public)| *public) || self.stays.is_public(&at.target);
        // Before anything is looked up: who may not know learns nothing from how long it takes.
        let access = Access::of(request.headers(), &at, &self.links, public);
        if let Access::None(why) = access {
            return Err(self.refuse(entrance, Some(&at.target), format!("port {}", at.target.port), why));
        }
        // A page that asks again would leave out what a form has sent.
        let looks = request.method() == Method::GET && is_browser(request.headers());
        // Whoever needs none loses nothing with hers.
        let needed = !public;
        let public = matches!(access, Access::Public);
        let hold = if self.is_probe(&request, &at) {
            self.glance(entrance, &at.target, public).await?
        } else {
            self.hold(entrance, &at.target, looks, public).await?
        };
        self.carry(entrance, request, &at, (access, needed), hold).await
    }

    /// A link becomes a cookie, and its address is left.
    fn open(&self, entrance: &Entrance, at: &Addressed) -> Result<Response<Body>, (&'static str, Page)> {
        let refused = |why| self.refuse(entrance, Some(&at.target), format!("a link to port {}", at.target.port), why);
        let (text, to) = access::opened(at).ok_or_else(|| refused("no-link"))?;
        let link = self.links.verify(&text, &at.target).map_err(|unfit| refused(unfit.label()))?.link;
        let encrypted = entrance.encrypted || self.config.behind_tls;
        let to = HeaderValue::try_from(format!("{}{to}", at.prefix)).ok();
        let (Some(cookie), Some(to)) = (access::cookie(&text, &link, at, encrypted), to) else {
            return Err(("malformed", Page::Malformed));
        };
        let mut response = Response::new(Body::nothing());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let headers = response.headers_mut();
        headers.insert(LOCATION, to);
        headers.insert(SET_COOKIE, cookie);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        info!(workspace = %at.target.workspace, port = at.target.port, from = %entrance.from, "link opened");
        let mut event = Event::now(Actor::Visitor(link.visitor), What::LinkOpened { port: at.target.port }).about(&at.target.workspace);
        event.remote = Some(entrance.from);
        self.audit.record(event);
        Ok(response)
    }

    /// Tells the audit trail of a refusal. What is answered is the same whatever the reason.
    fn refuse(&self, entrance: &Entrance, target: Option<&Target>, asked: String, reason: &'static str) -> (&'static str, Page) {
        let (remote, workspace) = (Some(entrance.from), target.map(|target| target.workspace.clone()));
        self.audit.refuse(Refusal { actor: Actor::Stranger, remote, workspace, door: "url", asked, reason });
        ("refused", Page::LinkNeeded)
    }

    /// Whether it is asked for to see whether an application lives: nothing is woken for that, and nothing kept awake. What becomes another
    /// protocol may last, and is used.
    fn is_probe(&self, request: &Request<Incoming>, at: &Addressed) -> bool {
        matches!(*request.method(), Method::GET | Method::HEAD)
            && headers::upgrade(request.headers()).is_none()
            && self.config.probe_paths.iter().any(|path| path == at.path.path())
    }

    async fn glance(&self, entrance: &Entrance, target: &Target, public: bool) -> Result<Hold, (&'static str, Page)> {
        let unready = |why| self.unready(entrance, target, public, why);
        let place = self.stays.place(&target.workspace).map_err(unready)?;
        self.stays.glance(&target.workspace, place).await.map_err(unready)
    }

    fn unready(&self, entrance: &Entrance, target: &Target, public: bool, why: Unheld) -> (&'static str, Page) {
        let refused = |why| self.refuse(entrance, Some(target), format!("port {}", target.port), why);
        match why {
            Unheld::TooMany => ("too-many", Page::TooMany),
            Unheld::Asleep => ("unready", Page::Asleep),
            // A stranger at a public port hears the same of one that is not there and one that was deleted.
            Unheld::Unknown | Unheld::Unready(EnsureError::Deleted) => refused("no-such-workspace"),
            Unheld::Unready(EnsureError::Suspended(_)) => {
                let (outcome, page) = refused("suspended");
                (outcome, if public { page } else { Page::Suspended })
            }
            Unheld::Unready(why) => {
                debug!(workspace = %target.workspace, %why, "not ready for a request");
                ("unready", Page::NotReady)
            }
        }
    }

    async fn hold(&self, entrance: &Entrance, target: &Target, browser: bool, public: bool) -> Result<Hold, (&'static str, Page)> {
        let name = &target.workspace;
        let unready = |why| self.unready(entrance, target, public, why);
        let place = self.stays.place(name).map_err(unready)?;
        let patience = if browser { BLANK } else { READY };
        match timeout(patience, self.stays.hold(name, place)).await {
            Ok(held) => held.map_err(unready),
            Err(_) if browser => {
                self.stays.prepare(name);
                Err(("unready", Page::Waiting))
            }
            Err(_) => Err(("unready", Page::NotReady)),
        }
    }

    async fn carry(
        &self,
        entrance: &Entrance,
        mut request: Request<Incoming>,
        at: &Addressed,
        (access, needed): (Access, bool),
        hold: Hold,
    ) -> Result<Response<Body>, (&'static str, Page)> {
        let ours =
            headers::upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11).map(|_| hyper::upgrade::on(&mut request));
        let shown = if let Access::Linked(shown) = access { Some(shown) } else { None };
        let encrypted = entrance.encrypted || self.config.behind_tls;
        let name = shown.as_ref().and_then(|shown| shown.link.visitor.as_deref());
        headers::inward(request.headers_mut(), at, &Visitor { from: entrance.from, encrypted, name, linked: shown.is_some() });
        // As to a server itself: a path, and the host beside it.
        *request.uri_mut() = at.path.clone().into();
        *request.version_mut() = Version::HTTP_11;
        let asked = self.upstream.ask(&at.target, &hold.stay, request, self.config.answer_within.get()).await;
        let (mut response, mut lent) = asked.map_err(|why| match why {
            Failed::Nobody => ("nobody", Page::NothingListens),
            Failed::Gone => {
                self.stays.forget(&hold.stay);
                ("unready", Page::NotReady)
            }
            Failed::Broken(why) => {
                debug!(workspace = %at.target.workspace, why, "an application's answer");
                ("broken", Page::Broken)
            }
            Failed::TooSlow => ("slow", Page::TooSlow),
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(ours) = ours else { return Err(("broken", Page::Broken)) };
            let theirs = hyper::upgrade::on(&mut response);
            let over = self.over(shown.filter(|_| needed));
            tokio::spawn(async move {
                let _hold = hold;
                let conversing = async {
                    if let (Ok(ours), Ok(theirs), ()) = tokio::join!(ours, theirs, lent.finish()) {
                        let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                        let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
                    }
                };
                // Until either side hangs up, the container is stopped, or the link is over.
                tokio::select! {
                    () = conversing => {}
                    () = over => {}
                }
            });
            headers::outward(response.headers_mut(), at);
            return Ok(response.map(|_| Body::nothing()));
        }
        headers::outward(response.headers_mut(), at);
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| Body::carried(body, lent, hold, Box::pin(self.over(shown.filter(|_| needed))))))
    }

    /// Waits for the end of the link by which somebody came in; without end, if it was by none.
    fn over(&self, shown: Option<Shown>) -> impl Future<Output = ()> + Send + 'static {
        let links = Arc::clone(&self.links);
        async move {
            match shown {
                Some(shown) => links.over(shown).await,
                None => std::future::pending().await,
            }
        }
    }
}
