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
use super::house::House;
use super::leases::{Held, Leases};
use super::perform::{Outcome, Tools, Wish};
use super::pool::Spare;
use super::state::{Action, Event, State};
use super::{Ending, EnsureError, Progress, StartPath};
use crate::engine::{ContainerId, Limits};
use crate::home::Slot;
use crate::name::{TemplateName, WorkspaceName};
use crate::store::Record;

/// What may be asked of a driver.
pub(super) enum Request {
    /// Somebody wants the workspace to run; with `reply`, she waits for it.
    Want { wish: Wish, idle_timeout: Option<Duration>, reply: Option<oneshot::Sender<Result<Ready, EnsureError>>> },
    /// Stop it, if nobody uses it; at the end of its lifetime even then.
    Stop { reason: StopReason },
    /// Something may have happened to its container; with `reply`, somebody waits until it was looked at.
    Doubt { reply: Option<oneshot::Sender<()>> },
    /// Say this to everybody in it.
    Announce(Ending),
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
}

/// A workspace that runs, as the driver answers it.
pub(super) struct Ready {
    pub(super) container: ContainerId,
    pub(super) path: StartPath,
    pub(super) ending: watch::Receiver<Option<Ending>>,
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
    /// What is worth remembering of it. Its `last_active` is that of the last change of state.
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
    wish: Wish,
    idle_timeout: Option<Duration>,
    waiters: Vec<oneshot::Sender<Result<Ready, EnsureError>>>,
    /// Those who wait until the engine was asked.
    lookers: Vec<oneshot::Sender<()>>,
    wanted: bool,
    doubted: bool,
    place: Option<Place>,
    slot: Option<Slot>,
    spare: Option<Spare>,
    has: Option<Limits>,
    /// The running container that people may be in, and since when.
    resident: Option<ContainerId>,
    since: Instant,
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
        }
    }

    /// What a person in it reads.
    fn said(self) -> &'static str {
        match self {
            Self::Idle => "it was idle",
            Self::Room => "its place was needed",
            Self::Lifetime => "it has run for as long as it may",
        }
    }
}

