//! What every driver of homes promises, tried on all four with real file systems.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends")]

#[path = "common/filesystem.rs"]
mod filesystem;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use filesystem::{FileSystem, unmount_below};
use innkeeper::home::{Applied, AsideReason, DriverKind, Hold, HomeId, Homes, KeptId, Prospect, Quota, Skeleton, Source, prospects};

const MIB: u64 = 1 << 20;
/// What a home of these tests may have.
const QUOTA: Quota = Quota { bytes: Some(64 * MIB), inodes: Some(2000) };
/// Set in a process of this program that is there to be killed: the driver and the root.
const VICTIM: &str = "INNKEEPER_TEST_VICTIM";

/// A root that is left without mounts.
struct Root {
    path: PathBuf,
    _on: Option<FileSystem>,
    _dir: tempfile::TempDir,
}

impl Root {
    fn new(on: Option<FileSystem>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = on.as_ref().map_or_else(|| dir.path().to_owned(), FileSystem::path).join("homes");
        Self { path, _on: on, _dir: dir }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.path.exists() {
            unmount_below(&self.path);
        }
    }
}

fn id(name: &str) -> HomeId {
    HomeId::parse(name).unwrap()
}

/// Writes a file until nothing fits any more, and says how much did.
fn fill(dir: &Path) -> u64 {
    let mut file = File::create(dir.join("ballast")).unwrap();
    let piece = vec![0xA5; 1 << 18];
    let mut written = 0;
    loop {
        match file.write(&piece).and_then(|some| file.sync_data().map(|()| some)) {
            Ok(some) => written += some as u64,
            Err(why) => {
                assert!(matches!(why.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded), "{why}");
                return written;
            }
        }
        assert!(written < 1 << 30, "nothing limits it");
    }
}

fn used(homes: &Homes, id: &HomeId) -> innkeeper::home::Usage {
    // btrfs counts when it commits.
    Command::new("sync").status().unwrap();
    homes.usage(id).unwrap().unwrap()
}

/// All that holds for every driver.
fn contract(kind: DriverKind, root: &Root, consistent: bool) {
    let homes = Homes::open(&root.path, kind).unwrap();
    let (alice, bob) = (id("alice"), id("bob.data"));
    assert!(!homes.exists(&alice).unwrap());
    let home = homes.ensure(&alice, &QUOTA).unwrap();
    let neighbour = homes.ensure(&bob, &QUOTA).unwrap();
    for tree in [&home, &neighbour] {
        let meta = fs::metadata(tree).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1000, 0o700));
        assert_eq!(fs::read_dir(tree).unwrap().count(), 0, "an empty home");
    }
    fs::write(home.join("kept"), "hers").unwrap();
    // Her own mode stays.
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    assert_eq!(homes.ensure(&alice, &QUOTA).unwrap(), home);
    assert_eq!(fs::metadata(&home).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::read_to_string(home.join("kept")).unwrap(), "hers");
    let mut all = homes.homes().unwrap();
    all.sort();
    assert_eq!(all, [alice.clone(), bob.clone()]);

    holds(kind, &homes, &alice);
    limits(kind, &homes, &alice, &home, &neighbour);
    sizes_while_swept(kind, &homes, &alice);
    comings_and_goings(kind, root, &homes);
    views(root, &homes, consistent);
    kept(root, &homes);
    leftovers(kind, root, homes);

    let homes = Homes::open(&root.path, kind).unwrap();
    std::os::unix::fs::symlink("/etc", root.path.join("mallory")).unwrap();
    assert!(homes.ensure(&id("mallory"), &QUOTA).is_err(), "a link");
    assert_eq!(fs::metadata("/etc").unwrap().uid(), 0);
    fs::remove_file(root.path.join("mallory")).unwrap();

    // A home of another driver's, from before.
    fs::create_dir(root.path.join("plain")).unwrap();
    fs::write(root.path.join("plain/old"), "old").unwrap();
    let plain = homes.ensure(&id("plain"), &QUOTA).unwrap();
    assert_eq!(fs::read_to_string(plain.join("old")).unwrap(), "old");
    assert!(matches!(homes.set_quota(&id("plain"), &QUOTA).unwrap(), Applied::Reported(_)));

    homes.close().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.path.join(".mounts").to_str().unwrap()), "nothing is left mounted");
}

