//! What an administrator has set of a workspace: kept here and nowhere else, each change whole or not at all.
//!
//! Limits are text to this room, which does not know what can be limited. Values of secrets leave it only by [`Store::variables`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use secrecy::{ExposeSecret, SecretString};

use super::passages::{self, Passage};
use super::upgrades::{self, Upgrade, UpgradeStep};
use super::{Store, StoreError, seconds, since_epoch};
use crate::name::{VariableName, WorkspaceName};

/// What is set of a workspace, but for its variables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Higher after each change, so that of two readings the newer is known.
    pub revision: i64,
    /// Nobody may be in it.
    pub suspension: Option<Suspension>,
    /// It is coming to be or going away, and nobody may be in it meanwhile.
    pub passage: Option<Passage>,
    /// Limits of its own, in the words of who set them.
    pub limits: Option<String>,
    /// Directories of the host that appear in it, by their targets.
    pub mounts: Vec<StoredMount>,
    /// It is to get another image.
    pub upgrade: Option<Upgrade>,
    /// When it is stopped, where its network leads, what of it is public.
    pub policy: Policy,
}

/// What of a workspace is set otherwise than for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// How long it may be idle; zero: for ever.
    pub idle: Option<Duration>,
    /// Where its network leads, in the words of who set it.
    pub network: Option<String>,
    /// Ports that need no link.
    pub public_ports: Option<BTreeSet<u16>>,
}

/// What of it is to be different; `Some(None)`: as for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyChange {
    /// How long it may be idle.
    pub idle: Option<Option<Duration>>,
    /// Where its network leads.
    pub network: Option<Option<String>>,
    /// Ports that need no link.
    pub public_ports: Option<Option<BTreeSet<u16>>>,
}

/// Why nobody may be in a workspace, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// What people read.
    pub reason: String,
    /// Since when, to the second.
    pub since: SystemTime,
}

/// A directory of the host that appears in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMount {
    /// Where on the host.
    pub source: String,
    /// Where in the workspace.
    pub target: String,
    /// Whether it can be written to.
    pub read_write: bool,
}

/// The variables of a workspace, values and all.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    /// Those that anybody may see.
    pub env: BTreeMap<VariableName, String>,
    /// Those that only processes in the workspace may see.
    pub secrets: BTreeMap<VariableName, SecretString>,
}

/// What may be known of a secret outside its workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its name.
    pub name: VariableName,
    /// When it was first set.
    pub made: SystemTime,
    /// When it was last changed.
    pub changed: SystemTime,
    /// Whether its value was made up, so that another can be.
    pub generated: bool,
}

/// The value of a secret to be kept.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// The value.
    pub value: SecretString,
    /// Whether it was made up.
    pub generated: bool,
}

/// Limits of those that there are.
pub type LimitsChange = Box<dyn Fn(Option<&str>) -> Option<String> + Send>;

