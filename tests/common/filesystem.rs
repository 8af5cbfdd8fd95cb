//! File systems of a test's own, each in a file behind a loop device. They are unmounted when dropped, whatever became of the test.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted file system.
pub struct FileSystem {
    dir: tempfile::TempDir,
}

impl FileSystem {
    /// Makes one with `mkfs.<kind>` and mounts it; `Err`: the kernel would not mount it like this.
    pub fn make(kind: &str, bytes: u64, options: &str) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("innkeeper-fs-").tempdir().unwrap();
        let file = dir.path().join("image");
        File::create(&file).unwrap().set_len(bytes).unwrap();
        let made = Command::new(format!("mkfs.{kind}")).arg("-q").arg(&file).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let made = Self { dir };
        std::fs::create_dir(made.path()).unwrap();
        let options = if options.is_empty() { "loop".to_owned() } else { format!("loop,{options}") };
        let mounted = Command::new("mount").args(["-t", kind, "-o", &options]).arg(&file).arg(made.path()).output().unwrap();
        if mounted.status.success() { Ok(made) } else { Err(String::from_utf8_lossy(&mounted.stderr).into_owned()) }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        unmount_below(self.dir.path());
    }
}

/// Unmounts all that is mounted at or below a directory, the last first.
pub fn unmount_below(dir: &Path) {
    let dir = dir.canonicalize().unwrap();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for point in table.lines().rev().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(&dir)) {
        let plain = Command::new("umount").arg(point).stderr(Stdio::null()).status().unwrap().success();
        if !plain {
            Command::new("umount").arg("-l").arg(point).status().unwrap();
        }
    }
}
