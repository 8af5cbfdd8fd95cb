//! Workspaces that come to be and go away otherwise than by a login: deleting one, having it back, and finishing what a kill has cut short.
//!
//! What is intended is in the store before anything is done about it, and from then on nobody is let in. Every step can be done again, so that
//! whoever finds a stage that is not an end does all of it once more.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::AskError;
use super::backing::BackedUp;
use super::directory::Directory;
use super::driver::Request;
use super::house::{Apart, House};
use super::settings::{Applied, refused, unchanged, unread};
use super::terms::Terms;
use crate::audit::{Removal, RemovedHome};
use crate::backup::Report;
use crate::engine::ContainerId;
use crate::home::{AsideId, AsideReason, HomeError, HomeId};
use crate::name::{SnapshotName, WorkspaceName};
use crate::store::{Alteration, Forgotten, Passage, Settings, Stage};

/// What is done with a whole workspace, and may take long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// It goes away; `now`: for good.
    Delete {
        /// Whether it cannot be had back.
        now: bool,
        /// Whether its backups go first.
        backups: bool,
    },
    /// It is had back.
    Undelete,
    /// Another is made that has in it what this one has.
    Copy {
        /// The other's name.
        to: WorkspaceName,
    },
    /// What it has is kept under a name, for new homes to start with.
    Snapshot(SnapshotName),
    /// What was kept under a name is removed for good.
    RemoveSnapshot(SnapshotName),
    /// It gets a container of its template's image as it is now.
    Upgrade,
    /// A backup of it is made.
    BackUp,
    /// It is made of a backup.
    Restore {
        /// Whose.
        from: WorkspaceName,
        /// What the backup's name begins with; `None`: the newest.
        backup: Option<String>,
    },
    /// A backup of its own takes the place of what it has, which is kept.
    RestoreInPlace {
        /// What the backup's name begins with; `None`: the newest.
        backup: Option<String>,
    },
    /// What was kept is removed for good.
    ConfirmRestore,
    /// What was kept is brought back.
    RevertRestore,
}

impl Task {
    /// What it is called.
    fn label(&self) -> &'static str {
        match self {
            Self::Delete { now: true, .. } => "delete-now",
            Self::Delete { now: false, .. } => "delete",
            Self::Undelete => "undelete",
            Self::Copy { .. } => "copy",
            Self::Snapshot(_) => "snapshot",
            Self::RemoveSnapshot(_) => "remove-snapshot",
            Self::Upgrade => "upgrade-now",
            Self::BackUp => "back-up",
            Self::Restore { .. } => "restore",
            Self::RestoreInPlace { .. } => "restore-in-place",
            Self::ConfirmRestore => "confirm-restore",
            Self::RevertRestore => "revert-restore",
        }
    }
}

/// What is being done, and how much of it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Step {
    /// What, in a few words.
    pub what: &'static str,
    /// Files and directories that are done.
    pub entries: u64,
    /// Bytes that are done.
    pub bytes: u64,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The homes that it was done to: the workspace's own by its name, volumes by `name.volume`.
    pub homes: Vec<String>,
    /// Bytes in them, where they were counted.
    pub bytes: Option<u64>,
    /// When they go for good; `None`: they are gone, or stay.
    pub until: Option<SystemTime>,
    /// Whether what was copied is all as it was at one moment. Otherwise it is what a crash might have left, of files that were being written.
    pub consistent: Option<bool>,
    /// What was left out: sockets, devices, what is mounted in it, what was changed too fast.
    pub skipped: u64,
    /// Whether there was nothing to do.
    pub unchanged: bool,
    /// Backups that were made.
    pub backups: Vec<BackedUp>,
    /// What was found in the repository, where that was looked through.
    pub report: Option<Report>,
    /// What of several could not be done, each with its reason.
    pub failed: Vec<String>,
}

/// Something that goes on whoever listens.
#[derive(Debug)]
pub struct Running {
    /// How far it is.
    pub step: watch::Receiver<Step>,
    /// What came of it.
    pub done: oneshot::Receiver<Result<Done, AskError>>,
}

