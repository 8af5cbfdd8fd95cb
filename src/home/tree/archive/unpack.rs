//! Where an archive's entries go: into one fresh directory and nowhere else.
//!
//! A path is gone down name by name, through directories only, so that a link that an earlier entry made is not followed. A directory's own
//! attributes are set when it is left, because what is made in it would change its time and inherit its ACL; entered again, they are taken off
//! until then.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::attributes::{self, Attributes};
use super::super::chain::Chain;
use super::super::entry::{self, Opened, open_directory};
use super::super::{Summary, TreeError};

/// The names that a path leads through.
type Path<'a> = &'a [&'a [u8]];

/// A tree that is being made.
pub(super) struct Unpacking<'a> {
    into: BorrowedFd<'a>,
    /// Where the last entry was. With each directory what it is to get when it is left.
    chain: Chain<Option<Attributes>>,
    /// Whose all of it becomes, whatever the archive says.
    owner: Option<u32>,
    summary: Summary,
}

impl<'a> Unpacking<'a> {
    pub(super) fn new(into: BorrowedFd<'a>, owner: Option<u32>) -> Result<Self, TreeError> {
        Ok(Self { into, chain: Chain::new(into, None)?, owner, summary: Summary::default() })
    }

    /// Makes a directory, or gives one that is there other attributes.
    pub(super) fn directory(&mut self, path: Path<'_>, mut attributes: Attributes) -> Result<(), TreeError> {
        attributes.mode &= 0o3777;
        self.adopt(&mut attributes);
        if let Some((name, parents)) = path.split_last() {
            self.go(parents)?;
            self.enter(name, true)?;
        } else {
            self.go(path)?;
        }
        *self.chain.data() = Some(attributes);
        Ok(())
    }

    /// Makes an empty file to be written; nothing if there is a directory in its place.
    pub(super) fn file(&mut self, path: Path<'_>) -> Result<Option<OwnedFd>, TreeError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = self.make(path, "make a file", |dir, name| fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR))?;
        self.summary.files += u64::from(made.is_some());
        Ok(made.map(|(file, _)| file))
    }

    /// Gives a file that was written its attributes.
    pub(super) fn finish_file(&mut self, file: &OwnedFd, told: &Attributes) -> Result<(), TreeError> {
        let mut told = told.clone();
        told.mode &= 0o1777;
        self.adopt(&mut told);
        self.summary.skipped.attributes += told.give(file.as_fd())?;
        Ok(())
    }

    pub(super) fn symlink(&mut self, path: Path<'_>, target: Vec<u8>, told: &Attributes) -> Result<(), TreeError> {
        let target = CString::new(target).map_err(|_| TreeError::Archive("a link makes no sense"))?;
        let made = self.make(path, "make a link", |dir, name| fs::symlinkat(&target, dir, name))?;
        if let Some(((), name)) = made {
            self.summary.symlinks += 1;
            self.give_at(&name, told, true)?;
        }
        Ok(())
    }

    pub(super) fn fifo(&mut self, path: Path<'_>, told: &Attributes) -> Result<(), TreeError> {
        let mode = Mode::RUSR | Mode::WUSR;
        let made = self.make(path, "make a FIFO", |dir, name| fs::mknodat(dir, name, FileType::Fifo, mode, 0))?;
        if let Some(((), name)) = made {
            self.summary.fifos += 1;
            self.give_at(&name, told, false)?;
        }
        Ok(())
    }

    /// Makes a further name for a regular file of this tree.
    pub(super) fn link(&mut self, path: Path<'_>, first: Path<'_>) -> Result<(), TreeError> {
        const NOWHERE: TreeError = TreeError::Archive("a hard link leads to no file of the archive");
        if path == first {
            return Err(NOWHERE);
        }
        let (name, parents) = first.split_last().ok_or(NOWHERE)?;
        let name = c_name(name)?;
        let mut dir: Option<OwnedFd> = None;
        for part in parents {
            let above = dir.as_ref().map_or(self.chain.root(), AsFd::as_fd);
            let Opened::Here(next, _) = open_directory(above, &c_name(part)?)? else { return Err(NOWHERE) };
            dir = Some(next);
        }
        let dir = dir.as_ref().map_or(self.into, AsFd::as_fd);
        let stat = entry::look(dir, &name)?.ok_or(NOWHERE)?;
        if entry::kind(&stat) != FileType::RegularFile {
            return Err(NOWHERE);
        }
        let made = self.make(path, "make a hard link", |to, new| fs::linkat(dir, &name, to, new, AtFlags::empty()))?;
        self.summary.hard_links += u64::from(made.is_some());
        Ok(())
    }

