//! Moments at which something is killed while a command goes on: before, in and after it, on a machine however fast or busy.

#![allow(dead_code, unreachable_pub, reason = "several tests have a part of this each")]

use std::time::{Duration, Instant};

/// The moments for one kind of command.
pub struct Moments {
    round: u32,
    /// How long the command took when it was last let end.
    usual: Duration,
}

impl Moments {
    pub fn new(usual: Duration) -> Self {
        Self { round: 0, usual }
    }

    /// Waits for the next moment of a command that begins now. Some come when it is over, and some at once.
    pub fn wait(&mut self, mut over: impl FnMut() -> bool) {
        let began = Instant::now();
        self.round += 1;
        match self.round % 6 {
            1 => {
                while !over() {
                    assert!(began.elapsed() < Duration::from_secs(300), "it does not end");
                    std::thread::sleep(Duration::from_millis(2));
                }
                self.usual = began.elapsed();
            }
            4 => {}
            _ => std::thread::sleep(self.usual.mul_f64(rand::random_range(0.0..1.1))),
        }
    }
}

/// How often something is killed, counted from 1: as often as `INNKEEPER_KILL_ROUNDS` says; unless it says that, so often, the second half of it
/// only within a time.
pub struct Rounds {
    most: u32,
    /// Unless it was said how often.
    until: Option<Instant>,
    done: u32,
}

impl Rounds {
    pub fn new(usually: u32, at_most: Duration) -> Self {
        let said = std::env::var("INNKEEPER_KILL_ROUNDS").ok().map(|rounds| rounds.parse().unwrap());
        Self { most: said.unwrap_or(usually), until: said.is_none().then(|| Instant::now() + at_most), done: 0 }
    }
}

impl Iterator for Rounds {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let in_time = self.until.is_none_or(|until| self.done < self.most / 2 || Instant::now() < until);
        (self.done < self.most && in_time).then(|| {
            self.done += 1;
            self.done
        })
    }
}
