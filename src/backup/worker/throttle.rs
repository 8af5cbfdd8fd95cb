//! No more than so many bytes a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Shared by all who read.
#[derive(Debug, Clone)]
pub(super) struct Throttle(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    rate: u64,
    /// When what has been taken so far is paid for.
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// `0`: no limit.
    pub(super) fn new(rate: u64) -> Self {
        Self((rate > 0).then(|| Arc::new(Inner { rate, free_at: Mutex::new(Instant::now()) })))
    }

    /// Waits until so many bytes more may be read.
    pub(super) fn take(&self, bytes: u64) {
        let Some(inner) = &self.0 else { return };
        #[allow(clippy::cast_precision_loss, reason = "a wait need not be exact")]
        let cost = Duration::from_secs_f64(bytes as f64 / inner.rate as f64);
        let wait = {
            let mut free_at = inner.free_at.lock();
            let now = Instant::now();
            let wait = free_at.saturating_duration_since(now);
            *free_at = now + wait + cost;
            wait
        };
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_readers_together_keep_the_rate() {
        let throttle = Throttle::new(1_000_000);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..10).for_each(|_| throttle.take(10_000)));
            }
        });
        assert!(start.elapsed() >= Duration::from_millis(180), "{:?}", start.elapsed());
    }
}
