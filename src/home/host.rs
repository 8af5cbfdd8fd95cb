//! Directories of the host beside a home: which may be lent to a container at all, and how they reach one.
//!
//! What is lent is mounted on a place of the gateway's own beside the container's slot, and the container is given that: so what was looked at
//! is what appears, whoever renames directories meanwhile, and set-user-ID files and device nodes in it do nothing. It goes when the slot goes.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, mount_remount, unmount};

use super::{HomeError, Slot, USER};

/// Which directories of the host may be lent.
#[derive(Debug, Clone, Default)]
pub struct Fence {
    /// Those below these, and these.
    pub allow: Vec<PathBuf>,
    /// But none that has one of these in it, or is in one.
    pub off_limits: Vec<PathBuf>,
}

/// Why a directory of the host is not lent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FenceError {
    /// It cannot be opened, or is no directory.
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    Absent(PathBuf, String),
    /// No directory in the configuration allows it.
    #[error("{path} is not in a directory that `mounts.allow` names", path = .0.display())]
    NotAllowed(PathBuf),
    /// It would lend the gateway itself.
    #[error("{path} has the gateway's own files or the engine's socket in it", path = .0.display())]
    OffLimits(PathBuf),
    /// It is reached through a link: where that leads may be changed by whoever may write there.
    #[error("{path} is not where it was: it leads to {to}", path = .0.display(), to = .1.display())]
    Moved(PathBuf, PathBuf),
}

/// Mounts on one place that are taken off; more than one are there where something was mounted twice.
const MOST_ON_ONE: usize = 8;

/// What a place for something lent is called beside its slot, which is called `<slot>`. No volume can be called so.
const BESIDE: &str = "+lent";

// === impl Fence ===

impl Fence {
    /// Where a path that somebody has typed really leads, if that may be lent. Waits for the disk.
    pub fn resolve(&self, typed: &Path) -> Result<PathBuf, FenceError> {
        let real = std::fs::canonicalize(typed).map_err(|why| FenceError::Absent(typed.to_owned(), why.to_string()))?;
        self.open(&real)?;
        Ok(real)
    }

    /// The directory at a path that [`Self::resolve`] gave once, if it is still there and may still be lent. Waits for the disk, which may be one
    /// that does not answer.
    pub fn open(&self, real: &Path) -> Result<OwnedFd, FenceError> {
        let absent = |why: Errno| FenceError::Absent(real.to_owned(), std::io::Error::from(why).to_string());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, real, flags, Mode::empty()).map_err(absent)?;
        // Asks the file system itself: one whose server is gone says so here.
        fstat(&directory).map_err(absent)?;
        // What was opened, not what the path may lead to in a moment.
        let opened = std::fs::read_link(magic(&directory)).map_err(|why| FenceError::Absent(real.to_owned(), why.to_string()))?;
        if opened != real {
            return Err(FenceError::Moved(real.to_owned(), opened));
        }
        let resolved = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        if !self.allow.iter().any(|allowed| real.starts_with(resolved(allowed))) {
            return Err(FenceError::NotAllowed(real.to_owned()));
        }
        let overlap = |other: PathBuf| real.starts_with(&other) || other.starts_with(real);
        if self.off_limits.iter().any(|path| overlap(resolved(path))) {
            return Err(FenceError::OffLimits(real.to_owned()));
        }
        Ok(directory)
    }
}

// === impl Slot ===

impl Slot {
    /// Has a directory of the host stand ready for this slot's container, anew if it did already, and says where. `number` tells apart what is
    /// lent to one container. What is mounted below it later appears too, with the options that it is mounted with.
    ///
    /// A kill in between leaves what goes with the slot.
    pub fn lend(&self, number: usize, directory: &OwnedFd, read_only: bool) -> Result<PathBuf, HomeError> {
        let all = self.lent();
        let place = all.join(number.to_string());
        for path in [&all, &place] {
            match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(why) => return Err(HomeError::of("make", path)(why)),
            }
        }
        take_off(&place)?;
        mount_bind_recursive(magic(directory), &place).map_err(HomeError::of("mount on", &place))?;
        let change =
            |flags| mount_change(&place, flags | MountPropagationFlags::REC).map_err(HomeError::of("change the propagation of", &place));
        // Hears of what is mounted on the host, and tells it on to the container; what is unmounted here is not unmounted there.
        change(MountPropagationFlags::DOWNSTREAM)?;
        change(MountPropagationFlags::SHARED)?;
        restrict(&place, read_only)?;
        Ok(place)
    }

    /// Takes back what was lent from this number on.
    pub fn take_back(&self, from: usize) -> Result<(), HomeError> {
        let all = self.lent();
        let entries = match std::fs::read_dir(&all) {
            Ok(entries) => entries,
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(why) => return Err(HomeError::of("list", &all)(why)),
        };
        for entry in entries {
            let entry = entry.map_err(HomeError::of("list", &all))?;
            let number: Option<usize> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if number.is_some_and(|number| number < from) {
                continue;
            }
            take_off(&entry.path())?;
            // Never recursive: what is somebody's stays where it is, and this fails.
            rustix::fs::rmdir(entry.path()).map_err(HomeError::of("remove", &entry.path()))?;
        }
        match rustix::fs::rmdir(&all) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(why) => Err(HomeError::of("remove", &all)(why)),
        }
    }

    fn lent(&self) -> PathBuf {
        self.path(None).with_extension(BESIDE)
    }
}

