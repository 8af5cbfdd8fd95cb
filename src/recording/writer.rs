//! The thread that writes recordings down, and the only one that makes, renames or removes a file of theirs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use secrecy::SecretString;
use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use super::cast::Meta;
use super::end::Failure;
use super::far::Far;
use super::files::{self, Files, Found, Left};
use super::id::RecordingId;
use super::index::{Entry, State};
use super::live::{Live, Shared};
use super::seal::{PIECE, Sealer};
use crate::audit::{Actor, Event, What};
use crate::name::WorkspaceName;

/// How long what a terminal showed may be in memory alone: that is lost by a kill.
const FLUSH: Duration = Duration::from_secs(2);

/// Room that is left within the quota, for what was compressed already when it is full.
const SLACK: u64 = 64 * 1024;

/// Most recordings there are: each costs some 400 bytes of memory.
const MOST: usize = 100_000;

/// What the thread is told.
pub(super) enum Order {
    /// A recording begins.
    Begin(Arc<Live>),
    /// Some of it waits.
    Wake(RecordingId),
    /// All of it that there is so far is to be on the disk.
    Flush(RecordingId, oneshot::Sender<()>),
    /// One is to go.
    Remove(RecordingId, oneshot::Sender<io::Result<Removed>>),
    /// A workspace's are to go.
    RemoveOf(WorkspaceName, oneshot::Sender<io::Result<usize>>),
    /// One is in the bucket, and was this long.
    Sent(RecordingId, u64, oneshot::Sender<io::Result<()>>),
    /// What was to go from the bucket has gone: this name.
    Buried(String),
    /// No more come.
    End,
}

/// What came of removing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    Gone,
    /// There is none of that name.
    None,
    /// It goes on.
    GoesOn,
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) files: Files,
    pub(super) shared: Shared,
    pub(super) key: Option<SecretString>,
    pub(super) quota: u64,
    pub(super) largest: u64,
    pub(super) keep: Option<Duration>,
    /// Where those go that have ended.
    pub(super) far: Option<Arc<Far>>,
    /// Becomes true once it is known which recordings there are.
    pub(super) loaded: watch::Sender<bool>,
    writing: HashMap<RecordingId, Writing>,
    /// Bytes of all.
    used: u64,
}

/// A recording that goes on.
struct Writing {
    live: Arc<Live>,
    file: File,
    sealer: Option<Sealer>,
    length: u64,
}

/// What the thread goes by.
pub(super) struct Terms {
    pub(super) key: Option<SecretString>,
    pub(super) quota: u64,
    pub(super) largest: u64,
    pub(super) keep: Option<Duration>,
    pub(super) far: Option<Arc<Far>>,
}

impl Writer {
    pub(super) fn new(files: Files, shared: Shared, terms: Terms, loaded: watch::Sender<bool>) -> Self {
        let Terms { key, quota, largest, keep, far } = terms;
        Self { files, shared, key, quota, largest, keep, far, loaded, writing: HashMap::new(), used: 0 }
    }

