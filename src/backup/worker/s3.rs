//! A repository in a bucket.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustic_core::{BytesList, FileType, Id, ReadBackend, RusticResult, WriteBackend};
use tokio::runtime::Runtime;

use super::directory::path_of;
use super::trouble::Trouble;
use crate::backup::{BackupError, Reason};
use crate::bucket::{Bucket, BucketError, Kind, Place};

/// How many files with data are kept at hand while small parts of them are asked for one after another.
const AT_HAND: usize = 8;

/// How long a file of a repository is at most, in bytes, for how long it may take.
const LONGEST: u64 = 512 << 20;

/// Whole files, the newest last, each filled by whoever asked first.
type AtHand = VecDeque<(Id, Arc<Mutex<Option<Bytes>>>)>;

/// A bucket, or a part of one, that holds a repository.
pub(super) struct S3 {
    runtime: Runtime,
    bucket: Bucket,
    trouble: Trouble,
    /// A restore asks for thousands of small parts of the same few files, and each request takes its time: so whole files are fetched.
    at_hand: Option<Mutex<AtHand>>,
}

impl S3 {
    /// Nothing is asked of the service yet.
    pub(super) fn new(place: &Place, trouble: Trouble, whole_files: bool) -> Result<Self, BackupError> {
        let bucket = Bucket::new(place, "backup.s3").map_err(told)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|why| BackupError::new(Reason::Worker, format!("cannot start a thread: {why}")))?;
        Ok(Self { runtime, bucket, trouble, at_hand: whole_files.then(Mutex::default) })
    }

    /// Whether there is nothing under the prefix.
    pub(super) fn is_empty(&self) -> Result<bool, BackupError> {
        self.wait(self.bucket.is_empty())
    }

    fn wait<T>(&self, asked: impl Future<Output = Result<T, BucketError>>) -> Result<T, BackupError> {
        self.runtime.block_on(asked).map_err(told)
    }

    fn list(&self, tpe: FileType) -> Result<Vec<(Id, u32)>, BackupError> {
        let begin = match tpe {
            FileType::Config => "config".to_owned(),
            _ => format!("{}/", tpe.dirname()),
        };
        let mut found = Vec::new();
        for (name, size) in self.wait(self.bucket.list(&begin))? {
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            if tpe == FileType::Config {
                found.extend((name == begin).then_some((Id::default(), size)));
            } else if let Some(id) = name.rsplit('/').next().filter(|name| name.len() == 64).and_then(|name| name.parse().ok()) {
                found.push((id, size));
            }
        }
        Ok(found)
    }

    fn get(&self, tpe: FileType, id: &Id, part: Option<(u32, u32)>) -> Result<Bytes, BackupError> {
        let part = part.map(|(offset, length)| (offset.into(), length.into()));
        self.wait(self.bucket.get(&path_of(tpe, id), part, LONGEST))
    }

    /// A part of a file with data, by way of the whole.
    fn get_by_whole(&self, at_hand: &Mutex<AtHand>, id: &Id) -> Result<Bytes, BackupError> {
        let slot = {
            let mut at_hand = at_hand.lock();
            match at_hand.iter().find(|(known, _)| known == id) {
                Some((_, slot)) => slot.clone(),
                None => {
                    let slot = Arc::new(Mutex::new(None));
                    at_hand.push_back((*id, slot.clone()));
                    if at_hand.len() > AT_HAND {
                        at_hand.pop_front();
                    }
                    slot
                }
            }
        };
        let mut slot = slot.lock();
        match &*slot {
            Some(data) => Ok(data.clone()),
            None => Ok(slot.insert(self.get(FileType::Pack, id, None)?).clone()),
        }
    }

    fn part(&self, tpe: FileType, id: &Id, offset: u32, length: u32) -> Result<Bytes, BackupError> {
        let Some(at_hand) = self.at_hand.as_ref().filter(|_| tpe == FileType::Pack) else {
            return self.get(tpe, id, Some((offset, length)));
        };
        let whole = self.get_by_whole(at_hand, id)?;
        let (start, end) = (offset as usize, offset as usize + length as usize);
        if end <= whole.len() {
            Ok(whole.slice(start..end))
        } else {
            Err(BackupError::new(Reason::Damaged, format!("{} is shorter than it was", self.warmup_path(tpe, id))))
        }
    }

    fn put(&self, tpe: FileType, id: &Id, content: BytesList) -> Result<(), BackupError> {
        let mut whole = Vec::with_capacity(content.size());
        for piece in content.slice() {
            whole.extend_from_slice(piece);
        }
        self.wait(self.bucket.put(&path_of(tpe, id), whole.into()))
    }

    fn told<T>(&self, result: Result<T, BackupError>) -> RusticResult<T> {
        result.map_err(|why| self.trouble.note(why))
    }
}

impl ReadBackend for S3 {
    fn location(&self) -> String {
        self.bucket.location()
    }

    fn list_with_size(&self, tpe: FileType) -> RusticResult<Vec<(Id, u32)>> {
        self.told(self.list(tpe))
    }

    fn read_full(&self, tpe: FileType, id: &Id) -> RusticResult<Bytes> {
        self.told(self.get(tpe, id, None))
    }

    fn read_partial(&self, tpe: FileType, id: &Id, _: bool, offset: u32, length: u32) -> RusticResult<Bytes> {
        self.told(self.part(tpe, id, offset, length))
    }

    fn warmup_path(&self, tpe: FileType, id: &Id) -> String {
        self.bucket.full_name(&path_of(tpe, id))
    }
}

impl WriteBackend for S3 {
    fn write_bytes(&self, tpe: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
        self.told(self.put(tpe, id, content))
    }

    fn remove(&self, tpe: FileType, id: &Id, _: bool) -> RusticResult<()> {
        self.told(self.wait(self.bucket.delete(&path_of(tpe, id))))
    }
}

/// A bucket's trouble, as a repository's.
fn told(why: BucketError) -> BackupError {
    let reason = match why.kind {
        Kind::NoBucket => Reason::NoTarget,
        Kind::Missing | Kind::Damaged => Reason::Damaged,
        Kind::Denied => Reason::Denied,
        Kind::Full => Reason::Full,
        Kind::Refused | Kind::Unreachable => Reason::Unreachable,
        Kind::Local => Reason::Worker,
    };
    let mend = if why.kind == Kind::Missing { "; the repository is damaged: `innkeeper backup verify` says what is hit" } else { "" };
    BackupError::new(reason, why.message + mend)
}
