//! What is mounted where, as this process sees it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::HomeError;

/// A mount.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    /// Where it is.
    pub(super) point: PathBuf,
    /// The type of its file system.
    pub(super) kind: String,
    /// Its device.
    pub(super) source: PathBuf,
    /// The options of its file system, those of the mount itself not among them.
    pub(super) options: String,
}

/// Where something is mounted.
pub(super) fn mount_points() -> Result<HashSet<PathBuf>, HomeError> {
    Ok(table()?.lines().filter_map(point).collect())
}

/// The devices that are mounted somewhere, as `7:3`.
pub(super) fn mounted_devices() -> Result<HashSet<String>, HomeError> {
    Ok(table()?.lines().filter_map(|line| Some(line.split(' ').nth(2)?.to_owned())).collect())
}

/// Where something is mounted right below a directory.
pub(super) fn mounts_in(dir: &Path) -> Result<Vec<PathBuf>, HomeError> {
    Ok(table()?.lines().filter_map(point).filter(|path| path.parent() == Some(dir)).collect())
}

/// The mount that a path, which must have no links in it, is on.
pub(super) fn mount_of(path: &Path) -> Result<Option<Mount>, HomeError> {
    let table = table()?;
    // Of several on one point the last covers the others.
    let above = table.lines().filter(|line| point(line).is_some_and(|point| path.starts_with(point)));
    Ok(above.filter_map(mount).reduce(|best, next| {
        let nearer = next.point.components().count() >= best.point.components().count();
        if nearer { next } else { best }
    }))
}

fn table() -> Result<String, HomeError> {
    let table = Path::new("/proc/self/mountinfo");
    std::fs::read_to_string(table).map_err(HomeError::of("read", table))
}

/// Where the mount is that a line of the table is about.
pub(super) fn point(line: &str) -> Option<PathBuf> {
    line.split(' ').nth(4).map(unescape)
}

fn mount(line: &str) -> Option<Mount> {
    let point = point(line)?;
    // Before the hyphen are as many optional fields as there happen to be.
    let mut rest = line.split_once(" - ")?.1.split(' ');
    let (kind, source, options) = (rest.next()?.to_owned(), unescape(rest.next()?), rest.next()?.to_owned());
    Some(Mount { point, kind, source, options })
}

/// The kernel writes space, tab, newline and backslash in a path as octal escapes.
fn unescape(path: &str) -> PathBuf {
    let mut out = path.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, character);
    }
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:3 - xfs /dev/loop\134x rw,prjquota";
        let mount = mount(line).unwrap();
        assert_eq!((mount.point, mount.kind.as_str()), (PathBuf::from("/mnt 2"), "xfs"));
        assert_eq!((mount.source, mount.options.as_str()), (PathBuf::from(r"/dev/loop\x"), "rw,prjquota"));
    }

    #[test]
    fn the_nearest_mount_is_a_paths_own() {
        assert_eq!(mount_of(Path::new("/proc/self")).unwrap().unwrap().kind, "proc");
        assert!(mount_points().unwrap().contains(Path::new("/proc")));
    }
}