    /// Does what it is told until the end.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        self.load();
        self.loaded.send_replace(true);
        let mut looked: Option<Instant> = None;
        loop {
            let due = looked.map_or(Duration::ZERO, |looked| FLUSH.saturating_sub(looked.elapsed()));
            if due.is_zero() {
                self.look();
                looked = Some(Instant::now());
                continue;
            }
            match orders.recv_timeout(due) {
                Ok(Order::Begin(live)) => self.begin(live),
                Ok(Order::Wake(id)) => self.carry(id),
                Ok(Order::Flush(id, done)) => {
                    self.carry(id);
                    let _ = done.send(());
                }
                Ok(Order::Remove(id, done)) => drop(done.send(self.remove_one(id))),
                Ok(Order::Sent(id, bytes, done)) => drop(done.send(self.sent(id, bytes))),
                Ok(Order::Buried(name)) => {
                    self.files.buried(&name).unwrap_or_else(|why| warn!(%name, %why, "what has gone from the bucket is asked for again"));
                }
                Ok(Order::RemoveOf(workspace, done)) => drop(done.send(self.remove_of(&workspace))),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        for id in self.ids() {
            if let Some(writing) = self.writing.get(&id) {
                writing.live.finish("the gateway ended");
            }
            self.carry(id);
        }
    }

    fn ids(&self) -> Vec<RecordingId> {
        self.writing.keys().copied().collect()
    }

    /// Finds the recordings of earlier processes.
    fn load(&mut self) {
        let left = self.files.all().unwrap_or_else(|why| {
            error!(%why, "cannot read which recordings there are");
            Left::default()
        });
        if let Some(far) = &self.far {
            far.bury(left.gone);
        }
        for Found { id, meta, bytes, written, whole, away } in left.recordings {
            let state = if whole { State::Complete } else { State::Cut };
            self.shared.index.put(id, Entry { meta: Arc::new(meta), bytes, ended: Some(written), state, away });
        }
        self.used = self.shared.index.bytes();
        info!(recordings = self.shared.index.len(), bytes = self.used, "recordings found");
        self.make_room(0);
    }

    /// Writes what waits, and removes what is too old.
    fn look(&mut self) {
        if !self.writing.is_empty() && self.is_low() {
            self.writing.values().for_each(|writing| writing.live.fail(Failure::DiskLow));
        }
        for id in self.ids() {
            self.carry(id);
        }
        if let Some(before) = self.keep.and_then(|keep| SystemTime::now().checked_sub(keep)) {
            for id in self.shared.index.before(before) {
                self.remove(id, "it is older than recording.keep")
                    .unwrap_or_else(|why| warn!(recording = %id, %why, "cannot remove a recording"));
            }
        }
        self.shared.metrics.recording_bytes.set(i64::try_from(self.used).unwrap_or(i64::MAX));
        self.shared.metrics.recordings_open.set(i64::try_from(self.writing.len()).unwrap_or(i64::MAX));
        if self.far.is_some() {
            self.shared.metrics.recordings_unsent.set(i64::try_from(self.shared.index.at_home().len()).unwrap_or(i64::MAX));
        }
    }

    fn is_low(&self) -> bool {
        self.files.free().is_ok_and(|free| free < self.shared.floor.load(Ordering::Relaxed))
    }

    fn begin(&mut self, live: Arc<Live>) {
        if self.is_low() {
            return live.fail(Failure::DiskLow);
        }
        match self.create(&live) {
            Ok(writing) => {
                let id = live.id;
                let entry =
                    Entry { meta: Arc::clone(&live.meta), bytes: writing.length, ended: None, state: State::Recording, away: false };
                self.used += writing.length;
                self.shared.index.put(id, entry);
                self.writing.insert(id, writing);
                // It may have been short.
                self.carry(id);
            }
            Err(why) => {
                error!(recording = %live.id, %why, "cannot begin a recording");
                live.fail(Failure::Disk);
            }
        }
    }

    fn create(&self, live: &Arc<Live>) -> io::Result<Writing> {
        let Meta { salt, .. } = &*live.meta;
        let head = files::head(&live.meta)?;
        let sealer = match (&self.key, salt) {
            (Some(key), Some(salt)) => Some(Sealer::new(key, salt.as_bytes(), &head)?),
            _ => None,
        };
        let file = self.files.create(live.id, sealer.is_some(), &head)?;
        Ok(Writing { live: Arc::clone(live), file, sealer, length: head.len() as u64 })
    }

    /// Writes what waits of one.
    fn carry(&mut self, id: RecordingId) {
        let Some(mut writing) = self.writing.remove(&id) else { return };
        let (bytes, last) = writing.live.drain();
        if bytes.is_empty() && !last {
            self.writing.insert(id, writing);
            return;
        }
        let room = self.make_room(bytes.len() as u64 + if last { 0 } else { SLACK });
        match writing.write(&bytes, last) {
            Ok(written) => {
                self.used += written;
                let done = if last { self.files.complete(id, writing.sealer.is_some()) } else { Ok(()) };
                if let Err(why) = &done {
                    error!(recording = %id, %why, "a recording that is whole cannot be given its name");
                }
                self.shared.index.change(id, |entry| {
                    entry.bytes = writing.length;
                    if last {
                        entry.ended = Some(SystemTime::now());
                        entry.state = if done.is_ok() { State::Complete } else { State::Cut };
                    }
                });
                if last {
                    return;
                }
                // What it has still to say comes with the next look.
                if !room {
                    writing.live.fail(Failure::Quota);
                } else if writing.length >= self.largest {
                    writing.live.fail(Failure::Largest);
                }
                self.writing.insert(id, writing);
            }
            Err(why) => {
                error!(recording = %id, %why, "a recording cannot be written, and ends where it is");
                writing.live.fail(Failure::Disk);
                // What was meant for it is not wanted any more.
                writing.live.drain();
                self.shared.index.change(id, |entry| (entry.ended, entry.state) = (Some(SystemTime::now()), State::Cut));
            }
        }
    }

    /// Removes the oldest until so many bytes more fit. `false`: those that go on take all of it.
    fn make_room(&mut self, bytes: u64) -> bool {
        while self.used.saturating_add(bytes) > self.quota || self.shared.index.len() > MOST {
            let many = self.shared.index.len() > MOST;
            let Some(oldest) = self.shared.index.oldest(many, self.far.as_ref().and_then(|far| far.sending())) else { return false };
            let why = if many { "it is the oldest, and there are too many" } else { "it is the oldest, and recording.quota is used up" };
            if let Err(why) = self.remove(oldest, why) {
                warn!(recording = %oldest, %why, "cannot remove a recording to make room");
                return false;
            }
        }
        true
    }

    fn remove_one(&mut self, id: RecordingId) -> io::Result<Removed> {
        if self.writing.contains_key(&id) {
            return Ok(Removed::GoesOn);
        }
        if self.shared.index.get(id).is_none() {
            return Ok(Removed::None);
        }
        self.remove(id, "an administrator has removed it").map(|()| Removed::Gone)
    }

    /// Removes a workspace's, those that go on too.
    fn remove_of(&mut self, workspace: &WorkspaceName) -> io::Result<usize> {
        let all = self.shared.index.of(workspace);
        for id in &all {
            if let Some(writing) = self.writing.remove(id) {
                writing.live.finish("its workspace was deleted");
                writing.live.drain();
            }
            self.remove(*id, "its workspace was deleted")?;
        }
        Ok(all.len())
    }

    /// The bucket has one.
    fn sent(&mut self, id: RecordingId, bytes: u64) -> io::Result<()> {
        // Was it removed meanwhile, it is about to go from there too.
        let Some(entry) = self.shared.index.get(id).filter(|entry| !entry.away) else { return Ok(()) };
        if entry.bytes != bytes {
            return Err(io::Error::other(format!("{bytes} bytes were sent of {}", entry.bytes)));
        }
        // A kill before this sends it once more.
        self.files.leave(&entry.name(id), &entry.meta, bytes)?;
        self.shared.index.change(id, |entry| entry.away = true);
        self.used = self.used.saturating_sub(bytes);
        Ok(())
    }

    fn remove(&mut self, id: RecordingId, why: &str) -> io::Result<()> {
        let Some(entry) = self.shared.index.get(id) else { return Ok(()) };
        if entry.away || self.far.is_some() {
            // It may be on its way to the bucket in this moment.
            let name = entry.name(id);
            self.files.bury(&name)?;
            match &self.far {
                Some(far) => far.bury([name]),
                None => warn!(recording = %id, "it stays in the bucket until recording.target names that again"),
            }
        } else {
            self.files.remove(id, entry.meta.salt.is_some())?;
        }
        self.shared.index.take(id);
        if !entry.away {
            self.used = self.used.saturating_sub(entry.bytes);
        }
        info!(recording = %id, workspace = %entry.meta.workspace, why, "recording removed");
        let what = What::Recording { recording: id.to_string(), step: "removed".to_owned(), reason: Some(why.to_owned()) };
        self.shared.audit.record(Event::now(Actor::Gateway, what).about(&entry.meta.workspace));
        Ok(())
    }
}

impl Writing {
    /// Writes it, all or nothing, and says how many bytes that were.
    fn write(&mut self, bytes: &[u8], last: bool) -> io::Result<u64> {
        let mut sealed = Vec::new();
        let out = match &mut self.sealer {
            Some(sealer) => {
                let mut pieces = bytes.chunks(PIECE).peekable();
                while let Some(piece) = pieces.next() {
                    sealer.seal(piece, last && pieces.peek().is_none(), &mut sealed)?;
                }
                if bytes.is_empty() && last {
                    sealer.seal(b"", true, &mut sealed)?;
                }
                sealed.as_slice()
            }
            None => bytes,
        };
        if let Err(why) = self.file.write_all(out) {
            // As much of it as is whole. Should that fail too, it is cut where it is.
            let _ = self.file.set_len(self.length);
            return Err(why);
        }
        self.length += out.len() as u64;
        Ok(out.len() as u64)
    }
}
