//! What a way of keeping homes has to be able to do, and the types that it speaks in.
//!
//! A driver knows *entries*: paths right below the root, each with one tree in it. What entries are called, which of them are homes, and that
//! they come and go as a whole is the business of [`super::Homes`], the same for all drivers. All of this blocks.

use std::ffi::OsString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::HomeError;
use super::loopback::Loose;
use crate::name::{VolumeName, WorkspaceName};

/// Which tree of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HomeId {
    /// Whose.
    pub workspace: WorkspaceName,
    /// Which of its volumes; `None`: its home.
    pub volume: Option<VolumeName>,
}

/// How much may be in a tree. `None`: no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Quota {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Files and directories.
    pub inodes: Option<u64>,
}

/// How much is in a tree, and may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and directories; `None` where nobody counts them.
    pub inodes: Option<u64>,
    /// What holds now, or is only reported where nothing can enforce it.
    pub limit: Quota,
}

/// What came of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It holds.
    Now,
    /// The one before holds until the home is made reachable again while nobody uses it, or for longer; why.
    Later(String),
    /// It is reported, and nothing enforces it, or not all of it; why.
    Reported(&'static str),
}

/// How a limit holds, as things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// It is enforced.
    Now,
    /// It is enforced from the next start of the container on at the earliest; why not now.
    AtNextStart(String),
    /// What is there is compared with it, and nothing enforces it; why not.
    Measured(&'static str),
    /// It cannot be had of this home; why not.
    Impossible(String),
}

/// How the limits of a tree hold. Of one that was not asked for it means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holds {
    /// That of bytes.
    pub bytes: Hold,
    /// That of inodes.
    pub inodes: Hold,
}

/// A view of a tree, as a driver makes one.
#[derive(Debug)]
pub(super) struct View {
    /// Its root.
    pub(super) path: PathBuf,
    /// Whether all of it is as it was at one moment. Otherwise it is what a crash at that moment might have left, or goes on changing.
    pub(super) consistent: bool,
    /// Whether there is an entry now that has to be removed when it is not needed any more.
    pub(super) made: bool,
    /// Its root, kept open where nothing else keeps it reachable.
    pub(super) open: Option<OwnedFd>,
}

/// A way to keep homes.
pub(super) trait Driver: fmt::Debug + Send + Sync {
    /// Makes an empty tree at an entry that is not there. A kill leaves an entry that nobody takes for a home: only a finished one is given a
    /// home's name.
    fn make(&self, entry: &Path, quota: &Quota) -> Result<(), HomeError>;

    /// Makes the tree of an entry reachable, if it is not, with this quota as far as that can be; says where its root is. Never makes or formats
    /// anything that is not there, and refuses what is not an entry of its own or a plain directory.
    fn reach(&self, entry: &Path, quota: Option<&Quota>) -> Result<(PathBuf, Applied), HomeError>;

    /// Gives a tree another quota while it is in use.
    fn fit(&self, entry: &Path, quota: &Quota) -> Result<Applied, HomeError>;

    /// How this quota, which it was given or is to be given, holds of an entry. Changes nothing.
    fn holds(&self, entry: &Path, quota: &Quota) -> Result<Holds, HomeError>;

    /// How a quota would hold of an entry that is not made yet.
    fn would_hold(&self) -> Holds {
        Holds { bytes: Hold::when_made(), inodes: Hold::when_made() }
    }

    /// How much is in it; `None` where only [`Self::is_counted`] finds out.
    fn usage(&self, entry: &Path) -> Result<Option<Usage>, HomeError>;

    /// Whether somebody counts what is in an entry. Of others all files have to be looked at.
    fn is_counted(&self, entry: &Path) -> bool;

    /// A read-only view of an entry, at `at` if that takes an entry.
    fn view(&self, entry: &Path, at: &Path) -> Result<View, HomeError>;

    /// Makes a copy of a tree at an entry that is not there, if that takes no time. `false`: it has to be copied file by file.
    fn clone_tree(&self, _tree: &Path, _entry: &Path, _quota: &Quota) -> Result<bool, HomeError> {
        Ok(false)
    }

    /// Whether what keeps a tree reachable is worth letting go of while nobody uses it.
    fn must_rest(&self) -> bool {
        false
    }

    /// Names of the entries whose trees are reachable, where that is worth letting go of.
    fn reached(&self) -> Result<Vec<OsString>, HomeError> {
        Ok(Vec::new())
    }

    /// Whether [`Self::make`] takes so long that it is worth doing ahead.
    fn is_slow_to_make(&self) -> bool {
        false
    }

    /// Takes back what [`Self::reach`] did. Fails while somebody uses the tree where that would tear it.
    fn leave(&self, _entry: &Path) -> Result<(), HomeError> {
        Ok(())
    }

    /// Removes an entry for good. A kill leaves it, or a part of it, under the same name.
    fn remove(&self, entry: &Path) -> Result<(), HomeError>;

    /// Puts back what a process that was killed left beside entries. Returns how many things that were.
    fn recover(&self) -> Result<usize, HomeError> {
        Ok(0)
    }

    /// Devices on entries by which nobody reaches them.
    fn loose(&self) -> Result<Vec<Loose>, HomeError> {
        Ok(Vec::new())
    }

    /// Lets go of such a device, if it is one still. Says whether it is gone.
    fn detach(&self, _found: &Loose) -> Result<bool, HomeError> {
        Ok(false)
    }

    /// Takes back what [`Self::reach`] did for any entry.
    fn close(&self) -> Result<(), HomeError> {
        Ok(())
    }
}

// === impl Hold ===

impl Hold {
    /// As that of a home which is not there yet.
    pub(super) fn when_made() -> Self {
        Self::AtNextStart("there is none yet; it is made with that".to_owned())
    }

    /// It was tried, or not yet, and holds or does not.
    pub(super) fn if_applied(applied: bool) -> Self {
        if applied { Self::Now } else { Self::AtNextStart("it has another limit still".to_owned()) }
    }
}

// === impl HomeId ===

impl HomeId {
    /// A workspace's home.
    pub fn home(workspace: WorkspaceName) -> Self {
        Self { workspace, volume: None }
    }

    /// Parses what an entry is called: `alice`, `alice.data`.
    pub fn parse(text: &str) -> Option<Self> {
        let (workspace, volume) = match text.split_once('.') {
            Some((workspace, volume)) => (workspace, Some(volume.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { workspace: workspace.parse().ok()?, volume })
    }
}

impl fmt::Display for HomeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.volume {
            Some(volume) => write!(f, "{}.{volume}", self.workspace),
            None => self.workspace.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_a_home_parses_and_nothing_else_does() {
        for name in ["alice", "alice.data", "a--b.x-1"] {
            assert_eq!(HomeId::parse(name).unwrap().to_string(), name);
        }
        for other in ["", ".", "..", ".mounts", "+0123", "=0123", "alice.", "alice.a.b", "alice@deleted@1", "Alice", "alice.Data", "a/b"] {
            assert_eq!(HomeId::parse(other), None, "{other}");
        }
    }
}
