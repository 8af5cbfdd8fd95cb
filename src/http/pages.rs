//! What is served: `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use moka::future::Cache;
use serde::Serialize;
use tracing::{error, warn};

use crate::telemetry::{Metrics, Outcome, Probe, ask_all};

/// How long one question of `/readyz` may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);

/// How long figures are collected for `/metrics` before it shows those it has.
const REFRESH_DEADLINE: Duration = Duration::from_secs(5);

/// How long an answer is good for. Whoever asks in between gets the same, and who asks while one is made waits for it.
const FRESH: Duration = Duration::from_secs(1);

/// Everything the pages are made from. Cheap to clone.
#[derive(Clone)]
pub struct Pages {
    metrics: Metrics,
    probes: Arc<[Probe]>,
    refresh: Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
    readiness: Cache<(), Arc<Readiness>>,
    exposition: Cache<(), Bytes>,
}

/// The answer of `/readyz`. Why something is not there is in the log: the reason may name what strangers need not know.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    checks: BTreeMap<String, &'static str>,
}

// === impl Pages ===

impl Pages {
    /// Serves these metrics, and is ready when all probes are.
    pub fn new(metrics: Metrics, probes: Vec<Probe>) -> Self {
        let readiness = Cache::builder().max_capacity(1).time_to_live(FRESH).build();
        let exposition = Cache::builder().max_capacity(1).time_to_live(FRESH).build();
        let refresh = Arc::new(|| Box::pin(std::future::ready(())) as BoxFuture<'static, ()>);
        Self { metrics, probes: probes.into(), refresh, readiness, exposition }
    }

    /// Runs `refresh` before the metrics are gathered, for those that are only measured when somebody looks.
    pub fn refreshing(self, refresh: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { refresh: Arc::new(refresh), ..self }
    }

    /// The routes. `HEAD` is answered wherever `GET` is.
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/healthz", get("ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback((StatusCode::NOT_FOUND, "there are /healthz, /readyz, /metrics, /api/v1 and /dashboard/\n"))
            .method_not_allowed_fallback((StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n"))
            .layer(map_response(with_headers))
            .with_state(self)
    }

    async fn ask(&self) -> Readiness {
        let outcomes = ask_all(&self.probes, PROBE_DEADLINE).await;
        let state = |(probe, outcome): (&Probe, &Outcome)| {
            let state = match outcome {
                Outcome::Fine(_) | Outcome::Doubtful(_) => "ok",
                Outcome::Failed(why) => {
                    warn!(check = probe.name, why, "not ready");
                    "failed"
                }
            };
            (probe.name.clone(), state)
        };
        Readiness { ready: outcomes.iter().all(Outcome::is_ready), checks: self.probes.iter().zip(&outcomes).map(state).collect() }
    }

    async fn expose(&self) -> Result<Bytes, prometheus::Error> {
        if tokio::time::timeout(REFRESH_DEADLINE, (self.refresh)()).await.is_err() {
            warn!("figures were not collected in time");
        }
        self.metrics.text().map(Bytes::from)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("probes", &self.probes).finish_non_exhaustive()
    }
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let readiness = pages.readiness.get_with((), async { Arc::new(pages.ask().await) }).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness.as_ref())).into_response()
}

async fn metrics(State(pages): State<Pages>) -> Response {
    match pages.exposition.try_get_with((), pages.expose()).await {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(why) => {
            error!(%why, "metrics cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Says to browsers and caches that these are figures, not pages.
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
