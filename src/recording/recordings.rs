//! All recordings, for who records and who looks at them.

use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::{oneshot, watch};

use super::cast::Meta;
use super::config::{Config, OnFailure, WhenDeleted};
use super::far::Far;
use super::files::Files;
use super::id::RecordingId;
use super::index::{Index, Recorded};
use super::live::{Live, Shared, Tap};
use super::reader::{Broken, Reader};
use super::writer::{Order, Removed, Terms, Writer};
use crate::audit::Audit;
use crate::bucket::{BucketError, Place};
use crate::name::{TemplateName, WorkspaceName};
use crate::telemetry::Metrics;

/// What the thread may be told and has not done yet.
const ORDERS: usize = 4096;

/// How long the thread is waited for: by who asks, and at the end.
const PATIENCE: Duration = Duration::from_secs(20);
const FAREWELL: Duration = Duration::from_secs(5);

/// All recordings. Cheap to clone; all clones are the same. The default has none, and records nothing.
#[derive(Clone, Default)]
pub struct Recordings(Option<Arc<Inner>>);

struct Inner {
    files: Files,
    shared: Shared,
    far: Option<Arc<Far>>,
    key: Option<SecretString>,
    on_failure: OnFailure,
    when_deleted: WhenDeleted,
    loaded: watch::Receiver<bool>,
    ended: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
}

/// A session that is to be recorded.
#[derive(Debug, Clone)]
pub struct Start {
    /// Where.
    pub workspace: WorkspaceName,
    /// Whose, as it was typed at login.
    pub account: String,
    /// The workspace's template.
    pub template: TemplateName,
    /// Its number.
    pub session: u64,
    /// The terminal's width.
    pub columns: u16,
    /// The terminal's height.
    pub rows: u16,
    /// Whether it may be watched.
    pub watchable: bool,
}

/// Why something cannot be had of recordings.
#[derive(Debug, thiserror::Error)]
pub enum RecordingsError {
    /// They cannot be where they are to be.
    #[error("recordings in {}: {why}", path.display())]
    Place {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        why: io::Error,
    },
    /// They cannot go where they are to go.
    #[error("recording.target: {0}")]
    Target(String),
    /// There is none of that name.
    #[error("there is no such recording")]
    None,
    /// It goes on.
    #[error("it goes on; end its session first")]
    GoesOn,
    /// The disk does not answer in time.
    #[error("the disk of the recordings does not answer")]
    Slow,
    /// It cannot be read.
    #[error("the recording cannot be read: {0}")]
    Broken(#[from] Broken),
    /// It is in a bucket, and none is named.
    #[error("it is in a bucket, and recording.target is not set")]
    Away,
    /// The bucket cannot be used.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// As many are fetched as may be.
    #[error("other recordings are being fetched from the bucket; ask again")]
    Busy,
    /// There is no room for what is fetched from the bucket.
    #[error("less than limits.disk_floor would be free with the recording on the disk; make room")]
    DiskLow,
    /// A file cannot be made for what is fetched.
    #[error("the recording cannot be fetched: {0}")]
    Fetch(io::Error),
    /// It cannot be removed.
    #[error("a recording cannot be removed: {0}")]
    Stays(io::Error),
}

impl Recordings {
    /// Those in this directory, which is made. Nothing else may write there. Nothing is recorded while less than `floor` bytes are free.
    pub fn open(config: &Config, root: &Path, floor: u64, metrics: &Metrics, audit: Audit) -> Result<Self, RecordingsError> {
        let failed = |why| RecordingsError::Place { path: root.to_owned(), why };
        let files = Files::make(root).map_err(failed)?;
        let (orders, ordered) = sync_channel(ORDERS);
        let shared = Shared {
            orders,
            index: Arc::new(Index::default()),
            metrics: metrics.clone(),
            audit,
            waiting: Arc::new(AtomicUsize::new(0)),
            floor: Arc::new(AtomicU64::new(floor)),
        };
        let far = match config.target().map_err(RecordingsError::Target)? {
            Some(location) => {
                let place = Place::new(&config.s3, location, "recording.s3").map_err(RecordingsError::Target)?;
                Some(Far::open(&place, files.clone(), shared.clone())?)
            }
            None => None,
        };
        let terms = Terms {
            key: config.key.clone(),
            quota: config.quota.get(),
            largest: config.largest.get(),
            keep: config.keep.unless_zero(),
            far: far.clone(),
        };
        let (tell, loaded) = watch::channel(false);
        let writer = Writer::new(files.clone(), shared.clone(), terms, tell);
        let (end, ended) = sync_channel(1);
        let run = move || {
            writer.run(&ordered);
            let _ = end.send(());
        };
        std::thread::Builder::new().name("recordings".to_owned()).spawn(run).map_err(failed)?;
        let (key, on_failure, when_deleted) = (config.key.clone(), config.on_failure, config.when_deleted);
        Ok(Self(Some(Arc::new(Inner { files, shared, far, key, on_failure, when_deleted, loaded, ended: Mutex::new(Some(ended)) }))))
    }

