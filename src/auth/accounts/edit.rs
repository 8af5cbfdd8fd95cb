//! Changes to the accounts file: whole or not at all, one at a time, and leaving comments and order of the rest as they are.
//!
//! Knows nothing of terminals or arguments. Everything here blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

use super::file::{AccountMap, FileError, parse};
use super::key::AuthorizedKey;
use super::password::Hash;
use crate::name::{AccountName, TemplateName, WorkspaceName};

/// What an account begins with.
#[derive(Debug, Default)]
pub struct NewAccount {
    /// Her password's hash.
    pub password: Option<Hash>,
    /// Her keys.
    pub keys: Vec<AuthorizedKey>,
    /// Where she lands, when not in the workspace of her own name.
    pub workspace: Option<WorkspaceName>,
    /// Which recipe, when not the default one.
    pub template: Option<TemplateName>,
}

/// Why the accounts file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It cannot be used as it is.
    #[error(transparent)]
    File(#[from] FileError),
    /// The name is taken.
    #[error(
        "there is an account {0} in {path} already; change its password with \"innkeeper account passwd\", or add keys to it with --key alone",
        path = .1.display()
    )]
    Exists(AccountName, PathBuf),
    /// There is no such account.
    #[error("there is no account {0} in {path}; see \"innkeeper account list\"", path = .1.display())]
    Unknown(AccountName, PathBuf),
    /// It has no such key.
    #[error("account {0} has no key {1}; \"innkeeper account key list\" names those that it has")]
    NoKey(AccountName, String),
    /// It cannot be written.
    #[error("cannot write {}: {why}", path.display())]
    Write {
        /// The file or its directory.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Another change has not ended in time.
    #[error("{} is being changed by another innkeeper; try again", .0.display())]
    Busy(PathBuf),
}

/// The accounts there are; none where there is no file.
pub fn list(file: &Path) -> Result<AccountMap, EditError> {
    Ok(parse(file, &read(file)?)?)
}

/// Adds an account.
pub fn add(file: &Path, name: &AccountName, new: &NewAccount) -> Result<(), EditError> {
    edit(file, |sections, accounts| {
        if accounts.contains_key(name) {
            return Err(EditError::Exists(name.clone(), file.to_owned()));
        }
        let mut section = Table::new();
        if let Some(hash) = &new.password {
            section.insert("password", value(hash.expose()));
        }
        if !new.keys.is_empty() {
            section.insert("keys", value(with_keys(Array::new(), &new.keys)));
        }
        if let Some(workspace) = &new.workspace {
            section.insert("workspace", value(workspace.as_str()));
        }
        if let Some(template) = &new.template {
            section.insert("template", value(template.as_str()));
        }
        sections.insert(name.as_str(), Item::Table(section));
        Ok(())
    })
}

/// Adds keys to an account that exists, and says how many of them were new to it.
pub fn add_keys(file: &Path, name: &AccountName, keys: &[AuthorizedKey]) -> Result<usize, EditError> {
    edit(file, |sections, accounts| {
        let Some(known) = accounts.get(name).map(|account| &account.keys) else {
            return Err(EditError::Unknown(name.clone(), file.to_owned()));
        };
        let mut new = Vec::new();
        for key in keys.iter().filter(|key| !known.contains(key)) {
            if !new.contains(key) {
                new.push(key.clone());
            }
        }
        if let Some(section) = section(sections, name) {
            let existing = section.get("keys").and_then(Item::as_array).cloned().unwrap_or_default();
            section.insert("keys", value(with_keys(existing, &new)));
        }
        Ok(new.len())
    })
}

/// Takes a key from an account, by its fingerprint.
pub fn remove_key(file: &Path, name: &AccountName, fingerprint: &str) -> Result<(), EditError> {
    edit(file, |sections, _| {
        let section = section(sections, name).ok_or_else(|| EditError::Unknown(name.clone(), file.to_owned()))?;
        let none = || EditError::NoKey(name.clone(), fingerprint.to_owned());
        let keys = section.get_mut("keys").and_then(Item::as_array_mut).ok_or_else(none)?;
        let before = keys.len();
        let is_it = |line: &Value| line.as_str()?.parse::<AuthorizedKey>().ok().map(|key| key.fingerprint() == fingerprint);
        keys.retain(|line| !is_it(line).unwrap_or(false));
        if keys.len() == before { Err(none()) } else { Ok(()) }
    })
}

