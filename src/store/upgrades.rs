//! Workspaces that are to get another image: what is asked for, and what is under way, is written down before it is done.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::seconds;
use super::settings::now;

/// A workspace is to get the image of its template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Since when, to the second.
    pub asked: SystemTime,
    /// The engine's id of the container that is kept until another has come up in its place.
    pub former: Option<String>,
    /// Whether that one ran, so that whoever finds none running has to start one.
    pub resume: bool,
    /// What it could not get, and why. It is not tried again with the same.
    pub failed: Option<FailedUpgrade>,
}

/// An upgrade that was undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedUpgrade {
    /// What its container would have been made from, in the words of who tried.
    pub target: String,
    /// Why it was not to be used.
    pub why: String,
    /// When, to the second.
    pub at: SystemTime,
}

/// How far an upgrade is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeStep {
    /// It is asked for, whatever became of an earlier one.
    Asked,
    /// The container of this id is about to be replaced; `resume`: it runs.
    Begun {
        /// The engine's id.
        former: String,
        /// Whether it runs.
        resume: bool,
    },
    /// The other container did not come up: the former one is the workspace's.
    Failed {
        /// What it would have been made from.
        target: String,
        /// Why it was not to be used.
        why: String,
    },
    /// A container runs again after one that was stopped for it.
    Resumed,
    /// There is nothing to be done (any more). The former container, if there is one, is nobody's.
    Over,
}

pub(super) fn read(connection: &Connection, key: &str) -> rusqlite::Result<Option<Upgrade>> {
    connection
        .prepare_cached("select asked_s, former, resume, target, why, failed_s from upgrade where workspace = ?1")?
        .query_row(params![key], |row| {
            let time = |stored: Option<i64>| UNIX_EPOCH + seconds(stored.unwrap_or_default());
            let target: Option<String> = row.get(3)?;
            let (why, at): (Option<String>, Option<i64>) = (row.get(4)?, row.get(5)?);
            let failed = target.map(|target| FailedUpgrade { target, why: why.unwrap_or_default(), at: time(at) });
            Ok(Upgrade { asked: time(row.get(0)?), former: row.get(1)?, resume: row.get(2)?, failed })
        })
        .optional()
}

pub(super) fn write(transaction: &Transaction<'_>, key: &str, step: &UpgradeStep) -> rusqlite::Result<()> {
    match step {
        // Asked again while it is under way: what is under way goes on.
        UpgradeStep::Asked => transaction.execute(
            "insert into upgrade (workspace, asked_s, resume) values (?1, ?2, 0)
             on conflict do update set asked_s = ?2, target = null, why = null, failed_s = null",
            params![key, now()],
        ),
        UpgradeStep::Begun { former, resume } => transaction.execute(
            "insert into upgrade (workspace, asked_s, former, resume) values (?1, ?2, ?3, ?4)
             on conflict do update set former = ?3, resume = ?4, target = null, why = null, failed_s = null",
            params![key, now(), former, resume],
        ),
        UpgradeStep::Failed { target, why } => transaction
            .execute("update upgrade set target = ?2, why = ?3, failed_s = ?4 where workspace = ?1", params![key, target, why, now()]),
        UpgradeStep::Resumed => transaction.execute("update upgrade set resume = 0 where workspace = ?1", params![key]),
        UpgradeStep::Over => transaction.execute("delete from upgrade where workspace = ?1", params![key]),
    }
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::{Alteration, Store};
    use super::*;
    use crate::name::WorkspaceName;

    #[tokio::test]
    async fn an_upgrade_is_kept_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("innkeeper.db");
        let alice: WorkspaceName = "alice".parse().unwrap();
        let step = async |step| {
            let store = Store::open(&path).unwrap();
            let before = store.settings(&alice).await.unwrap();
            let after = store.alter(&alice, Alteration::Upgrade(step)).await.unwrap();
            assert!(after.revision > before.revision);
            after.upgrade
        };
        let failed = || UpgradeStep::Failed { target: "t".to_owned(), why: "it ended".to_owned() };
        assert_eq!(step(failed()).await, None, "none was asked for");
        let asked = step(UpgradeStep::Asked).await.unwrap();
        assert_eq!((&asked.former, asked.resume, &asked.failed), (&None, false, &None));
        let begun = step(UpgradeStep::Begun { former: "c".to_owned(), resume: true }).await.unwrap();
        assert_eq!(begun, Upgrade { former: Some("c".to_owned()), resume: true, ..asked });
        let undone = step(failed()).await.unwrap();
        assert_eq!((undone.former.as_deref(), undone.resume), (Some("c"), true), "until it is undone");
        assert_eq!(undone.failed.as_ref().map(|failed| (failed.target.as_str(), failed.why.as_str())), Some(("t", "it ended")));
        assert!(!step(UpgradeStep::Resumed).await.unwrap().resume);
        assert_eq!(step(UpgradeStep::Asked).await.unwrap().failed, None);
        assert_eq!(step(UpgradeStep::Over).await, None);
        step(UpgradeStep::Asked).await;
        Store::open(&path).unwrap().forget(&alice).await.unwrap();
        assert_eq!(Store::open(&path).unwrap().settings(&alice).await.unwrap().upgrade, None);
    }
}
