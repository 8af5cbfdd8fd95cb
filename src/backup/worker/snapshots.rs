//! Backups as the repository has them.

use rustic_core::jiff::{Timestamp, tz::TimeZone};
use rustic_core::repofile::{SnapshotFile, SnapshotId};
use rustic_core::{Id, Open, Repository, RusticResult};

use crate::backup::{Backup, Subject};

/// Marks what innkeeper made. What an administrator put into the repository with restic is kept and left alone.
const OURS: &str = "innkeeper";

/// Marks what shows one moment.
const CONSISTENT: &str = "consistent";

/// What a new backup says of itself, before anything is in it. The host is the home, so that `restic snapshots --host` finds it.
pub(super) fn begin(subject: &Subject) -> SnapshotFile {
    let mut snapshot = SnapshotFile {
        time: Timestamp::try_from(subject.taken).unwrap_or_else(|_| Timestamp::now()).to_zoned(TimeZone::UTC),
        program_version: concat!("innkeeper ", env!("CARGO_PKG_VERSION")).to_owned(),
        hostname: subject.home.clone(),
        description: subject.settings.clone(),
        username: OURS.to_owned(),
        ..SnapshotFile::default()
    };
    snapshot.tags.add(OURS.to_owned());
    if subject.consistent {
        snapshot.tags.add(CONSISTENT.to_owned());
    }
    snapshot
}

/// Every backup of ours that can be read, and the names of those that cannot.
pub(super) fn read<S: Open>(repo: &Repository<S>) -> RusticResult<(Vec<SnapshotFile>, Vec<Id>)> {
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for id in repo.list::<SnapshotId>()? {
        match repo.get_file::<SnapshotFile>(&id) {
            Ok(mut snapshot) => {
                snapshot.id = id;
                found.push(snapshot);
            }
            Err(_) => unreadable.push(id.into_inner()),
        }
    }
    Ok((found, unreadable))
}

/// As others are told of it; `None` for what is not ours.
pub(super) fn describe(snapshot: &SnapshotFile) -> Option<Backup> {
    snapshot.tags.contains(OURS).then(|| {
        let summary = snapshot.summary.as_ref();
        Backup {
            id: snapshot.id.to_hex().to_string(),
            home: snapshot.hostname.clone(),
            roots: snapshot.paths.iter().map(|path| path.trim_start_matches('/').to_owned()).collect(),
            at: snapshot.time.timestamp().into(),
            bytes: summary.map_or(0, |summary| summary.total_bytes_processed),
            files: summary.map_or(0, |summary| summary.total_files_processed),
            consistent: snapshot.tags.contains(CONSISTENT),
            settings: None,
        }
    })
}