    /// Nothing is recorded from now on while fewer bytes are free.
    pub fn set_floor(&self, floor: u64) {
        if let Some(inner) = &self.0 {
            inner.shared.floor.store(floor, Ordering::Relaxed);
        }
    }

    /// What becomes of a session that cannot be recorded.
    pub fn on_failure(&self) -> OnFailure {
        self.0.as_ref().map_or(OnFailure::default(), |inner| inner.on_failure)
    }

    /// Begins to record. Waits for no disk: what goes wrong there is heard of later.
    pub fn begin(&self, start: Start) -> Option<Tap> {
        let inner = self.0.as_ref()?;
        let Start { workspace, account, template, session, columns, rows, watchable } = start;
        let salt = inner.key.as_ref().map(|_| hex::encode(rand::random::<[u8; 32]>()));
        let meta = Meta { workspace, account, template, session, columns, rows, salt };
        let live = Live::new(meta, watchable, inner.shared.clone());
        let live = Arc::new(live.inspect_err(|why| tracing::error!(%why, "cannot compress a recording")).ok()?);
        live.record("began", Some(format!("session {session}")));
        if inner.shared.orders.try_send(Order::Begin(Arc::clone(&live))).is_err() {
            live.fail(super::Failure::Slow);
        }
        Some(Tap::new(live))
    }

    /// Those that are wanted, the oldest first.
    pub async fn list(&self, wanted: impl Fn(&RecordingId, &WorkspaceName, &str) -> bool) -> Result<Vec<Recorded>, RecordingsError> {
        let Some(inner) = &self.0 else { return Ok(Vec::new()) };
        inner.loaded().await?;
        Ok(inner.shared.index.views(wanted))
    }

    /// One of them.
    pub async fn get(&self, id: RecordingId) -> Result<Recorded, RecordingsError> {
        let inner = self.0.as_ref().ok_or(RecordingsError::None)?;
        inner.loaded().await?;
        inner.shared.index.view(id).ok_or(RecordingsError::None)
    }

    /// Begins to read one, as far as it is there now.
    pub async fn read(&self, id: RecordingId) -> Result<Reader, RecordingsError> {
        let inner = self.0.as_ref().ok_or(RecordingsError::None)?;
        inner.loaded().await?;
        let entry = inner.shared.index.get(id).ok_or(RecordingsError::None)?;
        if entry.state == super::State::Recording {
            inner.ask(|done| Order::Flush(id, done)).await?;
        }
        if !entry.away {
            match inner.open(id, entry.meta.salt.is_some()).await {
                // It may have gone to the bucket in this moment.
                Err(RecordingsError::None) => {}
                opened => return opened,
            }
        }
        // As it is now: it may have ended meanwhile, and be called otherwise.
        let entry = inner.shared.index.get(id).filter(|entry| entry.away).ok_or(RecordingsError::None)?;
        inner.fetch(&entry.name(id), entry.bytes).await
    }

