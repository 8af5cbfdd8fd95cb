//! Workspaces had back from backups: as another one, or in place of what there is.
//!
//! In place, nobody is in it from before the first home is touched until the last is there. What was there is set aside, and stays until
//! somebody says that it may go. A kill in between, or a failure, puts everything back: only one record in the store says that it is done.

use std::time::SystemTime;

use tracing::{info, warn};

use super::AskError;
use super::backing::home_of;
use super::directory::Directory;
use super::moving::{HOME, Sheet};
use super::passing::{Done, Step, StepSender};
use super::recipe::Given;
use super::settings::{Applied, refused};
use super::terms::Terms;
use crate::backup::{self, Backup, Root};
use crate::home::{AsideId, AsideReason, HomeError, HomeId, Staged};
use crate::name::{WorkspaceName, printable};
use crate::store::{Alteration, Passage, Settings, Stage};

impl Directory {
    /// Makes a workspace of a backup of another, or of one of its own that is no more.
    pub(super) async fn restore_as(
        &self,
        to: &WorkspaceName,
        from: &WorkspaceName,
        id: Option<&str>,
        step: &StepSender,
    ) -> Result<Done, AskError> {
        let _busy = self.busy(to)?;
        let backup = self.find_backup(from, id, step).await?;
        let sheet = sheet_of(&backup)?;
        let recipe =
            self.house.recipe(Some(&sheet.template)).map_err(|why| AskError::Refused(format!("it cannot be restored: {why} here")))?;
        let given = recipe.given(&sheet.limits.clone().over(sheet.granted.clone()));
        self.reserve(to).await?;
        let restored = self.restore_all(to, &backup, &given, step).await;
        let made = match restored {
            Ok(done) => self.settle(to, sheet).await.map(|()| done),
            Err(why) => Err(why),
        };
        match made {
            Ok(done) => {
                self.retire(to).await;
                info!(workspace = %to, %from, backup = backup.id, homes = ?done.homes, "restored");
                Ok(done)
            }
            Err(why) => {
                let settings = self.set_of(to).await?;
                self.finish(to, settings, step).await?;
                Err(why)
            }
        }
    }

    /// Puts a backup of a workspace in place of what it has.
    pub(super) async fn restore_over(&self, name: &WorkspaceName, id: Option<&str>, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        if settings.passage.is_some() {
            let why = format!("{name} is deleted; `innkeeper workspace undelete {name}` brings it back, or restore to another name");
            return Err(AskError::Refused(why));
        }
        if !self.is_known(name, &settings).await? {
            return Err(AskError::Refused(format!("there is no workspace {name}; restore with --to {name} to make it")));
        }
        if !self.replaced_of(name).await?.is_empty() {
            let why = format!(
                "what {name} was before it was last restored is kept still; \
                 `innkeeper backup confirm {name}` removes it, `innkeeper backup revert {name}` brings it back"
            );
            return Err(AskError::Refused(why));
        }
        let backup = self.find_backup(name, id, step).await?;
        let given = self.given_to(name, &settings).await?;
        let settings = self.begin_replacing(name, Stage::Replacing).await?;
        let replaced = match self.stopped(name, settings, step).await {
            Ok(()) => self.replace_all(name, &backup, &given, step).await,
            Err(why) => Err(why),
        };
        match replaced {
            Ok(done) => {
                // This is what makes it so: before, a kill puts back what was there.
                self.let_in(name).await?;
                info!(workspace = %name, backup = backup.id, homes = ?done.homes, "restored in place; what was there is kept until it is confirmed");
                Ok(done)
            }
            Err(why) => {
                let settings = self.set_of(name).await?;
                self.finish(name, settings, step).await?;
                Err(why)
            }
        }
    }

    /// Removes for good what was there before a restore in place.
    pub(super) async fn confirm_restore(&self, name: &WorkspaceName, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        self.unconfirmed(name).await?;
        // Whatever is left of several after a kill must not be brought back beside what took the others' place.
        let settings = self.begin_replacing(name, Stage::Confirming).await?;
        self.finish(name, settings, step).await
    }

    /// Has what was there before a restore in place back. What took its place is kept as what was deleted is.
    pub(super) async fn revert_restore(&self, name: &WorkspaceName, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        self.unconfirmed(name).await?;
        let settings = self.begin_replacing(name, Stage::Replacing).await?;
        self.finish(name, settings, step).await
    }

