//! Grants on public keys that the service allowed to be remembered, for as long as it said and never longer than an hour.
//!
//! Only the grant of a key whose signature was verified is ever put here, so whatever is found may answer both questions, the offer's and the
//! proof's. Passwords and refusals never come here: a password must be checked, and a key that was just added must work.

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;

use crate::auth::{Grant, OfferedKey};
use crate::name::AccountName;

type Question = (AccountName, OfferedKey);

/// The remembered grants, bounded in bytes and in time.
pub(super) struct Remembered(Cache<Question, Grant>);

/// Each grant is kept for its own `valid_for`.
struct ValidFor;

// === impl Remembered ===

impl Remembered {
    pub(super) fn new() -> Self {
        let bytes = |(account, key): &Question, grant: &Grant| {
            let environment: usize = grant.environment.iter().map(|(name, value)| name.len() + value.expose().len() + 64).sum();
            let message = grant.message.as_ref().map_or(0, String::len);
            u32::try_from(ENTRY_BYTES + account.as_str().len() + key.0.len() + environment + message).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(MAX_BYTES).weigher(bytes).expire_after(ValidFor).build())
    }

    pub(super) async fn grant(&self, account: &AccountName, key: &OfferedKey) -> Option<Grant> {
        self.0.get(&(account.clone(), key.clone())).await
    }

    /// Keeps the grant of a *verified* key, if it says for how long.
    pub(super) async fn remember(&self, account: &AccountName, key: &OfferedKey, grant: &Grant) {
        if grant.valid_for.is_some() {
            self.0.insert((account.clone(), key.clone()), grant.clone()).await;
        }
    }
}

// === impl ValidFor ===

impl Expiry<Question, Grant> for ValidFor {
    fn expire_after_create(&self, _: &Question, grant: &Grant, _: Instant) -> Option<Duration> {
        Some(grant.valid_for.unwrap_or_default().min(MAX_AGE))
    }

    fn expire_after_update(&self, _: &Question, grant: &Grant, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(grant.valid_for.unwrap_or_default().min(MAX_AGE))
    }
}

/// Nobody whose access was taken away keeps it longer than this, whatever the service said earlier.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Memory for all remembered grants together: some 20,000 plain ones.
const MAX_BYTES: u64 = 16 << 20;
/// What an entry takes beside its texts, about.
const ENTRY_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> (AccountName, OfferedKey) {
        (AccountName::parse("alice").unwrap(), OfferedKey("ssh-ed25519 AAAA".into()))
    }

    fn grant(valid_for: Option<Duration>) -> Grant {
        Grant { valid_for, ..Grant::plain(question().0) }
    }

    #[test]
    fn a_grant_is_kept_as_long_as_it_says_and_an_hour_at_most() {
        let age = |seconds| {
            let grant = grant(Some(Duration::from_secs(seconds)));
            ValidFor.expire_after_create(&question(), &grant, Instant::now()).unwrap().as_secs()
        };
        assert_eq!((age(60), age(86_400)), (60, 3600));
    }

    #[tokio::test]
    async fn only_a_grant_that_says_so_is_kept_and_only_for_its_own_question() {
        let (remembered, (account, key)) = (Remembered::new(), question());
        remembered.remember(&account, &key, &grant(None)).await;
        assert!(remembered.grant(&account, &key).await.is_none());
        remembered.remember(&account, &key, &grant(Some(Duration::from_secs(60)))).await;
        assert!(remembered.grant(&account, &key).await.is_some());
        assert!(remembered.grant(&AccountName::parse("bob").unwrap(), &key).await.is_none());
        assert!(remembered.grant(&account, &OfferedKey("ssh-ed25519 BBBB".into())).await.is_none());
    }

    #[tokio::test]
    async fn many_grants_do_not_take_more_memory_than_allowed() {
        let (remembered, (account, _)) = (Remembered::new(), question());
        for n in 0..100_000 {
            remembered.remember(&account, &OfferedKey(format!("ssh-ed25519 {n}")), &grant(Some(Duration::from_secs(60)))).await;
        }
        remembered.0.run_pending_tasks().await;
        assert!(remembered.0.weighted_size() <= MAX_BYTES);
        assert!(remembered.0.entry_count() > 1000);
    }
}
