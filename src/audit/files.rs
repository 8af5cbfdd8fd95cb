//! The trail's directory: `key`, `head`, `audit.jsonl` that is written to, and `audit-<number of its first line>.jsonl` that are closed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;
use serde_json::Value;

use super::chain::{Digest, Key, Link};

/// The file that is written to.
const CURRENT: &str = "audit.jsonl";
const CLOSED: (&str, &str) = ("audit-", ".jsonl");
/// Bytes of the disk that are not used up. SQLite begins with 32 KiB beside its file.
const LEFT: u64 = 512 * 1024;
/// Longest line that is read, in bytes. Those that are written are a few hundred.
const LONGEST: u64 = 64 * 1024;

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

/// A line as it was read.
pub struct Line {
    /// Its bytes, without the line feed.
    pub bytes: Vec<u8>,
    /// Which file it is in.
    pub file: PathBuf,
    /// Its number in that file, from 1.
    pub number: u64,
    /// Whether a line feed follows: it is all there.
    pub whole: bool,
}

// === impl Files ===

impl Files {
    /// The directory, which is made.
    pub(super) fn make(root: &Path) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(root) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
            _ => Ok(Self { root: root.to_owned() }),
        }
    }

    /// One that there is.
    pub(super) fn of(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The secret; made where there is none and nothing was written with it.
    pub(super) fn key(&self) -> io::Result<Key> {
        match self.known_key() {
            Err(why) if why.kind() == io::ErrorKind::NotFound && self.all()?.is_empty() => {
                let key: [u8; 32] = rand::random();
                self.replace("key", hex::encode(key).as_bytes())?;
                Ok(Key(key))
            }
            known => known,
        }
    }

    /// The secret that there is.
    pub(super) fn known_key(&self) -> io::Result<Key> {
        let mut key = [0; 32];
        let text = fs::read_to_string(self.root.join("key"))?;
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| io::Error::other("the file `key` is not a key"))?;
        Ok(Key(key))
    }

    /// Where the chain stood when it was last known to be on the disk. `None`: it was never noted.
    pub(super) fn head(&self) -> io::Result<Option<Link>> {
        let text = match fs::read_to_string(self.root.join("head")) {
            Ok(text) => text,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        let nonsense = || io::Error::other("the file `head` is damaged");
        let (seq, digits) = text.trim().split_once(' ').ok_or_else(nonsense)?;
        let mut digest = Digest::default();
        hex::decode_to_slice(digits, &mut digest).map_err(|_| nonsense())?;
        Ok(Some(Link { seq: seq.parse().map_err(|_| nonsense())?, digest }))
    }

    pub(super) fn note_head(&self, link: Link) -> io::Result<()> {
        self.replace("head", format!("{} {}\n", link.seq, hex::encode(link.digest)).as_bytes())
    }

    /// Puts a small file in the place of another, at once and for good.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let new = self.root.join(format!("{name}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_data()?;
        fs::rename(&new, self.root.join(name))?;
        self.sync()
    }

    /// A small file's content, if it is there.
    pub(super) fn small(&self, name: &str) -> Option<String> {
        let mut text = String::new();
        File::open(self.root.join(name)).ok()?.take(4096).read_to_string(&mut text).ok()?;
        Some(text)
    }

    /// An error where the disk has so little left that it is the database's: without that nobody can be served at the next start.
    pub(super) fn has_room(&self) -> io::Result<()> {
        let disk = statvfs(&self.root)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) >= LEFT { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    /// Everything that is named is so on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }

    /// The file that is written to.
    pub(super) fn current(&self) -> PathBuf {
        self.root.join(CURRENT)
    }

    pub(super) fn open_current(&self) -> io::Result<File> {
        OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.current())
    }

    /// Closes the file that is written to, whose first line has this number.
    pub(super) fn close_current(&self, first: u64) -> io::Result<()> {
        match fs::rename(self.current(), self.root.join(format!("{}{first:012}{}", CLOSED.0, CLOSED.1))) {
            // Closed by a try before, after which no new one could be opened.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// All files with lines, the oldest first.
    pub(super) fn all(&self) -> io::Result<Vec<PathBuf>> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let name = entry?.file_name();
            let first = name.to_str().and_then(|name| name.strip_prefix(CLOSED.0)?.strip_suffix(CLOSED.1)?.parse::<u64>().ok());
            closed.extend(first.map(|first| (first, self.root.join(&name))));
        }
        closed.sort();
        let mut all: Vec<PathBuf> = closed.into_iter().map(|(_, path)| path).collect();
        if self.current().exists() {
            all.push(self.current());
        }
        Ok(all)
    }

    /// The number of a closed file's first line.
    pub(super) fn number_of(path: &Path) -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix(CLOSED.0)?.strip_suffix(CLOSED.1)?.parse().ok()
    }

    /// The files in which lines from this number on are, the oldest first.
    pub(super) fn from(&self, seq: u64) -> io::Result<Vec<PathBuf>> {
        let mut all = self.all()?;
        // A file ends where the next begins; of the last it is not known.
        let done =
            all.windows(2).take_while(|pair| matches!(pair, [_, next] if Self::number_of(next).is_some_and(|first| first <= seq))).count();
        Ok(all.split_off(done))
    }

    /// Hands over the lines of all files, the oldest first, as long as that is wanted.
    pub(super) fn lines(&self, wanted: &mut dyn FnMut(Line) -> bool) -> io::Result<()> {
        for path in self.all()? {
            if !read_file(&path, wanted)? {
                break;
            }
        }
        Ok(())
    }
}

/// Hands over the events of a trail, the oldest first, as long as they are wanted; what is no event is passed over.
pub fn read(root: &Path, wanted: &mut dyn FnMut(Value) -> bool) -> io::Result<()> {
    Files::of(root).lines(&mut |line| serde_json::from_slice(&line.bytes).map_or(true, &mut *wanted))
}

/// Whether more was wanted.
pub(super) fn read_file(path: &Path, wanted: &mut dyn FnMut(Line) -> bool) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    for number in 1.. {
        let mut bytes = Vec::new();
        (&mut file).take(LONGEST).read_until(b'\n', &mut bytes)?;
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if bytes.is_empty() && !whole {
            break;
        }
        if !wanted(Line { bytes, file: path.to_owned(), number, whole }) {
            return Ok(false);
        }
    }
    Ok(true)
}
