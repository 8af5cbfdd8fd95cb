//! A home with everything in it that a home can have, a place for its backups, and an eye for differences.

// A module of several test binaries, of which each uses a part.
#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use innkeeper::backup::{Backups, Config, Done, Report, Root, Subject};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rustix::fs::{CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How long a worker of a test waits for another.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An access control list as the kernel keeps it: user 1234 may read, beside owner, group and others.
const ACL: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x04\0\xd2\x04\0\0\x04\0\x05\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

/// A home, a target, and where homes are restored to.
pub struct Fixture {
    pub dir: TempDir,
    pub backups: Backups,
}

impl Fixture {
    /// With a repository in a directory.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("target")).unwrap();
        let config = Config { target: text(&dir.path().join("target")), key: Some("a key of a test".into()), ..Config::default() };
        Self::with(dir, config)
    }

    /// With a configuration of its own.
    pub fn with(dir: TempDir, config: Config) -> Self {
        let backups = open(&config);
        fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir, backups }
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    pub async fn run(&self, home: &str) -> Done {
        self.backups.run(subject(home, &self.home(), true, SystemTime::now()), &|_| ()).await.unwrap()
    }

    /// Restores into a new directory and says where that is.
    pub async fn restore(&self, id: &str) -> TempDir {
        let into = tempfile::tempdir_in(self.dir.path()).unwrap();
        self.backups.restore(id, vec![home_at(into.path())], &|_| ()).await.unwrap();
        into
    }

    pub async fn verify(&self) -> Report {
        self.backups.verify(1.0, &|_| ()).await.unwrap()
    }
}

/// What is backed up of a home that is one directory.
pub fn subject(home: &str, path: &Path, consistent: bool, taken: SystemTime) -> Subject {
    Subject { home: home.to_owned(), roots: vec![home_at(path)], consistent, taken, settings: None }
}

/// Where that directory is, or comes back.
pub fn home_at(path: &Path) -> Root {
    Root { name: "home".to_owned(), path: path.to_owned() }
}

