//! Puts a backup into an empty directory.
//!
//! The directory belongs to root and nobody else reaches it. What is written into it comes from a repository that others may have
//! written to: a name is one step or is refused, nothing that was restored is ever followed, and every file is made new. Devices are not
//! made, nothing gets setuid, and attributes that give power were never stored and are not set.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::Mutex;
use rustic_core::repofile::{BlobType, Metadata, Node, NodeType, SnapshotFile};
use rustic_core::{BlobId, DataId, IndexedFullStatus, Repository, TreeId};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};

use super::extents::{self, Extents};
use super::mode;
use super::notes::Notes;
use super::trouble::Trouble;
use crate::backup::{BackupError, Reason};

type Repo = Repository<IndexedFullStatus>;

/// A directory that was made, and what is to be in it.
type Entered = (Arc<OwnedFd>, Vec<Node>);

/// How much of one file a thread writes before another may take over, in bytes: so that one large file is not one thread's.
const SHARE: u64 = 32 << 20;

/// How many batches of shares may wait, and how many shares are in one at most: small files are handed on together, since waking a thread for each
/// takes longer than writing it. Each share holds its file open.
const WAITING: usize = 8;
const BATCH: usize = 32;

/// Zeros of this length are not written: they come back as a hole, whatever they were.
const BLOCK: usize = 4096;

/// Opened while it is filled. Whoever finishes last gives it its owner and times.
struct Target {
    file: File,
    path: PathBuf,
    meta: Metadata,
    extents: Extents,
    /// Shares that are not written yet.
    left: AtomicUsize,
}

/// Shares that are written one after another, by one thread.
type Batch = Vec<Share>;

/// A part of a file.
struct Share {
    target: Arc<Target>,
    /// What it consists of, each with its offset in what is stored.
    blobs: Vec<(DataId, u64)>,
}

/// Hands shares on.
struct Batches {
    sender: SyncSender<Batch>,
    batch: Batch,
    /// How many there may be in it, at most.
    bytes: u64,
}

/// How large the pieces are that files are cut into, at most.
const PIECE: u64 = 1 << 20;

struct Restore<'a> {
    repo: &'a Repo,
    root: &'a OwnedFd,
    notes: &'a Notes,
    trouble: &'a Trouble,
    /// The first name of what has several.
    first_names: HashMap<u64, PathBuf>,
    /// Further names of what was restored under another.
    links: Vec<(PathBuf, PathBuf)>,
    /// Directories get their times last: whatever is made in one changes them.
    directories: Vec<(PathBuf, Metadata)>,
}

/// Puts `snapshot` into `root`, an empty directory.
pub(super) fn restore(
    repo: &Repo,
    snapshot: &SnapshotFile,
    name: &str,
    root: &OwnedFd,
    threads: usize,
    notes: &Notes,
    trouble: &Trouble,
) -> Result<(), BackupError> {
    let mut restore = Restore { repo, root, notes, trouble, first_names: HashMap::new(), links: Vec::new(), directories: Vec::new() };
    let home = restore.home(snapshot, name)?;
    let (sender, receiver) = sync_channel(WAITING);
    std::thread::scope(|scope| {
        // It goes with the last thread that takes from it: where all have failed, whoever sends is to notice.
        let receiver = Arc::new(Mutex::new(receiver));
        let worker = |receiver: Arc<Mutex<Receiver<Batch>>>| scope.spawn(move || write_shares(repo, &receiver, notes, trouble));
        let workers: Vec<_> = (0..threads.max(1)).map(|_| worker(Arc::clone(&receiver))).collect();
        drop(receiver);
        let walked = restore.walk(&home, sender);
        for worker in workers {
            let done = worker.join().unwrap_or_else(|_| Err(BackupError::new(Reason::Worker, "a thread of the restore panicked")));
            done?;
        }
        walked
    })?;
    restore.finish(&home)
}

