//! One entry of an open directory: opened without following, crossing or waiting for anything.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::TreeError;

/// Which file something is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    dev: u64,
    ino: u64,
}

/// What became of opening an entry.
pub(super) enum Opened {
    /// It is what was asked for.
    Here(OwnedFd, Stat),
    /// Another file system, or part of one, is mounted there.
    Mount,
    /// It is gone, or something else by now.
    Changed,
}

impl FileId {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev, ino: stat.st_ino }
    }

    /// As the name of a file.
    pub(super) fn name(self) -> String {
        format!("{:x}-{:x}", self.dev, self.ino)
    }
}

/// The type in a file's mode.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Opens a directory to read it.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<Opened, TreeError> {
    open(parent, name, OFlags::DIRECTORY, FileType::Directory)
}

/// Opens a regular file to read it.
///
/// The caller has seen it to be one. If it was swapped meanwhile for a FIFO or a socket, opening it neither waits nor disturbs it; for a
/// device, nobody without the power to make devices can do that.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &CStr) -> Result<Opened, TreeError> {
    open(parent, name, OFlags::NONBLOCK | OFlags::NOCTTY, FileType::RegularFile)
}

/// Opens a directory afresh: with a position of its own, and to be read even if it was only held.
pub(super) fn reopen(dir: BorrowedFd<'_>) -> Result<OwnedFd, TreeError> {
    fs::openat(dir, c".", OFlags::DIRECTORY | flags(), Mode::empty()).map_err(TreeError::of("open a directory"))
}

/// Opens the directory above, if that is still the one expected.
pub(super) fn open_parent(dir: BorrowedFd<'_>, expected: FileId) -> Result<Option<OwnedFd>, TreeError> {
    // A directory whose parent is on another mount is the root of its own: the root of a tree is always open, so nobody asks there.
    let parent = match fs::openat(dir, c"..", OFlags::DIRECTORY | flags(), Mode::empty()) {
        Ok(parent) => parent,
        Err(why) if is_change(why) => return Ok(None),
        Err(why) => return Err(TreeError::of("open a directory")(why)),
    };
    let stat = fs::fstat(&parent).map_err(TreeError::of("look at a directory"))?;
    Ok((FileId::of(&stat) == expected).then_some(parent))
}

/// Looks at an entry without opening it.
pub(super) fn look(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<Stat>, TreeError> {
    match fs::statat(parent, name, fs::AtFlags::SYMLINK_NOFOLLOW | fs::AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => Ok(Some(stat)),
        Err(why) if is_change(why) => Ok(None),
        Err(why) => Err(TreeError::of("look at a file")(why)),
    }
}

/// Whether an error says that an entry is gone, is something else than it was, or is being kept from being read.
///
/// `EAGAIN` is a lease that somebody holds on a file: waiting for it would let a user hold us up.
pub(super) fn is_change(why: Errno) -> bool {
    matches!(why, Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::STALE | Errno::AGAIN)
}

fn flags() -> OFlags {
    // Reading a home leaves no trace in it.
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME
}

fn open(parent: BorrowedFd<'_>, name: &CStr, extra: OFlags, wanted: FileType) -> Result<Opened, TreeError> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = match fs::openat2(parent, name, extra | flags(), Mode::empty(), resolve) {
        // Before Linux 5.6, and in containers whose filter does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_without_openat2(parent, name, extra),
        opened => opened,
    };
    let fd = match opened {
        Ok(fd) => fd,
        Err(Errno::XDEV) => return Ok(Opened::Mount),
        Err(why) if is_change(why) => return Ok(Opened::Changed),
        Err(why) => return Err(TreeError::of("open a file")(why)),
    };
    let stat = fs::fstat(&fd).map_err(TreeError::of("look at a file"))?;
    if kind(&stat) != wanted {
        return Ok(Opened::Changed);
    }
    Ok(Opened::Here(fd, stat))
}

/// Opens an entry and then compares the mounts, with the same errors.
fn open_without_openat2(parent: BorrowedFd<'_>, name: &CStr, extra: OFlags) -> Result<OwnedFd, Errno> {
    if name.to_bytes().contains(&b'/') || matches!(name.to_bytes(), b"" | b"..") {
        return Err(Errno::XDEV);
    }
    let fd = fs::openat(parent, name, extra | flags(), Mode::empty())?;
    if mount_of(parent)? != mount_of(fd.as_fd())? {
        return Err(Errno::XDEV);
    }
    Ok(fd)
}

/// The number of the mount that a descriptor is on.
fn mount_of(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).map_err(|_| Errno::NOSYS)?;
    let number = text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or(Errno::NOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_way_sees_mounts_and_links_too() {
        let root = std::fs::File::open("/").unwrap();
        assert!(open_without_openat2(root.as_fd(), c"usr", OFlags::DIRECTORY).is_ok());
        assert_eq!(open_without_openat2(root.as_fd(), c"proc", OFlags::DIRECTORY).unwrap_err(), Errno::XDEV);
        assert_eq!(open_without_openat2(root.as_fd(), c"..", OFlags::DIRECTORY).unwrap_err(), Errno::XDEV);
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let dir = std::fs::File::open(dir.path()).unwrap();
        assert!(is_change(open_without_openat2(dir.as_fd(), c"link", OFlags::DIRECTORY).unwrap_err()));
    }
}