    /// Puts back what was there before a restore that was not done to its end, or is not wanted; [`Stage::Replacing`]. May be done again.
    pub(super) async fn put_back(&self, name: &WorkspaceName, settings: Settings, step: &StepSender) -> Result<Done, AskError> {
        self.stopped(name, settings, step).await?;
        step.send_replace(Step { what: "putting back what was there", ..Step::default() });
        let (homes, asides) = (self.house.parts.homes.clone(), self.replaced_of(name).await?);
        let back = asides.iter().map(|aside| aside.home.to_string()).collect();
        let put = move || {
            for aside in &asides {
                // A kill after the first leaves no home of that name; the second is done then.
                if homes.exists(&aside.home)? {
                    homes.set_aside(&aside.home, AsideReason::Deleted)?;
                }
                homes.bring_back(aside, &aside.home)?;
            }
            Ok::<_, HomeError>(())
        };
        self.house.at_length(put).await.map_err(|why| AskError::Store(format!("{why}; this is tried again by itself")))?;
        self.let_in(name).await?;
        info!(workspace = %name, homes = ?back, "is what it was before it was restored");
        Ok(Done { homes: back, ..Done::default() })
    }

    /// Removes what was kept; [`Stage::Confirming`]. May be done again.
    pub(super) async fn drop_replaced(&self, name: &WorkspaceName, step: &StepSender) -> Result<Vec<String>, AskError> {
        step.send_replace(Step { what: "removing what was there before", ..Step::default() });
        let (homes, asides) = (self.house.parts.homes.clone(), self.replaced_of(name).await?);
        let gone = asides.iter().map(|aside| aside.home.to_string()).collect();
        let remove = move || asides.iter().try_for_each(|aside| homes.discard(aside));
        self.house.at_length(remove).await.map_err(|why| AskError::Store(why.to_string()))?;
        Ok(gone)
    }

    /// Lets people in again.
    pub(super) async fn let_in(&self, name: &WorkspaceName) -> Result<(), AskError> {
        let settings = self.house.parts.store.alter(name, Alteration::Pass(None)).await.map_err(refused)?;
        self.apply(name, Terms::of(name, settings)).await;
        Ok(())
    }

    async fn begin_replacing(&self, name: &WorkspaceName, stage: Stage) -> Result<Settings, AskError> {
        let now = SystemTime::now();
        self.pass(name, Passage { stage, since: now, until: now, bytes: None }).await
    }

    async fn stopped(&self, name: &WorkspaceName, settings: Settings, step: &StepSender) -> Result<(), AskError> {
        step.send_replace(Step { what: "stopping", ..Step::default() });
        match self.apply(name, Terms::of(name, settings)).await {
            Applied::NotYet(why) => Err(AskError::Refused(format!("{name} is not stopped yet ({why})"))),
            Applied::Now | Applied::AtNextStart => Ok(()),
        }
    }

    async fn replaced_of(&self, name: &WorkspaceName) -> Result<Vec<AsideId>, AskError> {
        let mut all = self.replaced().await?;
        all.retain(|aside| aside.home.workspace == *name);
        Ok(all)
    }

    async fn unconfirmed(&self, name: &WorkspaceName) -> Result<(), AskError> {
        if self.set_of(name).await?.passage.is_some() {
            return Err(AskError::Refused(format!("{name} is deleted, or being made or restored")));
        }
        if self.replaced_of(name).await?.is_empty() {
            return Err(AskError::Refused(format!(
                "nothing is kept of {name} from before a restore; `innkeeper backup list` says of which there is"
            )));
        }
        Ok(())
    }

    /// The backup of a workspace whose name begins like this, or the newest.
    async fn find_backup(&self, of: &WorkspaceName, id: Option<&str>, step: &StepSender) -> Result<Backup, AskError> {
        step.send_replace(Step { what: "looking for the backup", ..Step::default() });
        if self.is_low() {
            return Err(AskError::Refused("less than limits.disk_floor is free, and nothing is restored: make room first".to_owned()));
        }
        let all = self.repository()?.list_with_settings(of.as_str()).await?;
        if all.is_empty() {
            return Err(AskError::Refused(format!("there is no backup of {of}; `innkeeper backup list` shows what there is")));
        }
        let Some(id) = id else { return all.into_iter().next().ok_or_else(|| AskError::NoWorkspace(of.clone())) };
        let mut found = all.into_iter().filter(|backup| backup.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(AskError::Refused(format!("several backups of {of} begin with {}; name more of it", printable(id)))),
            (None, _) => Err(AskError::Refused(format!("{of} has no backup {}; `innkeeper backup list {of}` names them", printable(id)))),
        }
    }

