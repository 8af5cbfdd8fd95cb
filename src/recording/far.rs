//! The bucket of recordings, and the thread that takes there what has ended and removes there what is to go.
//!
//! What it has to do is read from the index and the directory each time, so that a kill changes nothing: what was sent and not noted is
//! sent again, what is to go and was not removed is asked for again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::files::Files;
use super::id::RecordingId;
use super::live::Shared;
use super::writer::Order;
use crate::bucket::{self, Bucket, BucketError, Kind};

/// How often it is looked whether there is something to be done, and how long after a failure.
const LOOK: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(60);

/// How many recordings are fetched at once.
const READERS: usize = 4;

/// How many removals may be refused before no more are asked for, until later.
const REFUSALS: usize = 16;

/// The section that has the place.
const SECTION: &str = "recording.s3";

/// The bucket.
pub(super) struct Far {
    /// For who reads.
    pub(super) bucket: Bucket,
    readers: Arc<Semaphore>,
    /// Bytes of what is being fetched.
    reading: Arc<AtomicU64>,
    /// Names of what is to go.
    gone: Mutex<Vec<String>>,
    /// What is being sent.
    sending: Mutex<Option<RecordingId>>,
    stop: CancellationToken,
}

/// A place among those who fetch, and on the disk.
pub(super) struct Place {
    bytes: u64,
    reading: Arc<AtomicU64>,
    _turn: OwnedSemaphorePermit,
}

/// The thread's own.
struct Carrier {
    far: Arc<Far>,
    files: Files,
    shared: Shared,
    /// A client belongs to one runtime.
    bucket: Bucket,
    /// How often each could not be sent.
    failures: HashMap<RecordingId, u32>,
    /// How long those are that were sent, and could not be looked at or noted: the disk is full, perhaps.
    unnoted: HashMap<RecordingId, u64>,
}

