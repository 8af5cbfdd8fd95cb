//! What in a container asks to be kept running (`innkeeper-keep`), and for how long that is granted.

use std::collections::HashMap;
use std::time::Duration;

use innkeeper_init::protocol::{Lease, Order};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::name::printable;

/// Leases that one container may hold. Each is a process that waits inside.
const MOST: usize = 64;

/// Most characters that are shown of what a lease is for.
const SHOWN: usize = 60;

/// The leases of one container.
#[derive(Default)]
pub(super) struct Leases {
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    held: HashMap<u64, Held>,
    /// Until when it is kept for somebody who was cut off.
    expected: Option<Instant>,
}

struct Held {
    until: Instant,
    what: String,
}

impl Leases {
    /// Grants a lease of at most `longest`, or says why not.
    pub(super) fn ask(&self, lease: &Lease, longest: Duration) -> Order {
        let mut book = self.book.lock();
        let now = Instant::now();
        book.held.retain(|_, held| held.until > now);
        let refused = |words: &str| Order::KeepAnswer { lease: lease.lease, seconds: 0, words: Some(words.to_owned()) };
        if longest.is_zero() {
            return refused("this workspace's template does not let anything be kept running");
        }
        if book.held.len() >= MOST && !book.held.contains_key(&lease.lease) {
            return refused("there are too many already");
        }
        let wanted = Duration::from_secs(u64::from(lease.seconds));
        let granted = wanted.min(longest);
        let words = (granted < wanted).then(|| format!("at most {} at a time", humantime::format_duration(granted)));
        let what = printable(&lease.what.chars().take(SHOWN).collect::<String>());
        book.held.insert(lease.lease, Held { until: now + granted, what });
        Order::KeepAnswer { lease: lease.lease, seconds: u32::try_from(granted.as_secs()).unwrap_or(u32::MAX), words }
    }

    /// Somebody was cut off, and may come back within this time.
    pub(super) fn keep_for(&self, left: Duration) {
        let mut book = self.book.lock();
        book.expected = Some(Instant::now() + left);
    }

    /// One is not needed any more.
    pub(super) fn end(&self, lease: u64) {
        self.book.lock().held.remove(&lease);
    }

    /// None is.
    pub(super) fn clear(&self) {
        self.book.lock().held.clear();
    }

    /// For how much longer something asks to be kept.
    pub(super) fn kept(&self) -> Option<Duration> {
        let now = Instant::now();
        let book = self.book.lock();
        let until = book.held.values().map(|held| held.until).chain(book.expected);
        until.filter_map(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero()).max()
    }

    /// What somebody inside reads who asks how her workspace stands.
    pub(super) fn status(&self) -> String {
        let book = self.book.lock();
        let now = Instant::now();
        let mut text = String::new();
        let mut held: Vec<_> = book.held.values().filter_map(|held| Some((held.until.checked_duration_since(now)?, &held.what))).collect();
        held.sort();
        for (left, what) in held {
            text.push_str(&format!("kept    {} more for {what}\n", humantime::format_duration(Duration::from_secs(left.as_secs()))));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(lease: u64, seconds: u32) -> Lease {
        Lease { lease, seconds, what: "make\x1b[2J".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_bounded_and_ends() {
        let leases = Leases::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(leases.ask(&lease(1, 60), hour), Order::KeepAnswer { lease: 1, seconds: 60, words: None });
        assert!(matches!(leases.ask(&lease(2, 7200), hour), Order::KeepAnswer { seconds: 3600, words: Some(_), .. }));
        assert_eq!(leases.kept(), Some(hour));
        assert_eq!(leases.status(), "kept    1m more for make\\u{1b}[2J\nkept    1h more for make\\u{1b}[2J\n");
        leases.end(2);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(leases.kept(), None);
        assert!(matches!(leases.ask(&lease(3, 1), Duration::ZERO), Order::KeepAnswer { seconds: 0, .. }));
    }

    #[test]
    fn no_more_than_so_many() {
        let leases = Leases::default();
        let granted = (0..200)
            .filter(|number| matches!(leases.ask(&lease(*number, 9), Duration::from_secs(9)), Order::KeepAnswer { seconds: 9, .. }))
            .count();
        assert_eq!(granted, MOST);
    }
}
