//! Opens a repository, and makes one where there is none yet.

use std::sync::Arc;
use std::time::Duration;

use rustic_core::repofile::{Chunker, FileType};
use rustic_core::{
    ConfigOptions, Credentials, KeyOptions, OpenStatus, Repository, RepositoryBackends, RepositoryOptions, RusticError, WriteBackend,
};

use super::directory::Directory;
use super::hiding::{Hidden, Hiding};
use super::notes::Notes;
use super::s3::S3;
use super::trouble::Trouble;
use crate::backup::protocol::{Operation, Place, Request};
use crate::backup::{BackupError, Reason};

/// How hard data is compressed: zstd's own default is 3. At 1 it takes half the time for a tenth more room.
const COMPRESSION: i32 = 1;

/// A repository that is open, and what stands behind it.
pub(super) struct Opened {
    pub(super) repo: Repository<OpenStatus>,
    pub(super) backend: Arc<dyn WriteBackend>,
    pub(super) hidden: Hidden,
    /// Whether nobody else can be at work on it, so that what is no longer needed can go at once.
    pub(super) alone: bool,
}

/// Opens the repository of a request. `None`: there is none yet, and the operation does not make one.
pub(super) fn open(request: &Request, notes: &Notes, trouble: &Trouble) -> Result<Option<Opened>, BackupError> {
    let verifies = matches!(request.operation, Operation::Verify { .. });
    let (backend, is_empty, alone): (Arc<dyn WriteBackend>, bool, bool) = match &request.place {
        Place::Directory(path) => {
            let directory = Directory::open(path, trouble.clone(), verifies)?;
            // A list is short and changes nothing; it need not wait for a backup that takes hours.
            let alone = !matches!(request.operation, Operation::List { .. });
            if alone {
                directory.lock(Duration::from_secs(request.patience))?;
            }
            let is_empty = directory.is_empty()?;
            (Arc::new(directory), is_empty, alone)
        }
        Place::S3(place) => {
            let s3 = S3::new(place, trouble.clone(), matches!(request.operation, Operation::Restore { .. }))?;
            let is_empty = s3.is_empty()?;
            (Arc::new(s3), is_empty, false)
        }
    };
    let hidden = Hidden::default();
    let hiding: Arc<dyn WriteBackend> = Arc::new(Hiding { backend: backend.clone(), hidden: hidden.clone() });
    let mut options = RepositoryOptions::default();
    // A directory is as near as a cache would be, and whoever verifies wants to see what is there.
    match request.cache.clone().filter(|_| !verifies && matches!(request.place, Place::S3(_))) {
        Some(cache) => options.cache_dir = Some(cache),
        None => options.no_cache = true,
    }
    let place = backend.location();
    let repo = Repository::new_with_progress(&options, &RepositoryBackends::new(hiding, None), notes.clone())
        .map_err(|why| trouble.explain(&why, "use the repository"))?;
    let credentials = Credentials::password(&request.password);
    let configs = backend.list(FileType::Config).map_err(|why| trouble.explain(&why, "look at the repository"))?;
    let repo = if !configs.is_empty() {
        repo.open(&credentials).map_err(|why| trouble.explain(&why, "open the repository"))?
    } else {
        let list = |kind| backend.list(kind).map_err(|why| trouble.explain(&why, "look at the repository"));
        for kind in [FileType::Pack, FileType::Index, FileType::Snapshot] {
            if !list(kind)?.is_empty() {
                let message = format!("{place} has backups and no `config`: put that file back, without it nothing can be read");
                return Err(BackupError::new(Reason::Damaged, message));
            }
        }
        let keys = list(FileType::Key)?;
        if !is_empty && keys.is_empty() {
            let message = format!("{place} is not empty and is no repository; give backups a place of their own");
            return Err(BackupError::new(Reason::NoTarget, message));
        }
        if !matches!(request.operation, Operation::Run { .. }) {
            return Ok(None);
        }
        // Left by a kill between a new repository's key and its configuration. Nothing can have been stored with them.
        for key in keys {
            backend.remove(FileType::Key, &key, false).map_err(|why| trouble.explain(&why, "make a repository"))?;
        }
        repo.init(&credentials, &KeyOptions::default(), &config()).map_err(|why| trouble.explain(&why, "make a repository"))?
    };
    Ok(Some(Opened { repo, backend, hidden, alone }))
}

fn config() -> ConfigOptions {
    // Cut by content, a file that something was inserted into would share what comes after. Homes have few of these, and setting such a cut up
    // takes longer than all else that is done to a small file.
    ConfigOptions::default().set_compression(COMPRESSION).set_chunker(Chunker::FixedSize)
}

/// What is told where files cannot even be listed.
pub(super) fn unlisted(why: &RusticError) -> BackupError {
    BackupError::new(Reason::Unreachable, why.display_log())
}
