//! Requests that came with a key of their sender's, so that one sent again does nothing twice: kept for a day, with what was answered.

use std::time::Duration;

use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::Value;

use super::settings::{durably, now};
use super::{Store, StoreError};
use crate::name::WorkspaceName;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// Nothing: it is kept now, and what is done is to be [`Store::answered`] or [`Store::unsent`].
    First,
    /// It was kept by a process that ended before the answer. Whatever was done then may be half done.
    Interrupted,
    /// It is being answered.
    Busy,
    /// It came with another request.
    Other,
    /// It was answered with this status and this text.
    Answered(u16, String),
}

/// How long a key is known.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Most keys that are kept; beyond it the oldest are forgotten before their time. Each has an answer of a few hundred bytes.
const MOST: i64 = 10_000;

impl Store {
    /// Keeps a key of a sender's with what it came with, unless it is known. `run` names this process: what another kept and did not answer
    /// never will be.
    pub async fn sent(&self, sender: &str, key: &str, request: [u8; 32], run: u64) -> Result<Sent, StoreError> {
        let (sender, key) = (sender.to_owned(), key.to_owned());
        let run = run.cast_signed();
        self.run("write", move |connection| {
            let mut found = Sent::First;
            durably(connection, |transaction| {
                let oldest = now().saturating_sub(i64::try_from(KEPT.as_secs()).unwrap_or(i64::MAX));
                transaction.execute("delete from request where made_s < ?1", params![oldest])?;
                transaction.execute(
                    "delete from request where status is not null and rowid in (select rowid from request order by made_s desc limit -1 offset ?1)",
                    params![MOST - 1],
                )?;
                let row = transaction
                    .query_row("select request, run, status, answer from request where sender = ?1 and key = ?2", params![sender, key], |row| {
                        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<u16>>(2)?, row.get::<_, Option<String>>(3)?))
                    })
                    .optional()?;
                found = match row {
                    None => Sent::First,
                    Some((kept, ..)) if kept != request => Sent::Other,
                    Some((_, _, Some(status), answer)) => Sent::Answered(status, answer.unwrap_or_default()),
                    Some((_, kept, None, _)) if kept == run => Sent::Busy,
                    Some(_) => Sent::Interrupted,
                };
                if matches!(found, Sent::First | Sent::Interrupted) {
                    transaction.execute(
                        "insert or replace into request (sender, key, request, run, made_s) values (?1, ?2, ?3, ?4, ?5)",
                        params![sender, key, request.as_slice(), run, now()],
                    )?;
                }
                Ok(None)
            })?;
            Ok(found)
        })
        .await
    }

    /// Whether a key of a sender's is known.
    pub async fn known_request(&self, sender: &str, key: &str) -> Result<bool, StoreError> {
        let (sender, key) = (sender.to_owned(), key.to_owned());
        self.run("read", move |connection| {
            let sql = "select exists (select 1 from request where sender = ?1 and key = ?2)";
            connection.query_row(sql, params![sender, key], |row| row.get(0))
        })
        .await
    }

    /// Remembers what a key's request was answered.
    pub async fn answered(&self, sender: &str, key: &str, status: u16, answer: String) -> Result<(), StoreError> {
        let (sender, key) = (sender.to_owned(), key.to_owned());
        self.run("write", move |connection| {
            let sql = "update request set status = ?3, answer = ?4 where sender = ?1 and key = ?2";
            connection.execute(sql, params![sender, key, status, answer]).map(drop)
        })
        .await
    }

    /// Forgets a key whose request changed nothing, so that it can be sent again.
    pub async fn unsent(&self, sender: &str, key: &str) -> Result<(), StoreError> {
        let (sender, key) = (sender.to_owned(), key.to_owned());
        self.run("write", move |connection| {
            connection.execute("delete from request where sender = ?1 and key = ?2", params![sender, key]).map(drop)
        })
        .await
    }
}

/// Empties the answers that name a workspace which is no more, or what is its; says how many those were. That they were given stays known.
pub(super) fn forget_answers(transaction: &Transaction<'_>, workspace: &WorkspaceName) -> rusqlite::Result<usize> {
    let mut all = transaction.prepare("select rowid, answer from request where instr(answer, ?1) > 0")?;
    let found = all.query_map(params![workspace.as_str()], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    let mut emptied = 0;
    for row in found.collect::<Result<Vec<_>, _>>()? {
        let (id, answer) = row;
        // What is no JSON nobody has answered.
        if serde_json::from_str(&answer).map_or(true, |answer| names(&answer, workspace.as_str())) {
            emptied += transaction.execute("update request set answer = '{}' where rowid = ?1", params![id])?;
        }
    }
    Ok(emptied)
}

/// Whether a text somewhere in an answer is a workspace's name, the name of a volume of it, or the scope that opens it.
fn names(answer: &Value, workspace: &str) -> bool {
    match answer {
        Value::String(text) => {
            let text = text.strip_prefix("workspace:").unwrap_or(text);
            text.strip_prefix(workspace).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        }
        Value::Array(all) => all.iter().any(|one| names(one, workspace)),
        Value::Object(all) => all.values().any(|one| names(one, workspace)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_answered_once_and_another_process_may_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("innkeeper.db")).unwrap();
        let (this, that) = ([1; 32], [2; 32]);
        assert_eq!(store.sent("a", "k", this, 1).await.unwrap(), Sent::First);
        assert_eq!(store.sent("a", "k", this, 1).await.unwrap(), Sent::Busy);
        assert_eq!(store.sent("a", "k", that, 1).await.unwrap(), Sent::Other);
        assert_eq!(store.sent("b", "k", that, 1).await.unwrap(), Sent::First, "another's key");
        assert_eq!(store.sent("a", "k", this, 2).await.unwrap(), Sent::Interrupted, "after a kill");
        assert_eq!(store.sent("a", "k", this, 2).await.unwrap(), Sent::Busy);
        store.answered("a", "k", 201, "{}".to_owned()).await.unwrap();
        assert_eq!(store.sent("a", "k", this, 3).await.unwrap(), Sent::Answered(201, "{}".to_owned()));
        store.unsent("b", "k").await.unwrap();
        assert_eq!(store.sent("b", "k", this, 1).await.unwrap(), Sent::First);
    }
}