/// A change.
pub enum Alteration {
    /// From now on nobody may be in it, for this reason. Suspended again, it has been so since the first time.
    Suspend(String),
    /// Somebody may.
    Resume,
    /// Other limits, made of those there are.
    Limits(LimitsChange),
    /// These variables are set, and those are not.
    Env {
        /// To be set.
        set: BTreeMap<VariableName, String>,
        /// To be removed.
        unset: Vec<VariableName>,
    },
    /// A secret is set, whether there is one of this name or not.
    SetSecret(VariableName, NewSecret),
    /// A secret that was made up gets another value.
    RotateSecret(VariableName, NewSecret),
    /// A secret is removed.
    RemoveSecret(VariableName),
    /// A directory of the host appears, in place of what did there.
    AddMount(StoredMount),
    /// What appears at this target does so no more.
    RemoveMount(String),
    /// It is coming to be or going away, so far; `None`: it is there.
    Pass(Option<Passage>),
    /// The same, and all its secrets are removed.
    PassWithoutSecrets(Passage),
    /// It is to get another image, so far.
    Upgrade(UpgradeStep),
    /// When it is stopped, where its network leads, what of it is public.
    Policy(PolicyChange),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum AlterError {
    /// There is none to change.
    #[error("there is no {0}")]
    Absent(String),
    /// It is somebody's, not made up.
    #[error("secret {0} was set by hand, and only who knows what it is for can change it; use `secret … set {0}`")]
    ByHand(VariableName),
    /// More than is kept.
    #[error("{0}")]
    TooMuch(&'static str),
    /// It is of another revision than whoever changes it has read.
    #[error("it was changed meanwhile")]
    Changed,
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Variables and secrets of a workspace, together: what a process gets of them fits into one message to init beside all else.
const MOST_VARIABLES: i64 = 256;
/// Their names and values together, in bytes.
const MOST_BYTES: i64 = 48 * 1024;
/// Mounts of a workspace.
const MOST_MOUNTS: i64 = 16;

pub(super) type Refused = Option<AlterError>;

impl Store {
    /// What is set of a workspace.
    pub async fn settings(&self, name: &WorkspaceName) -> Result<Settings, StoreError> {
        let name = name.clone();
        self.run("read", move |connection| settings(connection, &name)).await
    }

    /// Changes what is set of a workspace, and gives what is set then. It is on the disk when this returns, or was not made.
    pub async fn alter(&self, name: &WorkspaceName, alteration: Alteration) -> Result<Settings, AlterError> {
        self.alter_if(name, None, alteration).await
    }

    /// The same, unless what is set is of another revision than this.
    pub async fn alter_if(&self, name: &WorkspaceName, revision: Option<i64>, alteration: Alteration) -> Result<Settings, AlterError> {
        let name = name.clone();
        let secret = matches!(alteration, Alteration::SetSecret(..) | Alteration::RotateSecret(..) | Alteration::RemoveSecret(_))
            || matches!(alteration, Alteration::PassWithoutSecrets(_));
        let altered = self.run("write", move |connection| {
            let whole = durably(connection, |transaction| match revision {
                Some(wanted) if settings(transaction, &name)?.revision != wanted => Ok(Some(AlterError::Changed)),
                _ => apply(transaction, &name, &alteration),
            })?;
            if secret {
                // What a secret was must not stay readable in the log. Should it not go now, it goes with the next.
                connection.pragma_update(None, "wal_checkpoint", "truncate").ok();
            }
            match whole {
                None => settings(connection, &name).map(Ok),
                Some(refused) => Ok(Err(refused)),
            }
        });
        altered.await?
    }

    /// The variables of a workspace. Of the secrets in `made_up` those that it does not have are set first.
    pub async fn variables(&self, name: &WorkspaceName, made_up: Vec<(VariableName, SecretString)>) -> Result<Variables, StoreError> {
        let name = name.clone();
        self.run("read", move |connection| {
            let has = variables(connection, &name)?;
            let missing: Vec<_> = made_up.iter().filter(|(secret, _)| !has.secrets.contains_key(secret)).collect();
            if missing.is_empty() {
                return Ok(has);
            }
            // Two at once, or a kill: the first value that is on the disk is the one, for ever.
            durably(connection, |transaction| {
                for (secret, value) in &missing {
                    transaction.execute(
                        "insert into secret (workspace, name, value, generated, made_s, changed_s) values (?1, ?2, ?3, 1, ?4, ?4)
                         on conflict do nothing",
                        params![name.as_str(), secret.as_str(), value.expose_secret(), now()],
                    )?;
                }
                Ok(None)
            })?;
            variables(connection, &name)
        })
        .await
    }

    /// The public ports of all workspaces that have some.
    pub async fn public_ports(&self) -> Result<Vec<(WorkspaceName, BTreeSet<u16>)>, StoreError> {
        self.run("read", |connection| {
            let mut all = connection.prepare_cached("select workspace, public_ports from setting where public_ports is not null")?;
            let rows = all.query_map([], |row| Ok((row.get::<_, String>(0)?, ports(&row.get::<_, String>(1)?))))?;
            let mut found = Vec::new();
            for row in rows {
                let (name, ports) = row?;
                found.extend(WorkspaceName::try_from(name).ok().map(|name| (name, ports)));
            }
            Ok(found)
        })
        .await
    }

    /// What may be known of a workspace's secrets.
    pub async fn secrets(&self, name: &WorkspaceName) -> Result<Vec<SecretInfo>, StoreError> {
        let name = name.clone();
        self.run("read", move |connection| {
            let mut all =
                connection.prepare_cached("select name, made_s, changed_s, generated from secret where workspace = ?1 order by name")?;
            let rows = all.query_map(params![name.as_str()], |row| {
                let time = |stored: i64| UNIX_EPOCH + seconds(stored);
                Ok((row.get::<_, String>(0)?, time(row.get(1)?), time(row.get(2)?), row.get::<_, bool>(3)?))
            })?;
            let mut infos = Vec::new();
            for row in rows {
                let (name, made, changed, generated) = row?;
                infos.extend(VariableName::try_from(name).ok().map(|name| SecretInfo { name, made, changed, generated }));
            }
            Ok(infos)
        })
        .await
    }
}

pub(super) fn settings(connection: &Connection, name: &WorkspaceName) -> rusqlite::Result<Settings> {
    let row = connection
        .prepare_cached(
            "select revision, suspended_for, suspended_s, limits, stage, stage_s, stage_until_s, stage_bytes, idle_s, network, public_ports
             from setting where workspace = ?1",
        )?
        .query_row(params![name.as_str()], |row| {
            let reason: Option<String> = row.get(1)?;
            let since: Option<i64> = row.get(2)?;
            let suspension = reason.map(|reason| Suspension { reason, since: UNIX_EPOCH + seconds(since.unwrap_or_default()) });
            let passage = passages::read(row, 4)?;
            let idle: Option<i64> = row.get(8)?;
            let public_ports = row.get::<_, Option<String>>(10)?.map(|text| ports(&text));
            let policy = Policy { idle: idle.map(seconds), network: row.get(9)?, public_ports };
            Ok(Settings { revision: row.get(0)?, suspension, passage, limits: row.get(3)?, mounts: Vec::new(), upgrade: None, policy })
        })
        .optional()?;
    // Every change makes the row: without it nothing is set.
    let Some(mut found) = row else { return Ok(Settings::default()) };
    let mut mounts = connection.prepare_cached("select source, target, read_write from mount where workspace = ?1 order by target")?;
    let rows = mounts
        .query_map(params![name.as_str()], |row| Ok(StoredMount { source: row.get(0)?, target: row.get(1)?, read_write: row.get(2)? }))?;
    found.mounts = rows.collect::<Result<_, _>>()?;
    found.upgrade = upgrades::read(connection, name.as_str())?;
    Ok(found)
}

/// Ports as they are kept: numbers with spaces between.
fn ports(text: &str) -> BTreeSet<u16> {
    text.split(' ').filter_map(|port| port.parse().ok()).collect()
}

fn variables(connection: &Connection, name: &WorkspaceName) -> rusqlite::Result<Variables> {
    let mut found = Variables::default();
    for (table, secret) in [("variable", false), ("secret", true)] {
        let mut all = connection.prepare_cached(&format!("select name, value from {table} where workspace = ?1"))?;
        let mut rows = all.query(params![name.as_str()])?;
        while let Some(row) = rows.next()? {
            let (name, value): (String, String) = (row.get(0)?, row.get(1)?);
            // A name of another age's rules is passed over, as one of a client's would be.
            let Ok(name) = VariableName::try_from(name) else { continue };
            if secret {
                found.secrets.insert(name, value.into());
            } else {
                found.env.insert(name, value);
            }
        }
    }
    Ok(found)
}

/// Does something in one transaction that no loss of power undoes, unless it is refused.
pub(super) fn durably(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Refused>,
) -> rusqlite::Result<Refused> {
    connection.pragma_update(None, "synchronous", "full")?;
    let done = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let refused = work(&transaction)?;
        if refused.is_none() {
            transaction.commit()?;
        }
        Ok(refused)
    })();
    connection.pragma_update(None, "synchronous", "normal")?;
    done
}

fn apply(transaction: &Transaction<'_>, workspace: &WorkspaceName, alteration: &Alteration) -> rusqlite::Result<Refused> {
    let key = workspace.as_str();
    transaction.execute(
        "insert into setting (workspace, revision) values (?1, 1) on conflict do update set revision = revision + 1",
        params![key],
    )?;
    match alteration {
        Alteration::Suspend(reason) => {
            let sql = "update setting set suspended_for = ?2, suspended_s = coalesce(suspended_s, ?3) where workspace = ?1";
            transaction.execute(sql, params![key, reason, now()])?;
        }
        Alteration::Resume => {
            transaction.execute("update setting set suspended_for = null, suspended_s = null where workspace = ?1", params![key])?;
        }
        Alteration::Limits(change) => {
            let before: Option<String> =
                transaction.query_row("select limits from setting where workspace = ?1", params![key], |row| row.get(0))?;
            let after = change(before.as_deref());
            transaction.execute("update setting set limits = ?2 where workspace = ?1", params![key, after])?;
        }
        Alteration::Env { set, unset } => {
            for name in unset {
                transaction.execute("delete from variable where workspace = ?1 and name = ?2", params![key, name.as_str()])?;
            }
            for (name, value) in set {
                let sql = "insert into variable (workspace, name, value) values (?1, ?2, ?3) on conflict do update set value = ?3";
                transaction.execute(sql, params![key, name.as_str(), value])?;
            }
            return bounded(transaction, key);
        }
        Alteration::SetSecret(name, secret) => {
            transaction.execute(
                "insert into secret (workspace, name, value, generated, made_s, changed_s) values (?1, ?2, ?3, ?4, ?5, ?5)
                 on conflict do update set value = ?3, generated = ?4, changed_s = ?5",
                params![key, name.as_str(), secret.value.expose_secret(), secret.generated, now()],
            )?;
            return bounded(transaction, key);
        }
        Alteration::RotateSecret(name, secret) => {
            let sql = "select generated from secret where workspace = ?1 and name = ?2";
            match transaction.query_row(sql, params![key, name.as_str()], |row| row.get(0)).optional()? {
                None => return Ok(Some(AlterError::Absent(format!("secret {name}")))),
                Some(false) => return Ok(Some(AlterError::ByHand(name.clone()))),
                Some(true) => {}
            }
            let sql = "update secret set value = ?3, changed_s = ?4 where workspace = ?1 and name = ?2";
            transaction.execute(sql, params![key, name.as_str(), secret.value.expose_secret(), now()])?;
            return bounded(transaction, key);
        }
        Alteration::RemoveSecret(name) => {
            if transaction.execute("delete from secret where workspace = ?1 and name = ?2", params![key, name.as_str()])? == 0 {
                return Ok(Some(AlterError::Absent(format!("secret {name}"))));
            }
        }
        Alteration::AddMount(mount) => {
            let StoredMount { source, target, read_write } = mount;
            transaction.execute(
                "insert into mount (workspace, target, source, read_write) values (?1, ?2, ?3, ?4)
                 on conflict do update set source = ?3, read_write = ?4",
                params![key, target, source, read_write],
            )?;
            let count: i64 = transaction.query_row("select count(*) from mount where workspace = ?1", params![key], |row| row.get(0))?;
            if count > MOST_MOUNTS {
                return Ok(Some(AlterError::TooMuch("a workspace has at most 16 mounts; remove one first")));
            }
        }
        Alteration::RemoveMount(target) => {
            if transaction.execute("delete from mount where workspace = ?1 and target = ?2", params![key, target])? == 0 {
                return Ok(Some(AlterError::Absent(format!("mount at {target}"))));
            }
        }
        Alteration::Pass(passage) => passages::write(transaction, key, passage.as_ref())?,
        Alteration::PassWithoutSecrets(passage) => {
            passages::write(transaction, key, Some(passage))?;
            transaction.execute("delete from secret where workspace = ?1", params![key])?;
        }
        Alteration::Upgrade(step) => upgrades::write(transaction, key, step)?,
        Alteration::Policy(PolicyChange { idle, network, public_ports }) => {
            if let Some(idle) = idle {
                let idle = idle.map(|span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX));
                transaction.execute("update setting set idle_s = ?2 where workspace = ?1", params![key, idle])?;
            }
            if let Some(network) = network {
                transaction.execute("update setting set network = ?2 where workspace = ?1", params![key, network])?;
            }
            if let Some(ports) = public_ports {
                let text = ports.as_ref().map(|ports| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(" "));
                transaction.execute("update setting set public_ports = ?2 where workspace = ?1", params![key, text])?;
            }
        }
    }
    Ok(None)
}

