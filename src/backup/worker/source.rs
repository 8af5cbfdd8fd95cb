//! A home as it is read: entry by entry, each opened from the descriptor of the directory it is in.
//!
//! The tree belongs to a stranger who may change it meanwhile. No name is ever resolved further than one step, never through a link,
//! and never into another file system; what an entry is, is asked of the descriptor that it was opened with. So whatever is swapped for
//! what, nothing outside the tree is opened. An entry is opened without access first, and only a regular file is then opened to be read:
//! no pipe is waited on and no device is touched.

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use rustic_core::jiff::Timestamp;
use rustic_core::repofile::{Metadata, Node, NodeType};
use rustic_core::{ErrorKind, ReadSource, ReadSourceEntry, ReadSourceOpen, RusticError, RusticResult};
use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::extents::{self, Extents};
use super::mode;
use super::notes::Notes;
use super::throttle::Throttle;
use crate::backup::{BackupError, Reason, Root, Subject};

/// The longest path, in bytes. The kernel takes no longer one, so that nobody could open what it names.
const LONGEST_PATH: usize = 4000;

/// The most entries of one directory. Each costs the worker a few hundred bytes of memory, all at once.
const MOST_ENTRIES: usize = 1_000_000;

/// Bytes that the names of an entry's attributes usually have room in.
const FEW_ATTRIBUTES: usize = 256;

/// The most bytes of one entry's attributes.
const MOST_ATTRIBUTES: usize = 1 << 20;

/// How much of a file is read at once, in bytes. The engine asks for 4 KiB at a time.
const BUFFER: usize = 256 * 1024;

/// Within this time a file can be changed twice and look the same: a change so shortly before its backup is read again by the next.
const SAME_TICK: Duration = Duration::from_secs(2);

/// The directories that are backed up.
pub(super) struct Tree {
    /// Each with its path in the backup, in the order of those.
    roots: Vec<(Arc<OwnedFd>, PathBuf)>,
    notes: Notes,
    throttle: Throttle,
    /// The moment the backup shows.
    taken: SystemTime,
}

/// A file of it, to be opened by whoever reads it.
pub(super) struct Opening {
    /// Opened without access.
    file: OwnedFd,
    path: PathBuf,
    extents: Extents,
    notes: Notes,
    throttle: Throttle,
}

/// The entries of a tree, each directory before what is in it, names in order.
pub(super) struct Walk {
    /// Those that are still to come, and the number of the one that it is in, from 1.
    roots: std::vec::IntoIter<(Arc<OwnedFd>, PathBuf)>,
    number: u64,
    levels: Vec<Level>,
    notes: Notes,
    throttle: Throttle,
    taken: SystemTime,
}

struct Level {
    directory: Arc<OwnedFd>,
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

// === impl Tree ===

impl Tree {
    /// Opens the directories to be backed up. Their own paths are the caller's, and followed.
    pub(super) fn open(subject: &Subject, notes: &Notes, throttle: Throttle) -> Result<Self, BackupError> {
        let open = |root: &Root| {
            let opened = fs::open(&root.path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            let failed = |why| BackupError::new(Reason::Home, format!("{} cannot be opened: {why}", root.path.display()));
            Ok((Arc::new(opened.map_err(failed)?), Path::new("/").join(&root.name)))
        };
        let mut roots = subject.roots.iter().map(open).collect::<Result<Vec<_>, BackupError>>()?;
        // The engine wants names in order.
        roots.sort_by(|(_, a), (_, b)| a.cmp(b));
        Ok(Self { roots, notes: notes.clone(), throttle, taken: subject.taken })
    }

    /// The paths in the backup.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.roots.iter().map(|(_, path)| path.clone()).collect()
    }
}

impl ReadSource for Tree {
    type Open = Opening;
    type Iter = Walk;

    fn size(&self) -> RusticResult<Option<u64>> {
        Ok(None)
    }

    fn entries(&self) -> Walk {
        Walk {
            roots: self.roots.clone().into_iter(),
            number: 0,
            levels: Vec::new(),
            notes: self.notes.clone(),
            throttle: self.throttle.clone(),
            taken: self.taken,
        }
    }
}

// === impl Walk ===

impl Iterator for Walk {
    type Item = RusticResult<ReadSourceEntry<Opening>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(level) = self.levels.last_mut() else {
                let (root, path) = self.roots.next()?;
                self.number += 1;
                let name = path.file_name().unwrap_or_default().to_owned();
                match self.enter(root, path.clone(), &name) {
                    Ok(entry) => return Some(Ok(entry)),
                    Err(why) => {
                        // Without it there is no backup. The engine cannot be told; the caller is.
                        self.notes.note(&path, why);
                        self.notes.lose(&path);
                        continue;
                    }
                }
            };
            let Some(name) = level.names.next() else {
                self.levels.pop();
                continue;
            };
            let (directory, path) = (level.directory.clone(), level.path.join(&name));
            match self.entry(&directory, &name, &path) {
                Ok(Some(entry)) => return Some(Ok(entry)),
                Ok(None) => {}
                // Removed since: it is not in this backup, as if it had been removed before.
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) => self.notes.note(&path, why),
            }
        }
    }
}

