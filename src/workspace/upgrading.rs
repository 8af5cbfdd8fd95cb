//! Giving a workspace a container of its template's image as it is now, in place of the one it has, which comes back if the other does not
//! come up.
//!
//! The former container is stopped and kept under a name of its own while the other is tried: no two run with one home. Which of them is the
//! workspace's the store says. While it names the former one, that is it, whatever there is beside; afterwards the former one is nobody's.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::perform::{LAST_WORDS, Outcome, Tools};
use super::recipe::{self, Recipe};
use super::terms::Terms;
use super::{Attachment, EnsureError, Progress, StartPath};
use crate::attach::{self, ServiceExit, ServiceState};
use crate::engine::{Container, ContainerId, ContainerState, EngineError, INSTANCE_LABEL, ImageId};
use crate::home::Slot;
use crate::store::{Alteration, UpgradeStep};

/// What a container would be made from now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    image: ImageId,
    fingerprint: String,
}

/// Whether a container has come up.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Its services do their work.
    Up,
    /// Not yet; what is missing.
    NotYet(String),
    /// It will not; why.
    Down(String),
}

/// For how long a service must have run of which nothing says whether it is ready: what cannot start ends sooner.
const SETTLE: Duration = Duration::from_secs(3);
/// How often a container is looked at that is to come up.
const LOOK: Duration = Duration::from_millis(250);

impl Target {
    pub(super) fn new(image: ImageId, recipe: &Recipe) -> Self {
        Self { image, fingerprint: recipe.fingerprint() }
    }

    /// Whether a container was made from this.
    pub(super) fn is_of(&self, container: &Container) -> bool {
        container.image == self.image && recipe::made_from(&container.labels).is_some_and(|(_, made)| made == self.fingerprint)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.image.0, self.fingerprint)
    }
}

impl Tools {
    /// Gives a container that runs up for another, if that is asked for and possible.
    pub(super) async fn upgrade(&mut self, id: &ContainerId) -> Result<Outcome, EnsureError> {
        let recipe = self.house.recipe(self.wish.template.as_ref())?;
        match self.due(id, &recipe).await? {
            Some(target) => self.swap(id, &recipe, &target, true).await,
            None => {
                let slot = self.slot.take().ok_or_else(no_slot)?;
                self.ready(id, slot, self.had.clone()).await
            }
        }
    }

    /// What a container is to be replaced by one of, if that was asked for and has not failed with the same before.
    pub(super) async fn due(&mut self, id: &ContainerId, recipe: &Recipe) -> Result<Option<Target>, EnsureError> {
        let Some(upgrade) = &self.upgrade else { return Ok(None) };
        let failed = upgrade.failed.as_ref().map(|failed| failed.target.clone());
        let Some(container) = self.house.engine().inspect(&id.0).await? else { return Ok(None) };
        let Some(image) = self.house.engine().image(&recipe.template.image).await? else {
            warn!(workspace = %self.name, image = recipe.template.image, "cannot upgrade: the image is not here");
            return Ok(None);
        };
        let target = Target::new(image, recipe);
        if target.is_of(&container) {
            self.step(UpgradeStep::Over).await?;
            return Ok(None);
        }
        Ok((failed != Some(target.to_string())).then_some(target))
    }

    /// Has another container tried in place of one, which `runs` or stands still.
    pub(super) async fn swap(&mut self, id: &ContainerId, recipe: &Recipe, target: &Target, runs: bool) -> Result<Outcome, EnsureError> {
        self.progress.send_replace(Progress::Upgrading);
        let resume = runs || self.upgrade.as_ref().is_some_and(|upgrade| upgrade.resume);
        // A kill from here on, until it is over: the next start makes the former container the workspace's again, and starts it if it ran,
        // which begins this anew.
        self.step(UpgradeStep::Begun { former: id.0.clone(), resume }).await?;
        if runs {
            if self.peopled {
                sleep(LAST_WORDS).await;
            }
            self.house.stop(id).await?;
        }
        self.house.engine().rename(id, &recipe::former_name(&recipe.instance, &self.name)).await?;
        let former = self.slot.take().ok_or_else(no_slot)?;
        info!(workspace = %self.name, former = id.0, image = target.image.0, "upgrading");
        let made = self.create(recipe).await;
        self.progress.send_replace(Progress::Upgrading);
        match made {
            Ok(Outcome::Ready { id: new, slot, given, made, fit, .. }) => match self.come_up(&new, recipe).await {
                Ok(()) => {
                    if let Err(why) = self.step(UpgradeStep::Over).await {
                        self.slot = Some(former);
                        return Err(why);
                    }
                    // What cannot be removed now the next look finds.
                    if self.house.discard(id, Some(former)).await.is_ok() {
                        self.let_go_of_lost(&recipe.template.volumes()).await;
                    }
                    self.house.parts.metrics.upgrades.with_label_values(&["done"]).inc();
                    info!(workspace = %self.name, container = new.0, image = target.image.0, "upgraded");
                    self.house.record(&self.name, "upgraded", Some(&new), None);
                    Ok(Outcome::Ready { id: new, slot, path: StartPath::Upgrade, given, made, fit })
                }
                Err(why) => self.go_back(id, former, target, why, Some((new, slot))).await,
            },
            Ok(Outcome::NameTaken(why)) => {
                self.slot = Some(former);
                Err(why)
            }
            Ok(_) => {
                self.slot = Some(former);
                Err(EnsureError::Engine("no container was made".to_owned()))
            }
            Err(why) => self.go_back(id, former, target, why.to_string(), None).await,
        }
    }

