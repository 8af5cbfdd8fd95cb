//! Who is using a workspace, since when nobody is, and how often somebody has logged in.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::admission::Admission;
use crate::name::AccountName;

/// The leases on one workspace, its idle clock, and the count of its logins.
#[derive(Debug, Clone)]
pub(super) struct Leases {
    book: Arc<Mutex<Book>>,
    /// Told when the last lease is dropped: somebody may be waiting for the place.
    admission: Admission,
}

#[derive(Debug)]
struct Book {
    held: usize,
    idle_since: Instant,
    logins: u64,
}

/// A reason to keep one workspace running.
#[derive(Debug)]
pub(super) struct Held(Leases);

/// How many sessions each account has.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<DashMap<AccountName, u32>>);

/// One session of an account.
#[derive(Debug)]
pub(super) struct Counted {
    account: AccountName,
    sessions: Sessions,
}

// === impl Leases ===

impl Leases {
    /// None held, idle for so long already.
    pub(super) fn idle_for(already: Duration, admission: Admission) -> Self {
        let now = Instant::now();
        let book = Book { held: 0, idle_since: now.checked_sub(already).unwrap_or(now), logins: 0 };
        Self { book: Arc::new(Mutex::new(book)), admission }
    }

    pub(super) fn take(&self) -> Held {
        self.book.lock().held += 1;
        Held(self.clone())
    }

    pub(super) fn count(&self) -> usize {
        self.book.lock().held
    }

    /// For how long nobody has used it; `None` while somebody does.
    pub(super) fn idle(&self) -> Option<Duration> {
        let book = self.book.lock();
        (book.held == 0).then(|| book.idle_since.elapsed())
    }

    /// Starts the idle clock anew: it was used just now, by itself or by somebody who did not stay.
    pub(super) fn touch(&self) {
        self.book.lock().idle_since = Instant::now();
    }

    /// Somebody has logged in.
    pub(super) fn count_login(&self) {
        self.book.lock().logins += 1;
    }

    /// How often somebody has, as far as this process knows.
    pub(super) fn logins(&self) -> u64 {
        self.book.lock().logins
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut book = self.0.book.lock();
        book.held -= 1;
        book.idle_since = Instant::now();
        let last = book.held == 0;
        drop(book);
        if last {
            self.0.admission.look_for_room();
        }
    }
}

// === impl Sessions ===

impl Sessions {
    /// One more session of the account, unless it has `limit` already.
    pub(super) fn begin(&self, account: &AccountName, limit: u32) -> Option<Counted> {
        let mut count = self.0.entry(account.clone()).or_insert(0);
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(Counted { account: account.clone(), sessions: self.clone() })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let dashmap::Entry::Occupied(mut entry) = self.sessions.0.entry(self.account.clone()) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_idle_clock_runs_only_while_nobody_is_there() {
        let leases = Leases::idle_for(Duration::from_secs(5), Admission::new(1, 1));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(leases.idle(), Some(Duration::from_secs(10)));
        let (one, two) = (leases.take(), leases.take());
        drop(one);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((leases.idle(), leases.count()), (None, 1));
        drop(two);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(leases.idle(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn an_account_has_at_most_so_many_sessions() {
        let sessions = Sessions::default();
        let account = AccountName::parse("alice").unwrap();
        let first = sessions.begin(&account, 1).unwrap();
        assert!(sessions.begin(&account, 1).is_none());
        drop(first);
        assert!(sessions.begin(&account, 1).is_some());
        assert!(sessions.0.is_empty(), "nothing is kept of who has left");
    }
}
