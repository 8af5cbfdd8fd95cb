//! Repeated measurements of one thing.

use std::time::Duration;

/// Milliseconds, in the order in which they were measured.
#[derive(Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1e3);
    }

    /// The middle one, which a machine's hiccups do not move.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// How many, and where the middle half of them lies.
    pub fn spread(&self) -> String {
        format!("median of {}, half in {}", self.0.len(), self.half())
    }

    /// Where the middle half of them lies.
    pub fn half(&self) -> String {
        format!("{:.0}–{:.0}", self.quantile(0.25), self.quantile(0.75))
    }

    fn quantile(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
        // Between the two neighbours, so that an even number has a middle too.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a handful of samples")]
        let (below, share) = {
            let at = last as f64 * part;
            (at as usize, at.fract())
        };
        sorted[below] + (sorted[(below + 1).min(last)] - sorted[below]) * share
    }
}
