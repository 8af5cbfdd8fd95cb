//! Spawning: every task of this room is tracked, so that a drain can wait for it, and a panic in one ends that one only and is counted.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::telemetry::Metrics;

/// Spawns tracked tasks.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    metrics: Metrics,
}

impl Tasks {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { tracker: TaskTracker::new(), metrics }
    }

    /// Spawns a task that runs in `span`.
    pub(super) fn spawn(&self, span: tracing::Span, task: impl Future<Output = ()> + Send + 'static) {
        let contained = contain(self.metrics.clone(), task).map(drop);
        self.tracker.spawn(contained.instrument(span));
    }

    /// Waits until all that were spawned have ended; to be called once no more will be spawned.
    pub(super) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Awaits work that may have a bug: `None` if it panicked, which is counted.
///
/// Not an `async fn`: that would have room for the work twice, once for before it is first polled.
pub(super) fn contain<T>(metrics: Metrics, work: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    AssertUnwindSafe(work).catch_unwind().map(move |ended| {
        if ended.is_err() {
            metrics.panics.inc();
            tracing::error!("task panicked");
        }
        ended.ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_counted_and_ends_only_its_own_task() {
        let metrics = Metrics::new().unwrap();
        let tasks = Tasks::new(metrics.clone());
        let (done, ended) = tokio::sync::oneshot::channel();
        tasks.spawn(tracing::Span::none(), async { panic!("on purpose") });
        tasks.spawn(tracing::Span::none(), async { done.send(()).unwrap() });
        ended.await.unwrap();
        tasks.ended().await;
        assert_eq!(metrics.panics.get(), 1);
    }
}
