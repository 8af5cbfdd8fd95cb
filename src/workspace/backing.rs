//! Backups of workspaces: a home and its volumes together, with what is set of them, as they are while their container may go on.

use std::time::SystemTime;

use async_trait::async_trait;
use tracing::{info, warn};

use super::AskError;
use super::directory::Directory;
use super::driver::Request;
use super::moving::{HOME, VOLUME};
use super::passing::{Done, Running, Step, StepSender};
use crate::backup::{self, Backup, BackupError, Backups, Reason, Report, Root, Subject};
use crate::home::{AsideId, AsideReason, HomeError, HomeId, Snapshot};
use crate::name::{WorkspaceName, printable};
use crate::store::Verification;

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackedUp {
    /// Whose.
    pub workspace: WorkspaceName,
    /// What the repository made of it.
    pub done: backup::Done,
    /// Whether each home in it is as it was at one moment. Otherwise what was written to meanwhile is as a crash might have left it.
    pub consistent: bool,
}

/// What is done with all backups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Chore {
    /// One is made of each workspace.
    BackUp,
    /// The repository is read.
    Verify {
        /// How much of its data, from 0 to 1.
        share: f64,
    },
}

/// Backups, and what restores have left to be decided.
#[derive(Debug, Clone, Default)]
pub struct BackupsView {
    /// The newest first.
    pub backups: Vec<Backup>,
    /// Workspaces that were restored in place, of which what was there before is kept.
    pub unconfirmed: Vec<Unconfirmed>,
}

/// A restore in place of which nobody has said yet whether it is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Which workspace.
    pub workspace: WorkspaceName,
    /// Since when.
    pub since: SystemTime,
    /// The homes that are kept.
    pub homes: Vec<String>,
}

impl Directory {
    /// Where backups go.
    pub(super) fn repository(&self) -> Result<&Backups, AskError> {
        let off = || AskError::Refused("there are no backups: `backup.target` is not set".to_owned());
        self.house.parts.backups.as_ref().ok_or_else(off)
    }

    /// Makes a backup of a workspace, which may be running.
    pub(super) async fn back_up(&self, name: &WorkspaceName, step: &StepSender) -> Result<Done, AskError> {
        let backed_up = self.back_up_counted(name, step).await?;
        let homes = backed_up.homes.iter().map(HomeId::to_string).collect();
        let (consistent, skipped) = (Some(backed_up.it.consistent), backed_up.it.done.left_out);
        Ok(Done { homes, bytes: Some(backed_up.it.done.bytes), consistent, skipped, backups: vec![backed_up.it], ..Done::default() })
    }

    async fn back_up_counted(&self, name: &WorkspaceName, step: &StepSender) -> Result<Made, AskError> {
        let made = self.back_up_once(name, step).await;
        let metrics = &self.house.parts.metrics;
        match &made {
            Ok(Made { it: BackedUp { done, consistent, .. }, .. }) => {
                metrics.backups.inc();
                metrics.backup_bytes.inc_by(done.new_bytes);
                metrics.backup_last_success.set(backup::seconds(SystemTime::now()));
                info!(workspace = %name, files = done.files, bytes = done.bytes, new_bytes = done.new_bytes, consistent, "backed up");
                if done.left_out > 0 {
                    warn!(workspace = %name, left_out = done.left_out, "not everything is in the backup: {}", done.examples.join("; "));
                }
            }
            // Nothing was wrong but the question.
            Err(AskError::NoWorkspace(_)) => {}
            Err(_) => metrics.backup_failures.inc(),
        }
        made
    }

    async fn back_up_once(&self, name: &WorkspaceName, step: &StepSender) -> Result<Made, AskError> {
        let backups = self.repository()?;
        let _busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        if settings.passage.is_some() {
            return Err(AskError::Refused(format!("{name} is deleted, or being made or restored; there is nothing to back up")));
        }
        let homes = self.homes_of(name).await?;
        if homes.is_empty() {
            let known = self.is_known(name, &settings).await?;
            let why = || AskError::Refused(format!("{name} has no home yet: there is nothing to back up"));
            return Err(if known { why() } else { AskError::NoWorkspace(name.clone()) });
        }
        if self.is_low() {
            return Err(AskError::Refused("less than limits.disk_floor is free, and no backup is made: make room first".to_owned()));
        }
        let sheet = self.sheet_of(name, &settings).await?;
        let sheet = serde_json::to_string(&sheet).map_err(|why| AskError::Store(why.to_string()))?;
        step.send_replace(Step { what: "waiting for its turn", ..Step::default() });
        // A kill from here on leaves snapshots that are nobody's, and perhaps data in the repository that nothing refers to.
        let taken = SystemTime::now();
        let snapshots = self.snapshots(homes.clone()).await?;
        let consistent = snapshots.iter().all(|snapshot| snapshot.consistent);
        let roots = homes.iter().zip(&snapshots).map(|(id, snapshot)| Root { name: name_of(id), path: snapshot.path.clone() }).collect();
        let subject = Subject { home: name.to_string(), roots, consistent, taken, settings: Some(sheet) };
        let told = |at: backup::Progress| {
            step.send_replace(Step { what: "backing up", entries: at.files, bytes: at.bytes });
        };
        let done = backups.run(subject, &told).await;
        self.let_go(name, snapshots).await;
        Ok(Made { it: BackedUp { workspace: name.clone(), done: done?, consistent }, homes })
    }

