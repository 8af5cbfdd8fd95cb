//! The one task that changes a workspace.
//!
//! It decides ([`super::state`]), has it done ([`super::perform`]), and tells whoever waits. At most one action is under way; what arrives
//! meanwhile is kept, and looked at when it has ended.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::admission::Place;
use super::events::News;
use super::house::House;
use super::leases::{Held, Leases};
use super::lending::Fit;
use super::perform::{self, Outcome, Tools, Wish};
use super::pool::Spare;
use super::recipe::{self, Given};
use super::serving::Serving;
use super::state::{Action, Event, State};
use super::terms::{self, Barred, Terms};
use super::volume::Volumes;
use super::{Ending, EnsureError, IdlePolicy, ImageAge, Note, Progress, StartPath};
use crate::engine::{ContainerId, Limits};
use crate::home::Slot;
use crate::name::{TemplateName, WorkspaceName};
use crate::store::{Record, Upgrade};

/// What may be asked of a driver.
pub(super) enum Request {
    /// Somebody wants the workspace to run; with `reply`, she waits for it.
    Want { wish: Wish, idle_timeout: Option<Duration>, reply: Option<oneshot::Sender<Result<Ready, EnsureError>>> },
    /// Stop it, if nobody uses it; at the end of its lifetime or for an administrator even then.
    Stop { reason: StopReason },
    /// Something may have happened to its container; with `reply`, somebody waits until it was looked at.
    Doubt { reply: Option<oneshot::Sender<()>> },
    /// Say this to everybody in it.
    Announce(Ending),
    /// Something may be set of it that it does not go by yet; with `reply`, somebody waits until it does, as far as it can.
    Terms { terms: Terms, reply: Option<oneshot::Sender<Result<(), EnsureError>>> },
    /// Try again to go by what is set: it did not work when it was.
    Enforce,
    /// The upgrade that is set is to be tried now, also if it runs; with `reply`, somebody waits for what runs then.
    Upgrade { reply: Option<oneshot::Sender<Result<Ready, EnsureError>>> },
    /// It was stopped for an upgrade that was cut short: it should run.
    Resume,
    /// Its homes were made reachable for something else: let go of them, unless its container uses them or is about to.
    Rest,
    /// Everything that is known of it is forgotten: let the next who asks begin anew.
    Retire,
}

/// Why a workspace is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Nobody used it for long enough.
    Idle,
    /// Somebody else needs the place.
    Room,
    /// It has run for as long as it may.
    Lifetime,
    /// An administrator wants it.
    Asked,
}

/// A workspace that runs, as the driver answers it.
pub(super) struct Ready {
    pub(super) container: ContainerId,
    pub(super) path: StartPath,
    pub(super) ending: watch::Receiver<Option<Ending>>,
    pub(super) notes: Vec<Note>,
    pub(super) lease: Held,
}

/// What others may see of a workspace, always current.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// The state's name.
    pub(super) state: &'static str,
    /// The container, while it runs.
    pub(super) running: Option<ContainerId>,
    /// Since when it runs.
    pub(super) since: Instant,
    /// Since when it has been being stopped, if it is.
    pub(super) stopping: Option<Instant>,
    /// Whether nobody knows how its container is, as the last look at it, or its removal, has failed.
    pub(super) blind: bool,
    /// What it may use, where that is known.
    pub(super) limits: Option<Limits>,
    /// Of which revision what it goes by is, and why nobody may be in it by that, in a word.
    pub(super) revision: i64,
    pub(super) barred: Option<&'static str>,
    /// Whether it is to get another image.
    pub(super) upgrade: Option<Upgrade>,
    /// When it is stopped, if that is set of it.
    pub(super) idle: Option<IdlePolicy>,
    /// Which volumes the container has.
    pub(super) volumes: Volumes,
    /// What is worth remembering of it. Its template is what its container was made from, its `last_active` that of the last change of state.
    pub(super) record: Record,
}

