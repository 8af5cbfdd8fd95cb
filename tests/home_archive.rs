//! Archives of homes: what comes back is what went in, a damaged one is refused, and a hostile one reaches nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/trees.rs"]
mod trees;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use innkeeper::home::skeleton;
use innkeeper::home::tree::archive::{read, read_foreign, write};
use innkeeper::home::tree::{Limits, Skipped, Summary, TreeError, remove};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tempfile::TempDir;
use trees::{Ambush, Trap, assert_clean, assert_same, dig, furnish, furnish_for_ambush, on, open, see, sound};

fn pack(dir: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    write(open(dir).as_fd(), &mut archive, Limits::default(), &on).unwrap();
    archive
}

fn unpack(archive: &[u8], into: &Path) -> Result<Summary, TreeError> {
    read(archive, open(into).as_fd(), Limits::default(), &on)
}

fn compress(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}

/// A tar by hand, of things that no tar would write.
#[derive(Default)]
struct ByHand(Vec<u8>);

impl ByHand {
    fn add(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_mtime(5);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path.as_bytes(), b"", 0o644, content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.add(EntryType::Directory, path.as_bytes(), b"", 0o755, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn link(self, path: &str, first: &str) -> Self {
        self.add(EntryType::Link, path.as_bytes(), first.as_bytes(), 0o644, b"")
    }

    fn extended(self, records: &[(&str, &str)]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let record = (1..)
                .map(|length: usize| format!("{length} {key}={value}\n"))
                .find(|record| record.split(' ').next().unwrap().parse() == Ok(record.len()));
            text.extend(record.unwrap().into_bytes());
        }
        self.add(EntryType::XHeader, b"pax", b"", 0o644, &text)
    }

    /// As an archive of ours, seal and all.
    fn sealed(self, entries: u64, bytes: u64) -> Vec<u8> {
        let digest = Sha256::digest(&self.0);
        let digest = data_encoding::HEXLOWER.encode(&digest);
        let comment = format!("comment=innkeeper 1 entries={entries} bytes={bytes} sha256={digest}\n");
        let record = format!("{} {comment}", comment.len() + 4);
        let mut tar = self.add(EntryType::XGlobalHeader, b"pax", b"", 0o644, record.as_bytes()).0;
        tar.extend([0; 1024]);
        compress(&tar)
    }

    fn plain(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Unpacks into a directory beside one that is not to be touched.
fn attack(tar: ByHand) -> (TempDir, Result<Summary, TreeError>) {
    let dir = tempfile::tempdir().unwrap();
    let (home, outside) = (dir.path().join("home"), dir.path().join("outside"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), trees::MARKER).unwrap();
    let before = see(&outside);
    let done = read_foreign(&tar.plain()[..], open(&home).as_fd(), 1000, Limits::default(), &on);
    assert_same(&before, &see(&outside));
    assert_eq!(fs::metadata(outside.join("file")).unwrap().nlink(), 1);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    (dir, done)
}

fn refused(tar: ByHand, why: &str) {
    let (_dir, done) = attack(tar);
    assert!(matches!(&done, Err(TreeError::Archive(said)) if said.contains(why)), "{done:?}, not {why}");
}

#[test]
fn what_comes_back_is_what_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for made in [&from, &to] {
        fs::create_dir(made).unwrap();
    }
    furnish(&from);
    let before = see(&from);
    let mut archive = Vec::new();
    let written = write(open(&from).as_fd(), &mut archive, Limits::default(), &on).unwrap();
    assert_same(&before, &see(&from));
    assert_eq!(written.skipped, Skipped::default());
    assert!(archive.len() < 1 << 20, "{}", archive.len());
    let unpacked = unpack(&archive, &to).unwrap();
    assert_same(&before, &see(&to));
    assert_eq!((unpacked.files, unpacked.hard_links, unpacked.directories), (written.files, written.hard_links, written.directories));
    assert!(fs::metadata(to.join("sparse")).unwrap().blocks() < 1000);
}

#[test]
fn any_tar_can_list_and_unpack_it() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to, file) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("home.tar.zst"));
    for made in [&from, &to] {
        fs::create_dir(made).unwrap();
    }
    furnish(&from);
    fs::write(&file, pack(&from)).unwrap();
    let listed = Command::new("tar").args(["--zstd", "-tf"]).arg(&file).output().unwrap();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_eq!(String::from_utf8_lossy(&listed.stdout).lines().count(), 19);
    let unpacked =
        Command::new("tar").args(["--zstd", "--xattrs", "--xattrs-include=*", "-xpf"]).arg(&file).arg("-C").arg(&to).output().unwrap();
    assert!(unpacked.status.success(), "{}", String::from_utf8_lossy(&unpacked.stderr));
    assert_same(&see(&from), &see(&to));
}

