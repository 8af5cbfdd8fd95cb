//! A repository in a directory.
//!
//! Every file is written under another name first and renamed when it is whole and on the disk: a kill or a power failure leaves either
//! the file or something in `tmp/`, which the next exclusive use removes. Everything goes through a descriptor that was opened once.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustic_core::{BytesList, FileType, Id, ReadBackend, RusticResult, WriteBackend};
use rustix::fs::{self, AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::trouble::Trouble;
use crate::backup::{BackupError, Reason};

/// Where files are before they are whole.
const TMP: &str = "tmp";

/// How often a repository that somebody else uses is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What a repository's directory has before anything is in it: restic's directories, and ours.
const DIRECTORIES: &[&str] = &["data", "index", "keys", "locks", "snapshots", TMP];

/// What a file system on its own disk has before anything is put there.
const NOTHING: &[&[u8]] = &[b".", b"..", b"lost+found"];

/// A directory that holds a repository, or will.
pub(super) struct Directory {
    root: OwnedFd,
    location: String,
    trouble: Trouble,
    /// So that no two files in `tmp` have one name.
    next: AtomicU64,
    /// Whether what is read must come from the disk, and not from memory where a disk's fault does not show.
    from_disk: bool,
}

impl Directory {
    /// Opens it. The directory must be there: where a disk is not mounted, backups must not land beneath the mount point.
    pub(super) fn open(path: &Path, trouble: Trouble, from_disk: bool) -> Result<Self, BackupError> {
        let location = path.display().to_string();
        let root = fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|why| match why {
            Errno::NOENT | Errno::NOTDIR => BackupError::new(
                Reason::NoTarget,
                format!("backup.target {location} is not a directory that is there: mount its disk, or make it: mkdir -m 700 {location}"),
            ),
            why => BackupError::new(Reason::Unreachable, format!("backup.target {location} cannot be opened: {why}")),
        })?;
        Ok(Self { root, location, trouble, next: AtomicU64::new(0), from_disk })
    }

    /// Keeps everybody else out for as long as this value lives. The kernel lets go when the process dies, however it dies.
    pub(super) fn lock(&self, patience: Duration) -> Result<(), BackupError> {
        let deadline = Instant::now() + patience;
        loop {
            match fs::flock(&self.root, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let message = format!("another process works on {}; try again when it is done", self.location);
                    return Err(BackupError::new(Reason::Busy, message));
                }
                Err(why) => {
                    return Err(BackupError::new(Reason::Unreachable, format!("{} cannot be locked: {why}", self.location)));
                }
            }
        }
        self.remove_unfinished();
        Ok(())
    }

    /// Whether there is nothing in it yet but directories that are to be filled.
    pub(super) fn is_empty(&self) -> Result<bool, BackupError> {
        let read = || -> io::Result<bool> {
            for entry in Dir::read_from(&self.root)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if !NOTHING.contains(&name) && !DIRECTORIES.iter().any(|directory| directory.as_bytes() == name) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        read().map_err(|why| BackupError::new(Reason::Unreachable, format!("{} cannot be read: {why}", self.location)))
    }

    /// Removes what a killed process left. Only while nobody else can be writing.
    fn remove_unfinished(&self) {
        let Ok(tmp) = self.below(TMP) else { return };
        let Ok(dir) = Dir::read_from(&tmp) else { return };
        for entry in dir.flatten().filter(|entry| !NOTHING.contains(&entry.file_name().to_bytes())) {
            // What cannot be removed takes room and does no other harm.
            let _ = fs::unlinkat(&tmp, entry.file_name(), AtFlags::empty());
        }
    }

    fn below(&self, path: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.root, path, flags, Mode::empty())?)
    }

    fn make(&self, path: &str) -> io::Result<()> {
        match fs::mkdirat(&self.root, path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    fn write(&self, tpe: FileType, id: &Id, content: BytesList) -> io::Result<()> {
        let tmp = format!("{TMP}/{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let create = || fs::openat(&self.root, tmp.as_str(), flags, Mode::RUSR | Mode::WUSR);
        let file = match create() {
            Err(Errno::NOENT) => {
                self.make(TMP)?;
                create()?
            }
            other => other?,
        };
        let placed = fill(file, content).and_then(|()| self.place(&tmp, tpe, id));
        if placed.is_err() {
            // So that a full disk is not fuller than it was.
            let _ = fs::unlinkat(&self.root, tmp.as_str(), AtFlags::empty());
        }
        placed
    }

    fn place(&self, tmp: &str, tpe: FileType, id: &Id) -> io::Result<()> {
        let path = path_of(tpe, id);
        let rename = || fs::renameat(&self.root, tmp, &self.root, path.as_str());
        let directory = path.rsplit_once('/').map_or(".", |(directory, _)| directory);
        match rename() {
            Err(Errno::NOENT) => {
                self.make(tpe.dirname())?;
                self.make(directory)?;
                rename()?;
            }
            other => other?,
        }
        Ok(fs::fsync(self.below(directory)?)?)
    }

    fn list_in(&self, directory: &str, found: &mut Vec<(Id, u32)>) -> io::Result<()> {
        let dir = match self.below(directory) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let Some(id) = id_of(entry.file_name()) else { continue };
            match fs::statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => found.push((id, u32::try_from(stat.st_size).unwrap_or(u32::MAX))),
                // Removed since.
                Err(Errno::NOENT) => {}
                Err(why) => return Err(why.into()),
            }
        }
        Ok(())
    }

    fn list_all(&self, tpe: FileType) -> io::Result<Vec<(Id, u32)>> {
        let mut found = Vec::new();
        match tpe {
            FileType::Config => match fs::statat(&self.root, "config", AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => found.push((Id::default(), u32::try_from(stat.st_size).unwrap_or(u32::MAX))),
                Err(Errno::NOENT) => {}
                Err(why) => return Err(why.into()),
            },
            FileType::Pack => {
                for first in 0..=u8::MAX {
                    self.list_in(&format!("data/{first:02x}"), &mut found)?;
                }
            }
            FileType::Index | FileType::Key | FileType::Snapshot => self.list_in(tpe.dirname(), &mut found)?,
        }
        Ok(found)
    }

    fn read(&self, tpe: FileType, id: &Id, part: Option<(u32, u32)>) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.root, path_of(tpe, id), flags, Mode::empty())?;
        if self.from_disk {
            // A hint: where it is not taken, memory is read.
            let _ = fs::fadvise(&file, 0, None, fs::Advice::DontNeed);
        }
        let (offset, length) = match part {
            Some((offset, length)) => (u64::from(offset), u64::from(length)),
            None => (0, u64::try_from(fs::fstat(&file)?.st_size).unwrap_or_default()),
        };
        let mut data = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        std::os::unix::fs::FileExt::read_exact_at(&std::fs::File::from(file), &mut data, offset)?;
        Ok(data)
    }

    fn remove_file(&self, tpe: FileType, id: &Id) -> io::Result<()> {
        match fs::unlinkat(&self.root, path_of(tpe, id), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    fn told<T>(&self, what: &str, tpe: FileType, id: &Id, result: io::Result<T>) -> RusticResult<T> {
        result.map_err(|why| {
            let path = format!("{}/{}", self.location, path_of(tpe, id));
            let (reason, mend) = match why.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (Reason::Full, "; make room there, or keep less"),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => {
                    (Reason::Damaged, "; the repository is damaged: `innkeeper backup verify` says what is hit")
                }
                io::ErrorKind::ReadOnlyFilesystem => (Reason::Unreachable, "; mount it writable"),
                _ => (Reason::Unreachable, ""),
            };
            self.trouble.note(BackupError::new(reason, format!("cannot {what} {path}: {why}{mend}")))
        })
    }
}

