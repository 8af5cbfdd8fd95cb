//! Sessions of browsers: who has shown who they are once, and has a cookie from then on. Kept in memory: a restart of the gateway ends them.
//!
//! A cookie alone opens nothing that changes anything. A page of another site can have a browser send it, and so such a request needs the
//! session's CSRF token too, which only pages of ours can read, and a word of the browser's that it comes from one ([`is_same_origin`]).
//!
//! Knows nothing of how somebody shows who they are: whoever does that calls [`Sessions::open`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::http::header::{COOKIE, HOST, HeaderMap, ORIGIN};
use axum::http::{HeaderName, HeaderValue};
use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::store::TokenHash;

/// All sessions there are.
pub(super) struct Sessions {
    lifetime: Duration,
    table: Mutex<HashMap<Id, Entry>>,
}

/// Whose session it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    /// Whoever has this token. It says what is opened, and when it is over the session is.
    Token(TokenHash),
    /// Somebody whom another vouches for.
    Person {
        /// Who that is, of which there is one: it stands in the audit trail.
        name: String,
        /// What is opened, in the words of a token's scopes, with spaces between them.
        scopes: String,
    },
}

/// A session as a request finds it.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: Id,
    pub(super) who: Who,
    /// What a request that changes something must show.
    pub(super) csrf: String,
    /// For how long it goes on.
    pub(super) left: Duration,
}

/// A session that has begun.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) session: Session,
    /// The `Set-Cookie` that makes the browser's requests part of it.
    pub(super) cookie: HeaderValue,
}

/// What a session is found by: the hash of what its cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id([u8; 32]);

struct Entry {
    who: Who,
    csrf: String,
    began: Instant,
    encrypted: bool,
}

/// Where a request shows the session's CSRF token.
pub(super) const CSRF: HeaderName = HeaderName::from_static("x-innkeeper-csrf");

/// What a browser says of where a request comes from. No page can set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The cookie. The first is taken by browsers from nobody but the host itself, over an encrypted connection.
const SECURE_COOKIE: &str = "__Host-innkeeper-session";
const PLAIN_COOKIE: &str = "innkeeper-session";

/// Sessions at once; one more ends the oldest. More than administrators have browsers.
const MOST: usize = 1024;
/// Those of one token or person, so that who opens many ends nobody else's.
const MOST_OF_ONE: usize = 32;

// === impl Sessions ===

impl Sessions {
    /// None yet; each goes on for as long as this.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, table: Mutex::default() }
    }

    /// Begins one. `encrypted`: the browser speaks to us, or to a proxy before us, by TLS.
    pub(super) fn open(&self, who: Who, encrypted: bool) -> Opened {
        let (value, csrf) = (secret(), secret());
        let id = Id::of(&value);
        let entry = Entry { who, csrf, began: Instant::now(), encrypted };
        let session = entry.session(id, self.lifetime);
        {
            let mut table = self.table.lock();
            table.retain(|_, entry| entry.began.elapsed() < self.lifetime);
            let of_one = |entry: &Entry| entry.who == session.who;
            if table.values().filter(|entry| of_one(entry)).count() >= MOST_OF_ONE {
                remove_oldest(&mut table, of_one);
            }
            if table.len() >= MOST {
                remove_oldest(&mut table, |_| true);
            }
            table.insert(id, entry);
        }
        Opened { session, cookie: cookie(&value, self.lifetime, encrypted) }
    }

    /// The session that a request is part of.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let table = self.table.lock();
        cookies(headers).find_map(|(name, value)| {
            let encrypted = match name {
                SECURE_COOKIE => true,
                PLAIN_COOKIE => false,
                _ => return None,
            };
            let id = Id::of(value);
            let entry = table.get(&id).filter(|entry| entry.encrypted == encrypted && entry.began.elapsed() < self.lifetime)?;
            Some(entry.session(id, self.lifetime))
        })
    }

    /// Whether a request has a cookie of one, which may be over.
    pub(super) fn is_meant_by(&self, headers: &HeaderMap) -> bool {
        cookies(headers).any(|(name, _)| matches!(name, SECURE_COOKIE | PLAIN_COOKIE))
    }

    /// Whether a session still goes on, by the time at least.
    pub(super) fn goes_on(&self, id: Id) -> bool {
        self.table.lock().get(&id).is_some_and(|entry| entry.began.elapsed() < self.lifetime)
    }

    /// Ends one.
    pub(super) fn close(&self, id: Id) {
        self.table.lock().remove(&id);
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.table.lock().len()).finish_non_exhaustive()
    }
}

fn remove_oldest(table: &mut HashMap<Id, Entry>, of: impl Fn(&Entry) -> bool) {
    let oldest = table.iter().filter(|(_, entry)| of(entry)).min_by_key(|(_, entry)| entry.began).map(|(id, _)| *id);
    oldest.map(|id| table.remove(&id));
}

// === impl Session, Entry, Id ===

impl Session {
    /// Whether a request shows what nobody but a page of ours knows.
    pub(super) fn is_shown_by(&self, headers: &HeaderMap) -> bool {
        headers.get(CSRF).is_some_and(|shown| bool::from(shown.as_bytes().ct_eq(self.csrf.as_bytes())))
    }
}

impl Entry {
    fn session(&self, id: Id, lifetime: Duration) -> Session {
        Session { id, who: self.who.clone(), csrf: self.csrf.clone(), left: lifetime.saturating_sub(self.began.elapsed()) }
    }
}

