//! Whether a trail is what was written.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::chain::{Broken, Link, Parts};
use super::files::{Files, Line};

/// Most flaws that are told of; after the first, others may only follow from it.
const MOST: usize = 20;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Files that were read.
    pub files: usize,
    /// Lines that follow.
    pub events: u64,
    /// The number of the first line that there is: 1, unless older ones were removed by age.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
    /// The last line's digest. Noted elsewhere, it shows later whether everything up to it is still there.
    pub head: String,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
}

/// Something that is not as it was written.
#[derive(Debug, Serialize)]
pub struct Flaw {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: String,
}

/// Reads the trail in this directory. `noted` is a digest that must be in it.
///
/// A gateway may be writing: a last line that is not whole is none yet.
pub fn verify(root: &Path, noted: Option<&str>) -> io::Result<Report> {
    let files = Files::of(root);
    let key = files.known_key()?;
    // Before the lines: it may go on meanwhile.
    let head = files.head()?;
    let mut link: Option<Link> = None;
    let mut report = Report { files: files.all()?.len(), events: 0, first: 0, last: 0, head: String::new(), flaws: Vec::new() };
    let (mut head_seen, mut noted_seen) = (false, false);
    files.lines(&mut |Line { bytes, file, number, whole }| {
        if !whole {
            // In the middle of a trail it is a flaw, which the next line tells by its number.
            return true;
        }
        let flaw = |what: String| Flaw { file: file.clone(), line: number, what };
        let parts = Parts::of(&bytes);
        // What comes before the first was removed with its file, and its digest with it: the first line stands for itself.
        let checked = match (&mut link, &parts) {
            (Some(link), _) => link.check(&key, &bytes),
            (None, Some(parts)) if parts.seq == 1 => {
                let mut begin = Link::default();
                let checked = begin.check(&key, &bytes);
                link = Some(begin);
                checked
            }
            (None, Some(parts)) => {
                link = Some(Link { seq: parts.seq, digest: parts.digest });
                Ok(())
            }
            (None, None) => Err(Broken::Form),
        };
        match (checked, parts) {
            (Ok(()), Some(parts)) => {
                if report.first == 0 {
                    report.first = parts.seq;
                }
                report.events += 1;
            }
            (Ok(()), None) | (Err(Broken::Form), _) => report.flaws.push(flaw("is no line of a trail".to_owned())),
            (Err(Broken::Seq { found }), _) => {
                let expected = link.map_or(1, |link| link.seq + 1);
                report.flaws.push(flaw(format!("number {found} where {expected} was due: lines are missing, or were put in")));
            }
            (Err(Broken::Digest), _) => report.flaws.push(flaw("this line or the one before it was changed".to_owned())),
        }
        if let Some(parts) = Parts::of(&bytes) {
            // Goes on from what is there, so that each flaw is told once.
            link = Some(Link { seq: parts.seq, digest: parts.digest });
            report.last = parts.seq;
            report.head = hex::encode(parts.digest);
            head_seen |= head == link;
            noted_seen |= noted.is_some_and(|noted| noted.eq_ignore_ascii_case(&report.head));
        }
        report.flaws.len() < MOST
    })?;
    let mut missing = |what: String| report.flaws.push(Flaw { file: files.current(), line: 0, what });
    if let Some(head) = head.filter(|_| !head_seen) {
        missing(format!("line {} was written and is not there: the end was cut off or changed", head.seq));
    }
    if let Some(noted) = noted.filter(|_| !noted_seen) {
        missing(format!("no line has the digest {noted}"));
    }
    Ok(report)
}