/// Makes a directory in a home, with those above it, hers where they were not there, so that an engine that mounts something on it makes none
/// of root's. What is in her home is hers to change at any moment: no link is followed.
pub fn make_within(home: &Path, inside: &Path) -> Result<(), HomeError> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut here = openat(CWD, home, flags, Mode::empty()).map_err(HomeError::of("open", home))?;
    for part in inside.components() {
        let Component::Normal(name) = part else { continue };
        let made = match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(why) => return Err(HomeError::of("make a directory in", home)(why)),
        };
        here = openat(&here, name, flags, Mode::empty()).map_err(HomeError::of("open a directory in", home))?;
        if made {
            let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
            fchown(&here, Some(user), Some(group)).map_err(HomeError::of("change the owner of a directory in", home))?;
        }
    }
    Ok(())
}

fn magic(directory: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn take_off(place: &Path) -> Result<(), HomeError> {
    for _ in 0..MOST_ON_ONE {
        match unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted on it.
            Err(Errno::INVAL) => return Ok(()),
            Err(why) => return Err(HomeError::of("unmount", place)(why)),
        }
    }
    Ok(())
}

/// Takes from a mount and all below it what no container should have of them, and leaves them what they have not.
fn restrict(place: &Path, read_only: bool) -> Result<(), HomeError> {
    let table = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(table).map_err(HomeError::of("read", table))?;
    for line in text.lines() {
        let Some((path, mut flags)) = super::mounts::point(line).zip(line.split(' ').nth(5).map(flags)) else { continue };
        if !path.starts_with(place) {
            continue;
        }
        flags |= MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        flags.set(MountFlags::RDONLY, read_only || flags.contains(MountFlags::RDONLY));
        mount_remount(&path, flags, c"").map_err(HomeError::of("restrict", &path))?;
    }
    Ok(())
}

/// The options of a mount, of those that a remount would take away where it does not name them.
fn flags(options: &str) -> MountFlags {
    let flag = |option| match option {
        "ro" => MountFlags::RDONLY,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        _ => MountFlags::empty(),
    };
    options.split(',').map(flag).fold(MountFlags::empty(), MountFlags::union)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::home::Slots;

    fn fence(dir: &Path) -> Fence {
        for name in ["allowed/drive", "allowed/state", "other"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        Fence { allow: vec![dir.join("allowed")], off_limits: vec![dir.join("allowed/state")] }
    }

    #[test]
    fn only_what_really_lies_in_an_allowed_directory_is_lent() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        let fence = fence(&dir);
        let drive = dir.join("allowed/drive");
        assert_eq!(fence.resolve(&dir.join("other/../allowed/drive")).unwrap(), drive);
        symlink(&drive, dir.join("other/link")).unwrap();
        assert_eq!(fence.resolve(&dir.join("other/link")).unwrap(), drive, "where it leads is what counts");
        symlink(dir.join("other"), dir.join("allowed/out")).unwrap();
        std::fs::write(dir.join("allowed/file"), "").unwrap();
        for path in ["allowed/out", "other", "allowed/../other", "allowed", "allowed/state", "allowed/none", "allowed/file"] {
            assert!(fence.resolve(&dir.join(path)).is_err(), "{path}");
        }
        assert!(Fence::default().resolve(&drive).is_err(), "nothing is allowed");
        // Changed behind our back since.
        std::fs::remove_dir(&drive).unwrap();
        assert!(matches!(fence.open(&drive), Err(FenceError::Absent(..))));
        symlink(dir.join("other"), &drive).unwrap();
        assert!(matches!(fence.open(&drive), Err(FenceError::Moved(..))));
    }

    #[test]
    fn what_is_lent_is_restricted_and_goes_with_the_slot() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().canonicalize().unwrap();
        let fence = fence(&dir);
        let drive = dir.join("allowed/drive");
        std::fs::write(drive.join("file"), "x").unwrap();
        let slots = Slots::open(&dir.join("slots")).unwrap();
        let slot = slots.create([]).unwrap();
        let directory = fence.open(&drive).unwrap();
        let place = slot.lend(0, &directory, true).unwrap();
        let other = slot.lend(1, &directory, false).unwrap();
        assert_eq!(slot.lend(0, &directory, true).unwrap(), place, "again");
        assert!(std::fs::write(place.join("new"), "").is_err());
        std::fs::write(other.join("new"), "").unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let options = table.lines().find(|line| line.contains(place.to_str().unwrap())).and_then(|line| line.split(' ').nth(5)).unwrap();
        assert!(["ro", "nosuid", "nodev"].iter().all(|option| options.split(',').any(|has| has == *option)), "{options}");
        slot.take_back(1).unwrap();
        assert!(!other.exists() && place.join("file").exists());
        slot.remove().unwrap();
        assert!(!place.exists() && drive.join("file").exists() && drive.join("new").exists());
        assert!(slots.unheld().unwrap().is_empty());
        slots.close().unwrap();
    }

    #[test]
    fn a_directory_in_a_home_is_hers_and_no_link_is_followed() {
        let tmp = tempfile::tempdir().unwrap();
        let (home, elsewhere) = (tmp.path().join("home"), tmp.path().join("elsewhere"));
        std::fs::create_dir(&home).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        make_within(&home, Path::new("a/b")).unwrap();
        make_within(&home, Path::new("a/b")).unwrap();
        assert_eq!(std::fs::metadata(home.join("a/b")).unwrap().uid(), USER);
        symlink(&elsewhere, home.join("link")).unwrap();
        assert!(make_within(&home, Path::new("link/x")).is_err() && !elsewhere.join("x").exists());
    }
}
