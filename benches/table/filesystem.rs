//! File systems of a run's own, each in a sparse file of its place behind a loop device.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::place::Place;

/// A mounted file system. Dropping it unmounts it and all that is mounted in it; the kernel lets go of its loop device with the last mount. Only
/// SIGKILL leaves it: `umount -R` of what `/proc/mounts` has below the place is all that is needed then.
pub struct FileSystem {
    image: PathBuf,
    point: PathBuf,
}

impl FileSystem {
    /// Makes one of this kind, with these options of mount's beside `loop`. Nothing: this kernel does not mount it so, and why.
    pub fn make(place: &Place, name: &str, kind: &str, bytes: u64, options: &str) -> Result<Result<Self, String>> {
        let (image, point) = (place.path(&format!("{name}.image")), place.path(name));
        File::create_new(&image)?.set_len(bytes)?;
        fs::create_dir(&point)?;
        // From here on what there is goes with it, mounted or not.
        let made = Self { image, point };
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&made.image))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", kind, "-o", &format!("loop,{options}")]).arg(&made.image).arg(&made.point);
        let mounted = mount.output().context("mount")?;
        Ok(if mounted.status.success() { Ok(made) } else { Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        unmount_below(&self.point);
        fs::remove_file(&self.image).ok();
    }
}

/// A directory without mounts, once this is dropped: what is mounted at or below it is unmounted then.
pub struct Unmounted(pub PathBuf);

impl Drop for Unmounted {
    fn drop(&mut self) {
        unmount_below(&self.0);
    }
}

/// The last first. One that is busy is detached: it goes when whoever holds it does.
fn unmount_below(dir: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(dir)) {
        let gone = |lazily: &[&str]| Command::new("umount").args(lazily).arg(point).output().is_ok_and(|done| done.status.success());
        if !gone(&[]) && !gone(&["-l"]) {
            eprintln!("{point} is still mounted");
        }
    }
}

/// Runs a program that must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    crate::wait::go_on()?;
    let done = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(done.status.success(), "{command:?}: {}, {}", done.status, String::from_utf8_lossy(&done.stderr));
    Ok(())
}
