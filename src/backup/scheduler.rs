//! Makes backups when they are due, one home after another, and verifies the repository in between.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Attempts, Backups, Due, due, verifies};
use crate::telemetry::Metrics;

/// How often is looked for homes that are new, at least.
const LOOK_EVERY: Duration = Duration::from_secs(5 * 60);

/// How long until a target that could not be listed is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Where homes are found, and what is remembered.
#[async_trait]
pub trait Homes: Send + Sync {
    /// The names of all that are to be backed up and can be right now.
    async fn names(&self) -> Result<Vec<String>, String>;

    /// Makes a backup of one of them, and counts it.
    async fn back_up(&self, home: &str) -> Result<(), String>;

    /// When this repository was last verified.
    async fn verified(&self) -> Result<Option<SystemTime>, String>;

    /// Verifies it, and remembers what became of it.
    async fn verify(&self) -> Result<(), String>;
}

/// The task that makes backups.
pub struct Scheduler {
    /// Where they go.
    pub backups: Backups,
    /// What they are made of.
    pub homes: Arc<dyn Homes>,
    /// How old a last backup gets. Zero: none is made.
    pub every: Duration,
    /// How old the last verification gets. Zero: there is none.
    pub verify_every: Duration,
    /// What is counted.
    pub metrics: Metrics,
}

/// What is remembered between two turns.
struct Past {
    /// When which home failed last, and how often since a good one.
    failures: HashMap<String, (SystemTime, u32)>,
    /// The same of verifications.
    unverified: Option<(SystemTime, u32)>,
    /// Whether a backup was made since old ones were last taken out, and when that was.
    made: bool,
    tidied: Instant,
}

impl Past {
    fn not_verified(&mut self) {
        let times = self.unverified.map_or(0, |(_, times)| times).saturating_add(1);
        self.unverified = Some((SystemTime::now(), times));
    }
}

impl Scheduler {
    /// Makes backups until it is told to stop; one that is being made is given up then.
    ///
    /// What was made when, the repository says: nothing is kept here that a restart would lose but the pauses after failures.
    pub async fn run(self, stop: CancellationToken) {
        let mut past = Past { failures: HashMap::new(), unverified: None, made: false, tidied: Instant::now() };
        while let Some(()) = stop.run_until_cancelled(self.turn(&mut past)).await {}
    }

    /// Makes a backup if one is due, or waits.
    async fn turn(&self, past: &mut Past) {
        // Where nothing is backed up by itself, the target may not be there until it is asked for.
        if self.every.is_zero() && !self.verifies(past, false, SystemTime::now()).await {
            return tokio::time::sleep(LOOK_EVERY.min(self.verify_every)).await;
        }
        let (names, last) = match self.look().await {
            Ok(found) => found,
            Err(why) => {
                warn!("backups: {why}");
                self.metrics.backup_failures.inc();
                if self.every.is_zero() {
                    past.not_verified();
                }
                tokio::time::sleep(ASK_AGAIN).await;
                return;
            }
        };
        past.failures.retain(|home, _| names.contains(home));
        let now = SystemTime::now();
        self.count(&names, &last, now);
        let homes = names.iter().map(|home| {
            let attempts = Attempts { last: last.get(home).copied(), failed: past.failures.get(home).copied() };
            (home.as_str(), attempts)
        });
        let next = if self.every.is_zero() { Due::Never } else { due(homes, self.every, now) };
        // Where nobody has a backup there is perhaps no repository yet.
        if !last.is_empty() && self.verifies(past, matches!(next, Due::Now(_)), now).await {
            return self.verify(past).await;
        }
        let failures = &mut past.failures;
        match next {
            Due::Now(home) => match self.homes.back_up(home).await {
                Ok(()) => {
                    failures.remove(home);
                    past.made = true;
                    // Where somebody is always due, old ones would never go.
                    if past.tidied.elapsed() >= self.every {
                        self.tidy(past).await;
                    }
                }
                Err(why) => {
                    let times = failures.get(home).map_or(0, |(_, times)| *times).saturating_add(1);
                    failures.insert(home.to_owned(), (SystemTime::now(), times));
                    warn!(home, times, "backup failed: {why}");
                }
            },
            other => {
                if past.made {
                    self.tidy(past).await;
                }
                let wait = if let Due::At(at) = other { at.duration_since(now).unwrap_or_default() } else { LOOK_EVERY };
                let periods = [self.every, self.verify_every].into_iter().filter(|period| !period.is_zero());
                tokio::time::sleep(periods.fold(wait.min(LOOK_EVERY), Duration::min)).await;
            }
        }
    }

    async fn look(&self) -> Result<(Vec<String>, HashMap<String, SystemTime>), String> {
        let names = self.homes.names().await?;
        let mut last: HashMap<String, SystemTime> = HashMap::new();
        for backup in self.backups.list(None).await.map_err(|why| why.to_string())? {
            let newest = last.entry(backup.home).or_insert(backup.at);
            *newest = backup.at.max(*newest);
        }
        Ok((names, last))
    }

    async fn verifies(&self, past: &Past, homes_wait: bool, now: SystemTime) -> bool {
        if self.verify_every.is_zero() {
            return false;
        }
        match self.homes.verified().await {
            Ok(verified) => {
                let attempts = Attempts { last: verified, failed: past.unverified };
                verifies(attempts, self.verify_every, homes_wait, now)
            }
            Err(why) => {
                warn!("it is not known when the repository was last verified: {why}");
                false
            }
        }
    }

    async fn verify(&self, past: &mut Past) {
        match self.homes.verify().await {
            Ok(()) => past.unverified = None,
            Err(why) => {
                past.not_verified();
                self.metrics.backup_failures.inc();
                warn!("the repository could not be verified: {why}");
            }
        }
    }

    /// Counts those whose last backup is older than it should be by half as much again. A home without one counts from its first look on.
    fn count(&self, names: &[String], last: &HashMap<String, SystemTime>, now: SystemTime) {
        let old = self.every + self.every / 2;
        let is_late = |home: &&String| {
            !self.every.is_zero() && last.get(*home).is_none_or(|last| now.duration_since(*last).is_ok_and(|age| age > old))
        };
        let late = names.iter().filter(is_late).count();
        self.metrics.backups_late.set(i64::try_from(late).unwrap_or(i64::MAX));
        if let Some(last) = last.values().max() {
            self.metrics.backup_last_success.set(seconds(*last));
        }
    }

    async fn tidy(&self, past: &mut Past) {
        (past.made, past.tidied) = (false, Instant::now());
        match self.backups.retain(&|_| ()).await {
            Ok(pruned) => info!(backups = pruned.backups, bytes = pruned.bytes, "old backups taken out"),
            Err(why) => {
                self.metrics.backup_failures.inc();
                warn!("old backups stay: {why}");
            }
        }
    }
}

/// Seconds since 1970, for a metric.
pub(crate) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
