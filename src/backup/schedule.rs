//! When a home's next backup is made: a decision without I/O.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

/// How long after a failure a home is tried again, at first. It doubles with each failure, up to the schedule's own period.
const FIRST_RETRY: Duration = Duration::from_secs(5 * 60);

/// What is known of a home's backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// When the last good one was made.
    pub last: Option<SystemTime>,
    /// When one failed last, and how many have failed since a good one.
    pub failed: Option<(SystemTime, u32)>,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due<'a> {
    /// This home's turn.
    Now(&'a str),
    /// Nobody's before then.
    At(SystemTime),
    /// There are no homes.
    Never,
}

/// Whose turn it is: the home that has waited longest past its time, one at a time.
///
/// A home comes up to a tenth of `every` early, each by its own share, so that homes that were once backed up one after another without
/// a pause spread over the period. A home that has no backup is due.
pub fn due<'a>(homes: impl IntoIterator<Item = (&'a str, Attempts)>, every: Duration, now: SystemTime) -> Due<'a> {
    let first = homes.into_iter().map(|(home, attempts)| (next(home, attempts, every, now), home)).min();
    match first {
        None => Due::Never,
        Some((at, home)) if at <= now => Due::Now(home),
        Some((at, _)) => Due::At(at),
    }
}

/// When something's time comes.
pub(super) fn next(home: &str, attempts: Attempts, every: Duration, now: SystemTime) -> SystemTime {
    // A last backup from the future, where a clock was wrong, must not put the next one off until then.
    let next = attempts.last.filter(|last| *last <= now).map_or(SystemTime::UNIX_EPOCH, |last| last + every - early(home, every));
    let retry = attempts.failed.filter(|(at, _)| *at <= now).map(|(at, times)| {
        let doubled = FIRST_RETRY.saturating_mul(1 << times.saturating_sub(1).min(16));
        at + doubled.min(every)
    });
    retry.map_or(next, |retry| next.max(retry))
}

/// A home's own share of a tenth of the period. The same after a restart.
fn early(home: &str, every: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    home.hash(&mut hasher);
    #[allow(clippy::cast_possible_truncation, reason = "below 1000")]
    let share = (hasher.finish() % 1000) as u32;
    every / 10 * share / 1000
}

/// Whether the repository's own turn has come, to be verified: homes that wait go first, but not for longer than its whole period.
pub fn verifies(attempts: Attempts, every: Duration, homes_wait: bool, now: SystemTime) -> bool {
    let at = next("", attempts, every, now);
    // What was never verified is not late yet.
    let late = attempts.last.is_some() && at + every <= now;
    at <= now && (late || !homes_wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 100_000 * HOUR
    }

    fn good(hours_ago: u32) -> Attempts {
        Attempts { last: Some(now() - hours_ago * HOUR), failed: None }
    }

    const NONE: Attempts = Attempts { last: None, failed: None };

    #[test]
    fn the_one_that_waited_longest_goes_first() {
        assert_eq!(due([("a", good(30)), ("b", good(50)), ("c", good(1))], 24 * HOUR, now()), Due::Now("b"));
        assert_eq!(due([("a", good(30)), ("new", NONE)], 24 * HOUR, now()), Due::Now("new"));
        assert_eq!(due([], 24 * HOUR, now()), Due::Never);
    }

    #[test]
    fn nobody_is_due_before_nine_tenths_of_the_period_nor_after_all_of_it() {
        for home in (0..1000).map(|n| format!("h{n}")) {
            let Due::At(at) = due([(home.as_str(), good(0))], 24 * HOUR, now()) else { panic!("{home} is due at once") };
            assert!(at > now() + 21 * HOUR && at <= now() + 24 * HOUR, "{home}");
        }
    }

    #[test]
    fn a_thousand_homes_spread() {
        let homes: Vec<String> = (0..1000).map(|n| format!("h{n}")).collect();
        let at = |home: &String| next(home, good(0), 24 * HOUR, now());
        let mut times: Vec<SystemTime> = homes.iter().map(at).collect();
        times.sort();
        // In no tenth of the time over which they spread are more than a fifth of them.
        for start in 0..10 {
            let from = now() + 24 * HOUR - (24 * HOUR / 10) + (24 * HOUR / 100) * start;
            let within = times.iter().filter(|at| **at >= from && **at < from + 24 * HOUR / 100).count();
            assert!(within < 200, "{within} in one hundredth");
        }
    }

    #[test]
    fn a_failure_waits_and_lets_others_go() {
        let failed = |times| Attempts { last: None, failed: Some((now() - Duration::from_secs(60), times)) };
        assert_eq!(due([("bad", failed(1)), ("a", good(30))], 24 * HOUR, now()), Due::Now("a"));
        let wait = |times| match due([("bad", failed(times))], 24 * HOUR, now()) {
            Due::At(at) => at.duration_since(now()).unwrap() + Duration::from_secs(60),
            other => panic!("{other:?}"),
        };
        assert_eq!((wait(1), wait(2), wait(3)), (FIRST_RETRY, 2 * FIRST_RETRY, 4 * FIRST_RETRY));
        assert_eq!(wait(4_000_000_000), 24 * HOUR);
    }

    #[test]
    fn the_repository_is_verified_when_no_home_waits_or_once_it_is_late() {
        let asked = |attempts, waits| verifies(attempts, 24 * HOUR, waits, now());
        assert_eq!((asked(good(20), false), asked(good(24), false), asked(good(24), true)), (false, true, false));
        assert_eq!((asked(good(47), true), asked(good(48), true)), (false, true));
        assert_eq!((asked(NONE, false), asked(NONE, true)), (true, false));
        let failed = Attempts { failed: Some((now(), 1)), ..good(48) };
        assert!(!asked(failed, false), "not again at once");
    }

    #[test]
    fn a_clock_that_was_wrong_puts_nothing_off() {
        let future = Attempts { last: Some(now() + 1000 * HOUR), failed: Some((now() + 1000 * HOUR, 3)) };
        assert_eq!(due([("a", future)], 24 * HOUR, now()), Due::Now("a"));
    }
}
