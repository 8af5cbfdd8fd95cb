//! Trees with everything in them that a home may hold, and what is to be seen of a tree.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use innkeeper::home::tree::Progress;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags};

/// What stands in files that nobody may read.
pub(crate) const MARKER: &str = "outside, not to be touched";

/// Everything that can be seen of a file but its inode's number. Files with several names say the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) size: u64,
    pub(crate) content: Vec<u8>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) first_name: Option<PathBuf>,
}

/// Goes on.
pub(crate) fn on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn open(path: &Path) -> File {
    File::open(path).unwrap()
}

/// Looks at all of a tree that nobody changes. Contents of files over 1 MiB are their stretches of data only.
pub(crate) fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut names = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = root.join(&relative);
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let mut content = Vec::new();
        let mut attributes = BTreeMap::new();
        if kind.is_dir() {
            let mut inside: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| relative.join(entry.unwrap().file_name())).collect();
            inside.sort();
            todo.extend(inside.into_iter().rev());
        } else if kind.is_symlink() {
            content = fs::read_link(&path).unwrap().into_os_string().into_vec();
        } else if kind.is_file() {
            content = if meta.size() > 1 << 20 { stretches(&path) } else { fs::read(&path).unwrap() };
        }
        if kind.is_dir() || kind.is_file() {
            attributes = self::attributes(&path);
        }
        let first_name = (meta.nlink() > 1 && !kind.is_dir()).then(|| names.entry(meta.ino()).or_insert(relative.clone()).clone());
        let size = if kind.is_dir() { 0 } else { meta.size() };
        let owner = (meta.uid(), meta.gid());
        let mtime = (meta.mtime(), meta.mtime_nsec());
        seen.insert(relative, Seen { mode: meta.mode(), owner, mtime, size, content, attributes, first_name });
    }
    seen
}

/// Says where two trees differ, rather than everything about both.
pub(crate) fn assert_same(one: &BTreeMap<PathBuf, Seen>, other: &BTreeMap<PathBuf, Seen>) {
    let (ours, theirs): (Vec<_>, Vec<_>) = (one.keys().collect(), other.keys().collect());
    assert_eq!(ours, theirs);
    for (path, seen) in one {
        assert_eq!(seen, &other[path], "{}", path.display());
    }
}

fn stretches(path: &Path) -> Vec<u8> {
    let file = open(path);
    let mut all = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        let stop = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start)).unwrap();
        assert!(stop - start <= 64 << 20, "too much data in {}", path.display());
        let mut stretch = vec![0; usize::try_from(stop - start).unwrap()];
        file.read_exact_at(&mut stretch, start).unwrap();
        all.extend(start.to_le_bytes());
        all.extend(stretch);
        at = stop;
    }
    all
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).unwrap();
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.insert(name.to_bytes().to_vec(), value[..length].to_vec());
    }
    found
}