impl Far {
    /// Starts the thread.
    pub(super) fn open(place: &bucket::Place, files: Files, shared: Shared) -> Result<Arc<Self>, BucketError> {
        let far = Arc::new(Self {
            bucket: Bucket::new(place, SECTION)?,
            readers: Arc::new(Semaphore::new(READERS)),
            reading: Arc::default(),
            gone: Mutex::default(),
            sending: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let bucket = Bucket::new(place, SECTION)?;
        let carrier = Carrier { far: Arc::clone(&far), files, shared, bucket, failures: HashMap::new(), unnoted: HashMap::new() };
        let failed = |why| BucketError { kind: Kind::Local, message: format!("cannot start a thread: {why}") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let run = move || runtime.block_on(carrier.run());
        std::thread::Builder::new().name("recordings-far".to_owned()).spawn(run).map_err(failed)?;
        Ok(far)
    }

    /// These are to go. They are noted in the directory too.
    pub(super) fn bury(&self, names: impl IntoIterator<Item = String>) {
        self.gone.lock().extend(names);
    }

    /// What is being sent.
    pub(super) fn sending(&self) -> Option<RecordingId> {
        *self.sending.lock()
    }

    /// Waits for a place to fetch so many bytes. Says how many all who do have taken, this one included.
    pub(super) async fn place(&self, bytes: u64) -> Option<(Place, u64)> {
        let turn = Arc::clone(&self.readers).acquire_owned().await.ok()?;
        let all = self.reading.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        Some((Place { bytes, reading: Arc::clone(&self.reading), _turn: turn }, all))
    }

    /// Nothing is begun any more. What goes on is left where it is.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reading.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Carrier {
    async fn run(mut self) {
        let stop = self.far.stop.clone();
        let mut said = String::new();
        let carrying = async {
            loop {
                // Each is tried, whatever became of the other: who may write may perhaps not delete.
                let (removed, sent) = (self.remove().await, self.send_all().await);
                let pause = match removed.and(sent) {
                    Ok(()) => {
                        if !std::mem::take(&mut said).is_empty() {
                            info!(bucket = self.bucket.location(), "the bucket takes recordings again");
                        }
                        LOOK
                    }
                    Err(why) => {
                        self.shared.metrics.recording_upload_failures.inc();
                        if said != why.message {
                            warn!(bucket = self.bucket.location(), %why, "the bucket takes or removes no recordings, or not all; this is tried again");
                            said = why.message;
                        }
                        RETRY
                    }
                };
                tokio::time::sleep(pause).await;
            }
        };
        let _: Option<()> = stop.run_until_cancelled(carrying).await;
    }

    /// Removes what is to go.
    async fn remove(&self) -> Result<(), BucketError> {
        let names = self.far.gone.lock().clone();
        if names.is_empty() {
            return Ok(());
        }
        // Before anything is gone for good it is on the disk that it is to go.
        let files = self.files.clone();
        let synced = tokio::task::spawn_blocking(move || files.sync()).await;
        synced.map_err(std::io::Error::other).and_then(|synced| synced).map_err(local)?;
        let mut refused = Vec::new();
        for name in names {
            match self.bucket.delete(&name).await {
                Ok(()) => {
                    self.far.gone.lock().retain(|gone| *gone != name);
                    self.tell(Order::Buried(name)).await;
                }
                // One that the service keeps, as it was told to perhaps, is not in the way of others.
                Err(why) if matches!(why.kind, Kind::Denied | Kind::Refused) && refused.len() < REFUSALS => {
                    let mut gone = self.far.gone.lock();
                    gone.retain(|gone| *gone != name);
                    gone.push(name);
                    refused.push(why);
                }
                Err(why) => return Err(why),
            }
        }
        refused.into_iter().next().map_or(Ok(()), Err)
    }

    /// Sends what has ended, those last that could not be sent before. Says what went wrong first.
    async fn send_all(&mut self) -> Result<(), BucketError> {
        let mut ids = self.shared.index.at_home();
        self.failures.retain(|id, _| ids.binary_search(id).is_ok());
        self.unnoted.retain(|id, _| ids.binary_search(id).is_ok());
        ids.sort_by_key(|id| (self.failures.get(id).copied().unwrap_or_default(), *id));
        let mut first = Ok(());
        for id in ids {
            *self.far.sending.lock() = Some(id);
            let sent = self.send(id).await;
            *self.far.sending.lock() = None;
            let Err(why) = sent else { continue };
            *self.failures.entry(id).or_default() += 1;
            let of_all = !matches!(why.kind, Kind::Local | Kind::Damaged | Kind::Missing | Kind::Refused);
            first = first.and(Err(why));
            if of_all {
                break;
            }
        }
        first
    }

    async fn send(&mut self, id: RecordingId) -> Result<(), BucketError> {
        let Some(entry) = self.shared.index.get(id) else { return Ok(()) };
        let name = entry.name(id);
        let length = match self.unnoted.get(&id) {
            Some(length) => *length,
            None => match self.bucket.put_file(&name, &self.files.path_of(&name)).await {
                // It was removed meanwhile.
                Err(_) if self.shared.index.get(id).is_none() => return Ok(()),
                sent => sent?,
            },
        };
        self.unnoted.insert(id, length);
        // Whatever answers that it has it is asked what it has: here it is removed next.
        if self.bucket.length(&name).await? != length {
            self.unnoted.remove(&id);
            let message = format!("{name} is not as long in {} as what was sent", self.bucket.location());
            return Err(BucketError { kind: Kind::Damaged, message });
        }
        let (tell, done) = oneshot::channel();
        self.tell(Order::Sent(id, length, tell)).await;
        let noted = done.await.unwrap_or_else(|_| Err(std::io::Error::other("the gateway ends")));
        noted.map_err(|why| BucketError { kind: Kind::Local, message: format!("{name} is sent, and stays here as well: {why}") })?;
        self.unnoted.remove(&id);
        Ok(())
    }

    /// Waits for a place among what the other thread has to do.
    async fn tell(&self, order: Order) {
        let orders: SyncSender<Order> = self.shared.orders.clone();
        // Fails only when that has ended.
        let _ = tokio::task::spawn_blocking(move || orders.send(order).is_ok()).await;
    }
}

fn local(why: std::io::Error) -> BucketError {
    BucketError { kind: Kind::Local, message: format!("the directory of the recordings: {why}") }
}