    /// The other container is no good: the former one is the workspace's again, and started.
    async fn go_back(
        &mut self,
        id: &ContainerId,
        former: Slot,
        target: &Target,
        why: String,
        new: Option<(ContainerId, Slot)>,
    ) -> Result<Outcome, EnsureError> {
        self.slot = Some(former);
        // Not the image's fault: whoever looks when the engine is back makes good what is half done, and it is still asked for.
        self.house.engine().version().await?;
        self.step(UpgradeStep::Failed { target: target.to_string(), why: why.clone() }).await?;
        self.house.parts.metrics.upgrades.with_label_values(&["undone"]).inc();
        warn!(workspace = %self.name, image = target.image.0, why, "upgrade undone, its container is the former one");
        self.house.record(&self.name, "upgrade-undone", None, Some(&why));
        if let Some((new, slot)) = new {
            self.end(&new).await;
            self.house.discard(&new, Some(slot)).await?;
        }
        let name = recipe::container_name(&self.house.rules.load().instance, &self.name);
        self.house.engine().rename(id, &name).await?;
        Box::pin(self.start(id)).await
    }

    /// Waits until a container that was just started does its work; why it does not.
    async fn come_up(&self, id: &ContainerId, recipe: &Recipe) -> Result<(), String> {
        let within = self.house.rules.load().limits.upgrade_timeout.get();
        let deadline = Instant::now() + within;
        let in_time = |why: String| format!("{why} within {}", humantime::format_duration(within));
        let told = match recipe.template.attach {
            Attachment::Exec => Vec::new(),
            Attachment::Init => {
                while let Err(why) = self.house.parts.attach.terminals(id).await {
                    self.runs(id).await?;
                    if Instant::now() >= deadline {
                        return Err(in_time(format!("its init does not answer ({why})")));
                    }
                    sleep(LOOK).await;
                }
                self.house.tell_first(&self.name, id, &recipe.template_name, deadline).await?
            }
        };
        let since = Instant::now();
        loop {
            self.runs(id).await?;
            let up_for = since.elapsed();
            match verdict(&told, &self.house.parts.attach.services(id), up_for) {
                Verdict::Up if recipe.template.attach == Attachment::Init || up_for >= SETTLE => return Ok(()),
                Verdict::Down(why) => return Err(why),
                Verdict::NotYet(why) if Instant::now() >= deadline => return Err(in_time(why)),
                Verdict::Up | Verdict::NotYet(_) => sleep(LOOK).await,
            }
        }
    }

    /// What it has in hand it may finish: it has her home. One that cannot be asked is removed as it is.
    async fn end(&self, id: &ContainerId) {
        self.house.stop(id).await.ok();
    }

