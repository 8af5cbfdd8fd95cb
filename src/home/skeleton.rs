//! What a new home starts with.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, CWD, Mode, OFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shelf::KeptId;
use super::tree::{Limits, Summary, TreeError, Watch, archive, copy_as};
use super::{HomeError, USER};
use crate::name::{SnapshotName, WorkspaceName};

/// What a new home or volume starts with, as a template says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Skeleton {
    /// What is in a directory of the host, or in an archive.
    Path(PathBuf),
    /// What a workspace had in its home, or in its volume of the same name, when a snapshot of it was taken that is kept.
    Snapshot {
        /// Whose.
        workspace: WorkspaceName,
        /// Which.
        snapshot: SnapshotName,
    },
}

/// How the name of a snapshot begins.
const SNAPSHOT: &str = "workspace:";

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
    /// There is no such snapshot, or none of this volume.
    #[error("there is no snapshot {kept}; `innkeeper workspace snapshot {of} take {name}` takes one", of = kept.home.workspace, name = kept.snapshot)]
    NoSnapshot {
        /// Which.
        kept: KeptId,
    },
    /// It does not fit.
    #[error("the snapshot {kept} has {has} in it, and only {may} may be")]
    TooLarge {
        /// Which.
        kept: KeptId,
        /// How much is in it.
        has: String,
        /// How much may be.
        may: String,
    },
}

// === impl Skeleton ===

impl TryFrom<String> for Skeleton {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix(SNAPSHOT) else { return Ok(Self::Path(text.into())) };
        let (workspace, snapshot) = rest.split_once('@').ok_or_else(|| {
            let said = format!("{text:?} names no snapshot: write workspace:NAME@SNAPSHOT");
            format!("{said}; `innkeeper workspace snapshot NAME take SNAPSHOT` takes one")
        })?;
        let workspace = workspace.parse().map_err(|why| format!("{why}"))?;
        Ok(Self::Snapshot { workspace, snapshot: snapshot.parse().map_err(|why| format!("{why}"))? })
    }
}

impl From<Skeleton> for String {
    fn from(skeleton: Skeleton) -> Self {
        skeleton.to_string()
    }
}

impl fmt::Display for Skeleton {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Snapshot { workspace, snapshot } => write!(f, "{SNAPSHOT}{workspace}@{snapshot}"),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skeleton_is_a_path_or_a_snapshot() {
        let parsed = |text: &str| Skeleton::try_from(text.to_owned());
        assert_eq!(parsed("/etc/skel").unwrap(), Skeleton::Path("/etc/skel".into()));
        let snapshot = Skeleton::Snapshot { workspace: "alice".parse().unwrap(), snapshot: "v1".parse().unwrap() };
        assert_eq!(parsed("workspace:alice@v1").unwrap(), snapshot);
        assert_eq!(String::from(snapshot), "workspace:alice@v1");
        for wrong in ["workspace:", "workspace:alice", "workspace:alice@", "workspace:@v1", "workspace:../etc@v1", "workspace:a@v@1"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
