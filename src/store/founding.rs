//! Workspaces that are there before anybody has logged in to them, and the list of all that are remembered.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Row, params};

use super::settings::{Refused, bounded, durably, now, settings};
use super::{AlterError, Store, StoreError, seconds, since_epoch};
use crate::name::{TemplateName, VariableName, WorkspaceName};

/// What a workspace begins with.
#[derive(Debug, Clone, Default)]
pub struct Founding {
    /// Its template.
    pub template: TemplateName,
    /// Limits of its own, in the words of who set them.
    pub limits: Option<String>,
    /// Its variables.
    pub env: BTreeMap<VariableName, String>,
}

/// A workspace in the list of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its name.
    pub name: WorkspaceName,
    /// The template it was last given, if it was given any.
    pub template: Option<TemplateName>,
    /// When it was last used, if it was.
    pub last_active: Option<SystemTime>,
    /// When somebody last logged in to it, if anybody has.
    pub last_login: Option<SystemTime>,
    /// The limits that its last grant set, and those that are set of it, in the words of who reads them.
    pub limits: (Option<String>, Option<String>),
    /// Whether nobody may be in it.
    pub suspended: bool,
    /// Whether it is coming to be or going away.
    pub passing: bool,
}

impl Store {
    /// Writes down a workspace that is not remembered, whole or not at all. `false`: there is one, of which nothing was changed.
    pub async fn found(&self, name: &WorkspaceName, founding: Founding) -> Result<bool, AlterError> {
        let name = name.clone();
        let done = self.run("write", move |connection| {
            let mut new = false;
            let refused: Refused = durably(connection, |transaction| {
                let key = name.as_str();
                let there: bool =
                    transaction.query_row("select exists (select 1 from workspace where name = ?1)", params![key], |row| row.get(0))?;
                if there || settings(transaction, &name)?.revision != 0 {
                    return Ok(None);
                }
                new = true;
                let sql = "insert into workspace (name, template, idle_timeout_s, last_active_s, limits) values (?1, ?2, null, ?3, null)";
                transaction.execute(sql, params![key, founding.template.as_str(), now()])?;
                transaction
                    .execute("insert into setting (workspace, revision, limits) values (?1, 1, ?2)", params![key, founding.limits])?;
                for (variable, value) in &founding.env {
                    let sql = "insert into variable (workspace, name, value) values (?1, ?2, ?3)";
                    transaction.execute(sql, params![key, variable.as_str(), value])?;
                }
                bounded(transaction, key)
            })?;
            Ok(match refused {
                Some(why) => Err(why),
                None => Ok(new),
            })
        });
        done.await?
    }

    /// All workspaces of which anything is remembered or set, by name.
    pub async fn all(&self) -> Result<Vec<Remembered>, StoreError> {
        self.run("read", |connection| {
            let mut all = connection.prepare_cached(&format!("{REMEMBERED} order by name"))?;
            let mut rows = all.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.extend(read(row)?);
            }
            Ok(found)
        })
        .await
    }

    /// One of them.
    pub async fn remembered(&self, name: &WorkspaceName) -> Result<Option<Remembered>, StoreError> {
        let name = name.clone();
        self.run("read", move |connection| {
            let mut one = connection.prepare_cached(&format!("{REMEMBERED} where name = ?1"))?;
            let mut rows = one.query(params![name.as_str()])?;
            rows.next()?.map_or(Ok(None), read)
        })
        .await
    }

    /// Remembers when somebody last logged in to workspaces, those of which anything is remembered.
    pub async fn note_logins(&self, logins: BTreeMap<WorkspaceName, SystemTime>) -> Result<(), StoreError> {
        self.run("write", move |connection| {
            let transaction = connection.transaction()?;
            for (name, at) in &logins {
                let at = i64::try_from(since_epoch(*at).as_secs()).unwrap_or(i64::MAX);
                transaction
                    .prepare_cached("update workspace set last_login_s = ?2 where name = ?1")?
                    .execute(params![name.as_str(), at])?;
            }
            transaction.commit()
        })
        .await
    }
}

/// All of which anything is remembered or set.
const REMEMBERED: &str = "select name, template, last_active_s, suspended_for is not null, stage is not null, last_login_s,
    workspace.limits, setting.limits from (select name from workspace union select workspace from setting)
    left join workspace using (name) left join setting on workspace = name";

/// A row of [`REMEMBERED`]; `None`: its name is of another age's rules.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<Remembered>> {
    let Ok(name) = WorkspaceName::try_from(row.get::<_, String>(0)?) else { return Ok(None) };
    let template: Option<String> = row.get(1)?;
    let time = |stored: Option<i64>| stored.map(|stored| UNIX_EPOCH + seconds(stored));
    Ok(Some(Remembered {
        name,
        template: template.and_then(|name| TemplateName::try_from(name).ok()),
        last_active: time(row.get(2)?),
        suspended: row.get(3)?,
        passing: row.get(4)?,
        last_login: time(row.get(5)?),
        limits: (row.get(6)?, row.get(7)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Alteration;

    #[tokio::test]
    async fn a_workspace_is_founded_once_and_in_the_list_with_those_of_which_something_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("innkeeper.db")).unwrap();
        let (alice, bob): (WorkspaceName, WorkspaceName) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        let founding = Founding {
            template: "web".parse().unwrap(),
            limits: Some("{}".to_owned()),
            env: BTreeMap::from([("A".parse().unwrap(), "1".to_owned())]),
        };
        assert!(store.found(&bob, founding.clone()).await.unwrap());
        assert!(!store.found(&bob, Founding::default()).await.unwrap());
        store.alter(&alice, Alteration::Suspend("unpaid".to_owned())).await.unwrap();
        assert!(!store.found(&alice, founding.clone()).await.unwrap(), "something is set of it");
        let all = store.all().await.unwrap();
        let seen: Vec<_> =
            all.iter().map(|one| (one.name.as_str(), one.template.as_ref().map(|name| name.as_str()), one.suspended)).collect();
        assert_eq!(seen, [("alice", None, true), ("bob", Some("web"), false)]);
        let long = BTreeMap::from([("A".parse().unwrap(), "x".repeat(100_000))]);
        let carol = "carol".parse().unwrap();
        assert!(store.found(&carol, Founding { env: long, ..founding }).await.is_err());
        assert_eq!(store.recall(&carol).await.unwrap(), None, "not half");
        assert_eq!(all[1].limits, (None, Some("{}".to_owned())));
        let at = UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        store.note_logins(BTreeMap::from([(bob.clone(), at), ("nobody".parse().unwrap(), at)])).await.unwrap();
        let record = store.recall(&bob).await.unwrap().unwrap();
        store.remember(&bob, record).await.unwrap();
        assert_eq!(store.remembered(&bob).await.unwrap().unwrap().last_login, Some(at), "and it stays when it is used");
        assert_eq!(store.all().await.unwrap().len(), 2, "who is not remembered is not made");
        assert_eq!(store.remembered(&"nobody".parse().unwrap()).await.unwrap(), None);
        let stale = store.alter_if(&bob, Some(7), Alteration::Resume).await.unwrap_err();
        assert!(matches!(stale, AlterError::Changed));
        assert_eq!(store.alter_if(&bob, Some(1), Alteration::Resume).await.unwrap().revision, 2);
    }
}
