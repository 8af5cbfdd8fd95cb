//! `Idempotency-Key`: a request that makes something, sent again with the same key, makes nothing twice and is answered the same.
//!
//! The key is on the disk before anything is made. A kill from there to the answer leaves it without one, and the same request sent again goes
//! on from whatever was made: nobody else has, since it was looked for before the key was kept.
//!
//! A body may have a password in it. What is kept of it is an HMAC by the key, and of the key its digest: who reads the disk can try neither.

use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Api;
use super::access::Caller;
use super::events::Watches;
use super::problem::{Code, Problem};
use crate::store::{Sent, StoreError};

/// The key of a request, if it has one, and what else makes it the same request.
pub(super) struct Key {
    key: Option<String>,
    sender: String,
    target: String,
}

/// What is answered, and what of it is kept to be answered again.
pub(super) struct Made {
    pub(super) status: StatusCode,
    /// The answer.
    pub(super) body: Value,
    /// The same without what is shown only once.
    pub(super) again: Value,
    /// What it is called, where the answer does not say.
    pub(super) named: Option<String>,
}

/// Beside an answer: what the thing is called that was made.
#[derive(Debug, Clone)]
pub(super) struct Named(pub(super) String);

/// Longest key, in bytes: a UUID has 36.
const LONGEST: usize = 255;

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let key = match parts.headers.get("idempotency-key") {
            None => None,
            Some(value) => {
                let text = value.to_str().ok().filter(|text| (1..=LONGEST).contains(&text.len()));
                Some(text.ok_or_else(|| Problem::malformed("Idempotency-Key must be 1 to 255 visible ASCII characters"))?.to_owned())
            }
        };
        let sender = parts.extensions.get::<Caller>().map_or_else(String::new, |caller| caller.name().to_owned());
        Ok(Self { key, sender, target: format!("{} {}", parts.method, parts.uri.path()) })
    }
}

impl Key {
    /// Whether there is one.
    pub(super) fn is_some(&self) -> bool {
        self.key.is_some()
    }

    /// The same; it goes with an answer, and not with events: those are told to who began it.
    pub(super) fn is_for_an_answer(&self, watches: &Watches) -> Result<bool, Problem> {
        if self.key.is_some() && watches.0 {
            return Err(Problem::malformed("an Idempotency-Key goes with an answer, not with text/event-stream"));
        }
        Ok(self.is_some())
    }

    /// Answers what was answered before, or makes what is asked for. `free` looks whether it can be made before anything is; `make` makes it,
    /// and is told whether an earlier process may have begun to.
    pub(super) async fn once<M>(
        self,
        api: Arc<Api>,
        body: Vec<u8>,
        free: impl Future<Output = Result<(), Problem>>,
        make: impl FnOnce(bool) -> M + Send + 'static,
    ) -> Result<Response, Problem>
    where
        M: Future<Output = Result<Made, Problem>> + Send + 'static,
    {
        let Self { key, sender, target } = self;
        let Some(key) = key else {
            free.await?;
            return Ok(make(false).await?.into_response());
        };
        let request = digest(&key, &target, &body);
        let key = hex::encode(Sha256::digest(&key));
        if !api.store.known_request(&sender, &key).await.map_err(unusable)? {
            free.await?;
        }
        let begun = match api.store.sent(&sender, &key, request, api.run).await.map_err(unusable)? {
            Sent::First => false,
            Sent::Interrupted => true,
            Sent::Busy => return Err(Problem::new(Code::KeyBusy, "the first request with this Idempotency-Key goes on; ask again")),
            Sent::Other => return Err(Problem::new(Code::KeyReused, "this Idempotency-Key came with another request before")),
            Sent::Answered(status, answer) => return Ok(replayed(status, &answer)),
        };
        let making = tokio::spawn(async move {
            let made = finished(tokio::spawn(make(begun))).await;
            let kept = match &made {
                Ok(made) => api.store.answered(&sender, &key, made.status.as_u16(), made.again.to_string()).await,
                Err(_) => api.store.unsent(&sender, &key).await,
            };
            if let Err(why) = kept {
                // The same key sent again is told so, or that there is one.
                tracing::warn!(%why, "cannot keep what became of an idempotency key");
            }
            made
        });
        Ok(finished(making).await?.into_response())
    }
}

/// What makes it the same request, for who has the key.
fn digest(key: &str, target: &str, body: &[u8]) -> [u8; 32] {
    let mut by = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
    for part in [target.as_bytes(), &[0], body] {
        by.update(part);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(by.sign().as_ref());
    digest
}

async fn finished(making: tokio::task::JoinHandle<Result<Made, Problem>>) -> Result<Made, Problem> {
    making.await.unwrap_or_else(|why| Err(Problem::new(Code::Store, why.to_string())))
}

fn unusable(why: StoreError) -> Problem {
    Problem::new(Code::Store, why.to_string())
}

fn replayed(status: u16, answer: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let body: Value = serde_json::from_str(answer).unwrap_or_default();
    let mut response = (status, Json(body)).into_response();
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    response
}

impl Made {
    /// Something of which all may be said again.
    pub(super) fn plain(status: StatusCode, body: Value) -> Self {
        Self { status, again: body.clone(), body, named: None }
    }

    /// The same of something of this name.
    pub(super) fn of(self, name: impl ToString) -> Self {
        Self { named: Some(name.to_string()), ..self }
    }
}

impl IntoResponse for Made {
    fn into_response(self) -> Response {
        let key = ["workspace", "name", "id"].into_iter().find_map(|key| self.body[key].as_str().map(str::to_owned));
        let named = self.named.or(key);
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(named) = named {
            response.extensions_mut().insert(Named(named));
        }
        response
    }
}
