//! What a service has said last, line by line.
//!
//! A line is kept once it has ended, or has become too long to wait for its end; what is begun is not shown. Lines are numbered in the
//! order in which they come, over all services, so that several services' can be read as one. Whoever reads them is not known here.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most bytes of lines that are kept of one service, with what it costs to keep them.
const ROOM: usize = 128 * 1024;

/// What a line costs beside its bytes: a service that says nothing but newlines is bounded too.
const LINE_COSTS: usize = 64;

/// Longest line, in bytes. What is longer becomes several.
const LONGEST: usize = 8 * 1024;

/// A line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    /// When it ended, in milliseconds since 1970.
    at: u64,
    text: Box<[u8]>,
}

/// The last lines of one service.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<Line>,
    size: usize,
    begun: Vec<u8>,
    forgotten: Option<u64>,
}

// === impl Line ===

impl Line {
    /// As it is shown.
    pub(super) fn write(&self, service: &str, to: &mut Vec<u8>) {
        to.extend_from_slice(format!("[{service}] {} ", rfc3339(self.at)).as_bytes());
        to.extend_from_slice(&self.text);
        to.push(b'\n');
    }
}

// === impl Log ===

impl Log {
    /// Takes what was said. `last` is the number of the last line of all services.
    pub(super) fn take(&mut self, mut bytes: &[u8], last: &mut u64) {
        while !bytes.is_empty() {
            let room = LONGEST.saturating_sub(self.begun.len());
            let end = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let (part, rest) = bytes.split_at(end.unwrap_or(room).min(bytes.len()));
            self.begun.extend_from_slice(part);
            bytes = if end.is_some() { rest.get(1..).unwrap_or_default() } else { rest };
            if end.is_some() || self.begun.len() >= LONGEST {
                self.end_line(last);
            }
        }
    }

    /// Nobody says any more how a line goes on that was begun.
    pub(super) fn end(&mut self, last: &mut u64) {
        if !self.begun.is_empty() {
            self.end_line(last);
        }
    }

    /// The first line that has this number or a later one.
    pub(super) fn from(&self, number: u64) -> Option<&Line> {
        self.lines.get(self.lines.partition_point(|line| line.number < number))
    }

    /// The number of the last line that had to go since this was asked, if one had to.
    pub(super) fn forgotten(&mut self) -> Option<u64> {
        self.forgotten.take()
    }

    fn end_line(&mut self, last: &mut u64) {
        *last += 1;
        let text = std::mem::take(&mut self.begun).into_boxed_slice();
        self.size += text.len() + LINE_COSTS;
        self.lines.push_back(Line { number: *last, at: now(), text });
        while self.size > ROOM
            && let Some(line) = self.lines.pop_front()
        {
            self.size -= line.text.len() + LINE_COSTS;
            self.forgotten = Some(line.number);
        }
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// RFC 3339, in UTC.
fn rfc3339(at: u64) -> String {
    let (seconds, millis) = (at / 1000, at % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the day that some have more is their last; an era has 400 of them.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(log: &Log) -> Vec<String> {
        log.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()).collect()
    }

    #[test]
    fn lines_are_kept_when_they_have_ended() {
        let (mut log, mut last) = (Log::default(), 6);
        log.take(b"one\ntw", &mut last);
        assert_eq!(shown(&log), ["one"]);
        log.take(b"o\n\nthr", &mut last);
        log.end(&mut last);
        log.end(&mut last);
        assert_eq!((shown(&log), last), (["one", "two", "", "thr"].map(str::to_owned).to_vec(), 10));
        assert_eq!(log.from(0).unwrap().number, 7);
        assert_eq!(log.from(9).unwrap().number, 9);
        assert!(log.from(11).is_none() && log.forgotten().is_none());
        let mut written = Vec::new();
        log.lines[0].write("web", &mut written);
        let text = String::from_utf8(written).unwrap();
        assert!(text.starts_with("[web] 2") && text.ends_with("Z one\n"), "{text}");
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let (mut log, mut last) = (Log::default(), 0);
        log.take(&vec![b'x'; LONGEST * 2 + 1], &mut last);
        log.take(b"\n", &mut last);
        let lengths: Vec<_> = log.lines.iter().map(|line| line.text.len()).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, 1]);
        let mut exact = vec![b'y'; LONGEST];
        exact.push(b'\n');
        log.take(&exact, &mut last);
        assert_eq!(last, 4, "a line of exactly that length is one");
    }

    #[test]
    fn the_oldest_go_and_it_is_known_which() {
        let (mut log, mut last) = (Log::default(), 0);
        for _ in 0..10_000 {
            log.take(b"\n", &mut last);
        }
        let kept = ROOM / LINE_COSTS;
        assert_eq!((log.lines.len(), log.size), (kept, ROOM));
        assert_eq!(log.forgotten(), Some((10_000 - kept) as u64));
        assert_eq!(log.forgotten(), None);
        log.take(&vec![b'x'; ROOM], &mut last);
        assert!(log.size <= ROOM);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(rfc3339(1_709_251_199_007), "2024-02-29T23:59:59.007Z");
        assert_eq!(rfc3339(1_735_689_599_999), "2024-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
