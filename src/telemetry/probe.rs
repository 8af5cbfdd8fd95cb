//! Questions whether something that the gateway needs is there: asked by `/readyz` and by `innkeeper check --online`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};

/// A question whether something that the gateway needs is there.
#[derive(Clone)]
pub struct Probe {
    /// What is asked for: `engine`, `auth webhook`.
    pub name: String,
    ask: Arc<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>,
}

/// The answer; the texts are for the operator and never contain a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Fine(String),
    /// It is there, or will be, and yet something about it should be known.
    Doubtful(String),
    /// It is not there.
    Failed(String),
}

/// Asks all at once. Who does not answer within `deadline` has failed.
pub async fn ask_all(probes: &[Probe], deadline: Duration) -> Vec<Outcome> {
    join_all(probes.iter().map(|probe| probe.ask(deadline))).await
}

// === impl Probe ===

impl Probe {
    /// A question that is asked by running `ask`.
    pub fn new<F>(name: impl Into<String>, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self { name: name.into(), ask: Arc::new(move || Box::pin(ask())) }
    }

    /// Asks.
    pub async fn ask(&self, deadline: Duration) -> Outcome {
        let late = |_| Outcome::Failed(format!("no answer within {}", humantime::format_duration(deadline)));
        tokio::time::timeout(deadline, (self.ask)()).await.unwrap_or_else(late)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("name", &self.name).finish_non_exhaustive()
    }
}

// === impl Outcome ===

impl Outcome {
    /// Whether the gateway can do its work.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Fine(_) | Self::Doubtful(_) => true,
            Self::Failed(_) => false,
        }
    }

    /// What there is to know.
    pub fn note(&self) -> &str {
        match self {
            Self::Fine(note) | Self::Doubtful(note) | Self::Failed(note) => note,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_has_failed_and_holds_nobody_up() {
        let probes = [
            Probe::new("slow", || async {
                std::future::pending::<()>().await;
                Outcome::Fine(String::new())
            }),
            Probe::new("quick", || async { Outcome::Fine("here".to_owned()) }),
        ];
        let answers = ask_all(&probes, Duration::from_secs(2)).await;
        assert_eq!(answers, [Outcome::Failed("no answer within 2s".to_owned()), Outcome::Fine("here".to_owned())]);
    }
}
