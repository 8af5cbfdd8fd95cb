//! Tokens of the API: what they open and until when. Their values are not here, only what can be told to be one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Transaction, params};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::settings::{durably, now};
use super::{Store, StoreError, seconds, since_epoch};
use crate::name::WorkspaceName;

/// The SHA-256 of a token. It has 256 random bits, which nobody guesses from this.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// Its name, of which there is one.
    pub name: String,
    /// What it opens, in the words of who made it.
    pub scopes: String,
    /// When it was made, to the second.
    pub made: SystemTime,
    /// Until when it opens anything; `None`: for ever.
    pub expires: Option<SystemTime>,
    /// When it last did, to some minutes.
    pub used: Option<SystemTime>,
}

/// How exactly it is known when a token was last used: it is not written down for each request.
const USED_WITHIN: Duration = Duration::from_secs(60);

impl Store {
    /// Keeps a token. `false`: there is one of that name.
    pub async fn keep_token(&self, hash: &TokenHash, token: StoredToken) -> Result<bool, StoreError> {
        let hash = hash.clone();
        self.run("write", move |connection| {
            let mut kept = 0;
            durably(connection, |transaction| {
                kept = transaction.execute(
                    "insert into token (hash, name, scopes, made_s, expires_s) values (?1, ?2, ?3, ?4, ?5) on conflict (name) do nothing",
                    params![hash.0.as_slice(), token.name, token.scopes, stored(token.made), token.expires.map(stored)],
                )?;
                Ok(None)
            })?;
            Ok(kept == 1)
        })
        .await
    }

    /// The token of this hash, which may have expired; if not, that it was used is written down.
    pub async fn token(&self, hash: &TokenHash) -> Result<Option<StoredToken>, StoreError> {
        let hash = hash.clone();
        self.run("read", move |connection| {
            // Found by a prefix, which tells nothing of the rest; that is compared in a time that does not depend on it.
            let mut some = connection.prepare_cached(
                "select name, scopes, made_s, expires_s, used_s, hash from token where substr(hash, 1, 4) = substr(?1, 1, 4)",
            )?;
            let rows = some.query_map(params![hash.0.as_slice()], |row| Ok((read(row)?, row.get::<_, Vec<u8>>(5)?)))?;
            let mut found = None;
            for row in rows {
                let (token, kept) = row?;
                if bool::from(kept.as_slice().ct_eq(&hash.0)) {
                    found = Some(token);
                }
            }
            let time = SystemTime::now();
            let Some(token) = found else { return Ok(None) };
            let stale =
                !token.is_over(time) && token.used.is_none_or(|used| time.duration_since(used).is_ok_and(|since| since > USED_WITHIN));
            if stale {
                // A full disk must not keep an administrator out.
                connection.execute("update token set used_s = ?2 where hash = ?1", params![hash.0.as_slice(), now()]).ok();
            }
            Ok(Some(token))
        })
        .await
    }

    /// All tokens, by name, those that have expired too.
    pub async fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.run("read", |connection| {
            let mut all = connection.prepare_cached("select name, scopes, made_s, expires_s, used_s from token order by name")?;
            all.query_map([], read)?.collect()
        })
        .await
    }

    /// Forgets a token: from now on it opens nothing. `false`: there is none of that name.
    pub async fn revoke_token(&self, name: &str) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.run("write", move |connection| {
            let mut gone = 0;
            durably(connection, |transaction| {
                gone = transaction.execute("delete from token where name = ?1", params![name])?;
                Ok(None)
            })?;
            Ok(gone == 1)
        })
        .await
    }
}

/// Takes a workspace that is no more from what tokens open; those that open nothing else go, and their number is returned.
pub(super) fn forget_scope(transaction: &Transaction<'_>, workspace: &WorkspaceName) -> rusqlite::Result<usize> {
    let scope = format!("workspace:{workspace}");
    let mut all = transaction.prepare("select name, scopes from token where instr(scopes, ?1) > 0")?;
    let found = all.query_map(params![scope], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut gone = 0;
    for row in found.collect::<Result<Vec<_>, _>>()? {
        let (name, scopes) = row;
        let left: Vec<&str> = scopes.split(' ').filter(|other| *other != scope).collect();
        if left.is_empty() {
            gone += transaction.execute("delete from token where name = ?1", params![name])?;
        } else {
            transaction.execute("update token set scopes = ?2 where name = ?1", params![name, left.join(" ")])?;
        }
    }
    Ok(gone)
}

impl StoredToken {
    /// Whether it opens nothing any more.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredToken> {
    let time = |stored: Option<i64>| stored.map(|stored| UNIX_EPOCH + seconds(stored));
    Ok(StoredToken {
        name: row.get(0)?,
        scopes: row.get(1)?,
        made: UNIX_EPOCH + seconds(row.get(2)?),
        expires: time(row.get(3)?),
        used: time(row.get(4)?),
    })
}

fn stored(time: SystemTime) -> i64 {
    i64::try_from(since_epoch(time).as_secs()).unwrap_or(i64::MAX)
}

// === impl TokenHash ===

impl TokenHash {
    /// That of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_opens_until_it_expires_or_is_revoked_and_is_nowhere_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("innkeeper.db")).unwrap();
        let token = |name: &str, expires| StoredToken {
            name: name.to_owned(),
            scopes: "read".to_owned(),
            made: SystemTime::now(),
            expires,
            used: None,
        };
        let hash = |text: &str| TokenHash::of(text);
        assert!(store.keep_token(&hash("the-first-token"), token("one", None)).await.unwrap());
        assert!(!store.keep_token(&hash("another"), token("one", None)).await.unwrap(), "one of a name");
        let past = Some(SystemTime::now() - Duration::from_secs(1));
        assert!(store.keep_token(&hash("expired"), token("two", past)).await.unwrap());
        assert_eq!(store.token(&hash("the-first-token")).await.unwrap().unwrap().name, "one");
        assert!(!store.token(&hash("the-first-token")).await.unwrap().unwrap().is_over(SystemTime::now()));
        assert!(store.token(&hash("expired")).await.unwrap().unwrap().is_over(SystemTime::now()));
        assert_eq!(store.token(&hash("another")).await.unwrap(), None);
        let all = store.tokens().await.unwrap();
        assert_eq!(
            all.iter().map(|token| (token.name.as_str(), token.used.is_some())).collect::<Vec<_>>(),
            [("one", true), ("two", false)]
        );
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(15).any(|window| window == b"the-first-token"));
        }
        assert!(store.revoke_token("one").await.unwrap());
        assert!(!store.revoke_token("one").await.unwrap());
        assert_eq!(store.token(&hash("the-first-token")).await.unwrap(), None);
    }
}
