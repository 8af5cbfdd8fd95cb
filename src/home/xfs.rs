//! Homes in directories of an XFS, each a project with a quota of bytes and inodes.
//!
//! A home's project is a number that no other ever gets: the last one given is in a file beside the homes, and is counted up on the disk
//! before it is used. Which project a home is, its root says in an attribute that only root can see and set.
//!
//! The kernel lets the owner of a file move it to another project, from outside of user namespaces. Where containers share the host's, as
//! Docker's do unless it is told otherwise, a quota thus holds for accidents, not against somebody who means it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use super::HomeError;
use super::directory::{Directories, counted, is_directory, live, open_tree};
use super::driver::{Applied, Driver, Hold, Holds, Quota, Usage, View};
use super::mounts::{Mount, mount_of};
use super::program::{CHATTR, SOON, XFS_QUOTA};

/// Directories right below a directory of an XFS.
#[derive(Debug)]
pub(super) struct Xfs {
    root: PathBuf,
    mount: PathBuf,
    /// Whoever gives a number holds this.
    numbering: Mutex<()>,
}

/// The file with the last number that was given.
const NUMBERS: &str = ".projects";
/// Below are those that somebody may have set up by hand.
const FIRST: u32 = 1 << 20;
/// The attribute of a home's root that has its number, in decimal.
const ATTRIBUTE: &str = "trusted.innkeeper.project";

impl Xfs {
    /// Directories right below `root`, which must have no links in it.
    pub(super) fn open(root: &Path) -> Result<Self, HomeError> {
        let failed = |why: io::Error| HomeError::of("keep projects in", root)(why);
        let mount = mount_of(root)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        if let Some(lacks) = lacking(&mount) {
            return Err(failed(io::Error::other(lacks)));
        }
        XFS_QUOTA.find().and(CHATTR.find()).map_err(failed)?;
        Ok(Self { root: root.to_owned(), mount: mount.point, numbering: Mutex::default() })
    }

    /// A number that was never given.
    fn number(&self) -> Result<u32, HomeError> {
        let _one_at_a_time = self.numbering.lock();
        let path = self.root.join(NUMBERS);
        let last = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| HomeError::of("read", &path)(io::Error::from(io::ErrorKind::InvalidData)))?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => FIRST,
            Err(why) => return Err(HomeError::of("read", &path)(why)),
        };
        let next: u32 = u32::checked_add(last, 1).ok_or_else(|| HomeError::of("count up", &path)(io::Error::other("no number is left")))?;
        let fresh = self.root.join(super::shelf::fresh_draft());
        let written = std::fs::File::create_new(&fresh).and_then(|mut file| {
            writeln!(file, "{next}")?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        });
        if let Err(why) = written {
            std::fs::remove_file(&fresh).ok();
            return Err(HomeError::of("write", &path)(why));
        }
        super::shelf::sync(&self.root)?;
        Ok(next)
    }

    fn limit(&self, entry: &Path, number: u32, quota: &Quota) -> Result<(), HomeError> {
        // In blocks of a kilobyte; zero is no limit.
        let bytes = quota.bytes.map_or(0, |bytes| bytes.div_ceil(1024));
        let command = format!("limit -p bsoft=0 bhard={bytes}k isoft=0 ihard={} {number}", quota.inodes.unwrap_or(0));
        let args = ["-x".as_ref(), "-c".as_ref(), command.as_ref(), self.mount.as_os_str()];
        let said = XFS_QUOTA.run(args, SOON).map_err(HomeError::of("limit", entry))?;
        // It says on its output what did not work, and ends well.
        if said.trim().is_empty() { Ok(()) } else { Err(HomeError::of("limit", entry)(io::Error::other(said.trim().to_owned()))) }
    }
}

impl Driver for Xfs {
    fn make(&self, entry: &Path, quota: &Quota) -> Result<(), HomeError> {
        Directories.make(entry, quota)?;
        let number = self.number()?;
        let project = number.to_string();
        CHATTR.run(["+P".as_ref(), "-p".as_ref(), project.as_ref(), entry.as_os_str()], SOON).map_err(HomeError::of("number", entry))?;
        let dir = open_tree(entry)?;
        fsetxattr(&dir, ATTRIBUTE, project.as_bytes(), XattrFlags::CREATE).map_err(HomeError::of("number", entry))?;
        self.limit(entry, number, quota)
    }