/// How a limit holds is said as it is.
fn holds(kind: DriverKind, homes: &Homes, alice: &HomeId) {
    let word = |hold: &Hold| match hold {
        Hold::Now => "now",
        Hold::AtNextStart(_) => "later",
        Hold::Measured(_) => "measured",
        Hold::Impossible(_) => "impossible",
    };
    let said = |id: &HomeId, quota: Quota| {
        let holds = homes.holds(id, &quota).unwrap();
        (word(&holds.bytes), word(&holds.inodes))
    };
    let (has, would) = match kind {
        DriverKind::Directory => (("measured", "measured"), ("measured", "measured")),
        DriverKind::Loop | DriverKind::Xfs => (("now", "now"), ("later", "later")),
        DriverKind::Btrfs => (("now", "impossible"), ("later", "impossible")),
    };
    assert_eq!((said(alice, QUOTA), said(&id("nobody"), QUOTA)), (has, would));
    let other = Quota { bytes: Some(32 * MIB), inodes: Some(5000) };
    match kind {
        DriverKind::Directory => assert_eq!(said(alice, other), has),
        DriverKind::Loop => {
            let holds = homes.holds(alice, &other).unwrap();
            assert!(matches!(&holds.bytes, Hold::AtNextStart(why) if why.contains("made smaller only while nobody uses it")), "{holds:?}");
            assert!(matches!(&holds.inodes, Hold::Impossible(why) if why.contains("as many as it was made with")), "{holds:?}");
        }
        DriverKind::Btrfs => assert_eq!(said(alice, other), ("later", "impossible")),
        DriverKind::Xfs => assert_eq!(said(alice, other), ("later", "later")),
    }
}

/// What is kept under a name is what new homes start with, whatever becomes of where it came from.
fn kept(root: &Root, homes: &Homes) {
    let go_on = |_: innkeeper::home::tree::Progress| ControlFlow::Continue(());
    let before = root.names();
    let copied = id("copied");
    let tree = homes.ensure(&copied, &QUOTA).unwrap();
    let part = |text: &str| KeptId::parse(text).unwrap();
    let skeleton = |name: &str| Skeleton::Snapshot { workspace: copied.workspace.clone(), snapshot: name.parse().unwrap() };
    let missing = homes.ensure_from(&id("fresh"), &QUOTA, Some(&skeleton("first"))).unwrap_err().to_string();
    assert!(missing.contains("innkeeper workspace snapshot copied take first"), "{missing}");
    assert!(!homes.exists(&id("fresh")).unwrap());

    fs::write(tree.join("new"), "kept").unwrap();
    fs::write(tree.join("large"), vec![7; 4 * MIB as usize]).unwrap();
    for name in ["copied@snapshot@first", "copied.data@snapshot@second"] {
        let staged = homes.stage_copy(&Source::Home(&copied), &QUOTA, &go_on).unwrap();
        homes.commit_kept(staged, &part(name)).unwrap();
    }
    let again = homes.stage_copy(&Source::Home(&copied), &QUOTA, &go_on).unwrap();
    assert!(homes.commit_kept(again, &part("copied@snapshot@first")).unwrap_err().is_taken());
    assert_eq!(homes.kept().unwrap(), [part("copied@snapshot@first")], "without its home one is not whole");
    assert!(part("copied@snapshot@first").look(&root.path).unwrap());
    assert!(!part("copied.data@snapshot@second").look(&root.path).unwrap());
    assert!(!homes.homes().unwrap().iter().any(|id| id.to_string().contains('@')));

    fs::write(tree.join("new"), "hers again").unwrap();
    for name in ["fresh", "other"] {
        let fresh = homes.ensure_from(&id(name), &QUOTA, Some(&skeleton("first"))).unwrap();
        assert_eq!(fs::read_to_string(fresh.join("new")).unwrap(), "kept");
        let (root, file) = (fs::metadata(&fresh).unwrap(), fs::metadata(fresh.join("new")).unwrap());
        assert_eq!((root.uid(), root.mode() & 0o777, file.uid()), (1000, 0o700, fs::metadata(tree.join("new")).unwrap().uid()));
        // Nobody who has a copy changes what the next one gets.
        fs::write(fresh.join("new"), "its own").unwrap();
    }
    let small = [Quota { bytes: Some(2 * MIB), inodes: None }, Quota { bytes: QUOTA.bytes, inodes: Some(1) }];
    for quota in small {
        let refused = homes.ensure_from(&id("small"), &quota, Some(&skeleton("first"))).unwrap_err().to_string();
        assert!(refused.contains("and only ") && !homes.exists(&id("small")).unwrap(), "{refused}");
    }
    for (home, name) in [("fresh.data", "first"), ("late.data", "second"), ("late", "second")] {
        assert!(homes.ensure_from(&id(home), &QUOTA, Some(&skeleton(name))).is_err(), "{home} of {name}");
        assert!(!homes.exists(&id(home)).unwrap());
    }
    assert!(homes.recover().unwrap() >= 1, "a part goes at the next start");
    assert_eq!(homes.parts_of(&copied.workspace, &"second".parse().unwrap()).unwrap(), []);

    homes.discard_kept(&part("copied@snapshot@first")).unwrap();
    assert_eq!(homes.kept().unwrap(), []);
    for name in ["fresh", "other"] {
        let aside = homes.set_aside(&id(name), AsideReason::Deleted).unwrap();
        homes.discard(&aside).unwrap();
    }
    fs::write(tree.join("new"), "changed").unwrap();
    fs::remove_file(tree.join("large")).unwrap();
    assert_eq!(root.names(), before);
}

