//! How long workspaces took to be ready lately, by the way they took. Bounded: of each way the last so many.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use super::StartPath;

/// How long those took that came one way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartFigures {
    /// The way.
    pub path: StartPath,
    /// How many came it since the gateway's start.
    pub count: u64,
    /// How long half of the last [`KEPT`] took at most.
    pub p50: Duration,
    /// How long all but a twentieth took.
    pub p95: Duration,
    /// How long all but a hundredth took.
    pub p99: Duration,
}

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Starts(Mutex<BTreeMap<StartPath, (u64, VecDeque<Duration>)>>);

/// Starts of each way whose times are kept: a hundredth of them is a few.
const KEPT: usize = 1024;

// === impl Starts ===

impl Starts {
    pub(super) fn note(&self, path: StartPath, took: Duration) {
        let mut all = self.0.lock();
        let (count, lately) = all.entry(path).or_default();
        *count += 1;
        if lately.len() >= KEPT {
            lately.pop_front();
        }
        lately.push_back(took);
    }

    pub(super) fn figures(&self) -> Vec<StartFigures> {
        let all = self.0.lock().clone();
        let one = |(path, (count, lately)): (StartPath, (u64, VecDeque<Duration>))| {
            let mut sorted = Vec::from(lately);
            sorted.sort_unstable();
            let at = |share| percentile(&sorted, share).copied();
            Some(StartFigures { path, count, p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)? })
        };
        all.into_iter().filter_map(one).collect()
    }
}

/// The least of these, which are in order, that at least this share of them does not exceed.
pub(super) fn percentile<T>(sorted: &[T], share: f64) -> Option<&T> {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!([0.5, 0.95, 0.99, 1.0].map(|share| *percentile(&hundred, share).unwrap()), [50, 95, 99, 100]);
        assert_eq!(percentile(&[7], 0.5), Some(&7));
        assert_eq!(percentile::<u32>(&[], 0.5), None);
    }

    #[test]
    fn the_last_ones_count_and_all_are_counted() {
        let starts = Starts::default();
        starts.note(StartPath::Create, Duration::from_secs(1000));
        for milliseconds in 0..KEPT as u64 {
            starts.note(StartPath::Create, Duration::from_millis(milliseconds));
        }
        starts.note(StartPath::Claim, Duration::from_millis(5));
        let figures = starts.figures();
        let create = figures.iter().find(|figures| figures.path == StartPath::Create).unwrap();
        assert_eq!((create.count, create.p50, create.p99), (1025, Duration::from_millis(511), Duration::from_millis(1013)));
        assert_eq!(figures.len(), 2);
    }
}
