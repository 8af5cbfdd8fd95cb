//! How long to wait before something that ends again and again is started once more.

use std::time::Duration;

/// The first pause, and the longest: each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What has run for so long did not fail at its start: its next pause is the first again.
const SETTLED: Duration = Duration::from_secs(60);

/// The pauses of one service.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause after it has run for so long.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        let pause = if ran >= SETTLED { FIRST } else { self.next };
        self.next = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.after(Duration::ZERO).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.after(SETTLED - Duration::from_millis(1)), LONGEST);
        assert_eq!(backoff.after(SETTLED), FIRST);
        assert_eq!(backoff.after(Duration::ZERO), FIRST * 2);
    }
}
