//! Reads a repository and says what is no longer as it was written, and whose backups that hits.
//!
//! Every file's name is the hash of its content, so a single wrong bit in any of them shows, in data that nobody refers to as well. Then
//! every backup is followed down: what it refers to must be in an index, in a file that is there, whole and right. A damaged index does
//! not end this: what the others say is used.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustic_core::repofile::{FileType, IndexFile, IndexId, SnapshotFile};
use rustic_core::{Id, IndexedFullStatus, OpenStatus, Repository, TreeId, WriteBackend};
use sha2::{Digest, Sha256};

use super::hiding::Hidden;
use super::notes::Notes;
use super::snapshots;
use super::trouble::Trouble;
use crate::backup::{BackupError, Damage, Report};

/// How many damaged backups are named.
const MOST_NAMED: usize = 1000;

/// How many files are read and found, and which of them are wrong.
#[derive(Default)]
struct Files {
    read: u64,
    bytes: u64,
    packs: HashMap<Id, u32>,
    wrong: HashSet<(&'static str, Id)>,
}

/// Checks a repository. Of its data only `share` is read, from 0 to 1; everything else always is.
pub(super) fn verify(
    repo: Repository<OpenStatus>,
    backend: &dyn WriteBackend,
    hidden: &Hidden,
    share: f64,
    threads: usize,
    notes: &Notes,
    trouble: &Trouble,
) -> Result<Report, BackupError> {
    let files = read_all(backend, share, threads, notes)?;
    // The engine gives up at the first index or backup that it cannot read; it is shown only those that it can.
    hidden.hide(files.wrong.iter().map(|(_, id)| *id));
    trouble.clear();
    let explain = |why: Box<rustic_core::RusticError>| trouble.explain(&why, "read the repository's index");
    let mut known = HashMap::new();
    for id in repo.list::<IndexId>().map_err(explain)? {
        let index: IndexFile = match repo.get_file(&id) {
            Ok(index) => index,
            Err(why) => {
                notes.note(&path(FileType::Index, &id), why.display_log());
                hidden.hide([id.into_inner()]);
                continue;
            }
        };
        for pack in index.packs {
            known.insert(pack.id.into_inner(), pack.pack_size());
        }
    }
    let mut bad: HashSet<Id> = files.wrong.iter().filter(|(kind, _)| *kind == FileType::Pack.dirname()).map(|(_, id)| *id).collect();
    for (id, size) in known {
        match files.packs.get(&id) {
            Some(there) if *there == size => continue,
            Some(there) => notes.note(&path(FileType::Pack, &id), format_args!("has {there} bytes and should have {size}")),
            None => notes.note(&path(FileType::Pack, &id), "is missing"),
        }
        bad.insert(id);
    }
    let (backups, unreadable) = snapshots::read(&repo).map_err(explain)?;
    for id in unreadable {
        notes.note(&path(FileType::Snapshot, &id), "cannot be read, so that whose backup it is cannot be said");
    }
    let repo = repo.to_indexed().map_err(explain)?;
    let mut follow = Follow { repo: &repo, bad: &bad, seen: HashMap::new() };
    let mut damage = Vec::new();
    for snapshot in &backups {
        if !follow.is_whole(snapshot) {
            notes.note(Path::new(&snapshot.hostname), format_args!("its backup {} cannot be restored whole", snapshot.id));
            if damage.len() < MOST_NAMED {
                damage.push(Damage { id: snapshot.id.to_hex().to_string(), home: snapshot.hostname.clone() });
            }
        }
    }
    let (wrong, examples) = notes.noted();
    Ok(Report { files: files.read, bytes: files.bytes, backups: backups.len() as u64, wrong, examples, damage })
}

/// Reads files and compares each with its name.
fn read_all(backend: &dyn WriteBackend, share: f64, threads: usize, notes: &Notes) -> Result<Files, BackupError> {
    let mut files = Files::default();
    let mut todo = Vec::new();
    for kind in [FileType::Key, FileType::Snapshot, FileType::Index, FileType::Pack] {
        let listed = backend.list_with_size(kind).map_err(|why| super::repository::unlisted(&why))?;
        if kind == FileType::Pack {
            files.packs = listed.iter().copied().collect();
        }
        todo.extend(listed.into_iter().filter(|_| kind != FileType::Pack || rand::random_bool(share)).map(|(id, _)| (kind, id)));
    }
    let next = AtomicUsize::new(0);
    let found = Mutex::new(files);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while let Some((kind, id)) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let right = match backend.read_full(*kind, id) {
                        Ok(data) => {
                            notes.bytes(data.len() as u64);
                            found.lock().bytes += data.len() as u64;
                            let hash: [u8; 32] = Sha256::digest(&data).into();
                            if Id::new(hash) == *id { Ok(()) } else { Err("is not what was written".to_owned()) }
                        }
                        Err(why) => Err(why.display_log()),
                    };
                    let mut found = found.lock();
                    found.read += 1;
                    if let Err(why) = right {
                        notes.note(&path(*kind, id), why);
                        found.wrong.insert((kind.dirname(), *id));
                    }
                }
            });
        }
    });
    Ok(found.into_inner())
}

/// Follows backups to their data. What several share is followed once.
struct Follow<'a> {
    repo: &'a Repository<IndexedFullStatus>,
    /// Files with data that are missing or wrong.
    bad: &'a HashSet<Id>,
    /// Directories that have been followed, and whether all below them is there.
    seen: HashMap<TreeId, bool>,
}

impl Follow<'_> {
    fn is_whole(&mut self, snapshot: &SnapshotFile) -> bool {
        // Depth first, without recursion: a stranger chose how deep it is. A directory is looked at once more after those in it.
        let mut stack = vec![snapshot.tree];
        while let Some(id) = stack.last().copied() {
            if self.seen.contains_key(&id) {
                stack.pop();
                continue;
            }
            let Some(nodes) = self.nodes(&id) else {
                self.seen.insert(id, false);
                continue;
            };
            let below: Vec<TreeId> = nodes.iter().filter_map(|node| node.subtree).collect();
            let unseen: Vec<TreeId> = below.iter().filter(|id| !self.seen.contains_key(id)).copied().collect();
            // No directory is below itself: its name is the hash of what is in it.
            if !unseen.is_empty() {
                stack.extend(unseen);
                continue;
            }
            let whole = below.iter().all(|id| self.seen.get(id) == Some(&true))
                && nodes
                    .iter()
                    .flat_map(|node| node.content.iter().flatten())
                    .all(|data| self.repo.get_index_entry(data).is_ok_and(|entry| !self.bad.contains(&entry.pack.into_inner())));
            self.seen.insert(id, whole);
        }
        self.seen.get(&snapshot.tree) == Some(&true)
    }

    fn nodes(&self, id: &TreeId) -> Option<Vec<rustic_core::repofile::Node>> {
        let entry = self.repo.get_index_entry(id).ok()?;
        if self.bad.contains(&entry.pack.into_inner()) {
            return None;
        }
        self.repo.get_tree(id).ok().map(|tree| tree.nodes)
    }
}

fn path(kind: FileType, id: &Id) -> std::path::PathBuf {
    super::directory::path_of(kind, id).into()
}
