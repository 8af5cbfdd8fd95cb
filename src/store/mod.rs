//! What must be remembered that neither the engine nor the disk remembers: the only room that names SQLite.
//!
//! Losing this file loses no home and no container: idle clocks start anew, and what an administrator set of workspaces is not set any more.
//! It holds secrets: it is its owner's alone.

mod ballast;
mod founding;
mod idempotency;
mod passages;
mod settings;
mod tokens;
mod upgrades;
mod verifications;

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

pub use ballast::Ballast;
pub use founding::{Founding, Remembered};
pub use idempotency::Sent;
pub use passages::{Forgotten, Passage, Stage};
pub use settings::{
    AlterError, Alteration, LimitsChange, NewSecret, Policy, PolicyChange, SecretInfo, Settings, StoredMount, Suspension, Variables,
};
pub use tokens::{StoredToken, TokenHash};
pub use upgrades::{FailedUpgrade, Upgrade, UpgradeStep};
pub use verifications::Verification;

use crate::name::{TemplateName, WorkspaceName};

/// A store in one file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
    /// Space to be given up before a record is not written.
    ballast: Option<Arc<Ballast>>,
}

/// What is remembered of a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The template it was last given.
    pub template: TemplateName,
    /// The limits that its last grant set, in the words of who reads them.
    pub limits: Option<String>,
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
const MIGRATIONS: [&str; 7] = [
    "create table workspace (
    name text primary key,
    template text not null,
    idle_timeout_s integer,
    last_active_s integer not null
) strict",
    "alter table workspace add column limits text;
create table setting (
    workspace text primary key,
    revision integer not null,
    suspended_for text,
    suspended_s integer,
    limits text
) strict, without rowid;
create table variable (
    workspace text,
    name text,
    value text not null,
    primary key (workspace, name)
) strict, without rowid;
create table secret (
    workspace text,
    name text,
    value text not null,
    generated integer not null,
    made_s integer not null,
    changed_s integer not null,
    primary key (workspace, name)
) strict, without rowid;
create table mount (
    workspace text,
    target text,
    source text not null,
    read_write integer not null,
    primary key (workspace, target)
) strict, without rowid",
    "alter table setting add column stage text;
alter table setting add column stage_s integer;
alter table setting add column stage_until_s integer;
alter table setting add column stage_bytes integer",
    "create table upgrade (
    workspace text primary key,
    asked_s integer not null,
    former text,
    resume integer not null,
    target text,
    why text,
    failed_s integer
) strict, without rowid",
    "create table request (
    sender text,
    key text,
    request blob not null,
    run integer not null,
    made_s integer not null,
    status integer,
    answer text,
    primary key (sender, key)
) strict;
create table token (
    hash blob primary key,
    name text not null unique,
    scopes text not null,
    made_s integer not null,
    expires_s integer,
    used_s integer
) strict, without rowid",
    "alter table workspace add column last_login_s integer;
alter table setting add column idle_s integer;
alter table setting add column network text;
alter table setting add column public_ports text",
    "create table verification (
    target text primary key,
    at_s integer not null,
    wrong integer not null
) strict, without rowid",
];

