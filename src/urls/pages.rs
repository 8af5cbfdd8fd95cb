//! What we say ourselves: short, to people in HTML and to programs in plain words. Nothing of a request is in it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::body::Body;

/// How often a page that waits asks again, in seconds.
const AGAIN: u64 = 2;

/// What is said instead of an application's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// The same whether there is anything or not.
    LinkNeeded,
    Malformed,
    Waiting,
    NotReady,
    Asleep,
    Suspended,
    NothingListens,
    Broken,
    TooSlow,
    TooMany,
}

impl Page {
    fn words(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::LinkNeeded => (
                StatusCode::UNAUTHORIZED,
                "This address needs a link",
                "Open the link that you were given, or ask for a new one: they end after a while.",
            ),
            Self::Malformed => (StatusCode::BAD_REQUEST, "That is not understood", "The request is not well formed."),
            Self::Waiting => {
                (StatusCode::SERVICE_UNAVAILABLE, "Starting …", "The workspace sleeps and is being started. This page goes on by itself.")
            }
            Self::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "Not now", "The workspace could not be started. Try again in a moment."),
            Self::Asleep => (StatusCode::SERVICE_UNAVAILABLE, "Asleep", "The workspace sleeps, and this address does not wake it."),
            Self::Suspended => (StatusCode::FORBIDDEN, "Suspended", "The workspace is suspended. Its administrator knows why."),
            Self::NothingListens => {
                (StatusCode::BAD_GATEWAY, "Nothing listens there", "No program in the workspace listens on this port of 127.0.0.1.")
            }
            Self::Broken => {
                (StatusCode::BAD_GATEWAY, "No answer that is one", "The program in the workspace hung up, or does not speak HTTP.")
            }
            Self::TooSlow => (StatusCode::GATEWAY_TIMEOUT, "No answer in time", "The program in the workspace took too long to answer."),
            Self::TooMany => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too much at once",
                "The workspace has as many requests as it may. Try again in a moment.",
            ),
        }
    }

    /// As an answer to a person at a browser, or to a program.
    pub(super) fn answer(self, html: bool) -> Response<Body> {
        let (status, title, words) = self.words();
        let text = if html { html_of(title, words, self == Self::Waiting) } else { format!("{title}: {words}\n") };
        let mut response = Response::new(Body::own(Full::new(Bytes::from(text))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let kind = if html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        );
        if matches!(self, Self::Waiting | Self::NotReady | Self::TooMany) {
            headers.insert(RETRY_AFTER, HeaderValue::from(AGAIN));
        }
        response
    }
}

/// Whether a person reads what is answered.
pub(super) fn is_browser(asked: &HeaderMap) -> bool {
    asked.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
}

fn html_of(title: &str, words: &str, again: bool) -> String {
    let refresh = if again { format!("<meta http-equiv=\"refresh\" content=\"{AGAIN}\">") } else { String::new() };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">{refresh}<title>{title}</title>\
         <style>:root{{color-scheme:light dark}}body{{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}}</style>\
         <h1>{title}</h1><p>{words}</p></html>\n"
    )
}