#[test]
fn a_part_of_an_archive_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("dir")).unwrap();
    for name in ["a", "dir/b", "dir/c"] {
        fs::write(from.join(name), rand::random::<[u8; 700]>()).unwrap();
    }
    let archive = pack(&from);
    let tar = zstd::decode_all(&archive[..]).unwrap();
    let into = || {
        let into = tempfile::tempdir().unwrap();
        fs::write(into.path().join("a"), "").unwrap();
        into
    };
    unpack(&archive, into().path()).unwrap();
    for length in (0..archive.len()).step_by(64) {
        assert!(unpack(&archive[..length], into().path()).is_err(), "{length} of {}", archive.len());
    }
    for length in (0..tar.len()).step_by(512) {
        let part = &tar[..length];
        assert!(unpack(&compress(part), into().path()).is_err(), "{length} of {}", tar.len());
        // Nor with an end that looks like one.
        assert!(unpack(&compress(&[part, &[0; 1024]].concat()), into().path()).is_err() || length + 1024 >= tar.len(), "{length}");
        // Nor with a block taken out, or in twice.
        let without = [part, tar.get(length + 512..).unwrap_or_default()].concat();
        assert!(unpack(&compress(&without), into().path()).is_err(), "{length} of {}", tar.len());
        let twice = [part, &tar[length..length + 512], &tar[length..]].concat();
        assert!(unpack(&compress(&twice), into().path()).is_err() || length + 1024 >= tar.len(), "{length} of {}", tar.len());
    }
    assert!(unpack(&[&archive[..], &archive[..]].concat(), into().path()).is_err());
    assert!(unpack(&[&archive[..], b"more"].concat(), into().path()).is_err());
}

#[test]
fn a_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir_all(from.join("dir")).unwrap();
    fs::write(from.join("dir/file"), "some content").unwrap();
    symlink("dir/file", from.join("link")).unwrap();
    let before = see(&from);
    let archive = pack(&from);
    let tar = zstd::decode_all(&archive[..]).unwrap();
    let mut found = 0;
    let mut check = |damaged: &[u8], what: &str| {
        let into = tempfile::tempdir().unwrap();
        match unpack(damaged, into.path()) {
            Ok(_) => assert_same(&before, &see(into.path())),
            Err(TreeError::Archive(_) | TreeError::Io { .. }) => found += 1,
            Err(other) => panic!("{what}: {other}"),
        }
    };
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << (at % 8);
        check(&damaged, &format!("byte {at}"));
    }
    for at in (0..tar.len()).step_by(3) {
        let mut damaged = tar.clone();
        damaged[at] ^= 1 << (at % 8);
        check(&compress(&damaged), &format!("byte {at} of the tar"));
    }
    let tried = archive.len() + tar.len().div_ceil(3);
    // What fills up the seal's block says nothing, and may say anything.
    assert!(found > tried - 512, "{found} of {tried}");
}

#[test]
fn no_path_leads_out() {
    for path in ["/etc/hacked", "../outside/new", "a/../../outside/new", "..", "a/..", "./../x"] {
        let why = if path.starts_with('/') { "root" } else { "out of the tree" };
        refused(ByHand::default().file(path, "x"), why);
        refused(ByHand::default().dir(path), why);
        refused(ByHand::default().symlink(path, "x"), why);
        refused(ByHand::default().file("a", "x").link("b", path), why);
        refused(ByHand::default().file("a", "x").link(path, "a"), why);
        refused(ByHand::default().extended(&[("path", path)]).file("fine", "x"), why);
        refused(ByHand::default().add(EntryType::GNULongName, b"long", b"", 0, path.as_bytes()).file("fine", "x"), why);
        refused(ByHand::default().extended(&[("path", "a"), ("GNU.sparse.name", path)]).file("fine", "x"), why);
    }
    refused(ByHand::default().extended(&[("path", "")]).file("fine", "x"), "empty");
    refused(ByHand::default().file("", "x"), "empty");
    refused(ByHand::default().file("./", "x"), "no directory");
}