impl Store {
    /// Opens the file, making it or bringing it to the newest form.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, None)
    }

    /// The same, with space that is given up before a record is not written.
    pub fn open_with(path: &Path, ballast: Option<Arc<Ballast>>) -> Result<Self, StoreError> {
        let connection = match connect(path) {
            Err(error) if error.is_full() && ballast.as_ref().is_some_and(|ballast| ballast.give_up()) => connect(path)?,
            connected => connected?,
        };
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)), ballast })
    }

    /// Remembers a workspace, in place of what was remembered of it.
    pub async fn remember(&self, name: &WorkspaceName, record: Record) -> Result<(), StoreError> {
        let name = name.clone();
        self.run("write", move |connection| {
            connection.execute(
                "insert into workspace (name, template, idle_timeout_s, last_active_s, limits) values (?1, ?2, ?3, ?4, ?5)
                 on conflict (name) do update set template = ?2, idle_timeout_s = ?3, last_active_s = ?4, limits = ?5",
                params![
                    name.as_str(),
                    record.template.as_str(),
                    record.idle_timeout.map(|span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX)),
                    i64::try_from(since_epoch(record.last_active).as_secs()).unwrap_or(i64::MAX),
                    record.limits,
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
                .prepare_cached("select template, idle_timeout_s, last_active_s, limits from workspace where name = ?1")?
                .query_row(params![name.as_str()], |row| {
                    let template: String = row.get(0)?;
                    let idle_timeout: Option<i64> = row.get(1)?;
                    let last_active: i64 = row.get(2)?;
                    let limits = row.get(3)?;
                    Ok(TemplateName::try_from(template).ok().map(|template| Record {
                        template,
                        limits,
                        idle_timeout: idle_timeout.map(seconds),
                        last_active: UNIX_EPOCH + seconds(last_active),
                    }))
                })
                .optional()
        })
        .await
        .map(Option::flatten)
    }

    /// Does something with the file, and once more if its disk is full and space can be given up.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (connection, ballast) = (Arc::clone(&self.connection), self.ballast.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock();
            match work(&mut connection) {
                Err(why) if is_full(&why) && ballast.is_some_and(|ballast| ballast.give_up()) => work(&mut connection),
                done => done,
            }
        });
        let result = done.await.unwrap_or_else(|panicked| Err(rusqlite::Error::ToSqlConversionFailure(Box::new(panicked))));
        result.map_err(|why| StoreError { what, path: self.path.clone(), why, mend: "" })
    }
}

// === impl StoreError ===

impl StoreError {
    fn is_full(&self) -> bool {
        is_full(&self.why)
    }
}

/// Whether it failed for want of space. What else the disk may have is not told apart from that everywhere, and giving space up costs nothing.
fn is_full(why: &rusqlite::Error) -> bool {
    matches!(why.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let error = |what| move |why| StoreError { what, path: path.to_owned(), why, mend: MEND };
    keep_to_its_owner(path);
    let connection = Connection::open(path).map_err(error("open"))?;
    // Write-ahead: a kill at any moment leaves the last whole transaction. NORMAL may lose the newest ones when the machine loses
    // power, which costs an idle clock some seconds; what an administrator sets is written with FULL.
    connection.pragma_update(None, "journal_mode", "wal").map_err(error("open"))?;
    connection.pragma_update(None, "synchronous", "normal").map_err(error("open"))?;
    // What is deleted is gone: it may have been a secret.
    connection.pragma_update(None, "secure_delete", "on").map_err(error("open"))?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(error("open"))?;
    let version: usize = connection.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0)).map_err(error("read"))? as usize;
    for (done, step) in MIGRATIONS.iter().enumerate().skip(version) {
        let sql = format!("begin; {step}; pragma user_version = {}; commit;", done + 1);
        connection.execute_batch(&sql).map_err(error("update"))?;
    }
    Ok(connection)
}

/// Makes the file with the mode that it is to have, which SQLite gives to those beside it too, and mends one of an earlier version. What fails
/// here fails again, with words, where the file is opened.
fn keep_to_its_owner(path: &Path) {
    let _ = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::set_permissions(name, Permissions::from_mode(0o600));
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
            limits: Some("{}".to_owned()),
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

    #[tokio::test]
    async fn a_file_of_the_first_form_is_brought_up_and_nobody_else_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let old = Connection::open(&path).unwrap();
        old.pragma_update(None, "journal_mode", "wal").unwrap();
        old.execute_batch(&format!(
            "{}; pragma user_version = 1; insert into workspace values ('alice', 'default', null, 5)",
            MIGRATIONS[0]
        ))
        .unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            std::fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
        }
        // Left open, as by a kill: its log is there still.
        std::mem::forget(old);
        let store = Store::open(&path).unwrap();
        let alice = "alice".parse().unwrap();
        assert_eq!(store.recall(&alice).await.unwrap().unwrap().limits, None);
        store.alter(&alice, Alteration::Resume).await.unwrap();
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
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
