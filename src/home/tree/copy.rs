//! A copy of a tree.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::budget::Budget;
use super::chain::Chain;
use super::content::Copier;
use super::entry::{self, FileId, Opened, open_file};
use super::walk::{Entered, Walk};
use super::{Limits, Summary, TreeError, Watch, attributes};

/// Copies what is in a directory, and the directory's own owner, mode, times and attributes, into an empty one that nobody else can reach.
///
/// Kept are contents with their holes (shared with the original where the file system can), links of both kinds, FIFOs, numeric owners, modes
/// without setuid and setgid on files, times to the nanosecond, `user.*` attributes and ACLs. When it returns, all of it is on the disk. When
/// it fails, or is killed, the target holds something that is not a copy: give it its final name only after this returned.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, limits: Limits, watch: Watch<'_>) -> Result<Summary, TreeError> {
    copy_as(from, to, None, limits, watch)
}

/// The same, for somebody to whom all of it is to belong, also to the group of that number.
pub(in crate::home) fn copy_as(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    owner: Option<u32>,
    limits: Limits,
    watch: Watch<'_>,
) -> Result<Summary, TreeError> {
    let mut copy = Copy {
        owner,
        walk: Walk::new(from)?,
        target: Chain::new(to, ())?,
        copier: Copier::new(),
        links: None,
        budget: Budget::new(limits, watch),
        summary: Summary::default(),
    };
    copy.run()?;
    fs::syncfs(to).map_err(TreeError::of("write to disk"))?;
    let bytes = copy.budget.taken();
    Ok(Summary { bytes, ..copy.summary })
}

struct Copy<'a> {
    owner: Option<u32>,
    walk: Walk,
    target: Chain<()>,
    copier: Copier,
    links: Option<Links>,
    budget: Budget<'a>,
    summary: Summary,
}

/// Where files with several names are found again: a directory in the target, for as long as the copy takes, that has a name for each. There may
/// be millions of them, so not in memory.
struct Links {
    name: String,
    dir: OwnedFd,
}