/// How to reach a driver.
#[derive(Clone)]
pub(super) struct Handle {
    pub(super) inbox: mpsc::Sender<Request>,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) leases: Leases,
}

/// The task's own state.
pub(super) struct Driver {
    house: Arc<House>,
    name: WorkspaceName,
    state: State,
    /// What was last wished for by who has logged in, what an administrator has set not counted.
    wish: Wish,
    terms: Terms,
    /// Whether what is set is to be gone by now, and those who wait for that.
    enforce: bool,
    /// Whether a container that stands still is to go, and that was not tried yet.
    remove: bool,
    /// Whether the upgrade that is set is to be tried though it runs.
    renew: bool,
    /// Whether homes may be reachable that nobody uses.
    rest: bool,
    /// Whether it ends as soon as nothing is under way.
    retire: bool,
    appliers: Vec<oneshot::Sender<Result<(), EnsureError>>>,
    /// Why that did not work.
    trouble: Option<EnsureError>,
    idle_timeout: Option<Duration>,
    waiters: Vec<oneshot::Sender<Result<Ready, EnsureError>>>,
    /// Those who wait until the engine was asked.
    lookers: Vec<oneshot::Sender<()>>,
    wanted: bool,
    doubted: bool,
    place: Option<Place>,
    slot: Option<Slot>,
    spare: Option<Spare>,
    has: Option<Given>,
    /// Whether the container may have other limits than those: giving it them has failed.
    doubtful: bool,
    /// What of the host its container has.
    fit: Fit,
    /// Whether its container is another than it was for that reason, and nobody was told yet.
    replaced: bool,
    /// The template that its container was made from: its label says so after a restart too, when nobody has wished for anything yet.
    made_from: Option<TemplateName>,
    /// Which volumes its container has: its labels say so too.
    volumes: Volumes,
    /// The running container that people may be in, and since when.
    resident: Option<ContainerId>,
    serving: Option<Serving>,
    since: Instant,
    /// Since when it has been being stopped, until it is known to stand still or to run.
    stopping: Option<Instant>,
    /// Whether the last look at its container, or its removal, has failed.
    blind: bool,
    /// How often in a row a name was taken by a container that could not be found.
    misses: u32,
    path: StartPath,
    leases: Leases,
    inbox: mpsc::WeakSender<Request>,
    ending: watch::Sender<Option<Ending>>,
    seen: watch::Sender<Seen>,
    progress: watch::Sender<Progress>,
}

type Performance = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Requests that may wait for a driver; more wait with those who ask.
const INBOX: usize = 64;
/// How often a name may be taken and its container not be there before it is no race any more.
const MISSES: u32 = 2;

impl StopReason {
    /// The value of the metric label `reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Room => "room",
            Self::Lifetime => "lifetime",
            Self::Asked => "asked",
        }
    }

    /// What a person in it reads.
    pub(super) fn said(self) -> &'static str {
        match self {
            Self::Idle => "it was idle",
            Self::Room => "its place was needed",
            Self::Lifetime => "it has run for as long as it may",
            Self::Asked => "an administrator stopped it",
        }
    }
}

