//! The trees of homes on real file systems: copied, measured and removed, also while they are being changed by somebody who means harm.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/trees.rs"]
mod trees;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use innkeeper::home::skeleton;
use innkeeper::home::tree::{Limits, Measure, Skipped, Summary, TreeError, copy, measure, remove};
use rustix::fs::{CWD, FileType, Mode};
use trees::{
    Ambush, Swapping, Trap, assert_clean, assert_same, dig, furnish, furnish_for_ambush, on, open, own, see, set_attribute, sound,
};

/// A directory that is gone afterwards, also if what is in it is too deep for others.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap().keep())
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(open(Path::new("/")).as_fd(), "no such name".as_ref(), &on).unwrap();
        let parent = open(self.0.parent().unwrap());
        let removed = remove(parent.as_fd(), self.0.file_name().unwrap(), &on);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// What is mounted for a test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(args: &[&str], at: &Path) -> Self {
        assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

fn copy_all(from: &Path, to: &Path) -> Summary {
    copy(open(from).as_fd(), open(to).as_fd(), Limits::default(), &on).unwrap()
}

fn remove_all(path: &Path) -> Result<u64, TreeError> {
    remove(open(path.parent().unwrap()).as_fd(), path.file_name().unwrap(), &on).map(|removed| removed.entries)
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_copy_is_like_its_original() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    furnish(&from);
    let before = see(&from);
    let started = Instant::now();
    let summary = copy_all(&from, &to);
    assert!(started.elapsed() < Duration::from_secs(10), "a hole of a terabyte costs nothing");
    assert_same(&before, &see(&to));
    assert_same(&before, &see(&from));
    assert_eq!((summary.files, summary.hard_links, summary.symlinks, summary.fifos, summary.directories), (7, 3, 3, 1, 4));
    assert_eq!(summary.skipped, Skipped::default());
    let blocks = |dir: &Path| fs::metadata(dir.join("sparse")).unwrap().blocks();
    assert_eq!(blocks(&to), blocks(&from));
    assert_eq!(remove_all(&to).unwrap(), 19);
}

#[test]
fn what_runs_as_somebody_else_or_is_no_file_stays_behind() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    fs::write(from.join("suid"), "x").unwrap();
    fs::set_permissions(from.join("suid"), fs::Permissions::from_mode(0o6755)).unwrap();
    set_attribute(&from.join("suid"), "trusted.secret", b"x");
    set_attribute(&from.join("suid"), "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    rustix::fs::mknodat(CWD, from.join("zero"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5)).unwrap();
    rustix::fs::mknodat(CWD, from.join("disk"), FileType::BlockDevice, Mode::RWXU, rustix::fs::makedev(7, 99)).unwrap();
    let summary = copy_all(&from, &to);
    assert_eq!(summary.skipped, Skipped { devices: 2, sockets: 1, ..Skipped::default() });
    let seen = see(&to);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[Path::new("suid")].mode & 0o7777, 0o755);
    assert!(seen[Path::new("suid")].attributes.is_empty(), "{:?}", seen[Path::new("suid")].attributes);
    assert_eq!(remove_all(&from).unwrap(), 5);
}

#[test]
fn other_file_systems_in_a_tree_are_left_alone() {
    let scratch = Scratch::new();
    let (from, to, other) = (scratch.dir("from"), scratch.dir("to"), scratch.dir("other"));
    for name in ["tmpfs", "bound", "dir/under"] {
        fs::create_dir_all(from.join(name)).unwrap();
    }
    fs::write(from.join("file"), "").unwrap();
    fs::write(from.join("dir/own"), "x").unwrap();
    fs::write(other.join("not hers"), trees::MARKER).unwrap();
    let tmpfs = Mounted::new(&["-t", "tmpfs", "none"], &from.join("tmpfs"));
    let not_hers = other.join("not hers");
    // Of the same file system: its device number tells nothing.
    let bound = Mounted::new(&["--bind", other.to_str().unwrap()], &from.join("bound"));
    let under = Mounted::new(&["--bind", other.to_str().unwrap()], &from.join("dir/under"));
    let file = Mounted::new(&["--bind", not_hers.to_str().unwrap()], &from.join("file"));
    fs::write(from.join("tmpfs/kept"), "x").unwrap();
    let summary = copy_all(&from, &to);
    assert_eq!((summary.skipped.mounts, summary.files), (4, 1));
    assert_eq!(see(&to).into_keys().collect::<Vec<_>>(), ["", "dir", "dir/own"].map(PathBuf::from));
    let size = measure(open(&from).as_fd(), &on).unwrap();
    assert!(size.inodes <= 5, "{size:?}");
    assert!(matches!(remove_all(&from), Err(TreeError::Remains(why)) if why.raw_os_error() == Some(16)));
    assert_eq!(fs::read_to_string(from.join("tmpfs/kept")).unwrap(), "x");
    assert_eq!(fs::read_to_string(&not_hers).unwrap(), trees::MARKER);
    assert!(!from.join("dir/own").exists(), "what can go went");
    drop((tmpfs, bound, under, file));
    remove_all(&from).unwrap();
    assert!(not_hers.exists());
}

