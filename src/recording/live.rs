//! A recording that goes on: what is handed over by the session is made small at once and waits, for a moment and up to a size, for the thread
//! that writes.
//!
//! Each recording has an encoder with a small window, so that a thousand of them fit. The lock around it is held for no longer than it takes
//! to compress what was handed over, and never while a disk is waited for.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zstd::stream::raw::CParameter;
use zstd::stream::write::Encoder;

use super::cast::{self, Meta, What};
use super::end::{End, Failure};
use super::id::RecordingId;
use super::index::Index;
use super::screen::{Frame, Screen};
use super::text::Pieces;
use super::writer::Order;
use crate::audit::{self, Actor, Audit, Event};
use crate::telemetry::Metrics;

/// Compressed bytes that wait, from which on the thread is woken, and above which the recording fails: of one, and of all together.
const SOME: usize = 32 * 1024;
const MOST: usize = 4 * 1024 * 1024;
const MOST_OF_ALL: usize = 64 * 1024 * 1024;

/// Bytes of output that become one event at most, so that no line gets longer than is read.
const PIECE: usize = 32 * 1024;

/// Effort that is spent on compression, and the windows in which repetition is looked for, as powers of two.
const LEVEL: i32 = 1;
const WINDOW: u32 = 16;
const HASHES: u32 = 13;

/// How often a screen is looked at at most.
const EVERY: Duration = Duration::from_millis(125);

/// Who may watch one session at once.
const WATCHERS: usize = 4;

/// Where a session's output is handed over. The recording ends with it.
pub struct Tap {
    live: Arc<Live>,
}

/// What all recordings share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) orders: SyncSender<Order>,
    pub(super) index: Arc<Index>,
    pub(super) metrics: Metrics,
    pub(super) audit: Audit,
    /// Bytes that wait, of all recordings.
    pub(super) waiting: Arc<AtomicUsize>,
    /// Nothing is recorded while fewer bytes are free.
    pub(super) floor: Arc<AtomicU64>,
}

/// A recording that goes on.
pub(super) struct Live {
    pub(super) id: RecordingId,
    pub(super) meta: Arc<Meta>,
    shared: Shared,
    began: Instant,
    inside: Mutex<Inside>,
    woken: AtomicBool,
    /// Counts what the screen was sent.
    changed: watch::Sender<u64>,
    watchers: Arc<Semaphore>,
    over: CancellationToken,
    failed: Mutex<Option<Failure>>,
}

struct Inside {
    /// `None`: nothing more comes.
    encoder: Option<Encoder<'static, Vec<u8>>>,
    /// What it has left.
    rest: Vec<u8>,
    /// How much of what waits is counted among what does of all recordings.
    counted: usize,
    unflushed: bool,
    pieces: Pieces,
    size: (u16, u16),
    screen: Option<Screen>,
    end: End,
}

/// Somebody who watches a session.
pub struct Watch {
    live: Arc<Live>,
    changed: watch::Receiver<u64>,
    last: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

/// A recording that goes on, as others know it.
#[derive(Clone)]
pub struct View(Arc<Live>);

// === impl Tap ===

impl Tap {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// The terminal is sent this.
    pub fn output(&self, bytes: &[u8]) {
        self.live.output(bytes);
    }

    /// It has another size.
    pub fn resized(&self, columns: u16, rows: u16) {
        self.live.resized(columns, rows);
    }

    /// How the session ends, once that is known.
    pub fn ends(&self, end: End) {
        self.live.inside.lock().end = end;
    }

    /// The recording as others know it.
    pub fn view(&self) -> View {
        View(Arc::clone(&self.live))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let words = match &self.live.inside.lock().end {
            End::Exited(how) => format!("the session ended: {how}"),
            End::Left => "the session ended: its client left, or it was ended".to_owned(),
        };
        self.live.finish(&words);
    }
}

// === impl View ===

impl View {
    /// Which it is.
    pub fn id(&self) -> RecordingId {
        self.0.id
    }