/// A repository whose workers are the program under test.
pub fn open(config: &Config) -> Backups {
    Backups::open(config, None).unwrap().unwrap().with_worker(env!("CARGO_BIN_EXE_innkeeper").into(), PATIENCE)
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Bytes that cannot be compressed, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Fills a home with every kind of thing.
pub fn furnish(home: &Path) {
    fs::create_dir_all(home.join("deep/er/and/deeper")).unwrap();
    fs::create_dir(home.join("empty")).unwrap();
    fs::write(home.join("deep/er/and/deeper/file"), b"far down").unwrap();
    fs::write(home.join("nothing"), b"").unwrap();
    fs::write(home.join("large"), noise(9 << 20, 1)).unwrap();
    fs::write(home.join("text"), "the same line over and over\n".repeat(200_000)).unwrap();
    for (number, name) in names().into_iter().enumerate() {
        fs::write(home.join(name), number.to_string()).unwrap();
    }
    fs::hard_link(home.join("large"), home.join("deep/large again")).unwrap();
    fs::hard_link(home.join("large"), home.join("zz large")).unwrap();
    symlink("large", home.join("link")).unwrap();
    symlink("/etc/passwd", home.join("link out")).unwrap();
    symlink(OsStr::from_bytes(b"no\xfftext"), home.join("link bytes")).unwrap();
    let sparse = File::create(home.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"end", 300 << 20).unwrap();
    rustix::fs::mknodat(CWD, home.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    for (name, value) in [("user.plain", &b"value"[..]), ("user.empty", b""), ("user.bytes", b"\0\xff\0")] {
        rustix::fs::setxattr(home.join("text"), name, value, XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(home.join("deep"), name, value, XattrFlags::empty()).unwrap();
    }
    // Last in each: what is made in a directory would inherit them.
    for (name, attribute) in [("deep/er/and/deeper/file", "system.posix_acl_access"), ("deep/er/and", "system.posix_acl_default")] {
        rustix::fs::setxattr(home.join(name), attribute, ACL, XattrFlags::empty()).unwrap();
    }
    for (number, name) in ["text", "large", "deep", "empty", "deep/er/and/deeper/file", "link", "pipe"].into_iter().enumerate() {
        let number = u32::try_from(number).unwrap();
        let (uid, gid) = (Uid::from_raw(100_000 + number), Gid::from_raw(200_000 + number));
        rustix::fs::chownat(CWD, home.join(name), Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    for (name, mode) in [("text", 0o604), ("nothing", 0o000), ("deep", 0o1751), ("empty", 0o2070), ("deep/er", 0o000), ("sparse", 0o777)] {
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let times = [("text", 1, 123_456_789), ("nothing", -5, 500_000_001), ("deep/er", 4_000_000_000, 999_999_999), ("link", 7, 7)];
    for (name, tv_sec, tv_nsec) in times {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, home.join(name), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    fs::set_permissions(home, fs::Permissions::from_mode(0o750)).unwrap();
    File::open(home).unwrap().set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(77))).unwrap();
}

/// Names with every byte that a name can have, and those that something might trip over.
pub fn names() -> Vec<OsString> {
    let each = (1..=u8::MAX).filter(|byte| *byte != b'/').map(|byte| vec![b'x', byte]);
    let strange =
        [&b"\\x41"[..], b"\\", b"\\\\n", b"\"quoted\"", b"  spaces  ", b"-rf", b"...", b"\xc3\x28", b"\xff\xfe\xfd", "größe ☃".as_bytes()];
    let long = [b'n'; 255];
    each.chain(strange.iter().map(|name| name.to_vec())).chain([long.to_vec()]).map(OsString::from_vec).collect()
}

/// Everything that is to be the same in a home and in what was restored of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    kind: u32,
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    size: u64,
    /// Whether much of it is a hole.
    is_sparse: bool,
    content: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first name of what has several.
    same_as: PathBuf,
}

/// Looks at a tree. Of a mode the bits that a restore takes away are left out.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().to_owned();
        let kind = data.mode() & 0o170_000;
        let content = if data.is_file() {
            Sha256::digest(fs::read(&path).unwrap()).to_vec()
        } else if data.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else {
            Vec::new()
        };
        if data.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let inode = if data.is_file() { data.ino() } else { 0 };
        let same: &mut PathBuf = first.entry(inode).or_insert_with(|| name.clone());
        if name < *same {
            same.clone_from(&name);
        }
        let entry = Entry {
            kind,
            mode: data.mode() & if data.is_dir() { 0o3777 } else { 0o777 },
            owner: (data.uid(), data.gid()),
            modified: (data.mtime(), data.mtime_nsec()),
            size: if data.is_dir() { 0 } else { data.size() },
            is_sparse: data.is_file() && data.blocks() * 512 + (1 << 20) < data.size(),
            content,
            attributes: if data.is_file() || data.is_dir() { attributes(&path) } else { Vec::new() },
            same_as: PathBuf::from(inode.to_string()),
        };
        found.insert(name, entry);
    }
    for entry in found.values_mut() {
        let inode: u64 = entry.same_as.to_str().unwrap().parse().unwrap();
        entry.same_as = if inode == 0 { PathBuf::new() } else { first[&inode].clone() };
    }
    found
}

fn attributes(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::listxattr(path, &mut names[..]).unwrap();
    names.truncate(length);
    let value = |name: &[u8]| {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::getxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(length);
        value
    };
    let mut found: Vec<_> =
        names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| (name.to_vec(), value(name))).collect();
    found.sort();
    found
}

/// Fails with the first few differences.
pub fn same(left: &Path, right: &Path) {
    let (left, right) = (look(left), look(right));
    let names: std::collections::BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    let different: Vec<String> = names
        .into_iter()
        .filter(|name| left.get(*name) != right.get(*name))
        .map(|name| format!("{}:\n  {:?}\n  {:?}", name.display(), left.get(name), right.get(name)))
        .take(5)
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}