fn limits(kind: DriverKind, homes: &Homes, alice: &HomeId, home: &Path, neighbour: &Path) {
    if kind == DriverKind::Directory {
        assert!(matches!(homes.set_quota(alice, &QUOTA).unwrap(), Applied::Reported(_)));
        assert_eq!(homes.usage(alice).unwrap(), None, "nobody has looked yet");
        homes.measure(alice).unwrap();
        let usage = homes.usage(alice).unwrap().unwrap();
        assert_eq!((usage.inodes, usage.limit), (Some(2), QUOTA));
        return;
    }
    let written = fill(home);
    assert!((50 * MIB..=64 * MIB).contains(&written), "{written}");
    let usage = used(homes, alice);
    let (bytes, limit) = (usage.bytes, usage.limit.bytes.unwrap());
    assert!(bytes * 100 / limit >= 95 && limit <= 64 * MIB && limit > 50 * MIB, "{usage:?}");
    fs::write(neighbour.join("file"), vec![1; MIB as usize]).unwrap();
    // It is reached, and can be emptied, when nothing fits any more.
    homes.ensure(alice, &QUOTA).unwrap();
    assert_eq!(fs::read_to_string(home.join("kept")).unwrap(), "hers");
    fs::remove_file(home.join("ballast")).unwrap();
    Command::new("sync").status().unwrap();
    fs::write(home.join("again"), vec![1; MIB as usize]).unwrap();

    if kind == DriverKind::Btrfs {
        assert!(matches!(homes.set_quota(alice, &QUOTA).unwrap(), Applied::Reported(why) if why.contains("how many files")));
        assert_eq!(used(homes, alice).inodes, None);
        return;
    }
    let many = home.join("many");
    fs::create_dir(&many).unwrap();
    let full = (0..10_000).find_map(|number| File::create(many.join(number.to_string())).err().map(|why| (number, why)));
    let (made, why) = full.expect("nothing limits how many files there are");
    assert!(matches!(why.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded), "{why}");
    // An image's inodes come in groups.
    assert!((1900..=2600).contains(&made), "{made}");
    let usage = used(homes, alice);
    assert!(usage.inodes == usage.limit.inodes, "{usage:?}");
    fs::write(neighbour.join("another"), "x").unwrap();
    fs::remove_dir_all(&many).unwrap();
    fs::write(home.join("once-more"), "x").unwrap();
}

/// Says when it is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sizes are changed while somebody tidies up, who takes nothing away that is worked on.
fn sizes_while_swept(kind: DriverKind, homes: &Homes, alice: &HomeId) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(homes.sweep().unwrap(), 0);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _done = Done(&done);
        sizes(kind, homes, alice);
    });
}

