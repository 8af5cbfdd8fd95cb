//! When a repository of backups was last verified, and what was wrong with it.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError, seconds, since_epoch};

/// What became of the last verification of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// When that was.
    pub at: SystemTime,
    /// How many things were wrong.
    pub wrong: u64,
}

impl Store {
    /// Remembers what became of the last verification of a repository.
    pub async fn verified(&self, target: &str, Verification { at, wrong }: Verification) -> Result<(), StoreError> {
        let target = target.to_owned();
        self.run("write", move |connection| {
            let at = i64::try_from(since_epoch(at).as_secs()).unwrap_or(i64::MAX);
            let wrong = i64::try_from(wrong).unwrap_or(i64::MAX);
            connection.execute("insert or replace into verification (target, at_s, wrong) values (?1, ?2, ?3)", params![target, at, wrong])
        })
        .await
        .map(drop)
    }

    /// What is remembered of a repository.
    pub async fn last_verification(&self, target: &str) -> Result<Option<Verification>, StoreError> {
        let target = target.to_owned();
        self.run("read", move |connection| {
            let sql = "select at_s, wrong from verification where target = ?1";
            let read = |row: &rusqlite::Row<'_>| {
                let at: SystemTime = UNIX_EPOCH + seconds(row.get(0)?);
                Ok(Verification { at, wrong: row.get::<_, i64>(1)?.try_into().unwrap_or_default() })
            };
            connection.prepare_cached(sql)?.query_row(params![target], read).optional()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_last_of_each_repository_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.last_verification("/a").await.unwrap(), None);
        let one = Verification { at: UNIX_EPOCH + Duration::from_secs(5), wrong: 3 };
        store.verified("/a", one).await.unwrap();
        let other = Verification { at: UNIX_EPOCH + Duration::from_secs(6), wrong: 0 };
        store.verified("s3://b/c", other).await.unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.last_verification("/a").await.unwrap(), Some(one));
        store.verified("/a", other).await.unwrap();
        assert_eq!(store.last_verification("/a").await.unwrap(), Some(other));
        assert_eq!(store.last_verification("/b").await.unwrap(), None);
    }
}
