//! What is done to an entry file by file: [`super::tree`] by paths, which here only root can change.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::HomeError;
use super::tree::{self, Limits, Measure, Summary, TreeError, Watch};

/// Removes an entry with everything in it.
pub(super) fn remove(entry: &Path) -> Result<(), HomeError> {
    let (Some(root), Some(name)) = (entry.parent(), entry.file_name()) else {
        return Err(HomeError::of("remove", entry)(io::Error::from(io::ErrorKind::InvalidInput)));
    };
    let removed = tree::remove(open(root)?.as_fd(), name, &|_| ControlFlow::Continue(()));
    removed.map(drop).map_err(failed("remove", entry))
}

/// Copies what is in one tree, which was opened by this path, into another, which is empty.
pub(super) fn copy(from: BorrowedFd<'_>, path: &Path, to: &Path, watch: Watch<'_>) -> Result<Summary, HomeError> {
    tree::copy(from, open(to)?.as_fd(), Limits::default(), watch).map_err(failed("copy", path))
}

/// How much is in a tree.
pub(super) fn measure(of: &Path) -> Result<Measure, HomeError> {
    measure_open(open(of)?.as_fd(), of)
}

/// The same of one that was opened by this path.
pub(super) fn measure_open(tree: BorrowedFd<'_>, path: &Path) -> Result<Measure, HomeError> {
    tree::measure(tree, &|_| ControlFlow::Continue(())).map_err(failed("measure", path))
}

/// Opens a tree. What keeps it reachable cannot be let go of while it is open.
pub(super) fn open(dir: &Path) -> Result<OwnedFd, HomeError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, dir, flags, Mode::empty()).map_err(HomeError::of("open", dir))
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(TreeError) -> HomeError {
    move |why| {
        let why = match why {
            TreeError::Io { why, .. } => why,
            other => io::Error::other(other),
        };
        HomeError::of(what, path)(why)
    }
}
