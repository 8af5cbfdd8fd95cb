//! The directories from the root of a tree down to the one being worked on, of which only the last few are open.
//!
//! A way back up leads through `..` if that is still where we came from, else down again from the root by name. Whoever moves directories
//! about can so make us lose levels, which are then given up, but can never make us stand anywhere else than in a directory we were in.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Stat;

use super::entry::{FileId, Opened, open_directory, open_parent, reopen};
use super::{MAX_DEPTH, TreeError};

/// How many directories of a chain are open, beside the root.
const OPEN: usize = 32;

/// A way down. `T` is what its owner keeps of each directory.
pub(super) struct Chain<T> {
    root: OwnedFd,
    data: T,
    links: Vec<Link<T>>,
}

struct Link<T> {
    name: CString,
    id: FileId,
    fd: Option<OwnedFd>,
    data: T,
}

/// What a step up left behind.
pub(super) struct Left {
    /// What the directory is called in the one above it.
    pub(super) name: CString,
    /// How many directories above it are lost as well.
    pub(super) lost: usize,
}

impl<T> Chain<T> {
    /// A chain of nothing but its root.
    pub(super) fn new(root: BorrowedFd<'_>, data: T) -> Result<Self, TreeError> {
        Ok(Self { root: reopen(root)?, data, links: Vec::new() })
    }

    /// How many directories lie between the root and here; 0 at the root.
    pub(super) fn depth(&self) -> usize {
        self.links.len()
    }

    /// What the directory at this depth is called; the first below the root is at 0.
    pub(super) fn name(&self, depth: usize) -> Option<&[u8]> {
        self.links.get(depth).map(|link| link.name.to_bytes())
    }

    /// The root of it all.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where we are.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        // The last link is always open.
        self.links.last().and_then(|link| link.fd.as_ref()).unwrap_or(&self.root).as_fd()
    }

    /// What is kept of where we are.
    pub(super) fn data(&mut self) -> &mut T {
        self.links.last_mut().map_or(&mut self.data, |link| &mut link.data)
    }

    /// Goes down into a directory that was just opened. Hands out what is kept of the one that had to be closed for it.
    pub(super) fn push(&mut self, name: &CStr, dir: OwnedFd, stat: &Stat, data: T) -> Result<Option<&mut T>, TreeError> {
        if self.links.len() >= MAX_DEPTH {
            return Err(TreeError::TooDeep);
        }
        self.links.push(Link { name: name.to_owned(), id: FileId::of(stat), fd: Some(dir), data });
        let Some(at) = self.links.len().checked_sub(OPEN + 1) else { return Ok(None) };
        let far = &mut self.links[at];
        Ok(far.fd.take().map(|_closed| &mut far.data))
    }

    /// Goes up, as far as it must; nothing at the root.
    pub(super) fn pop(&mut self) -> Result<Option<Left>, TreeError> {
        let Some(left) = self.links.pop() else { return Ok(None) };
        if let (Some(parent), Some(dir)) = (self.links.last_mut(), &left.fd)
            && parent.fd.is_none()
        {
            parent.fd = open_parent(dir.as_fd(), parent.id)?;
        }
        let lost = match self.links.last() {
            Some(Link { fd: None, .. }) => self.descend()?,
            Some(_) | None => 0,
        };
        Ok(Some(Left { name: left.name, lost }))
    }

    /// Goes down from the root again, and gives up what is not to be found. Returns how many levels that were.
    fn descend(&mut self) -> Result<usize, TreeError> {
        let mut at: Option<OwnedFd> = None;
        let mut found = 0;
        for link in &self.links {
            let parent = at.as_ref().unwrap_or(&self.root).as_fd();
            match open_directory(parent, &link.name)? {
                Opened::Here(dir, stat) if FileId::of(&stat) == link.id => at = Some(dir),
                Opened::Here(..) | Opened::Mount | Opened::Changed => break,
            }
            found += 1;
        }
        let lost = self.links.len() - found;
        self.links.truncate(found);
        if let Some(last) = self.links.last_mut() {
            last.fd = at;
        }
        Ok(lost)
    }
}
