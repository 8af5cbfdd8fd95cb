//! The first thing that went wrong, as a person is to be told it.
//!
//! The engine wraps and rewords what a backend answers, and goes on where it can. What the target itself said is the cause, so it is
//! kept aside here.

use std::sync::Arc;

use parking_lot::Mutex;
use rustic_core::{ErrorKind, RusticError};

use crate::backup::{BackupError, Reason};

/// Shared between a backend and whoever tells how the operation ended.
#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<BackupError>>>);

impl Trouble {
    /// Remembers what went wrong, if it is the first thing that did, and wraps it for the engine.
    pub(super) fn note(&self, error: BackupError) -> Box<RusticError> {
        let wrapped = RusticError::with_source(ErrorKind::Backend, "the target failed", error.clone());
        self.0.lock().get_or_insert(error);
        wrapped
    }

    /// What is told: the target's own words, if it had any.
    pub(super) fn explain(&self, error: &RusticError, doing: &str) -> BackupError {
        if error.is_incorrect_password() {
            let message = "the key does not open the repository: `backup.key` is not what it was made with";
            return BackupError::new(Reason::WrongKey, message);
        }
        let noted = self.0.lock().clone();
        noted.unwrap_or_else(|| BackupError::new(Reason::Damaged, format!("cannot {doing}: {}", error.display_log())))
    }

    /// Forgets, before something is tried whose failure is no trouble.
    pub(super) fn clear(&self) {
        *self.0.lock() = None;
    }
}
