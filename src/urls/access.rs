//! Who may: a public port, a link, or the cookie that a link became.

use hyper::header::{COOKIE, HeaderMap, HeaderValue};

use super::links::{Link, Links, Shown};
use super::target::Addressed;

/// Where a link is opened, below the application's own paths.
pub const OPEN: &str = "/.innkeeper/open";
/// What a link becomes. Browsers take the first from nobody but the host itself, and only encrypted.
pub(super) const SECURE_COOKIE: &str = "__Host-innkeeper";
pub(super) const PLAIN_COOKIE: &str = "innkeeper-url";

/// What is known of who asks.
pub(super) enum Access {
    /// Nothing, and nothing need be.
    Public,
    /// A link that is good.
    Linked(Shown),
    /// Nothing that would do; why not, in a word.
    None(&'static str),
}

/// Whether a cookie of this name is ours: a link's, or the dashboard's, as to a browser all ports of a host are one.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with(SECURE_COOKIE) || name.starts_with("innkeeper-")
}

impl Access {
    pub(super) fn of(headers: &HeaderMap, at: &Addressed, links: &Links, public: bool) -> Self {
        let mut why = "no-link";
        for (_, value) in cookies(headers).filter(|(name, _)| matches!(*name, SECURE_COOKIE | PLAIN_COOKIE)) {
            match links.verify(value, &at.target) {
                Ok(link) => return Self::Linked(link),
                Err(unfit) => why = unfit.label(),
            }
        }
        if public { Self::Public } else { Self::None(why) }
    }
}

/// The cookies of a request.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='))
}

/// The cookie that a link becomes, for this host or, where that is several workspaces', this path of it.
pub(super) fn cookie(text: &str, link: &Link, at: &Addressed, encrypted: bool) -> Option<HeaderValue> {
    let seconds = link.left().as_secs();
    // A `__Host-` cookie is one of the whole host.
    let (name, path, secure) = match (encrypted, at.prefix.as_str()) {
        (true, "") => (SECURE_COOKIE, "/".to_owned(), "; Secure"),
        (true, prefix) => (PLAIN_COOKIE, format!("{prefix}/"), "; Secure"),
        (false, prefix) => (PLAIN_COOKIE, format!("{prefix}/"), ""),
    };
    HeaderValue::try_from(format!("{name}={text}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")).ok()
}

/// The link in a request for [`OPEN`], and where to go on: a path of the same host, whatever is asked for.
pub(super) fn opened(at: &Addressed) -> Option<(String, String)> {
    let query = at.path.query().filter(|_| at.path.path() == OPEN)?;
    let value =
        |wanted: &str| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
    let to = value("to").filter(|to| is_path(to)).unwrap_or_else(|| "/".to_owned());
    Some((value("t")?, to))
}

/// A path and no other host: browsers read `//host` and `/\host` as one.
fn is_path(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next() == Some(b'/') && !matches!(bytes.next(), Some(b'/' | b'\\')) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_at_the_same_host_only() {
        for (to, goes) in [
            ("/a/b?c", true),
            ("/", true),
            ("//evil.net", false),
            ("/\\evil.net", false),
            ("https://evil.net", false),
            ("/a\r\nb", false),
            ("", false),
        ] {
            assert_eq!(is_path(to), goes, "{to:?}");
        }
    }
}
