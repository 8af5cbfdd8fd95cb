//! Homes in subvolumes of a btrfs. Bytes are limited by a quota group; inodes cannot be.
//!
//! Snapshots and copies share what they have in common and take no time. With simple quotas a subvolume that somebody makes inside her home
//! counts as part of it. Without them, on an older kernel or with older programs, it counts nowhere.
//!
//! Figures are those of the last commit, which the kernel does every half a minute; the limit itself holds at once. The group of a subvolume that
//! was removed goes with it since Linux 6.11; before that it stays, empty, until somebody tidies: a file system's groups are not all ours.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use parking_lot::Mutex;
use rustix::fs::{self, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::HomeError;
use super::directory::{Directories, is_directory, open_tree};
use super::driver::{Applied, Driver, Hold, Holds, Quota, Usage, View};
use super::mounts::mount_of;
use super::program::{BTRFS, INPUT, LONG, SOON};
use super::shelf::fresh_stage;
use super::tree::pick;

/// Subvolumes right below a directory of a btrfs.
#[derive(Debug)]
pub(super) struct Btrfs {
    /// Where the kernel says how much is in each.
    groups: PathBuf,
    /// The ids of subvolumes, by their device number, which nothing else has while they are in use.
    ids: Mutex<HashMap<u64, u64>>,
}

/// The magic number of the file system.
const MAGIC: u64 = 0x9123_683E;
/// The inode of a subvolume's root, and of nothing else.
const ROOT_INODE: u64 = 256;
/// Ids that are remembered. They can be asked for again.
const MOST_IDS: usize = 4096;
/// A directory, and nothing that leads to one.
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Why a quota of inodes does not hold.
const NO_INODES: &str = "btrfs does not limit how many files there are";

impl Btrfs {
    /// Subvolumes right below `root`, which must have no links in it. Switches quotas on if they are off.
    pub(super) fn open(root: &Path) -> Result<Self, HomeError> {
        let failed = |why: io::Error| HomeError::of("keep subvolumes in", root)(why);
        if !is_btrfs(root) {
            return Err(failed(io::Error::other("it is not on a btrfs; make one there, or choose another home.driver")));
        }
        BTRFS.find().map_err(failed)?;
        let groups = groups_of(root).map_err(failed)?;
        if !enabled(&groups) {
            // Older programs, and older kernels, do not know simple quotas.
            let simple = BTRFS.run(["quota".as_ref(), "enable".as_ref(), "--simple".as_ref(), root.as_os_str()], SOON);
            let enabled = simple.or_else(|_| BTRFS.run(["quota".as_ref(), "enable".as_ref(), root.as_os_str()], SOON));
            enabled.map_err(HomeError::of("switch quotas on in", root))?;
        }
        Ok(Self { groups, ids: Mutex::default() })
    }

    fn limit(&self, entry: &Path, quota: &Quota) -> Result<Applied, HomeError> {
        let limit = quota.bytes.map_or_else(|| "none".to_owned(), |bytes| bytes.to_string());
        let args = ["qgroup".as_ref(), "limit".as_ref(), limit.as_ref(), entry.as_os_str()];
        BTRFS.run(args, SOON).map_err(HomeError::of("limit", entry))?;
        Ok(if quota.inodes.is_some() { Applied::Reported(NO_INODES) } else { Applied::Now })
    }

    /// A figure of an entry's quota group.
    fn figure(&self, entry: &Path, name: &str) -> Result<u64, HomeError> {
        let device = std::fs::symlink_metadata(entry).map_err(HomeError::of("look at", entry))?.dev();
        let known = self.ids.lock().get(&device).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let args = ["inspect-internal".as_ref(), "rootid".as_ref(), entry.as_os_str()];
                let said = BTRFS.run(args, SOON).map_err(HomeError::of("find the id of", entry))?;
                let id = said.trim().parse().map_err(|_| HomeError::of("find the id of", entry)(io::Error::other(said)))?;
                let mut ids = self.ids.lock();
                if ids.len() >= MOST_IDS {
                    ids.clear();
                }
                ids.insert(device, id);
                id
            }
        };
        let path = self.groups.join(format!("0_{id}")).join(name);
        let text = std::fs::read_to_string(&path).map_err(HomeError::of("read", &path))?;
        text.trim().parse().map_err(|_| HomeError::of("read", &path)(io::Error::from(io::ErrorKind::InvalidData)))
    }

    /// Takes a name off the list of ids: whoever gets its device number next is another.
    fn forget(&self, entry: &Path) {
        if let Ok(meta) = std::fs::symlink_metadata(entry) {
            self.ids.lock().remove(&meta.dev());
        }
    }

    /// Removes a subvolume right below the root, and those that its user has made in it, however many there are and however they are nested.
    fn delete(&self, subvolume: &Path) -> Result<(), HomeError> {
        let mut left = vec![subvolume.to_owned()];
        while let Some(last) = left.last().cloned() {
            self.forget(&last);
            let deleted = BTRFS.run(["subvolume".as_ref(), "delete".as_ref(), last.as_os_str()], LONG);
            // It does not go before those in it, which hardly any has. Where it is gone somebody else was at it.
            if let Err(why) = deleted
                && std::fs::symlink_metadata(&last).is_ok()
            {
                let inner = self.bring_out(&last)?;
                if inner.is_empty() {
                    return Err(HomeError::of("remove", &last)(why));
                }
                left.extend(inner);
                continue;
            }
            left.pop();
        }
        Ok(())
    }

    /// Moves the subvolumes in one out, beside it. They are named as their user likes, and lie where she likes: no path of hers is given to a
    /// program. Each goes from one open directory to another, under a name of ours, which a kill leaves to the next start.
    fn bring_out(&self, subvolume: &Path) -> Result<Vec<PathBuf>, HomeError> {
        let failed = |why| HomeError::of("take subvolumes out of", subvolume)(why);
        let root = subvolume.parent().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        let open = |path: &Path| fs::openat(CWD, path, DIRECTORY, Mode::empty()).map_err(|why| failed(why.into()));
        let (shelf, tree) = (open(root)?, open(subvolume)?);
        let mut out = Vec::new();
        let take = |dir: BorrowedFd<'_>, name: &CStr| {
            let ours = fresh_stage();
            match fs::renameat(dir, name, &shelf, &ours) {
                Err(Errno::ROFS) => {
                    // A snapshot that she has made read-only.
                    let inner = fs::openat(dir, name, DIRECTORY, Mode::empty())?;
                    BTRFS.run_on(Stdio::from(inner), ["property", "set", "-ts", &format!("{INPUT}/."), "ro", "false"], SOON)?;
                    fs::renameat(dir, name, &shelf, &ours)?;
                }
                renamed => renamed?,
            }
            out.push(root.join(ours));
            Ok(())
        };
        let picked = pick(tree.as_fd(), &|_| ControlFlow::Continue(()), |stat| stat.st_ino == ROOT_INODE, take);
        picked.map_err(|why| failed(io::Error::other(why)))?;
        Ok(out)
    }
}

