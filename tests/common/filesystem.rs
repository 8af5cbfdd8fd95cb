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
        let made = Self::unmounted();
        File::create(made.image()).unwrap().set_len(bytes).unwrap();
        good(Command::new(format!("mkfs.{kind}")).arg("-q").arg(made.image()));
        let options = if options.is_empty() { "loop".to_owned() } else { format!("loop,{options}") };
        made.mount(kind, &options)
    }

    /// Mounts a copy of somebody's image of an ext4, to look at it. It is whole, and was let go of cleanly.
    pub fn copied_from(image: &Path) -> Self {
        let made = Self::unmounted();
        good(Command::new("cp").arg("-T").arg(image).arg(made.image()));
        good(Command::new("e2fsck").args(["-f", "-n"]).arg(made.image()));
        made.mount("ext4", "loop,ro,noload").unwrap()
    }

    fn unmounted() -> Self {
        let made = Self { dir: tempfile::Builder::new().prefix("innkeeper-fs-").tempdir().unwrap() };
        std::fs::create_dir(made.path()).unwrap();
        made
    }

    fn mount(self, kind: &str, options: &str) -> Result<Self, String> {
        let mounted = Command::new("mount").args(["-t", kind, "-o", options]).arg(self.image()).arg(self.path()).output().unwrap();
        if mounted.status.success() { Ok(self) } else { Err(String::from_utf8_lossy(&mounted.stderr).into_owned()) }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
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

fn good(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
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
