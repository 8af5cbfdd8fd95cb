//! How large a tree is.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, FileType, Stat};

use super::budget::{Budget, Limits};
use super::content::allocated;
use super::entry::{self, FileId};
use super::walk::{Entered, Walk};
use super::{TreeError, Watch};

/// How many files with several names are told apart: 32 MiB or so.
const REMEMBERED: usize = 1 << 20;

/// What a tree takes of its file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measure {
    /// Bytes on the disk, a file with several names once. Of such files beyond the first million, each name counts for its part.
    pub bytes: u64,
    /// Files, directories and all the rest, the root among them.
    pub inodes: u64,
}

/// Measures a directory and everything in it. What changes meanwhile is counted as it was, or is, or not at all.
pub fn measure(dir: BorrowedFd<'_>, watch: Watch<'_>) -> Result<Measure, TreeError> {
    let mut walk = Walk::new(dir)?;
    let mut budget = Budget::new(Limits::default(), watch);
    let mut count = Count::default();
    count.add(&fs::fstat(walk.dir()).map_err(TreeError::of("look at a directory"))?);
    loop {
        let Some(found) = walk.next()? else {
            if walk.leave()?.is_none() {
                return Ok(count.sum);
            }
            continue;
        };
        budget.entry()?;
        if found.kind == FileType::Directory {
            if let Entered::Here(stat) = walk.enter(&found.name)? {
                count.add(&stat);
            }
        } else if let Some(stat) = entry::look(walk.dir(), &found.name)? {
            count.add(&stat);
        }
    }
}

#[derive(Default)]
struct Count {
    sum: Measure,
    seen: HashSet<FileId>,
}

impl Count {
    fn add(&mut self, stat: &Stat) {
        let mut bytes = allocated(stat);
        if stat.st_nlink > 1 && entry::kind(stat) != FileType::Directory {
            if self.seen.len() < REMEMBERED {
                if !self.seen.insert(FileId::of(stat)) {
                    return;
                }
            } else if self.seen.contains(&FileId::of(stat)) {
                return;
            } else {
                bytes /= stat.st_nlink;
            }
        }
        self.sum.bytes = self.sum.bytes.saturating_add(bytes);
        self.sum.inodes += 1;
    }
}
