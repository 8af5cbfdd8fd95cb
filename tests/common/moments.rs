//! Moments at which something is killed while a command goes on: before, in and after it, on a machine however fast or busy.

#![allow(unreachable_pub, reason = "several tests have a part of this each")]

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
