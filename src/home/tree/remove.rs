//! The end of a tree. The only place of this program that removes one.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, FileType, IFlags};
use rustix::io::Errno;

use super::budget::{Budget, Limits};
use super::entry::{self, Opened, open_directory, open_file};
use super::walk::{Entered, Walk};
use super::{MAX_DEPTH, TreeError, Watch};

/// How often a directory that is not empty yet is gone through again, over all: somebody may be filling it as fast as it is emptied.
const RETRIES: u32 = 1_000;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files, directories and all the rest, the tree's root among them.
    pub entries: u64,
}

/// Removes an entry of a directory with everything in it; nothing, if there is no such entry.
///
/// What is mounted in the tree stays, with the directories above it, and is an error at the end. Stopped or killed anywhere, what is left can be
/// removed by calling again.
pub fn remove(parent: BorrowedFd<'_>, name: &OsStr, watch: Watch<'_>) -> Result<Removed, TreeError> {
    remove_to(parent, name, MAX_DEPTH, watch)
}

/// `depth`: how many levels to go down before what is deeper is brought up.
pub(super) fn remove_to(parent: BorrowedFd<'_>, name: &OsStr, depth: usize, watch: Watch<'_>) -> Result<Removed, TreeError> {
    let name = CString::new(name.as_bytes()).map_err(TreeError::of("remove such a name"))?;
    if name.to_bytes().contains(&b'/') || matches!(name.to_bytes(), b"" | b"." | b"..") {
        return Err(TreeError::of("remove such a name")(Errno::INVAL));
    }
    let mut removal = Removal {
        budget: Budget::new(Limits::default(), watch),
        removed: Removed::default(),
        stuck: None,
        retries: 0,
        progress: 0,
        swapped: false,
    };
    let gone = loop {
        let Some(stat) = entry::look(parent, &name)? else { break true };
        let flags = if entry::kind(&stat) == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if flags == AtFlags::REMOVEDIR {
            match open_directory(parent, &name)? {
                Opened::Here(dir, _) => removal.empty(Walk::new(dir.as_fd())?, depth)?,
                Opened::Mount => removal.stuck = Some(Errno::BUSY),
                Opened::Changed => removal.swapped = true,
            }
        }
        if removal.unlink(parent, &name, flags)? {
            break true;
        }
        if !removal.may_retry() {
            break false;
        }
    };
    if gone { Ok(removal.removed) } else { Err(TreeError::Remains(removal.stuck.unwrap_or(Errno::NOTEMPTY).into())) }
}

struct Removal<'a> {
    budget: Budget<'a>,
    removed: Removed,
    /// Why something would not go, for telling it. Whether anything is left, the tree's root knows: it is not empty then.
    stuck: Option<Errno>,
    retries: u32,
    /// How much was removed when a directory was last gone through again.
    progress: u64,
    /// Whether something was swapped for something else since then.
    swapped: bool,
}

impl Removal<'_> {
    /// Removes what is in a directory.
    fn empty(&mut self, mut walk: Walk, depth: usize) -> Result<(), TreeError> {
        let mut raised = false;
        loop {
            if let Some(found) = walk.next()? {
                self.budget.entry()?;
                if found.kind != FileType::Directory {
                    self.unlink(walk.dir(), &found.name, AtFlags::empty())?;
                } else if walk.depth() + 1 >= depth {
                    // A tree may be deeper than we can go. Its lower part is moved up, and met there again.
                    raised |= self.raise(&walk, &found.name)?;
                } else {
                    match walk.enter(&found.name)? {
                        Entered::Here(_) => {}
                        Entered::Mount => self.stuck = Some(Errno::BUSY),
                        Entered::Changed => self.swapped = true,
                    }
                }
                continue;
            }
            if walk.depth() == 0 {
                if !std::mem::take(&mut raised) {
                    return Ok(());
                }
                walk.rewind();
                continue;
            }
            let Some(left) = walk.leave()? else { return Ok(()) };
            // Moved about while we were in it, filled while it was emptied, or with something in it that cannot go.
            let gone = left.lost == 0 && self.unlink(walk.dir(), &left.name, AtFlags::REMOVEDIR)?;
            if !gone && self.may_retry() {
                walk.rewind();
            }
        }
    }

    /// Whether another time may take more away, within reason.
    fn may_retry(&mut self) -> bool {
        let more = (self.removed.entries > self.progress || std::mem::take(&mut self.swapped)) && self.retries < RETRIES;
        if more {
            self.progress = self.removed.entries;
            self.retries += 1;
        }
        more
    }

    /// Moves a directory to the root of the tree.
    fn raise(&mut self, walk: &Walk, name: &CStr) -> Result<bool, TreeError> {
        let up = format!(".deep-{:032x}", rand::random::<u128>());
        let mut moved = fs::renameat(walk.dir(), name, walk.root(), &up);
        if moved == Err(Errno::PERM) {
            mend(walk.dir(), name);
            mend(walk.root(), name);
            moved = fs::renameat(walk.dir(), name, walk.root(), &up);
        }
        match moved {
            Ok(()) => Ok(true),
            Err(why @ (Errno::BUSY | Errno::XDEV | Errno::PERM)) => {
                self.stuck = Some(why);
                Ok(false)
            }
            Err(why) if entry::is_change(why) => Ok(false),
            Err(why) => Err(TreeError::of("move a directory")(why)),
        }
    }

    /// Removes one entry, and says whether it is gone.
    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<bool, TreeError> {
        let mut done = fs::unlinkat(dir, name, flags);
        if done == Err(Errno::PERM) {
            mend(dir, name);
            done = fs::unlinkat(dir, name, flags);
        }
        match done {
            Ok(()) => {
                self.removed.entries += 1;
                Ok(true)
            }
            Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(Errno::ISDIR | Errno::NOTDIR) => {
                self.swapped = true;
                Ok(false)
            }
            Err(why @ (Errno::BUSY | Errno::PERM)) => {
                self.stuck = Some(why);
                Ok(false)
            }
            Err(why) => Err(TreeError::of("remove a file")(why)),
        }
    }
}

/// Takes away the flags that keep an entry from being removed: immutable and append-only, of itself and of the directory. Whether it worked shows
/// when it is removed.
fn mend(dir: BorrowedFd<'_>, name: &CStr) {
    let unlock = |fd: BorrowedFd<'_>| {
        if let Ok(flags) = fs::ioctl_getflags(fd) {
            let kept = flags - (IFlags::IMMUTABLE | IFlags::APPEND);
            if kept != flags {
                // Not ours to judge: the removal says what is wrong.
                fs::ioctl_setflags(fd, kept).ok();
            }
        }
    };
    unlock(dir);
    let Ok(Some(stat)) = entry::look(dir, name) else { return };
    let opened = match entry::kind(&stat) {
        FileType::Directory => open_directory(dir, name),
        FileType::RegularFile => open_file(dir, name),
        _ => return,
    };
    if let Ok(Opened::Here(fd, _)) = opened {
        unlock(fd.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    #[test]
    fn what_is_too_deep_is_brought_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut path = dir.path().join("tree");
        for level in 0..40 {
            path.push(format!("{}", level % 3));
        }
        std::fs::create_dir_all(path.join("and/more")).unwrap();
        std::fs::write(path.join("file"), "x").unwrap();
        let parent = std::fs::File::open(dir.path()).unwrap();
        let removed = remove_to(parent.as_fd(), "tree".as_ref(), 3, &|_| ControlFlow::Continue(())).unwrap();
        assert_eq!(removed.entries, 44);
        assert!(!dir.path().join("tree").exists());
    }
}
