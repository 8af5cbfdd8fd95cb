//! A workspace made from what another has in it.

use std::ops::ControlFlow;
use std::time::SystemTime;

use tracing::info;

use super::AskError;
use super::directory::Directory;
use super::passing::{Done, Step, StepSender};
use super::recipe::Given;
use super::settings::{Applied, unread};
use super::terms::{self, Terms};
use super::variables::{SECRET_BYTES, make_up};
use crate::home::tree::{self, Skipped};
use crate::home::{HomeError, HomeId, Homes, Source, Staged};
use crate::name::WorkspaceName;
use crate::store::{NewSecret, Passage, Settings, Stage};

impl Directory {
    /// Makes `to` of what is in and set of `from`, which may be running, but for its secrets.
    pub(super) async fn copy(&self, from: &WorkspaceName, to: WorkspaceName, step: &StepSender) -> Result<Done, AskError> {
        if *from == to {
            return Err(AskError::Refused("a workspace cannot be copied to itself".to_owned()));
        }
        let (_from, _to) = (self.busy(from)?, self.busy(&to)?);
        let settings = self.set_of(from).await?;
        if settings.passage.is_some() {
            return Err(AskError::Refused(format!("{from} is deleted; `innkeeper workspace undelete {from}` brings it back")));
        }
        let homes = self.homes_of(from).await?;
        if homes.is_empty() {
            let known = self.is_known(from, &settings).await?;
            let why = || AskError::Refused(format!("{from} has no home yet: there is nothing to copy"));
            return Err(if known { why() } else { AskError::NoWorkspace(from.clone()) });
        }
        if self.is_low() {
            return Err(AskError::Refused("less than limits.disk_floor is free: make room first".to_owned()));
        }
        let given = self.given_to(from, &settings).await?;
        self.reserve(&to).await?;
        let copied = self.fill(homes, &to, given, step).await;
        let furnished = match copied {
            Ok(done) => self.furnish(from, &to).await.map(|()| done),
            Err(why) => Err(why),
        };
        match furnished {
            Ok(done) => {
                // It knows only that it was being made.
                self.retire(&to).await;
                info!(workspace = %to, %from, homes = ?done.homes, consistent = done.consistent, "copied");
                Ok(done)
            }
            Err(why) => {
                // Should this fail too, it is tried again by itself, and nobody is let into a part meanwhile.
                let settings = self.set_of(&to).await?;
                self.finish(&to, settings, step).await?;
                Err(why)
            }
        }
    }

    /// Takes a name for a workspace that is to be made, if there is nothing of that name. What there is of it from then on is a part, which is
    /// removed should this process be killed.
    pub(super) async fn reserve(&self, name: &WorkspaceName) -> Result<(), AskError> {
        let settings = self.set_of(name).await?;
        let taken = || AskError::Exists(name.clone());
        match &settings.passage {
            Some(passage) if matches!(passage.stage, Stage::Reserved | Stage::Filling) => {
                drop(self.finish(name, settings, &StepSender::default()).await?)
            }
            Some(_) => {
                let why = format!(
                    "{name} was deleted and can still be brought back; `innkeeper workspace delete {name} --now` makes room for another"
                );
                return Err(AskError::Refused(why));
            }
            None if self.is_known(name, &settings).await? => return Err(taken()),
            None => {}
        }
        let now = SystemTime::now();
        let passage = Passage { stage: Stage::Reserved, since: now, until: now, bytes: None };
        let settings = self.pass(name, passage.clone()).await?;
        // Somebody may have come just before that was written: once its driver goes by it nobody is, and what she has made is hers.
        let applied = self.apply(name, Terms::of(name, settings)).await;
        let home = self.homes_of(name).await;
        if applied != Applied::Now || !home.as_ref().is_ok_and(Vec::is_empty) {
            self.forget(name).await?;
            return Err(taken());
        }
        self.pass(name, Passage { stage: Stage::Filling, ..passage }).await.map(drop)
    }

    /// Copies homes beside those that there are, and gives them their names when all of them are whole.
    async fn fill(&self, from: Vec<HomeId>, to: &WorkspaceName, given: Given, step: &StepSender) -> Result<Done, AskError> {
        let (homes, to, step) = (self.house.parts.homes.clone(), to.clone(), step.clone());
        let work = move || {
            let (mut done, staged) = stage_all(&homes, &from, &given, Step { what: "copying", ..Step::default() }, &step)?;
            for (copy, id) in staged {
                let id = HomeId { workspace: to.clone(), volume: id.volume };
                homes.commit(copy, &id)?;
                done.homes.push(id.to_string());
            }
            Ok::<_, HomeError>(done)
        };
        self.house.at_length(work).await.map_err(|why| AskError::Store(why.to_string()))
    }

    /// Gives a workspace what is set of another. Secrets that were made up it has of its own, those by hand it has not.
    async fn furnish(&self, from: &WorkspaceName, to: &WorkspaceName) -> Result<(), AskError> {
        let store = &self.house.parts.store;
        let made_up = store.secrets(from).await.map_err(unread)?.into_iter().filter(|secret| secret.generated);
        let secrets = made_up.map(|secret| (secret.name, NewSecret { value: make_up(SECRET_BYTES), generated: true })).collect();
        store.furnish(from, to, secrets).await.map_err(unread)?;
        self.house.public.set(to, self.set_of(to).await?.policy.public_ports);
        Ok(())
    }

    /// What a workspace may use by what is remembered and set of it.
    pub(super) async fn given_to(&self, name: &WorkspaceName, settings: &Settings) -> Result<Given, AskError> {
        let record = self.house.parts.store.recall(name).await.map_err(unread)?;
        let granted = terms::read(name, record.as_ref().and_then(|record| record.limits.as_deref()));
        let own = terms::read(name, settings.limits.as_deref());
        let recipe = self.house.recipe(record.as_ref().map(|record| &record.template)).map_err(|why| AskError::Refused(why.to_string()))?;
        Ok(recipe.given(&own.over(granted)))
    }
}

/// Copies homes beside those that there are, each from a snapshot of it; says how far it is, beginning with `before`.
pub(super) fn stage_all(
    homes: &Homes,
    from: &[HomeId],
    given: &Given,
    mut before: Step,
    step: &StepSender,
) -> Result<(Done, Vec<(Staged, HomeId)>), HomeError> {
    let mut done = Done { consistent: Some(true), ..Done::default() };
    let mut staged = Vec::new();
    for id in from {
        let snapshot = homes.snapshot(id)?;
        done.consistent = done.consistent.map(|all| all && snapshot.consistent);
        let watch = |at: tree::Progress| {
            step.send_replace(Step { entries: before.entries + at.entries, bytes: before.bytes + at.bytes, ..before });
            ControlFlow::Continue(())
        };
        let copy = homes.stage_copy(&Source::Snapshot(&snapshot), &given.quota_of(id.volume.as_ref()), &watch)?;
        if let Some(summary) = copy.copied() {
            before.entries += summary.files + summary.directories + summary.symlinks + summary.fifos;
            before.bytes += summary.bytes;
            let Skipped { devices, sockets, mounts, changed, attributes } = summary.skipped;
            done.skipped += devices + sockets + mounts + changed + attributes;
            done.bytes = Some(before.bytes);
        }
        staged.push((copy, id.clone()));
    }
    Ok((done, staged))
}
