//! Homes: which there are, and how they come, go, and are put back. How each is kept is its [`Driver`]'s business.
//!
//! A home comes to be, or stops being one, by a single rename; whatever has to be done before or after that is done to an entry that no one
//! takes for a home. So a kill at any moment leaves a home or none, and entries that nobody holds, which the sweeper removes.
//!
//! All of this blocks, and may run programs.

mod kept;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::Mode;
use tracing::{info, warn};

use super::btrfs::Btrfs;
use super::directory::{Directories, is_directory};
use super::driver::{Applied, Driver, Holds, HomeId, Quota, Usage};
use super::loopback::Loopback;
use super::shelf::{self, AsideId, AsideReason, Entry, KeptId};
use super::skeleton::{Skeleton, SkeletonError};
use super::xfs::Xfs;
use super::{DriverKind, HomeError, files, skeleton, tree};

/// The directory that holds all homes. It belongs to root and no container ever sees it, so nobody can swap what is in it.
#[derive(Debug, Clone)]
pub struct Homes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    driver: Arc<dyn Driver>,
    /// Entries that nobody but this process has to do with, and that it still needs.
    held: Mutex<HashSet<OsString>>,
    /// What is known of homes without asking. As many as this process has made reachable.
    known: Mutex<HashMap<HomeId, Known>>,
    /// Entries that are made already, each for a home of this quota. They are held; what an ended process had, the next one removes.
    ready: Mutex<HashMap<Quota, OsString>>,
    /// How much is in the snapshots that are kept, of those that were asked for. It does not change.
    sizes: Mutex<HashMap<KeptId, tree::Measure>>,
    /// Two things are never done to one home at once. Several homes share a lock, which costs them a moment.
    turns: [Mutex<()>; TURNS],
    hasher: RandomState,
}

/// What is known of a home.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    quota: Quota,
    /// Bytes and inodes, when all files were last looked at, and how long that took.
    measured: Option<(u64, u64, Instant, Duration)>,
}

/// An empty or copied tree that is to become a home. Dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    held: Held,
    tree: PathBuf,
    copied: Option<tree::Summary>,
}

/// A read-only view of a home, until it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    /// Its root.
    pub path: PathBuf,
    /// Whether all of it is as it was at one moment. Otherwise it is the home itself, in which files may change while they are read: what is
    /// read is what a crash might have left.
    pub consistent: bool,
    /// Between the look at it and its being read nobody lets go of it, and leaves an empty directory in its place.
    _open: Option<OwnedFd>,
    _held: Option<Held>,
}