impl Driver {
    /// Starts the driver of a workspace of whose container nothing is known yet, with what is remembered and what is set of it.
    pub(super) fn spawn(house: Arc<House>, name: WorkspaceName, remembered: Option<&Record>, terms: Terms) -> Handle {
        let idle_for = remembered.and_then(|record| SystemTime::now().duration_since(record.last_active).ok()).unwrap_or_default();
        let idle_timeout = remembered.and_then(|record| record.idle_timeout);
        // So that limits can be changed before anybody has logged in again.
        let wish = remembered.map_or_else(Wish::default, |record| Wish {
            template: Some(record.template.clone()),
            limits: terms::read(&name, record.limits.as_deref()),
        });
        let (inbox, requests) = mpsc::channel(INBOX);
        let leases = Leases::idle_for(idle_for, house.admission.clone());
        let record = remembered.cloned().unwrap_or_else(|| Record {
            template: TemplateName::default(),
            limits: None,
            idle_timeout,
            last_active: SystemTime::now(),
        });
        let (revision, barred, volumes) = (terms.revision, terms.barred.as_ref().map(Barred::label), Volumes::new());
        let (upgrade, idle) = (terms.upgrade.clone(), terms.idle);
        let (state, since) = (State::Unknown.label(), Instant::now());
        let (running, stopping, blind, limits) = (None, None, false, None);
        let seen =
            watch::Sender::new(Seen { state, running, since, stopping, blind, limits, volumes, revision, barred, upgrade, idle, record });
        let progress = watch::Sender::new(Progress::Asked);
        let weak = inbox.downgrade();
        let handle = Handle { inbox, seen: seen.subscribe(), progress: progress.subscribe(), leases: leases.clone() };
        let driver = Self {
            house,
            name,
            state: State::Unknown,
            wish,
            enforce: barred.is_some(),
            remove: terms.barred.as_ref().is_some_and(Barred::removes),
            renew: false,
            rest: false,
            retire: false,
            terms,
            appliers: Vec::new(),
            trouble: None,
            idle_timeout,
            waiters: Vec::new(),
            lookers: Vec::new(),
            wanted: false,
            doubted: false,
            place: None,
            slot: None,
            spare: None,
            has: None,
            doubtful: false,
            fit: Fit::default(),
            replaced: false,
            made_from: None,
            volumes: Volumes::new(),
            resident: None,
            serving: None,
            since: Instant::now(),
            stopping: None,
            blind: false,
            misses: 0,
            path: StartPath::Attach,
            leases,
            inbox: weak,
            ending: watch::Sender::new(None),
            seen,
            progress,
        };
        let runtime = driver.house.runtime.clone();
        runtime.spawn(driver.run(requests));
        handle
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut under_way: Option<Performance> = None;
        loop {
            if under_way.is_none() {
                under_way = self.settle();
            }
            self.publish();
            if self.retire && under_way.is_none() {
                // What there still is of it, its next driver finds.
                return self.depart();
            }
            let in_line = matches!(self.state, State::Queued(_)) && !self.waiters.is_empty();
            tokio::select! {
                biased;
                outcome = end_of(&mut under_way) => under_way = self.ended(outcome),
                request = requests.recv() => {
                    let Some(request) = request else { return };
                    if let Some(event) = self.note(request, under_way.is_some()) {
                        under_way = self.feed(event);
                    }
                }
                // Who has hung up need not wait any longer; when all have, their place in the queue is another's.
                () = all_gone(&mut self.waiters), if in_line => {
                    debug!(workspace = %self.name, "nobody waits any more, leaving the queue");
                    self.waiters.clear();
                    self.wanted = false;
                    under_way = self.feed(Event::Abandoned);
                }
            }
        }
    }