/// Gives an account another password.
pub fn set_password(file: &Path, name: &AccountName, hash: &Hash) -> Result<(), EditError> {
    edit(file, |sections, _| {
        let section = section(sections, name).ok_or_else(|| EditError::Unknown(name.clone(), file.to_owned()))?;
        section.insert("password", value(hash.expose()));
        Ok(())
    })
}

/// Removes an account. Its workspace and files are not touched.
pub fn remove(file: &Path, name: &AccountName) -> Result<(), EditError> {
    edit(file, |sections, _| match sections.remove(name.as_str()) {
        Some(_) => Ok(()),
        None => Err(EditError::Unknown(name.clone(), file.to_owned())),
    })
}

fn section<'a>(sections: &'a mut dyn TableLike, name: &AccountName) -> Option<&'a mut dyn TableLike> {
    sections.get_mut(name.as_str()).and_then(Item::as_table_like_mut)
}

/// One key a line: they are long.
fn with_keys(mut array: Array, keys: &[AuthorizedKey]) -> Array {
    for key in keys {
        array.push_formatted(Value::from(key.to_string()).decorated("\n    ", ""));
    }
    if !keys.is_empty() {
        array.set_trailing("\n");
        array.set_trailing_comma(true);
    }
    array
}

/// Applies a change to the `account` table, and puts the new file in place of the old one if it still parses.
fn edit<T>(file: &Path, change: impl FnOnce(&mut dyn TableLike, &AccountMap) -> Result<T, EditError>) -> Result<T, EditError> {
    // Where the file is a link, what it points at is replaced, not the link.
    let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writing = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| EditError::Write { path, why: error.to_string() }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(writing(directory))?;
    let directory_file = File::open(directory).map_err(writing(directory))?;
    let _lock = lock(&directory_file, file)?;

    let text = read(file)?;
    let accounts = parse(file, &text)?;
    let mut document: DocumentMut =
        text.parse().map_err(|_| FileError::Parse { path: file.to_owned(), line: 1, problem: "not TOML".to_owned() })?;
    let sections = document.entry("account").or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let Some(sections) = sections.as_table_like_mut() else {
        return Err(FileError::Parse { path: file.to_owned(), line: 1, problem: "account is not a table".to_owned() }.into());
    };
    let done = change(sections, &accounts)?;
    let text = document.to_string();
    parse(file, &text)?;
    replace(&target, &directory_file, text.as_bytes()).map_err(writing(file))?;
    Ok(done)
}

/// The lock is on the directory, so that no lock file is left behind. It ends with the returned descriptor.
fn lock(directory: &File, file: &Path) -> Result<File, EditError> {
    let failed = |why: String| EditError::Write { path: file.to_owned(), why };
    let handle = directory.try_clone().map_err(|error| failed(error.to_string()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(handle),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Err(EditError::Busy(file.to_owned())),
            Err(error) => return Err(failed(format!("cannot lock its directory: {error}"))),
        }
    }
}

fn read(file: &Path) -> Result<String, FileError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(FileError::Read { path: file.to_owned(), why: error.to_string() }),
    }
}

/// Writes beside the file and renames over it, so that a crash or a full disk leaves the old one.
fn replace(target: &Path, directory: &File, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = target.with_file_name(name);
    // One of a change that was killed; nobody else is writing, we hold the lock.
    let _ = fs::remove_file(&temporary);
    let written = write_new(&temporary, target, directory, bytes).and_then(|()| fs::rename(&temporary, target));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    directory.sync_all()
}

