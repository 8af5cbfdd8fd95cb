//! What root does to the tree of a home: copy, measure and remove it.
//!
//! The tree belongs to someone who may be changing it at that very moment, so nothing here trusts a name for longer than one system call:
//! every step goes from an open directory to one entry of it, never through a link, never onto another mount, and what was opened is looked
//! at again before it is used. An entry that vanished or turned into something else is left out and counted. What is held in memory and how
//! many descriptors are open does not depend on how many files there are, and hardly on how deep they lie.
//!
//! Everything here blocks, for minutes on a large home: call it off the runtime's threads.

pub mod archive;
mod attributes;
mod budget;
mod chain;
mod content;
mod copy;
mod entry;
mod measure;
mod pick;
mod remove;
mod walk;

pub use budget::{Limits, Progress, Watch};
pub(in crate::home) use content::copy_contents;
pub use copy::copy;
pub(in crate::home) use copy::copy_as;
pub use measure::{Measure, measure};
pub(in crate::home) use pick::pick;
pub use remove::{Removed, remove};

use std::io;

/// How deep a tree may be. A level takes some hundred bytes while it is walked, and nobody's work is this deep.
const MAX_DEPTH: usize = 65_536;

/// What went from one place to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Regular files, a file with several names once.
    pub files: u64,
    /// Directories, without the tree's root.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// FIFOs.
    pub fifos: u64,
    /// Further names of files.
    pub hard_links: u64,
    /// Bytes of files' contents, holes not counted; of what is shared with the original, the whole blocks.
    pub bytes: u64,
    /// What was left out.
    pub skipped: Skipped,
}

/// What was left out, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Device nodes: a home has no use for them.
    pub devices: u64,
    /// Sockets: worth nothing without the process that made them.
    pub sockets: u64,
    /// Other file systems mounted in the tree.
    pub mounts: u64,
    /// Entries that vanished, or turned into something else, before they could be opened.
    pub changed: u64,
    /// Extended attributes that the other file system does not take.
    pub attributes: u64,
}

/// Why a tree was not copied, measured or removed to the end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The file system refused something that no change of the tree explains: it is full, broken or read-only.
    #[error("cannot {what}: {why}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        why: io::Error,
    },
    /// Whoever watched asked to stop.
    #[error("stopped")]
    Stopped,
    /// The contents are more than the limit.
    #[error("more than {0} bytes")]
    TooBig(u64),
    /// There are more entries than the limit.
    #[error("more than {0} files and directories")]
    TooMany(u64),
    /// A directory lies deeper than can be walked.
    #[error("a directory lies deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// What is read is no archive, or none that can be trusted.
    #[error("the archive cannot be used: {0}")]
    Archive(&'static str),
    /// Something in the tree cannot be removed; everything else is.
    #[error("something in it cannot be removed: {0}")]
    Remains(io::Error),
}

impl TreeError {
    /// Makes one out of an error of the kernel, for `map_err`.
    pub(in crate::home) fn of<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::Io { what, why: why.into() }
    }
}
