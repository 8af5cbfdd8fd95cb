//! Slots: how a home reaches a container that is already running.
//!
//! A slot is one directory for the home, called as the slot is, and one for each volume, with the volume's name after a dot. They are made,
//! answered for and removed together; what is mounted on one is mounted on that one alone.
//!
//! Every slot that this process answers for is *held* by a [`Slot`]. A slot on the disk that nobody holds belongs to nobody, and whoever
//! finds it may take it away; that is all the sweeper needs to know to never take the home from under a container that is just being claimed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use rustix::fs::{CWD, Mode, StatVfsMountFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_bind, mount_change, mount_remount, move_mount,
    open_tree, unmount,
};

use super::HomeError;
use super::mounts::{mount_points, mounts_in};
use crate::name::VolumeName;

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

/// A slot that somebody answers for, until this is dropped. Dropping it leaves the directories and their mounts as they are.
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

    /// The slot that a directory is of, by the directory's name.
    fn of_directory(name: &str) -> Option<Self> {
        match name.split_once('.') {
            Some((id, volume)) => volume.parse::<VolumeName>().ok().and_then(|_| Self::parse(id)),
            None => Self::parse(name),
        }
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

    /// Makes a new slot, for a home and these volumes. Until one is mounted on it, nobody in a container can write to a directory of it: it
    /// belongs to root.
    pub fn create<'a>(&self, volumes: impl IntoIterator<Item = &'a VolumeName>) -> Result<Slot, HomeError> {
        let id = SlotId(HEXLOWER.encode(&rand::random::<[u8; 8]>()));
        // Held before it exists, so that nobody who looks in between takes it for left behind.
        let slot = self.hold(id);
        if !self.can_mount() {
            return Ok(slot);
        }
        // A kill between two of these leaves a slot that nobody holds, whichever of its directories there are.
        for volume in std::iter::once(None).chain(volumes.into_iter().map(Some)) {
            let path = slot.path(volume);
            rustix::fs::mkdir(&path, Mode::from_raw_mode(0o755)).map_err(HomeError::of("make", &path))?;
        }
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
        if !self.can_mount() {
            return Ok(Vec::new());
        }
        let found: HashSet<SlotId> = self.0.directories()?.into_iter().map(|(id, _)| id).collect();
        let held = self.0.held.lock();
        Ok(found.into_iter().filter(|id| !held.contains(id)).collect())
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

impl Inner {
    /// All directories of slots there are, each with the slot that it is of.
    fn directories(&self) -> Result<Vec<(SlotId, PathBuf)>, HomeError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(HomeError::of("list", &self.dir))? {
            let entry = entry.map_err(HomeError::of("list", &self.dir))?;
            found.extend(entry.file_name().to_str().and_then(SlotId::of_directory).map(|id| (id, entry.path())));
        }
        Ok(found)
    }
}

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

    /// Where its directory for a volume is on the host, or for the home.
    pub fn path(&self, volume: Option<&VolumeName>) -> PathBuf {
        self.slots.dir.join(match volume {
            Some(volume) => format!("{}.{volume}", self.id.as_str()),
            None => self.id.as_str().to_owned(),
        })
    }

    /// What a container of this tree has to bind: the slot's directory, or the tree itself where nothing can be mounted.
    pub fn source(&self, volume: Option<&VolumeName>, tree: PathBuf) -> PathBuf {
        if self.slots.mounts { self.path(volume) } else { tree }
    }

    /// Whether anything is mounted on its directory for a volume, or for the home.
    pub fn is_mounted(&self, volume: Option<&VolumeName>) -> Result<bool, HomeError> {
        Ok(mount_points()?.contains(&self.path(volume)))
    }

    /// Whether nothing is mounted on any of its directories.
    pub fn is_vacant(&self) -> Result<bool, HomeError> {
        Ok(self.mounted()?.is_empty())
    }

    /// Mounts a volume's tree on its directory, or the home's, and does nothing if it is there already. The directory is made again if it is
    /// gone.
    ///
    /// Setuid files and device nodes in it do nothing, whatever way they came in.
    pub fn mount(&self, volume: Option<&VolumeName>, tree: &Path) -> Result<(), HomeError> {
        if !self.slots.mounts {
            return Ok(());
        }
        let path = self.path(volume);
        if self.is_mounted(volume)? {
            let stat = |path: &Path| rustix::fs::stat(path).map_err(HomeError::of("look at", path));
            let (here, there) = (stat(&path)?, stat(tree)?);
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
        mount_bind(tree, &path).map_err(HomeError::of("mount a home on", &path))?;
        restrict(&path)
    }

    /// Takes whatever is mounted off all its directories. What is mounted is not touched itself.
    pub fn unmount(&self) -> Result<(), HomeError> {
        if !self.slots.mounts {
            return Ok(());
        }
        // First, so that a slot that is gone has left nothing beside it.
        self.take_back(0)?;
        // More than once where something was mounted meanwhile; bounded, so that a file system that will not go cannot hold us here.
        for _ in 0..8 {
            let mounted = self.mounted()?;
            if mounted.is_empty() {
                break;
            }
            for path in mounted {
                unmount(&path, UnmountFlags::DETACH).map_err(HomeError::of("unmount", &path))?;
            }
        }
        Ok(())
    }

    /// Takes whatever is mounted off it and removes its directories. What was mounted is not touched itself.
    pub fn remove(self) -> Result<(), HomeError> {
        if !self.slots.mounts {
            return Ok(());
        }
        self.unmount()?;
        let mut outcome = Ok(());
        // As they are on the disk: which volumes it was made for, whoever finds it after a kill does not know.
        for (_, path) in self.slots.directories()?.into_iter().filter(|(id, _)| *id == self.id) {
            // Not recursive, ever: if a home should still be there, this fails and the home is untouched.
            match rustix::fs::rmdir(&path) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(why) => outcome = Err(HomeError::of("remove", &path)(why)),
            }
        }
        outcome
    }

    /// Where something is mounted on it, once for each time.
    fn mounted(&self) -> Result<Vec<PathBuf>, HomeError> {
        let of_this = |path: &PathBuf| path.file_name().and_then(|name| SlotId::of_directory(name.to_str()?)).as_ref() == Some(&self.id);
        Ok(mounts_in(&self.slots.dir)?.into_iter().filter(of_this).collect())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.held.lock().remove(&self.id);
    }
}