impl Id {
    fn of(value: &str) -> Self {
        Self(Sha256::digest(value.as_bytes()).into())
    }
}

/// Whether a browser says, or lets see, that a request comes from a page of ours.
///
/// Browsers that speak to us by TLS, or on this machine, say it outright. Others at least name the page's origin in whatever changes
/// something; a proxy before us must pass `Host` on then.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(FETCH_SITE) {
        return text(&FETCH_SITE) == Some("same-origin");
    }
    match (text(&ORIGIN).and_then(|origin| origin.split_once("://")), text(&HOST)) {
        (Some((_, host)), Some(own)) => host.eq_ignore_ascii_case(own),
        _ => false,
    }
}

/// Whether the page that a request comes from was read by TLS.
pub(super) fn is_encrypted(headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// The `Set-Cookie` that has a browser forget either.
pub(super) fn forgotten() -> [HeaderValue; 2] {
    [
        HeaderValue::from_static("__Host-innkeeper-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure"),
        HeaderValue::from_static("innkeeper-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict"),
    ]
}

fn cookie(value: &str, lifetime: Duration, encrypted: bool) -> HeaderValue {
    let (name, secure) = if encrypted { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
    let text = format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", lifetime.as_secs());
    // Letters and digits, which a header takes.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The cookies of a request.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='))
}

/// 256 random bits, as text.
fn secret() -> String {
    BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn person(name: &str) -> Who {
        Who::Person { name: name.to_owned(), scopes: "read".to_owned() }
    }

    /// What a browser sends back of a cookie.
    fn sent(opened: &Opened) -> HeaderMap {
        let cookie = opened.cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(format!("other=1; {cookie}; more=2")).unwrap())])
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn it_is_found_by_its_cookie_until_it_is_closed_or_over() {
        let sessions = Sessions::new(HOUR);
        let opened = sessions.open(person("ann"), false);
        let found = sessions.of(&sent(&opened)).unwrap();
        assert_eq!((&found.who, &found.csrf), (&person("ann"), &opened.session.csrf));
        let guessed = headers(&[("cookie", "innkeeper-session=guessed")]);
        assert!(sessions.of(&guessed).is_none() && sessions.is_meant_by(&guessed));
        assert!(!sessions.is_meant_by(&headers(&[("cookie", "other=1")])));
        sessions.close(found.id);
        assert!(sessions.of(&sent(&opened)).is_none() && !sessions.goes_on(found.id));
        let brief = Sessions::new(Duration::ZERO);
        let opened = brief.open(person("ann"), false);
        assert!(brief.of(&sent(&opened)).is_none());
    }

    #[test]
    fn a_cookie_says_what_it_must_and_one_kind_is_not_taken_for_the_other() {
        let sessions = Sessions::new(HOUR);
        let plain = sessions.open(person("ann"), false).cookie.to_str().unwrap().to_owned();
        let (_, attributes) = plain.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Strict");
        let opened = sessions.open(person("ann"), true);
        let secure = opened.cookie.to_str().unwrap();
        assert!(secure.starts_with("__Host-innkeeper-session=") && secure.ends_with("; SameSite=Strict; Secure"), "{secure}");
        assert!(sessions.of(&sent(&opened)).is_some());
        let as_plain = secure.split(';').next().unwrap().replace("__Host-", "");
        let as_plain = HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(as_plain).unwrap())]);
        assert!(sessions.of(&as_plain).is_none());
    }

    #[test]
    fn who_opens_many_ends_her_own_oldest_and_all_are_bounded() {
        let sessions = Sessions::new(HOUR);
        let others = sessions.open(person("ben"), false);
        let first = sessions.open(person("ann"), false);
        for _ in 0..MOST_OF_ONE {
            sessions.open(person("ann"), false);
        }
        assert!(sessions.of(&sent(&first)).is_none());
        assert!(sessions.of(&sent(&others)).is_some());
        for number in 0..MOST {
            sessions.open(person(&number.to_string()), false);
        }
        assert_eq!(sessions.table.lock().len(), MOST);
    }

    #[test]
    fn what_comes_from_another_site_is_told() {
        for (said, same) in [
            (&[("sec-fetch-site", "same-origin"), ("host", "a")][..], true),
            (&[("sec-fetch-site", "same-site"), ("origin", "https://a"), ("host", "a")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://a:2280"), ("host", "a:2280")], true),
            (&[("origin", "http://b:2280"), ("host", "a:2280")], false),
            (&[("origin", "http://a:80"), ("host", "a:2280")], false),
            (&[("origin", "null"), ("host", "a")], false),
            (&[("host", "a")], false),
            (&[], false),
        ] {
            assert_eq!(is_same_origin(&headers(said)), same, "{said:?}");
        }
    }

    #[test]
    fn only_the_sessions_own_token_shows_it() {
        let sessions = Sessions::new(HOUR);
        let (one, other) = (sessions.open(person("ann"), false).session, sessions.open(person("ann"), false).session);
        let shown = |text: &str| HeaderMap::from_iter([(CSRF, HeaderValue::try_from(text).unwrap())]);
        assert!(one.is_shown_by(&shown(&one.csrf)));
        assert!(!one.is_shown_by(&shown(&other.csrf)) && !one.is_shown_by(&HeaderMap::new()));
    }
}