impl Driver for Btrfs {
    fn make(&self, entry: &Path, quota: &Quota) -> Result<(), HomeError> {
        BTRFS.run(["subvolume".as_ref(), "create".as_ref(), entry.as_os_str()], SOON).map_err(HomeError::of("make", entry))?;
        self.limit(entry, quota)?;
        Ok(())
    }

    fn reach(&self, entry: &Path, quota: Option<&Quota>) -> Result<(PathBuf, Applied), HomeError> {
        open_tree(entry)?;
        if !is_subvolume(entry) {
            return Directories.reach(entry, quota);
        }
        let Some(quota) = quota else { return Ok((entry.to_owned(), Applied::Now)) };
        // A limit of zero in the kernel's own list is none.
        let has = self.figure(entry, "max_referenced").ok();
        if has == Some(quota.bytes.unwrap_or(0)) {
            let applied = if quota.inodes.is_some() { Applied::Reported(NO_INODES) } else { Applied::Now };
            return Ok((entry.to_owned(), applied));
        }
        let applied = self.limit(entry, quota).unwrap_or_else(|why| Applied::Later(why.to_string()));
        Ok((entry.to_owned(), applied))
    }

    fn fit(&self, entry: &Path, quota: &Quota) -> Result<Applied, HomeError> {
        if is_subvolume(entry) { self.limit(entry, quota) } else { Directories.fit(entry, quota) }
    }