fn sizes(kind: DriverKind, homes: &Homes, alice: &HomeId) {
    let (large, small) = (Quota { bytes: Some(128 * MIB), ..QUOTA }, Quota { bytes: Some(32 * MIB), ..QUOTA });
    if kind == DriverKind::Directory {
        return;
    }
    // Something in it is open all the while.
    let home = homes.ensure(alice, &QUOTA).unwrap();
    let mut open = File::create(home.join("open")).unwrap();
    match homes.set_quota(alice, &large).unwrap() {
        Applied::Later(why) => {
            assert!(kind == DriverKind::Loop && !has_sys_resource() && why.contains("CAP_SYS_RESOURCE"), "{why}");
            drop(open);
            homes.rest(alice).unwrap();
            assert_eq!(homes.ensure(alice, &large).unwrap(), home);
            open = File::options().append(true).open(home.join("open")).unwrap();
        }
        Applied::Now | Applied::Reported(_) => assert!(kind != DriverKind::Loop || has_sys_resource()),
    }
    assert!(used(homes, alice).limit.bytes.unwrap() > 100 * MIB, "{:?}", used(homes, alice));
    open.write_all(&vec![1; 90 * MIB as usize]).and_then(|()| open.sync_all()).unwrap();
    drop(open);
    assert_eq!(fs::read_to_string(home.join("kept")).unwrap(), "hers");

    // Smaller than what is in it: nothing is cut off.
    let refused = homes.set_quota(alice, &small);
    assert!(kind != DriverKind::Loop || matches!(refused, Ok(Applied::Later(_))), "{refused:?}");
    homes.rest(alice).unwrap();
    homes.ensure(alice, &small).unwrap();
    assert_eq!(fs::metadata(home.join("open")).unwrap().len(), 90 * MIB);
    fs::remove_file(home.join("open")).unwrap();
    Command::new("sync").status().unwrap();
    homes.rest(alice).unwrap();
    homes.ensure(alice, &small).unwrap();
    let limit = used(homes, alice).limit.bytes.unwrap();
    assert!(limit <= 32 * MIB && limit > 20 * MIB, "{limit}");
    assert_eq!(fs::read_to_string(home.join("kept")).unwrap(), "hers");
    assert!(!home.join("lost+found").exists());
    assert!(fill(&home) < 32 * MIB);
    fs::remove_file(home.join("ballast")).unwrap();
}

fn comings_and_goings(kind: DriverKind, root: &Root, homes: &Homes) {
    let carol = id("carol");
    let staged = homes.stage(&QUOTA).unwrap();
    fs::write(staged.path().join("new"), "new").unwrap();
    assert!(!homes.exists(&carol).unwrap() && !homes.homes().unwrap().contains(&carol));
    homes.commit(staged, &carol).unwrap();
    let tree = homes.ensure(&carol, &QUOTA).unwrap();
    assert_eq!(fs::read_to_string(tree.join("new")).unwrap(), "new");
    assert_eq!(fs::metadata(&tree).unwrap().uid(), 1000);

    let other = homes.stage(&QUOTA).unwrap();
    assert!(homes.commit(other, &carol).unwrap_err().is_taken());
    assert_eq!(fs::read_to_string(tree.join("new")).unwrap(), "new");

    let copy = homes.stage_copy(&Source::Home(&carol), &QUOTA, &|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(fs::read_to_string(copy.path().join("new")).unwrap(), "new");
    fs::write(copy.path().join("new"), "changed").unwrap();
    assert_eq!(fs::read_to_string(tree.join("new")).unwrap(), "new", "two of them");
    homes.commit(copy, &id("copied")).unwrap();

    if kind == DriverKind::Loop {
        let user = File::open(tree.join("new")).unwrap();
        assert!(homes.set_aside(&carol, AsideReason::Deleted).is_err(), "somebody uses it");
        drop(user);
        homes.ensure(&carol, &QUOTA).unwrap();
    }
    let aside = homes.set_aside(&carol, AsideReason::Deleted).unwrap();
    assert!(!homes.exists(&carol).unwrap() && homes.asides().unwrap() == std::slice::from_ref(&aside));
    assert_eq!((aside.home.clone(), aside.why), (carol.clone(), AsideReason::Deleted));
    assert!(aside.at().elapsed().unwrap() < Duration::from_secs(60));
    homes.bring_back(&aside, &carol).unwrap();
    assert_eq!(homes.asides().unwrap(), []);
    let tree = homes.ensure(&carol, &QUOTA).unwrap();
    assert_eq!(fs::read_to_string(tree.join("new")).unwrap(), "new");

    let first = homes.set_aside(&carol, AsideReason::Replaced).unwrap();
    homes.ensure(&carol, &QUOTA).unwrap();
    assert!(homes.bring_back(&first, &carol).unwrap_err().is_taken());
    let second = homes.set_aside(&carol, AsideReason::Replaced).unwrap();
    assert_ne!(first, second);
    homes.discard(&first).unwrap();
    assert_eq!(homes.asides().unwrap(), std::slice::from_ref(&second));
    assert!(homes.bring_back(&first, &carol).is_err());
    homes.discard(&second).unwrap();
    assert_eq!(root.names(), ["alice", "bob.data", "copied"]);
}

fn views(root: &Root, homes: &Homes, consistent: bool) {
    let copied = id("copied");
    let tree = homes.ensure(&copied, &QUOTA).unwrap();
    let before = root.names();
    let snapshot = homes.snapshot(&copied).unwrap();
    assert_eq!(snapshot.consistent, consistent);
    assert_eq!(fs::read_to_string(snapshot.path.join("new")).unwrap(), "changed");
    if snapshot.consistent {
        fs::write(tree.join("new"), "later").unwrap();
        assert_eq!(fs::read_to_string(snapshot.path.join("new")).unwrap(), "changed");
        assert!(fs::write(snapshot.path.join("new"), "x").is_err(), "read-only");
        let again = homes.stage_copy(&Source::Snapshot(&snapshot), &QUOTA, &|_| ControlFlow::Continue(())).unwrap();
        assert_eq!(fs::read_to_string(again.path().join("new")).unwrap(), "changed");
    }
    homes.rest(&copied).ok();
    assert!(snapshot.path.join("new").exists(), "nobody takes away what is being read");
    drop(snapshot);
    assert_eq!(root.names(), before);
}

/// What a process leaves that ends without taking leave.
fn leftovers(kind: DriverKind, root: &Root, homes: Homes) {
    let before = root.names();
    let staged = homes.stage(&QUOTA).unwrap();
    fs::write(staged.path().join("half"), "x").unwrap();
    let snapshot = homes.snapshot(&id("copied")).unwrap();
    homes.make_ready(&[QUOTA]).unwrap();
    assert!(homes.sweep().unwrap() == 0, "what somebody holds is left alone");
    assert!(staged.path().join("half").exists());
    std::mem::forget((staged, snapshot, homes));
    fs::write(root.path.join("not-Ours"), "x").unwrap();
    fs::write(root.path.join("~0123456789abcdef"), "what a driver was at").unwrap();
    assert_ne!(root.names(), before);
    let homes = Homes::open(&root.path, kind).unwrap();
    assert!(homes.recover().unwrap() >= 1);
    fs::remove_file(root.path.join("not-Ours")).expect("nothing that is not ours is taken away");
    assert_eq!(root.names(), before);
    assert_eq!(homes.recover().unwrap(), 0);
    assert_eq!(fs::read_to_string(homes.ensure(&id("alice"), &QUOTA).unwrap().join("kept")).unwrap(), "hers");
}

fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() >> 24 & 1 == 1
}