impl Copy<'_> {
    fn run(&mut self) -> Result<(), TreeError> {
        loop {
            if let Some(found) = self.walk.next()? {
                self.budget.entry()?;
                self.entry(&found.name, found.kind)?;
                continue;
            }
            if self.walk.depth() == 0 {
                self.remove_links()?;
            }
            // Only now: what a directory inherits to new files would reach ours, and each of them changes its time.
            let stat = self.adopt(fs::fstat(self.walk.dir()).map_err(TreeError::of("look at a directory"))?);
            self.summary.skipped.attributes += attributes::carry(self.walk.dir(), &stat, self.target.dir())?;
            let Some(left) = self.walk.leave()? else { return Ok(()) };
            self.summary.skipped.changed += left.lost as u64;
            for _ in 0..=left.lost {
                self.target.pop()?;
            }
        }
    }

    fn entry(&mut self, name: &CStr, kind: FileType) -> Result<(), TreeError> {
        match kind {
            FileType::RegularFile => self.file(name),
            FileType::Directory => self.directory(name),
            FileType::Symlink => self.symlink(name),
            FileType::Fifo => self.fifo(name),
            FileType::Socket => {
                self.summary.skipped.sockets += 1;
                Ok(())
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                self.summary.skipped.devices += 1;
                Ok(())
            }
            _ => self.changed(),
        }
    }

    fn adopt(&self, mut stat: Stat) -> Stat {
        if let Some(owner) = self.owner {
            (stat.st_uid, stat.st_gid) = (owner, owner);
        }
        stat
    }

    fn changed(&mut self) -> Result<(), TreeError> {
        self.summary.skipped.changed += 1;
        Ok(())
    }

    fn mount(&mut self) -> Result<(), TreeError> {
        self.summary.skipped.mounts += 1;
        Ok(())
    }

    fn directory(&mut self, name: &CStr) -> Result<(), TreeError> {
        let stat = match self.walk.enter(name)? {
            Entered::Here(stat) => self.adopt(stat),
            Entered::Mount => return self.mount(),
            Entered::Changed => return self.changed(),
        };
        match fs::mkdirat(self.target.dir(), name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // Renamed and listed twice; what was there under this name is copied already.
                let left = self.walk.leave()?;
                let lost = left.map_or(0, |left| left.lost);
                for _ in 0..lost {
                    self.target.pop()?;
                }
                self.summary.skipped.changed += lost as u64;
                return self.changed();
            }
            Err(why) => return Err(TreeError::of("make a directory")(why)),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(self.target.dir(), name, flags, Mode::empty()).map_err(TreeError::of("open a directory"))?;
        let made_stat = fs::fstat(&made).map_err(TreeError::of("look at a directory"))?;
        // Again at the end, with all the rest; these in case we shall not find back to the original.
        attributes::own(made.as_fd(), stat.st_uid, stat.st_gid, attributes::mode(&stat))?;
        self.target.push(name, made, &made_stat, ())?;
        self.summary.directories += 1;
        Ok(())
    }

    fn file(&mut self, name: &CStr) -> Result<(), TreeError> {
        let (from, stat) = match open_file(self.walk.dir(), name)? {
            Opened::Here(from, stat) => (from, self.adopt(stat)),
            Opened::Mount => return self.mount(),
            Opened::Changed => return self.changed(),
        };
        let linked = stat.st_nlink > 1;
        if linked && self.link(name, &stat)? {
            self.summary.hard_links += 1;
            return Ok(());
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let to = match fs::openat(self.target.dir(), name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(to) => to,
            Err(Errno::EXIST) => return self.changed(),
            Err(why) => return Err(TreeError::of("make a file")(why)),
        };
        self.copier.copy(&from, &stat, &to, &mut self.budget)?;
        self.summary.skipped.attributes += attributes::carry(from.as_fd(), &stat, to.as_fd())?;
        self.summary.files += 1;
        if linked { self.remember(name, &stat) } else { Ok(()) }
    }

    fn symlink(&mut self, name: &CStr) -> Result<(), TreeError> {
        let target = match fs::readlinkat(self.walk.dir(), name, Vec::new()) {
            Ok(target) => target,
            Err(Errno::INVAL) => return self.changed(),
            Err(why) if entry::is_change(why) => return self.changed(),
            Err(why) => return Err(TreeError::of("read a link")(why)),
        };
        let Some(stat) = self.look_again(name, FileType::Symlink)? else { return self.changed() };
        match fs::symlinkat(&target, self.target.dir(), name) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.changed(),
            Err(why) => return Err(TreeError::of("make a link")(why)),
        }
        self.summary.symlinks += 1;
        attributes::of_closed(&stat).give_at(self.target.dir(), name, true)
    }

    fn fifo(&mut self, name: &CStr) -> Result<(), TreeError> {
        let Some(stat) = self.look_again(name, FileType::Fifo)? else { return self.changed() };
        match fs::mknodat(self.target.dir(), name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Ok(()) => {}
            Err(Errno::EXIST) => return self.changed(),
            Err(why) => return Err(TreeError::of("make a FIFO")(why)),
        }
        self.summary.fifos += 1;
        attributes::of_closed(&stat).give_at(self.target.dir(), name, false)
    }

    /// What is known of an entry that cannot be opened, if it is still what it was.
    fn look_again(&self, name: &CStr, kind: FileType) -> Result<Option<Stat>, TreeError> {
        Ok(entry::look(self.walk.dir(), name)?.filter(|stat| entry::kind(stat) == kind).map(|stat| self.adopt(stat)))
    }

    /// Makes a further name for a file that is copied already, if it is.
    fn link(&mut self, name: &CStr, stat: &Stat) -> Result<bool, TreeError> {
        let Some(links) = &self.links else { return Ok(false) };
        match fs::linkat(&links.dir, FileId::of(stat).name(), self.target.dir(), name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // Not copied yet, or as many names as the file system can give: another copy then. A name listed twice shows when that is made.
            Err(Errno::NOENT | Errno::MLINK | Errno::EXIST) => Ok(false),
            Err(why) => Err(TreeError::of("make a hard link")(why)),
        }
    }

    fn remember(&mut self, name: &CStr, stat: &Stat) -> Result<(), TreeError> {
        let links = match &mut self.links {
            Some(links) => links,
            none => none.insert(Links::create(self.target.root())?),
        };
        match fs::linkat(self.target.dir(), name, &links.dir, FileId::of(stat).name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST | Errno::MLINK) => Ok(()),
            Err(why) => Err(TreeError::of("make a hard link")(why)),
        }
    }

    fn remove_links(&mut self) -> Result<(), TreeError> {
        let Some(links) = self.links.take() else { return Ok(()) };
        drop(links.dir);
        super::remove(self.target.root(), links.name.as_ref(), &|_| std::ops::ControlFlow::Continue(()))?;
        Ok(())
    }
}

impl Links {
    fn create(root: BorrowedFd<'_>) -> Result<Self, TreeError> {
        // Not to be guessed, so that no file of the tree is called the same.
        let name = format!(".links-{:032x}", rand::random::<u128>());
        fs::mkdirat(root, &name, Mode::RWXU).map_err(TreeError::of("make a directory"))?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(root, &name, flags, Mode::empty()).map_err(TreeError::of("open a directory"))?;
        Ok(Self { name, dir })
    }
}