impl Restore<'_> {
    /// The node whose content is wanted.
    fn home(&self, snapshot: &SnapshotFile, name: &str) -> Result<Node, BackupError> {
        let found = self.tree(&snapshot.tree)?.into_iter().find(|node| node.is_dir() && *node.name() == *name);
        found.ok_or_else(|| BackupError::new(Reason::NoBackup, format!("there is no {name:?} in that backup")))
    }

    fn tree(&self, id: &TreeId) -> Result<Vec<Node>, BackupError> {
        Ok(self.repo.get_tree(id).map_err(|why| self.trouble.explain(&why, "read a directory of the backup"))?.nodes)
    }

    /// Makes directories and what is not a file, and hands files on to be filled.
    fn walk(&mut self, home: &Node, sender: SyncSender<Batch>) -> Result<(), BackupError> {
        let mut sender = Batches { sender, batch: Batch::new(), bytes: 0 };
        let root = self.root.try_clone().map_err(|why| unusable(Path::new("."), &why))?;
        let mut levels = vec![(Arc::new(root), PathBuf::new(), self.children(home)?.into_iter())];
        while let Some((directory, path, nodes)) = levels.last_mut() {
            let Some(node) = nodes.next() else {
                levels.pop();
                continue;
            };
            let name = node.name().into_owned();
            let (directory, path) = (directory.clone(), path.join(&name));
            if !is_one_step(&name) {
                self.notes.note(&path, "is not a name");
                continue;
            }
            match self.entry(&directory, &name, &path, node, &mut sender) {
                Ok(Some((entered, children))) => levels.push((entered, path, children.into_iter())),
                Ok(None) => {}
                Err(Failed::Entry(why)) if is_full(&why) => return Err(unusable(&path, &why)),
                Err(Failed::Entry(why)) => self.notes.note(&path, why),
                Err(Failed::All(why)) => return Err(why),
            }
        }
        sender.flush()
    }

    fn children(&self, node: &Node) -> Result<Vec<Node>, BackupError> {
        node.subtree.as_ref().map_or_else(|| Ok(Vec::new()), |id| self.tree(id))
    }

    fn entry(
        &mut self,
        directory: &OwnedFd,
        name: &OsString,
        path: &Path,
        node: Node,
        sender: &mut Batches,
    ) -> Result<Option<Entered>, Failed> {
        match &node.node_type {
            NodeType::Dir => {
                fs::mkdirat(directory, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let entered = fs::openat(directory, name, flags, Mode::empty())?;
                let children = self.children(&node)?;
                self.directories.push((path.to_owned(), node.meta));
                return Ok(Some((Arc::new(entered), children)));
            }
            NodeType::File => return self.file(directory, name, path, node, sender).map(|()| None),
            NodeType::Symlink { .. } => fs::symlinkat(node.node_type.to_link(), directory, name)?,
            NodeType::Fifo => {
                let mode = Mode::from_bits_truncate(mode::of_file(node.meta.mode.unwrap_or_default()));
                fs::mknodat(directory, name, FileType::Fifo, mode, 0)?;
                // Through /proc: by its name a link that has taken its place would be followed.
                let held = fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), mode)?;
            }
            NodeType::Dev { .. } | NodeType::Chardev { .. } | NodeType::Socket => {
                return Err(io::Error::other("devices and sockets are not restored").into());
            }
        }
        let (uid, gid) = owner(&node.meta);
        fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        fs::utimensat(directory, name, &times(&node.meta), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(None)
    }

    fn file(&mut self, directory: &OwnedFd, name: &OsString, path: &Path, node: Node, sender: &mut Batches) -> Result<(), Failed> {
        if node.meta.links > 1 && node.meta.inode != 0 {
            if let Some(first) = self.first_names.get(&node.meta.inode) {
                self.links.push((first.clone(), path.to_owned()));
                return Ok(());
            }
            self.first_names.insert(node.meta.inode, path.to_owned());
        }
        let mut blobs = Vec::new();
        let mut stored = 0;
        for id in node.content.unwrap_or_default() {
            let entry = self.repo.get_index_entry(&id).map_err(|_| {
                let message = format!("{}: its data is not in the repository, which is damaged", path.display());
                Failed::Entry(io::Error::other(message))
            })?;
            blobs.push((id, stored));
            stored += u64::from(entry.data_length());
        }
        let listed = node.meta.extended_attributes.iter().find(|attribute| attribute.name == extents::ATTRIBUTE);
        let extents = match listed {
            None => Extents::whole(stored),
            Some(attribute) => attribute
                .value
                .as_deref()
                .and_then(Extents::from_bytes)
                .ok_or_else(|| io::Error::other("where its pieces belong cannot be read"))?,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.set_len(extents.size)?;
        self.notes.file();
        let mut shares: Vec<Vec<(DataId, u64)>> = Vec::new();
        for (id, at) in blobs {
            match shares.last_mut().filter(|share| share.first().is_some_and(|(_, first)| at - first < SHARE)) {
                Some(share) => share.push((id, at)),
                None => shares.push(vec![(id, at)]),
            }
        }
        if shares.is_empty() {
            return Ok(settle(&file, &node.meta, mode::of_file)?);
        }
        let left = AtomicUsize::new(shares.len());
        let target = Arc::new(Target { file, path: path.to_owned(), meta: node.meta, extents, left });
        for blobs in shares {
            sender.send(Share { target: target.clone(), blobs })?;
        }
        Ok(())
    }

    /// What can be done only when everything is there.
    fn finish(self, home: &Node) -> Result<(), BackupError> {
        for (first, path) in &self.links {
            let link = || -> io::Result<()> {
                let (from, to) = (self.parent(first)?, self.parent(path)?);
                Ok(fs::linkat(&from, name_of(first), &to, name_of(path), AtFlags::empty())?)
            };
            if let Err(why) = link() {
                self.notes.note(path, why);
            }
            self.notes.file();
        }
        for (path, meta) in self.directories.iter().rev() {
            let settled = open_directory(self.root, path).and_then(|directory| settle(&directory, meta, mode::of_directory));
            if let Err(why) = settled {
                self.notes.note(path, why);
            }
        }
        settle(self.root, &home.meta, mode::of_directory).map_err(|why| unusable(Path::new("."), &why))?;
        fs::syncfs(self.root).map_err(|why| unusable(Path::new("."), &why.into()))
    }

    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => open_directory(self.root, parent),
            _ => self.root.try_clone(),
        }
    }
}