#[test]
fn no_link_is_written_through() {
    for target in ["../outside", "/etc"] {
        refused(ByHand::default().symlink("l", target).file("l/file", "x"), "no directory");
        refused(ByHand::default().symlink("l", target).file("l/deep/file", "x"), "no directory");
        refused(ByHand::default().dir("d").symlink("d/l", &format!("../{target}")).dir("d/l/new"), "no directory");
        refused(ByHand::default().symlink("l", target).link("mine", "l/file"), "no file");
        refused(ByHand::default().symlink("l", target).link("mine", "l"), "no file");
    }
    refused(ByHand::default().link("mine", "nowhere"), "no file");
    refused(ByHand::default().dir("d").link("mine", "d"), "no file");
    refused(ByHand::default().file("a", "x").link("a", "a"), "no file");
    // In place of a link, not where it leads.
    let tar =
        ByHand::default().symlink("l", "../outside/file").file("l", "hers").symlink("m", "../outside").dir("m").file("m/file", "hers");
    let (dir, done) =
        attack(tar.symlink("n", "../outside/file").add(EntryType::Fifo, b"n", b"", 0o600, b"").symlink("o", "../outside").link("o", "l"));
    done.unwrap();
    let home = dir.path().join("home");
    assert_clean(&home);
    assert_eq!(fs::read_to_string(home.join("m/file")).unwrap(), "hers");
    assert_eq!(fs::metadata(home.join("o")).unwrap().nlink(), 2);
}

#[test]
fn a_link_that_another_archive_made_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (home, outside) = (dir.path().join("home"), dir.path().join("outside"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&outside).unwrap();
    let first = ByHand::default().symlink("x", "../outside").plain();
    read_foreign(&first[..], open(&home).as_fd(), 1000, Limits::default(), &on).unwrap();
    for second in [ByHand::default().file("x/file", "x"), ByHand::default().dir("x").dir("x/sub"), ByHand::default().file("x/y/z", "x")] {
        read_foreign(&second.plain()[..], open(&home).as_fd(), 1000, Limits::default(), &on).ok();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn what_it_must_not_have_is_left_out() {
    let device = |kind, name: &[u8]| ByHand::default().add(kind, name, b"", 0o666, b"");
    let mut tar = device(EntryType::Char, b"null").0;
    tar.extend(device(EntryType::Block, b"disk").0);
    let tar = ByHand(tar)
        .extended(&[("SCHILY.xattr.security.capability", "x"), ("SCHILY.xattr.trusted.x", "x"), ("SCHILY.xattr.user.mine", "yes")])
        .add(EntryType::Regular, b"suid", b"", 0o6755, b"x")
        .add(EntryType::Directory, b"dir", b"", 0o7777, b"");
    let (dir, done) = attack(tar);
    let summary = done.unwrap();
    assert_eq!((summary.skipped.devices, summary.files), (2, 1));
    let seen = see(&dir.path().join("home"));
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[Path::new("suid")].mode & 0o7777, 0o755);
    assert_eq!(seen[Path::new("suid")].attributes.keys().collect::<Vec<_>>(), [b"user.mine"]);
    assert_eq!(seen[Path::new("dir")].mode & 0o7777, 0o3777);
    refused(ByHand::default().add(EntryType::GNUSparse, b"old", b"", 0o644, b""), "kind");
    refused(ByHand::default().extended(&[("GNU.sparse.map", "0,1")]).file("old", "x"), "holes");
}

#[test]
fn nonsense_is_refused_and_costs_nothing() {
    let many = (0..10).fold(ByHand::default(), |tar, _| tar.extended(&[("path", "a")]));
    refused(many.file("a", ""), "too many extended");
    refused(ByHand::default().add(EntryType::XHeader, b"pax", b"", 0, &vec![b'x'; 2 << 20]), "too long");
    refused(ByHand::default().add(EntryType::XHeader, b"pax", b"", 0, b"9999 path=x\n"), "no sense");
    refused(ByHand::default().extended(&[("uid", "4294967295")]).file("a", ""), "number");
    for (list, size) in [
        ("1\n0\n99\n", "5"),
        ("2\n5\n1\n0\n1\n", "9"),
        ("99999999\n", "9"),
        ("-1\n", "9"),
        ("1\n18446744073709551615\n9\n", "9"),
        ("", "9"),
    ] {
        let mut content = list.as_bytes().to_vec();
        content.resize(512, 0);
        let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "a"), ("GNU.sparse.realsize", size)];
        let tar = ByHand::default().extended(&sparse).add(EntryType::Regular, b"a", b"", 0o644, &content);
        refused(tar, "hole");
    }
    // A header that promises more than there is: nothing is set aside for it.
    let mut tar = ByHand::default().extended(&[("size", "9000000000000000000")]).file("a", "").plain();
    tar.truncate(1536);
    let dir = tempfile::tempdir().unwrap();
    let done = read_foreign(&tar[..], open(dir.path()).as_fd(), 1000, Limits::default(), &on);
    assert!(matches!(done, Err(TreeError::Archive("it ends too early"))), "{done:?}");
}