/// Has setuid files and device nodes do nothing in what was mounted just now, in a container that runs as well.
///
/// What has travelled into a container does not follow a change of its mount's flags. So the mount is taken away again and put back as it is
/// then; a kill in between leaves none. A Linux before 5.2 cannot do that, and the host's is restricted alone.
fn restrict(path: &Path) -> Result<(), HomeError> {
    let flags = rustix::fs::statvfs(path).map_err(HomeError::of("look at", path))?.f_flag;
    if flags.contains(StatVfsMountFlags::NOSUID | StatVfsMountFlags::NODEV) {
        return Ok(());
    }
    mount_remount(path, MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, c"").map_err(HomeError::of("restrict", path))?;
    let Ok(restricted) = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC) else { return Ok(()) };
    unmount(path, UnmountFlags::DETACH).map_err(HomeError::of("unmount", path))?;
    move_mount(restricted, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(HomeError::of("mount a home on", path))
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
        let slot = tmp.1.create([]).unwrap();
        assert!(!slot.is_mounted(None).unwrap());
        slot.mount(None, &home).unwrap();
        slot.mount(None, &home).unwrap();
        std::fs::write(slot.path(None).join("file"), "hers").unwrap();
        let path = slot.path(None);
        slot.remove().unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read_to_string(home.join("file")).unwrap(), "hers");
    }

    #[test]
    fn another_home_is_not_mounted_over_the_first() {
        let tmp = Mounted::new();
        let slot = tmp.1.create([]).unwrap();
        for name in ["a", "b"] {
            std::fs::create_dir(tmp.0.path().join(name)).unwrap();
        }
        slot.mount(None, &tmp.0.path().join("a")).unwrap();
        assert!(slot.mount(None, &tmp.0.path().join("b")).is_err());
    }

    #[test]
    fn a_home_and_its_volumes_come_and_go_together_and_each_in_its_place() {
        let tmp = Mounted::new();
        let [data, cache]: [VolumeName; 2] = ["data", "cache"].map(|name| name.parse().unwrap());
        let places = [None, Some(&data), Some(&cache)];
        let tree = |volume: Option<&VolumeName>| tmp.0.path().join(volume.map_or("home", |volume| volume.as_str()));
        let (slot, other) = (tmp.1.create([&data, &cache]).unwrap(), tmp.1.create([&data]).unwrap());
        for volume in places {
            std::fs::create_dir(tree(volume)).unwrap();
            assert!(slot.path(volume).is_dir() && !slot.is_mounted(volume).unwrap());
        }
        slot.mount(Some(&data), &tree(Some(&data))).unwrap();
        assert!(slot.is_mounted(Some(&data)).unwrap() && !slot.is_mounted(None).unwrap() && !slot.is_vacant().unwrap());
        assert!(slot.mount(Some(&data), &tree(Some(&cache))).is_err(), "another is there");
        for volume in places {
            slot.mount(volume, &tree(volume)).unwrap();
            std::fs::write(slot.path(volume).join("file"), tree(volume).to_str().unwrap()).unwrap();
        }
        other.mount(Some(&data), &tree(Some(&cache))).unwrap();
        slot.unmount().unwrap();
        assert!(slot.is_vacant().unwrap() && other.is_mounted(Some(&data)).unwrap(), "another's is not touched");

        // As a kill leaves it: nobody holds it or knows what it is for.
        slot.mount(Some(&cache), &tree(Some(&cache))).unwrap();
        let (id, paths) = (slot.id().clone(), places.map(|volume| slot.path(volume)));
        drop(slot);
        std::fs::remove_dir(&paths[0]).unwrap();
        assert_eq!(tmp.1.unheld().unwrap(), std::slice::from_ref(&id));
        tmp.1.adopt(id).unwrap().remove().unwrap();
        assert!(paths.iter().all(|path| !path.exists()) && tmp.1.unheld().unwrap().is_empty());
        for volume in places {
            assert_eq!(std::fs::read_to_string(tree(volume).join("file")).unwrap(), tree(volume).to_str().unwrap());
        }
    }

    #[test]
    fn only_names_of_slots_are_those_of_slots() {
        let id = "0123456789abcdef";
        assert_eq!(SlotId::of_directory(&format!("{id}.data")), SlotId::parse(id));
        for other in ["", ".data", "data", "0123456789abcdef.", "0123456789abcdef.a.b", "0123456789abcdef.Data", "0123456789abcdef.-x"] {
            assert_eq!(SlotId::of_directory(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_nobody_holds_is_found() {
        let tmp = Mounted::new();
        let (kept, left) = (tmp.1.create([]).unwrap(), tmp.1.create([]).unwrap());
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