/// An ACL as the kernel keeps it: owner and group may all, user 1234 may read, others nothing.
fn acl() -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in [(1_u16, 7_u16, u32::MAX), (2, 4, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

pub(crate) fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

pub(crate) fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

pub(crate) fn own(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
}

/// Fills a directory with one of everything that is kept.
pub(crate) fn furnish(root: &Path) {
    let name = |bytes: &[u8]| root.join(OsStr::from_bytes(bytes));
    fs::create_dir_all(root.join("dir/inside/it")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::write(root.join("dir/file"), "content").unwrap();
    fs::write(root.join("dir/empty file"), "").unwrap();
    fs::write(name(b"new\nline \x1b[31m and \xff\xfe"), "odd name").unwrap();
    fs::write(name(&[b'n'; 255]), "long name").unwrap();
    fs::write(root.join("big"), (0..3_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 2]).collect::<Vec<u8>>()).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for at in [1 << 20, 5 << 30, (5 << 30) + (1 << 20)] {
        sparse.write_all_at(b"an island", at).unwrap();
    }
    sparse.set_len(1 << 40).unwrap();
    File::create(root.join("all hole")).unwrap().set_len(12_345_678).unwrap();
    for (link, target) in [("to etc", "/etc"), ("dangling", "no/where"), ("up", "../../..")] {
        symlink(target, root.join(link)).unwrap();
        set_mtime(&root.join(link), 1_000_000_007, 123_456_789);
        own(&root.join(link), 1000, 1001);
    }
    for (link, target) in [("dir/inside/second", "dir/file"), ("third", "dir/file"), ("big too", "big")] {
        fs::hard_link(root.join(target), root.join(link)).unwrap();
    }
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    set_attribute(&root.join("dir/file"), "user.note", b"with \0 and \n and = in it");
    set_attribute(&root.join("dir/file"), "user.empty", b"");
    set_attribute(&root.join("dir/file"), "user.odd=name", b"x");
    set_attribute(&root.join("dir/file"), "system.posix_acl_access", &acl());
    set_attribute(&root.join("dir"), "system.posix_acl_default", &acl());
    set_attribute(&root.join("dir"), "user.of a directory", b"yes");
    for (number, path) in ["dir", "dir/file", "dir/inside", "fifo", "sparse", "empty"].iter().enumerate() {
        own(&root.join(path), 1000 + u32::try_from(number).unwrap(), 70_000);
    }
    for (path, mode) in [("dir/inside", 0o2750), ("empty", 0o1777), ("big", 0o444), ("sparse", 0)] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (path, seconds) in [("dir/file", -5), ("dir/inside", 4_000_000_000), ("fifo", 1), ("sparse", 1_234_567_890), ("dir", 7), ("", 99)] {
        set_mtime(&root.join(path), seconds, 987_654_321);
    }
    own(root, 1000, 1000);
    fs::set_permissions(root, fs::Permissions::from_mode(0o750)).unwrap();
    set_mtime(root, 99, 987_654_321);
}

/// Two names that change places, thousands of times a second, until this is dropped.
pub(crate) struct Swapping {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Swapping {
    pub(crate) fn start(pairs: Vec<(PathBuf, PathBuf)>) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&swaps));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                for (one, other) in &pairs {
                    // Fails where the tree is being removed.
                    if rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok() {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
        Self { stop, swaps, thread: Some(thread) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.swaps.load(Ordering::SeqCst)
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join);
    }
}

/// A directory outside of every tree, and a tree in which names lead there half of the time.
pub(crate) struct Trap {
    pub(crate) outside: PathBuf,
    pub(crate) tree: PathBuf,
}

impl Trap {
    pub(crate) fn set(dir: &Path) -> Self {
        let (outside, tree) = (dir.join("outside"), dir.join("tree"));
        fs::create_dir_all(outside.join("sub/deep")).unwrap();
        for name in ["secret", "file", "sub/file", "sub/deep/file"] {
            fs::write(outside.join(name), MARKER).unwrap();
        }
        // Large enough that the walk is somewhere in it when it changes.
        fs::create_dir_all(tree.join("sub/deep")).unwrap();
        for number in 0..40 {
            fs::write(tree.join(format!("sub/deep/{number}")), "hers").unwrap();
        }
        fs::write(tree.join("file"), "hers").unwrap();
        fs::write(tree.join("sub/file"), "hers").unwrap();
        symlink(&outside, tree.join("sub link")).unwrap();
        symlink(outside.join("sub/deep"), tree.join("sub/deep link")).unwrap();
        symlink(outside.join("file"), tree.join("file link")).unwrap();
        Self { outside, tree }
    }

    pub(crate) fn spring(&self) -> Swapping {
        let at = |name: &str| self.tree.join(name);
        let pairs = [("sub", "sub link"), ("sub/deep", "sub/deep link"), ("file", "file link")];
        Swapping::start(pairs.iter().map(|(one, other)| (at(one), at(other))).collect())
    }

    /// What is outside is all there and unchanged.
    pub(crate) fn assert_untouched(&self, before: &BTreeMap<PathBuf, Seen>) {
        assert_same(before, &see(&self.outside));
    }
}

/// A directory into which a tree is made by somebody whom another hinders: of what appears there, names are taken away at once and links put in
/// their place that lead outside, and back.
pub(crate) struct Ambush {
    pub(crate) outside: PathBuf,
    pub(crate) into: PathBuf,
    beside: PathBuf,
}

/// Names in a tree that [`furnish_for_ambush`] makes.
const AMBUSHED: [&str; 8] = ["sub", "sub2", "file", "fifo", "fifo2", "fifo3", "fifo4", "link"];

/// Fills a directory with what a link in its place could be mistaken for.
pub(crate) fn furnish_for_ambush(tree: &Path) {
    for sub in ["sub", "sub2"] {
        fs::create_dir_all(tree.join(sub).join("deep")).unwrap();
        for number in 0..20 {
            fs::write(tree.join(sub).join(number.to_string()), "hers").unwrap();
            fs::write(tree.join(sub).join("deep").join(number.to_string()), "hers").unwrap();
        }
    }
    fs::write(tree.join("file"), "hers").unwrap();
    symlink("file", tree.join("link")).unwrap();
    for fifo in ["fifo", "fifo2", "fifo3", "fifo4"] {
        rustix::fs::mknodat(CWD, tree.join(fifo), FileType::Fifo, Mode::RWXU, 0).unwrap();
        fs::set_permissions(tree.join(fifo), fs::Permissions::from_mode(0o666)).unwrap();
    }
    for path in see(tree).keys() {
        own(&tree.join(path), 1000, 1000);
    }
}

impl Ambush {
    pub(crate) fn lay(dir: &Path) -> Self {
        let at = |name: &str| dir.join(name);
        let ambush = Self { outside: at("outside"), into: at("into"), beside: at("beside") };
        fs::create_dir_all(&ambush.outside).unwrap();
        for name in AMBUSHED {
            let target = ambush.outside.join(name);
            match name {
                "sub" | "sub2" => fs::create_dir_all(target.join("deep")).unwrap(),
                _ => fs::write(&target, MARKER).unwrap(),
            }
            fs::set_permissions(ambush.outside.join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        ambush.renew();
        ambush
    }

    /// An empty directory again, with links beside it.
    pub(crate) fn renew(&self) {
        for dir in [&self.into, &self.beside] {
            if dir.exists() {
                innkeeper::home::tree::remove(open(dir.parent().unwrap()).as_fd(), dir.file_name().unwrap(), &on).unwrap();
            }
            fs::create_dir(dir).unwrap();
        }
        for name in AMBUSHED {
            symlink(self.outside.join(name), self.beside.join(name)).unwrap();
        }
    }

    pub(crate) fn spring(&self) -> Swapping {
        Swapping::start(AMBUSHED.map(|name| (self.into.join(name), self.beside.join(name))).to_vec())
    }

    /// Has something make a tree in the directory again and again until it was hindered often. Nothing outside is ever touched, and what is said
    /// to be done is all there.
    pub(crate) fn try_out(&self, mut make: impl FnMut(&Path) -> bool) {
        let before = see(&self.outside);
        let began = Instant::now();
        let (mut swaps, mut done, mut rounds) = (0, 0, 0);
        while rounds < 10 || ((rounds < 400 || swaps < 5_000) && began.elapsed() < Duration::from_secs(30)) {
            let swapping = self.spring();
            done += u32::from(make(&self.into));
            swaps += swapping.count();
            drop(swapping);
            assert_same(&before, &see(&self.outside));
            self.renew();
            rounds += 1;
        }
        assert!(swaps > 100, "the race was hardly met: {swaps} swaps in {rounds} rounds, {done} of which were done");
    }
}

/// No regular file of a tree has anything from outside in it.
pub(crate) fn assert_clean(root: &Path) {
    for (path, seen) in see(root) {
        let is_file = FileType::from_raw_mode(seen.mode) == FileType::RegularFile;
        assert!(!is_file || seen.content == b"hers" || seen.content.is_empty(), "{} was read outside", path.display());
    }
}

/// A tree of one directory in another, deeper than any path that the kernel takes.
pub(crate) fn dig(root: &Path, levels: usize, name: &str) {
    let mut at = rustix::fs::openat(CWD, root, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let bottom = rustix::fs::openat(at.as_fd(), "bottom", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, Mode::RUSR).unwrap();
    rustix::io::write(&bottom, b"deep").unwrap();
}

/// How deep it is, and what is at the bottom.
pub(crate) fn sound(root: &Path, name: &str) -> (usize, Vec<u8>) {
    let mut at = rustix::fs::openat(CWD, root, rustix::fs::OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut levels = 0;
    while let Ok(next) = rustix::fs::openat(&at, name, rustix::fs::OFlags::DIRECTORY, Mode::empty()) {
        at = next;
        levels += 1;
    }
    let mut content = [0; 16];
    let bottom = rustix::fs::openat(&at, "bottom", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap();
    let length = rustix::io::read(&bottom, &mut content).unwrap();
    (levels, content[..length].to_vec())
}
