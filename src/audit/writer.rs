//! The thread that writes: many lines at once, to the disk at most once a second.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tracing::{error, info, warn};

use super::chain::{Key, Link, Parts};
use super::files::{Files, Line, read_file};
use super::refusals::Refusals;
use super::syslog::Syslog;
use super::{Actor, Config, Event, What};
use crate::telemetry::Metrics;

/// Most events written in one go.
const BATCH: usize = 1024;
/// How long a line may be in the kernel's memory alone, which survives the gateway's death and not the machine's.
const SYNC: Duration = Duration::from_secs(1);
/// How long it is waited after a write that failed: a disk that is full may get room.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether refusals were counted for long enough, while any are.
const LOOK: Duration = Duration::from_secs(1);

/// What the thread is told.
pub(super) enum Order {
    Write(Box<Event>),
    End,
}

/// What the thread shares with those who record.
pub(super) struct Shared {
    /// Events that could not be taken.
    pub(super) lost: Arc<AtomicU64>,
    /// Whether it is to end, and nothing is waited for any more.
    pub(super) ends: Arc<AtomicBool>,
    /// Refusals that are counted.
    pub(super) refusals: Arc<Mutex<Refusals>>,
}

/// The thread's own.
pub(super) struct Writer {
    files: Files,
    key: Key,
    link: Link,
    file: File,
    /// Its length, of whole lines.
    length: u64,
    /// Whether part of a line may follow.
    partial: bool,
    /// The number of its first line.
    first: u64,
    unsynced: Option<Instant>,
    file_size: u64,
    keep: Option<Duration>,
    syslog: Option<Syslog>,
    shared: Shared,
    metrics: Metrics,
    /// What was found at the start.
    begun_with: Option<Event>,
}

// === impl Writer ===

impl Writer {
    pub(super) fn open(config: &Config, root: &Path, shared: Shared, metrics: Metrics) -> io::Result<Self> {
        let files = Files::make(root)?;
        let key = files.key()?;
        let (link, torn) = end_of(&files)?;
        let mut file = files.open_current()?;
        if torn > 0 {
            let length = file.metadata()?.len().saturating_sub(torn);
            file.set_len(length)?;
        }
        let length = file.seek(SeekFrom::End(0))?;
        let first = first_of(&files)?.unwrap_or(link.seq + 1);
        let (file_size, keep) = (config.file_size.get(), config.keep.unless_zero());
        let syslog = Syslog::open(&config.syslog)?;
        let mut writer = Self {
            files,
            key,
            link,
            file,
            length,
            partial: false,
            first,
            unsynced: None,
            file_size,
            keep,
            syslog,
            shared,
            metrics,
            begun_with: None,
        };
        if torn > 0 {
            // By the thread: a disk that is full keeps nobody from serving.
            writer.begun_with = Some(Event::now(Actor::Gateway, What::Torn { bytes: torn }));
        }
        writer.forget_old();
        Ok(writer)
    }