/// Whether the variables are as many and as long as is kept.
pub(super) fn bounded(transaction: &Transaction<'_>, key: &str) -> rusqlite::Result<Refused> {
    let sql = "select count(*), coalesce(sum(length(cast(name as blob)) + length(cast(value as blob))), 0) from
               (select name, value from variable where workspace = ?1 union all select name, value from secret where workspace = ?1)";
    let (count, bytes): (i64, i64) = transaction.query_row(sql, params![key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(if count > MOST_VARIABLES {
        Some(AlterError::TooMuch("a workspace has at most 256 variables and secrets together; remove some first"))
    } else if bytes > MOST_BYTES {
        Some(AlterError::TooMuch(
            "variables and secrets of a workspace are at most 48 KiB together; put what is long into a file of its home",
        ))
    } else {
        None
    })
}

pub(super) fn now() -> i64 {
    i64::try_from(since_epoch(SystemTime::now()).as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> VariableName {
        text.parse().unwrap()
    }

    fn secret(value: &str, generated: bool) -> NewSecret {
        NewSecret { value: value.to_owned().into(), generated }
    }

    async fn exposed(store: &Store, workspace: &WorkspaceName) -> BTreeMap<String, String> {
        let all = store.variables(workspace, Vec::new()).await.unwrap();
        all.secrets.iter().map(|(name, value)| (name.to_string(), value.expose_secret().to_owned())).collect()
    }

    #[tokio::test]
    async fn what_is_set_is_there_after_opening_again_and_each_change_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let alice: WorkspaceName = "alice".parse().unwrap();
        let store = Store::open(&path).unwrap();
        assert_eq!(store.settings(&alice).await.unwrap(), Settings::default());
        let first = store.alter(&alice, Alteration::Suspend("unpaid".to_owned())).await.unwrap();
        let since = first.suspension.clone().unwrap().since;
        let again = store.alter(&alice, Alteration::Suspend("still unpaid".to_owned())).await.unwrap();
        assert_eq!(again.suspension, Some(Suspension { reason: "still unpaid".to_owned(), since }));
        assert!(again.revision > first.revision);
        let mount = StoredMount { source: "/srv/a".to_owned(), target: "/data".to_owned(), read_write: true };
        store.alter(&alice, Alteration::AddMount(mount.clone())).await.unwrap();
        store.alter(&alice, Alteration::Limits(Box::new(|_| Some("{}".to_owned())))).await.unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let found = store.settings(&alice).await.unwrap();
        assert_eq!((found.limits.as_deref(), found.mounts), (Some("{}"), vec![mount]));
        let resumed = store.alter(&alice, Alteration::Resume).await.unwrap();
        assert_eq!(resumed.suspension, None);
        let absent = store.alter(&alice, Alteration::RemoveMount("/elsewhere".to_owned())).await.unwrap_err();
        assert_eq!(absent.to_string(), "there is no mount at /elsewhere");
        assert_eq!(store.settings(&alice).await.unwrap().revision, resumed.revision, "nothing was changed");
        assert_eq!(store.settings(&"bob".parse().unwrap()).await.unwrap(), Settings::default());
    }

    #[tokio::test]
    async fn a_secret_that_was_made_up_stays_until_it_is_rotated_and_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let alice: WorkspaceName = "alice".parse().unwrap();
        let store = Store::open(&path).unwrap();
        let wanted = |value: &str| vec![(name("JWT"), SecretString::from(value.to_owned()))];
        for value in ["first-made-up", "second-made-up"] {
            let got = store.variables(&alice, wanted(value)).await.unwrap();
            assert_eq!(got.secrets[&name("JWT")].expose_secret(), "first-made-up");
            assert!(!format!("{got:?}").contains("made-up"));
        }
        store.alter(&alice, Alteration::SetSecret(name("KEY"), secret("by-hand", false))).await.unwrap();
        let denied = store.alter(&alice, Alteration::RotateSecret(name("KEY"), secret("x", true))).await.unwrap_err();
        assert!(matches!(denied, AlterError::ByHand(_)), "{denied}");
        store.alter(&alice, Alteration::RotateSecret(name("JWT"), secret("rotated", true))).await.unwrap();
        assert_eq!(
            exposed(&store, &alice).await,
            BTreeMap::from([("JWT", "rotated"), ("KEY", "by-hand")].map(|(k, v)| (k.into(), v.into())))
        );
        store.alter(&alice, Alteration::RemoveSecret(name("KEY"))).await.unwrap();
        let infos = store.secrets(&alice).await.unwrap();
        assert_eq!(infos.iter().map(|info| (info.name.as_str(), info.generated)).collect::<Vec<_>>(), [("JWT", true)]);
        let files = || std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        for gone in [&b"first-made-up"[..], b"by-hand"] {
            for file in files() {
                let bytes = std::fs::read(&file).unwrap();
                assert!(!bytes.windows(gone.len()).any(|window| window == gone), "{}", file.display());
            }
        }
    }

    #[tokio::test]
    async fn a_policy_is_changed_in_parts_kept_and_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let (alice, bob): (WorkspaceName, WorkspaceName) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let store = Store::open(&path).unwrap();
        let ports = Some(BTreeSet::from([80, 8080]));
        let all =
            PolicyChange { idle: Some(Some(Duration::ZERO)), network: Some(Some("none".to_owned())), public_ports: Some(ports.clone()) };
        store.alter(&alice, Alteration::Policy(all)).await.unwrap();
        let idle = PolicyChange { idle: Some(None), ..PolicyChange::default() };
        store.alter(&alice, Alteration::Policy(idle)).await.unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let wanted = Policy { idle: None, network: Some("none".to_owned()), public_ports: ports.clone() };
        assert_eq!(store.settings(&alice).await.unwrap().policy, wanted);
        store.alter(&bob, Alteration::Resume).await.unwrap();
        store.furnish(&alice, &bob, Vec::new()).await.unwrap();
        assert_eq!(store.settings(&bob).await.unwrap().policy, wanted);
        assert_eq!(store.public_ports().await.unwrap(), [alice.clone(), bob].map(|name| (name, ports.clone().unwrap())));
        store.forget(&alice).await.unwrap();
        assert_eq!(store.settings(&alice).await.unwrap().policy, Policy::default());
    }

    #[tokio::test]
    async fn variables_are_bounded_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("innkeeper.db")).unwrap();
        let alice: WorkspaceName = "alice".parse().unwrap();
        let set = |name: &str, length: usize| Alteration::Env {
            set: BTreeMap::from([(name.parse().unwrap(), "ä".repeat(length / 2))]),
            unset: Vec::new(),
        };
        store.alter(&alice, set("A", 40 * 1024)).await.unwrap();
        assert!(store.alter(&alice, set("B", 10 * 1024)).await.is_err());
        let long = secret(&"x".repeat(10 * 1024), false);
        assert!(store.alter(&alice, Alteration::SetSecret(name("S"), long)).await.is_err());
        let many = (0..300).map(|number| (name(&format!("V{number}")), String::new())).collect();
        assert!(store.alter(&alice, Alteration::Env { set: many, unset: Vec::new() }).await.is_err());
        let all = store.variables(&alice, Vec::new()).await.unwrap();
        assert_eq!((all.env.len(), all.secrets.len()), (1, 0), "never half");
        store.alter(&alice, Alteration::Env { set: BTreeMap::new(), unset: vec![name("A"), name("NONE")] }).await.unwrap();
        assert!(store.variables(&alice, Vec::new()).await.unwrap().env.is_empty());
    }
}
