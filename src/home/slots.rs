//! Slots: how a home reaches a container that is already running.
//!
//! Every slot that this process answers for is *held* by a [`Slot`]. A slot on the disk that nobody holds belongs to nobody, and whoever
//! finds it may take it away; that is all the sweeper needs to know to never take the home from under a container that is just being claimed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount, unmount};

use super::HomeError;

/// The name of a slot: 16 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(String);

/// The directory that holds all slots.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    mounts: bool,
    /// Whether the directory's own mount was made by this process and nothing relies on it yet.
    provisional: AtomicBool,
    held: Mutex<HashSet<SlotId>>,
}

/// A slot that somebody answers for, until this is dropped. Dropping it leaves the directory and its mount as they are.
#[derive(Debug)]
pub struct Slot {
    id: SlotId,
    slots: Arc<Inner>,
}

// === impl SlotId ===

impl SlotId {
    /// Parses what a label or a directory is called.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        digits.then(|| Self(text.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Slots ===

impl Slots {
    /// Opens the directory of slots and makes it a shared mount, so that what is mounted in it travels into containers.
    ///
    /// Fails where this process may not mount. The mount goes with the value unless a slot was made or answered for: a start that comes to
    /// nothing leaves nothing.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        std::fs::create_dir_all(dir).map_err(HomeError::of("make", dir))?;
        let dir = dir.canonicalize().map_err(HomeError::of("find", dir))?;
        rustix::fs::chmod(&dir, Mode::from_raw_mode(0o711)).map_err(HomeError::of("set the mode of", &dir))?;
        let fresh = !mount_points()?.contains(&dir);
        if fresh {
            mount_bind(&dir, &dir).map_err(HomeError::of("mount", &dir))?;
        }
        let slots = Self(Arc::new(Inner { dir, mounts: true, provisional: AtomicBool::new(fresh), held: Mutex::default() }));
        let dir = &slots.0.dir;
        mount_change(dir, MountPropagationFlags::SHARED).map_err(HomeError::of("share the mount", dir))?;
        Ok(slots)
    }

    /// For where this process may not mount: slots are names only, and a home reaches its container when that is made, not later.
    pub fn without_mounts() -> Self {
        Self(Arc::new(Inner { dir: PathBuf::new(), mounts: false, provisional: AtomicBool::new(false), held: Mutex::default() }))
    }

    /// Whether a home can reach a container that is running already.
    pub fn can_mount(&self) -> bool {
        self.0.mounts
    }

    /// Makes a new slot. Until a home is mounted on it, nobody in a container can write to it: it belongs to root.
    pub fn create(&self) -> Result<Slot, HomeError> {
        let id = SlotId(HEXLOWER.encode(&rand::random::<[u8; 8]>()));
        // Held before it exists, so that nobody who looks in between takes it for left behind.
        let slot = self.hold(id);
        if !self.can_mount() {
            return Ok(slot);
        }
        let path = slot.path();
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).map_err(HomeError::of("make", &path))?;
        Ok(slot)
    }

    /// Answers for a slot that an earlier process made, if nobody does yet.
    pub fn adopt(&self, id: SlotId) -> Option<Slot> {
        self.0.provisional.store(false, Ordering::SeqCst);
        let fresh = self.0.held.lock().insert(id.clone());
        fresh.then(|| Slot { id, slots: Arc::clone(&self.0) })
    }

    /// Whether somebody answers for this slot.
    pub fn is_held(&self, id: &SlotId) -> bool {
        self.0.held.lock().contains(id)
    }

    /// The slots on the disk that nobody answers for.
    pub fn unheld(&self) -> Result<Vec<SlotId>, HomeError> {
        let dir = &self.0.dir;
        let mut found = Vec::new();
        if !self.can_mount() {
            return Ok(found);
        }
        for entry in std::fs::read_dir(dir).map_err(HomeError::of("list", dir))? {
            let entry = entry.map_err(HomeError::of("list", dir))?;
            found.extend(entry.file_name().to_str().and_then(SlotId::parse));
        }
        let held = self.0.held.lock();
        found.retain(|id| !held.contains(id));
        Ok(found)
    }

    /// Unmounts the directory itself; for when the instance is removed for good.
    pub fn close(&self) -> Result<(), HomeError> {
        if !self.can_mount() {
            return Ok(());
        }
        self.0.provisional.store(false, Ordering::SeqCst);
        unmount(&self.0.dir, UnmountFlags::DETACH).map_err(HomeError::of("unmount", &self.0.dir))
    }

    fn hold(&self, id: SlotId) -> Slot {
        self.0.provisional.store(false, Ordering::SeqCst);
        self.0.held.lock().insert(id.clone());
        Slot { id, slots: Arc::clone(&self.0) }
    }
}

// === impl Inner ===