#[test]
fn limits_hold_for_what_an_archive_says() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for number in 0..20 {
        fs::write(from.join(number.to_string()), vec![0; 1_000_000]).unwrap();
    }
    let archive = pack(&from);
    assert!(archive.len() < 100_000, "zeros are small: {}", archive.len());
    let limited = |limits| read(&archive[..], open(tempfile::tempdir().unwrap().path()).as_fd(), limits, &on);
    assert!(matches!(limited(Limits { bytes: 5_000_000, ..Limits::default() }), Err(TreeError::TooBig(_))));
    assert!(matches!(limited(Limits { entries: 20, ..Limits::default() }), Err(TreeError::TooMany(20))));
    assert!(limited(Limits { entries: 21, bytes: 20_000_000 }).is_ok());
    let most = Limits { bytes: 5_000_000, ..Limits::default() };
    assert!(matches!(write(open(&from).as_fd(), Vec::new(), most, &on), Err(TreeError::TooBig(_))));
    // A bomb in what is not wanted counts as well.
    let bomb = ByHand::default().add(EntryType::Char, b"null", b"", 0o666, &vec![0; 6_000_000]).sealed(1, 6_000_000);
    let into = tempfile::tempdir().unwrap();
    assert!(matches!(read(&bomb[..], open(into.path()).as_fd(), most, &on), Err(TreeError::TooBig(_))));
    assert_eq!(read(&bomb[..], open(into.path()).as_fd(), Limits::default(), &on).unwrap().skipped.devices, 1);
}

#[test]
fn a_seal_has_to_be_there_and_fit() {
    let dir = tempfile::tempdir().unwrap();
    let sealed = |entries, bytes| ByHand::default().file("a", "hers").sealed(entries, bytes);
    unpack(&sealed(1, 4), dir.path()).unwrap();
    for (entries, bytes) in [(2, 4), (1, 5), (0, 0)] {
        assert!(matches!(unpack(&sealed(entries, bytes), dir.path()), Err(TreeError::Archive(why)) if why.contains("does not fit")));
    }
    let without = compress(&ByHand::default().file("a", "hers").plain());
    assert!(matches!(unpack(&without, dir.path()), Err(TreeError::Archive(why)) if why.contains("no seal")));
}

#[test]
fn a_race_puts_nothing_else_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let trap = Trap::set(dir.path());
    let outside = see(&trap.outside);
    let swapping = trap.spring();
    let mut changed = 0;
    let mut archives = 0;
    while archives < 100 || swapping.count() < 10_000 {
        let mut archive = Vec::new();
        changed += write(open(&trap.tree).as_fd(), &mut archive, Limits::default(), &on).unwrap().skipped.changed;
        let into = tempfile::tempdir().unwrap();
        unpack(&archive, into.path()).unwrap();
        assert_clean(into.path());
        archives += 1;
    }
    drop(swapping);
    assert!(changed > 0, "the race was never met");
    trap.assert_untouched(&outside);
}

/// Who unpacks does so where nobody else can be: it holds even there.
#[test]
fn a_race_where_it_is_unpacked_reaches_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    furnish_for_ambush(&from);
    let archive = pack(&from);
    // As it is, and for somebody to whom all of it is to belong.
    Ambush::lay(dir.path()).try_out(|into| unpack(&archive, into).is_ok());
    let tar = zstd::decode_all(&archive[..]).unwrap();
    Ambush::lay(dir.path()).try_out(|into| read_foreign(&tar[..], open(into).as_fd(), 1000, Limits::default(), &on).is_ok());
}

#[test]
fn a_file_that_is_cut_short_spoils_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for made in [&from, &to] {
        fs::create_dir(made).unwrap();
    }
    fs::write(from.join("log"), vec![b'x'; 3 << 20]).unwrap();
    let cut = |progress: innkeeper::home::tree::Progress| {
        if progress.bytes > 1 << 20 {
            fs::File::options().write(true).open(from.join("log")).unwrap().set_len(100).unwrap();
        }
        std::ops::ControlFlow::Continue(())
    };
    let mut archive = Vec::new();
    let summary = write(open(&from).as_fd(), &mut archive, Limits::default(), &cut).unwrap();
    assert_eq!(summary.skipped.changed, 1);
    unpack(&archive, &to).unwrap();
    assert_eq!(fs::metadata(to.join("log")).unwrap().len(), 3 << 20);
}

