//! What a new home starts with.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{self, CWD, Mode, OFlags};

use super::tree::{Limits, Summary, TreeError, Watch, archive, copy_as};
use super::{HomeError, USER};

/// A skeleton that cannot be used for a home.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SkeletonError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] HomeError),
    /// It cannot be copied or unpacked.
    #[error("the skeleton {path} cannot be used: {why}", path = path.display())]
    Fill {
        /// Where it is.
        path: Box<Path>,
        /// What went wrong.
        why: TreeError,
    },
}

/// Fills a fresh directory that is to become a home, and that nobody else can reach yet, with what a skeleton has in it.
///
/// The skeleton is a directory, or a tar archive: plain, or compressed with gzip or zstd. Everything in the home belongs to its user; the home
/// itself keeps the mode that it has. When this fails, or is killed, the directory holds a part: it must not become a home.
pub fn fill(skeleton: &Path, into: BorrowedFd<'_>, limits: Limits, watch: Watch<'_>) -> Result<Summary, SkeletonError> {
    // O_NONBLOCK, for a FIFO in its place.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let source = fs::openat(CWD, skeleton, flags, Mode::empty()).map_err(HomeError::of("open", skeleton))?;
    let source = File::from(source);
    let kind = source.metadata().map_err(HomeError::of("look at", skeleton))?.file_type();
    let filled = root(into).and_then(|root| {
        let summary = if kind.is_dir() {
            copy_as(source.as_fd(), into, Some(USER), limits, watch)?
        } else if kind.is_file() {
            archive::read_foreign(source, into, USER, limits, watch)?
        } else {
            return Err(TreeError::of("read it")(std::io::Error::from(ErrorKind::InvalidInput)));
        };
        root.put_back(into)?;
        Ok(summary)
    });
    filled.map_err(|why| SkeletonError::Fill { path: skeleton.into(), why })
}

/// Says why a skeleton cannot be used, as far as can be seen without unpacking it somewhere: whether it is there, of a kind that is read, and, if
/// it is an archive, whether the beginning of it is one.
pub fn look(skeleton: &Path) -> Result<(), String> {
    let kind = std::fs::metadata(skeleton).map_err(|why| why.to_string())?.file_type();
    if kind.is_dir() {
        return std::fs::read_dir(skeleton).map(drop).map_err(|why| why.to_string());
    }
    if !kind.is_file() {
        return Err("it is neither a directory nor an archive".to_owned());
    }
    let file = File::open(skeleton).map_err(|why| why.to_string())?;
    archive::look(file).map_err(|why| why.to_string())
}

/// What is kept of a home's directory, whatever the skeleton's own is like.
struct Root {
    mode: Mode,
}

fn root(into: BorrowedFd<'_>) -> Result<Root, TreeError> {
    let stat = fs::fstat(into).map_err(TreeError::of("look at the home"))?;
    Ok(Root { mode: Mode::from_raw_mode(stat.st_mode & 0o3777) })
}

impl Root {
    fn put_back(self, into: BorrowedFd<'_>) -> Result<(), TreeError> {
        let owner = (Some(fs::Uid::from_raw(USER)), Some(fs::Gid::from_raw(USER)));
        fs::fchown(into, owner.0, owner.1).map_err(TreeError::of("change the home's owner"))?;
        fs::fchmod(into, self.mode).map_err(TreeError::of("change the home's mode"))?;
        fs::fsync(into).map_err(TreeError::of("write to disk"))
    }
}
