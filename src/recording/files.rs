//! The directory of recordings: `<id>.cast.zst`, or `<id>.sealed` where it is encrypted, each with `.part` behind it until it is whole.
//!
//! Before a recording stands what is known of it, as a frame of zstd's that its programs skip (RFC 8878, section 3.1.2), so that
//! `zstd -dc` gives what asciinema reads.
//!
//! Of one that is in a bucket, under the same name, that head stays here, and its length behind it: `.away`. One that is to go from there is
//! `.gone` until it has.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::statvfs;

use super::cast::Meta;
use super::id::RecordingId;

const PLAIN: &str = ".cast.zst";
const SEALED: &str = ".sealed";
const PART: &str = ".part";
const AWAY: &str = ".away";
const GONE: &str = ".gone";
/// What a kill may leave half written, or nobody needs any more.
const NEW: &str = ".new";

/// What a frame that is skipped begins with.
const SKIPPED: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// The most that is known of a recording, in bytes.
const LONGEST: usize = 16 * 1024;

/// The directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    root: PathBuf,
}

/// A recording that is there, here or in a bucket.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: RecordingId,
    pub(super) meta: Meta,
    pub(super) bytes: u64,
    pub(super) written: SystemTime,
    pub(super) whole: bool,
    pub(super) away: bool,
}

/// What earlier processes have left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) recordings: Vec<Found>,
    /// Names of those that are to go from the bucket.
    pub(super) gone: Vec<String>,
}

/// What a recording's file is called, and its object in a bucket.
pub(super) fn name_of(id: RecordingId, sealed: bool, whole: bool) -> String {
    let (kind, part) = (if sealed { SEALED } else { PLAIN }, if whole { "" } else { PART });
    format!("{id}{kind}{part}")
}

