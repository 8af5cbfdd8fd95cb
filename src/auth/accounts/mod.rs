//! The embedded default: accounts in a file, with argon2id hashes and public keys.
//!
//! The file is edited with `innkeeper account` or by hand, and picked up when it changes:
//! ```toml
//! [account.alice]
//! password = "$argon2id$v=19$m=19456,t=2,p=1$…"
//! keys = ["ssh-ed25519 AAAA… alice@laptop"]
//! workspace = "acme"   # optional, as is template
//! ```
//! Whether an account exists cannot be seen from the time an answer takes.

pub mod edit;
mod file;
mod key;
mod password;

use std::path::Path;
use std::sync::Arc;

pub use file::{Account, AccountMap, FileError};
pub use key::{AuthorizedKey, KeyError};
use parking_lot::Mutex;
pub use password::{Hash, HashError, MAX_PASSWORD_BYTES};
use secrecy::{ExposeSecret, SecretSlice};
use tokio::sync::Semaphore;

use self::file::Watched;
use self::password::Memory;
use super::{Attempt, AuthError, Authenticator, Grant, KeyProof, OfferedKey, Verdict};
use crate::name::AccountName;

/// Verifications at once, at most: 300 a second on any machine, and no more memory than 150 MiB.
const MAX_VERIFYING: usize = 8;

/// Why the accounts cannot be used from the start.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The hash that unknown accounts are verified against.
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// The accounts of a file.
pub struct Accounts {
    watched: Arc<Watched>,
    /// Verified in place of a password that does not exist.
    nobody: Arc<Hash>,
    /// Verifications at once: as many as there are cores, up to a bound. Each takes one for tens of milliseconds, and its memory.
    verifying: Arc<Semaphore>,
    /// The memory of those that are not under way.
    memory: Arc<Mutex<Vec<Memory>>>,
}

// === impl Accounts ===

impl Accounts {
    /// Reads the file, which need not exist yet. May block on the disk.
    pub fn open(file: &Path) -> Result<Self, AccountsError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            watched: Arc::new(Watched::open(file)?),
            nobody: Arc::new(Hash::of_nobody()?),
            verifying: Arc::new(Semaphore::new(cores.min(MAX_VERIFYING))),
            memory: Arc::default(),
        })
    }
}

#[async_trait::async_trait]
impl Authenticator for Accounts {
    fn name(&self) -> &'static str {
        "accounts"
    }

    async fn password(&self, attempt: &Attempt, password: &[u8]) -> Result<Verdict, AuthError> {
        if password.len() > MAX_PASSWORD_BYTES {
            return Ok(Verdict::Denied);
        }
        let (watched, nobody, name) = (self.watched.clone(), self.nobody.clone(), attempt.account.clone());
        let spare = self.memory.clone();
        let password = SecretSlice::from(password.to_vec());
        // The permit goes into the thread: a login that is given up meanwhile does not stop the hashing, so it must still count.
        let permit = self.verifying.clone().acquire_owned().await.map_err(|error| AuthError::File(error.to_string()))?;
        blocking(move || {
            let _permit = permit;
            let accounts = watched.current();
            let account = accounts.get(&name);
            let hash = account.and_then(|account| account.password.as_ref());
            let mut memory = spare.lock().pop().unwrap_or_default();
            let fits = hash.unwrap_or(&nobody).verify_in(password.expose_secret(), &mut memory);
            spare.lock().push(memory);
            match account {
                Some(account) if fits && hash.is_some() => granted(&name, account),
                _ => Verdict::Denied,
            }
        })
        .await
    }

    async fn public_key(&self, attempt: &Attempt, key: &OfferedKey, _: KeyProof) -> Result<Verdict, AuthError> {
        let (watched, name, key) = (self.watched.clone(), attempt.account.clone(), key.clone());
        blocking(move || match watched.current().get(&name) {
            Some(account) if account.keys.iter().any(|known| known.is(&key)) => granted(&name, account),
            _ => Verdict::Denied,
        })
        .await
    }

    /// Always: a file that cannot be used was refused when it was opened, or leaves the accounts before it in force.
    async fn ready(&self) -> Result<(), AuthError> {
        Ok(())
    }
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

/// Runs what reads the disk or hashes where it does not hold up connections.
async fn blocking(work: impl FnOnce() -> Verdict + Send + 'static) -> Result<Verdict, AuthError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| AuthError::File(error.to_string()))
}

fn granted(name: &AccountName, account: &Account) -> Verdict {
    let mut grant = Grant { template: account.template.clone(), ..Grant::plain(name.clone()) };
    if let Some(workspace) = &account.workspace {
        grant.workspace = workspace.clone();
    }
    Verdict::Granted(Box::new(grant))
}
