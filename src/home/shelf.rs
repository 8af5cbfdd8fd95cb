//! What entries are called, and how one gets another name. Names and renames only: what is in an entry is its driver's.
//!
//! ```text
//! alice                            a home
//! alice.data                       a volume of the same workspace
//! +0123456789abcdef                not finished, or being removed: nobody's after a kill
//! =0123456789abcdef                a snapshot: nobody's after a kill
//! alice@deleted@1764000000000      a home that was set aside, and when, in milliseconds
//! alice@snapshot@first             a snapshot that is kept under this name
//! ```
//! No name of one kind can be one of another, since those of workspaces and volumes are of `[a-z0-9-]`.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use super::HomeError;
use super::driver::HomeId;
use crate::name::SnapshotName;

/// Why a home was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AsideReason {
    /// It was deleted, and can be had back for a while.
    Deleted,
    /// Another took its place.
    Replaced,
}

/// A home that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsideId {
    /// Whose it was.
    pub home: HomeId,
    /// Why.
    pub why: AsideReason,
    /// When, in milliseconds since 1970.
    at: u64,
}

/// What was in a home when a snapshot of its workspace was taken that is kept. Nobody writes to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeptId {
    /// Which home.
    pub home: HomeId,
    /// Which snapshot of its workspace.
    pub snapshot: SnapshotName,
}

/// What an entry is, as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A home.
    Home(HomeId),
    /// Nobody's, unless this process holds it.
    Passing,
    /// A driver's, that works on it: what a kill leaves of it is removed at the next start.
    Draft,
    /// A home that was set aside.
    Aside(AsideId),
    /// A snapshot that is kept.
    Kept(KeptId),
    /// Nothing of ours.
    Other,
}

/// A name for what is not finished.
pub(super) fn fresh_stage() -> OsString {
    fresh('+')
}

/// A name for what a driver makes to put it in place of something.
pub(super) fn fresh_draft() -> OsString {
    fresh('~')
}

/// A name for a snapshot.
pub(super) fn fresh_snapshot() -> OsString {
    fresh('=')
}

fn fresh(kind: char) -> OsString {
    format!("{kind}{}", HEXLOWER.encode(&rand::random::<[u8; 8]>())).into()
}

/// What an entry of this name is.
pub(super) fn entry(name: &str) -> Entry {
    if let Some(home) = HomeId::parse(name) {
        return Entry::Home(home);
    }
    if let Some(aside) = AsideId::parse(name) {
        return Entry::Aside(aside);
    }
    if let Some(kept) = KeptId::parse(name) {
        return Entry::Kept(kept);
    }
    let digits = name.get(1..).is_some_and(|digits| digits.len() == 16 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    match name.as_bytes().first() {
        Some(b'+' | b'=') if digits => Entry::Passing,
        Some(b'~') if digits => Entry::Draft,
        _ => Entry::Other,
    }
}

/// All entries of a root.
pub(super) fn list(root: &Path) -> Result<Vec<(OsString, Entry)>, HomeError> {
    let mut all = Vec::new();
    for found in std::fs::read_dir(root).map_err(HomeError::of("list", root))? {
        let name = found.map_err(HomeError::of("list", root))?.file_name();
        let kind = name.to_str().map_or(Entry::Other, entry);
        all.push((name, kind));
    }
    Ok(all)
}

/// Gives an entry another name, for good; fails if there is one of that name.
pub(super) fn rename(root: &Path, from: &Path, to: &Path) -> Result<(), HomeError> {
    rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(HomeError::of("give another name to", from))?;
    sync(root)
}

/// Has the names in a directory on the disk.
pub(super) fn sync(root: &Path) -> Result<(), HomeError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(HomeError::of("open", root))?;
    rustix::fs::fsync(&dir).map_err(HomeError::of("sync", root))
}

/// Whether there is an entry of this name, of whatever kind.
pub(super) fn exists(path: &Path) -> Result<bool, HomeError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(why) => Err(HomeError::of("look at", path)(why)),
    }
}

// === impl AsideId ===

impl AsideId {
    /// One that is set aside now.
    pub(super) fn now(home: HomeId, why: AsideReason) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { home, why, at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// The same, a moment later.
    pub(super) fn later(self) -> Self {
        Self { at: self.at.saturating_add(1), ..self }
    }

    /// When it was set aside.
    pub fn at(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.at)
    }

    /// Parses what [`Self`] is printed as.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('@');
        let (home, why, at) = (HomeId::parse(parts.next()?)?, parts.next()?, parts.next()?);
        let why = [AsideReason::Deleted, AsideReason::Replaced].into_iter().find(|reason| reason.word() == why)?;
        let aside = Self { home, why, at: at.parse().ok()? };
        // A moment later than the clock can say would be an overflow.
        let fits = aside.at <= i64::MAX as u64 / 1_000_000 && parts.next().is_none();
        (fits && aside.to_string() == text).then_some(aside)
    }
}

impl fmt::Display for AsideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}@{}", self.home, self.why.word(), self.at)
    }
}

// === impl KeptId ===

/// Between the name of a home and that of a snapshot.
const KEPT: &str = "@snapshot@";

impl KeptId {
    /// Parses what [`Self`] is printed as.
    pub fn parse(text: &str) -> Option<Self> {
        let (home, snapshot) = text.split_once(KEPT)?;
        Some(Self { home: HomeId::parse(home)?, snapshot: snapshot.parse().ok()? })
    }
}

impl fmt::Display for KeptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{KEPT}{}", self.home, self.snapshot)
    }
}

impl AsideReason {
    fn word(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Replaced => "replaced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_is_of() {
        let stage = fresh_stage().into_string().unwrap();
        assert_eq!(entry(fresh_draft().to_str().unwrap()), Entry::Draft);
        let aside = AsideId::now(HomeId::parse("alice.data").unwrap(), AsideReason::Replaced);
        assert_eq!(entry("alice"), Entry::Home(HomeId::parse("alice").unwrap()));
        assert_eq!(entry(&stage), Entry::Passing);
        assert_eq!(entry(&aside.to_string()), Entry::Aside(aside.clone()));
        assert!(aside.at().elapsed().unwrap() < Duration::from_secs(60));
        let kept = KeptId::parse("alice.data@snapshot@v-1").unwrap();
        assert_eq!(entry(&kept.to_string()), Entry::Kept(kept));
        let others =
            ["+", "+x", "+0123456789ABCDEF", "alice@deleted", "alice@gone@1", "alice@deleted@01", "alice@deleted@1@2", "lost+found"];
        for other in others.into_iter().chain([
            "alice@snapshot@",
            "@snapshot@v1",
            "alice@snapshot@v1@2",
            ".mounts",
            ".projects",
            "alice@deleted@18446744073709551615",
        ]) {
            assert_eq!(entry(other), Entry::Other, "{other}");
        }
    }

    #[test]
    fn nothing_is_renamed_over_anything() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        assert!(rename(dir.path(), &a, &b).unwrap_err().is_taken());
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "b");
    }
}