#[test]
fn a_tree_is_measured_as_its_disk_counts() {
    let scratch = Scratch::new();
    let from = scratch.dir("from");
    furnish(&from);
    let du = Command::new("du").args(["-s", "--block-size=1"]).arg(&from).output().unwrap();
    let expected: u64 = String::from_utf8(du.stdout).unwrap().split('\t').next().unwrap().parse().unwrap();
    assert_eq!(measure(open(&from).as_fd(), &on).unwrap(), Measure { bytes: expected, inodes: 16 });
}

#[test]
fn a_race_leads_nowhere_else() {
    let scratch = Scratch::new();
    let trap = Trap::set(&scratch.0);
    let outside = see(&trap.outside);
    let largest = measure(open(&trap.tree).as_fd(), &on).unwrap();
    let swapping = trap.spring();
    let (mut changed, mut copies) = (0, 0);
    while copies < 200 || swapping.count() < 20_000 {
        let to = scratch.dir("to");
        changed += copy_all(&trap.tree, &to).skipped.changed;
        assert_clean(&to);
        remove_all(&to).unwrap();
        let size = measure(open(&trap.tree).as_fd(), &on).unwrap();
        // A directory that moves may be met twice.
        assert!(size.inodes <= 2 * largest.inodes, "{size:?} {largest:?}");
        copies += 1;
    }
    drop(swapping);
    assert!(changed > 0, "the race was never met");
    trap.assert_untouched(&outside);
}

#[test]
fn a_race_removes_nothing_else() {
    let scratch = Scratch::new();
    let outside = see(&Trap::set(&scratch.0).outside);
    let mut swaps = 0;
    let mut rounds = 0;
    while rounds < 200 || swaps < 2_000 {
        let trap = Trap { outside: scratch.0.join("outside"), tree: scratch.0.join("tree") };
        let swapping = trap.spring();
        while swapping.count() < 3 {
            std::thread::yield_now();
        }
        remove_all(&trap.tree).unwrap();
        swaps += swapping.count();
        drop(swapping);
        assert!(!trap.tree.exists());
        trap.assert_untouched(&outside);
        Trap::set(&scratch.0);
        // Setting it wrote the same files outside again.
        for (path, seen) in &outside {
            trees::set_mtime(&scratch.0.join("outside").join(path), seen.mtime.0, seen.mtime.1);
        }
        rounds += 1;
    }
}

/// Who makes a copy does so where nobody else can be: it holds even there.
#[test]
fn a_race_where_a_copy_is_made_reaches_nothing_else() {
    let scratch = Scratch::new();
    let from = scratch.dir("from");
    furnish_for_ambush(&from);
    // As it is, and for somebody to whom all of it is to belong.
    Ambush::lay(&scratch.0).try_out(|into| copy(open(&from).as_fd(), open(into).as_fd(), Limits::default(), &on).is_ok());
    Ambush::lay(&scratch.0).try_out(|into| skeleton::fill(&from, open(into).as_fd(), Limits::default(), &on).is_ok());
}

