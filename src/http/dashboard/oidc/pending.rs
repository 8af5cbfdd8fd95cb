//! A login that is under way at the provider: what must be known when the browser comes back.
//!
//! The browser itself keeps it, sealed in a cookie with a key that this process alone has. So strangers who begin logins without end take no
//! memory and push nobody out, and what comes back in another browser than it began in is nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use axum::http::HeaderValue;
use axum::http::header::{COOKIE, HeaderMap};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// What only this process can seal and open.
pub(super) struct Seal(RandomizedNonceKey);

/// A login that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// What the provider hands back with the browser.
    pub(super) state: String,
    /// What it puts into what it says of her.
    pub(super) nonce: String,
    /// What proves that whoever asks for her claims is who began.
    pub(super) verifier: String,
    /// When it began, in seconds since 1970.
    began: u64,
}

/// How long somebody may take at the provider.
const PATIENCE: Duration = Duration::from_secs(600);

const SECURE_COOKIE: &str = "__Host-innkeeper-login";
const PLAIN_COOKIE: &str = "innkeeper-login";

/// A longer cookie was not made here.
const LONGEST: usize = 2048;

// === impl Seal ===

impl Seal {
    /// A new key.
    pub(super) fn new() -> Option<Self> {
        let key: [u8; 32] = rand::random();
        RandomizedNonceKey::new(&AES_256_GCM, &key).ok().map(Self)
    }

    /// The `Set-Cookie` that has the browser keep it. It is sent along when the provider sends her back, which is another site's doing.
    pub(super) fn cookie(&self, pending: &Pending, encrypted: bool) -> Option<HeaderValue> {
        let mut bytes = serde_json::to_vec(pending).ok()?;
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut bytes).ok()?;
        let sealed = BASE64URL_NOPAD.encode(&[nonce.as_ref().as_slice(), &bytes].concat());
        let (name, secure) = if encrypted { (SECURE_COOKIE, "; Secure") } else { (PLAIN_COOKIE, "") };
        HeaderValue::try_from(format!("{name}={sealed}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}", PATIENCE.as_secs())).ok()
    }

    /// The login that a request says it ends, if this browser began it and not too long ago.
    pub(super) fn open(&self, headers: &HeaderMap, state: &str, encrypted: bool) -> Option<Pending> {
        let name = if encrypted { SECURE_COOKIE } else { PLAIN_COOKIE };
        let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
        let all = lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        let sealed = all.filter(|(found, value)| *found == name && value.len() <= LONGEST).map(|(_, value)| value);
        sealed.filter_map(|sealed| self.unsealed(sealed)).find(|pending| pending.is_ended_by(state))
    }

    fn unsealed(&self, sealed: &str) -> Option<Pending> {
        let mut bytes = BASE64URL_NOPAD.decode(sealed.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(aws_lc_rs::aead::NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.0.open_in_place(nonce, Aad::empty(), sealed).ok()?;
        serde_json::from_slice(plain).ok()
    }
}

impl Pending {
    /// One that begins now.
    pub(super) fn new(state: String, nonce: String, verifier: String) -> Self {
        Self { state, nonce, verifier, began: now() }
    }

    fn is_ended_by(&self, state: &str) -> bool {
        let in_time = now().checked_sub(self.began).is_some_and(|took| took <= PATIENCE.as_secs());
        in_time && bool::from(self.state.as_bytes().ct_eq(state.as_bytes()))
    }
}

/// The `Set-Cookie` that has a browser forget it.
pub(super) fn forgotten(encrypted: bool) -> HeaderValue {
    HeaderValue::from_static(if encrypted {
        "__Host-innkeeper-login=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure"
    } else {
        "innkeeper-login=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    })
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(cookie: &HeaderValue) -> HeaderMap {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(format!("a=b; {pair}")).unwrap())])
    }

    fn pending() -> Pending {
        Pending::new("state".to_owned(), "nonce".to_owned(), "verifier".to_owned())
    }

    #[test]
    fn only_the_browser_that_began_ends_it_and_with_the_right_word() {
        let seal = Seal::new().unwrap();
        for encrypted in [true, false] {
            let cookie = seal.cookie(&pending(), encrypted).unwrap();
            assert!(cookie.to_str().unwrap().contains("; HttpOnly; SameSite=Lax") && !cookie.to_str().unwrap().contains("verifier"));
            assert_eq!(seal.open(&sent(&cookie), "state", encrypted), Some(pending()));
            assert_eq!(seal.open(&sent(&cookie), "stat", encrypted), None);
            assert_eq!(seal.open(&sent(&cookie), "state", !encrypted), None, "one kind is not taken for the other");
            assert_eq!(seal.open(&HeaderMap::new(), "state", encrypted), None);
            assert_eq!(Seal::new().unwrap().open(&sent(&cookie), "state", encrypted), None, "another process");
        }
    }

    #[test]
    fn one_that_took_too_long_or_was_changed_is_none() {
        let seal = Seal::new().unwrap();
        let old = Pending { began: now() - PATIENCE.as_secs() - 1, ..pending() };
        assert_eq!(seal.open(&sent(&seal.cookie(&old, true).unwrap()), "state", true), None);
        let ahead = Pending { began: now() + 60, ..pending() };
        assert_eq!(seal.open(&sent(&seal.cookie(&ahead, true).unwrap()), "state", true), None);
        let cookie = seal.cookie(&pending(), true).unwrap();
        let changed = HeaderValue::try_from(cookie.to_str().unwrap().replacen(';', "A;", 1)).unwrap();
        assert_eq!(seal.open(&sent(&changed), "state", true), None);
    }
}
