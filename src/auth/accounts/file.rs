//! The accounts file as text: parsed strictly, and read again when it has changed.
//!
//! Knows nothing of logins. Everything here may block on the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use tracing::{info, warn};

use super::key::AuthorizedKey;
use super::password::Hash;
use crate::name::{AccountName, NameError, TemplateName, WorkspaceName};

/// The accounts, by name.
pub type AccountMap = BTreeMap<AccountName, Account>;

/// One `[account.<name>]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The hash of her password; without one no password opens the account.
    pub password: Option<Hash>,
    /// The keys that open it.
    #[serde(default)]
    pub keys: Vec<AuthorizedKey>,
    /// Where she lands, when not in the workspace of her own name.
    pub workspace: Option<WorkspaceName>,
    /// Which recipe, when not the default one.
    pub template: Option<TemplateName>,
}

/// Why the accounts file cannot be used. Repeats nothing of its text but key names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is there and cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Anybody on the host could let herself in.
    #[error("{} may be written by everybody; mend it with: chmod 600 {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// Not TOML, or not of the form.
    #[error("{} line {line}: {problem}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

/// The file and what was last read from it.
pub(super) struct Watched {
    path: PathBuf,
    last: Mutex<Reading>,
}

/// What one look at the file found.
struct Reading {
    /// `None`: there was no file.
    stamp: Option<Stamp>,
    /// The last accounts that could be read.
    accounts: Arc<AccountMap>,
    /// What is wrong with the file since, as the log was told.
    told: Option<FileError>,
}

/// Differs whenever the file was written to or replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sections {
    #[serde(default)]
    account: BTreeMap<Name, Account>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Name(AccountName);

// === impl Watched ===

impl Watched {
    /// Reads the file. A file that cannot be used is an error, one that is not there has no accounts.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let (stamp, accounts) = read(path);
        Ok(Self { path: path.to_owned(), last: Mutex::new(Reading { stamp, accounts: Arc::new(accounts?), told: None }) })
    }

    /// The accounts as they are now. When a changed file cannot be used, those before the change stay, and the log says so once.
    pub(super) fn current(&self) -> Arc<AccountMap> {
        // Only held by blocking threads, and long only in the moment after a change.
        let mut last = self.last.lock();
        let now = std::fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta));
        if now != last.stamp {
            let (stamp, accounts) = read(&self.path);
            match accounts {
                Ok(accounts) => {
                    info!(path = %self.path.display(), accounts = accounts.len(), "accounts file changed and was read again");
                    *last = Reading { stamp, accounts: Arc::new(accounts), told: None };
                }
                Err(error) => {
                    if last.told.as_ref() != Some(&error) {
                        warn!(%error, "accounts file changed and cannot be used; the accounts before the change stay");
                    }
                    // What could not be read now, for want of a descriptor say, may be read next time; what does not parse will not.
                    if !matches!(error, FileError::Read { .. }) {
                        last.stamp = stamp;
                    }
                    last.told = Some(error);
                }
            }
        }
        last.accounts.clone()
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

// === impl Name ===

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        AccountName::parse(&name).map(Self)
    }
}

/// Reads the file, with the stamp it had before: a change while it is read is then seen at the next look.
fn read(path: &Path) -> (Option<Stamp>, Result<AccountMap, FileError>) {
    let failed = |error: std::io::Error| FileError::Read { path: path.to_owned(), why: error.to_string() };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return (None, Ok(AccountMap::new())),
        Err(error) => return (std::fs::metadata(path).ok().map(|meta| Stamp::of(&meta)), Err(failed(error))),
    };
    let meta = match file.metadata() {
        Ok(meta) => meta,
        Err(error) => return (None, Err(failed(error))),
    };
    let mut text = String::new();
    let accounts = if meta.mode() & WRITABLE_BY_ALL != 0 {
        Err(FileError::Exposed(path.to_owned()))
    } else {
        file.read_to_string(&mut text).map_err(failed).and_then(|_| parse(path, &text))
    };
    (Some(Stamp::of(&meta)), accounts)
}

/// Parses the text of the file.
pub(super) fn parse(path: &Path, text: &str) -> Result<AccountMap, FileError> {
    let sections: Sections = toml::from_str(text).map_err(|error| {
        // The parser's own Display shows the line, which may hold a hash.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        FileError::Parse { path: path.to_owned(), line: before.matches('\n').count() + 1, problem: error.message().replace('\n', ", ") }
    })?;
    Ok(sections.account.into_iter().map(|(Name(name), account)| (name, account)).collect())
}

/// The permission bit.
const WRITABLE_BY_ALL: u32 = 0o002;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn problem(text: &str) -> String {
        parse(Path::new("accounts.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn names_may_be_quoted_and_anything_wrong_names_its_line() {
        let accounts = parse(Path::new("x"), "[account.alice]\n[account.\"bob@example.org\"]\nworkspace = \"acme\"\n").unwrap();
        assert_eq!(accounts.len(), 2);
        assert_eq!(accounts[&AccountName::parse("bob@example.org").unwrap()].workspace.as_ref().unwrap().as_str(), "acme");
        for (text, expect) in [
            ("[account.a]\npasword = \"x\"\n", "accounts.toml line 2: unknown field `pasword`"),
            ("[accounts.a]\n", "accounts.toml line 1: unknown field `accounts`"),
            ("\n[account.a]\nworkspace = \"A/b\"\n", "accounts.toml line 3: workspace name"),
            ("[account.a]\nkeys = [\n\"ssh-ed25519 AAAA\"]\n", "accounts.toml line 2: the key is damaged"),
            ("[account.a]\n\n[account.a]\n", "accounts.toml line 3: "),
            ("[account.\"\"]\n", "account name"),
            ("[account.a]\nkeys = 1\n", "accounts.toml line 2: "),
        ] {
            let problem = problem(text);
            assert!(problem.contains(expect), "{problem} does not contain {expect}");
        }
        assert!(!problem("[account.a]\npassword = \"hunter2\"\n").contains("hunter2"));
        assert!(!problem("[account.a]\npassword = hunter2\n").contains("hunter2"));
    }

    #[test]
    fn a_change_is_seen_and_a_broken_one_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.toml");
        let watched = Watched::open(&path).unwrap();
        let names = || watched.current().keys().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(), [""; 0]);
        let replace = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
        };
        replace("[account.alice]\n");
        assert_eq!(names(), ["alice"]);
        replace("[account.bobby]\n");
        assert_eq!(names(), ["bobby"], "same length, and perhaps written in the same instant");
        replace("[account.bobby\n");
        assert_eq!(names(), ["bobby"]);
        assert_eq!(Watched::open(&path).err().unwrap().to_string().lines().count(), 1);
        replace("[account.carol]\n");
        assert_eq!(names(), ["carol"]);
        fs::remove_file(&path).unwrap();
        assert_eq!(names(), [""; 0]);
    }

    #[test]
    fn a_file_that_everybody_may_write_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(Watched::open(file.path()), Err(FileError::Exposed(_))));
    }
}
