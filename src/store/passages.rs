//! Workspaces that are coming to be or going away: what is intended is written down before anything is done about it, so that whoever starts
//! after a kill knows what to finish.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Transaction, params};
use secrecy::ExposeSecret;

use super::settings::{NewSecret, durably, now};
use super::{Store, StoreError, idempotency, seconds, since_epoch, tokens};
use crate::name::{VariableName, WorkspaceName};

/// How far a workspace is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is to be deleted: its container goes, and its homes are set aside.
    Deleting,
    /// It is deleted, and can be had back.
    Deleted,
    /// It is to be deleted for good.
    Purging,
    /// It is to be had back.
    Restoring,
    /// Its name is taken for one that is to be made. What there may be of it is somebody's.
    Reserved,
    /// It is being made. What there is of it is a part, and nobody's.
    Filling,
    /// Other homes are put in place of its own. Those that were set aside for that are its homes still.
    Replacing,
    /// Its homes are the ones that it has. Those that were set aside for them go.
    Confirming,
}

/// A workspace on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// How far it is.
    pub stage: Stage,
    /// Since when it is meant, to the second.
    pub since: SystemTime,
    /// When what was deleted goes for good, to the second.
    pub until: SystemTime,
    /// Bytes in what was deleted, once they were counted.
    pub bytes: Option<u64>,
}

/// How much of a workspace was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether anything was remembered or set of it.
    pub settings: bool,
    /// Variables.
    pub variables: usize,
    /// Secrets.
    pub secrets: usize,
    /// Mounts.
    pub mounts: usize,
    /// Tokens that opened nothing else.
    pub tokens: usize,
    /// Answers that were about it. Their requests are known still, so that none is done twice.
    pub answers: usize,
}

/// Until the year 2500.
const FOR_EVER: Duration = Duration::from_secs(530 * 31_556_952);

impl Store {
    /// All that are on their way, by name.
    pub async fn passages(&self) -> Result<Vec<(WorkspaceName, Passage)>, StoreError> {
        self.run("read", |connection| {
            let sql =
                "select workspace, stage, stage_s, stage_until_s, stage_bytes from setting where stage is not null order by workspace";
            let mut all = connection.prepare_cached(sql)?;
            let mut rows = all.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                if let (Ok(name), Some(passage)) = (WorkspaceName::try_from(name), read(row, 1)?) {
                    found.push((name, passage));
                }
            }
            Ok(found)
        })
        .await
    }

    /// Forgets what is remembered and set of a workspace, for good.
    pub async fn forget(&self, name: &WorkspaceName) -> Result<Forgotten, StoreError> {
        self.forget_with(name, false).await
    }

    /// The same, and whatever else names it: tokens that open nothing else, and what requests were answered that were about it.
    pub async fn forget_all(&self, name: &WorkspaceName) -> Result<Forgotten, StoreError> {
        self.forget_with(name, true).await
    }

    async fn forget_with(&self, name: &WorkspaceName, all: bool) -> Result<Forgotten, StoreError> {
        let name = name.clone();
        self.run("write", move |connection| {
            let mut forgotten = Forgotten::default();
            durably(connection, |transaction| {
                let gone =
                    |(table, column)| transaction.execute(&format!("delete from {table} where {column} = ?1"), params![name.as_str()]);
                let [remembered, set, variables, secrets, mounts, upgrades] = [
                    ("workspace", "name"),
                    ("setting", "workspace"),
                    ("variable", "workspace"),
                    ("secret", "workspace"),
                    ("mount", "workspace"),
                    ("upgrade", "workspace"),
                ]
                .map(gone);
                forgotten = Forgotten {
                    settings: remembered? + set? + upgrades? > 0,
                    variables: variables?,
                    secrets: secrets?,
                    mounts: mounts?,
                    ..Forgotten::default()
                };
                if all {
                    forgotten.tokens = tokens::forget_scope(transaction, &name)?;
                    forgotten.answers = idempotency::forget_answers(transaction, &name)?;
                }
                Ok(None)
            })?;
            // What its secrets were must not stay readable in the log.
            connection.pragma_update(None, "wal_checkpoint", "truncate").ok();
            Ok(forgotten)
        })
        .await
    }

    /// Gives a workspace that is being made what is remembered and set of another, but for its secrets and its suspension, and these secrets
    /// instead; from then on it is there.
    pub async fn furnish(
        &self,
        from: &WorkspaceName,
        to: &WorkspaceName,
        secrets: Vec<(VariableName, NewSecret)>,
    ) -> Result<(), StoreError> {
        let (from, to) = (from.clone(), to.clone());
        self.run("write", move |connection| {
            durably(connection, |transaction| {
                let (from, to) = (from.as_str(), to.as_str());
                transaction.execute(
                    "insert or replace into workspace (name, template, idle_timeout_s, last_active_s, limits)
                     select ?2, template, idle_timeout_s, ?3, limits from workspace where name = ?1",
                    params![from, to, now()],
                )?;
                let sql = "insert or replace into variable (workspace, name, value) select ?2, name, value from variable where workspace = ?1";
                transaction.execute(sql, params![from, to])?;
                transaction.execute(
                    "insert or replace into mount (workspace, target, source, read_write)
                     select ?2, target, source, read_write from mount where workspace = ?1",
                    params![from, to],
                )?;
                for (name, secret) in &secrets {
                    transaction.execute(
                        "insert or replace into secret (workspace, name, value, generated, made_s, changed_s) values (?1, ?2, ?3, ?4, ?5, ?5)",
                        params![to, name.as_str(), secret.value.expose_secret(), secret.generated, now()],
                    )?;
                }
                transaction.execute(
                    "update setting set revision = setting.revision + 1, limits = other.limits, idle_s = other.idle_s, network = other.network,
                     public_ports = other.public_ports
                     from (select 1) left join (select * from setting where workspace = ?1) as other where setting.workspace = ?2",
                    params![from, to],
                )?;
                write(transaction, to, None)?;
                Ok(None)
            })
        })
        .await
        .map(drop)
    }
}

