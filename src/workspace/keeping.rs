//! Snapshots of workspaces that are kept under a name, for new homes to start with: taken when somebody asks, and changed by nobody.

use std::collections::BTreeSet;

use tracing::info;

use super::copying::stage_all;
use super::directory::Directory;
use super::house::House;
use super::passing::{Done, Step, StepSender};
use super::{AskError, EnsureError, Template};
use crate::home::{HomeError, HomeId, KeptId, Quota, Skeleton};
use crate::name::{SnapshotName, WorkspaceName};
use crate::store::Stage;

/// Most snapshots of one workspace.
const MOST: usize = 32;

impl Directory {
    /// Keeps what is in a workspace's home and volumes, which may be in use, under a name.
    pub(super) async fn take_snapshot(&self, name: &WorkspaceName, snapshot: &SnapshotName, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        let settings = self.set_of(name).await?;
        if settings.passage.is_some() {
            return Err(AskError::Refused(format!("{name} is deleted; `innkeeper workspace undelete {name}` brings it back")));
        }
        let homes = self.homes_of(name).await?;
        if !homes.iter().any(|id| id.volume.is_none()) {
            let known = self.is_known(name, &settings).await?;
            let why = || AskError::Refused(format!("{name} has no home yet: there is nothing to keep"));
            return Err(if known { why() } else { AskError::NoWorkspace(name.clone()) });
        }
        let there = self.snapshots_of(name).await?;
        if there.contains(snapshot) {
            let mend = format!("`innkeeper workspace snapshot {name} remove {snapshot}` removes it");
            return Err(AskError::Refused(format!("there is a snapshot {snapshot} of {name} already; {mend}")));
        }
        if there.len() >= MOST {
            return Err(AskError::Refused(format!("{name} has {MOST} snapshots, and no more are kept: remove one first")));
        }
        if self.is_low() {
            return Err(AskError::Refused("less than limits.disk_floor is free: make room first".to_owned()));
        }
        let given = self.given_to(name, &settings).await?;
        let (shelf, step, kept, of) = (self.house.parts.homes.clone(), step.clone(), snapshot.clone(), name.clone());
        let work = move || {
            // What a kill has left of an earlier one, or of one that was half removed.
            shelf.parts_of(&of, &kept)?.iter().try_for_each(|part| shelf.discard_kept(part))?;
            let (mut done, mut staged) = stage_all(&shelf, &homes, &given, Step { what: "taking a snapshot", ..Step::default() }, &step)?;
            // The home is the last: with it the snapshot is there.
            staged.sort_by_key(|(_, home)| home.volume.is_none());
            for (copy, home) in staged {
                let part = KeptId { home, snapshot: kept.clone() };
                shelf.commit_kept(copy, &part)?;
                done.homes.push(part.home.to_string());
            }
            Ok::<_, HomeError>(done)
        };
        let done = self.house.at_length(work).await.map_err(|why| AskError::Store(why.to_string()))?;
        info!(workspace = %name, %snapshot, homes = ?done.homes, consistent = done.consistent, "snapshot taken");
        Ok(done)
    }

    /// Removes a snapshot for good, unless a template names it.
    pub(super) async fn remove_snapshot(&self, name: &WorkspaceName, snapshot: &SnapshotName, step: &StepSender) -> Result<Done, AskError> {
        let _busy = self.busy(name)?;
        let rules = self.house.rules.load_full();
        let wanted = Skeleton::Snapshot { workspace: name.clone(), snapshot: snapshot.clone() };
        let names_it = |template: &Template| template.skeletons().any(|(_, skeleton)| *skeleton == wanted);
        if let Some((template, _)) = rules.templates.iter().find(|(_, template)| names_it(template)) {
            return Err(AskError::Refused(format!(
                "new homes of the template {template} start with {wanted}: give it another skeleton first"
            )));
        }
        if !self.snapshots_of(name).await?.contains(snapshot) {
            return Err(AskError::Refused(format!("there is no snapshot {snapshot} of {name}")));
        }
        step.send_replace(Step { what: "removing", ..Step::default() });
        let homes = self.discard_snapshots(name, |other| other == snapshot).await?;
        info!(workspace = %name, %snapshot, "snapshot removed");
        Ok(Done { homes, ..Done::default() })
    }

    /// The names of a workspace's snapshots.
    pub(super) async fn snapshots_of(&self, name: &WorkspaceName) -> Result<BTreeSet<SnapshotName>, AskError> {
        let homes = self.house.parts.homes.clone();
        let all = self.house.on_disk(move || homes.kept()).await.map_err(|why| AskError::Store(why.to_string()))?;
        Ok(all.into_iter().filter(|kept| kept.home.workspace == *name).map(|kept| kept.snapshot).collect())
    }

    /// Removes those of a workspace's snapshots for good. Says of which homes they were.
    pub(super) async fn discard_snapshots(
        &self,
        name: &WorkspaceName,
        which: impl Fn(&SnapshotName) -> bool,
    ) -> Result<Vec<String>, AskError> {
        let snapshots = self.snapshots_of(name).await?.into_iter().filter(which).collect::<Vec<_>>();
        let (homes, of) = (self.house.parts.homes.clone(), name.clone());
        let discard = move || {
            let mut gone = Vec::new();
            for snapshot in &snapshots {
                for part in homes.parts_of(&of, snapshot)? {
                    homes.discard_kept(&part)?;
                    gone.push(part.home.to_string());
                }
            }
            Ok::<_, HomeError>(gone)
        };
        self.house.at_length(discard).await.map_err(|why| AskError::Store(why.to_string()))
    }
}

impl House {
    /// Whether the workspaces are there with whose snapshots new ones of these homes are to start: of one that is deleted nothing goes to others,
    /// though its snapshots are on the disk as long as it can be had back.
    pub(super) async fn sources_are_there(&self, trees: &[(HomeId, Quota)], template: &Template) -> Result<(), EnsureError> {
        for (id, _) in trees {
            let Some(skeleton @ Skeleton::Snapshot { workspace, .. }) = template.skeleton_of(id.volume.as_ref()) else { continue };
            let (homes, home) = (self.parts.homes.clone(), id.clone());
            if self.on_disk(move || homes.exists(&home)).await? {
                continue;
            }
            let settings = self.parts.store.settings(workspace).await.map_err(|why| EnsureError::Settings(why.to_string()))?;
            if settings.passage.is_some_and(|passage| matches!(passage.stage, Stage::Deleting | Stage::Deleted | Stage::Purging)) {
                return Err(EnsureError::Home(format!("{id} is to start with {skeleton}, and {workspace} is deleted")));
            }
        }
        Ok(())
    }
}
