//! Why a request was refused: one error for all routes, answered as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::name::NameError;
use crate::workspace::{AskError, EnsureError};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub(in crate::http) struct Problem {
    pub(super) code: Code,
    /// What a person does about it.
    pub(super) detail: String,
}

/// What is wrong, for programs. A word, once given out, keeps its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProblemCode)]
pub(in crate::http) enum Code {
    /// The request is not of the form that is asked for.
    Malformed,
    /// It has no token, or one that is not known any more.
    Unauthenticated,
    /// Its token does not permit this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The thing is there, and this cannot be done to it.
    MethodNotAllowed,
    /// It did not arrive in time.
    Timeout,
    /// There is one of that name.
    Exists,
    /// Nothing runs there.
    NotRunning,
    /// It is not as `If-Match` says any more.
    Changed,
    /// It is longer than is read.
    TooLong,
    /// It is not JSON.
    MediaType,
    /// It is understood, and cannot be: the detail says why not, and what could.
    Refused,
    /// The same `Idempotency-Key` came with another request.
    KeyReused,
    /// The first request with this `Idempotency-Key` has not ended yet.
    KeyBusy,
    /// As many streams are open as may be.
    TooManyStreams,
    /// A place did not come free, or what it takes is not there right now.
    Unavailable,
    /// The engine, or a container, did not do its part.
    Upstream,
    /// What is remembered cannot be read or written.
    Store,
}

/// A problem as it is answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Wire {
    /// Names the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The same in words, always the same ones.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// What is wrong, for programs.
    code: Code,
}

/// What a problem's answer is called.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

// === impl Problem ===

impl Problem {
    pub(in crate::http) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Code::Malformed, detail)
    }

    pub(super) fn refused(detail: impl Into<String>) -> Self {
        Self::new(Code::Refused, detail)
    }

    /// The answer's body.
    pub(super) fn wire(&self) -> Wire {
        let (status, title) = self.code.status();
        let word = serde_json::to_value(self.code).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
        let kind = format!("urn:innkeeper:problem:{word}");
        Wire { kind, title, status: status.as_u16(), detail: self.detail.clone(), code: self.code }
    }
}

// === impl Code ===

impl Code {
    fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "The request is malformed"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "A token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "The token does not permit this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "There is no such thing"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "Not with this method"),
            Self::Timeout => (StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time"),
            Self::Exists => (StatusCode::CONFLICT, "There is one already"),
            Self::NotRunning => (StatusCode::CONFLICT, "Nothing runs there"),
            Self::Changed => (StatusCode::PRECONDITION_FAILED, "It was changed meanwhile"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "The request is too long"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "JSON is needed"),
            Self::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "This cannot be"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request"),
            Self::KeyBusy => (StatusCode::CONFLICT, "The first request with this idempotency key goes on"),
            Self::TooManyStreams => (StatusCode::TOO_MANY_REQUESTS, "Too many streams are open"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Not right now"),
            Self::Upstream => (StatusCode::BAD_GATEWAY, "The engine did not do its part"),
            Self::Store => (StatusCode::INTERNAL_SERVER_ERROR, "The gateway's records cannot be used"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let wire = self.wire();
        let status = self.code.status().0;
        let mut response = (status, Json(wire)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, MEDIA_TYPE);
        match self.code {
            Code::Unauthenticated => drop(headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"innkeeper\""))),
            Code::KeyBusy | Code::TooManyStreams | Code::Unavailable => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("5"))),
            _ => {}
        }
        response
    }
}

impl From<AskError> for Problem {
    fn from(why: AskError) -> Self {
        let code = match &why {
            AskError::NoWorkspace(_) | AskError::NoServices(_) | AskError::NoService(..) | AskError::NoSession(_) => Code::NotFound,
            AskError::NotRunning(_) => Code::NotRunning,
            AskError::Exists(_) => Code::Exists,
            AskError::Changed => Code::Changed,
            AskError::Refused(_) => Code::Refused,
            AskError::Store(_) => Code::Store,
            AskError::Attach(_) => Code::Upstream,
            AskError::Start(why) => match why {
                EnsureError::NoTemplate(_) | EnsureError::Suspended(_) | EnsureError::Deleted | EnsureError::Passing => Code::Refused,
                EnsureError::QueueFull { .. }
                | EnsureError::QueueTimedOut { .. }
                | EnsureError::TooManySessions { .. }
                | EnsureError::TimedOut(_)
                | EnsureError::DiskLow
                | EnsureError::Draining => Code::Unavailable,
                EnsureError::Home(_) | EnsureError::Settings(_) => Code::Store,
                EnsureError::Engine(_) | EnsureError::Image(_) => Code::Upstream,
            },
        };
        Self::new(code, why.to_string())
    }
}

impl From<QueryRejection> for Problem {
    fn from(why: QueryRejection) -> Self {
        Self::malformed(why.body_text())
    }
}

impl From<NameError> for Problem {
    fn from(why: NameError) -> Self {
        Self::malformed(why.to_string())
    }
}