#[test]
fn a_hundred_thousand_files_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&to).unwrap();
    for outer in 0..100 {
        let inside = from.join(outer.to_string());
        fs::create_dir_all(&inside).unwrap();
        for inner in 0..1_000 {
            fs::File::create(inside.join(inner.to_string())).unwrap();
        }
    }
    let archive = pack(&from);
    assert!(archive.len() < 8 << 20, "{}", archive.len());
    assert_eq!(unpack(&archive, &to).unwrap().files, 100_000);
    for outer in 0..100 {
        assert_eq!(fs::read_dir(to.join(outer.to_string())).unwrap().count(), 1_000);
    }
}

#[test]
fn a_deep_tree_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for made in [&from, &to] {
        fs::create_dir(made).unwrap();
    }
    dig(&from, 5_000, "d");
    let archive = pack(&from);
    assert!(archive.len() < 2_000_000, "{}", archive.len());
    unpack(&archive, &to).unwrap();
    assert_eq!(sound(&to, "d"), (5_000, b"deep".to_vec()));
    let parent = open(dir.path());
    for name in ["from", "to"] {
        assert_eq!(remove(parent.as_fd(), name.as_ref(), &on).unwrap().entries, 5_002);
    }
}

/// A skeleton in every form that it may have.
fn skeletons(dir: &Path) -> Vec<PathBuf> {
    let from = dir.join("skeleton");
    fs::create_dir_all(from.join(".config/deep")).unwrap();
    fs::write(from.join(".bashrc"), "PS1=x").unwrap();
    fs::write(from.join(".config/deep").join("l".repeat(90)), "x").unwrap();
    fs::write(from.join("tool"), "#!/bin/sh").unwrap();
    fs::set_permissions(from.join("tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(from.join("tool"), from.join("tool too")).unwrap();
    symlink("/usr/share/doc", from.join("doc")).unwrap();
    let mut all = vec![from.clone()];
    for (name, options) in [
        ("gnu.tar", &["--format=gnu"][..]),
        ("pax.tar", &["--format=pax"]),
        ("ustar.tar", &["--format=ustar"]),
        ("gz.tar.gz", &["-z"]),
        ("zst.tar.zst", &["--zstd"]),
    ] {
        let file = dir.join(name);
        let mut tar = Command::new("tar");
        tar.args(["-C"]).arg(&from).arg("-cf").arg(&file).args(options);
        assert!(tar.arg(".").status().unwrap().success(), "{name}");
        all.push(file);
    }
    let ours = dir.join("ours.tar.zst");
    fs::write(&ours, pack(&from)).unwrap();
    all.push(ours);
    all
}

#[test]
fn a_home_starts_with_a_skeleton_of_any_form() {
    let dir = tempfile::tempdir().unwrap();
    for skeleton in skeletons(dir.path()) {
        skeleton::look(&skeleton).unwrap();
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o700)).unwrap();
        skeleton::fill(&skeleton, open(home.path()).as_fd(), Limits::default(), &on).unwrap();
        let seen = see(home.path());
        assert_eq!(seen.len(), 8, "{}", skeleton.display());
        for (path, seen) in &seen {
            assert_eq!(seen.owner, (1000, 1000), "{} of {}", path.display(), skeleton.display());
        }
        assert_eq!(seen[Path::new("")].mode & 0o7777, 0o700, "the home's own mode stays");
        assert_eq!(seen[Path::new("tool")].mode & 0o7777, 0o755);
        assert_eq!(seen[Path::new("tool too")].first_name, Some("tool".into()));
        assert_eq!(seen[Path::new(".bashrc")].content, b"PS1=x");
        assert_eq!(seen[Path::new("doc")].content, b"/usr/share/doc");
    }
}

#[test]
fn what_cannot_be_a_skeleton_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let home = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "no archive ".repeat(100)).unwrap();
    for wrong in [fifo, text, dir.path().join("nowhere"), "/dev/null".into()] {
        assert!(skeleton::look(&wrong).is_err(), "{}", wrong.display());
        assert!(skeleton::fill(&wrong, open(home.path()).as_fd(), Limits::default(), &on).is_err(), "{}", wrong.display());
    }
}
