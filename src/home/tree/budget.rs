//! How much may be done, how much is done, and whether to go on.

use std::ops::ControlFlow;

use super::TreeError;

/// How much may be copied or unpacked at most. The default is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of files' contents, holes not counted.
    pub bytes: u64,
    /// Files, directories and everything else with a name.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: u64::MAX, entries: u64::MAX }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries that are done or being done.
    pub entries: u64,
    /// Bytes of contents that are done.
    pub bytes: u64,
}

/// Called at every entry and every few megabytes, in the thread that works; `Break` ends the work with [`TreeError::Stopped`]. What is there
/// by then stays: half a copy is for the caller to remove.
pub type Watch<'a> = &'a dyn Fn(Progress) -> ControlFlow<()>;

/// The limits, and what is used of them.
pub(super) struct Budget<'a> {
    limits: Limits,
    progress: Progress,
    watch: Watch<'a>,
}

impl<'a> Budget<'a> {
    pub(super) fn new(limits: Limits, watch: Watch<'a>) -> Self {
        Self { limits, progress: Progress::default(), watch }
    }

    /// Takes one entry.
    pub(super) fn entry(&mut self) -> Result<(), TreeError> {
        self.progress.entries += 1;
        if self.progress.entries > self.limits.entries {
            return Err(TreeError::TooMany(self.limits.entries));
        }
        self.look()
    }

    /// Takes bytes that are about to be written.
    pub(super) fn bytes(&mut self, count: u64) -> Result<(), TreeError> {
        self.progress.bytes = self.progress.bytes.saturating_add(count);
        if self.progress.bytes > self.limits.bytes {
            return Err(TreeError::TooBig(self.limits.bytes));
        }
        self.look()
    }

    /// The bytes taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.progress.bytes
    }

    fn look(&self) -> Result<(), TreeError> {
        match (self.watch)(self.progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TreeError::Stopped),
        }
    }
}
