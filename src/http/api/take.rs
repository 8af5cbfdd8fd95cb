//! What is taken from a request, each bounded and parsed once: names in the path, the query, a JSON body, a precondition.

use std::str::FromStr;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use data_encoding::BASE64_NOPAD;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::name::{AccountName, WorkspaceName};
use crate::recording::RecordingId;

/// Longest body, in bytes: all variables of a workspace, each byte of them escaped.
const LONGEST: usize = 512 * 1024;

/// How long a body may take to arrive.
const DEADLINE: Duration = Duration::from_secs(10);

/// The workspace that the path names.
pub(super) struct Named(pub(super) WorkspaceName);

/// The account that the path names.
pub(super) struct AccountNamed(pub(super) AccountName);

/// The link that the path ends with: hexadecimal digits.
pub(super) struct LinkNamed(pub(super) String);

/// The key that the path ends with, by its fingerprint, as `SHA256:…`.
pub(super) struct KeyNamed(pub(super) String);

/// The number that the path ends with.
pub(super) struct Numbered(pub(super) u64);

/// The recording that the path names.
pub(super) struct Recording(pub(super) RecordingId);

/// What the query says. What it says that nobody asks for is refused.
pub(super) struct Query<T>(pub(super) T);

/// A JSON body, whole and in time, and the bytes it was made of. What is wrong with it is not quoted: it may be a secret.
pub(in crate::http) struct Body<T>(pub(in crate::http) T, pub(in crate::http) Vec<u8>);

/// The `ETag` that the thing must have still, where the request names one.
pub(super) struct IfMatch(pub(super) Option<String>);

/// A parameter of the path.
async fn parameter<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<String, Problem> {
    let all = RawPathParams::from_request_parts(parts, state).await.map_err(|why| Problem::malformed(why.to_string()))?;
    let found = all.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned());
    found.ok_or_else(|| Problem::malformed(format!("the path has no {name}")))
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(WorkspaceName::from_str(&parameter(parts, state, "name").await?)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AccountNamed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(AccountName::parse(&parameter(parts, state, "account").await?)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LinkNamed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = parameter(parts, state, "link").await?;
        let is_id = (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { Ok(Self(id)) } else { Err(Problem::malformed("a link is named by hexadecimal digits")) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for KeyNamed {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = parameter(parts, state, "fingerprint").await?;
        let digest = text.strip_prefix("SHA256:").map(|digest| BASE64_NOPAD.decode(digest.as_bytes()));
        let is_one = matches!(digest, Some(Ok(bytes)) if bytes.len() == 32);
        if is_one { Ok(Self(text)) } else { Err(Problem::malformed("a key is named by its fingerprint, as SHA256:…, with / as %2F")) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Numbered {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|_| Problem::malformed("the last part of the path must be a number"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Recording {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = parameter(parts, state, "id").await?;
        text.parse().map(Self).map_err(|()| Problem::new(Code::NotFound, "there is no such recording"))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(query) = axum::extract::Query::from_request_parts(parts, state).await?;
        Ok(Self(query))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(Code::MediaType, "the body must be application/json"));
        }
        let bytes = tokio::time::timeout(DEADLINE, to_bytes(request.into_body(), LONGEST)).await;
        let bytes = bytes.map_err(|_| Problem::new(Code::Timeout, "the body did not arrive in time"))?;
        let bytes = bytes.map_err(|_| Problem::new(Code::TooLong, "the body broke off, or is longer than is read"))?;
        let parsed = serde_json::from_slice(&bytes).map_err(|why| {
            let (line, column) = (why.line(), why.column());
            Problem::malformed(format!(
                "the body is not understood at line {line}, column {column}: a key that is not known, one that is missing, or a value that \
                 cannot be; is the gateway of another version?"
            ))
        })?;
        Ok(Self(parsed, bytes.into()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(IF_MATCH) else { return Ok(Self(None)) };
        let value = value.to_str().map(str::trim).map_err(|_| Problem::malformed("If-Match is not text"))?;
        Ok(Self((value != "*").then(|| value.to_owned())))
    }
}

impl IfMatch {
    /// The revision that the thing must have still, as [`etag`] wrote it.
    pub(super) fn revision(&self) -> Result<Option<i64>, Problem> {
        let Some(tag) = &self.0 else { return Ok(None) };
        let number = tag.strip_prefix("\"r").and_then(|rest| rest.strip_suffix('"')).and_then(|number| number.parse().ok());
        // One that was never given out fits nothing.
        number.map(Some).ok_or_else(changed)
    }

    /// Refuses what is not as it was.
    pub(super) fn check(&self, now: &str) -> Result<(), Problem> {
        match &self.0 {
            Some(tag) if tag != now => Err(changed()),
            _ => Ok(()),
        }
    }
}

/// The `ETag` of a revision.
pub(super) fn etag(revision: i64) -> String {
    format!("\"r{revision}\"")
}

fn changed() -> Problem {
    Problem::new(Code::Changed, "it is not as If-Match says any more; read it again")
}