impl Walk {
    fn entry(&mut self, directory: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<Option<ReadSourceEntry<Opening>>> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(io::Error::other("its path is too long"));
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match fs::openat2(directory, name, flags, Mode::empty(), resolve) {
            // With NO_SYMLINKS the last name may be a link if it is only opened and not followed; kernels before 5.9 say otherwise.
            Err(Errno::LOOP) => fs::openat(directory, name, flags, Mode::empty())?,
            Err(Errno::XDEV) => return Err(io::Error::other("another file system is mounted there")),
            other => other?,
        };
        let stat = fs::fstat(&found)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let node_type = match kind {
            FileType::Directory => return self.enter(Arc::new(found), path.to_owned(), name).map(Some),
            FileType::RegularFile => return self.file(found, name, path, &stat).map(Some),
            FileType::Symlink => NodeType::from_link(Path::new(OsStr::from_bytes(fs::readlinkat(&found, "", Vec::new())?.as_bytes()))),
            FileType::BlockDevice => NodeType::Dev { device: stat.st_rdev },
            FileType::CharacterDevice => NodeType::Chardev { device: stat.st_rdev },
            FileType::Fifo => NodeType::Fifo,
            // The listener behind it is not in a backup.
            FileType::Socket => return Ok(None),
            FileType::Unknown => return Err(io::Error::other("is of no kind that there is")),
        };
        let meta = Metadata { links: 0, ..self.metadata(&stat) };
        Ok(Some(ReadSourceEntry { path: path.to_owned(), node: Node::new_node(name, node_type, meta), open: None }))
    }

    /// Yields a directory, and goes on with what is in it.
    fn enter(&mut self, found: Arc<OwnedFd>, path: PathBuf, name: &OsStr) -> io::Result<ReadSourceEntry<Opening>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // From what was opened before, not from its name, which may be something else by now.
        let directory = fs::openat(&*found, c".", flags, Mode::empty())?;
        let mut meta = self.metadata(&fs::fstat(&directory)?);
        set_attributes(&mut meta, &self.attributes(&directory, &path))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_owned()));
            }
            if names.len() > MOST_ENTRIES {
                names.pop();
                self.notes.note(&path, format_args!("only its first {MOST_ENTRIES} entries are in the backup"));
                break;
            }
        }
        names.sort_unstable();
        self.levels.push(Level { directory: Arc::new(directory), path: path.clone(), names: names.into_iter() });
        Ok(ReadSourceEntry { path, node: Node::new_node(name, NodeType::Dir, meta), open: None })
    }

    fn file(&self, file: OwnedFd, name: &OsStr, path: &Path, stat: &Stat) -> io::Result<ReadSourceEntry<Opening>> {
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let taken = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
        let mut meta = self.metadata(stat);
        let mut attributes = self.attributes(&file, path);
        let mut extents = Extents::whole(size);
        if Extents::may_be_hollow(size, taken) {
            let found = Extents::of(open_to_read(&file)?, size)?;
            extents = found.ok_or_else(|| io::Error::other("is in too many pieces, with too much between them"))?;
            attributes.push((extents::ATTRIBUTE.to_owned(), extents.to_bytes()));
        }
        set_attributes(&mut meta, &attributes)?;
        meta.size = extents.stored();
        self.notes.file();
        let open = Opening { file, path: path.to_owned(), extents, notes: self.notes.clone(), throttle: self.throttle.clone() };
        Ok(ReadSourceEntry { path: path.to_owned(), node: Node::new_node(name, NodeType::File, meta), open: Some(open) })
    }

    /// What two backups of an unchanged entry must agree in, and nothing more: no access time, no number of the device, which differs
    /// from one snapshot to the next, and no name of an owner, which this host may not even have.
    fn metadata(&self, stat: &Stat) -> Metadata {
        let linked = stat.st_nlink > 1 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        #[allow(clippy::useless_conversion, reason = "the fields' types differ between architectures")]
        Metadata {
            mode: Some(mode::to_repository(stat.st_mode)),
            mtime: time(stat.st_mtime.into(), stat.st_mtime_nsec.try_into().unwrap_or_default()),
            ctime: self.settled(time(stat.st_ctime.into(), stat.st_ctime_nsec.try_into().unwrap_or_default())),
            atime: None,
            uid: Some(stat.st_uid),
            gid: Some(stat.st_gid),
            // A hard link is found again by these; what is not linked needs none.
            inode: if linked { stat.st_ino } else { 0 },
            // A number that another root has is another file's there.
            device_id: if linked { self.number } else { 0 },
            links: if linked { stat.st_nlink.into() } else { 0 },
            ..Metadata::default()
        }
    }

    /// The time of the last change; of one that may not have been the last within its tick, a time that no other backup has, so that the
    /// next one reads the file again.
    fn settled(&self, changed: Option<Timestamp>) -> Option<Timestamp> {
        let taken = Timestamp::try_from(self.taken).ok()?;
        let limit = Timestamp::try_from(self.taken.checked_sub(SAME_TICK)?).ok()?;
        Some(changed.filter(|changed| *changed < limit).unwrap_or(taken))
    }

    /// The attributes that are a user's own, and access lists. What gives a file power (`security.capability`) or is the host's is not
    /// a home's.
    fn attributes(&self, file: impl AsFd, path: &Path) -> Vec<(String, Vec<u8>)> {
        let place = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        // Most have none, or few: room for all that there may be is made for those that need it.
        let mut names = vec![0; FEW_ATTRIBUTES];
        let listed = match fs::listxattr(&*place, &mut names[..]) {
            Err(Errno::RANGE) => {
                names.resize(65_536, 0);
                fs::listxattr(&*place, &mut names[..])
            }
            other => other,
        };
        let length = match listed {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Vec::new(),
            Ok(length) => length,
            Err(why) => {
                self.notes.note(path, format_args!("its attributes: {why}"));
                return Vec::new();
            }
        };
        names.truncate(length);
        let mut found = Vec::new();
        let mut total = 0;
        for name in names.split_inclusive(|byte| *byte == 0).filter_map(|name| CStr::from_bytes_with_nul(name).ok()) {
            let kept = |name: &str| name.starts_with("user.") || name.starts_with("system.posix_acl_");
            match name.to_str() {
                Ok(extents::ATTRIBUTE) => continue,
                Ok(text) if !kept(text) => continue,
                Ok(text) => {
                    let mut value = vec![0; 65_536];
                    match fs::getxattr(&*place, name, &mut value[..]) {
                        Ok(length) => {
                            total += length + text.len();
                            if total > MOST_ATTRIBUTES {
                                self.notes.note(path, "has more attributes than are kept");
                                break;
                            }
                            value.truncate(length);
                            found.push((text.to_owned(), value));
                        }
                        Err(Errno::NODATA) => {}
                        Err(why) => self.notes.note(path, format_args!("an attribute: {why}")),
                    }
                }
                // The repository's format has text there.
                Err(_) => self.notes.note(path, "an attribute's name is not UTF-8"),
            }
        }
        found
    }
}