impl ReadBackend for Directory {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn list_with_size(&self, tpe: FileType) -> RusticResult<Vec<(Id, u32)>> {
        self.told("list", tpe, &Id::default(), self.list_all(tpe))
    }

    fn read_full(&self, tpe: FileType, id: &Id) -> RusticResult<bytes::Bytes> {
        self.told("read", tpe, id, self.read(tpe, id, None)).map(Into::into)
    }

    fn read_partial(&self, tpe: FileType, id: &Id, _: bool, offset: u32, length: u32) -> RusticResult<bytes::Bytes> {
        self.told("read", tpe, id, self.read(tpe, id, Some((offset, length)))).map(Into::into)
    }

    fn warmup_path(&self, tpe: FileType, id: &Id) -> String {
        path_of(tpe, id)
    }
}

impl WriteBackend for Directory {
    fn create(&self) -> RusticResult<()> {
        // restic expects them. The directories in `data` are made as they are needed.
        let made = DIRECTORIES.iter().try_for_each(|path| self.make(path));
        self.told("make", FileType::Config, &Id::default(), made)
    }

    fn write_bytes(&self, tpe: FileType, id: &Id, _: bool, content: BytesList) -> RusticResult<()> {
        self.told("write", tpe, id, self.write(tpe, id, content))
    }

    fn remove(&self, tpe: FileType, id: &Id, _: bool) -> RusticResult<()> {
        self.told("remove", tpe, id, self.remove_file(tpe, id))
    }
}

/// Writes it all, down to the disk.
fn fill(file: OwnedFd, content: BytesList) -> io::Result<()> {
    let mut file = std::fs::File::from(file);
    io::copy(&mut content.reader(), &mut file)?;
    file.sync_all()
}

/// Where a file is in a repository: restic's layout.
pub(super) fn path_of(tpe: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    match tpe {
        FileType::Config => "config".to_owned(),
        FileType::Pack => format!("data/{}/{}", &hex[..2], &*hex),
        FileType::Index | FileType::Key | FileType::Snapshot => format!("{}/{}", tpe.dirname(), &*hex),
    }
}

fn id_of(name: &CStr) -> Option<Id> {
    name.to_str().ok().filter(|name| name.len() == 64)?.parse().ok()
}
