//! The trail as whoever records sees it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use parking_lot::Mutex;

use super::page::{Mark, Page, Wanted};
use super::refusals::{Refusal, Refusals};
use super::writer::{Order, Shared, Writer};
use super::{Config, Event};
use crate::telemetry::Metrics;

/// Events that wait to be written: three seconds' of the most that is promised.
const WAITING: usize = 16 * 1024;

/// Where events are recorded. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    root: PathBuf,
    orders: SyncSender<Order>,
    /// Those of late, whose counts the thread writes.
    refusals: Arc<Mutex<Refusals>>,
    lost: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Why there is no trail.
#[derive(Debug, thiserror::Error)]
#[error("the audit trail in {}: {why}", path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    why: io::Error,
}

// === impl Audit ===

impl Audit {
    /// Goes on with the trail in this directory, or begins it. Nothing else may write there.
    pub fn open(config: &Config, root: &Path, metrics: &Metrics) -> Result<Self, AuditError> {
        if !config.enabled {
            return Ok(Self::default());
        }
        let failed = |why| AuditError { path: root.to_owned(), why };
        let (orders, ordered) = sync_channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let refusals = Arc::<Mutex<Refusals>>::default();
        let shared = Shared { lost: Arc::clone(&lost), ends: Arc::clone(&ends), refusals: Arc::clone(&refusals) };
        let writer = Writer::open(config, root, shared, metrics.clone()).map_err(failed)?;
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run(&ordered)).map_err(failed)?;
        Ok(Self(Some(Arc::new(Inner { root: root.to_owned(), orders, refusals, lost, ends, thread: Mutex::new(Some(thread)) }))))
    }

    /// Records an event. Never waits: what cannot be taken is counted, and the count recorded.
    pub fn record(&self, mut event: Event) {
        let Some(inner) = &self.0 else { return };
        event.what = event.what.tamed();
        if let Err(TrySendError::Full(_)) = inner.orders.try_send(Order::Write(Box::new(event))) {
            inner.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records that something was refused before anybody could be told apart, or over HTTP: at once, or counted with others of its kind. Never waits.
    pub fn refuse(&self, refusal: Refusal) {
        let Some(inner) = &self.0 else { return };
        let line = inner.refusals.lock().note(refusal, Instant::now());
        if let Some(line) = line {
            self.record(line);
        }
    }

    /// A page of what was recorded, the newest first; what was recorded in the last moments may not be in it yet. Waits for the disk. `None`: there
    /// is no trail.
    pub fn page(&self, wanted: &Wanted, from: Option<Mark>, limit: usize) -> Result<Option<Page>, AuditError> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let failed = |why| AuditError { path: inner.root.clone(), why };
        super::page::page(&inner.root, wanted, from, limit).map(Some).map_err(failed)
    }

    /// Writes what waits, as far as the disk takes it, and ends. What is recorded later is not.
    pub fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let Some(thread) = inner.thread.lock().take() else { return };
        inner.ends.store(true, Ordering::Relaxed);
        if inner.orders.send(Order::End).is_ok() {
            let _ = thread.join();
        }
    }
}
