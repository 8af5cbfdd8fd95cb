//! Reading the trail from its end, a page at a time, however long it is: so many bytes are looked at for a page, and no more.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::Files;

/// Which events are wanted. What is not said wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of this kind.
    pub kind: Option<String>,
    /// What this account did or tried.
    pub account: Option<String>,
    /// About this workspace.
    pub workspace: Option<String>,
    /// Not before this, in the form that lines have.
    pub since: Option<String>,
    /// Before this.
    pub until: Option<String>,
}

/// Where the next page goes on: in the file whose first line has this number, before this byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The number.
    pub first: u64,
    /// The byte.
    pub before: u64,
}

/// A page, the newest event first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The events.
    pub events: Vec<Value>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Mark>,
}

/// Bytes that are looked at for a page: some ten thousand lines.
const LOOKED_AT: u64 = 8 * 1024 * 1024;
/// Bytes that are read at once.
const BLOCK: u64 = 64 * 1024;
/// Longest line that is put together, in bytes; those that are written are a few hundred.
const LONGEST: u64 = 256 * 1024;

/// A page of a trail, of at most so many events.
pub(super) fn page(root: &Path, wanted: &Wanted, from: Option<Mark>, limit: usize) -> io::Result<Page> {
    page_within(root, wanted, from, limit, LOOKED_AT)
}

fn page_within(root: &Path, wanted: &Wanted, from: Option<Mark>, limit: usize, mut budget: u64) -> io::Result<Page> {
    let mut page = Page { events: Vec::new(), next: None };
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for path in Files::of(root).all()? {
        // Closed meanwhile, or removed as it is old: what it had is found under its other name, or gone.
        let Ok(first) = first_of(&path) else { continue };
        files.extend(first.map(|first| (first, path)));
    }
    for (first, path) in files.into_iter().rev() {
        let before = match from {
            Some(mark) if first > mark.first => continue,
            Some(mark) if first == mark.first => Some(mark.before),
            _ => None,
        };
        let mut file = match File::open(&path) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let length = file.metadata()?.len();
        let mut lines = Backwards { position: before.map_or(length, |before| before.min(length)), held: Vec::new() };
        loop {
            let at = lines.next_end();
            if page.events.len() >= limit || budget == 0 {
                page.next = (at > 0).then_some(Mark { first, before: at });
                // Of what older files have, it is not known yet whether there is any.
                page.next = page.next.or(Some(Mark { first, before: 0 }));
                return Ok(page);
            }
            let Some(line) = lines.next(&mut file, &mut budget)? else { break };
            let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
            if wanted.is_past(&event) {
                return Ok(page);
            }
            if wanted.takes(&event) {
                page.events.push(event);
            }
        }
    }
    Ok(page)
}

/// The number of a file's first line: a closed one's name says it. `None`: it has none yet.
fn first_of(path: &Path) -> io::Result<Option<u64>> {
    if let Some(first) = Files::number_of(path) {
        return Ok(Some(first));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(BLOCK).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice::<Value>(line).ok().and_then(|event| event["seq"].as_u64()))
}

/// The lines of a file from a position backwards.
struct Backwards {
    /// Up to where the file was not read yet.
    position: u64,
    /// What was read behind that and not handed out yet.
    held: Vec<u8>,
}

impl Backwards {
    /// Where the next line ends.
    fn next_end(&self) -> u64 {
        self.position + self.held.len() as u64
    }

    /// The next line, without its line feed. Blocks that are read are taken off the budget, which may end within a line: that is read whole.
    fn next(&mut self, file: &mut File, budget: &mut u64) -> io::Result<Option<Vec<u8>>> {
        if self.next_end() == 0 {
            return Ok(None);
        }
        loop {
            // The last byte is the line's own end.
            let inner = self.held.len().saturating_sub(1);
            if let Some(start) = self.held.iter().take(inner).rposition(|byte| *byte == b'\n') {
                let mut line = self.held.split_off(start + 1);
                line.pop_if(|last| *last == b'\n');
                return Ok(Some(line));
            }
            if self.position == 0 {
                let mut line = std::mem::take(&mut self.held);
                line.pop_if(|last| *last == b'\n');
                return Ok(Some(line));
            }
            let length = BLOCK.min(self.position);
            self.position -= length;
            *budget = budget.saturating_sub(length);
            file.seek(SeekFrom::Start(self.position))?;
            let mut block = vec![0; length as usize];
            file.read_exact(&mut block)?;
            if self.held.len() as u64 <= LONGEST {
                block.append(&mut self.held);
            } else {
                // Nothing that was written here is as long: what was held is passed over.
                self.held.clear();
            }
            self.held = block;
        }
    }
}