    /// Takes note of a request. What comes of it at once is returned; while an action is under way, that is at most the end of waiting for a
    /// place.
    fn note(&mut self, request: Request, busy: bool) -> Option<Event> {
        match request {
            // Whoever looked before she asked may have looked too early.
            Request::Want { reply, .. } | Request::Upgrade { reply } if let Some(barred) = &self.terms.barred => {
                reply.map(|reply| reply.send(Err(barred.clone().into())));
            }
            Request::Want { wish, idle_timeout, reply } => {
                self.wish = wish;
                self.idle_timeout = idle_timeout;
                self.wanted = true;
                self.leases.touch();
                self.waiters.extend(reply);
            }
            Request::Upgrade { reply } => {
                self.renew = true;
                self.wanted = true;
                self.waiters.extend(reply);
            }
            Request::Resume => self.wanted |= self.terms.barred.is_none(),
            Request::Doubt { reply } => {
                self.doubted = true;
                self.lookers.extend(reply);
            }
            Request::Stop { reason } => return (!busy && self.may_stop(reason)).then_some(Event::Stop),
            Request::Announce(news) => {
                // What was only to come is no news any more once it is there.
                self.ending.send_if_modified(|ending| {
                    let over = ending.as_ref().is_some_and(Ending::is_now);
                    if !over {
                        *ending = Some(news);
                    }
                    !over
                });
            }
            Request::Terms { terms, reply } => {
                self.appliers.extend(reply);
                if terms.revision > self.terms.revision {
                    self.terms = terms;
                }
                return self.enforce(busy);
            }
            Request::Enforce => return self.enforce(busy),
            Request::Rest => {
                self.rest = true;
                // Whether there is a container that uses them, only the engine knows.
                self.doubted |= self.state == State::Unknown && !busy;
            }
            Request::Retire => self.retire = true,
        }
        None
    }

    /// What is set is gone by from now on, as soon as nothing is under way.
    fn enforce(&mut self, busy: bool) -> Option<Event> {
        self.enforce = true;
        // Only the engine knows whether there is anything to be done.
        self.doubted |= self.state == State::Unknown && !busy;
        let queued = matches!(self.state, State::Queued(_));
        if queued {
            // What is made or started later goes by it.
            self.applied();
        }
        let barred = self.terms.barred.clone()?;
        self.remove = barred.removes();
        self.refuse(&barred.into());
        queued.then_some(Event::Abandoned)
    }

    /// Those who wait for what is set to be gone by learn what came of it.
    fn applied(&mut self) {
        let result = self.trouble.take().map_or(Ok(()), Err);
        self.appliers.drain(..).for_each(|applier| drop(applier.send(result.clone())));
    }

    fn may_stop(&self, reason: StopReason) -> bool {
        // The leases are looked at here, in the one task that gives them: nobody can come in between.
        let unused = self.leases.count() == 0 && !self.wanted;
        let stop = matches!(self.state, State::Running(_) | State::Paused(_))
            && (unused || matches!(reason, StopReason::Lifetime | StopReason::Asked));
        if stop {
            info!(workspace = %self.name, reason = reason.label(), "stopping");
            self.house.record(&self.name, "stopping", None, Some(reason.label()));
            self.house.parts.metrics.stops.with_label_values(&[reason.label()]).inc();
            self.ending.send_replace(Some(Ending::Stopping(reason.said())));
        }
        stop
    }