fn write_new(path: &Path, target: &Path, directory: &File, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    // Root may edit the file of a gateway that runs as somebody else, who must still be able to read it.
    let owner = fs::metadata(target).or_else(|_| directory.metadata())?;
    let ours = file.metadata()?;
    if (owner.uid(), owner.gid()) != (ours.uid(), ours.gid()) && rustix::process::geteuid().is_root() {
        fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// A change takes milliseconds; somebody who holds the lock for longer is stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQY6rRKAiY5aonMzQIdAa99zhzUUdiAMXCYxKCmUP9z laptop";

    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB tablet";

    fn name(text: &str) -> AccountName {
        AccountName::parse(text).unwrap()
    }

    #[test]
    fn the_rest_of_the_file_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accounts.toml");
        let before = "# who is who\n\n[account.alice]   # head\nkeys = [ ]\n\n# the other one\n[account.\"b@x.org\"]\nworkspace='acme'\n";
        fs::write(&file, before).unwrap();
        let key: AuthorizedKey = KEY.parse().unwrap();
        let new = NewAccount { keys: vec![key.clone()], template: Some("python".parse().unwrap()), ..NewAccount::default() };
        add(&file, &name("carol d\""), &new).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with(before), "{text}");
        assert!(text.ends_with(&format!("keys = [\n    \"{KEY}\",\n]\ntemplate = \"python\"\n")), "{text}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        remove(&file, &name("carol d\"")).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn each_change_does_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("made").join("accounts.toml");
        assert_eq!(list(&file).unwrap().len(), 0);
        add(&file, &name("alice"), &NewAccount::default()).unwrap();
        assert!(matches!(add(&file, &name("alice"), &NewAccount::default()), Err(EditError::Exists(..))));
        let key: AuthorizedKey = KEY.parse().unwrap();
        assert_eq!(add_keys(&file, &name("alice"), &[key.clone(), key.clone()]).unwrap(), 1);
        assert_eq!(add_keys(&file, &name("alice"), std::slice::from_ref(&key)).unwrap(), 0);
        let other: AuthorizedKey = OTHER.parse().unwrap();
        assert_eq!(add_keys(&file, &name("alice"), std::slice::from_ref(&other)).unwrap(), 1);
        remove_key(&file, &name("alice"), &other.fingerprint()).unwrap();
        assert!(matches!(remove_key(&file, &name("alice"), &other.fingerprint()), Err(EditError::NoKey(..))));
        assert!(matches!(remove_key(&file, &name("bob"), &key.fingerprint()), Err(EditError::Unknown(..))));
        set_password(&file, &name("alice"), &Hash::of(b"pw").unwrap()).unwrap();
        let accounts = list(&file).unwrap();
        assert_eq!(accounts[&name("alice")].keys.len(), 1);
        assert!(accounts[&name("alice")].password.as_ref().unwrap().verify(b"pw"));
        assert!(matches!(set_password(&file, &name("bob"), &Hash::of(b"pw").unwrap()), Err(EditError::Unknown(..))));
        assert!(matches!(remove(&file, &name("bob")), Err(EditError::Unknown(..))));
        assert!(matches!(add_keys(&file, &name("bob"), &[]), Err(EditError::Unknown(..))));
    }

    #[test]
    fn accounts_written_as_inline_tables_can_be_changed_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accounts.toml");
        fs::write(&file, "account = { alice = { workspace = \"acme\" } }\n").unwrap();
        add(&file, &name("bob"), &NewAccount { keys: vec![KEY.parse().unwrap()], ..NewAccount::default() }).unwrap();
        add_keys(&file, &name("alice"), &[KEY.parse().unwrap()]).unwrap();
        assert_eq!(list(&file).unwrap().values().map(|account| account.keys.len()).sum::<usize>(), 2);
        remove_key(&file, &name("alice"), &KEY.parse::<AuthorizedKey>().unwrap().fingerprint()).unwrap();
        assert_eq!(list(&file).unwrap().values().map(|account| account.keys.len()).sum::<usize>(), 1);
    }

    #[test]
    fn changes_at_the_same_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("accounts.toml");
        thread::scope(|scope| {
            for n in 0..8 {
                let file = &file;
                scope.spawn(move || add(file, &name(&format!("user{n}")), &NewAccount::default()).unwrap());
            }
        });
        assert_eq!(list(&file).unwrap().len(), 8);
    }

    #[test]
    fn a_broken_file_and_a_link_are_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("accounts.toml"), dir.path().join("link.toml"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::write(&file, "[account.alice\n").unwrap();
        assert!(matches!(add(&link, &name("bob"), &NewAccount::default()), Err(EditError::File(FileError::Parse { .. }))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "[account.alice\n");
        fs::write(&file, "").unwrap();
        add(&link, &name("bob"), &NewAccount::default()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(list(&file).unwrap().len(), 1);
    }
}
