//! Refusals, of which a stranger can cause as many as she likes: of each source and reason the first is a line at once, and those that follow
//! within [`WINDOW`] are one line that counts them. The table is bounded; what has no place in it is counted together, by reason.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Actor, Event, What};
use crate::name::WorkspaceName;
use crate::source::source_of;

/// Something that was refused to whoever asked for it over HTTP, or came to the SSH server's door.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Who asked, as far as that is known.
    pub actor: Actor,
    /// From where.
    pub remote: Option<IpAddr>,
    /// The workspace that was named, which need not be there.
    pub workspace: Option<WorkspaceName>,
    /// Where: `ssh`, `api`, `dashboard` or `url`.
    pub door: &'static str,
    /// What for, with nothing in it that opens anything.
    pub asked: String,
    /// Why, in a word that keeps its meaning.
    pub reason: &'static str,
}

/// Those of late.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<Key, Count>);

/// What is told in lines of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    source: Source,
    actor: Actor,
    door: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    One(Option<IpAddr>),
    /// All for which there is no place.
    Others,
}

#[derive(Debug)]
struct Count {
    since: Instant,
    /// How many since the last line.
    more: u64,
}

/// How long those that follow the first are counted before it is told how many they were. After so long without any, the next is a first one.
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Sources and reasons that are told apart. With [`WINDOW`] it bounds what a flood of strangers adds to the trail: some 90 MB a day at most.
const MOST: usize = 512;

impl Refusals {
    /// The line for one, if it is the first of its kind of late; otherwise it is counted.
    pub(super) fn note(&mut self, refusal: Refusal, now: Instant) -> Option<Event> {
        let Refusal { actor, remote, workspace, door, asked, reason } = refusal;
        let remote = remote.map(|address| address.to_canonical());
        let own = Key { source: Source::One(remote.map(source_of)), actor: actor.clone(), door, reason };
        let key = if self.0.len() < MOST || self.0.contains_key(&own) {
            own
        } else {
            Key { source: Source::Others, actor: Actor::Stranger, door, reason }
        };
        match self.0.entry(key) {
            Place::Occupied(mut known) => {
                known.get_mut().more += 1;
                None
            }
            Place::Vacant(free) => {
                free.insert(Count { since: now, more: 0 });
                let what = What::Refused { door, asked: Some(asked), reason, times: 1 };
                Some(Event { remote, workspace, ..Event::now(actor, what) })
            }
        }
    }

    /// Whether nothing is counted.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lines for what was counted for long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Event> {
        self.told(|count| now.saturating_duration_since(count.since) >= WINDOW, now)
    }

    /// The lines for all that was counted: the gateway ends.
    pub(super) fn rest(&mut self, now: Instant) -> Vec<Event> {
        self.told(|_| true, now)
    }

    fn told(&mut self, which: impl Fn(&Count) -> bool, now: Instant) -> Vec<Event> {
        let mut lines = Vec::new();
        self.0.retain(|key, count| {
            if !which(count) {
                return true;
            }
            let times = std::mem::take(&mut count.more);
            count.since = now;
            if times > 0 {
                let what = What::Refused { door: key.door, asked: None, reason: key.reason, times };
                let remote = match key.source {
                    Source::One(remote) => remote,
                    Source::Others => None,
                };
                lines.push(Event { remote, ..Event::now(key.actor.clone(), what) });
            }
            times > 0
        });
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(from: &str, reason: &'static str) -> Refusal {
        let remote = Some(from.parse().unwrap());
        Refusal { actor: Actor::Stranger, remote, workspace: None, door: "api", asked: "GET /api/v1/pool".to_owned(), reason }
    }

    fn told(event: &Event) -> (Option<String>, Option<&str>, &str, u64) {
        let What::Refused { asked, reason, times, .. } = &event.what else { panic!("{event:?}") };
        (event.remote.map(|remote| remote.to_string()), asked.as_deref(), reason, *times)
    }

    #[test]
    fn the_first_is_a_line_and_those_that_follow_are_one() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let first = refusals.note(refusal("192.0.2.1", "no-token"), start).unwrap();
        assert_eq!(told(&first), (Some("192.0.2.1".to_owned()), Some("GET /api/v1/pool"), "no-token", 1));
        for _ in 0..1000 {
            assert_eq!(refusals.note(refusal("192.0.2.1", "no-token"), start), None);
        }
        assert!(refusals.note(refusal("192.0.2.1", "unknown-token"), start).is_some(), "another reason");
        assert!(refusals.note(refusal("192.0.2.2", "no-token"), start).is_some(), "another source");
        let named = Refusal { actor: Actor::Token("site".to_owned()), ..refusal("192.0.2.1", "no-token") };
        assert!(refusals.note(named, start).is_some(), "somebody who is known");
        assert_eq!(refusals.due(start + WINDOW / 2), []);
        let lines = refusals.due(start + WINDOW);
        assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), [(Some("192.0.2.1".to_owned()), None, "no-token", 1000)]);
        assert_eq!(refusals.note(refusal("192.0.2.1", "no-token"), start + WINDOW), None, "it goes on");
        assert!(refusals.note(refusal("192.0.2.2", "no-token"), start + WINDOW).is_some(), "that was over");
        assert_eq!(refusals.rest(start + WINDOW).iter().map(|line| told(line).3).collect::<Vec<_>>(), [1], "none is lost at an end");
        assert_eq!(refusals.due(start + 2 * WINDOW), []);
        assert!(refusals.is_empty());
    }

    #[test]
    fn a_network_is_one_source() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let first = refusals.note(refusal("2001:db8::1", "no-token"), start).unwrap();
        assert_eq!(told(&first).0.as_deref(), Some("2001:db8::1"), "the first is told as it came");
        assert_eq!(refusals.note(refusal("2001:db8::2", "no-token"), start), None);
        assert_eq!(told(&refusals.due(start + WINDOW)[0]).0.as_deref(), Some("2001:db8::"));
    }

    #[test]
    fn however_many_sources_there_are_the_lines_and_the_table_are_bounded_and_the_sum_is_right() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let reasons = ["no-token", "unknown-token"];
        let (mut lines, mut sum, asked) = (0, 0, 100_000_u32);
        for number in 0..asked {
            let from = std::net::Ipv4Addr::from(number / 2).to_string();
            let line = refusals.note(refusal(&from, reasons[number as usize % 2]), start);
            lines += u64::from(line.is_some());
            sum += line.map_or(0, |line| told(&line).3);
        }
        assert_eq!(refusals.0.len(), MOST + reasons.len());
        assert_eq!(lines, (MOST + reasons.len()) as u64);
        let counted = refusals.due(start + WINDOW);
        assert_eq!(counted.len(), reasons.len(), "all those that had no place, by reason");
        sum += counted.iter().map(|line| told(line).3).sum::<u64>();
        assert_eq!(sum, u64::from(asked), "each is a line or counted");
    }
}
