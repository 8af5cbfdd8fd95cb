//! Space on the disk that is kept for the gateway's own records: a file that means nothing, given up when there is no other space left.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use tracing::{info, warn};

/// The file. It is there or not; a kill at any moment leaves one that the next look puts right.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

/// How many times its own size must be free until it is made: less would be taken from who is just running out of it, and be given up again at
/// once.
const ROOM: u64 = 2;

impl Ballast {
    /// A file at this path, which need not be there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Gives its space up. Says whether there was any.
    pub fn give_up(&self) -> bool {
        let had = std::fs::metadata(&self.path).is_ok_and(|data| data.len() > 0);
        match std::fs::remove_file(&self.path) {
            Ok(()) => warn!(path = %self.path.display(), "the disk is full: reserved space is given up for records"),
            Err(why) if why.kind() == io::ErrorKind::NotFound => {}
            Err(why) => warn!(path = %self.path.display(), %why, "the disk is full, and reserved space cannot be given up"),
        }
        had
    }

    /// Sees to it that the file has `size` bytes, or is not there if that is 0, as far as there is room. Waits for the disk.
    pub fn keep(&self, size: u64) -> io::Result<()> {
        let has = std::fs::symlink_metadata(&self.path).map_or(0, |data| if data.is_file() { data.len() } else { 0 });
        if has == size {
            return Ok(());
        }
        if size == 0 {
            return std::fs::remove_file(&self.path);
        }
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        let free = statvfs(parent)?;
        if free.f_bavail.saturating_mul(free.f_frsize) / ROOM < size.saturating_sub(has) {
            return Ok(());
        }
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&self.path)?;
        file.set_len(has.min(size))?;
        // Allocated, not only as long: a sparse file would keep nothing.
        let kept = fallocate(&file, FallocateFlags::empty(), 0, size);
        if let Err(why) = kept {
            std::fs::remove_file(&self.path)?;
            return Err(why.into());
        }
        info!(path = %self.path.display(), bytes = size, "space reserved for records");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_takes_real_space_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let ballast = Ballast::new(&path);
        assert!(!ballast.give_up(), "there is none");
        ballast.keep(1 << 20).unwrap();
        ballast.keep(1 << 20).unwrap();
        let data = std::fs::metadata(&path).unwrap();
        assert!(data.len() == 1 << 20 && data.blocks() * 512 >= 1 << 20 && data.mode() & 0o777 == 0o600, "{data:?}");
        ballast.keep(1 << 16).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 16);
        assert!(ballast.give_up() && !path.exists());
        ballast.keep(1 << 16).unwrap();
        ballast.keep(0).unwrap();
        assert!(!path.exists());
        ballast.keep(u64::MAX / 4).unwrap();
        assert!(!path.exists(), "there is no room for it");
    }
}
