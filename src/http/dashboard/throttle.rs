//! Slowing down who shows what is wrong: the more often of late, the longer the answer to the same address waits. Who shows what is right never does:
//! behind a proxy all have one address, and nobody is to lock the others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::source::source_of;

/// Tries that were wrong, by where they came from.
#[derive(Debug)]
pub(super) struct Throttle {
    table: Mutex<HashMap<Source, Wrong>>,
    waiting: Arc<Semaphore>,
}

/// An answer that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pause: Duration,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy)]
struct Wrong {
    times: u32,
    last: Instant,
}

/// Nothing: it is not known.
type Source = Option<IpAddr>;

/// What each wrong try of late adds to the pause before the next answer, and the longest pause.
const STEP: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(3);
/// After this nobody remembers.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// Answers that wait at once: each holds a connection.
const AT_ONCE: usize = 8;
/// Addresses that are remembered; one more, and the one that was wrong the longest ago is not.
const MOST: usize = 1024;

impl Default for Throttle {
    fn default() -> Self {
        Self { table: Mutex::default(), waiting: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Throttle {
    /// Somebody was wrong. `None`: too many wait already.
    pub(super) fn wrong(&self, from: Option<IpAddr>) -> Option<Waiting> {
        let source = from.map(source_of);
        let mut table = self.table.lock();
        table.retain(|_, wrong| wrong.last.elapsed() < FORGOTTEN);
        if table.len() >= MOST && !table.contains_key(&source) {
            let oldest = table.iter().min_by_key(|(_, wrong)| wrong.last).map(|(source, _)| *source);
            oldest.map(|source| table.remove(&source));
        }
        let wrong = table.entry(source).or_insert(Wrong { times: 0, last: Instant::now() });
        let pause = (STEP * wrong.times).min(LONGEST);
        *wrong = Wrong { times: wrong.times.saturating_add(1).min(1000), last: Instant::now() };
        drop(table);
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Some(Waiting { pause, _place: place })
    }
}

impl Waiting {
    /// Waits as long as it is to.
    pub(super) async fn over(self) {
        tokio::time::sleep(self.pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_wrong_waits_longer_each_time_and_others_do_not() {
        let throttle = Throttle::default();
        let pause = |text: &str| throttle.wrong(Some(text.parse().unwrap())).unwrap().pause;
        let pauses: Vec<_> = (0..20).map(|_| pause("2001:db8::1")).collect();
        assert_eq!(pauses[0], Duration::ZERO);
        assert!(pauses.is_sorted() && pauses[19] == LONGEST, "{pauses:?}");
        assert_eq!(pause("2001:db8::2"), LONGEST, "the same network");
        assert_eq!(pause("2001:db8:0:1::1"), Duration::ZERO);
        assert_eq!(pause("192.0.2.1"), Duration::ZERO);
    }

    #[test]
    fn few_wait_at_once_and_few_are_remembered() {
        let throttle = Throttle::default();
        let held: Vec<_> = (0..AT_ONCE).map(|_| throttle.wrong(None).unwrap()).collect();
        assert!(throttle.wrong(None).is_none());
        drop(held);
        for number in 0..MOST as u32 + 10 {
            assert!(throttle.wrong(Some(IpAddr::from(number.to_be_bytes()))).is_some());
        }
        assert_eq!(throttle.table.lock().len(), MOST);
    }
}