    /// Whether it has ended, by itself or because it failed.
    pub fn is_over(&self) -> bool {
        self.0.over.is_cancelled()
    }

    /// Whether its screen can be watched.
    pub fn is_watchable(&self) -> bool {
        !self.is_over() && self.0.inside.lock().screen.is_some()
    }

    /// How many watch it.
    pub fn watchers(&self) -> usize {
        WATCHERS.saturating_sub(self.0.watchers.available_permits())
    }

    /// Begins to watch; `None`: as many do as may, or nobody may.
    pub fn watch(&self) -> Option<Watch> {
        let place = Arc::clone(&self.0.watchers).try_acquire_owned().ok().filter(|_| self.is_watchable())?;
        Some(Watch { live: Arc::clone(&self.0), changed: self.0.changed.subscribe(), last: None, _place: place })
    }

    /// Waits for its end, and says why it failed if it has.
    pub async fn over(&self) -> Option<Failure> {
        self.0.over.cancelled().await;
        *self.0.failed.lock()
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({})", self.0.id)
    }
}

// === impl Watch ===

impl Watch {
    /// What the screen looks like: at first at once, then whenever something has changed, but not too often; `None`: the session is over.
    pub async fn next(&mut self) -> Option<Frame> {
        if let Some(last) = self.last {
            tokio::select! {
                biased;
                changed = self.changed.changed() => changed.ok()?,
                () = self.live.over.cancelled() => return None,
            }
            tokio::time::sleep_until(last + EVERY).await;
        }
        self.changed.mark_unchanged();
        self.last = Some(Instant::now());
        let time = self.live.began.elapsed().as_secs_f64();
        self.live.inside.lock().screen.as_mut().map(|screen| screen.frame(time))
    }
}

// === impl Live ===

impl Live {
    /// One that begins now.
    pub(super) fn new(meta: Meta, watchable: bool, shared: Shared) -> io::Result<Self> {
        let now = SystemTime::now();
        let mut encoder = Encoder::new(Vec::new(), LEVEL)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
        encoder.set_parameter(CParameter::HashLog(HASHES))?;
        encoder.include_checksum(true)?;
        encoder.write_all(cast::header(&meta, now).as_bytes())?;
        let size = (meta.columns, meta.rows);
        let inside = Inside {
            encoder: Some(encoder),
            rest: Vec::new(),
            counted: 0,
            unflushed: true,
            pieces: Pieces::default(),
            size,
            screen: watchable.then(|| Screen::new(size.0, size.1)),
            end: End::Left,
        };
        Ok(Self {
            id: RecordingId::new(now),
            meta: Arc::new(meta),
            shared,
            began: Instant::now(),
            inside: Mutex::new(inside),
            woken: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            watchers: Arc::new(Semaphore::new(WATCHERS)),
            over: CancellationToken::new(),
            failed: Mutex::new(None),
        })
    }

    fn output(&self, bytes: &[u8]) {
        bytes.chunks(PIECE).for_each(|piece| self.take(piece));
    }

    fn take(&self, bytes: &[u8]) {
        let mut inside = self.inside.lock();
        let text = inside.pieces.text(bytes);
        if text.is_empty() || inside.encoder.is_none() {
            return;
        }
        if let Some(screen) = &mut inside.screen {
            screen.feed(&text);
        }
        self.add(inside, &What::Output(text));
    }

    fn resized(&self, columns: u16, rows: u16) {
        let mut inside = self.inside.lock();
        if inside.size == (columns, rows) || inside.encoder.is_none() {
            return;
        }
        inside.size = (columns, rows);
        if let Some(screen) = &mut inside.screen {
            screen.resize(columns, rows);
        }
        self.add(inside, &What::Resized(columns, rows));
    }

