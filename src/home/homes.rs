//! Homes in plain directories.

use std::path::{Path, PathBuf};

use rustix::fs::{self, CWD, Gid, Mode, OFlags, Uid};

use super::{HomeError, USER};
use crate::name::WorkspaceName;

/// The directory that holds all homes. It belongs to root and no container ever sees it, so nobody can swap what is in it.
#[derive(Debug)]
pub struct Homes {
    root: PathBuf,
}

impl Homes {
    /// Opens the directory, making it if need be.
    pub fn open(root: &Path) -> Result<Self, HomeError> {
        std::fs::create_dir_all(root).map_err(HomeError::of("make", root))?;
        // Others may pass through but not list: names of workspaces are nobody's business.
        fs::chmod(root, Mode::from_raw_mode(0o711)).map_err(HomeError::of("set the mode of", root))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The home of a workspace, made if it is not there.
    ///
    /// Interrupted anywhere, what is left is an empty directory that the next call puts right. What is in a home is never touched.
    pub fn ensure(&self, name: &WorkspaceName) -> Result<PathBuf, HomeError> {
        let path = self.root.join(name.as_str());
        let made = match fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(rustix::io::Errno::EXIST) => false,
            Err(why) => return Err(HomeError::of("make", &path)(why)),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(CWD, &path, flags, Mode::empty()).map_err(HomeError::of("open", &path))?;
        let stat = fs::fstat(&dir).map_err(HomeError::of("look at", &path))?;
        if stat.st_uid != USER || stat.st_gid != USER {
            fs::fchown(&dir, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).map_err(HomeError::of("change the owner of", &path))?;
        }
        if made {
            // The entry must be on disk before anything of hers is.
            let parent = fs::openat(CWD, &self.root, flags, Mode::empty()).map_err(HomeError::of("open", &self.root))?;
            fs::fsync(&parent).map_err(HomeError::of("sync", &self.root))?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_home_is_made_once_and_belongs_to_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes::open(&dir.path().join("homes")).unwrap();
        let alice = "alice".parse().unwrap();
        let home = homes.ensure(&alice).unwrap();
        std::fs::write(home.join("kept"), "x").unwrap();
        std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
        assert_eq!(homes.ensure(&alice).unwrap(), home);
        let meta = std::fs::metadata(&home).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (USER, USER, 0o700));
        assert_eq!(std::fs::read_to_string(home.join("kept")).unwrap(), "x");
    }

    #[test]
    fn a_link_in_place_of_a_home_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let homes = Homes::open(dir.path()).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("alice")).unwrap();
        assert!(homes.ensure(&"alice".parse().unwrap()).is_err());
        assert_eq!(std::fs::metadata("/etc").unwrap().uid(), 0);
    }
}