#[test]
fn directories_keep_the_contract() {
    contract(DriverKind::Directory, &Root::new(None), false);
    killed_at_any_moment(DriverKind::Directory, &Root::new(None));
}

#[test]
fn images_keep_the_contract() {
    let said = said(&prospects(DriverKind::Loop, Path::new("/")));
    assert_eq!(said.contains("no CAP_SYS_RESOURCE"), !has_sys_resource(), "{said}");
    // Where the file system of the host shares no blocks an image cannot be copied in no time, and is not.
    let images = Root::new(None);
    fs::create_dir_all(&images.path).unwrap();
    fs::write(images.path.join("ONE"), "1").unwrap();
    let cp = Command::new("cp").arg("--reflink=always").args(["ONE", "TWO"]).current_dir(&images.path).stderr(Stdio::null()).status();
    let shares = cp.unwrap().success();
    for name in ["ONE", "TWO"] {
        fs::remove_file(images.path.join(name)).ok();
    }
    contract(DriverKind::Loop, &images, shares);
    killed_at_any_moment(DriverKind::Loop, &Root::new(None));
}

/// A loop device that a test has attached by hand, until this is dropped.
struct Attached(String);

impl Attached {
    fn to(file: &Path) -> Self {
        let said = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        Self(String::from_utf8(said.stdout).unwrap().trim().to_owned())
    }

    fn is_there(&self) -> bool {
        Path::new("/sys/block").join(Path::new(&self.0).file_name().unwrap()).join("loop/backing_file").exists()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if self.is_there() {
            Command::new("losetup").args(["-d", &self.0]).status().unwrap();
        }
    }
}