    async fn snapshots(&self, of: Vec<HomeId>) -> Result<Vec<Snapshot>, AskError> {
        let homes = self.house.parts.homes.clone();
        let take = move || of.iter().map(|id| homes.snapshot(id)).collect::<Result<Vec<_>, HomeError>>();
        self.house.at_length(take).await.map_err(|why| AskError::Store(why.to_string()))
    }

    /// Removes snapshots, and has what was only mounted for them let go of.
    async fn let_go(&self, name: &WorkspaceName, snapshots: Vec<Snapshot>) {
        let removed = self.house.at_length(move || {
            drop(snapshots);
            Ok::<_, HomeError>(())
        });
        removed.await.ok();
        if self.house.parts.homes.must_rest() {
            // Only its driver knows that nobody is about to use it.
            self.handle(name).await.inbox.send(Request::Rest).await.ok();
        }
    }

    /// Begins something with all backups, which goes on to its end.
    pub(super) fn start_chore(&self, chore: Chore) -> Running {
        let directory = self.clone();
        self.spawn_task(move |step| async move {
            match chore {
                Chore::BackUp => directory.back_up_all(&step).await,
                Chore::Verify { share } => {
                    let report = directory.verify(share, &step).await?;
                    // Whoever has asked is told what was found, whatever becomes of the record.
                    if let Err(why) = directory.remember_verification(share, &report).await {
                        warn!(%why, "it is not written down what a verification has found");
                    }
                    Ok(Done { bytes: Some(report.bytes), report: Some(report), ..Done::default() })
                }
            }
        })
    }

    async fn back_up_all(&self, step: &StepSender) -> Result<Done, AskError> {
        self.repository()?;
        let mut all = Done::default();
        for name in self.with_homes().await? {
            match self.back_up(&name, step).await {
                Ok(done) => {
                    all.homes.extend(done.homes);
                    all.bytes = Some(all.bytes.unwrap_or_default().saturating_add(done.bytes.unwrap_or_default()));
                    all.consistent = Some(all.consistent.unwrap_or(true) && done.consistent.unwrap_or_default());
                    all.skipped += done.skipped;
                    all.backups.extend(done.backups);
                }
                Err(why) => {
                    warn!(workspace = %name, %why, "could not be backed up");
                    all.failed.push(format!("{name}: {why}"));
                }
            }
        }
        Ok(all)
    }

    async fn verify(&self, share: f64, step: &StepSender) -> Result<Report, AskError> {
        step.send_replace(Step { what: "waiting for its turn", ..Step::default() });
        let told = |at: backup::Progress| {
            step.send_replace(Step { what: "reading the repository", entries: 0, bytes: at.bytes });
        };
        let report = self.repository()?.verify(share, &told).await?;
        if !report.is_clean() {
            warn!(wrong = report.wrong, backups = report.damage.len(), "the repository is damaged: {}", report.examples.join("; "));
        }
        Ok(report)
    }

    /// Keeps what a verification has found. What a part does not show is not mended by that.
    async fn remember_verification(&self, share: f64, report: &Report) -> Result<(), AskError> {
        let backups = self.repository()?;
        let before = if share < 1.0 { self.last_verification().await?.map_or(0, |last| last.wrong) } else { 0 };
        if share >= backups.share() || report.wrong > before {
            let verification = Verification { at: SystemTime::now(), wrong: report.wrong.max(before) };
            self.house.parts.store.verified(backups.target(), verification).await.map_err(super::settings::unread)?;
            self.count_verification(verification);
        }
        Ok(())
    }

    async fn last_verification(&self) -> Result<Option<Verification>, AskError> {
        self.house.parts.store.last_verification(self.repository()?.target()).await.map_err(super::settings::unread)
    }

    fn count_verification(&self, Verification { at, wrong }: Verification) {
        let metrics = &self.house.parts.metrics;
        metrics.backup_last_verified.set(backup::seconds(at));
        metrics.backup_damage.set(i64::try_from(wrong).unwrap_or(i64::MAX));
    }

    /// Takes a workspace's backups out of the repository. Returns how many those were.
    pub(super) async fn forget_backups(&self, name: &WorkspaceName, step: &StepSender) -> Result<u64, AskError> {
        step.send_replace(Step { what: "removing backups", ..Step::default() });
        let told = |_: backup::Progress| ();
        let pruned = self.repository()?.forget(name.as_str(), &told).await?;
        info!(workspace = %name, backups = pruned.backups, bytes = pruned.bytes, "backups removed");
        Ok(pruned.backups)
    }

