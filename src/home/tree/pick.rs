//! Directories of a tree that something else than this room takes care of.

use std::ffi::CStr;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Stat};

use super::budget::{Budget, Limits};
use super::entry;
use super::walk::Walk;
use super::{MAX_DEPTH, TreeError, Watch};

/// Goes through a tree and hands every directory in it that `is_one` to `take`, by the directory that it is in and its name, instead of going into
/// it. What is mounted is passed over.
pub(in crate::home) fn pick(
    root: BorrowedFd<'_>,
    watch: Watch<'_>,
    is_one: impl Fn(&Stat) -> bool,
    mut take: impl FnMut(BorrowedFd<'_>, &CStr) -> io::Result<()>,
) -> Result<(), TreeError> {
    let mut walk = Walk::new(root)?;
    let mut budget = Budget::new(Limits::default(), watch);
    loop {
        let Some(found) = walk.next()? else {
            if walk.leave()?.is_none() {
                return Ok(());
            }
            continue;
        };
        budget.entry()?;
        if found.kind != FileType::Directory {
            continue;
        }
        if entry::look(walk.dir(), &found.name)?.is_some_and(|stat| is_one(&stat)) {
            take(walk.dir(), &found.name).map_err(TreeError::of("take a directory out"))?;
        } else if walk.depth() + 1 < MAX_DEPTH {
            // What is mounted there, or something else by now, is not gone into.
            walk.enter(&found.name)?;
        }
    }
}