    fn add(&self, mut inside: parking_lot::MutexGuard<'_, Inside>, what: &What) {
        let line = cast::event(self.began.elapsed().as_secs_f64(), what);
        inside.keep(&line);
        let waiting = inside.count(&self.shared.waiting);
        drop(inside);
        let of_all = self.shared.waiting.load(Ordering::Relaxed);
        self.changed.send_modify(|count| *count += 1);
        if waiting > MOST || of_all > MOST_OF_ALL {
            self.fail(Failure::Slow);
        } else if waiting > SOME {
            self.wake();
        }
    }

    /// Has the thread look at it, unless it is about to.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            // With a full queue it is looked at anyway, a little later.
            if let Err(TrySendError::Full(_)) = self.shared.orders.try_send(Order::Wake(self.id)) {
                self.woken.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Ends it with a word of ours. `false`: it had ended.
    pub(super) fn finish(&self, words: &str) -> bool {
        {
            let mut inside = self.inside.lock();
            if inside.encoder.is_none() {
                return false;
            }
            let seconds = self.began.elapsed().as_secs_f64();
            let torn = inside.pieces.end();
            if !torn.is_empty() {
                inside.keep(&cast::event(seconds, &What::Output(torn.to_owned())));
            }
            inside.keep(&cast::event(seconds, &What::Mark(words.to_owned())));
            // It is kept in memory, which does not fail.
            inside.rest = inside.encoder.take().and_then(|encoder| encoder.finish().ok()).unwrap_or_default();
            inside.count(&self.shared.waiting);
        }
        self.over.cancel();
        self.wake();
        true
    }

    /// It cannot be gone on with.
    pub(super) fn fail(&self, why: Failure) {
        let first = {
            // Before its end, of which others hear.
            let mut failed = self.failed.lock();
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        };
        if first {
            self.shared.metrics.recording_failures.with_label_values(&[why.label()]).inc();
            tracing::error!(recording = %self.id, workspace = %self.meta.workspace, %why, "a session is not recorded any more");
            self.record("failed", Some(why.to_string()));
        }
        self.finish(&format!("the recording ended: {why}"));
    }

    /// What waits, compressed up to this moment, and whether that is the last.
    pub(super) fn drain(&self) -> (Vec<u8>, bool) {
        self.woken.store(false, Ordering::Relaxed);
        let mut inside = self.inside.lock();
        self.shared.waiting.fetch_sub(std::mem::take(&mut inside.counted), Ordering::Relaxed);
        let unflushed = std::mem::take(&mut inside.unflushed);
        let (bytes, last) = match &mut inside.encoder {
            Some(encoder) => {
                if unflushed {
                    // Into memory.
                    let _ = encoder.flush();
                }
                (std::mem::take(encoder.get_mut()), false)
            }
            None => (std::mem::take(&mut inside.rest), true),
        };
        (bytes, last)
    }

    /// Records a step in its life.
    pub(super) fn record(&self, step: &str, reason: Option<String>) {
        let what = audit::What::Recording { recording: self.id.to_string(), step: step.to_owned(), reason };
        self.shared.audit.record(Event::now(Actor::Gateway, what).about(&self.meta.workspace));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Of one that was never written down.
        self.shared.waiting.fetch_sub(self.inside.get_mut().counted, Ordering::Relaxed);
    }
}

impl Inside {
    /// Counts what waits; says how much that is.
    fn count(&mut self, of_all: &AtomicUsize) -> usize {
        let waiting = self.encoder.as_ref().map_or(self.rest.len(), |encoder| encoder.get_ref().len());
        of_all.fetch_add(waiting.saturating_sub(self.counted), Ordering::Relaxed);
        self.counted = self.counted.max(waiting);
        waiting
    }

    /// Takes a line.
    fn keep(&mut self, line: &str) {
        if let Some(encoder) = &mut self.encoder {
            // Into memory.
            let _ = encoder.write_all(line.as_bytes());
            self.unflushed = true;
        }
    }
}