// === impl Opening ===

/// A file's stored bytes.
pub(super) struct Reader {
    file: std::fs::File,
    opening: Opening,
    /// How much of what is stored has been read.
    done: u64,
}

impl ReadSourceOpen for Opening {
    type Reader = BufReader<Reader>;

    fn open(self) -> RusticResult<BufReader<Reader>> {
        match open_to_read(&self.file) {
            Ok(file) => {
                let buffer = usize::try_from(self.extents.stored()).unwrap_or(usize::MAX).min(BUFFER);
                Ok(BufReader::with_capacity(buffer, Reader { file: file.into(), opening: self, done: 0 }))
            }
            Err(why) => {
                self.notes.note(&self.path, &why);
                Err(RusticError::with_source(ErrorKind::InputOutput, "a file cannot be opened", why))
            }
        }
    }
}

impl Read for Reader {
    /// Reads no further than the file was long when it was found: one that grows as fast as it is read would have no end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let places = self.opening.extents.place(self.done, buffer.len() as u64);
        let Some((_, at, length)) = places.first() else { return Ok(0) };
        let length = usize::try_from(*length).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], *at).inspect_err(|why| self.opening.notes.note(&self.opening.path, why))?;
        self.done += read as u64;
        self.opening.throttle.take(read as u64);
        Ok(read)
    }
}

/// Opens what is known to be a regular file, by its descriptor.
fn open_to_read(file: &OwnedFd) -> io::Result<OwnedFd> {
    let place = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // Where access times cannot be left alone they change.
    fs::open(&*place, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|why| if why == Errno::PERM { fs::open(&*place, flags, Mode::empty()) } else { Err(why) })
        .map_err(Into::into)
}

fn time(seconds: i64, nanoseconds: i64) -> Option<Timestamp> {
    // Not `Timestamp::new`, to which both must have one sign; a time that no calendar has is none.
    Timestamp::from_nanosecond(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)).ok()
}

/// The engine does not give its type for an attribute a name, but reads it.
fn set_attributes(meta: &mut Metadata, attributes: &[(String, Vec<u8>)]) -> io::Result<()> {
    if !attributes.is_empty() {
        let list = attributes.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": BASE64.encode(value) }));
        meta.extended_attributes = serde_json::from_value(list.collect())?;
    }
    Ok(())
}
