//! The keys by which the gateway is recognised. Losing them means a warning for everybody, so they are made once and never replaced.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{Algorithm, HashAlg, LineEnding};

/// The name of the key that is made, as sshd calls it.
const MADE: &str = "ssh_host_ed25519_key";

/// Longest key file read, in bytes; an RSA key of 8192 bits has under 8 KiB.
const MAX_FILE: u64 = 64 * 1024;

/// Why there are no usable host keys. One line that names the path and the mend.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file or directory cannot be read or written.
    #[error("host key {path}: {problem}; it must be readable, in a directory that this program may read and, for a first key, write to", path = .0.display(), problem = .1)]
    Io(PathBuf, io::Error),
    /// Others can read it.
    #[error("host key {path}: others may read it (mode {mode:04o}); chmod 600 it, or remove it to have a new one made", path = .0.display(), mode = .1)]
    Exposed(PathBuf, u32),
    /// It is not a private key in OpenSSH's format.
    #[error("host key {path}: not a private key in OpenSSH format ({problem}); restore it from a backup, or remove it to have a new one made", path = .0.display(), problem = .1)]
    Broken(PathBuf, String),
    /// It needs a passphrase.
    #[error("host key {path}: has a passphrase; take it off with: ssh-keygen -p -N '' -f {path}", path = .0.display())]
    Encrypted(PathBuf),
    /// There are keys, none of them usable.
    #[error("host keys {path}: only ed25519 keys are served and there is none; make one with: ssh-keygen -t ed25519 -N '' -f {path}/ssh_host_ed25519_key", path = .0.display())]
    NoneUsable(PathBuf),
}

/// The ed25519 host keys in `directory`; the first start makes one. Private keys of other types are passed over.
pub(super) fn load_or_make(directory: &Path) -> Result<Vec<PrivateKey>, HostKeyError> {
    let at = |why| HostKeyError::Io(directory.to_owned(), why);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(at)?;
    let mut files = key_files(directory).map_err(at)?;
    if files.is_empty() {
        make(directory)?;
        files = key_files(directory).map_err(at)?;
    }
    let mut keys = Vec::new();
    for file in files {
        let key = load(&file)?;
        if key.algorithm() == Algorithm::Ed25519 {
            tracing::info!(path = %file.display(), fingerprint = %key.fingerprint(HashAlg::Sha256), "host key");
            keys.push(key);
        } else {
            tracing::warn!(path = %file.display(), algorithm = %key.algorithm(), "host key passed over: only ed25519 is served");
        }
    }
    if keys.is_empty() { Err(HostKeyError::NoneUsable(directory.to_owned())) } else { Ok(keys) }
}

/// Files that may be private keys, in the order of their names: no public halves, nothing hidden.
fn key_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let public = path.extension().is_some_and(|extension| extension == "pub");
        if !hidden && !public && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn load(path: &Path) -> Result<PrivateKey, HostKeyError> {
    let at = |why| HostKeyError::Io(path.to_owned(), why);
    let broken = |why: &dyn std::fmt::Display| HostKeyError::Broken(path.to_owned(), why.to_string());
    let metadata = fs::metadata(path).map_err(at)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(HostKeyError::Exposed(path.to_owned(), metadata.mode() & 0o7777));
    }
    if metadata.len() > MAX_FILE {
        return Err(broken(&"too long"));
    }
    let key = PrivateKey::from_openssh(fs::read(path).map_err(at)?).map_err(|why| broken(&why))?;
    if key.is_encrypted() { Err(HostKeyError::Encrypted(path.to_owned())) } else { Ok(key) }
}

/// Makes the key: whole and on the disk, or not at all. Of two gateways that start at once, one key remains and both use it.
fn make(directory: &Path) -> Result<(), HostKeyError> {
    let path = directory.join(MADE);
    let at = |why| HostKeyError::Io(path.clone(), why);
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&rand::random()));
    key.set_comment("innkeeper");
    let private = key.to_openssh(LineEnding::LF).map_err(|why| at(io::Error::other(why)))?;
    let public = key.public_key().to_openssh().map_err(|why| at(io::Error::other(why)))?;
    let linked = place(directory, MADE, private.as_bytes(), 0o600).map_err(at)?;
    if linked {
        place(directory, &format!("{MADE}.pub"), format!("{public}\n").as_bytes(), 0o644).map_err(at)?;
        tracing::info!(path = %path.display(), "host key made");
    }
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(at)
}

/// Puts a file in place unless there is one already; says whether it did.
fn place(directory: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<bool> {
    let draft = directory.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&draft, directory.join(name)));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn made_once_and_found_again() {
        let state = tempfile::tempdir().unwrap();
        let directory = state.path().join("host_keys");
        let first = load_or_make(&directory).unwrap();
        assert_eq!(first, load_or_make(&directory).unwrap());
        assert_eq!((mode(&directory), mode(&directory.join(MADE))), (0o700, 0o600));
        let names = fs::read_dir(&directory).unwrap().count();
        assert_eq!(names, 2, "the key and its public half, no drafts");
    }

    #[test]
    fn starting_twice_at_once_makes_one_key() {
        let directory = tempfile::tempdir().unwrap();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| load_or_make(directory.path()).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn an_unusable_key_is_named_with_its_mend_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        load_or_make(directory.path()).unwrap();
        let path = directory.path().join(MADE);
        let says = |expect: &str| {
            let why = load_or_make(directory.path()).unwrap_err().to_string();
            assert!(why.contains(expect) && why.contains(path.to_str().unwrap()) && why.lines().count() == 1, "{why}");
        };
        let whole = fs::read(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        says("chmod 600");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        says("restore it from a backup");
        fs::write(&path, b"").unwrap();
        says("restore it from a backup");
        assert!(fs::read(&path).unwrap().is_empty());
    }
}