    /// All backups, or one workspace's, and what restores have left.
    pub(super) async fn all_backups(&self, name: Option<&WorkspaceName>) -> Result<BackupsView, AskError> {
        let backups = self.repository()?.list(name.map(WorkspaceName::as_str)).await?;
        let mut unconfirmed: Vec<Unconfirmed> = Vec::new();
        for aside in self.replaced().await?.into_iter().filter(|aside| name.is_none_or(|name| *name == aside.home.workspace)) {
            let workspace = aside.home.workspace.clone();
            match unconfirmed.last_mut().filter(|last| last.workspace == workspace) {
                Some(last) => last.homes.push(aside.home.to_string()),
                None => unconfirmed.push(Unconfirmed { workspace, since: aside.at(), homes: vec![aside.home.to_string()] }),
            }
        }
        Ok(BackupsView { backups, unconfirmed })
    }

    /// What restores in place have set aside, by home.
    pub(super) async fn replaced(&self) -> Result<Vec<AsideId>, AskError> {
        let homes = self.house.parts.homes.clone();
        let mut all = self.house.on_disk(move || homes.asides()).await.map_err(|why| AskError::Store(why.to_string()))?;
        all.retain(|aside| aside.why == AsideReason::Replaced);
        all.sort_by(|a, b| a.home.cmp(&b.home));
        Ok(all)
    }

    /// The workspaces that have homes and are neither coming nor going.
    async fn with_homes(&self) -> Result<Vec<WorkspaceName>, AskError> {
        let homes = self.house.parts.homes.clone();
        let all = self.house.on_disk(move || homes.homes()).await.map_err(|why| AskError::Store(why.to_string()))?;
        let mut names: Vec<WorkspaceName> = all.into_iter().map(|id| id.workspace).collect();
        names.sort();
        names.dedup();
        let passing = self.house.parts.store.passages().await.map_err(super::settings::unread)?;
        names.retain(|name| !passing.iter().any(|(other, _)| other == name));
        Ok(names)
    }
}

struct Made {
    it: BackedUp,
    homes: Vec<HomeId>,
}

/// What a home is called in a backup.
fn name_of(id: &HomeId) -> String {
    id.volume.as_ref().map_or_else(|| HOME.to_owned(), |volume| format!("{VOLUME}{volume}"))
}

/// The home that something in a backup is, if it were this workspace's. A repository's words are not believed.
pub(super) fn home_of(workspace: &WorkspaceName, name: &str) -> Option<HomeId> {
    let volume = match name.strip_prefix(VOLUME) {
        Some(volume) => Some(volume.parse().ok()?),
        None if name == HOME => None,
        None => return None,
    };
    Some(HomeId { workspace: workspace.clone(), volume })
}

#[async_trait]
impl backup::Homes for Directory {
    async fn names(&self) -> Result<Vec<String>, String> {
        let mut names = self.with_homes().await.map_err(|why| why.to_string())?;
        // What is being done with one is over soon, and its turn comes then.
        names.retain(|name| !self.house.busy.lock().contains(name));
        Ok(names.into_iter().map(String::from).collect())
    }

    async fn back_up(&self, home: &str) -> Result<(), String> {
        let name: WorkspaceName = home.parse().map_err(|_| format!("{} is no workspace", printable(home)))?;
        self.back_up_counted(&name, &StepSender::default()).await.map(drop).map_err(|why| why.to_string())
    }

    async fn verified(&self) -> Result<Option<SystemTime>, String> {
        let last = self.last_verification().await.map_err(|why| why.to_string())?;
        // After a start, too, it is told what was wrong before.
        last.into_iter().for_each(|last| self.count_verification(last));
        Ok(last.map(|last| last.at))
    }

    async fn verify(&self) -> Result<(), String> {
        let verified = async {
            let wrong = self.last_verification().await?.is_some_and(|last| last.wrong > 0);
            let share = if wrong { 1.0 } else { self.repository()?.share() };
            let report = Directory::verify(self, share, &StepSender::default()).await?;
            // Where that fails it counts as not done, and is not done again at once.
            self.remember_verification(share, &report).await
        };
        verified.await.map_err(|why| why.to_string())
    }
}

impl From<BackupError> for AskError {
    fn from(why: BackupError) -> Self {
        match why.reason {
            Reason::NoBackup | Reason::Off => Self::Refused(why.message),
            Reason::NoTarget
            | Reason::Unreachable
            | Reason::Full
            | Reason::WrongKey
            | Reason::Denied
            | Reason::Busy
            | Reason::Home
            | Reason::Damaged
            | Reason::Worker => Self::Store(why.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_has_one_name_in_a_backup() {
        let alice: WorkspaceName = "alice".parse().unwrap();
        for id in ["alice", "alice.data"].map(|name| HomeId::parse(name).unwrap()) {
            assert_eq!(home_of(&alice, &name_of(&id)), Some(id));
        }
        for other in ["", "Home", "volume.", "volume.a/b", "data", "volume.Data"] {
            assert_eq!(home_of(&alice, other), None, "{other}");
        }
    }
}
