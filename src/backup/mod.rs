//! Backups of homes: an encrypted, deduplicated repository in a directory or in S3, in the format of restic.
//!
//! Whatever reads a home or touches the repository is a *worker*: this program started again with one request, low priority where nobody waits, and no more
//! than a pipe to its parent ([`Backups`]). Its death at any moment costs the operation and nothing else: a repository's files appear
//! under their final names only when they are whole, in an order in which what is named is there. The room knows directories and a
//! repository; what a home is, who owns it and how a snapshot of it is taken it does not know.

mod backups;
mod config;
mod protocol;
mod retention;
mod schedule;
mod scheduler;
mod worker;

pub use backups::{Backups, Stage};
pub use config::{Config, Target};
pub use protocol::{Backup, BackupError, Damage, Done, MOST_SETTINGS, Progress, Pruned, Reason, Report, Restored, Root, Subject};
pub use retention::{Keep, surplus};
pub use schedule::{Attempts, Due, due, verifies};
pub(crate) use scheduler::seconds;
pub use scheduler::{Homes, Scheduler};
pub use worker::main as worker_main;

/// The argument that makes this program a worker.
pub const WORKER: &str = "backup-worker";
