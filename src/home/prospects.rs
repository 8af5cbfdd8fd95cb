//! What a host can enforce for homes, found out without making anything.

use std::path::Path;

use super::program::{BTRFS, CHATTR, E2FSCK, FSFREEZE, LOSETUP, MKFS_EXT4, MOUNT, Program, RESIZE2FS, XFS_QUOTA};
use super::{DriverKind, btrfs, capability, mounts, xfs};

/// Something about how homes can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prospect {
    /// It can be had.
    Good(String),
    /// It can be had, less something that should be known.
    Lacking(String),
    /// Homes cannot be kept like this.
    Impossible(String),
}

/// What a driver can do where homes are or will be.
pub fn prospects(kind: DriverKind, root: &Path) -> Vec<Prospect> {
    // Of a root that will be made, what is above it decides.
    let there = root.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let there = there.canonicalize().unwrap_or_else(|_| there.to_owned());
    match kind {
        DriverKind::Directory => {
            vec![Prospect::Lacking("homes are plain directories: their size is reported and not limited; see home.driver".to_owned())]
        }
        DriverKind::Loop => of_images(),
        DriverKind::Btrfs => of_btrfs(&there),
        DriverKind::Xfs => of_xfs(&there),
    }
}

fn of_images() -> Vec<Prospect> {
    let mut all = missing(&[MKFS_EXT4, RESIZE2FS, E2FSCK, MOUNT, LOSETUP, FSFREEZE]);
    if !rustix::process::geteuid().is_root() {
        all.push(Prospect::Impossible("only root can mount images; run as root, or choose another home.driver".to_owned()));
    }
    if !Path::new("/dev/loop-control").exists() {
        let mend = "there are no loop devices; load them with `modprobe loop`, or give this container /dev/loop-control and its devices";
        all.push(Prospect::Impossible(mend.to_owned()));
    }
    let kinds = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !kinds.split_whitespace().any(|kind| kind == "ext4") {
        all.push(Prospect::Lacking("the kernel has no ext4 yet; it is loaded when it is needed, if there is one".to_owned()));
    }
    if !capability::has(capability::SYS_RESOURCE) {
        let mend = "no CAP_SYS_RESOURCE: a home that is in use cannot be made larger, only when it is next started; give it to the service";
        all.push(Prospect::Lacking(mend.to_owned()));
    }
    let good = "bytes and inodes are limited; a smaller size, and other inodes, only apply to a home that nobody uses, or to a new one";
    or_good(all, good)
}

fn of_btrfs(there: &Path) -> Vec<Prospect> {
    let mut all = missing(&[BTRFS]);
    if !btrfs::is_btrfs(there) {
        all.push(Prospect::Impossible(format!("{} is not on a btrfs; make one there, or choose another home.driver", there.display())));
        return all;
    }
    match btrfs::groups_of(there) {
        Ok(groups) if !btrfs::enabled(&groups) => {
            all.push(Prospect::Lacking("quotas are off; they are switched on at the start".to_owned()))
        }
        Ok(groups) if !btrfs::are_simple(&groups) => {
            let mend = "quotas are not simple ones: a subvolume that somebody makes in her home is not counted; with Linux 6.7 and btrfs-progs 6.7: \
                        btrfs quota disable, btrfs quota enable --simple";
            all.push(Prospect::Lacking(mend.to_owned()));
        }
        Ok(_) => {}
        Err(why) => all.push(Prospect::Lacking(why.to_string())),
    }
    all.push(Prospect::Good("bytes are limited, inodes cannot be".to_owned()));
    all
}

fn of_xfs(there: &Path) -> Vec<Prospect> {
    let mut all = missing(&[XFS_QUOTA, CHATTR]);
    match mounts::mount_of(there) {
        Ok(Some(mount)) => match xfs::lacking(&mount) {
            Some(lacks) => all.push(Prospect::Impossible(lacks)),
            None => {
                let mend = "bytes and inodes are limited, against accidents: who owns a file can take it out of her quota, unless Docker \
                            has `userns-remap` on";
                all.push(Prospect::Lacking(mend.to_owned()));
            }
        },
        Ok(None) => all.push(Prospect::Impossible(format!("nothing is known of the mount of {}", there.display()))),
        Err(why) => all.push(Prospect::Impossible(why.to_string())),
    }
    all
}

/// Programs that are not there, each with its package.
fn missing(programs: &[Program]) -> Vec<Prospect> {
    programs.iter().filter_map(|program| program.find().err()).map(|why| Prospect::Impossible(why.to_string())).collect()
}

fn or_good(mut all: Vec<Prospect>, good: &str) -> Vec<Prospect> {
    if !all.iter().any(|prospect| matches!(prospect, Prospect::Impossible(_))) {
        all.push(Prospect::Good(good.to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_what_is_above() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        let Prospect::Impossible(said) = prospects(DriverKind::Xfs, &root).pop().unwrap() else { panic!("no xfs is here") };
        assert!(said.contains("not xfs") && !root.exists(), "{said}");
    }
}
