//! What an application gets of a request's head, and a client of an answer's: pure.

use std::net::IpAddr;

use hyper::header::{
    CONNECTION, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::access::is_ours;
use super::target::Addressed;

/// What begins like this says who it is about, and only we say that.
const OURS: &str = "x-innkeeper-";
const FORWARDED_HOW: [&str; 6] =
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix", "x-real-ip"];
/// Between two neighbours only (RFC 9110, section 7.6.1).
const NEIGHBOURS: [HeaderName; 4] = [TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const NEIGHBOURS_BY_NAME: [&str; 4] = ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];

/// Who asks, as an application is told.
pub(super) struct Visitor<'a> {
    pub(super) from: IpAddr,
    pub(super) encrypted: bool,
    /// For whom the link was made.
    pub(super) name: Option<&'a str>,
    /// Whether there was a link.
    pub(super) linked: bool,
}

/// What protocol both sides are to go over to, if the head asks for it or agrees to it.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let asks = asks.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asks).cloned()
}

/// Takes out what is between two neighbours, and what the message names as such.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // `Connection: host` or a length would change what the message is.
    let may_go = |name: &HeaderName| *name != HOST && *name != hyper::header::CONTENT_LENGTH && *name != COOKIE;
    for name in named.iter().filter(|name| may_go(name)).chain([&CONNECTION]).chain(&NEIGHBOURS) {
        headers.remove(name);
    }
    for name in NEIGHBOURS_BY_NAME {
        headers.remove(name);
    }
}

/// For the application: the client's, without what is ours or claims to be.
pub(super) fn inward(headers: &mut HeaderMap, at: &Addressed, visitor: &Visitor<'_>) {
    let upgrade = upgrade(headers);
    strip(headers);
    let claimed: Vec<HeaderName> = headers.keys().filter(|name| claims_to_be_ours(name)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    let cookies: Vec<String> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .map(str::trim)
        .filter(|cookie| !cookie.is_empty() && !is_ours(cookie.split('=').next().unwrap_or_default().trim()))
        .map(str::to_owned)
        .collect();
    headers.remove(COOKIE);
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if !cookies.is_empty() {
        set("cookie", &cookies.join("; "));
    }
    let scheme = if visitor.encrypted { "https" } else { "http" };
    set("host", &at.authority);
    set("x-forwarded-for", &visitor.from.to_string());
    set("x-forwarded-host", &at.authority);
    set("x-forwarded-proto", scheme);
    if !at.prefix.is_empty() {
        set("x-forwarded-prefix", &at.prefix);
    }
    set("x-innkeeper-workspace", at.target.workspace.as_str());
    set("x-innkeeper-access", if visitor.linked { "link" } else { "public" });
    if let Some(name) = visitor.name {
        set("x-innkeeper-visitor", name);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// Names that servers read as one of ours: to CGI and its kin a `_` is a `-`, and `Proxy` the variable by which programs find their proxy.
fn claims_to_be_ours(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with(OURS) || name == FORWARDED.as_str() || name == "proxy" || FORWARDED_HOW.contains(&name.as_str())
}

/// For the client: the application's, without cookies for other hosts or by our name, and with paths as the client knows them.
pub(super) fn outward(headers: &mut HeaderMap, at: &Addressed) {
    let upgrade = upgrade(headers);
    strip(headers);
    let cookies: Vec<HeaderValue> =
        headers.get_all(SET_COOKIE).iter().filter_map(|line| set_cookie(line.to_str().ok()?, &at.prefix)).collect();
    headers.remove(SET_COOKIE);
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    if !at.prefix.is_empty()
        && let Some(to) = headers.get(LOCATION).and_then(|to| to.to_str().ok()).filter(|to| to.starts_with('/') && !to.starts_with("//"))
        && let Ok(to) = HeaderValue::try_from(format!("{}{to}", at.prefix))
    {
        headers.insert(LOCATION, to);
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, upgrade);
    }
}

/// A cookie as it may be set: of this host alone, and below the application's own path.
fn set_cookie(line: &str, prefix: &str) -> Option<HeaderValue> {
    let mut parts = line.split(';').map(str::trim);
    let pair = parts.next()?;
    if is_ours(pair.split('=').next().unwrap_or_default().trim()) {
        return None;
    }
    let mut kept = vec![pair.to_owned()];
    let mut has_path = false;
    for part in parts {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name.trim().eq_ignore_ascii_case("domain") {
            continue;
        }
        if name.trim().eq_ignore_ascii_case("path") && !prefix.is_empty() {
            has_path = true;
            let value = value.trim();
            kept.push(format!("Path={prefix}{}", if value.starts_with('/') { value } else { "/" }));
            continue;
        }
        kept.push(part.to_owned());
    }
    if !prefix.is_empty() && !has_path {
        kept.push(format!("Path={prefix}/"));
    }
    HeaderValue::try_from(kept.join("; ")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::urls::Target;

    fn at(prefix: &str) -> Addressed {
        let target = Target { workspace: "alice".parse().unwrap(), port: 80 };
        Addressed { target, prefix: prefix.to_owned(), path: "/".parse().unwrap(), authority: "80--alice.example.org".to_owned() }
    }

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn an_application_hears_from_us_alone_who_it_is() {
        let mut headers = map(&[
            ("cookie", "a=1; __Host-innkeeper=secret; b=2;innkeeper-url=secret; __Host-innkeeper-session=secret; innkeeper-session=secret"),
            ("x-innkeeper-visitor", "root"),
            ("x_innkeeper_visitor", "root"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x_forwarded_for", "1.2.3.4"),
            ("proxy", "http://1.2.3.4"),
            ("forwarded", "for=1.2.3.4"),
            ("connection", "close, x-private, content-length, cookie"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("content-length", "5"),
            ("accept", "*/*"),
        ]);
        inward(&mut headers, &at(""), &Visitor { from: "9.9.9.9".parse().unwrap(), encrypted: true, name: None, linked: true });
        let mut names: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        names.sort();
        let expected = [
            "accept: */*",
            "content-length: 5",
            "cookie: a=1; b=2",
            "host: 80--alice.example.org",
            "x-forwarded-for: 9.9.9.9",
            "x-forwarded-host: 80--alice.example.org",
            "x-forwarded-proto: https",
            "x-innkeeper-access: link",
            "x-innkeeper-workspace: alice",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn an_application_sets_cookies_of_its_own_host_only() {
        let lines = [
            ("a=1; Domain=example.org; Path=/; HttpOnly", "", Some("a=1; Path=/; HttpOnly")),
            ("a=1; path=/x", "/@alice/80", Some("a=1; Path=/@alice/80/x")),
            ("a=1", "/@alice/80", Some("a=1; Path=/@alice/80/")),
            ("__Host-innkeeper=x; Path=/", "", None),
            (" innkeeper-url = x", "", None),
            ("innkeeper-session=x; Path=/", "", None),
        ];
        for (line, prefix, expected) in lines {
            assert_eq!(set_cookie(line, prefix).as_ref().map(|value| value.to_str().unwrap()), expected, "{line}");
        }
    }
}