// === impl Wanted ===

impl Wanted {
    fn takes(&self, event: &Value) -> bool {
        let is = |wanted: &Option<String>, value: &Value| wanted.as_deref().is_none_or(|wanted| value.as_str() == Some(wanted));
        let early = self.until.as_deref().is_none_or(|until| event["at"].as_str().is_some_and(|at| at < until));
        early
            && is(&self.kind, &event["event"])
            && is(&self.account, &event["actor"]["account"])
            && is(&self.workspace, &event["workspace"])
    }

    /// Whether it is older than all that are wanted; so are those before it.
    fn is_past(&self, event: &Value) -> bool {
        self.since.as_deref().is_some_and(|since| event["at"].as_str().is_some_and(|at| at < since))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// A trail of so many lines, of which a file has so many; the last is what is written to.
    fn trail(lines: u64, each: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        let mut first = 1;
        for seq in 1..=lines {
            let account = if seq % 3 == 0 { "alice" } else { "bob" };
            let at = format!("2026-01-01T00:00:00.{seq:06}Z");
            writeln!(text, r#"{{"seq":{seq},"at":"{at}","event":"login","actor":{{"account":"{account}"}},"workspace":"w"}}"#).unwrap();
            if seq % each == 0 {
                std::fs::write(dir.path().join(format!("audit-{first:012}.jsonl")), &text).unwrap();
                (text, first) = (String::new(), seq + 1);
            }
        }
        std::fs::write(dir.path().join("audit.jsonl"), text).unwrap();
        dir
    }

    fn all(root: &Path, wanted: &Wanted, limit: usize, budget: u64) -> Vec<u64> {
        let (mut seen, mut from) = (Vec::new(), None);
        for _ in 0..10_000 {
            let page = page_within(root, wanted, from, limit, budget).unwrap();
            assert!(page.events.len() <= limit);
            seen.extend(page.events.iter().map(|event| event["seq"].as_u64().unwrap()));
            from = page.next;
            if from.is_none() {
                return seen;
            }
        }
        panic!("it has no end");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn pages_together_are_the_trail_from_its_end(lines in 0u64..60, each in 1u64..30, limit in 1usize..20, budget in 1u64..4000) {
            let dir = trail(lines, each);
            prop_assert_eq!(all(dir.path(), &Wanted::default(), limit, budget), (1..=lines).rev().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_and_what_is_too_old_ends_it() {
        let dir = trail(30, 7);
        let alice = Wanted { account: Some("alice".to_owned()), ..Wanted::default() };
        assert_eq!(all(dir.path(), &alice, 4, u64::MAX), [30, 27, 24, 21, 18, 15, 12, 9, 6, 3]);
        let at = |seq: u64| Some(format!("2026-01-01T00:00:00.{seq:06}Z"));
        let some = Wanted { since: at(10), until: at(13), ..Wanted::default() };
        assert_eq!(all(dir.path(), &some, 100, u64::MAX), [12, 11, 10]);
        let none = Wanted { kind: Some("logout".to_owned()), ..Wanted::default() };
        assert!(all(dir.path(), &none, 100, 500).is_empty());
    }

    #[test]
    fn what_has_no_lines_costs_no_memory() {
        let dir = trail(3, 10);
        let path = dir.path().join("audit.jsonl");
        let mut text = std::fs::read(&path).unwrap();
        text.extend(vec![b'x'; 2 * 1024 * 1024]);
        text.extend(b"\n{\"seq\":4}\n");
        std::fs::write(&path, text).unwrap();
        assert_eq!(all(dir.path(), &Wanted::default(), 100, u64::MAX), [4, 3, 2, 1]);
    }

    #[test]
    fn a_mark_that_was_never_given_out_does_no_harm() {
        let dir = trail(30, 7);
        for (first, before) in [(0, 5), (1, 7), (8, u64::MAX), (u64::MAX, 3), (9, 1)] {
            page(dir.path(), &Wanted::default(), Some(Mark { first, before }), 100).unwrap();
        }
    }
}