impl Batches {
    fn send(&mut self, share: Share) -> Result<(), BackupError> {
        // Its own length is not known here; how many pieces it has is near enough.
        self.bytes += share.blobs.len() as u64 * PIECE;
        self.batch.push(share);
        if self.batch.len() >= BATCH || self.bytes >= SHARE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        // Nobody takes it where every thread has failed; the first of them says why.
        let gone = |_| BackupError::new(Reason::Worker, "the restore was given up");
        if batch.is_empty() { Ok(()) } else { self.sender.send(batch).map_err(gone) }
    }
}

/// Writes shares until there are no more.
fn write_shares(repo: &Repo, shares: &Mutex<Receiver<Batch>>, notes: &Notes, trouble: &Trouble) -> Result<(), BackupError> {
    loop {
        let next = shares.lock().recv();
        let Ok(batch) = next else { return Ok(()) };
        for share in batch {
            write_share(repo, share, notes, trouble)?;
        }
    }
}

fn write_share(repo: &Repo, Share { target, blobs }: Share, notes: &Notes, trouble: &Trouble) -> Result<(), BackupError> {
    for (id, at) in blobs {
        let data = repo
            .get_blob_cached(&BlobId::from(id.into_inner()), BlobType::Data)
            .map_err(|why| trouble.explain(&why, "read a file of the backup"))?;
        notes.bytes(data.len() as u64);
        match write_at(&target, &data, at) {
            Ok(()) => {}
            Err(why) if is_full(&why) => return Err(unusable(&target.path, &why)),
            Err(why) => notes.note(&target.path, why),
        }
    }
    if target.left.fetch_sub(1, Ordering::AcqRel) == 1
        && let Err(why) = settle(&target.file, &target.meta, mode::of_file)
    {
        notes.note(&target.path, why);
    }
    Ok(())
}

/// Writes a part of what is stored to where it belongs.
fn write_at(target: &Target, data: &[u8], at: u64) -> io::Result<()> {
    for (stored, place, length) in target.extents.place(at, data.len() as u64) {
        let start = usize::try_from(stored - at).map_err(io::Error::other)?;
        let end = start + usize::try_from(length).map_err(io::Error::other)?;
        write_apart_from_zeros(&target.file, &data[start..end], place)?;
    }
    Ok(())
}

fn write_apart_from_zeros(file: &File, data: &[u8], place: u64) -> io::Result<()> {
    let mut start = 0;
    let mut end = 0;
    for block in data.chunks(BLOCK) {
        if is_zero(block) {
            file.write_all_at(&data[start..end], place + start as u64)?;
            start = end + block.len();
        }
        end += block.len();
    }
    file.write_all_at(&data[start..end], place + start as u64)
}

