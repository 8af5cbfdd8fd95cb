//! How far channels' windows are opened while one of them is full. Pure.
//!
//! The library keeps one size for all: what [`Windows::next`] says when one channel's window was opened is what the next one is opened to,
//! whichever that is. While a channel is full its window is opened by a trickle only, which keeps its client sending just enough to notice
//! when that is over. Another channel that flows must have its whole window nevertheless, and the full one must not get it in its place: on a
//! line with a long way it would again and again, until it holds more than it may. So the window is set out right after the full channel
//! had its trickle, when the other's next piece is on its way already and the full one's cannot be.

use std::time::Duration;

use tokio::time::Instant;

use super::protocol::WINDOW;

/// The window of a channel that is held back, in bytes: two, the least that the library opens again by itself.
pub(super) const TRICKLE: u32 = 2;

/// How long each trickle is held, so that a client that is held back costs nothing.
pub(super) const TRICKLE_EVERY: Duration = Duration::from_millis(10);

/// Trickles of a channel that flows after which the full one's client has evidently nothing to send.
const SILENT_AFTER: u32 = 3;

/// What is known of one connection's channels.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// A channel that is not full has come to the end of its window: since when, and how many trickles ago.
    starved: Option<(Instant, u32)>,
}

impl Windows {
    /// What the next window is opened to, after one was opened to `current`: that of a channel that `is_full`, or not. `any_full` is whether
    /// there is such a one at all.
    pub(super) fn next(&mut self, current: u32, is_full: bool, any_full: bool, now: Instant) -> u32 {
        if !any_full {
            self.starved = None;
            return WINDOW;
        }
        if current != TRICKLE {
            // Whoever it was meant for: it is had.
            self.starved = None;
            return TRICKLE;
        }
        match (&mut self.starved, is_full) {
            (None, true) => TRICKLE,
            (Some(_), true) => WINDOW,
            (None, false) => {
                self.starved = Some((now, 1));
                TRICKLE
            }
            (Some((since, trickles)), false) => {
                *trickles = trickles.saturating_add(1);
                let is_alone = *trickles > SILENT_AFTER && now.duration_since(*since) > TRICKLE_EVERY * SILENT_AFTER;
                if is_alone { WINDOW } else { TRICKLE }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Largest piece that a client sends.
    const PIECE: u32 = 32 * 1024;

    /// A client with a channel that is full (0) and one that uploads (1), and the library's own bookkeeping.
    struct Line {
        began: Instant,
        now: Duration,
        way: Duration,
        target: u32,
        /// What the library thinks that each may still send.
        left: [u32; 2],
        /// What each may send in the client's eyes.
        credit: [u32; 2],
        pieces: VecDeque<(Duration, usize, u32)>,
        opened: VecDeque<(Duration, usize, u32)>,
        received: [u64; 2],
    }

    impl Line {
        fn new(way: Duration) -> Self {
            let (now, pieces, opened) = (Duration::ZERO, VecDeque::new(), VecDeque::new());
            Self {
                began: Instant::now(),
                now,
                way,
                target: WINDOW,
                left: [0, WINDOW],
                credit: [2, WINDOW],
                pieces,
                opened,
                received: [0; 2],
            }
        }

        fn client_sends(&mut self, at: Duration, sends: [bool; 2]) {
            for channel in [0, 1] {
                while sends[channel] && self.credit[channel] > 0 {
                    let length = self.credit[channel].min(PIECE);
                    self.credit[channel] -= length;
                    self.pieces.push_back((at + self.way, channel, length));
                }
            }
        }

        /// Until the upload has had so many bytes; the time it took, and what the full channel got meanwhile.
        fn run(mut self, bytes: u64, sends: [bool; 2]) -> (Duration, u64) {
            let mut windows = Windows::default();
            self.left[0] = 2;
            self.target = TRICKLE;
            self.client_sends(Duration::ZERO, sends);
            while self.received[1] < bytes {
                let piece = self.pieces.front().map(|piece| piece.0);
                // Whatever comes first, the news at the client or a piece at the server, which may be busy.
                if let Some((at, channel, by)) = self.opened.front().copied()
                    && piece.is_none_or(|piece| at <= piece.max(self.now))
                {
                    self.opened.pop_front();
                    self.credit[channel] += by;
                    self.client_sends(at, sends);
                    continue;
                }
                let (at, channel, length) = self.pieces.pop_front().expect("somebody sends");
                self.now = self.now.max(at);
                self.received[channel] += u64::from(length);
                self.left[channel] -= length;
                let mut opened = None;
                if self.left[channel] < self.target / 2 {
                    opened = Some(self.target - self.left[channel]);
                    self.left[channel] = self.target;
                    self.target = windows.next(self.target, channel == 0, true, self.began + self.now);
                }
                if channel == 0 && length <= TRICKLE {
                    self.now += TRICKLE_EVERY;
                }
                if let Some(by) = opened {
                    self.opened.push_back((self.now + self.way, channel, by));
                }
            }
            (self.now, self.received[0])
        }
    }

    #[test]
    fn a_full_channel_gets_no_window_that_another_was_meant_to_have() {
        for millis in [0.05, 1.0, 4.0, 10.0, 25.0, 60.0, 150.0] {
            let way = Duration::from_secs_f64(millis / 1000.0);
            let (took, trickled) = Line::new(way).run(100 << 20, [true, true]);
            assert!(trickled < 64 * 1024, "{millis} ms: {trickled} bytes to a full channel");
            // Fifty windows, each of which takes two or three times the way there and back.
            assert!(took < 50 * (way * 2 * 4 + TRICKLE_EVERY * 4), "{millis} ms: {took:?}");
        }
    }

    #[test]
    fn a_full_channel_whose_client_is_silent_holds_nobody_up() {
        for millis in [0.05, 25.0, 150.0] {
            let way = Duration::from_secs_f64(millis / 1000.0);
            let (took, _) = Line::new(way).run(100 << 20, [false, true]);
            assert!(took < 50 * (way * 2 * 6 + TRICKLE_EVERY * 6), "{millis} ms: {took:?}");
        }
    }

    #[test]
    fn when_nobody_is_full_everybody_has_a_whole_window() {
        let mut windows = Windows::default();
        assert_eq!(windows.next(TRICKLE, false, true, Instant::now()), TRICKLE);
        assert_eq!(windows.next(TRICKLE, false, false, Instant::now()), WINDOW);
        assert!(windows.starved.is_none());
    }
}