    fn holds(&self, entry: &Path, quota: &Quota) -> Result<Holds, HomeError> {
        if !is_subvolume(entry) {
            return Directories.holds(entry, quota);
        }
        let has = self.figure(entry, "max_referenced")?;
        Ok(Holds { bytes: Hold::if_applied(has == quota.bytes.unwrap_or(0)), ..self.would_hold() })
    }

    fn would_hold(&self) -> Holds {
        Holds { bytes: Hold::when_made(), inodes: Hold::Impossible(NO_INODES.to_owned()) }
    }

    fn usage(&self, entry: &Path) -> Result<Option<Usage>, HomeError> {
        if !is_subvolume(entry) {
            return Ok(None);
        }
        let limit = Quota { bytes: Some(self.figure(entry, "max_referenced")?).filter(|bytes| *bytes > 0), inodes: None };
        Ok(Some(Usage { bytes: self.figure(entry, "referenced")?, inodes: None, limit }))
    }

    fn is_counted(&self, entry: &Path) -> bool {
        is_subvolume(entry)
    }

    fn view(&self, entry: &Path, at: &Path) -> Result<View, HomeError> {
        if !is_subvolume(entry) {
            return Directories.view(entry, at);
        }
        let args = ["subvolume".as_ref(), "snapshot".as_ref(), "-r".as_ref(), entry.as_os_str(), at.as_os_str()];
        BTRFS.run(args, LONG).map_err(HomeError::of("take a snapshot of", entry))?;
        Ok(View { path: at.to_owned(), consistent: true, made: true, open: None })
    }

    fn clone_tree(&self, tree: &Path, entry: &Path, quota: &Quota) -> Result<bool, HomeError> {
        if !is_subvolume(tree) {
            return Ok(false);
        }
        let args = ["subvolume".as_ref(), "snapshot".as_ref(), tree.as_os_str(), entry.as_os_str()];
        BTRFS.run(args, LONG).map_err(HomeError::of("copy", tree))?;
        self.limit(entry, quota)?;
        Ok(true)
    }

    fn remove(&self, entry: &Path) -> Result<(), HomeError> {
        if is_subvolume(entry) {
            self.delete(entry)
        } else if is_directory(entry) {
            Directories.remove(entry)
        } else {
            Ok(())
        }
    }
}

/// Whether a directory is on a btrfs.
pub(super) fn is_btrfs(root: &Path) -> bool {
    rustix::fs::statfs(root).is_ok_and(|stat| stat.f_type as u64 == MAGIC)
}

/// Whether quotas are on.
pub(super) fn enabled(groups: &Path) -> bool {
    std::fs::read_to_string(groups.join("enabled")).is_ok_and(|text| text.trim() == "1")
}

/// Whether a subvolume that somebody makes in her home counts as part of it.
pub(super) fn are_simple(groups: &Path) -> bool {
    std::fs::read_to_string(groups.join("mode")).is_ok_and(|text| text.trim() == "squota")
}

/// Where the kernel has the quota groups of the file system that a directory is on.
pub(super) fn groups_of(root: &Path) -> io::Result<PathBuf> {
    let mount = mount_of(root).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    let device = mount.source.canonicalize()?;
    let device = device.file_name().unwrap_or_default();
    for entry in std::fs::read_dir("/sys/fs/btrfs")? {
        let there = entry?.path();
        if there.join("devices").join(device).exists() {
            return Ok(there.join("qgroups"));
        }
    }
    Err(io::Error::other("the kernel does not list the btrfs there"))
}

fn is_subvolume(entry: &Path) -> bool {
    std::fs::symlink_metadata(entry).is_ok_and(|meta| meta.is_dir() && meta.ino() == ROOT_INODE)
}