impl Driver {
    /// Starts the driver of a workspace of which nothing is known yet.
    pub(super) fn spawn(house: Arc<House>, name: WorkspaceName, idle_for: Duration, idle_timeout: Option<Duration>) -> Handle {
        let (inbox, requests) = mpsc::channel(INBOX);
        let leases = Leases::idle_for(idle_for, house.admission.clone());
        let record = Record { template: TemplateName::default(), idle_timeout, last_active: SystemTime::now() - idle_for };
        let seen = watch::Sender::new(Seen { state: State::Unknown.label(), running: None, since: Instant::now(), record });
        let progress = watch::Sender::new(Progress::Asked);
        let weak = inbox.downgrade();
        let handle = Handle { inbox, seen: seen.subscribe(), progress: progress.subscribe(), leases: leases.clone() };
        let driver = Self {
            house,
            name,
            state: State::Unknown,
            wish: Wish::default(),
            idle_timeout,
            waiters: Vec::new(),
            lookers: Vec::new(),
            wanted: false,
            doubted: false,
            place: None,
            slot: None,
            spare: None,
            has: None,
            resident: None,
            since: Instant::now(),
            misses: 0,
            path: StartPath::Attach,
            leases,
            inbox: weak,
            ending: watch::Sender::new(None),
            seen,
            progress,
        };
        tokio::spawn(driver.run(requests));
        handle
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut under_way: Option<Performance> = None;
        loop {
            if under_way.is_none() {
                under_way = self.settle();
            }
            self.publish();
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

    /// Takes note of a request. What comes of it at once is returned; never anything while an action is under way.
    fn note(&mut self, request: Request, busy: bool) -> Option<Event> {
        match request {
            Request::Want { wish, idle_timeout, reply } => {
                self.wish = wish;
                self.idle_timeout = idle_timeout;
                self.wanted = true;
                self.leases.touch();
                self.waiters.extend(reply);
            }
            Request::Doubt { reply } => {
                self.doubted = true;
                self.lookers.extend(reply);
            }
            Request::Stop { reason } => return (!busy && self.may_stop(reason)).then_some(Event::Stop),
            Request::Announce(ending) => drop(self.ending.send_replace(Some(ending))),
        }
        None
    }

    fn may_stop(&self, reason: StopReason) -> bool {
        // The leases are looked at here, in the one task that gives them: nobody can come in between.
        let unused = self.leases.count() == 0 && !self.wanted;
        let stop = matches!(self.state, State::Running(_) | State::Paused(_)) && (unused || reason == StopReason::Lifetime);
        if stop {
            info!(workspace = %self.name, reason = reason.label(), "stopping");
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
        if !self.wanted {
            return None;
        }
        let State::Running(id) = &self.state else { return self.feed(Event::Wanted) };
        let limits = self.house.recipe(self.wish.template.as_ref()).map(|recipe| recipe.limits(&self.wish.limits));
        if let Ok(limits) = limits
            && self.has != Some(limits)
        {
            // Taken for done whatever comes of it: a limit that cannot be changed keeps nobody out.
            let action = Action::Adjust(id.clone());
            let adjusting = self.begin(action);
            self.has = Some(limits);
            return Some(adjusting);
        }
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
        for waiter in self.waiters.drain(..) {
            let ready = Ready { container: container.clone(), path, ending: self.ending.subscribe(), lease: self.leases.take() };
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
                tokio::spawn(Arc::clone(&self.house).remember(self.name.clone(), self.record()));
            }
            State::Running(_) | State::Paused(_) | State::Unknown | State::Stopping(_) => {}
            State::Absent | State::Queued(_) | State::Creating | State::Starting(_) | State::Stopped(_) => self.depart(),
        }
        if matches!(self.state, State::Running(_) | State::Absent | State::Stopped(_)) {
            self.progress.send_if_modified(|progress| std::mem::take(progress) != Progress::Asked);
        }
        if !self.state.occupies() {
            self.place = None;
        } else if self.place.is_none() && self.state != State::Unknown {
            self.place = Some(self.house.admission.enter_anyway());
        }
    }

    /// The container that people were in is not there any more.
    fn depart(&mut self) {
        if let Some(id) = self.resident.take() {
            self.house.residents.remove(&id);
            self.ending.send_if_modified(|ending| {
                let unsaid = !matches!(ending, Some(Ending::Stopping(_)));
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
            wish: self.wish.clone(),
            // Not given to what may be dropped halfway or leaves the container where it is: who drops the slot does not answer for it.
            slot: match action {
                Action::Admit | Action::Adjust(_) | Action::Stop(_) => None,
                Action::Acquire | Action::Start(_) | Action::Unpause(_) | Action::Discard(_) | Action::Observe => self.slot.take(),
            },
            fresh: self.state.container().is_none(),
            spare: self.spare.take(),
            has: self.has,
            patient: !self.waiters.is_empty(),
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
            Outcome::Ready { id, slot, path, limits } => {
                (self.slot, self.has, self.path, self.misses) = (Some(slot), Some(limits), path, 0);
                self.feed(Event::Ready(id))
            }
            Outcome::Halted => self.feed(Event::Halted),
            Outcome::Discarded => {
                self.has = None;
                self.feed(Event::Gone)
            }
            Outcome::Adjusted => None,
            Outcome::Observed { found, slot } => {
                self.slot = slot;
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
                self.feed(Event::Failed)
            }
        }
    }

    fn record(&self) -> Record {
        let template = self.wish.template.clone().unwrap_or_default();
        let last_active = SystemTime::now() - self.leases.idle().unwrap_or_default();
        Record { template, idle_timeout: self.idle_timeout, last_active }
    }

    fn publish(&self) {
        let seen = Seen {
            state: self.state.label(),
            running: self.resident.clone().filter(|_| matches!(self.state, State::Running(_))),
            since: self.since,
            record: self.record(),
        };
        self.seen.send_replace(seen);
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