    async fn runs(&self, id: &ContainerId) -> Result<(), String> {
        match self.house.engine().inspect(&id.0).await {
            Ok(Some(container)) if container.state == ContainerState::Running => Ok(()),
            Ok(_) => Err("its container ended".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }

    /// What an upgrade has left that was cut short: one of its two containers is the workspace's, and the other goes.
    pub(super) async fn settle_former(&mut self) -> Result<(), EnsureError> {
        let instance = self.house.rules.load().instance.clone();
        let Some(former) = self.house.engine().inspect(&recipe::former_name(&instance, &self.name)).await? else { return Ok(()) };
        if former.labels.get(INSTANCE_LABEL).map(String::as_str) != Some(instance.as_str()) {
            return Ok(());
        }
        let name = recipe::container_name(&instance, &self.name);
        let current = self.house.engine().inspect(&name).await?;
        // Both have one, and which is whose is looked at again.
        self.slot = None;
        let kept = self.upgrade.as_ref().is_some_and(|upgrade| upgrade.former.as_deref() == Some(former.id.0.as_str()));
        match current {
            Some(_) if !kept => {
                info!(workspace = %self.name, container = former.id.0, "removing the container that was kept for an upgrade");
                let slot = self.house.adopt(&former);
                self.house.discard(&former.id, slot).await?;
            }
            current => {
                // A kill between these two leaves no container under the workspace's name, and the former one: looked at here again.
                if let Some(current) = current {
                    self.end(&current.id).await;
                    let slot = self.house.adopt(&current);
                    self.house.discard(&current.id, slot).await?;
                }
                self.house.engine().rename(&former.id, &name).await?;
                warn!(workspace = %self.name, container = former.id.0, "an upgrade was cut short, its container is the former one");
            }
        }
        Ok(())
    }

    /// There is a container that was made just now: whatever was asked for, it has.
    pub(super) async fn upgrade_is_over(&mut self) {
        if self.upgrade.is_some()
            && let Err(why) = self.step(UpgradeStep::Over).await
        {
            warn!(workspace = %self.name, %why, "cannot write down that no upgrade is due any more");
        }
    }

    /// Writes down how far it is.
    async fn step(&mut self, step: UpgradeStep) -> Result<(), EnsureError> {
        let settings = self.house.parts.store.alter(&self.name, Alteration::Upgrade(step)).await;
        let terms = Terms::of(&self.name, settings.map_err(|why| EnsureError::Settings(why.to_string()))?);
        self.upgrade.clone_from(&terms.upgrade);
        self.news = Some(terms);
        Ok(())
    }
}

fn no_slot() -> EnsureError {
    EnsureError::from(EngineError::Refused { call: "upgrade", why: "its container has no slot".to_owned() })
}

/// Whether services do their work, so long after they were told to begin.
fn verdict(told: &[attach::Service], states: &[ServiceState], up_for: Duration) -> Verdict {
    let mut missing = None;
    for service in told {
        let name = &service.name;
        let Some(state) = states.iter().find(|state| state.name == *name) else {
            missing = missing.or_else(|| Some(format!("service {name} did not start")));
            continue;
        };
        let exit = match state.exit {
            None => String::new(),
            Some(ServiceExit::Status(status)) => format!(" (status {status})"),
            Some(ServiceExit::Signal(signal)) => format!(" (signal {signal})"),
        };
        let over = !state.running && state.exit.is_some();
        let well = state.exit == Some(ServiceExit::Status(0)) && service.restart != attach::Restart::Always;
        if service.ready.is_some() {
            if over && service.restart == attach::Restart::Never {
                return Verdict::Down(format!("service {name} ended{exit}"));
            }
            if !(state.running && state.ready == Some(true)) {
                missing = missing.or_else(|| Some(format!("service {name} was not ready{exit}")));
            }
        } else if state.restarts > 0 || (over && !well) {
            return Verdict::Down(format!("service {name} ended{exit}"));
        } else if !over && (!state.running || up_for < SETTLE) {
            missing = missing.or_else(|| Some(format!("service {name} did not start")));
        }
    }
    missing.map_or(Verdict::Up, Verdict::NotYet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::{Check, Ready, Restart};

    fn service(name: &str, restart: Restart, watched: bool) -> attach::Service {
        let ready = Ready { by: Check::Port(80), every: 1, timeout: 1, retries: 1, grace: 0, restart: false };
        let command = vec!["serve".to_owned()];
        attach::Service { name: name.to_owned(), command, env: Vec::new(), directory: None, restart, ready: watched.then_some(ready) }
    }

    fn state(running: bool, ready: Option<bool>, restarts: u32, exit: Option<u8>) -> ServiceState {
        ServiceState { name: "web".to_owned(), running, ready, restarts, exit: exit.map(ServiceExit::Status) }
    }

    #[track_caller]
    fn check(restart: Restart, watched: bool, state: Option<ServiceState>, up_for: u64, expect: Verdict) {
        let told = [service("web", restart, watched)];
        assert_eq!(verdict(&told, state.as_slice(), Duration::from_secs(up_for)), expect);
    }

    #[test]
    fn what_is_watched_is_up_when_it_is_ready() {
        let not_yet = |more: &str| Verdict::NotYet(format!("service web was not ready{more}"));
        check(Restart::Always, true, Some(state(true, Some(true), 3, Some(1))), 0, Verdict::Up);
        check(Restart::Always, true, Some(state(true, Some(false), 0, None)), 99, not_yet(""));
        check(Restart::Always, true, Some(state(true, None, 0, None)), 99, not_yet(""));
        check(Restart::Always, true, Some(state(false, None, 7, Some(2))), 99, not_yet(" (status 2)"));
        check(Restart::Never, true, Some(state(false, None, 0, Some(2))), 0, Verdict::Down("service web ended (status 2)".to_owned()));
    }

    #[test]
    fn what_is_not_watched_is_up_when_it_stays_so() {
        let (not_yet, down) = (
            || Verdict::NotYet("service web did not start".to_owned()),
            |status| Verdict::Down(format!("service web ended (status {status})")),
        );
        check(Restart::Always, false, None, 99, not_yet());
        check(Restart::Always, false, Some(state(true, None, 0, None)), 1, not_yet());
        check(Restart::Always, false, Some(state(true, None, 0, None)), 3, Verdict::Up);
        check(Restart::Always, false, Some(state(false, None, 0, None)), 3, not_yet());
        check(Restart::Always, false, Some(state(false, None, 0, Some(0))), 1, down(0));
        check(Restart::Always, false, Some(state(true, None, 1, Some(1))), 9, down(1));
        check(Restart::OnFailure, false, Some(state(false, None, 0, Some(0))), 0, Verdict::Up);
        check(Restart::Never, false, Some(state(false, None, 0, Some(1))), 0, down(1));
    }

    #[test]
    fn nothing_to_run_is_up_at_once() {
        assert_eq!(verdict(&[], &[], Duration::ZERO), Verdict::Up);
    }
}