#[test]
fn a_directory_that_moves_out_of_the_tree_is_not_followed() {
    let scratch = Scratch::new();
    let (tree, elsewhere) = (scratch.dir("tree"), scratch.dir("elsewhere"));
    fs::create_dir_all(elsewhere.join("a")).unwrap();
    fs::write(elsewhere.join("a/file"), trees::MARKER).unwrap();
    // Deeper than descriptors are kept, so that the way back leads through "..".
    dig(&tree, 200, "a");
    let swapping = Swapping::start(vec![(tree.join("a/a"), elsewhere.join("a")), (tree.join("a/a/a/a"), elsewhere.join("a"))]);
    let mut lost = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let to = scratch.dir("to");
        lost += copy_all(&tree, &to).skipped.changed;
        remove_all(&to).unwrap();
        measure(open(&tree).as_fd(), &on).unwrap();
    }
    assert!(swapping.count() > 2_000);
    drop(swapping);
    assert!(lost > 0, "the race was never met");
    // Swapping ends anywhere: her directory and the other are each in one of the places, whole.
    remove_all(&tree).unwrap();
    assert!(elsewhere.join("a").is_dir());
}

#[test]
fn a_fifo_is_neither_waited_for_nor_woken() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    let fifo = from.join("fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::write(from.join("file"), "hers").unwrap();
    // Now one, now the other: it is opened as the file that it was.
    let swapping = Swapping::start(vec![(fifo.clone(), from.join("file"))]);
    while swapping.count() < 20_000 {
        copy_all(&from, &to);
        assert_clean(&to);
        for name in ["fifo", "file"] {
            fs::remove_file(to.join(name)).ok();
        }
    }
}

#[test]
fn a_deep_tree_takes_few_descriptors() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    dig(&from, 5_000, "d");
    dig(&from, 300, &"n".repeat(200));
    let before = descriptors();
    let most = Cell::new(0);
    let watch = |_| {
        most.set(most.get().max(descriptors()));
        ControlFlow::Continue(())
    };
    let summary = copy(open(&from).as_fd(), open(&to).as_fd(), Limits::default(), &watch).unwrap();
    assert_eq!((summary.directories, summary.files), (5_300, 2));
    assert_eq!(sound(&to, "d"), (5_000, b"deep".to_vec()));
    assert_eq!(sound(&to, &"n".repeat(200)), (300, b"deep".to_vec()));
    assert_eq!(measure(open(&to).as_fd(), &watch).unwrap().inodes, 5_303);
    assert_eq!(remove(open(&scratch.0).as_fd(), "to".as_ref(), &watch).unwrap().entries, 5_303);
    // Others in this process open some as well.
    assert!(most.get() < before + 150, "{before} {}", most.get());
}

#[test]
fn a_farm_of_hard_links_stays_one_file() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    fs::write(from.join("0"), vec![7; 100_000]).unwrap();
    for number in 1..20_000 {
        fs::hard_link(from.join("0"), from.join(number.to_string())).unwrap();
    }
    let summary = copy_all(&from, &to);
    assert_eq!((summary.files, summary.hard_links, summary.bytes), (1, 19_999, 100_000));
    assert_eq!(fs::metadata(to.join("777")).unwrap().nlink(), 20_000);
    assert_eq!(measure(open(&to).as_fd(), &on).unwrap().inodes, 2);
}

#[test]
fn limits_and_a_stop_end_the_work() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    for number in 0..100 {
        fs::write(from.join(number.to_string()), [0; 1000]).unwrap();
    }
    let limited = |limits| copy(open(&from).as_fd(), open(&scratch.dir(&format!("{limits:?}"))).as_fd(), limits, &on);
    assert!(matches!(limited(Limits { bytes: 50_000, ..Limits::default() }), Err(TreeError::TooBig(50_000))));
    assert!(matches!(limited(Limits { entries: 50, ..Limits::default() }), Err(TreeError::TooMany(50))));
    assert!(limited(Limits { entries: 100, bytes: 100 * 4096 }).is_ok());
    let stop = |progress: innkeeper::home::tree::Progress| {
        if progress.entries > 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(copy(open(&from).as_fd(), open(&to).as_fd(), Limits::default(), &stop), Err(TreeError::Stopped)));
    assert!(matches!(measure(open(&from).as_fd(), &stop), Err(TreeError::Stopped)));
    assert!(matches!(remove(open(&scratch.0).as_fd(), "from".as_ref(), &stop), Err(TreeError::Stopped)));
    assert!(fs::read_dir(&from).unwrap().count() > 50, "what was not reached is there");
}