impl Drop for Inner {
    fn drop(&mut self) {
        if self.provisional.load(Ordering::SeqCst) {
            // Nobody left to tell, if this fails; the next start finds the mount and uses it.
            unmount(&self.dir, UnmountFlags::DETACH).ok();
        }
    }
}

// === impl Slot ===

impl Slot {
    /// Its name.
    pub fn id(&self) -> &SlotId {
        &self.id
    }

    /// Where it is on the host.
    pub fn path(&self) -> PathBuf {
        self.slots.dir.join(self.id.as_str())
    }

    /// What a container of this home has to bind: the slot, or the home itself where nothing can be mounted.
    pub fn source(&self, home: &Path) -> PathBuf {
        if self.slots.mounts { self.path() } else { home.to_owned() }
    }

    /// Whether anything is mounted on it.
    pub fn is_mounted(&self) -> Result<bool, HomeError> {
        Ok(mount_points()?.contains(&self.path()))
    }

    /// Mounts a home on it, and does nothing if it is there already. The directory is made again if it is gone.
    ///
    /// Setuid files and device nodes in a home do nothing, whatever way they came in.
    pub fn mount(&self, home: &Path) -> Result<(), HomeError> {
        if !self.slots.mounts {
            return Ok(());
        }
        let path = self.path();
        if self.is_mounted()? {
            let stat = |path: &Path| rustix::fs::stat(path).map_err(HomeError::of("look at", path));
            let (here, there) = (stat(&path)?, stat(home)?);
            if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino) {
                return Ok(());
            }
            let other = std::io::Error::other("something else is mounted there");
            return Err(HomeError::of("mount a home on", &path)(other));
        }
        match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(why) => return Err(HomeError::of("make", &path)(why)),
        }
        mount_bind(home, &path).map_err(HomeError::of("mount a home on", &path))?;
        mount_remount(&path, MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, c"").map_err(HomeError::of("restrict", &path))
    }

    /// Takes whatever is mounted off it and removes the directory. The home itself is not touched.
    pub fn remove(self) -> Result<(), HomeError> {
        if !self.slots.mounts {
            return Ok(());
        }
        let path = self.path();
        // More than once where something was mounted twice; bounded, so that a file system that will not go cannot hold us here.
        for _ in 0..8 {
            if !self.is_mounted()? {
                break;
            }
            unmount(&path, UnmountFlags::DETACH).map_err(HomeError::of("unmount", &path))?;
        }
        // Not recursive, ever: if a home should still be there, this fails and the home is untouched.
        match rustix::fs::rmdir(&path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(why) => Err(HomeError::of("remove", &path)(why)),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.held.lock().remove(&self.id);
    }
}

/// Where something is mounted, as this process sees it.
fn mount_points() -> Result<HashSet<PathBuf>, HomeError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(HomeError::of("read", table))?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect())
}

/// The kernel writes space, tab, newline and backslash in a path as octal escapes.
fn unescape(path: &str) -> PathBuf {
    let mut out = path.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, character);
    }
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of slots that is unmounted again.
    struct Mounted(tempfile::TempDir, Slots);

    impl Mounted {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let slots = Slots::open(&dir.path().join("slots")).unwrap();
            Self(dir, slots)
        }
    }

    impl Drop for Mounted {
        fn drop(&mut self) {
            for id in self.1.unheld().unwrap() {
                self.1.adopt(id).unwrap().remove().unwrap();
            }
            self.1.close().unwrap();
        }
    }

    #[test]
    fn a_home_appears_in_its_slot_and_outlives_it() {
        let tmp = Mounted::new();
        let home = tmp.0.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let slot = tmp.1.create().unwrap();
        assert!(!slot.is_mounted().unwrap());
        slot.mount(&home).unwrap();
        slot.mount(&home).unwrap();
        std::fs::write(slot.path().join("file"), "hers").unwrap();
        let path = slot.path();
        slot.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read_to_string(home.join("file")).unwrap(), "hers");
    }

    #[test]
    fn another_home_is_not_mounted_over_the_first() {
        let tmp = Mounted::new();
        let slot = tmp.1.create().unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(tmp.0.path().join(name)).unwrap();
        }
        slot.mount(&tmp.0.path().join("a")).unwrap();
        assert!(slot.mount(&tmp.0.path().join("b")).is_err());
    }

    #[test]
    fn only_what_nobody_holds_is_found() {
        let tmp = Mounted::new();
        let (kept, left) = (tmp.1.create().unwrap(), tmp.1.create().unwrap());
        let id = left.id().clone();
        assert!(tmp.1.adopt(id.clone()).is_none(), "held by somebody else");
        drop(left);
        assert_eq!(tmp.1.unheld().unwrap(), [id]);
        drop(kept);
    }

    #[test]
    fn opening_twice_mounts_once() {
        let tmp = Mounted::new();
        let dir = tmp.0.path().join("slots");
        Slots::open(&dir).unwrap();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(text.lines().filter(|line| line.contains(dir.to_str().unwrap())).count(), 1);
    }
}
