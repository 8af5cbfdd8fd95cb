//! What the gateway and its worker say to each other: one request down, then lines of JSON up.
//!
//! Secrets travel in the request, through a pipe: never in arguments or variables, which others can read. So nothing here that may hold
//! one can be printed.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bucket;

/// The longest line either side takes, in bytes. A line holds one backup, with what is set of its workspace, or one piece of progress; a request a few paths.
pub(super) const LONGEST_LINE: usize = 1024 * 1024;

/// How many examples a report gives of what is not as it should be. The rest is counted.
pub(super) const EXAMPLES: usize = 20;

/// One thing to do, and all that is needed for it.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) place: Place,
    /// What the repository's key is derived from.
    pub(super) password: String,
    /// Where indexes of a repository that is far away are kept. They are as encrypted there as here.
    pub(super) cache: Option<PathBuf>,
    /// How many processors may be used.
    pub(super) threads: usize,
    /// Bytes a second that are read from a home; 0 is without a limit.
    pub(super) rate: u64,
    /// How long another gateway's operation is waited for, in seconds.
    pub(super) patience: u64,
    pub(super) operation: Operation,
}

/// Where a repository is.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum Place {
    Directory(PathBuf),
    S3(bucket::Place),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Operation {
    Run(Subject),
    List { home: Option<String>, settings: bool },
    Verify { share: f64 },
    Restore { id: String, into: Vec<Root> },
    Forget { home: String },
    Retain { last: u32, seconds: u64 },
}

/// What a worker says. The last line is `Done` or `Failed`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Event {
    Progress(Progress),
    Listed(Backup),
    Done(Outcome),
    Failed(BackupError),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Run(Done),
    Listed,
    Verified(Report),
    Restored(Restored),
    Pruned(Pruned),
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Files seen so far.
    pub files: u64,
    /// Bytes handled so far, of a home or of the repository.
    pub bytes: u64,
}

/// A directory that is backed up, or restored into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What it is called in the backup: one step of a path.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What is backed up, all in one: either all of it is in the repository, or nothing is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Whose it is.
    pub home: String,
    /// Its directories.
    pub roots: Vec<Root>,
    /// Whether nobody can change them meanwhile.
    pub consistent: bool,
    /// The moment that they show.
    pub taken: SystemTime,
    /// What is to be known of them when they are restored. Text of the caller's, at most [`MOST_SETTINGS`] bytes.
    pub settings: Option<String>,
}

/// The most bytes of [`Subject::settings`]. Each list of one home's backups has to read them all.
pub const MOST_SETTINGS: usize = 512 * 1024;

/// A backup that is in the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its name in the repository, 64 hexadecimal digits.
    pub id: String,
    /// Whose it is.
    pub home: String,
    /// The names of the directories in it.
    pub roots: Vec<String>,
    /// The moment it shows.
    pub at: SystemTime,
    /// How many bytes its files hold.
    pub bytes: u64,
    /// How many files it has.
    pub files: u64,
    /// Whether everything in it is of the same moment.
    pub consistent: bool,
    /// What is to be known of it, where that was asked for.
    pub settings: Option<String>,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Its name in the repository.
    pub id: String,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they hold.
    pub bytes: u64,
    /// How many bytes the repository grew by.
    pub new_bytes: u64,
    /// How many entries of the home are not in it, because they could not be read.
    pub left_out: u64,
    /// Some of them, each with the reason.
    pub examples: Vec<String>,
}

/// A backup that was put into a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// How many files there are now.
    pub files: u64,
    /// How many bytes they hold.
    pub bytes: u64,
    /// How many entries of the backup are not there: devices, sockets, and what could not be written.
    pub left_out: u64,
    /// Some of them, each with the reason.
    pub examples: Vec<String>,
}

/// What was taken out of a repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Backups that are no longer there.
    pub backups: u64,
    /// Bytes that are no longer needed. In S3 they go when they have not been needed for a day.
    pub bytes: u64,
}

/// What a look at a whole repository found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Files of the repository that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Backups that were followed down to their data.
    pub backups: u64,
    /// How many things are wrong.
    pub wrong: u64,
    /// Some of them.
    pub examples: Vec<String>,
    /// Backups that cannot be restored whole. At most a thousand are named; `wrong` counts all.
    pub damage: Vec<Damage>,
}

/// A backup that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its name in the repository.
    pub id: String,
    /// Whose it is.
    pub home: String,
}

impl Report {
    /// Whether everything that was read is as it was written.
    pub fn is_clean(&self) -> bool {
        self.wrong == 0
    }
}

/// Why an operation on a repository was not done. The message names the thing and the mend, and never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct BackupError {
    /// Which of the few kinds it is.
    pub reason: Reason,
    /// What a person is told.
    pub message: String,
}

/// The kinds of failure that a caller may tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The target is not there, or is no repository.
    NoTarget,
    /// The target cannot be reached or read.
    Unreachable,
    /// The target has no room.
    Full,
    /// The key does not open the repository.
    WrongKey,
    /// The target does not accept the credentials.
    Denied,
    /// Another gateway or program works on the repository.
    Busy,
    /// There is no such backup.
    NoBackup,
    /// The home, or the directory to restore into, cannot be used.
    Home,
    /// The repository is damaged.
    Damaged,
    /// The worker died or fell silent.
    Worker,
    /// The configuration has no target.
    Off,
}

impl BackupError {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}
