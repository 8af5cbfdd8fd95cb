//! Homes in plain directories. Nothing limits them; how large they are is found out by looking at every file.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, CWD, Gid, Mode, OFlags, Uid};

use super::driver::{Applied, Driver, Hold, Holds, Quota, Usage, View};
use super::{HomeError, USER, files};

/// Why a quota does not hold.
pub(super) const NOT_ENFORCED: &str = "it is a plain directory, whose size nothing limits";

/// Plain directories.
#[derive(Debug)]
pub(super) struct Directories;

impl Driver for Directories {
    fn make(&self, entry: &Path, _quota: &Quota) -> Result<(), HomeError> {
        fs::mkdir(entry, Mode::from_raw_mode(0o700)).map_err(HomeError::of("make", entry))
    }

    fn reach(&self, entry: &Path, _quota: Option<&Quota>) -> Result<(PathBuf, Applied), HomeError> {
        open_tree(entry)?;
        Ok((entry.to_owned(), Applied::Reported(NOT_ENFORCED)))
    }

    fn fit(&self, _entry: &Path, _quota: &Quota) -> Result<Applied, HomeError> {
        Ok(Applied::Reported(NOT_ENFORCED))
    }

    fn holds(&self, _entry: &Path, _quota: &Quota) -> Result<Holds, HomeError> {
        Ok(self.would_hold())
    }

    fn would_hold(&self) -> Holds {
        Holds { bytes: Hold::Measured(NOT_ENFORCED), inodes: Hold::Measured(NOT_ENFORCED) }
    }

    fn usage(&self, _entry: &Path) -> Result<Option<Usage>, HomeError> {
        Ok(None)
    }

    fn is_counted(&self, _entry: &Path) -> bool {
        false
    }

    fn view(&self, entry: &Path, _at: &Path) -> Result<View, HomeError> {
        live(entry, entry)
    }

    fn remove(&self, entry: &Path) -> Result<(), HomeError> {
        files::remove(entry)
    }
}

/// Opens the root of a tree, whatever it is in, and gives it to its user if that is not done: then it is new, and only she may look in.
pub(super) fn open_tree(tree: &Path) -> Result<OwnedFd, HomeError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = fs::openat(CWD, tree, flags, Mode::empty()).map_err(HomeError::of("open", tree))?;
    let stat = fs::fstat(&dir).map_err(HomeError::of("look at", tree))?;
    if stat.st_uid != USER || stat.st_gid != USER {
        fs::fchmod(&dir, Mode::from_raw_mode(0o700)).map_err(HomeError::of("set the mode of", tree))?;
        fs::fchown(&dir, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).map_err(HomeError::of("change the owner of", tree))?;
    }
    Ok(dir)
}

/// Whether an entry is a directory, and no link to one. What is not there is none.
pub(super) fn is_directory(entry: &Path) -> bool {
    std::fs::symlink_metadata(entry).is_ok_and(|meta| meta.is_dir())
}

/// A view that is the tree itself, after what was written to it has reached the disk. While it is open nobody can take it away.
pub(super) fn live(tree: &Path, entry: &Path) -> Result<View, HomeError> {
    let dir = open_tree(tree)?;
    fs::syncfs(&dir).map_err(HomeError::of("sync", entry))?;
    Ok(View { path: tree.to_owned(), consistent: false, made: false, open: Some(dir) })
}

/// What the file system says of a tree that it counts, and limits, as if it were a file system of its own.
pub(super) fn counted(tree: &Path) -> Result<Usage, HomeError> {
    let stat = fs::statvfs(tree).map_err(HomeError::of("look at", tree))?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree).saturating_mul(stat.f_frsize);
    // What is free and is the file system's own reserve is nobody's to use.
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    let limit = Quota { bytes: Some(used.saturating_add(available)), inodes: Some(stat.f_files) };
    Ok(Usage { bytes: used, inodes: Some(stat.f_files.saturating_sub(stat.f_ffree)), limit })
}