    /// Puts a backup where a workspace has no homes yet.
    async fn restore_all(&self, to: &WorkspaceName, backup: &Backup, given: &Given, step: &StepSender) -> Result<Done, AskError> {
        let (staged, done) = self.unpacked(to, backup, given, step).await?;
        let homes = self.house.parts.homes.clone();
        let commit = move || staged.into_iter().try_for_each(|(id, staged)| homes.commit(staged, &id));
        self.house.at_length(commit).await.map_err(|why| AskError::Store(why.to_string()))?;
        Ok(done)
    }

    /// The same in place of those that it has, which are set aside.
    async fn replace_all(&self, name: &WorkspaceName, backup: &Backup, given: &Given, step: &StepSender) -> Result<Done, AskError> {
        let (staged, done) = self.unpacked(name, backup, given, step).await?;
        let (homes, given) = (self.house.parts.homes.clone(), given.clone());
        let replace = move || {
            for (id, staged) in staged {
                if !homes.exists(&id)? {
                    // A volume that it did not have was as good as empty: so there is something to be put back for each that is replaced.
                    homes.commit(homes.stage(&given.quota_of(id.volume.as_ref()))?, &id)?;
                }
                homes.set_aside(&id, AsideReason::Replaced)?;
                homes.commit(staged, &id)?;
            }
            Ok::<_, HomeError>(())
        };
        self.house.at_length(replace).await.map_err(|why| AskError::Store(why.to_string()))?;
        Ok(done)
    }

    /// Puts all that is in a backup into trees that are nobody's.
    async fn unpacked(
        &self,
        of: &WorkspaceName,
        backup: &Backup,
        given: &Given,
        step: &StepSender,
    ) -> Result<(Vec<(HomeId, Staged)>, Done), AskError> {
        let named = |name: &String| {
            let wrong = || AskError::Refused(format!("there is something in it that is no home: {}", printable(name)));
            Ok((home_of(of, name).ok_or_else(wrong)?, name.clone()))
        };
        let ids = backup.roots.iter().map(named).collect::<Result<Vec<_>, AskError>>()?;
        if !backup.roots.iter().any(|name| name == HOME) {
            return Err(AskError::Refused("there is no home in it".to_owned()));
        }
        let quotas: Vec<_> = ids.iter().map(|(id, _)| given.quota_of(id.volume.as_ref())).collect();
        let homes = self.house.parts.homes.clone();
        let stage = move || {
            let staged = ids.into_iter().zip(quotas).map(|((id, name), quota)| Ok((id, name, homes.stage(&quota)?)));
            staged.collect::<Result<Vec<_>, HomeError>>()
        };
        let staged = self.house.at_length(stage).await.map_err(|why| AskError::Store(why.to_string()))?;
        let roots = staged.iter().map(|(_, name, tree)| Root { name: name.clone(), path: tree.path().to_owned() }).collect();
        let told = |at: backup::Progress| {
            step.send_replace(Step { what: "restoring", entries: at.files, bytes: at.bytes });
        };
        let restored = match self.repository()?.restore(&backup.id, roots, &told).await {
            Ok(restored) => restored,
            Err(why) => {
                // A part, which takes a while to remove.
                let removed = self.house.at_length(move || {
                    drop(staged);
                    Ok::<_, HomeError>(())
                });
                removed.await.ok();
                return Err(why.into());
            }
        };
        if restored.left_out > 0 {
            warn!(workspace = %of, left_out = restored.left_out, "not everything was restored: {}", restored.examples.join("; "));
        }
        let done = Done {
            homes: staged.iter().map(|(id, ..)| id.to_string()).collect(),
            bytes: Some(restored.bytes),
            consistent: Some(backup.consistent),
            skipped: restored.left_out,
            ..Done::default()
        };
        Ok((staged.into_iter().map(|(id, _, tree)| (id, tree)).collect(), done))
    }
}

/// What goes with the homes. What is missing, or was written by another version, is what a new workspace has.
fn sheet_of(backup: &Backup) -> Result<Sheet, AskError> {
    let sheet: Sheet = match backup.settings.as_deref().map(serde_json::from_str) {
        None => Sheet::default(),
        Some(read) => read.map_err(|why| AskError::Refused(format!("what was set of it is not understood ({why})")))?,
    };
    sheet.check()?;
    Ok(sheet)
}
