//! Workspaces that are kept running for requests: one lease for all of a workspace's, held a moment longer than the last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::Target;
use crate::name::WorkspaceName;
use crate::workspace::{Ending, EnsureError, Keeper, Stay};

/// How long a lease is held after the last request: a page is many.
const LINGER: Duration = Duration::from_secs(5);
/// How long a workspace is waited for, for a page that asks again.
const COMING: Duration = Duration::from_secs(60);

/// The stays.
pub(super) struct Stays {
    keeper: Arc<dyn Keeper>,
    /// Where workspaces are made ready: what is begun there goes on when requests are over, and is held up by none.
    runtime: Handle,
    each: usize,
    all: Mutex<HashMap<WorkspaceName, Entry>>,
}

struct Entry {
    stay: Option<Arc<Stay>>,
    places: Arc<Semaphore>,
    used: Instant,
    /// Waits for it between the times that a page asks, so that it keeps its turn where there is a queue.
    coming: Option<JoinHandle<()>>,
}

impl Entry {
    fn is_coming(&self) -> bool {
        self.coming.as_ref().is_some_and(|coming| !coming.is_finished())
    }
}

/// A request's: a running workspace, and a place among its requests.
pub(super) struct Hold {
    pub(super) stay: Arc<Stay>,
    _place: OwnedSemaphorePermit,
}

/// Why there is none.
pub(super) enum Unheld {
    /// It has as many requests as it may.
    TooMany,
    /// This gateway knows no workspace of that name.
    Unknown,
    /// It does not run, and is not to be woken.
    Asleep,
    Unready(EnsureError),
}

impl Stays {
    /// To be called where workspaces are made ready.
    pub(super) fn new(keeper: Arc<dyn Keeper>, each: usize) -> Self {
        Self { keeper, runtime: Handle::current(), each, all: Mutex::default() }
    }

    /// Whether a port needs no link, as is set of its workspace.
    pub(super) fn is_public(&self, target: &Target) -> bool {
        self.keeper.is_public(&target.workspace, target.port)
    }

    /// A place among a workspace's requests.
    pub(super) fn place(&self, name: &WorkspaceName) -> Result<OwnedSemaphorePermit, Unheld> {
        let mut all = self.all.lock();
        let entry = all.entry(name.clone()).or_insert_with(|| Entry {
            stay: None,
            places: Arc::new(Semaphore::new(self.each)),
            used: Instant::now(),
            coming: None,
        });
        Arc::clone(&entry.places).try_acquire_owned().map_err(|_| Unheld::TooMany)
    }

    /// The workspace, made ready if it is not.
    pub(super) async fn hold(&self, name: &WorkspaceName, place: OwnedSemaphorePermit) -> Result<Hold, Unheld> {
        let there = |all: &mut HashMap<WorkspaceName, Entry>| {
            let entry = all.get_mut(name)?;
            let stay = entry.stay.clone().filter(|stay| !stay.ending.borrow().as_ref().is_some_and(Ending::is_now))?;
            entry.used = Instant::now();
            Some(stay)
        };
        if let Some(stay) = there(&mut self.all.lock()) {
            return Ok(Hold { stay, _place: place });
        }
        let (keeper, wanted) = (Arc::clone(&self.keeper), name.clone());
        let reaching = self.runtime.spawn(async move {
            let grant = keeper.grant_of(&wanted).await.map_err(Unheld::Unready)?.ok_or(Unheld::Unknown)?;
            keeper.reach(&grant).await.map_err(Unheld::Unready)
        });
        // Who does not wait any longer is waited for no longer.
        let reached = AbortOnDropHandle::new(reaching).await;
        let stay = Arc::new(reached.unwrap_or_else(|why| Err(Unheld::Unready(EnsureError::Engine(why.to_string()))))?);
        let mut all = self.all.lock();
        if let Some(entry) = all.get_mut(name) {
            (entry.stay, entry.used) = (Some(Arc::clone(&stay)), Instant::now());
        }
        Ok(Hold { stay, _place: place })
    }

    /// The workspace as it is, neither made ready nor kept so.
    pub(super) async fn glance(&self, name: &WorkspaceName, place: OwnedSemaphorePermit) -> Result<Hold, Unheld> {
        if let Some(stay) = self.keeper.glance(name) {
            return Ok(Hold { stay: Arc::new(stay), _place: place });
        }
        let known = self.keeper.grant_of(name).await.map_err(Unheld::Unready)?;
        Err(if known.is_some() { Unheld::Asleep } else { Unheld::Unknown })
    }

    /// Starts to make it ready, for who asks again.
    pub(super) fn prepare(&self, name: &WorkspaceName) {
        let mut all = self.all.lock();
        let Some(entry) = all.get_mut(name).filter(|entry| !entry.is_coming()) else { return };
        let (keeper, wanted) = (Arc::clone(&self.keeper), name.clone());
        entry.coming = Some(self.runtime.spawn(async move {
            let Ok(Some(grant)) = keeper.grant_of(&wanted).await else { return };
            if let Ok(Ok(_stay)) = timeout(COMING, keeper.reach(&grant)).await {
                // Until the page asks, it is not to make room for others.
                sleep(LINGER).await;
            }
        }));
    }

    /// The workspace's container is not the one any more.
    pub(super) fn forget(&self, stay: &Arc<Stay>) {
        if let Some(entry) = self.all.lock().get_mut(&stay.workspace)
            && entry.stay.as_ref().is_some_and(|held| Arc::ptr_eq(held, stay))
        {
            entry.stay = None;
        }
    }

    /// Lets go of leases that no request has had for a moment. To be called now and then.
    pub(super) fn sweep(&self) {
        self.all.lock().retain(|_, entry| {
            let in_use = entry.places.available_permits() < self.each;
            in_use || entry.is_coming() || entry.used.elapsed() < LINGER
        });
    }
}
