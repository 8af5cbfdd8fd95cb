//! Snapshots that are kept under a name, until somebody removes them: what new homes start with, and nobody changes.
//!
//! A snapshot of a workspace is an entry for its home and one for each of its volumes. It is there when that of the home is, which gets its name
//! last and loses it first: what a kill leaves of one that is half made or half removed is taken for none, and removed at the next start.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tracing::info;

use super::super::driver::{HomeId, Quota};
use super::super::shelf::{self, Entry, KeptId};
use super::super::skeleton::SkeletonError;
use super::super::{HomeError, files};
use super::{Homes, Staged};
use crate::name::{SnapshotName, WorkspaceName};
use crate::units::Size;

/// Most snapshots whose size is remembered: it can be found out again.
const MOST_SIZES: usize = 1024;

impl Homes {
    /// All entries of snapshots that are whole.
    pub fn kept(&self) -> Result<Vec<KeptId>, HomeError> {
        let mut all = self.all_kept()?;
        let whole: Vec<KeptId> = all.iter().filter(|kept| kept.home.volume.is_none()).cloned().collect();
        all.retain(|kept| whole.contains(&kept.whole()));
        all.sort();
        Ok(all)
    }

    /// Makes a staged tree a part of a snapshot. The home is the last.
    pub fn commit_kept(&self, staged: Staged, kept: &KeptId) -> Result<(), HomeError> {
        let _turn = self.turn(kept);
        self.install(staged, &self.kept_path(kept))
    }

    /// A copy of what a snapshot has, under a name that is no home's; nothing, if it is more than may be in it.
    pub(super) fn stage_kept(&self, kept: &KeptId, quota: &Quota) -> Result<Staged, SkeletonError> {
        let (path, tree) = {
            let _turn = self.turn(kept);
            let entry = self.kept_path(kept);
            if !shelf::exists(&self.kept_path(&kept.whole()))? || !shelf::exists(&entry)? {
                return Err(SkeletonError::NoSnapshot { kept: kept.clone() });
            }
            self.opened(&entry)?
        };
        let known = self.0.sizes.lock().get(kept).copied();
        let size = match known {
            Some(size) => size,
            None => {
                let size = files::measure_open(tree.as_fd(), &path)?;
                let mut sizes = self.0.sizes.lock();
                if sizes.len() >= MOST_SIZES {
                    sizes.clear();
                }
                sizes.insert(kept.clone(), size);
                size
            }
        };
        let (bytes, inodes) = (quota.bytes.unwrap_or(u64::MAX), quota.inodes.unwrap_or(u64::MAX));
        if size.bytes > bytes {
            let (has, may) = (Size::bytes(size.bytes), Size::bytes(bytes));
            return Err(SkeletonError::TooLarge { kept: kept.clone(), has: has.to_string(), may: may.to_string() });
        }
        if size.inodes > inodes {
            let (has, may) = (format!("{} files", size.inodes), format!("{inodes}"));
            return Err(SkeletonError::TooLarge { kept: kept.clone(), has, may });
        }
        Ok(self.stage_tree(&path, tree, quota, &|_| ControlFlow::Continue(()))?)
    }

    /// Removes a part of a snapshot for good. The home is the first.
    pub fn discard_kept(&self, kept: &KeptId) -> Result<(), HomeError> {
        let held = self.hold(shelf::fresh_stage());
        {
            let _turn = self.turn(kept);
            let entry = self.kept_path(kept);
            self.0.driver.leave(&entry)?;
            // Under another name first: one of which half is gone must not be copied.
            shelf::rename(&self.0.root, &entry, &held.path())?;
        }
        self.0.sizes.lock().remove(kept);
        self.0.driver.remove(&held.path())
    }

    /// Removes parts of snapshots that are not whole. Only while nobody takes one: at a start.
    pub(super) fn discard_parts(&self) -> Result<usize, HomeError> {
        let whole = self.kept()?;
        let parts: Vec<KeptId> = self.all_kept()?.into_iter().filter(|kept| !whole.contains(kept)).collect();
        for kept in &parts {
            info!(entry = %kept, "a snapshot is not whole, removing what there is of it");
            self.discard_kept(kept)?;
        }
        Ok(parts.len())
    }

    /// All entries of this snapshot that there are, whether it is whole or not: the home first.
    pub fn parts_of(&self, workspace: &WorkspaceName, snapshot: &SnapshotName) -> Result<Vec<KeptId>, HomeError> {
        let mut all = self.all_kept()?;
        all.retain(|kept| kept.home.workspace == *workspace && kept.snapshot == *snapshot);
        all.sort();
        Ok(all)
    }

    fn all_kept(&self) -> Result<Vec<KeptId>, HomeError> {
        let all = shelf::list(&self.0.root)?.into_iter();
        Ok(all.filter_map(|(_, entry)| if let Entry::Kept(kept) = entry { Some(kept) } else { None }).collect())
    }

    fn kept_path(&self, kept: &KeptId) -> PathBuf {
        self.0.root.join(kept.to_string())
    }
}

impl KeptId {
    /// Whether there is one among the homes of this root.
    pub fn look(&self, root: &Path) -> io::Result<bool> {
        let there = |kept: &Self| match std::fs::symlink_metadata(root.join(kept.to_string())) {
            Ok(_) => Ok(true),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(why) => Err(why),
        };
        Ok(there(&self.whole())? && there(self)?)
    }

    /// That of the home in the same snapshot, with which it is whole.
    fn whole(&self) -> Self {
        Self { home: HomeId::home(self.home.workspace.clone()), snapshot: self.snapshot.clone() }
    }
}