impl Files {
    /// The directory, which is made.
    pub(super) fn make(root: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(root) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
            _ => Ok(Self { root: root.to_owned() }),
        }
    }

    fn path(&self, id: RecordingId, sealed: bool, whole: bool) -> PathBuf {
        self.root.join(name_of(id, sealed, whole))
    }

    /// Where the file of this name is.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Begins a recording's file with what stands before it.
    pub(super) fn create(&self, id: RecordingId, sealed: bool, head: &[u8]) -> io::Result<File> {
        let path = self.path(id, sealed, false);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        match file.write_all(head) {
            Ok(()) => Ok(file),
            Err(why) => fs::remove_file(&path).and(Err(why)),
        }
    }

    /// It is whole now.
    pub(super) fn complete(&self, id: RecordingId, sealed: bool) -> io::Result<()> {
        fs::rename(self.path(id, sealed, false), self.path(id, sealed, true))
    }

    /// A recording's file, for reading.
    pub(super) fn open(&self, id: RecordingId, sealed: bool) -> io::Result<File> {
        let mut opened = Err(io::ErrorKind::NotFound.into());
        // Once more at the end: it may get its whole name in between.
        for whole in [true, false, true] {
            opened = File::open(self.path(id, sealed, whole));
            if !opened.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::NotFound) {
                break;
            }
        }
        opened
    }

    /// Removes a recording; one that is not there is removed.
    pub(super) fn remove(&self, id: RecordingId, sealed: bool) -> io::Result<()> {
        [false, true].into_iter().try_for_each(|whole| self.lose(&name_of(id, sealed, whole)))
    }

    /// The bucket has it: what is known of it is all that stays. A kill anywhere here leaves both, or only that.
    pub(super) fn leave(&self, name: &str, meta: &Meta, bytes: u64) -> io::Result<()> {
        let (new, whole) = (self.root.join(format!("{name}{NEW}")), self.root.join(name));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&[&head(meta)?[..], &bytes.to_le_bytes()].concat())?;
        // Its age goes by that.
        file.set_modified(fs::metadata(&whole)?.modified()?)?;
        file.sync_all()?;
        fs::rename(&new, self.root.join(format!("{name}{AWAY}")))?;
        self.sync()?;
        fs::remove_file(whole)
    }

    /// It is to go, here and from the bucket: one step, for which a full disk has room. A kill behind it leaves what is done at the next start.
    pub(super) fn bury(&self, name: &str) -> io::Result<()> {
        let (whole, away, gone) = (self.root.join(name), self.root.join(format!("{name}{AWAY}")), self.root.join(format!("{name}{GONE}")));
        let mut found = false;
        for is_there in [whole, away] {
            match fs::rename(is_there, &gone) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                renamed => found |= renamed.is_ok(),
            }
        }
        if found || gone.exists() { OpenOptions::new().write(true).truncate(true).open(gone).map(drop) } else { Ok(()) }
    }

    /// It has gone from the bucket.
    pub(super) fn buried(&self, name: &str) -> io::Result<()> {
        self.lose(&format!("{name}{GONE}"))
    }

    fn lose(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(name)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    /// Has the names on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }

    /// A file without a name, for what is fetched back.
    pub(super) fn nameless(&self) -> io::Result<File> {
        let path = self.root.join(format!("{:032x}{NEW}", rand::random::<u128>()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(path)?;
        Ok(file)
    }

    /// All recordings there are. One that has not even its beginning is removed: a kill came between.
    pub(super) fn all(&self) -> io::Result<Left> {
        let names = fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        let names: BTreeSet<String> = names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect();
        let mut left = Left::default();
        // One that cannot be tidied up does not hide the others.
        let warn = |name: &str, why: io::Error| tracing::warn!(%name, %why, "what a kill has left of a recording is left where it is");
        for name in &names {
            if name.ends_with(NEW) {
                self.lose(name).unwrap_or_else(|why| warn(name, why));
            } else if let Some(name) = name.strip_suffix(GONE).filter(|name| named(name).is_some()) {
                self.bury(name).unwrap_or_else(|why| warn(name, why));
                left.gone.push(name.to_owned());
            }
        }
        for found in names {
            let (name, away) = found.strip_suffix(AWAY).map_or((found.as_str(), false), |name| (name, true));
            let Some((id, whole)) = named(name) else { continue };
            let path = self.root.join(&found);
            if away && self.root.join(name).exists() {
                // It was about to be removed, and goes to the bucket once more.
                self.lose(&found).unwrap_or_else(|why| warn(&found, why));
                continue;
            }
            let read = File::open(&path).and_then(|mut file| {
                let (meta, _) = read_head(&mut file)?;
                let about = file.metadata()?;
                let mut bytes = about.len().to_le_bytes();
                if away {
                    file.read_exact(&mut bytes)?;
                }
                Ok(Found { id, meta, bytes: u64::from_le_bytes(bytes), written: about.modified()?, whole, away })
            });
            match read {
                Ok(found) => left.recordings.push(found),
                // It was to go.
                Err(why) if why.kind() == io::ErrorKind::NotFound => {}
                Err(why) if why.kind() == io::ErrorKind::UnexpectedEof && !whole && !away => {
                    self.lose(&found).unwrap_or_else(|why| warn(&found, why));
                }
                Err(why) => tracing::warn!(recording = %id, %why, "a recording cannot be read, and is left where it is"),
            }
        }
        Ok(left)
    }

    /// Bytes that are free on its disk.
    pub(super) fn free(&self) -> io::Result<u64> {
        let disk = statvfs(&self.root)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// Which recording a file is, and whether it is whole.
fn named(name: &str) -> Option<(RecordingId, bool)> {
    let (name, whole) = name.strip_suffix(PART).map_or((name, true), |name| (name, false));
    let id = name.strip_suffix(PLAIN).or_else(|| name.strip_suffix(SEALED))?;
    Some((id.parse().ok()?, whole))
}

/// What stands before a recording.
pub(super) fn head(meta: &Meta) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(meta)?;
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= LONGEST).ok_or_else(|| io::Error::other("too long"))?;
    Ok([&SKIPPED[..], &length.to_le_bytes(), &text].concat())
}

/// Reads what stands before a recording, and gives its bytes as well.
pub(super) fn read_head(from: &mut impl Read) -> io::Result<(Meta, Vec<u8>)> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it does not begin as a recording does");
    let mut start = [0; 8];
    from.read_exact(&mut start)?;
    let [a, b, c, d, length @ ..] = start;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if [a, b, c, d] != SKIPPED || length > LONGEST {
        return Err(damaged());
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let meta = serde_json::from_slice(&text).map_err(|_| damaged())?;
    Ok((meta, [&start[..], &text].concat()))
}