    /// Writes what it is told, until it is told to end or nobody is left to.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        if let Some(event) = self.begun_with.take() {
            self.write(&[event]);
        }
        loop {
            let sync = self.unsynced.map(|since| SYNC.saturating_sub(since.elapsed()));
            let counted = (!self.shared.refusals.lock().is_empty()).then_some(LOOK);
            let left = sync.into_iter().chain(counted).min();
            let order = match left {
                Some(left) => orders.recv_timeout(left),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut events = Vec::new();
            let mut ends = false;
            match order {
                Ok(Order::Write(event)) => events.push(*event),
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => ends = true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while events.len() < BATCH && !ends {
                match orders.try_recv() {
                    Ok(Order::Write(event)) => events.push(*event),
                    Ok(Order::End) => ends = true,
                    Err(_) => break,
                }
            }
            let missed = self.shared.lost.swap(0, Ordering::Relaxed);
            if missed > 0 {
                warn!(events = missed, "came faster than they could be recorded");
                self.metrics.audit_lost.inc_by(missed);
                events.push(Event::now(Actor::Gateway, What::Lost { events: missed }));
            }
            events.extend(self.refusals(ends));
            self.write(&events);
            if ends || self.unsynced.is_some_and(|since| since.elapsed() >= SYNC) {
                self.sync();
            }
            if ends {
                return;
            }
        }
    }

    /// What there is to say of refusals that were counted.
    fn refusals(&self, ends: bool) -> Vec<Event> {
        let (mut refusals, now) = (self.shared.refusals.lock(), Instant::now());
        if ends { refusals.rest(now) } else { refusals.due(now) }
    }

    /// Writes these, however long it takes: a trail with a gap is none.
    fn write(&mut self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let mut link = self.link;
        let mut lines = Vec::new();
        for event in events {
            let Ok(object) = serde_json::to_string(event) else { continue };
            let Some(members) = object.strip_prefix('{').and_then(|object| object.strip_suffix('}')) else { continue };
            let line = link.follow(&self.key, members);
            if let Some(syslog) = &mut self.syslog {
                syslog.send(line.trim_end());
            }
            lines.extend_from_slice(line.as_bytes());
        }
        let mut complained = false;
        while let Err(why) = self.append(&lines) {
            if !complained {
                error!(%why, "the audit trail cannot be written, it is tried again");
                complained = true;
            }
            self.metrics.audit_failures.inc();
            if self.shared.ends.load(Ordering::Relaxed) {
                error!(events = events.len(), "ending without these in the audit trail");
                return;
            }
            std::thread::sleep(AGAIN);
        }
        self.link = link;
        self.length += lines.len() as u64;
        self.metrics.audit_events.inc_by(events.len() as u64);
        self.unsynced.get_or_insert_with(Instant::now);
        if self.length >= self.file_size
            && let Err(why) = self.rotate()
        {
            warn!(%why, "cannot begin another file of the audit trail");
        }
    }

    /// All of it or nothing: what was written of lines that are tried again is taken back.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.partial {
            self.file.set_len(self.length)?;
        }
        self.partial = false;
        self.files.has_room()?;
        self.partial = true;
        self.file.write_all(lines)?;
        self.partial = false;
        Ok(())
    }

    fn sync(&mut self) {
        self.unsynced = None;
        let synced = self.file.sync_data().and_then(|()| self.files.has_room()).and_then(|()| self.files.note_head(self.link));
        if let Err(why) = synced {
            self.metrics.audit_failures.inc();
            warn!(%why, "cannot tell where the audit trail stands");
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync();
        self.files.close_current(self.first)?;
        self.file = self.files.open_current()?;
        self.files.sync()?;
        (self.length, self.first) = (0, self.link.seq + 1);
        self.forget_old();
        Ok(())
    }

    /// Removes closed files in which nothing is young enough to be kept.
    fn forget_old(&self) {
        let Some(keep) = self.keep else { return };
        let Some(until) = SystemTime::now().checked_sub(keep) else { return };
        let all = self.files.all().unwrap_or_default();
        for path in all.iter().filter(|path| **path != self.files.current()) {
            // Its last line is as old as its last change.
            let last = std::fs::metadata(path).and_then(|metadata| metadata.modified());
            // The older ones go first: a gap in the middle would be a flaw.
            if last.map_or(true, |last| last >= until) {
                return;
            }
            match std::fs::remove_file(path) {
                Ok(()) => info!(path = %path.display(), "old file of the audit trail removed"),
                Err(why) => return warn!(path = %path.display(), %why, "cannot remove an old file of the audit trail"),
            }
        }
    }
}

/// Where the chain ends as it is on the disk, and how much of a line was written after it.
fn end_of(files: &Files) -> io::Result<(Link, u64)> {
    let (mut link, mut torn) = (Link::default(), 0);
    // The last file may have nothing in it yet.
    for path in files.all()?.iter().rev() {
        let mut last = None;
        read_file(path, &mut |line: Line| {
            if line.whole {
                last = Some(line.bytes);
            } else {
                torn = line.bytes.len() as u64;
            }
            true
        })?;
        let Some(last) = last else { continue };
        let parts = Parts::of(&last).ok_or_else(|| io::Error::other(format!("{}: its last line is damaged", path.display())))?;
        link = Link { seq: parts.seq, digest: parts.digest };
        break;
    }
    Ok((link, torn))
}

/// The number of the first line of the file that is written to.
fn first_of(files: &Files) -> io::Result<Option<u64>> {
    let mut first = None;
    if files.current().exists() {
        read_file(&files.current(), &mut |line| {
            first = Parts::of(&line.bytes).map(|parts| parts.seq);
            false
        })?;
    }
    Ok(first)
}