#[test]
fn a_loop_device_that_nobody_has_mounted_is_let_go_of_and_no_other() {
    let (root, elsewhere) = (Root::new(None), tempfile::tempdir().unwrap());
    let homes = Homes::open(&root.path, DriverKind::Loop).unwrap();
    let used = homes.ensure(&id("used"), &QUOTA).unwrap();
    fs::write(used.join("whole"), "yes").unwrap();
    for name in ["loose", "busy"] {
        homes.ensure(&id(name), &QUOTA).unwrap();
        homes.rest(&id(name)).unwrap();
    }
    let file = |path: PathBuf| {
        File::create(&path).unwrap().set_len(16 * MIB).unwrap();
        path
    };
    let loose = Attached::to(&root.path.join("loose"));
    let removed = Attached::to(&file(root.path.join("+0123456789abcdef")));
    fs::remove_file(root.path.join("+0123456789abcdef")).unwrap();
    // Of a name that we give, and somewhere else; here, and of a name that we do not give.
    let theirs = [Attached::to(&file(elsewhere.path().join("alice"))), Attached::to(&file(root.path.join("Rescue.img")))];
    let busy = Attached::to(&root.path.join("busy"));
    let open = File::open(&busy.0).unwrap();
    let staged = homes.stage(&QUOTA).unwrap();
    assert_eq!(homes.detach_loose().unwrap(), 2);
    assert!(!loose.is_there() && !removed.is_there());
    assert!(busy.is_there() && theirs.iter().all(Attached::is_there));
    assert_eq!(fs::read_to_string(used.join("whole")).unwrap(), "yes");
    fs::write(staged.path().join("still"), "x").unwrap();
    drop((open, staged));
    let deadline = Instant::now() + Duration::from_secs(30);
    while busy.is_there() {
        homes.detach_loose().unwrap();
        assert!(Instant::now() < deadline, "it stays though nobody has it open");
    }
    assert_eq!(homes.detach_loose().unwrap(), 0);
    assert!(theirs.iter().all(Attached::is_there));
    assert!(homes.ensure(&id("loose"), &QUOTA).is_ok() && homes.ensure(&id("busy"), &QUOTA).is_ok());
    homes.close().unwrap();
}

/// Where blocks are shared, a snapshot is a copy that is made while everything that writes is held up for a moment.
#[test]
fn images_on_a_file_system_that_shares_blocks_have_snapshots() {
    let root = Root::new(Some(FileSystem::make("xfs", 2 << 30, "").unwrap()));
    contract(DriverKind::Loop, &root, true);
    killed_at_any_moment(DriverKind::Loop, &root);
    let homes = Homes::open(&root.path, DriverKind::Loop).unwrap();
    let home = homes.ensure(&id("steady"), &QUOTA).unwrap();
    // Killed while it was frozen: nobody could write there for ever.
    fs::write(root.path.join(".mounts/steady.frozen"), "").unwrap();
    assert!(Command::new("fsfreeze").arg("-f").arg(&home).status().unwrap().success());
    drop(homes);
    let homes = Homes::open(&root.path, DriverKind::Loop).unwrap();
    assert_eq!(homes.recover().unwrap(), 1);
    fs::write(home.join("goes-on"), "x").unwrap();

    // What the kernel found to be wrong is looked after before anybody is let in.
    homes.rest(&id("steady")).unwrap();
    let image = root.path.join("steady");
    let marked = Command::new("debugfs").args(["-w", "-R", "ssv state 2"]).arg(&image).stderr(Stdio::null()).status().unwrap();
    assert!(marked.success());
    let state = || {
        let said = Command::new("dumpe2fs").arg("-h").arg(&image).output().unwrap();
        String::from_utf8(said.stdout).unwrap().lines().find(|line| line.starts_with("Filesystem state")).unwrap().to_owned()
    };
    assert!(state().contains("errors"), "{}", state());
    assert_eq!(fs::read_to_string(homes.ensure(&id("steady"), &QUOTA).unwrap().join("whole")).unwrap(), "yes");
    homes.rest(&id("steady")).unwrap();
    assert!(!state().contains("errors"), "{}", state());
}