    fn reach(&self, entry: &Path, quota: Option<&Quota>) -> Result<(PathBuf, Applied), HomeError> {
        open_tree(entry)?;
        let applied = match quota {
            Some(quota) => self.fit(entry, quota).unwrap_or_else(|why| Applied::Later(why.to_string())),
            None => Applied::Now,
        };
        Ok((entry.to_owned(), applied))
    }

    fn fit(&self, entry: &Path, quota: &Quota) -> Result<Applied, HomeError> {
        let Some(number) = number_of(entry) else { return Directories.fit(entry, quota) };
        let (bytes, inodes) = applied(entry, quota)?;
        if quota.bytes.is_none() || quota.inodes.is_none() || !bytes || !inodes {
            self.limit(entry, number, quota)?;
        }
        Ok(Applied::Now)
    }

    fn holds(&self, entry: &Path, quota: &Quota) -> Result<Holds, HomeError> {
        if number_of(entry).is_none() {
            return Directories.holds(entry, quota);
        }
        let (bytes, inodes) = applied(entry, quota)?;
        Ok(Holds { bytes: Hold::if_applied(bytes), inodes: Hold::if_applied(inodes) })
    }

    fn usage(&self, entry: &Path) -> Result<Option<Usage>, HomeError> {
        number_of(entry).map(|_| counted(entry)).transpose()
    }

    fn is_counted(&self, entry: &Path) -> bool {
        number_of(entry).is_some()
    }

    fn view(&self, entry: &Path, _at: &Path) -> Result<View, HomeError> {
        live(entry, entry)
    }

    fn remove(&self, entry: &Path) -> Result<(), HomeError> {
        let number = number_of(entry);
        if is_directory(entry) {
            Directories.remove(entry)?;
        }
        // The number is never given again: a limit that stays with it is only a line in a list.
        number.map_or(Ok(()), |number| self.limit(entry, number, &Quota::default()))
    }
}

/// What a mount lacks for project quotas.
pub(super) fn lacking(mount: &Mount) -> Option<String> {
    let point = mount.point.display();
    if mount.kind != "xfs" {
        return Some(format!("{point} is {}, not xfs; make one there, or choose another home.driver", mount.kind));
    }
    if !mount.options.split(',').any(|option| matches!(option, "prjquota" | "pquota")) {
        return Some(format!(
            "project quotas are off; mount {point} with -o prjquota, which takes a kernel with CONFIG_XFS_QUOTA, or choose another home.driver"
        ));
    }
    None
}

/// Whether a home has this limit of bytes, and this one of inodes. What the file system says of a project is what its quota is.
fn applied(entry: &Path, quota: &Quota) -> Result<(bool, bool), HomeError> {
    let has = counted(entry)?.limit;
    let whole = |bytes: Option<u64>| bytes.map(|bytes| bytes.div_ceil(4096));
    Ok((whole(has.bytes) == whole(quota.bytes), has.inodes == quota.inodes))
}

/// The number of a home; a plain directory has none.
fn number_of(entry: &Path) -> Option<u32> {
    let dir = open_tree(entry).ok()?;
    let mut digits = [0u8; 16];
    let length = fgetxattr(&dir, ATTRIBUTE, &mut digits[..]).ok()?;
    std::str::from_utf8(digits.get(..length)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_cannot_do_it_says_what_would() {
        let mount = |kind: &str, options: &str| Mount {
            point: "/srv".into(),
            kind: kind.to_owned(),
            source: "/dev/sdb".into(),
            options: options.to_owned(),
        };
        assert_eq!(lacking(&mount("xfs", "rw,attr2,prjquota")), None);
        assert!(lacking(&mount("xfs", "rw,noquota")).unwrap().contains("-o prjquota"));
        assert!(lacking(&mount("ext4", "rw,prjquota")).unwrap().contains("/srv is ext4, not xfs"));
    }

    #[test]
    fn a_number_is_never_given_twice_not_even_by_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Xfs { root: dir.path().to_owned(), mount: dir.path().to_owned(), numbering: Mutex::default() };
        let numbers = [open(), open()].map(|xfs| (xfs.number().unwrap(), xfs.number().unwrap()));
        assert_eq!(numbers, [(FIRST + 1, FIRST + 2), (FIRST + 3, FIRST + 4)]);
        // A list that cannot be read gives none rather than one that may be somebody's.
        std::fs::write(dir.path().join(NUMBERS), "x").unwrap();
        assert!(open().number().is_err());
    }
}