    /// Removes one.
    pub async fn remove(&self, id: RecordingId) -> Result<(), RecordingsError> {
        let inner = self.0.as_ref().ok_or(RecordingsError::None)?;
        match inner.ask(|done| Order::Remove(id, done)).await?.map_err(RecordingsError::Stays)? {
            Removed::Gone => Ok(()),
            Removed::None => Err(RecordingsError::None),
            Removed::GoesOn => Err(RecordingsError::GoesOn),
        }
    }

    /// A workspace is deleted for good: its recordings go too, unless they are to be kept. Says how many went; asked again, none.
    pub async fn workspace_deleted(&self, workspace: &WorkspaceName) -> Result<usize, RecordingsError> {
        match &self.0 {
            Some(inner) if inner.when_deleted == WhenDeleted::Remove => {
                inner.ask(|done| Order::RemoveOf(workspace.clone(), done)).await?.map_err(RecordingsError::Stays)
            }
            _ => Ok(0),
        }
    }

    /// Writes what waits, as far as the disk takes it for a while, and ends. What is recorded later is not.
    pub fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let Some(ended) = inner.ended.lock().take() else { return };
        if let Some(far) = &inner.far {
            far.stop();
        }
        if inner.shared.orders.try_send(Order::End).is_ok() && ended.recv_timeout(FAREWELL) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the disk of the recordings does not answer, and their ends are not written");
        }
    }
}

impl Inner {
    /// Opens one that is on the disk.
    async fn open(&self, id: RecordingId, sealed: bool) -> Result<Reader, RecordingsError> {
        let (files, key) = (self.files.clone(), self.key.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let file = files
                .open(id, sealed)
                .map_err(|why| if why.kind() == io::ErrorKind::NotFound { RecordingsError::None } else { Broken::Damaged(why).into() })?;
            Ok(Reader::open(file, key.as_ref())?)
        });
        tokio::time::timeout(PATIENCE, opened).await.ok().and_then(Result::ok).unwrap_or(Err(RecordingsError::Slow))
    }

    /// Fetches one from the bucket, all of it: who plays it may take hours, and no service waits for that.
    async fn fetch(&self, name: &str, bytes: u64) -> Result<Reader, RecordingsError> {
        let far = self.far.as_ref().ok_or(RecordingsError::Away)?;
        let place = tokio::time::timeout(PATIENCE, far.place(bytes)).await.ok().flatten();
        let (_place, all) = place.ok_or(RecordingsError::Busy)?;
        let (files, floor) = (self.files.clone(), self.shared.floor.load(Ordering::Relaxed));
        let made = tokio::task::spawn_blocking(move || {
            if files.free().is_ok_and(|free| free < floor.saturating_add(all)) {
                return Err(RecordingsError::DiskLow);
            }
            files.nameless().and_then(|file| Ok((file.try_clone()?, file))).map_err(RecordingsError::Fetch)
        });
        let (mut file, into) = made.await.unwrap_or(Err(RecordingsError::Slow))?;
        far.bucket.fetch(name, bytes, into).await?;
        let key = self.key.clone();
        let opened = tokio::task::spawn_blocking(move || {
            file.rewind().map_err(RecordingsError::Fetch)?;
            Ok(Reader::open(file, key.as_ref())?)
        });
        opened.await.unwrap_or(Err(RecordingsError::Slow))
    }

    async fn loaded(&self) -> Result<(), RecordingsError> {
        let mut loaded = self.loaded.clone();
        let waited = tokio::time::timeout(PATIENCE, loaded.wait_for(|loaded| *loaded)).await;
        if matches!(waited, Ok(Ok(_))) { Ok(()) } else { Err(RecordingsError::Slow) }
    }

    /// Has the thread do something, and waits for that.
    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, RecordingsError> {
        let (tell, done) = oneshot::channel();
        let orders: &SyncSender<Order> = &self.shared.orders;
        orders.try_send(order(tell)).map_err(|_| RecordingsError::Slow)?;
        tokio::time::timeout(PATIENCE, done).await.ok().and_then(Result::ok).ok_or(RecordingsError::Slow)
    }
}