#[test]
fn a_full_disk_is_an_error() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    fs::write(from.join("big"), vec![1; 3 << 20]).unwrap();
    let _small = Mounted::new(&["-t", "tmpfs", "-o", "size=2m", "none"], &to);
    let failed = copy(open(&from).as_fd(), open(&to).as_fd(), Limits::default(), &on);
    assert!(matches!(&failed, Err(TreeError::Io { why, .. }) if why.kind() == std::io::ErrorKind::StorageFull), "{failed:?}");
}

#[test]
fn flags_that_forbid_removing_are_taken_away() {
    let scratch = Scratch::new();
    let tree = scratch.dir("tree");
    fs::create_dir(tree.join("dir")).unwrap();
    fs::write(tree.join("dir/file"), "x").unwrap();
    fs::write(tree.join("dir/log"), "x").unwrap();
    for (flag, path) in [("+i", "dir/file"), ("+a", "dir/log"), ("+a", "dir"), ("+i", "")] {
        assert!(Command::new("chattr").arg(flag).arg(tree.join(path)).status().unwrap().success());
    }
    assert!(fs::remove_file(tree.join("dir/log")).is_err());
    remove_all(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn only_one_entry_is_removed_and_a_link_is_one() {
    let scratch = Scratch::new();
    let outside = scratch.dir("outside");
    fs::write(outside.join("file"), "x").unwrap();
    symlink(&outside, scratch.0.join("link")).unwrap();
    assert_eq!(remove_all(&scratch.0.join("link")).unwrap(), 1);
    assert_eq!(remove_all(&scratch.0.join("gone")).unwrap(), 0);
    let dir = open(&scratch.0);
    for name in ["", ".", "..", "outside/file", "/etc", "a\0b"] {
        assert!(matches!(remove(dir.as_fd(), name.as_ref(), &on), Err(TreeError::Io { .. })), "{name:?}");
    }
    assert!(outside.join("file").exists());
}

#[test]
fn a_file_that_grows_is_copied_as_it_was() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    let path = from.join("log");
    fs::write(&path, vec![b'x'; 20 << 20]).unwrap();
    let grow = |_| {
        let mut file = File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, &vec![b'y'; 1 << 20]).unwrap();
        ControlFlow::Continue(())
    };
    copy(open(&from).as_fd(), open(&to).as_fd(), Limits::default(), &grow).unwrap();
    let mut copied = Vec::new();
    open(&to.join("log")).read_to_end(&mut copied).unwrap();
    assert!((20 << 20..=21 << 20).contains(&copied.len()), "{}", copied.len());
    // And one that is cut short ends where it ends.
    let cut = |progress: innkeeper::home::tree::Progress| {
        if progress.bytes > 0 {
            File::options().write(true).open(&path).unwrap().set_len(5).unwrap();
        }
        ControlFlow::Continue(())
    };
    let again = scratch.dir("again");
    copy(open(&from).as_fd(), open(&again).as_fd(), Limits::default(), &cut).unwrap();
    assert!(fs::metadata(again.join("log")).unwrap().len() <= 8 << 20);
}

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_million_files_are_copied_measured_and_removed_in_little_memory() {
    let scratch = Scratch::new();
    let (from, to) = (scratch.dir("from"), scratch.dir("to"));
    for outer in 0..1_000 {
        let dir = from.join(outer.to_string());
        fs::create_dir(&dir).unwrap();
        for inner in 0..1_000 {
            File::create(dir.join(inner.to_string())).unwrap();
        }
    }
    own(&from, 1000, 1000);
    let before = peak();
    let summary = copy_all(&from, &to);
    assert_eq!((summary.files, summary.directories), (1_000_000, 1_000));
    assert_eq!(measure(open(&to).as_fd(), &on).unwrap().inodes, 1_001_001);
    assert_eq!(remove_all(&to).unwrap(), 1_001_001);
    // What other tests beside it take is in there; something of each file would be more.
    assert!(peak() - before < 128 << 20, "{}", peak() - before);
}
