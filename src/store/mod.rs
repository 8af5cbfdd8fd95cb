//! What must be remembered that neither the engine nor the disk remembers: the only room that names SQLite.
//!
//! Losing this file loses no home and no container: idle clocks start anew and workspaces take the configured idle limit.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use crate::name::{TemplateName, WorkspaceName};

/// A store in one file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

/// What is remembered of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The template it was last given.
    pub template: TemplateName,
    /// What its last grant said of its idle limit: nothing, or so long (zero: for ever).
    pub idle_timeout: Option<Duration>,
    /// When the last lease on it was dropped, or it was last seen in use.
    pub last_active: SystemTime,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {why}{mend}", path.display())]
pub struct StoreError {
    what: &'static str,
    path: PathBuf,
    why: rusqlite::Error,
    mend: &'static str,
}

/// What to do about a file that cannot be opened.
const MEND: &str = "; free space on its disk, or move it away to begin a new one: no home is lost by that";

/// What the file looks like. The number is SQLite's `user_version`; a later form adds a step.
const MIGRATIONS: [&str; 1] = ["create table workspace (
    name text primary key,
    template text not null,
    idle_timeout_s integer,
    last_active_s integer not null
) strict"];

impl Store {
    /// Opens the file, making it or bringing it to the newest form.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let error = |what| move |why| StoreError { what, path: path.to_owned(), why, mend: MEND };
        let connection = Connection::open(path).map_err(error("open"))?;
        // Write-ahead: a kill at any moment leaves the last whole transaction. NORMAL may lose the newest ones when the machine loses
        // power, which costs an idle clock some seconds.
        connection.pragma_update(None, "journal_mode", "wal").map_err(error("open"))?;
        connection.pragma_update(None, "synchronous", "normal").map_err(error("open"))?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(error("open"))?;
        let version: usize =
            connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).map_err(error("read"))? as usize;
        for (done, step) in MIGRATIONS.iter().enumerate().skip(version) {
            let sql = format!("begin; {step}; pragma user_version = {}; commit;", done + 1);
            connection.execute_batch(&sql).map_err(error("update"))?;
        }
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    /// Remembers a workspace, in place of what was remembered of it.
    pub async fn remember(&self, name: &WorkspaceName, record: Record) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("write", move |connection| {
            connection.execute(
                "insert into workspace (name, template, idle_timeout_s, last_active_s) values (?1, ?2, ?3, ?4)
                 on conflict (name) do update set template = ?2, idle_timeout_s = ?3, last_active_s = ?4",
                params![
                    name.as_str(),
                    record.template.as_str(),
                    record.idle_timeout.map(|span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX)),
                    i64::try_from(since_epoch(record.last_active).as_secs()).unwrap_or(i64::MAX),
                ],
            )
        })
        .await
        .map(drop)
    }

    /// What is remembered of a workspace.
    pub async fn recall(&self, name: &WorkspaceName) -> Result<Option<Record>, StoreError> {
        let name = name.clone();
        self.run("read", move |connection| {
            connection
                .query_row("select template, idle_timeout_s, last_active_s from workspace where name = ?1", params![name.as_str()], |row| {
                    let template: String = row.get(0)?;
                    let idle_timeout: Option<i64> = row.get(1)?;
                    let last_active: i64 = row.get(2)?;
                    Ok(TemplateName::try_from(template).ok().map(|template| Record {
                        template,
                        idle_timeout: idle_timeout.map(seconds),
                        last_active: UNIX_EPOCH + seconds(last_active),
                    }))
                })
                .optional()
        })
        .await
        .map(Option::flatten)
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || work(&connection.lock())).await;
        let result = done.unwrap_or_else(|panicked| Err(rusqlite::Error::ToSqlConversionFailure(Box::new(panicked))));
        result.map_err(|why| StoreError { what, path: self.path.clone(), why, mend: "" })
    }
}

fn seconds(stored: i64) -> Duration {
    Duration::from_secs(stored.try_into().unwrap_or_default())
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_remembered_is_there_after_opening_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let alice: WorkspaceName = "alice".parse().unwrap();
        let record = Record {
            template: "default".parse().unwrap(),
            idle_timeout: Some(Duration::from_secs(60)),
            last_active: UNIX_EPOCH + Duration::from_secs(1_000_000),
        };
        let store = Store::open(&path).unwrap();
        assert_eq!(store.recall(&alice).await.unwrap(), None);
        store.remember(&alice, record.clone()).await.unwrap();
        let newer = Record { idle_timeout: None, ..record };
        store.remember(&alice, newer.clone()).await.unwrap();
        drop(store);
        assert_eq!(Store::open(&path).unwrap().recall(&alice).await.unwrap(), Some(newer));
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        std::fs::write(&path, "not a database, but long enough to be looked at".repeat(100)).unwrap();
        let error = Store::open(&path).unwrap_err().to_string();
        assert!(error.contains("innkeeper.db"), "{error}");
    }
}