#[test]
fn subvolumes_keep_the_contract() {
    let root = Root::new(Some(FileSystem::make("btrfs", 2 << 30, "").unwrap()));
    contract(DriverKind::Btrfs, &root, true);
    killed_at_any_moment(DriverKind::Btrfs, &root);
    // What somebody makes in her home goes with it, whatever it is.
    let homes = Homes::open(&root.path, DriverKind::Btrfs).unwrap();
    let home = homes.ensure(&id("alice"), &QUOTA).unwrap();
    let make = |inner: &Path| {
        let made = Command::new("btrfs").args(["-q", "subvolume", "create"]).arg(inner).status().unwrap();
        assert!(made.success());
    };
    ["in", "in/a b", "in/a b/c", "ro"].iter().for_each(|inner| make(&home.join(inner)));
    // Names that would be another's home to whoever took a line of a list, or a link, for a path of hers.
    let bobs = homes.ensure(&id("bob"), &QUOTA).unwrap();
    fs::write(bobs.join("whole"), "yes").unwrap();
    let odd = home.join(std::ffi::OsStr::from_bytes(b"link\nID 256 gen 1 top level 5 path \xff"));
    fs::create_dir(&odd).unwrap();
    make(&odd.join("in"));
    std::os::unix::fs::symlink("../bob", home.join("link")).unwrap();
    // Deeper than any path that a program takes, and read-only.
    let mut deep = fs::File::open(&home).unwrap();
    for level in 0..30 {
        let name = format!("{level}-{}", "x".repeat(200));
        rustix::fs::mkdirat(&deep, &name, rustix::fs::Mode::from_raw_mode(0o700)).unwrap();
        deep = rustix::fs::openat(&deep, &name, rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap().into();
    }
    let mut made = Command::new("btrfs");
    made.args(["-q", "subvolume", "create", "deep"]).current_dir(format!("/proc/self/fd/{}", deep.as_raw_fd()));
    assert!(made.status().unwrap().success());
    fs::write(home.join("ro/file"), "x").unwrap();
    assert!(Command::new("btrfs").args(["property", "set", "-ts"]).arg(home.join("ro")).args(["ro", "true"]).status().unwrap().success());
    drop(deep);
    let aside = homes.set_aside(&id("alice"), AsideReason::Deleted).unwrap();
    homes.discard(&aside).unwrap();
    assert!(!root.names().iter().any(|name| name.starts_with("alice") || name.starts_with('+')), "{:?}", root.names());
    assert_eq!(fs::read_to_string(bobs.join("whole")).unwrap(), "yes");
}

/// An XFS as it comes is told what it lacks. With project quotas it keeps the contract; a kernel without them says so at the mount.
#[test]
fn projects_keep_the_contract_where_the_kernel_has_quotas() {
    let plain = FileSystem::make("xfs", 512 << 20, "").unwrap();
    let Prospect::Impossible(why) = &prospects(DriverKind::Xfs, &plain.path())[0] else { panic!("it has no project quotas") };
    assert!(why.contains("-o prjquota") && why.contains("CONFIG_XFS_QUOTA"), "{why}");
    let refused = Homes::open(&plain.path(), DriverKind::Xfs).unwrap_err().to_string();
    assert!(refused.contains("-o prjquota"), "{refused}");
    match FileSystem::make("xfs", 1 << 30, "prjquota") {
        Ok(quotas) => {
            let root = Root::new(Some(quotas));
            let all = said(&prospects(DriverKind::Xfs, &root.path));
            assert!(all.contains("bytes and inodes are limited"), "{all}");
            contract(DriverKind::Xfs, &root, false);
            killed_at_any_moment(DriverKind::Xfs, &root);
        }
        Err(why) => {
            // What the driver does with a quota was not tried then: only that nobody is left in doubt about it.
            eprintln!("this kernel has no quotas of XFS: {why}");
            assert!(why.contains("mount"), "{why}");
        }
    }
}

#[test]
fn a_btrfs_or_xfs_that_is_none_is_refused_and_the_way_out_named() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, name) in [(DriverKind::Btrfs, "btrfs"), (DriverKind::Xfs, "xfs")] {
        let refused = Homes::open(dir.path(), kind).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("choose another home.driver"), "{refused}");
        assert!(matches!(prospects(kind, dir.path()).last(), Some(Prospect::Impossible(why)) if why.contains(name)));
    }
    assert!(matches!(&prospects(DriverKind::Directory, dir.path())[..], [Prospect::Lacking(_)]));
}

fn said(all: &[Prospect]) -> String {
    all.iter().map(|one| format!("{one:?}\n")).collect()
}

