//! Repeated measurements of one thing.

use std::time::Duration;

use crate::report::round;

/// Figures of one unit, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a time, in milliseconds.
    pub fn push(&mut self, took: Duration) {
        self.add(took.as_secs_f64() * 1e3);
    }

    /// Adds a figure of the caller's unit.
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Adds those of another round.
    pub fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The middle one, which a machine's hiccups do not move.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// How many, and where the middle half of them and of what they are held against lies.
    pub fn spread_beside(&self, theirs: &Self) -> String {
        format!("{}; beside: half in {}", self.spread(), theirs.half())
    }

    /// How many, and where the middle half of them lies.
    pub fn spread(&self) -> String {
        format!("median of {}, half in {}", self.0.len(), self.half())
    }

    /// The figure that this part of them, 0 to 1, does not exceed.
    pub fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        // Between the two neighbours, so that an even number has a middle too.
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "thousands of samples at most"
        )]
        let (below, share) = {
            let at = last as f64 * part;
            (at as usize, at.fract())
        };
        sorted[below] + (sorted[(below + 1).min(last)] - sorted[below]) * share
    }

    fn half(&self) -> String {
        format!("{}–{}", round(self.quantile(0.25)), round(self.quantile(0.75)))
    }
}
