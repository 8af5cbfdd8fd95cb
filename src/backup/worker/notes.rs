//! What an operation saw and could not do, and how far it is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustic_core::{ProgressBars, ProgressType, RusticProgress};

use crate::backup::Progress;
use crate::backup::protocol::EXAMPLES;
use crate::name::printable;

/// The longest path and the longest reason in an example, in characters. A path can have four thousand.
const LONGEST: usize = 300;

/// Counted by whoever works, read by whoever tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: AtomicU64,
    bytes: AtomicU64,
    left_out: AtomicU64,
    examples: Mutex<Vec<String>>,
    /// A whole directory that was to be backed up and could not be read.
    lost: Mutex<Option<String>>,
}

impl Notes {
    pub(super) fn file(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts what is not as it should be, and keeps it as an example while there are few. Names of files are strangers' text.
    pub(super) fn note(&self, path: &Path, why: impl std::fmt::Display) {
        self.0.left_out.fetch_add(1, Ordering::Relaxed);
        let mut examples = self.0.examples.lock();
        if examples.len() < EXAMPLES {
            let path: String = path.display().to_string().chars().take(LONGEST).collect();
            let why: String = why.to_string().chars().take(LONGEST).collect();
            examples.push(printable(&format!("{path}: {why}")));
        }
    }

    /// Remembers that a whole directory could not be read.
    pub(super) fn lose(&self, path: &Path) {
        self.0.lost.lock().get_or_insert_with(|| path.display().to_string());
    }

    pub(super) fn lost(&self) -> Option<String> {
        self.0.lost.lock().clone()
    }

    pub(super) fn progress(&self) -> Progress {
        Progress { files: self.0.files.load(Ordering::Relaxed), bytes: self.0.bytes.load(Ordering::Relaxed) }
    }

    /// How many, and some of them.
    pub(super) fn noted(&self) -> (u64, Vec<String>) {
        (self.0.left_out.load(Ordering::Relaxed), self.0.examples.lock().clone())
    }
}

/// The engine counts bytes into the same notes.
impl ProgressBars for Notes {
    fn progress(&self, kind: ProgressType, _: &str) -> rustic_core::Progress {
        rustic_core::Progress::new(Bar { notes: self.clone(), counts: matches!(kind, ProgressType::Bytes) })
    }
}

#[derive(Debug)]
struct Bar {
    notes: Notes,
    counts: bool,
}

impl RusticProgress for Bar {
    fn is_hidden(&self) -> bool {
        true
    }
    fn set_length(&self, _: u64) {}
    fn set_title(&self, _: &str) {}
    fn inc(&self, inc: u64) {
        if self.counts {
            self.notes.bytes(inc);
        }
    }
    fn finish(&self) {}
}