    /// Nothing is under way: what is next?
    fn settle(&mut self) -> Option<Performance> {
        if std::mem::take(&mut self.doubted)
            && let Some(action) = self.feed(Event::Doubted)
        {
            return Some(action);
        }
        for looker in self.lookers.drain(..) {
            looker.send(()).ok();
        }
        if std::mem::take(&mut self.rest) && !self.wanted && matches!(self.state, State::Absent | State::Stopped(_)) {
            // Nothing else of this workspace is done meanwhile: who wants it waits.
            return Some(Box::pin(perform::let_go(Arc::clone(&self.house), self.name.clone())));
        }
        if let Some(barred) = self.terms.barred.clone() {
            let runs = matches!(self.state, State::Running(_) | State::Paused(_));
            // Once each time it is asked for: if it does not work it would not work at once again.
            if runs && std::mem::take(&mut self.enforce) {
                info!(workspace = %self.name, why = barred.label(), "stopping, as nobody may be in it");
                self.house.record(&self.name, "stopping", None, Some(barred.label()));
                self.house.parts.metrics.stops.with_label_values(&[barred.label()]).inc();
                self.ending.send_replace(Some(barred.ending()));
                return self.feed(Event::Stop);
            }
            if matches!(self.state, State::Stopped(_)) && std::mem::take(&mut self.remove) {
                return self.feed(Event::Remove);
            }
            if barred.removes() {
                // Whoever waits goes on to take its home away.
                let gone = self.state == State::Absent;
                self.trouble =
                    (!gone).then(|| self.trouble.take().unwrap_or_else(|| EnsureError::Engine("its container is there still".to_owned())));
            } else if !runs {
                // However it came to stand still: it does.
                self.trouble = None;
            }
            self.applied();
            return None;
        }
        self.serve();
        let enforce = std::mem::take(&mut self.enforce);
        let given = self.house.recipe(self.wish.template.as_ref()).map(|recipe| recipe.given(&self.wish().limits));
        if (enforce || self.wanted)
            && let State::Running(id) = &self.state
            && let Ok(given) = given
            && self.has.as_ref() != Some(&given)
        {
            // Taken for done whatever comes of it: a limit that cannot be changed keeps nobody out.
            let action = Action::Adjust(id.clone());
            let adjusting = self.begin(action);
            self.has = Some(given);
            return Some(adjusting);
        }
        self.applied();
        // One that stands still is upgraded as it starts.
        self.renew &= matches!(self.state, State::Running(_) | State::Paused(_) | State::Unknown);
        if matches!(self.state, State::Running(_)) && std::mem::take(&mut self.renew) && self.terms.upgrade.is_some() {
            info!(workspace = %self.name, "stopping, as it gets another image");
            self.house.parts.metrics.stops.with_label_values(&["upgrade"]).inc();
            self.ending.send_replace(Some(Ending::Stopping("it gets another image")));
            return self.feed(Event::Upgrade);
        }
        if !self.wanted {
            return None;
        }
        let State::Running(id) = &self.state else { return self.feed(Event::Wanted) };
        let id = id.clone();
        self.answer(&id);
        None
    }

    /// Everybody who waited gets in, each with a lease.
    fn answer(&mut self, container: &ContainerId) {
        self.wanted = false;
        if self.waiters.is_empty() {
            // Made ready ahead of her: she is told how when she comes.
            return;
        }
        // How it came to run is the news of the first who is told.
        let path = std::mem::replace(&mut self.path, StartPath::Attach);
        let mut notes: Vec<Note> = self.fit.absent.iter().cloned().map(Note::Absent).collect();
        if std::mem::take(&mut self.replaced) {
            notes.push(Note::Replaced);
        }
        if path == StartPath::Upgrade {
            notes.push(Note::Upgraded);
        }
        for waiter in self.waiters.drain(..) {
            let (ending, lease, notes) = (self.ending.subscribe(), self.leases.take(), notes.clone());
            let ready = Ready { container: container.clone(), path, ending, notes, lease };
            // Who has hung up meanwhile drops the lease again.
            drop(waiter.send(Ok(ready)));
        }
    }

    fn refuse(&mut self, why: &EnsureError) {
        self.wanted = false;
        self.waiters.drain(..).for_each(|waiter| drop(waiter.send(Err(why.clone()))));
    }

    /// Takes an event in, and begins what follows from it.
    fn feed(&mut self, event: Event) -> Option<Performance> {
        let before = std::mem::replace(&mut self.state, State::Unknown);
        let (state, action) = before.on(event);
        self.state = state;
        self.arrive();
        action.map(|action| self.begin(action))
    }