/// What a tree can be copied from.
#[derive(Debug)]
pub enum Source<'a> {
    /// A home, as it is while it is copied.
    Home(&'a HomeId),
    /// A snapshot.
    Snapshot(&'a Snapshot),
}

/// An entry that is removed when this is dropped.
#[derive(Debug)]
struct Held {
    homes: Arc<Inner>,
    name: OsString,
}

/// Locks. More than there are threads that wait for the disk at once.
const TURNS: usize = 64;
/// For how long what was found by looking at all files is good enough.
const FRESH: Duration = Duration::from_secs(15);
/// Looking at all files takes at most one part in so many of the time.
const SPARINGLY: u32 = 100;

impl Homes {
    /// Opens the directory, making it if need be, and starts the driver.
    pub fn open(root: &Path, kind: DriverKind) -> Result<Self, HomeError> {
        std::fs::create_dir_all(root).map_err(HomeError::of("make", root))?;
        // Others may pass through but not list: names of workspaces are nobody's business.
        rustix::fs::chmod(root, Mode::from_raw_mode(0o711)).map_err(HomeError::of("set the mode of", root))?;
        let root = root.canonicalize().map_err(HomeError::of("find", root))?;
        let driver: Arc<dyn Driver> = match kind {
            DriverKind::Directory => Arc::new(Directories),
            DriverKind::Loop => Arc::new(Loopback::open(&root)?),
            DriverKind::Btrfs => Arc::new(Btrfs::open(&root)?),
            DriverKind::Xfs => Arc::new(Xfs::open(&root)?),
        };
        Ok(Self(Arc::new(Inner {
            root,
            driver,
            held: Mutex::default(),
            known: Mutex::default(),
            ready: Mutex::default(),
            sizes: Mutex::default(),
            turns: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::new(),
        })))
    }

    /// The root of a home's tree, made if it is not there, and made reachable, under this quota as far as that can be had.
    ///
    /// What is in a home is never touched, and nothing is made over anything that is there.
    pub fn ensure(&self, id: &HomeId, quota: &Quota) -> Result<PathBuf, HomeError> {
        let _turn = self.turn(id);
        let entry = self.path(id);
        if !shelf::exists(&entry)? {
            let ready = self.0.ready.lock().remove(quota);
            let held = match ready {
                Some(name) => Held { homes: Arc::clone(&self.0), name },
                None => self.make(quota).map_err(|why| why.of_entry(&entry))?,
            };
            match shelf::rename(&self.0.root, &held.path(), &entry) {
                // Somebody put one there: that is the home then.
                Err(why) if why.is_taken() => {}
                other => {
                    other?;
                    info!(home = %id, "home made");
                }
            }
        }
        let (tree, applied) = self.0.driver.reach(&entry, Some(quota))?;
        if let Applied::Later(why) = &applied {
            warn!(home = %id, why, "the home's limit is not as configured yet");
        }
        self.0.known.lock().entry(id.clone()).or_default().quota = *quota;
        Ok(tree)
    }

    /// The same; a home that is not there yet starts with what is in this skeleton, within its quota. It counts as a home only when all of that is
    /// in it and on the disk, so that a kill leaves none.
    pub fn ensure_from(&self, id: &HomeId, quota: &Quota, skeleton: Option<&Skeleton>) -> Result<PathBuf, HomeError> {
        if let Some(skeleton) = skeleton
            && !self.exists(id)?
        {
            let staged = match skeleton {
                Skeleton::Path(path) => self.stage_filled(path, quota),
                Skeleton::Snapshot { workspace, snapshot } => {
                    let home = HomeId { workspace: workspace.clone(), volume: id.volume.clone() };
                    self.stage_kept(&KeptId { home, snapshot: snapshot.clone() }, quota)
                }
            };
            let staged = staged.map_err(|why| HomeError::of("fill", &self.path(id))(io::Error::other(why)))?;
            match self.commit(staged, id) {
                // Another was faster.
                Err(why) if why.is_taken() => {}
                other => {
                    other?;
                    info!(home = %id, %skeleton, "home made");
                }
            }
        }
        self.ensure(id, quota)
    }

    /// A tree with what is in a directory or an archive of the host, under a name that is no home's.
    fn stage_filled(&self, skeleton: &Path, quota: &Quota) -> Result<Staged, SkeletonError> {
        let staged = self.stage(quota)?;
        let limits = tree::Limits { bytes: quota.bytes.unwrap_or(u64::MAX), entries: quota.inodes.unwrap_or(u64::MAX) };
        let dir = super::directory::open_tree(staged.path())?;
        skeleton::fill(skeleton, dir.as_fd(), limits, &|_| ControlFlow::Continue(()))?;
        Ok(staged)
    }

    /// The root of a home's tree, which must be there. It keeps the quota that it has.
    pub fn reach(&self, id: &HomeId) -> Result<PathBuf, HomeError> {
        let _turn = self.turn(id);
        Ok(self.0.driver.reach(&self.path(id), None)?.0)
    }

    /// Makes an entry ahead for each of these quotas, where that is what a new home takes longest for.
    pub fn make_ready(&self, quotas: &[Quota]) -> Result<(), HomeError> {
        if !self.0.driver.is_slow_to_make() {
            return Ok(());
        }
        let stale: Vec<OsString> = {
            let mut ready = self.0.ready.lock();
            ready.extract_if(|quota, _| !quotas.contains(quota)).map(|(_, name)| name).collect()
        };
        stale.into_iter().for_each(|name| drop(Held { homes: Arc::clone(&self.0), name }));
        for quota in quotas {
            if self.0.ready.lock().contains_key(quota) {
                continue;
            }
            let held = self.make(quota)?;
            let replaced = self.0.ready.lock().insert(*quota, held.keep());
            drop(replaced.map(|name| Held { homes: Arc::clone(&self.0), name }));
        }
        Ok(())
    }

    /// Whether there is one.
    pub fn exists(&self, id: &HomeId) -> Result<bool, HomeError> {
        shelf::exists(&self.path(id))
    }

    /// All there are.
    pub fn homes(&self) -> Result<Vec<HomeId>, HomeError> {
        let all = shelf::list(&self.0.root)?.into_iter();
        Ok(all.filter_map(|(_, entry)| if let Entry::Home(id) = entry { Some(id) } else { None }).collect())
    }

    /// Gives a home another quota, while it is in use too.
    pub fn set_quota(&self, id: &HomeId, quota: &Quota) -> Result<Applied, HomeError> {
        let _turn = self.turn(id);
        let applied = self.0.driver.fit(&self.path(id), quota)?;
        self.0.known.lock().entry(id.clone()).or_default().quota = *quota;
        Ok(applied)
    }

    /// How this quota holds of a home, whether it is there or not. Takes no time.
    pub fn holds(&self, id: &HomeId, quota: &Quota) -> Result<Holds, HomeError> {
        let entry = self.path(id);
        if shelf::exists(&entry)? { self.0.driver.holds(&entry, quota) } else { Ok(self.0.driver.would_hold()) }
    }

    /// How much is in a home, and may be. Takes no time: where nobody counts it is what [`Self::measure`] last found, and `None` before that.
    pub fn usage(&self, id: &HomeId) -> Result<Option<Usage>, HomeError> {
        if let Some(usage) = self.0.driver.usage(&self.path(id))? {
            return Ok(Some(usage));
        }
        let known = self.0.known.lock().get(id).copied().unwrap_or_default();
        Ok(known.measured.map(|(bytes, inodes, ..)| Usage { bytes, inodes: Some(inodes), limit: known.quota }))
    }

    /// Whether [`Self::measure`] has anything to find out that is not known well enough.
    pub fn is_unmeasured(&self, id: &HomeId) -> bool {
        let measured = self.0.known.lock().get(id).and_then(|known| known.measured);
        let stale = measured.is_none_or(|(_, _, at, took)| at.elapsed() > FRESH.max(took.saturating_mul(SPARINGLY)));
        stale && !self.0.driver.is_counted(&self.path(id))
    }

    /// Looks at all files of a home that nobody counts. May take minutes.
    pub fn measure(&self, id: &HomeId) -> Result<(), HomeError> {
        let (entry, began) = (self.path(id), Instant::now());
        if !is_directory(&entry) || self.0.driver.is_counted(&entry) {
            return Ok(());
        }
        let tree::Measure { bytes, inodes } = files::measure(&entry)?;
        self.0.known.lock().entry(id.clone()).or_default().measured = Some((bytes, inodes, Instant::now(), began.elapsed()));
        Ok(())
    }

    /// Whether a home that nobody uses should be let go of.
    pub fn must_rest(&self) -> bool {
        self.0.driver.must_rest()
    }

    /// The homes that are reachable, where that is worth letting go of.
    pub fn reached(&self) -> Result<Vec<HomeId>, HomeError> {
        Ok(self.0.driver.reached()?.iter().filter_map(|name| HomeId::parse(name.to_str()?)).collect())
    }

    /// Lets go of what keeps a home's tree reachable, which nobody uses any more. It is made reachable again by [`Self::ensure`].
    pub fn rest(&self, id: &HomeId) -> Result<(), HomeError> {
        let _turn = self.turn(id);
        if self.exists(id)? { self.0.driver.leave(&self.path(id)) } else { Ok(()) }
    }

    /// A read-only view of a home that is in use.
    pub fn snapshot(&self, id: &HomeId) -> Result<Snapshot, HomeError> {
        let _turn = self.turn(id);
        let held = self.hold(shelf::fresh_snapshot());
        let view = self.0.driver.view(&self.path(id), &held.path())?;
        Ok(Snapshot { path: view.path, consistent: view.consistent, _open: view.open, _held: view.made.then_some(held) })
    }

    /// An empty tree under a name that is no home's.
    pub fn stage(&self, quota: &Quota) -> Result<Staged, HomeError> {
        let held = self.make(quota)?;
        let (tree, _) = self.0.driver.reach(&held.path(), None)?;
        Ok(Staged { held, tree, copied: None })
    }

    /// A copy of a tree under a name that is no home's. `watch` is asked whether to go on; where the driver copies in no time it is not.
    pub fn stage_copy(&self, from: &Source<'_>, quota: &Quota, watch: tree::Watch<'_>) -> Result<Staged, HomeError> {
        let (path, tree) = match from {
            Source::Home(id) => {
                let _turn = self.turn(id);
                self.opened(&self.path(id))?
            }
            Source::Snapshot(snapshot) => (snapshot.path.clone(), files::open(&snapshot.path)?),
        };
        self.stage_tree(&path, tree, quota, watch)
    }

    /// The tree of an entry that is there, and whoever has it open keeps it reachable. Whoever asks has the entry's turn.
    fn opened(&self, entry: &Path) -> Result<(PathBuf, OwnedFd), HomeError> {
        let (path, _) = self.0.driver.reach(entry, None)?;
        let tree = files::open(&path)?;
        Ok((path, tree))
    }

    fn stage_tree(&self, path: &Path, tree: OwnedFd, quota: &Quota, watch: tree::Watch<'_>) -> Result<Staged, HomeError> {
        let held = self.hold(shelf::fresh_stage());
        if self.0.driver.clone_tree(path, &held.path(), quota)? {
            let (tree, _) = self.0.driver.reach(&held.path(), None)?;
            return Ok(Staged { held, tree, copied: None });
        }
        drop(held);
        let mut staged = self.stage(quota)?;
        staged.copied = Some(files::copy(tree.as_fd(), path, &staged.tree, watch)?);
        Ok(staged)
    }

    /// Makes a staged tree a home, unless there is one.
    pub fn commit(&self, staged: Staged, id: &HomeId) -> Result<(), HomeError> {
        let _turn = self.turn(id);
        self.install(staged, &self.path(id))
    }

    /// Takes a home, which nobody may be using, out of use. It is kept.
    pub fn set_aside(&self, id: &HomeId, why: AsideReason) -> Result<AsideId, HomeError> {
        let _turn = self.turn(id);
        let entry = self.path(id);
        self.0.driver.leave(&entry)?;
        let mut aside = AsideId::now(id.clone(), why);
        loop {
            match shelf::rename(&self.0.root, &entry, &self.0.root.join(aside.to_string())) {
                // Twice within a millisecond.
                Err(why) if why.is_taken() => aside = aside.later(),
                other => {
                    other?;
                    self.0.known.lock().remove(id);
                    return Ok(aside);
                }
            }
        }
    }

    /// The homes that were set aside.
    pub fn asides(&self) -> Result<Vec<AsideId>, HomeError> {
        let all = shelf::list(&self.0.root)?.into_iter();
        Ok(all.filter_map(|(_, entry)| if let Entry::Aside(aside) = entry { Some(aside) } else { None }).collect())
    }

    /// How much is in a home that was set aside. May take minutes.
    pub fn measure_aside(&self, aside: &AsideId) -> Result<Usage, HomeError> {
        let entry = self.0.root.join(aside.to_string());
        if let Some(usage) = self.0.driver.usage(&entry)? {
            return Ok(usage);
        }
        let tree::Measure { bytes, inodes } = files::measure(&entry)?;
        Ok(Usage { bytes, inodes: Some(inodes), limit: Quota::default() })
    }

    /// Makes a home of one that was set aside, unless there is one.
    pub fn bring_back(&self, aside: &AsideId, id: &HomeId) -> Result<(), HomeError> {
        let _turn = self.turn(id);
        shelf::rename(&self.0.root, &self.0.root.join(aside.to_string()), &self.path(id))
    }

    /// Removes a home that was set aside, for good.
    pub fn discard(&self, aside: &AsideId) -> Result<(), HomeError> {
        let held = self.hold(shelf::fresh_stage());
        // Under another name first: one of which half is gone must not be brought back.
        shelf::rename(&self.0.root, &self.0.root.join(aside.to_string()), &held.path())?;
        self.0.driver.remove(&held.path())
    }

    /// Puts back what killed processes left: removes what nobody holds. Before anything is made reachable, or beside it. Returns how many things
    /// that were.
    pub fn sweep(&self) -> Result<usize, HomeError> {
        let mut found = 0;
        // Listed before it is asked who holds what: whatever is made later is not in the list.
        for (name, entry) in shelf::list(&self.0.root)? {
            if entry != Entry::Passing || !self.0.held.lock().insert(name.clone()) {
                continue;
            }
            info!(entry = %name.display(), "nobody owns this entry, removing it");
            // Held by us from here on, and removed by its drop.
            drop(Held { homes: Arc::clone(&self.0), name });
            found += 1;
        }
        Ok(found)
    }

    /// Lets go of loop devices on entries of ours that are mounted nowhere. One on a file of another name is somebody else's. Returns how many
    /// went.
    pub fn detach_loose(&self) -> Result<usize, HomeError> {
        let mut gone = 0;
        for found in self.0.driver.loose()? {
            // Whoever mounts one at this moment has its turn, or holds it.
            let _turn = match found.name.to_str().map_or(Entry::Other, shelf::entry) {
                Entry::Home(id) => Some(self.turn(&id)),
                Entry::Kept(kept) => Some(self.turn(&kept)),
                Entry::Passing if self.0.held.lock().contains(&found.name) => continue,
                Entry::Passing | Entry::Draft | Entry::Aside(_) => None,
                Entry::Other => continue,
            };
            if self.0.driver.detach(&found)? {
                info!(entry = %found.name.display(), "nobody has the loop device of this entry mounted, detached it");
                gone += 1;
            }
        }
        Ok(gone)
    }

    /// As [`Self::sweep`], and what a driver's programs may have been killed in the middle of. Only at a start.
    pub fn recover(&self) -> Result<usize, HomeError> {
        let mut found = 0;
        for (name, _) in shelf::list(&self.0.root)?.into_iter().filter(|(_, entry)| *entry == Entry::Draft) {
            let path = self.0.root.join(name);
            std::fs::remove_file(&path).map_err(HomeError::of("remove", &path))?;
            found += 1;
        }
        Ok(found + self.sweep()? + self.discard_parts()? + self.0.driver.recover()?)
    }

    /// Makes nothing reachable any more; for when the instance is removed for good. Homes stay.
    pub fn close(&self) -> Result<(), HomeError> {
        self.recover()?;
        self.0.driver.close()
    }

    /// How many bytes are free on the file system of all homes.
    pub fn free(&self) -> Result<u64, HomeError> {
        let stat = rustix::fs::statvfs(&self.0.root).map_err(HomeError::of("look at", &self.0.root))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes an empty entry under a name that is no home's. A driver makes it so that what there is of it is on the disk.
    fn make(&self, quota: &Quota) -> Result<Held, HomeError> {
        let held = self.hold(shelf::fresh_stage());
        self.0.driver.make(&held.path(), quota)?;
        Ok(held)
    }

    fn install(&self, staged: Staged, entry: &Path) -> Result<(), HomeError> {
        // All that is in it is on the disk before it has a name by which it counts.
        let dir = super::directory::open_tree(&staged.tree)?;
        rustix::fs::syncfs(&dir).map_err(HomeError::of("sync", &staged.tree))?;
        drop(dir);
        self.0.driver.leave(&staged.held.path())?;
        shelf::rename(&self.0.root, &staged.held.path(), entry)
    }

    fn path(&self, id: &HomeId) -> PathBuf {
        self.0.root.join(id.to_string())
    }

    fn turn(&self, id: &impl Hash) -> MutexGuard<'_, ()> {
        let number = usize::try_from(self.0.hasher.hash_one(id) % TURNS as u64).unwrap_or(0);
        self.0.turns[number].lock()
    }

    fn hold(&self, name: OsString) -> Held {
        self.0.held.lock().insert(name.clone());
        Held { homes: Arc::clone(&self.0), name }
    }
}

// === impl Staged ===

impl Staged {
    /// The root of its tree.
    pub fn path(&self) -> &Path {
        &self.tree
    }

    /// What was copied into it, and what left out, where that was done file by file.
    pub fn copied(&self) -> Option<&tree::Summary> {
        self.copied.as_ref()
    }
}

// === impl Held ===

impl Held {
    fn path(&self) -> PathBuf {
        self.homes.root.join(&self.name)
    }

    /// Its name, which goes on being held by whoever has that.
    fn keep(mut self) -> OsString {
        std::mem::take(&mut self.name)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let path = self.path();
        // Not there any more: it has another name now, or there never was one.
        if shelf::exists(&path).unwrap_or(true)
            && let Err(why) = self.homes.driver.remove(&path)
        {
            warn!(%why, "cannot remove what nobody needs, left to the sweeper");
        }
        self.homes.held.lock().remove(&self.name);
    }
}

impl HomeError {
    /// Whether it failed because there is something already.
    pub fn is_taken(&self) -> bool {
        self.why.kind() == io::ErrorKind::AlreadyExists
    }

    /// The same, told of the entry that it was all for.
    fn of_entry(self, entry: &Path) -> Self {
        Self { path: entry.to_owned(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::USER;
    use super::*;

    fn alice() -> HomeId {
        HomeId::parse("alice").unwrap()
    }

    #[test]
    fn a_home_is_made_once_and_belongs_to_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes::open(&dir.path().join("homes"), DriverKind::Directory).unwrap();
        let home = homes.ensure(&alice(), &Quota::default()).unwrap();
        std::fs::write(home.join("kept"), "x").unwrap();
        std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
        assert_eq!(homes.ensure(&alice(), &Quota::default()).unwrap(), home);
        let meta = std::fs::metadata(&home).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (USER, USER, 0o700));
        assert_eq!(std::fs::read_to_string(home.join("kept")).unwrap(), "x");
        assert_eq!(homes.homes().unwrap(), [alice()]);
    }

    #[test]
    fn a_link_in_place_of_a_home_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes::open(dir.path(), DriverKind::Directory).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("alice")).unwrap();
        assert!(homes.ensure(&alice(), &Quota::default()).is_err());
        assert_eq!(std::fs::metadata("/etc").unwrap().uid(), 0);
    }

    #[test]
    fn what_nobody_counts_is_measured_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes::open(dir.path(), DriverKind::Directory).unwrap();
        let quota = Quota { bytes: Some(1 << 20), inodes: None };
        let home = homes.ensure(&alice(), &quota).unwrap();
        assert!(homes.is_unmeasured(&alice()) && homes.usage(&alice()).unwrap().is_none());
        std::fs::write(home.join("file"), vec![1; 900 << 10]).unwrap();
        homes.measure(&alice()).unwrap();
        let usage = homes.usage(&alice()).unwrap().unwrap();
        assert!(!homes.is_unmeasured(&alice()) && usage.limit == quota);
        assert!(((900 << 10)..(1 << 20)).contains(&usage.bytes) && usage.inodes == Some(2), "{usage:?}");
    }
}