/// A workspace that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedView {
    /// Its name.
    pub name: WorkspaceName,
    /// How far that is.
    pub stage: Stage,
    /// Since when.
    pub since: SystemTime,
    /// When it goes for good.
    pub until: SystemTime,
    /// Bytes in its homes, where they were counted.
    pub bytes: Option<u64>,
    /// Its homes that are kept.
    pub homes: Vec<String>,
}

/// A workspace that one task is done with, and no other at the same time.
pub(super) struct Busy {
    house: Arc<House>,
    name: WorkspaceName,
}

pub(super) type StepSender = watch::Sender<Step>;

/// How long a driver may take to end that has nothing to do.
const RETIRES: Duration = Duration::from_secs(10);
/// Pause between two looks whatever the settings say.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

impl Directory {
    /// Begins a task, which goes on to its end: who asked for it may hang up. With a revision it is begun only if what is set of the workspace
    /// is of that one still.
    pub(super) fn start(&self, name: WorkspaceName, task: Task, revision: Option<i64>) -> Running {
        let directory = self.clone();
        self.spawn_task(move |step| async move {
            let act = task.label();
            let work: BoxFuture<'_, _> = match task {
                Task::Delete { now, backups } => Box::pin(directory.delete_with(&name, (now, backups), revision, &step)),
                Task::Undelete => Box::pin(directory.undelete(&name, &step)),
                Task::Copy { to } => Box::pin(directory.copy(&name, to, &step)),
                Task::Snapshot(snapshot) => {
                    let (directory, name, step) = (&directory, &name, &step);
                    Box::pin(async move { directory.take_snapshot(name, &snapshot, step).await })
                }
                Task::RemoveSnapshot(snapshot) => {
                    let (directory, name, step) = (&directory, &name, &step);
                    Box::pin(async move { directory.remove_snapshot(name, &snapshot, step).await })
                }
                Task::Upgrade => Box::pin(directory.upgrade(&name, &step)),
                Task::BackUp => Box::pin(directory.back_up(&name, &step)),
                Task::Restore { from, backup } => {
                    let (directory, name, step) = (&directory, &name, &step);
                    Box::pin(async move { directory.restore_as(name, &from, backup.as_deref(), step).await })
                }
                Task::RestoreInPlace { backup } => {
                    let (directory, name, step) = (&directory, &name, &step);
                    Box::pin(async move { directory.restore_over(name, backup.as_deref(), step).await })
                }
                Task::ConfirmRestore => Box::pin(directory.confirm_restore(&name, &step)),
                Task::RevertRestore => Box::pin(directory.revert_restore(&name, &step)),
            };
            let result = match directory.is_of(&name, revision).await {
                Ok(()) => work.await,
                Err(why) => Err(why),
            };
            if let Err(why) = &result {
                warn!(workspace = %name, %why, "could not be done");
            }
            let outcome = result.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
            directory.house.record(&name, act, None, Some(&outcome));
            result
        })
    }

    /// Has something done to its end, whoever listens.
    pub(super) fn spawn_task<F: Future<Output = Result<Done, AskError>> + Send + 'static>(
        &self,
        work: impl FnOnce(StepSender) -> F,
    ) -> Running {
        let (step, seen) = watch::channel(Step::default());
        let (tell, done) = oneshot::channel();
        let work = work(step);
        tokio::spawn(async move {
            // Nobody may be there to hear it.
            drop(tell.send(work.await));
        });
        Running { step: seen, done }
    }

    /// Keeps a workspace for one task.
    pub(super) fn busy(&self, name: &WorkspaceName) -> Result<Busy, AskError> {
        let free = self.house.busy.lock().insert(name.clone());
        let why = || {
            let why =
                format!("{name} is being deleted, brought back, copied, upgraded or backed up right now; try again when that is done");
            AskError::Refused(why)
        };
        free.then(|| Busy { house: Arc::clone(&self.house), name: name.clone() }).ok_or_else(why)
    }

    /// Refuses a workspace of another revision than whoever wants something done with it has read.
    async fn is_of(&self, name: &WorkspaceName, revision: Option<i64>) -> Result<(), AskError> {
        if revision.is_some() { unchanged(&self.set_of(name).await?, revision) } else { Ok(()) }
    }

    async fn delete_with(
        &self,
        name: &WorkspaceName,
        (now, backups): (bool, bool),
        revision: Option<i64>,
        step: &StepSender,
    ) -> Result<Done, AskError> {
        // First: whoever is told of a failure knows that some of it may be there still, and asks again.
        let forgotten = if backups { self.forget_backups(name, step).await? } else { 0 };
        match self.delete(name, now, forgotten, revision, step).await {
            // All that there was of it.
            Err(AskError::NoWorkspace(_)) if forgotten > 0 => Ok(Done::default()),
            other => other,
        }
    }

    async fn delete(
        &self,
        name: &WorkspaceName,
        now: bool,
        backups: u64,
        revision: Option<i64>,
        step: &StepSender,
    ) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        unchanged(&settings, revision)?;
        let stage = settings.passage.as_ref().map(|passage| passage.stage);
        match stage {
            // There is nothing of it yet that anybody could want.
            Some(Stage::Reserved | Stage::Filling) => {
                self.finish(name, settings, step).await?;
                return Ok(Done::default());
            }
            Some(Stage::Deleted) if !now => return self.deletion(name, settings.passage).await,
            None if !self.is_known(name, &settings).await? => return Err(AskError::NoWorkspace(name.clone())),
            _ => {}
        }
        let since = SystemTime::now();
        let until = if now { since } else { since + self.house.rules.load().deleted_keep };
        let bytes = settings.passage.and_then(|passage| passage.bytes);
        let stage = if now { Stage::Purging } else { Stage::Deleting };
        // Written down before anything is done: a kill from here on leaves it to be finished by the next start.
        let passing = Alteration::Pass(Some(Passage { stage, since, until, bytes }));
        let settings = self.house.parts.store.alter_if(name, revision, passing).await.map_err(refused)?;
        self.finish_with(name, settings, backups, step).await
    }

    async fn undelete(&self, name: &WorkspaceName, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        let passage = match settings.passage.clone() {
            Some(passage @ Passage { stage: Stage::Deleting | Stage::Deleted | Stage::Restoring, .. }) => passage,
            Some(Passage { stage: Stage::Purging, .. }) => {
                return Err(AskError::Refused(format!("{name} is being removed for good, and cannot be brought back")));
            }
            Some(Passage { stage: Stage::Reserved | Stage::Filling | Stage::Replacing | Stage::Confirming, .. }) | None => {
                return Err(AskError::Refused(format!("{name} is not deleted; `innkeeper workspace list --deleted` names those that are")));
            }
        };
        let settings = self.pass(name, Passage { stage: Stage::Restoring, ..passage }).await?;
        self.finish(name, settings, step).await
    }

    /// Does what is left to do with a workspace that is on its way, from whatever moment on it was not done.
    pub(super) async fn finish(&self, name: &WorkspaceName, settings: Settings, step: &StepSender) -> Result<Done, AskError> {
        self.finish_with(name, settings, 0, step).await
    }

    /// The same, for who has removed so many backups of it before.
    async fn finish_with(&self, name: &WorkspaceName, settings: Settings, backups: u64, step: &StepSender) -> Result<Done, AskError> {
        let Some(passage) = settings.passage.clone() else { return Ok(Done::default()) };
        match passage.stage {
            Stage::Deleted => self.deletion(name, Some(passage)).await,
            Stage::Deleting => {
                let (container, mut removal) = self.taken_from_others(name, backups).await?;
                let passage = self.put_aside(name, settings, passage, &mut removal, step).await?;
                // From here on it can only be had back, or go.
                let stored = Passage { stage: Stage::Deleted, ..passage };
                let secrets = self.house.parts.store.secrets(name).await.map_err(unread)?.len();
                let settings = self.house.parts.store.alter(name, Alteration::PassWithoutSecrets(stored)).await.map_err(refused)?;
                let done = self.deletion(name, settings.passage).await?;
                let until = done.until.map(|until| humantime::format_rfc3339_seconds(until).to_string());
                (removal.secrets, removal.kept_until) = (secrets, until.clone());
                self.house.record_removal(name, "deleted", container, removal);
                info!(workspace = %name, homes = ?done.homes, bytes = done.bytes, secrets, until, "deleted; its homes are kept until then");
                Ok(done)
            }
            Stage::Purging => {
                let (container, mut removal) = self.taken_from_others(name, backups).await?;
                let passage = self.put_aside(name, settings, passage, &mut removal, step).await?;
                let homes = self.remove_asides(name, step).await?;
                removal.replaced_homes = self.drop_replaced(name, step).await?.len();
                removal.snapshots = self.snapshots_of(name).await?.iter().map(ToString::to_string).collect();
                self.discard_snapshots(name, |_| true).await?;
                let gone = self.house.parts.recordings.workspace_deleted(name).await;
                removal.recordings = gone.map_err(|why| AskError::Store(why.to_string()))?;
                let forgotten = self.house.parts.store.forget_all(name).await.map_err(unread)?;
                let Forgotten { settings, variables, secrets, mounts, tokens, answers } = forgotten;
                removal = Removal { settings, variables, secrets, mounts, tokens, answers, ..removal };
                self.forget(name).await?;
                self.house.record_removal(name, "deleted-for-good", container, removal);
                info!(workspace = %name, ?homes, bytes = passage.bytes, "deleted for good, with its secrets and all that was set of it");
                Ok(Done { homes, bytes: passage.bytes, ..Done::default() })
            }
            Stage::Restoring => {
                let homes = self.bring_back(name).await?;
                let settings = self.house.parts.store.alter(name, Alteration::Pass(None)).await.map_err(refused)?;
                self.apply(name, Terms::of(name, settings)).await;
                self.house.record(name, "brought-back", None, Some(&format!("homes {}", homes.join(" "))));
                info!(workspace = %name, ?homes, "brought back");
                Ok(Done { homes, bytes: passage.bytes, ..Done::default() })
            }
            Stage::Reserved => {
                // Whatever there is of it is not ours.
                self.forget(name).await?;
                Ok(Done::default())
            }
            Stage::Filling => {
                self.set_aside_all(name).await?;
                let homes = self.remove_asides(name, step).await?;
                self.forget(name).await?;
                info!(workspace = %name, ?homes, "was not made to the end, and is removed");
                Ok(Done::default())
            }
            Stage::Replacing => self.put_back(name, settings, step).await,
            Stage::Confirming => {
                let homes = self.drop_replaced(name, step).await?;
                self.let_in(name).await?;
                info!(workspace = %name, ?homes, "what was there before it was restored is removed for good");
                Ok(Done { homes, ..Done::default() })
            }
        }
    }

    /// Finishes what earlier processes have begun and what could not be done before, and removes for good what was kept for long enough, until
    /// told to stop.
    pub(super) async fn finish_all(self, stop: CancellationToken) {
        loop {
            self.finish_those_left().await;
            self.discard_forgotten().await;
            let every = self.house.rules.load().idle.sweep_every.get().max(SHORTEST_PAUSE);
            tokio::select! { () = sleep(every) => {} () = stop.cancelled() => return }
        }
    }

    async fn finish_those_left(&self) {
        let all = match self.house.parts.store.passages().await {
            Ok(all) => all,
            Err(why) => return warn!(%why, "cannot read which workspaces are being deleted or made"),
        };
        for (name, passage) in all {
            let over = passage.stage == Stage::Deleted && passage.until <= SystemTime::now();
            if passage.stage == Stage::Deleted && !over {
                continue;
            }
            // Somebody is at it already.
            let Ok(_busy) = self.busy(&name) else { continue };
            // Looked at again, now that nobody else changes it.
            let finished = async {
                let settings = self.set_of(&name).await?;
                let due = settings.passage.clone().filter(|passage| passage.stage == Stage::Deleted && passage.until <= SystemTime::now());
                let settings = match due {
                    Some(passage) => self.pass(&name, Passage { stage: Stage::Purging, ..passage }).await?,
                    None => settings,
                };
                self.finish(&name, settings, &StepSender::default()).await
            };
            if let Err(why) = finished.await {
                warn!(workspace = %name, %why, "cannot finish what was begun, it is tried again");
            }
        }
    }

    /// Removes homes that were deleted long enough ago and of whose deletion nothing is written any more.
    async fn discard_forgotten(&self) {
        let keep = self.house.rules.load().deleted_keep;
        let homes = self.house.parts.homes.clone();
        let Ok(asides) = self.house.on_disk(move || homes.asides()).await else { return };
        let old = |aside: &AsideId| aside.why == AsideReason::Deleted && aside.at().elapsed().is_ok_and(|age| age > keep);
        for aside in asides.into_iter().filter(old) {
            let name = aside.home.workspace.clone();
            let Ok(_busy) = self.busy(&name) else { continue };
            // Of one that is written down it is written down when it goes.
            let Ok(Settings { passage: None, .. }) = self.set_of(&name).await else { continue };
            let (homes, gone) = (self.house.parts.homes.clone(), aside.to_string());
            match self.house.at_length(move || homes.discard(&aside)).await {
                Ok(()) => info!(aside = gone, "a home that was deleted is removed for good"),
                Err(why) => warn!(aside = gone, %why, "cannot remove a home that was deleted"),
            }
        }
    }

    /// All that were deleted and can be had back, or are on their way to either end.
    pub(super) async fn all_deleted(&self) -> Result<Vec<DeletedView>, AskError> {
        let all = self.house.parts.store.passages().await.map_err(unread)?;
        let mut asides = self.asides().await?;
        let mut views = Vec::new();
        for (name, Passage { stage, since, until, bytes }) in all {
            if matches!(stage, Stage::Deleting | Stage::Deleted | Stage::Purging | Stage::Restoring) {
                let homes = asides.remove(&name).unwrap_or_default().iter().map(|aside| aside.home.to_string()).collect();
                views.push(DeletedView { name, stage, since, until, bytes, homes });
            }
        }
        Ok(views)
    }

    /// Whether there is anything of a workspace.
    pub(super) async fn is_known(&self, name: &WorkspaceName, settings: &Settings) -> Result<bool, AskError> {
        if settings.revision != 0 || self.house.parts.store.recall(name).await.map_err(unread)?.is_some() {
            return Ok(true);
        }
        // Its container may be there with nothing remembered of it.
        let container = super::recipe::container_name(&self.house.rules.load().instance, name);
        let container = self.house.engine().inspect(&container).await.map_err(|why| AskError::Store(why.to_string()))?;
        let of_homes = !self.homes_of(name).await?.is_empty() || self.asides().await?.contains_key(name);
        Ok(container.is_some() || of_homes || !self.snapshots_of(name).await?.is_empty())
    }

    pub(super) async fn set_of(&self, name: &WorkspaceName) -> Result<Settings, AskError> {
        self.house.parts.store.settings(name).await.map_err(unread)
    }

    pub(super) async fn pass(&self, name: &WorkspaceName, passage: Passage) -> Result<Settings, AskError> {
        self.house.parts.store.alter(name, Alteration::Pass(Some(passage))).await.map_err(refused)
    }

    /// A workspace's homes: its own and its volumes.
    pub(super) async fn homes_of(&self, name: &WorkspaceName) -> Result<Vec<HomeId>, AskError> {
        let (homes, name) = (self.house.parts.homes.clone(), name.clone());
        let list = move || {
            let mut all: Vec<HomeId> = homes.homes()?.into_iter().filter(|id| id.workspace == name).collect();
            all.sort();
            Ok(all)
        };
        self.house.on_disk(list).await.map_err(|why| AskError::Store(why.to_string()))
    }

    /// The homes that were deleted, by workspace.
    async fn asides(&self) -> Result<BTreeMap<WorkspaceName, Vec<AsideId>>, AskError> {
        let homes = self.house.parts.homes.clone();
        let all = self.house.on_disk(move || homes.asides()).await.map_err(|why| AskError::Store(why.to_string()))?;
        let mut by_name: BTreeMap<WorkspaceName, Vec<AsideId>> = BTreeMap::new();
        for aside in all.into_iter().filter(|aside| aside.why == AsideReason::Deleted) {
            by_name.entry(aside.home.workspace.clone()).or_default().push(aside);
        }
        // The newest first.
        by_name.values_mut().for_each(|asides| asides.sort_by(|a, b| a.home.cmp(&b.home).then(b.at().cmp(&a.at()))));
        Ok(by_name)
    }

    /// Takes back what others have of a workspace that is deleted. Says which container it has, and what is gone or stays by that.
    async fn taken_from_others(&self, name: &WorkspaceName, backups: u64) -> Result<(Option<ContainerId>, Removal), AskError> {
        let sessions = self.house.roll.counts().get(name).copied().unwrap_or_default();
        // First, whether or not the engine answers: links open nothing from now on.
        let Apart { links, accounts } = (self.house.parts.deleted)(name);
        self.house.meter.forget(name);
        let container = super::recipe::container_name(&self.house.rules.load().instance, name);
        let container = self.house.engine().inspect(&container).await.map_err(|why| AskError::Store(why.to_string()))?;
        let backups_kept = self.house.parts.backups.is_some() && backups == 0;
        let removal = Removal { sessions, links, backups, backups_kept, accounts_kept: accounts, ..Removal::default() };
        Ok((container.map(|container| container.id), removal))
    }

    /// Takes a workspace's container away and its homes out of use. Nobody is let into it by now.
    async fn put_aside(
        &self,
        name: &WorkspaceName,
        settings: Settings,
        passage: Passage,
        removal: &mut Removal,
        step: &StepSender,
    ) -> Result<Passage, AskError> {
        step.send_replace(Step { what: "stopping", ..Step::default() });
        if let Applied::NotYet(why) = self.apply(name, Terms::of(name, settings)).await {
            let why =
                format!("nobody can be in {name} any more, but its container is not removed yet ({why}); this is tried again by itself");
            return Err(AskError::Refused(why));
        }
        self.set_aside_all(name).await?;
        step.send_replace(Step { what: "counting", ..Step::default() });
        removal.homes = self.measured(name).await?;
        // All or nothing: a part would look like the whole.
        let bytes = removal.homes.iter().map(|home| home.bytes).sum::<Option<u64>>().filter(|_| !removal.homes.is_empty());
        let passage = Passage { bytes: passage.bytes.or(bytes), ..passage };
        self.pass(name, passage.clone()).await?;
        Ok(passage)
    }

    /// How much is in the homes of a workspace that were set aside. It is for people: nothing fails by what cannot be told.
    async fn measured(&self, name: &WorkspaceName) -> Result<Vec<RemovedHome>, AskError> {
        let asides = self.asides().await?.remove(name).unwrap_or_default();
        let homes = self.house.parts.homes.clone();
        let measure = move || {
            let one = |aside: &AsideId| {
                let usage = homes.measure_aside(aside).inspect_err(|why| warn!(%aside, %why, "cannot tell how large a home is")).ok();
                RemovedHome {
                    name: aside.home.to_string(),
                    bytes: usage.map(|usage| usage.bytes),
                    inodes: usage.and_then(|usage| usage.inodes),
                }
            };
            Ok::<_, HomeError>(asides.iter().map(one).collect())
        };
        self.house.at_length(measure).await.map_err(|why| AskError::Store(why.to_string()))
    }

    /// Sets a workspace's homes aside. A kill in between leaves some where they were: they are set aside when it is finished.
    async fn set_aside_all(&self, name: &WorkspaceName) -> Result<(), AskError> {
        for id in self.homes_of(name).await? {
            let (homes, shown) = (self.house.parts.homes.clone(), id.to_string());
            let set = self.house.at_length(move || homes.set_aside(&id, AsideReason::Deleted)).await;
            set.map_err(|why| AskError::Store(format!("{shown} cannot be set aside yet ({why}); this is tried again by itself")))?;
        }
        Ok(())
    }

    /// Makes homes of the newest that were set aside, where there is none.
    async fn bring_back(&self, name: &WorkspaceName) -> Result<Vec<String>, AskError> {
        let asides = self.asides().await?.remove(name).unwrap_or_default();
        let homes = self.house.parts.homes.clone();
        let bring = move || {
            for aside in &asides {
                match homes.bring_back(aside, &aside.home) {
                    // Brought back before a kill; or this is an older one.
                    Err(why) if why.is_taken() => {}
                    other => other?,
                }
            }
            Ok::<_, HomeError>(())
        };
        self.house.at_length(bring).await.map_err(|why| AskError::Store(why.to_string()))?;
        Ok(self.homes_of(name).await?.iter().map(HomeId::to_string).collect())
    }

    /// Removes for good what was set aside of a workspace.
    async fn remove_asides(&self, name: &WorkspaceName, step: &StepSender) -> Result<Vec<String>, AskError> {
        step.send_replace(Step { what: "removing", ..Step::default() });
        let asides = self.asides().await?.remove(name).unwrap_or_default();
        let gone = asides.iter().map(|aside| aside.home.to_string()).collect();
        let homes = self.house.parts.homes.clone();
        let remove = move || asides.iter().try_for_each(|aside| homes.discard(aside));
        self.house.at_length(remove).await.map_err(|why| AskError::Store(why.to_string()))?;
        Ok(gone)
    }

    /// Forgets all of a workspace. Its driver, which knows some of it, ends.
    pub(super) async fn forget(&self, name: &WorkspaceName) -> Result<(), AskError> {
        self.house.parts.store.forget(name).await.map_err(unread)?;
        self.house.public.set(name, None);
        self.house.ages.lock().remove(name);
        self.retire(name).await;
        Ok(())
    }

    /// Has the driver of a workspace end, so that the next one begins with what is written down.
    pub(super) async fn retire(&self, name: &WorkspaceName) {
        let Some(handle) = self.drivers.get(name).map(|handle| handle.clone()) else { return };
        let ended = async {
            handle.inbox.send(Request::Retire).await.ok();
            handle.inbox.closed().await;
        };
        if tokio::time::timeout(RETIRES, ended).await.is_err() {
            warn!(workspace = %name, "its task does not end");
        }
        self.drivers.remove_if(name, |_, handle| handle.inbox.is_closed());
    }

    async fn deletion(&self, name: &WorkspaceName, passage: Option<Passage>) -> Result<Done, AskError> {
        let homes = self.asides().await?.remove(name).unwrap_or_default().iter().map(|aside| aside.home.to_string()).collect();
        let (bytes, until) = passage.map(|passage| (passage.bytes, passage.until)).unzip();
        Ok(Done { homes, bytes: bytes.flatten(), until, ..Done::default() })
    }
}

impl House {
    /// Does something with homes that may take hours, on a thread of its own, which nobody waits for when the gateway ends: whatever is done this
    /// way is as good cut short.
    pub(super) async fn at_length<T: Send + 'static, E: Display + Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, HomeFailed> {
        let (tell, done) = oneshot::channel();
        let work = move || drop(tell.send(work()));
        // Where tests have stopped the clock it must not run on meanwhile: tokio holds it for threads of its own only.
        #[cfg(test)]
        drop(tokio::task::spawn_blocking(work));
        #[cfg(not(test))]
        std::thread::spawn(work);
        match done.await {
            Ok(done) => done.map_err(|why| HomeFailed(why.to_string())),
            Err(_) => Err(HomeFailed("a thread of the gateway ended early".to_owned())),
        }
    }
}

/// Something with a home did not work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct HomeFailed(String);

impl Drop for Busy {
    fn drop(&mut self) {
        self.house.busy.lock().remove(&self.name);
    }
}
