//! Who may try to log in: sshd's `MaxStartups`, and limits per source address. Counts only; knows no sockets and no protocol.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::telemetry::Metrics;

/// When connections that are not logged in yet are dropped at random, and when all of them are: `start:rate:full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaxStartups {
    start: usize,
    rate: usize,
    full: usize,
}

/// What a new connection is measured against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For connections that are not logged in yet, all sources together.
    pub(super) startups: MaxStartups,
    /// For connections that are not logged in yet, of one source.
    pub(super) startups_per_source: usize,
    /// For all connections of one source.
    pub(super) per_source: usize,
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many that are not logged in yet.
    MaxStartups,
    /// Too many from this source.
    PerSource,
}

/// The counts. Its table has one entry for each source that has a connection open, so it is as bounded as those are.
#[derive(Debug)]
pub(super) struct Admission {
    table: Mutex<Table>,
    metrics: Metrics,
}

/// An admitted connection, for as long as it is held.
#[derive(Debug)]
pub(super) struct Slot {
    admission: Arc<Admission>,
    source: Source,
    logging_in: bool,
}

#[derive(Debug, Default)]
struct Table {
    logging_in: usize,
    sources: HashMap<Source, Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    logging_in: usize,
    all: usize,
}

/// What counts as one source: an IPv4 address, or an IPv6 /64, which is the least that anybody gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6([u8; 8]),
}

// === impl MaxStartups ===

impl MaxStartups {
    /// Whether a new connection is dropped while `waiting` others are not logged in; `dice` is uniform in 0..100.
    fn drops(self, waiting: usize, dice: usize) -> bool {
        if waiting < self.start {
            return false;
        }
        if waiting >= self.full {
            return true;
        }
        // From `rate` percent at `start`, in a straight line to all of them at `full`, as sshd does.
        dice < self.rate + (100 - self.rate) * (waiting - self.start) / (self.full - self.start)
    }
}

impl FromStr for MaxStartups {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "is not start:rate:full with start <= full and rate from 1 to 100; write for example \"100:30:500\"";
        let numbers: Vec<usize> = text.split(':').map(|part| part.parse().map_err(|_| FORM)).collect::<Result<_, _>>()?;
        match numbers[..] {
            [start, rate, full] if start <= full && full > 0 && (1..=100).contains(&rate) => Ok(Self { start, rate, full }),
            _ => Err(FORM),
        }
    }
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { table: Mutex::default(), metrics }
    }

    /// Takes a place for a connection that is not logged in yet.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, limits: &Limits) -> Result<Slot, Refusal> {
        self.admit_with(peer, limits, rand::random_range(0..100))
    }

    fn admit_with(self: &Arc<Self>, peer: IpAddr, limits: &Limits, dice: usize) -> Result<Slot, Refusal> {
        let source = Source::of(peer);
        let mut table = self.table.lock();
        let (logging_in, all) = table.sources.get(&source).map_or((0, 0), |counts| (counts.logging_in, counts.all));
        if all >= limits.per_source || logging_in >= limits.startups_per_source {
            return Err(Refusal::PerSource);
        }
        if limits.startups.drops(table.logging_in, dice) {
            return Err(Refusal::MaxStartups);
        }
        table.logging_in += 1;
        let counts = table.sources.entry(source).or_default();
        counts.logging_in += 1;
        counts.all += 1;
        drop(table);
        self.gauge("login").inc();
        Ok(Slot { admission: self.clone(), source, logging_in: true })
    }

    fn gauge(&self, stage: &str) -> prometheus::IntGauge {
        self.metrics.connections_open.with_label_values(&[stage])
    }
}

// === impl Slot ===

impl Slot {
    /// The connection is logged in: it no longer counts among those that are not.
    pub(super) fn logged_in(&mut self) {
        if std::mem::take(&mut self.logging_in) {
            let mut table = self.admission.table.lock();
            table.logging_in -= 1;
            if let Some(counts) = table.sources.get_mut(&self.source) {
                counts.logging_in -= 1;
            }
            drop(table);
            self.admission.gauge("login").dec();
            self.admission.gauge("open").inc();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let stage = if self.logging_in { "login" } else { "open" };
        let mut table = self.admission.table.lock();
        table.logging_in -= usize::from(self.logging_in);
        if let Some(counts) = table.sources.get_mut(&self.source) {
            counts.logging_in -= usize::from(self.logging_in);
            counts.all -= 1;
            if counts.all == 0 {
                table.sources.remove(&self.source);
            }
        }
        drop(table);
        // Last: who sees it go finds the place free.
        self.admission.gauge(stage).dec();
    }
}

// === impl Refusal ===

impl Refusal {
    /// The value of the metric label `reason`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::MaxStartups => "max_startups",
            Self::PerSource => "per_source",
        }
    }
}

// === impl Source ===

impl Source {
    fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(startups: &str) -> Limits {
        Limits { startups: startups.parse().unwrap(), startups_per_source: 3, per_source: 4 }
    }

    fn admission() -> Arc<Admission> {
        Arc::new(Admission::new(Metrics::new().unwrap()))
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn drops_nobody_until_start_and_everybody_from_full() {
        let startups: MaxStartups = "10:30:100".parse().unwrap();
        assert!(!startups.drops(9, 0));
        assert!(startups.drops(10, 29) && !startups.drops(10, 30), "30 percent at start");
        assert!(startups.drops(55, 64) && !startups.drops(55, 65), "65 percent halfway");
        assert!(startups.drops(100, 99));
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let admission = admission();
        let mut slots: Vec<Slot> = (0..3).map(|_| admission.admit_with(v4(1), &limits("10:30:100"), 0).unwrap()).collect();
        assert_eq!(admission.admit_with(v4(1), &limits("10:30:100"), 0).unwrap_err(), Refusal::PerSource);
        assert!(admission.admit_with(v4(2), &limits("10:30:100"), 0).is_ok());
        slots.iter_mut().for_each(Slot::logged_in);
        slots.push(admission.admit_with(v4(1), &limits("10:30:100"), 0).unwrap());
        assert_eq!(admission.admit_with(v4(1), &limits("10:30:100"), 0).unwrap_err(), Refusal::PerSource, "four are open");
        drop(slots);
        assert!(admission.table.lock().sources.is_empty() && admission.table.lock().logging_in == 0);
    }

    #[test]
    fn an_ipv6_source_is_its_64_bit_prefix_and_a_mapped_address_is_ipv4() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn a_setting_of_another_form_is_refused() {
        for text in ["", "10", "10:30", "10:0:100", "10:101:100", "100:30:10", "0:1:0", "a:b:c", "1:2:3:4", "-1:30:100"] {
            assert!(text.parse::<MaxStartups>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn more_waiting_never_means_fewer_dropped(start in 0usize..50, more in 1usize..50, rate in 1usize..=100, waiting in 0usize..120, dice in 0usize..100) {
            let startups = MaxStartups { start, rate, full: start + more };
            prop_assert!(!startups.drops(waiting, dice) || startups.drops(waiting + 1, dice));
        }
    }
}