/// What a row says, from this column on. What a later version has begun cannot be finished here: it is as if deleted and to be had back for ever,
/// which keeps everybody out and everything there.
pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Passage>> {
    let Some(stage) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
    let time = |at| Ok::<_, rusqlite::Error>(UNIX_EPOCH + seconds(row.get::<_, Option<i64>>(at)?.unwrap_or_default()));
    let bytes: Option<i64> = row.get(at + 3)?;
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    Ok(Some(match Stage::ALL.into_iter().find(|known| known.word() == stage) {
        Some(stage) => Passage { stage, since: time(at + 1)?, until: time(at + 2)?, bytes },
        None => Passage { stage: Stage::Deleted, since: time(at + 1)?, until: UNIX_EPOCH + FOR_EVER, bytes },
    }))
}

/// Sets the stage of a workspace that has a row.
pub(super) fn write(transaction: &Transaction<'_>, key: &str, passage: Option<&Passage>) -> rusqlite::Result<()> {
    let time = |time: SystemTime| i64::try_from(since_epoch(time).as_secs()).unwrap_or(i64::MAX);
    transaction.execute(
        "update setting set stage = ?2, stage_s = ?3, stage_until_s = ?4, stage_bytes = ?5 where workspace = ?1",
        params![
            key,
            passage.map(|passage| passage.stage.word()),
            passage.map(|passage| time(passage.since)),
            passage.map(|passage| time(passage.until)),
            passage.and_then(|passage| passage.bytes).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        ],
    )?;
    Ok(())
}

// === impl Stage ===

impl Stage {
    const ALL: [Self; 8] =
        [Self::Deleting, Self::Deleted, Self::Purging, Self::Restoring, Self::Reserved, Self::Filling, Self::Replacing, Self::Confirming];

    /// The word that is kept.
    fn word(self) -> &'static str {
        match self {
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Purging => "purging",
            Self::Restoring => "restoring",
            Self::Reserved => "reserved",
            Self::Filling => "filling",
            Self::Replacing => "replacing",
            Self::Confirming => "confirming",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Alteration, Record, Sent, Settings, StoredToken, TokenHash};
    use super::*;