    /// Keeps what goes with a state in step with it: the place, and whether those inside still have a container.
    fn arrive(&mut self) {
        match &self.state {
            State::Running(id) if self.resident.as_ref() != Some(id) => {
                let id = id.clone();
                self.depart();
                self.house.residents.insert(id.clone(), self.inbox.clone());
                self.ending = watch::Sender::new(None);
                self.resident = Some(id);
                self.since = Instant::now();
                self.serve();
                tokio::spawn(Arc::clone(&self.house).remember(self.name.clone(), self.record()));
                if let Some(upgrade) = self.terms.upgrade.as_mut().filter(|upgrade| upgrade.resume) {
                    upgrade.resume = false;
                    tokio::spawn(Arc::clone(&self.house).resumed(self.name.clone(), self.inbox.clone()));
                }
            }
            State::Running(_) | State::Paused(_) | State::Unknown | State::Stopping(_) => {}
            State::Absent | State::Queued(_) | State::Creating | State::Starting(_) | State::Stopped(_) => self.depart(),
        }
        if matches!(self.state, State::Running(_) | State::Absent | State::Stopped(_)) {
            self.progress.send_if_modified(|progress| std::mem::take(progress) != Progress::Asked);
        }
        self.stopping = match &self.state {
            State::Stopping(_) => Some(self.stopping.unwrap_or_else(Instant::now)),
            // The engine did not stop it, and has not said yet how it is.
            State::Unknown => self.stopping,
            _ => None,
        };
        if !self.state.occupies() {
            self.place = None;
        } else if self.place.is_none() && self.state != State::Unknown {
            self.place = Some(self.house.admission.enter_anyway());
        }
    }

    /// Has the services of the running container told, unless they are or nothing is to run.
    fn serve(&mut self) {
        let Some(id) = self.resident.as_ref().filter(|_| self.serving.is_none() && self.terms.barred.is_none()) else { return };
        let (name, template) = (self.name.clone(), self.record().template);
        // How it came to run is not known of one that ran before anybody asked this process for it.
        let found = self.path == StartPath::Attach;
        self.serving = Some(Serving::begin(&self.house, name, id.clone(), template, found));
    }

    /// What is wished for, and what an administrator has set, which goes before it.
    fn wish(&self) -> Wish {
        Wish { template: self.wish.template.clone(), limits: self.terms.limits.clone().over(self.wish.limits.clone()) }
    }

    /// The container that people were in is not there any more.
    fn depart(&mut self) {
        if let Some(id) = self.resident.take() {
            self.house.residents.remove(&id);
            self.serving = None;
            self.ending.send_if_modified(|ending| {
                let unsaid = !ending.as_ref().is_some_and(Ending::is_now);
                if unsaid {
                    *ending = Some(Ending::Died);
                }
                unsaid
            });
        }
    }

    fn begin(&mut self, action: Action) -> Performance {
        debug!(workspace = %self.name, ?action, "doing");
        let tools = Tools {
            house: Arc::clone(&self.house),
            name: self.name.clone(),
            wish: self.wish(),
            mounts: self.terms.mounts.clone(),
            network: self.terms.network,
            had: self.fit.clone(),
            upgrade: self.terms.upgrade.clone(),
            news: None,
            // Not given to what may be dropped halfway or has no use for it: who drops the slot does not answer for it.
            slot: match action {
                Action::Admit | Action::Adjust(_) => None,
                Action::Stop(_)
                | Action::Acquire
                | Action::Start(_)
                | Action::Unpause(_)
                | Action::Upgrade(_)
                | Action::Discard(_)
                | Action::Observe => self.slot.take(),
            },
            fresh: self.state.container().is_none(),
            spare: self.spare.take(),
            has: self.has.clone().filter(|_| !self.doubtful),
            volumes: self.volumes.clone(),
            patient: !self.waiters.is_empty(),
            peopled: self.leases.count() > 0,
            progress: self.progress.clone(),
        };
        Box::pin(tools.perform(action))
    }

