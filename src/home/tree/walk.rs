//! A walk through a tree, entry by entry. Whoever walks decides which directories to go into.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{self, FileType, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use super::TreeError;
use super::chain::{Chain, Left};
use super::entry::{self, Opened, open_directory};

/// How many bytes of a directory are read at once: some hundred entries.
const BATCH: usize = 32 * 1024;

/// A walk, somewhere in a tree.
pub(super) struct Walk {
    chain: Chain<Reading>,
    buffer: Vec<MaybeUninit<u8>>,
}

/// An entry of the directory that the walk is in.
pub(super) struct Entry {
    pub(super) name: CString,
    /// What it was a moment ago.
    pub(super) kind: FileType,
    /// Where in the directory the next one is.
    next: u64,
}

/// What became of going into a directory.
pub(super) enum Entered {
    /// The walk is in it.
    Here(Stat),
    /// Something is mounted there.
    Mount,
    /// It is gone, or no directory any more.
    Changed,
}

/// How far a directory is read.
#[derive(Default)]
struct Reading {
    /// What was read and not handed out, the next one last.
    batch: Vec<Entry>,
    /// Where the last one that was handed out ended.
    position: u64,
    /// Whether the directory was closed since, so that `position` has to be found again.
    resume: bool,
}

impl Walk {
    /// A walk that begins at the root.
    pub(super) fn new(root: BorrowedFd<'_>) -> Result<Self, TreeError> {
        Ok(Self { chain: Chain::new(root, Reading::default())?, buffer: vec![MaybeUninit::uninit(); BATCH] })
    }

    /// The directory that the walk is in.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.chain.dir()
    }

    /// The root of the tree.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.chain.root()
    }

    /// How many directories lie between the root and here.
    pub(super) fn depth(&self) -> usize {
        self.chain.depth()
    }

    /// The next entry of this directory, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, TreeError> {
        if self.chain.data().batch.is_empty() {
            self.fill()?;
        }
        let reading = self.chain.data();
        let Some(mut entry) = reading.batch.pop() else { return Ok(None) };
        reading.position = entry.next;
        if entry.kind == FileType::Unknown {
            let stat = entry::look(self.dir(), &entry.name)?;
            // Gone already: whatever it is called, opening it will find that out.
            entry.kind = stat.as_ref().map_or(FileType::RegularFile, entry::kind);
        }
        Ok(Some(entry))
    }

    /// Goes into a directory of this one.
    pub(super) fn enter(&mut self, name: &CStr) -> Result<Entered, TreeError> {
        match open_directory(self.dir(), name)? {
            Opened::Here(dir, stat) => {
                if let Some(closed) = self.chain.push(name, dir, &stat, Reading::default())? {
                    closed.batch = Vec::new();
                    closed.resume = true;
                }
                Ok(Entered::Here(stat))
            }
            Opened::Mount => Ok(Entered::Mount),
            Opened::Changed => Ok(Entered::Changed),
        }
    }

    /// Goes up; nothing at the root.
    pub(super) fn leave(&mut self) -> Result<Option<Left>, TreeError> {
        self.chain.pop()
    }

    /// Begins this directory from its start again.
    pub(super) fn rewind(&mut self) {
        *self.chain.data() = Reading { resume: true, ..Reading::default() };
    }

    fn fill(&mut self) -> Result<(), TreeError> {
        let reading = self.chain.data();
        let (position, resume) = (reading.position, std::mem::take(&mut reading.resume));
        if resume {
            fs::seek(self.chain.dir(), SeekFrom::Start(position)).map_err(TreeError::of("find the place in a directory"))?;
        }
        let mut batch = Vec::new();
        let mut raw = RawDir::new(self.chain.dir(), &mut self.buffer);
        while let Some(next) = raw.next() {
            match next {
                Ok(entry) => {
                    if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                        let (name, kind, next) = (entry.file_name().to_owned(), entry.file_type(), entry.next_entry_cookie());
                        batch.push(Entry { name, kind, next });
                    }
                }
                // A directory that was removed reads like this.
                Err(Errno::NOENT) => break,
                Err(why) => return Err(TreeError::of("read a directory")(why)),
            }
            if raw.is_buffer_empty() && !batch.is_empty() {
                break;
            }
        }
        batch.reverse();
        self.chain.data().batch = batch;
        Ok(())
    }
}