    /// Leaves a device out.
    pub(super) fn device(&mut self) {
        self.summary.skipped.devices += 1;
    }

    /// Leaves every directory and waits until all is on the disk.
    pub(super) fn finish(mut self, bytes: u64) -> Result<Summary, TreeError> {
        self.go(&[])?;
        self.leave()?;
        fs::syncfs(self.into).map_err(TreeError::of("write to disk"))?;
        Ok(Summary { bytes, ..self.summary })
    }

    fn adopt(&self, attributes: &mut Attributes) {
        if let Some(owner) = self.owner {
            (attributes.uid, attributes.gid) = (owner, owner);
        }
    }

    fn give_at(&self, name: &CString, told: &Attributes, is_link: bool) -> Result<(), TreeError> {
        let mut told = told.clone();
        told.mode &= 0o1777;
        self.adopt(&mut told);
        told.give_at(self.chain.dir(), name, is_link)
    }

    /// Makes an entry that is no directory, in place of one that has its name: the last of two is the one that counts.
    fn make<T>(
        &mut self,
        path: Path<'_>,
        what: &'static str,
        mut make: impl FnMut(BorrowedFd<'_>, &CString) -> rustix::io::Result<T>,
    ) -> Result<Option<(T, CString)>, TreeError> {
        let (name, parents) = path.split_last().ok_or(TreeError::Archive("the tree itself is no directory"))?;
        self.go(parents)?;
        let name = c_name(name)?;
        let mut made = make(self.chain.dir(), &name);
        if matches!(made, Err(Errno::EXIST)) {
            match fs::unlinkat(self.chain.dir(), &name, AtFlags::empty()) {
                Ok(()) => made = make(self.chain.dir(), &name),
                // A directory, which may have things in it.
                Err(Errno::ISDIR | Errno::PERM) => {
                    self.summary.skipped.changed += 1;
                    return Ok(None);
                }
                Err(why) => return Err(TreeError::of("remove a file")(why)),
            }
        }
        made.map(|made| Some((made, name))).map_err(TreeError::of(what))
    }

    /// Goes to the directory that a path leads to, making it if need be.
    fn go(&mut self, path: Path<'_>) -> Result<(), TreeError> {
        let same = path.iter().enumerate().take_while(|(at, part)| self.chain.name(*at).is_some_and(|name| name == **part)).count();
        while self.chain.depth() > same {
            self.leave()?;
            if self.chain.pop()?.is_some_and(|left| left.lost > 0) {
                return Err(TreeError::Archive("somebody else changes what is unpacked"));
            }
        }
        for part in &path[same..] {
            self.enter(part, false)?;
        }
        Ok(())
    }

    /// Goes into a directory of this one, making it if need be; in place of something else only if the archive says `so`.
    fn enter(&mut self, name: &[u8], so: bool) -> Result<(), TreeError> {
        let name = c_name(name)?;
        let made = match fs::mkdirat(self.chain.dir(), &name, Mode::RWXU) {
            Ok(()) => {
                self.summary.directories += 1;
                true
            }
            Err(Errno::EXIST) => false,
            Err(why) => return Err(TreeError::of("make a directory")(why)),
        };
        let (dir, stat) = match open_directory(self.chain.dir(), &name)? {
            Opened::Here(dir, stat) => (dir, stat),
            Opened::Changed if so && !made => {
                fs::unlinkat(self.chain.dir(), &name, AtFlags::empty()).map_err(TreeError::of("remove a file"))?;
                self.summary.skipped.changed += 1;
                return self.enter(name.to_bytes(), false);
            }
            Opened::Changed | Opened::Mount => return Err(TreeError::Archive("a path leads through something that is no directory")),
        };
        let held = if made {
            // What no entry says anything of.
            let owner = self.owner.unwrap_or(0);
            let mode = Mode::from_raw_mode(0o755);
            attributes::own(dir.as_fd(), owner, owner, mode)?;
            None
        } else {
            Some(Attributes::take_off(dir.as_fd(), &stat)?)
        };
        self.chain.push(&name, dir, &stat, held)?;
        Ok(())
    }

    /// Gives the directory that we are in what it is to have.
    fn leave(&mut self) -> Result<(), TreeError> {
        if let Some(attributes) = self.chain.data().take() {
            self.summary.skipped.attributes += attributes.give(self.chain.dir())?;
        }
        Ok(())
    }
}

fn c_name(name: &[u8]) -> Result<CString, TreeError> {
    CString::new(name).map_err(|_| TreeError::Archive("a path makes no sense"))
}