fn is_zero(block: &[u8]) -> bool {
    let (words, rest) = block.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Gives what is whole its owner, permissions, attributes and times, in this order: each would undo one before it.
fn settle(file: impl AsFd, meta: &Metadata, permissions: fn(u32) -> u32) -> io::Result<()> {
    let file = file.as_fd();
    let (uid, gid) = owner(meta);
    fs::fchown(file, uid, gid)?;
    let mut result = Ok(());
    for attribute in meta.extended_attributes.iter().filter(|attribute| is_kept(&attribute.name)) {
        let value = attribute.value.as_deref().unwrap_or_default();
        // Through /proc, as it was read: and one that is refused costs itself alone.
        let place = format!("/proc/self/fd/{}", file.as_raw_fd());
        if let Err(why) = fs::setxattr(&*place, attribute.name.as_str(), value, XattrFlags::empty()) {
            result = Err(io::Error::other(format!("attribute {:?}: {why}", attribute.name)));
        }
    }
    fs::fchmod(file, Mode::from_bits_truncate(permissions(meta.mode.unwrap_or_default())))?;
    fs::futimens(file, &times(meta))?;
    result
}

/// The attributes that are set: those that are stored, whoever wrote the repository.
fn is_kept(name: &str) -> bool {
    name != extents::ATTRIBUTE && (name.starts_with("user.") || name.starts_with("system.posix_acl_"))
}

fn owner(meta: &Metadata) -> (Option<Uid>, Option<Gid>) {
    // All bits set would mean "as it is".
    let known = |id: &u32| *id != u32::MAX;
    (meta.uid.filter(known).map(Uid::from_raw), meta.gid.filter(known).map(Gid::from_raw))
}

fn times(meta: &Metadata) -> Timestamps {
    let nanoseconds = meta.mtime.map_or(0, |time| time.as_nanosecond());
    let time = Timespec {
        tv_sec: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default(),
        tv_nsec: i64::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    };
    Timestamps { last_access: time, last_modification: time }
}

/// Opens a directory that was restored, never through a link.
fn open_directory(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(fs::openat2(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

fn name_of(path: &Path) -> &std::ffi::OsStr {
    path.file_name().unwrap_or_default()
}

fn is_one_step(name: &OsString) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty() && bytes != b"." && bytes != b".." && !bytes.iter().any(|byte| *byte == b'/' || *byte == 0)
}

fn is_full(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem)
}

fn unusable(path: &Path, why: &io::Error) -> BackupError {
    let mend = if is_full(why) { "; make room for the whole home there" } else { "" };
    BackupError::new(Reason::Home, format!("cannot restore {}: {why}{mend}", path.display()))
}

/// What failed: an entry, or everything.
enum Failed {
    Entry(io::Error),
    All(BackupError),
}

impl From<io::Error> for Failed {
    fn from(why: io::Error) -> Self {
        Self::Entry(why)
    }
}

impl From<rustix::io::Errno> for Failed {
    fn from(why: rustix::io::Errno) -> Self {
        Self::Entry(why.into())
    }
}

impl From<BackupError> for Failed {
    fn from(why: BackupError) -> Self {
        Self::All(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_step() {
        for name in ["a", "...", " ", "-", "a\nb"] {
            assert!(is_one_step(&name.into()), "{name:?}");
        }
        for name in ["", ".", "..", "a/b", "/", "../x", "a\0"] {
            assert!(!is_one_step(&name.into()), "{name:?}");
        }
    }

    #[test]
    fn what_gives_power_is_not_set() {
        assert!(is_kept("user.mine") && is_kept("system.posix_acl_access"));
        for name in ["security.capability", "trusted.overlay.opaque", "system.nfs4_acl", extents::ATTRIBUTE] {
            assert!(!is_kept(name), "{name}");
        }
    }

    #[test]
    fn zeros_are_left_out_wherever_they_are() {
        let file = tempfile::tempfile().unwrap();
        let mut data = vec![0; 10 * BLOCK + 100];
        for at in [0, 3 * BLOCK + 5, 4 * BLOCK, 10 * BLOCK + 99] {
            data[at] = 1;
        }
        file.set_len(data.len() as u64 + 7).unwrap();
        write_apart_from_zeros(&file, &data, 7).unwrap();
        let mut back = vec![9; data.len()];
        file.read_exact_at(&mut back, 7).unwrap();
        assert!(back == data);
    }
}