    fn ended(&mut self, outcome: Outcome) -> Option<Performance> {
        match outcome {
            Outcome::Admitted { place, spare } => {
                self.place = Some(place);
                self.spare = spare;
                self.feed(Event::Admitted)
            }
            Outcome::Abandoned => {
                self.wanted = !self.waiters.is_empty();
                self.feed(Event::Abandoned)
            }
            Outcome::Ready { id, slot, path, given, made, fit } => {
                self.fit = fit;
                self.doubtful = false;
                if let Some(made) = made {
                    self.house.ages.lock().insert(self.name.clone(), ImageAge::Current);
                    (self.made_from, self.volumes) = (Some(made.template), made.volumes);
                }
                (self.slot, self.has, self.path, self.misses) = (Some(slot), Some(given), path, 0);
                self.feed(Event::Ready(id))
            }
            Outcome::News(terms, outcome) => {
                if terms.revision > self.terms.revision {
                    self.terms = terms;
                }
                self.ended(*outcome)
            }
            Outcome::Halted { slot } => {
                self.slot = slot;
                self.feed(Event::Halted)
            }
            Outcome::Discarded { replaced } => {
                self.has = None;
                self.fit = Fit::default();
                self.volumes.clear();
                self.replaced |= replaced;
                self.feed(Event::Gone)
            }
            Outcome::Rested => None,
            Outcome::Adjusted => {
                self.doubtful = false;
                None
            }
            Outcome::Observed { found, slot } => {
                (self.slot, self.blind) = (slot, false);
                let label = found.as_ref().map(|found| Fit::found(&found.labels)).unwrap_or_default();
                // Of one that is known it is known better.
                if (&self.fit.label, self.fit.network) != (&label.label, label.network) {
                    self.fit = label;
                }
                self.made_from = found.as_ref().and_then(|found| Some(recipe::made_from(&found.labels)?.0));
                self.volumes = found.as_ref().map(|found| recipe::volumes_of(&found.labels)).unwrap_or_default();
                self.feed(Event::Observed(found.map(|container| (container.id, container.state))))
            }
            Outcome::NameTaken(why) => {
                // There must be one then: a look finds it. If it does not, that was no race.
                self.misses += 1;
                if self.misses > MISSES {
                    self.refuse(&why);
                }
                self.feed(Event::Failed)
            }
            Outcome::Failed { why, slot } => {
                self.slot = slot.or(self.slot.take());
                warn!(workspace = %self.name, state = self.state.label(), %why, "failed");
                if !self.waiters.is_empty() {
                    self.house.parts.metrics.start_failures.with_label_values(&[why.label()]).inc();
                }
                self.refuse(&why);
                self.doubtful |= matches!(self.state, State::Running(_));
                self.trouble = Some(why);
                self.blind = self.state == State::Unknown;
                self.feed(Event::Failed)
            }
        }
    }

    fn record(&self) -> Record {
        let template = self.made_from.clone().or(self.wish.template.clone()).unwrap_or_default();
        let last_active = SystemTime::now() - self.leases.idle().unwrap_or_default();
        Record { template, limits: terms::written(&self.wish.limits), idle_timeout: self.idle_timeout, last_active }
    }

    fn publish(&self) {
        let seen = Seen {
            state: self.state.label(),
            running: self.resident.clone().filter(|_| matches!(self.state, State::Running(_))),
            since: self.since,
            stopping: self.stopping,
            blind: self.blind && self.state == State::Unknown,
            limits: self.has.as_ref().map(|has| has.limits),
            volumes: self.volumes.clone(),
            revision: self.terms.revision,
            barred: self.terms.barred.as_ref().map(Barred::label),
            upgrade: self.terms.upgrade.clone(),
            idle: self.terms.idle,
            record: self.record(),
        };
        let state = seen.barred.filter(|_| seen.running.is_none()).unwrap_or(seen.state);
        let before = self.seen.send_replace(seen);
        if before.barred.filter(|_| before.running.is_none()).unwrap_or(before.state) != state {
            self.house.events.tell(News::State { workspace: self.name.clone(), state });
        }
    }
}

/// The end of what is under way; never, if nothing is.
async fn end_of(under_way: &mut Option<Performance>) -> Outcome {
    match under_way {
        Some(action) => {
            let outcome = action.await;
            *under_way = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

async fn all_gone(waiters: &mut [oneshot::Sender<Result<Ready, EnsureError>>]) {
    for waiter in waiters {
        waiter.closed().await;
    }
}