    #[tokio::test]
    async fn a_stage_is_kept_secrets_go_with_the_deletion_and_all_else_when_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let (alice, bob): (WorkspaceName, WorkspaceName) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let store = Store::open(&path).unwrap();
        let env = Alteration::Env { set: BTreeMap::from([("A".parse().unwrap(), "1".to_owned())]), unset: Vec::new() };
        store.alter(&alice, env).await.unwrap();
        let secret = NewSecret { value: "hers-alone".to_owned().into(), generated: false };
        store.alter(&alice, Alteration::SetSecret("S".parse().unwrap(), secret)).await.unwrap();
        store.alter(&alice, Alteration::Limits(Box::new(|_| Some("{}".to_owned())))).await.unwrap();
        let record = Record { template: "other".parse().unwrap(), limits: None, idle_timeout: None, last_active: UNIX_EPOCH };
        store.remember(&alice, record).await.unwrap();

        // A copy has what is set, and none of the secrets.
        let time = UNIX_EPOCH + Duration::from_secs(1_000);
        let filling = Passage { stage: Stage::Filling, since: time, until: time, bytes: None };
        store.alter(&bob, Alteration::Pass(Some(filling.clone()))).await.unwrap();
        assert_eq!(store.passages().await.unwrap(), [(bob.clone(), filling)]);
        let made = NewSecret { value: "his".to_owned().into(), generated: true };
        store.furnish(&alice, &bob, vec![("G".parse().unwrap(), made)]).await.unwrap();
        let his = store.variables(&bob, Vec::new()).await.unwrap();
        assert_eq!((his.env.len(), his.secrets.keys().map(|name| name.as_str()).collect::<Vec<_>>()), (1, vec!["G"]));
        let set = store.settings(&bob).await.unwrap();
        assert_eq!((set.limits.as_deref(), set.passage), (Some("{}"), None));
        assert_eq!(store.recall(&bob).await.unwrap().unwrap().template.as_str(), "other");

        let deleted = Passage { stage: Stage::Deleted, since: time, until: time + Duration::from_secs(5), bytes: Some(7) };
        store.alter(&alice, Alteration::PassWithoutSecrets(deleted.clone())).await.unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.settings(&alice).await.unwrap().passage, Some(deleted));
        let hers = store.variables(&alice, Vec::new()).await.unwrap();
        assert_eq!((hers.env.len(), hers.secrets.len()), (1, 0));
        let token = |name: &str, scopes: &str| StoredToken {
            name: name.to_owned(),
            scopes: scopes.to_owned(),
            made: time,
            expires: None,
            used: None,
        };
        for (name, scopes) in [("one", "workspace:alice"), ("two", "read workspace:alice"), ("three", "workspace:alice-2")] {
            assert!(store.keep_token(&TokenHash::of(name), token(name, scopes)).await.unwrap());
        }
        for (key, answer) in [("a", r#"{"homes":["alice.data"]}"#), ("b", r#"{"name":"alice-2","x":"not alice"}"#)] {
            store.sent("s", key, [0; 32], 1).await.unwrap();
            store.answered("s", key, 201, answer.to_owned()).await.unwrap();
        }
        let forgotten = store.forget_all(&alice).await.unwrap();
        let expected = Forgotten { settings: true, variables: 1, mounts: forgotten.mounts, tokens: 1, answers: 1, secrets: 0 };
        assert_eq!(forgotten, expected);
        let left = store.tokens().await.unwrap().into_iter().map(|token| (token.name, token.scopes)).collect::<Vec<_>>();
        assert_eq!(left, [("three", "workspace:alice-2"), ("two", "read")].map(|(name, scopes)| (name.to_owned(), scopes.to_owned())));
        assert_eq!(store.sent("s", "a", [0; 32], 1).await.unwrap(), Sent::Answered(201, "{}".to_owned()), "and not done again");
        assert!(matches!(store.sent("s", "b", [0; 32], 1).await.unwrap(), Sent::Answered(201, text) if text.contains("alice-2")));
        assert_eq!(store.forget_all(&alice).await.unwrap(), Forgotten::default());
        assert_eq!(store.settings(&alice).await.unwrap(), Settings::default());
        assert_eq!(store.recall(&alice).await.unwrap(), None);
        assert!(store.variables(&alice, Vec::new()).await.unwrap().env.is_empty());
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(10).any(|window| window == b"hers-alone"));
        }
    }
}