/// Whatever is under way when a process is killed: a home that there was is there, whole; one that is there is whole; and nothing else is left.
fn killed_at_any_moment(kind: DriverKind, root: &Root) {
    let homes = Homes::open(&root.path, kind).unwrap();
    fs::write(homes.ensure(&id("steady"), &QUOTA).unwrap().join("whole"), "yes").unwrap();
    drop(homes);
    let mut ways = 0;
    for round in 0..12u64 {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args(["--exact", "a_process_to_be_killed", "--nocapture"]).env(VICTIM, format!("{kind:?} {}", root.path.display()));
        let mut victim = victim.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(25 + round * 37));
        victim.kill().unwrap();
        victim.wait().unwrap();
        // What it had started may still run for a moment: as at a real start, which comes later than this.
        let deadline = Instant::now() + Duration::from_secs(30);
        while somebody_is_left(victim.id()) {
            assert!(Instant::now() < deadline, "{kind:?}: what the killed one has started does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let homes = Homes::open(&root.path, kind).unwrap();
        ways += homes.recover().unwrap();
        assert!(homes.exists(&id("steady")).unwrap());
        for id in homes.homes().unwrap() {
            let tree = homes.ensure(&id, &QUOTA).unwrap();
            // A home that was made empty by `ensure` is whole without it.
            if id.volume.is_none() && !["alice", "plain", "copied"].contains(&id.workspace.as_str()) {
                assert_eq!(fs::read_to_string(tree.join("whole")).unwrap(), "yes", "{id} after {round}");
            }
        }
        for aside in homes.asides().unwrap() {
            homes.discard(&aside).unwrap();
        }
        assert!(!root.names().iter().any(|name| name.starts_with(['+', '='])), "{:?}", root.names());
        homes.recover().unwrap();
        homes.close().unwrap();
    }
    eprintln!("{kind:?}: {ways} things were left by 12 kills, and put back");
}

/// Whether anybody of a process group still runs.
fn somebody_is_left(group: u32) -> bool {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok());
    // `pid (name) state parent group`; a name may have anything in it.
    processes.filter_map(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned())).any(|rest| {
        let mut words = rest.split(' ');
        words.next() != Some("Z") && words.nth(1) == Some(&group.to_string())
    })
}

/// No test by itself: what [`killed_at_any_moment`] kills. Without its variable it has nothing to do.
#[test]
fn a_process_to_be_killed() {
    let Ok(told) = std::env::var(VICTIM) else { return };
    let (kind, root) = told.split_once(' ').unwrap();
    let kinds = [DriverKind::Directory, DriverKind::Loop, DriverKind::Btrfs, DriverKind::Xfs];
    let kind = kinds.into_iter().find(|one| format!("{one:?}") == kind).unwrap();
    let homes = Homes::open(Path::new(root), kind).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let staged = homes.stage(&QUOTA).unwrap();
        fs::write(staged.path().join("whole"), "yes").unwrap();
        fs::write(staged.path().join("more"), vec![7; 1 << 20]).unwrap();
        let victim = id("victim");
        if homes.exists(&victim).unwrap() {
            homes.set_aside(&victim, AsideReason::Replaced).unwrap();
        }
        homes.commit(staged, &victim).unwrap();
        homes.ensure(&victim, &QUOTA).unwrap();
        homes.ensure(&id("made.data"), &QUOTA).unwrap();
        drop(homes.snapshot(&victim).unwrap());
        let copy = homes.stage_copy(&Source::Home(&victim), &QUOTA, &|_| ControlFlow::Continue(())).unwrap();
        drop(copy);
        homes.ensure(&id("steady"), &QUOTA).unwrap();
        for aside in homes.asides().unwrap() {
            homes.discard(&aside).unwrap();
        }
        let made = homes.set_aside(&id("made.data"), AsideReason::Deleted).unwrap();
        homes.discard(&made).unwrap();
    }
}

/// What a new home and a login's part of it cost. Figures, not promises: other work on this machine makes them larger.
#[test]
fn what_it_takes() {
    let btrfs = Root::new(Some(FileSystem::make("btrfs", 1 << 30, "").unwrap()));
    let (plain, images) = (Root::new(None), Root::new(None));
    let quota = Quota { bytes: Some(50 << 30), inodes: None };
    for (kind, root) in [(DriverKind::Directory, &plain), (DriverKind::Loop, &images), (DriverKind::Btrfs, &btrfs)] {
        let homes = Homes::open(&root.path, kind).unwrap();
        let (mut new, mut made, mut again, mut here) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for number in 0..18 {
            // Every second one finds what the gateway makes ahead.
            let ahead = number % 2 == 1;
            if ahead {
                homes.make_ready(&[quota]).unwrap();
            }
            let id = id(&format!("user{number}"));
            let timed = |into: &mut Vec<Duration>| {
                let began = Instant::now();
                homes.ensure(&id, &quota).unwrap();
                into.push(began.elapsed());
            };
            timed(if ahead { &mut made } else { &mut new });
            homes.rest(&id).unwrap();
            timed(&mut again);
            timed(&mut here);
        }
        for times in [&mut new, &mut made, &mut again, &mut here] {
            times.sort();
        }
        let figures = [new[4], made[4], again[9], here[9]];
        eprintln!("{kind:?}: new, new and made ahead, at rest, in use (medians): {figures:?}");
        assert!(new[4] < Duration::from_secs(20) && here[9] < Duration::from_secs(20), "{kind:?}");
        homes.close().unwrap();
    }
}
