//! Backups in a directory: what comes back, what a stranger's tree cannot do, and what is noticed when a disk lies.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/trees.rs"]
mod trees;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use innkeeper::backup::{Config, Reason, Root, Subject};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags};

use self::backup::{Fixture, furnish, home_at, noise, open, same, subject, text};
use self::trees::{Ambush, furnish_for_ambush};

#[tokio::test]
async fn everything_in_a_home_comes_back() {
    let fixture = Fixture::new();
    furnish(&fixture.home());
    let done = fixture.run("alice").await;
    assert_eq!((done.left_out, done.examples.as_slice()), (0, &[][..]));
    let listed = fixture.backups.list(None).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&*listed[0].home, &*listed[0].roots, listed[0].consistent, &listed[0].id),
        ("alice", &["home".to_owned()][..], true, &done.id)
    );
    assert!(listed[0].files > 260 && listed[0].bytes > 300 << 20, "{listed:?}");
    let restored = fixture.restore(&done.id).await;
    same(&fixture.home(), restored.path());
    let sparse = fs::metadata(restored.path().join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "its hole takes {} bytes", sparse.blocks() * 512);
    assert!(fixture.verify().await.is_clean());
    // Both reading and restoring leave the home alone, whatever became of access times.
    let again = fixture.run("alice").await;
    assert!(again.new_bytes < 100_000, "{again:?}");
    assert_eq!(fixture.backups.list(Some("alice")).await.unwrap().len(), 2);
    assert_eq!(fixture.backups.list(Some("bob")).await.unwrap().len(), 0);
}

#[tokio::test]
async fn several_directories_are_one_backup() {
    let fixture = Fixture::new();
    let data = fixture.dir.path().join("data");
    furnish(&fixture.home());
    furnish(&data);
    fs::remove_file(data.join("text")).unwrap();
    let roots = vec![Root { name: "volume.data".to_owned(), path: data.clone() }, home_at(&fixture.home())];
    let both = Subject { settings: Some("{\"a\": 1}".to_owned()), roots, ..subject("alice", &fixture.home(), true, SystemTime::now()) };
    let done = fixture.backups.run(both.clone(), &|_| ()).await.unwrap();
    let listed = fixture.backups.list_with_settings("alice").await.unwrap();
    assert_eq!(
        (&*listed[0].roots, listed[0].settings.as_deref()),
        (&["home".to_owned(), "volume.data".to_owned()][..], Some("{\"a\": 1}"))
    );
    assert_eq!(fixture.backups.list(Some("alice")).await.unwrap()[0].settings, None);
    let (one, two) = (tempfile::tempdir_in(fixture.dir.path()).unwrap(), tempfile::tempdir_in(fixture.dir.path()).unwrap());
    let into = vec![home_at(one.path()), Root { name: "volume.data".to_owned(), path: two.path().to_owned() }];
    fixture.backups.restore(&done.id, into, &|_| ()).await.unwrap();
    same(&fixture.home(), one.path());
    same(&data, two.path());
    // With one directory less the rest is still not read again, and what is not in it is not made up.
    let done = fixture.run("alice").await;
    assert!(done.new_bytes < 100_000, "{done:?}");
    let into = vec![Root { name: "volume.data".to_owned(), path: fixture.dir.path().join("new") }];
    fs::create_dir(&into[0].path).unwrap();
    assert_eq!(fixture.backups.restore(&done.id, into, &|_| ()).await.unwrap_err().reason, Reason::NoBackup);
    fs::remove_dir_all(&data).unwrap();
    assert_eq!(fixture.backups.run(both, &|_| ()).await.unwrap_err().reason, Reason::Home);
    assert_eq!(fixture.backups.list(None).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_change_is_in_the_next_backup_even_if_nothing_shows_it() {
    let fixture = Fixture::new();
    let path = fixture.home().join("file");
    for content in [b"first.", b"second", b"third."] {
        fs::write(&path, content).unwrap();
        // The same length and time of modification, and perhaps the same tick of the clock.
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let done = fixture.run("alice").await;
        let restored = fixture.restore(&done.id).await;
        assert_eq!(fs::read(restored.path().join("file")).unwrap(), content);
    }
}

#[tokio::test]
async fn what_gives_power_is_not_restored() {
    let fixture = Fixture::new();
    let home = fixture.home();
    fs::write(home.join("program"), b"#!").unwrap();
    fs::set_permissions(home.join("program"), fs::Permissions::from_mode(0o6755)).unwrap();
    // A capability: version 2, cap_sys_admin permitted and effective.
    let capability = [1, 0, 0, 2, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(home.join("capable"), b"#!").unwrap();
    rustix::fs::setxattr(home.join("capable"), "security.capability", &capability, XattrFlags::empty()).unwrap();
    rustix::fs::mknodat(CWD, home.join("disk"), FileType::BlockDevice, Mode::RUSR, rustix::fs::makedev(7, 0)).unwrap();
    rustix::fs::mknodat(CWD, home.join("null"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
    std::os::unix::net::UnixListener::bind(home.join("socket")).unwrap();
    let done = fixture.run("alice").await;
    let into = tempfile::tempdir().unwrap();
    let restored = fixture.backups.restore(&done.id, vec![home_at(into.path())], &|_| ()).await.unwrap();
    assert_eq!(restored.left_out, 2, "{restored:?}");
    assert_eq!(fs::metadata(into.path().join("program")).unwrap().mode() & 0o7777, 0o755);
    let mut value = [0; 64];
    assert!(rustix::fs::getxattr(into.path().join("capable"), "security.capability", &mut value[..]).is_err());
    let mut names: Vec<_> = fs::read_dir(into.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["capable", "program"]);
}

#[tokio::test]
async fn what_never_ends_is_not_waited_for() {
    let fixture = Fixture::new();
    let home = fixture.home();
    // Sizes that the largest file of this file system has: reading it would take days.
    let vast = File::create(home.join("vast")).unwrap();
    vast.set_len(15 << 40).unwrap();
    vast.write_all_at(b"in the middle", 7 << 40).unwrap();
    vast.write_all_at(&noise(3 << 20, 5), (9 << 40) + 12_345).unwrap();
    File::create(home.join("nothing but a hole")).unwrap().set_len(2 << 40).unwrap();
    for number in 0..50 {
        rustix::fs::mknodat(CWD, home.join(format!("pipe{number}")), FileType::Fifo, Mode::RWXU, 0).unwrap();
    }
    // A user's own attribute of the reserved name is not believed.
    fs::write(home.join("liar"), b"abc").unwrap();
    rustix::fs::setxattr(home.join("liar"), "user.innkeeper.extents", &[255; 24], XattrFlags::empty()).unwrap();
    let start = Instant::now();
    let done = fixture.run("alice").await;
    assert!(done.new_bytes < 8 << 20, "{done:?}");
    let restored = fixture.restore(&done.id).await;
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
    let back = File::open(restored.path().join("vast")).unwrap();
    assert_eq!(back.metadata().unwrap().len(), 15 << 40);
    assert!(back.metadata().unwrap().blocks() * 512 < 16 << 20);
    let mut middle = [0; 15];
    back.read_exact_at(&mut middle, (7 << 40) - 1).unwrap();
    assert_eq!(&middle, b"\0in the middle\0");
    let mut far = vec![0; 3 << 20];
    back.read_exact_at(&mut far, (9 << 40) + 12_345).unwrap();
    assert!(far == noise(3 << 20, 5));
    assert_eq!(fs::metadata(restored.path().join("nothing but a hole")).unwrap().len(), 2 << 40);
    assert_eq!(fs::read(restored.path().join("liar")).unwrap(), b"abc");
    // And it is known to be unchanged.
    assert!(fixture.run("alice").await.new_bytes < 10_000);
}

/// Depth and length that nobody can name with one path are left out and told, and do not end the backup.
#[tokio::test]
async fn a_tree_that_is_too_deep_is_left_out_and_said() {
    let fixture = Fixture::new();
    fs::write(fixture.home().join("zz kept"), b"kept").unwrap();
    let name = "d".repeat(200);
    let mut directory = rustix::fs::open(fixture.home(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..40 {
        rustix::fs::mkdirat(&directory, &*name, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &*name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let done = fixture.run("alice").await;
    assert!(done.left_out == 1 && done.examples[0].contains("too long"), "{done:?}");
    let restored = fixture.restore(&done.id).await;
    assert_eq!(fs::read(restored.path().join("zz kept")).unwrap(), b"kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_gets_in_whatever_is_swapped() {
    let fixture = Fixture::new();
    let home = fixture.home();
    let outside = fixture.dir.path().join("outside");
    let secret = format!("outside-{}", rand::random::<u128>());
    fs::create_dir(&outside).unwrap();
    for number in 0..50 {
        fs::create_dir(home.join(format!("dir{number}"))).unwrap();
        for file in 0..20 {
            fs::write(home.join(format!("dir{number}/file{file}")), b"inside").unwrap();
            fs::write(outside.join(format!("file{file}")), &secret).unwrap();
        }
        symlink(&outside, home.join(format!("swap{number}"))).unwrap();
        fs::write(home.join(format!("file{number}")), b"inside").unwrap();
        symlink(outside.join("file1"), home.join(format!("file swap{number}"))).unwrap();
    }
    let (stop, swaps) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    let mut ids = Vec::new();
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (home, stop, swaps) = (&home, &stop, &swaps);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = rand::random_range(0..50);
                    let pair = if seed == 0 {
                        (home.join(format!("dir{number}")), home.join(format!("swap{number}")))
                    } else {
                        (home.join(format!("file{number}")), home.join(format!("file swap{number}")))
                    };
                    if rustix::fs::renameat_with(CWD, &pair.0, CWD, &pair.1, RenameFlags::EXCHANGE).is_ok() {
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            for _ in 0..6 {
                let run = fixture.backups.run(subject("mallory", &home, false, SystemTime::now()), &|_| ());
                ids.push(runtime.block_on(run).unwrap().id);
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert!(swaps.load(Ordering::Relaxed) > 1000, "{swaps:?}");
    for id in ids {
        let restored = fixture.restore(&id).await;
        let files = files_below(restored.path());
        assert!(files.len() > 100, "{}", files.len());
        for file in files {
            assert!(fs::read(&file).unwrap() != secret.as_bytes(), "{} is from outside", file.display());
        }
    }
    assert!(fixture.verify().await.is_clean());
}

/// Who restores does so where nobody else can be: it holds even there.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_where_it_is_restored_reaches_nothing_else() {
    let fixture = Fixture::new();
    furnish_for_ambush(&fixture.home());
    let done = fixture.run("alice").await;
    let runtime = tokio::runtime::Handle::current();
    let restore = |into: &Path| runtime.block_on(fixture.backups.restore(&done.id, vec![home_at(into)], &|_| ())).is_ok();
    tokio::task::block_in_place(|| Ambush::lay(fixture.dir.path()).try_out(restore));
    same(&fixture.home(), fixture.restore(&done.id).await.path());
}

#[tokio::test]
async fn another_file_system_in_a_home_is_left_out_and_said() {
    let fixture = Fixture::new();
    let inside = fixture.home().join("mounted");
    fs::create_dir(&inside).unwrap();
    rustix::mount::mount_bind("/etc", &inside).unwrap();
    let done = fixture.backups.run(subject("alice", &fixture.home(), true, SystemTime::now()), &|_| ()).await;
    rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).unwrap();
    let done = done.unwrap();
    assert!(done.left_out == 1 && done.files == 0 && done.examples[0].contains("mounted"), "{done:?}");
}

#[tokio::test]
async fn every_flipped_bit_is_found_and_whose_it_is() {
    let fixture = Fixture::new();
    fs::write(fixture.home().join("a"), noise(3 << 20, 1)).unwrap();
    fixture.run("alice").await;
    fs::write(fixture.home().join("a"), noise(3 << 20, 2)).unwrap();
    fixture.run("bob").await;
    assert!(fixture.verify().await.is_clean());
    let mut kinds = std::collections::BTreeSet::new();
    let mut hit = std::collections::BTreeSet::new();
    for file in files_below(&fixture.target()) {
        let whole = fs::read(&file).unwrap();
        let name = file.strip_prefix(fixture.target()).unwrap().to_str().unwrap().to_owned();
        kinds.insert(name.split('/').next().unwrap().to_owned());
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            fs::write(&file, &bad).unwrap();
            match fixture.backups.verify(1.0, &|_| ()).await {
                Ok(report) => {
                    assert!(!report.is_clean(), "{name} byte {at}");
                    if name.starts_with("data/") {
                        hit.extend(report.damage.iter().map(|damage| damage.home.clone()));
                        assert!(!report.damage.is_empty(), "{name}: {report:?}");
                    }
                }
                // Without its key or its configuration a repository does not open at all.
                Err(why) => assert!(name == "config" || name.starts_with("keys/"), "{name}: {why}"),
            }
        }
        // Cut off, and gone.
        fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        assert!(!fixture.backups.verify(1.0, &|_| ()).await.is_ok_and(|report| report.is_clean()), "{name} cut off");
        fs::remove_file(&file).unwrap();
        let gone = fixture.backups.verify(1.0, &|_| ()).await;
        // A backup that is gone without a trace is one that nothing speaks of.
        assert!(name.starts_with("snapshots/") || !gone.is_ok_and(|report| report.is_clean()), "{name} gone");
        fs::write(&file, &whole).unwrap();
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["config", "data", "index", "keys", "snapshots"]);
    assert_eq!(hit.into_iter().collect::<Vec<_>>(), ["alice", "bob"]);
    assert!(fixture.verify().await.is_clean());
}

#[tokio::test]
async fn what_is_not_kept_goes_and_takes_its_data() {
    let mut config = Config { keep_last: 2, keep_for: innkeeper::units::Span::secs(3600), key: Some("k".into()), ..Config::default() };
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    config.target = text(&dir.path().join("target"));
    let fixture = Fixture::with(dir, config);
    let run = async |home: &str, hours: u64, seed| {
        fs::write(fixture.home().join("a"), noise(2 << 20, seed)).unwrap();
        let taken = SystemTime::now() - Duration::from_secs(hours * 3600);
        fixture.backups.run(subject(home, &fixture.home(), true, taken), &|_| ()).await.unwrap().id
    };
    let old = run("alice", 9, 1).await;
    let mut kept = vec![run("alice", 8, 2).await, run("alice", 7, 3).await, run("bob", 99, 4).await];
    let size = |fixture: &Fixture| files_below(&fixture.target()).iter().map(|file| fs::metadata(file).unwrap().len()).sum::<u64>();
    let before = size(&fixture);
    let pruned = fixture.backups.retain(&|_| ()).await.unwrap();
    assert_eq!(pruned.backups, 1);
    assert!(size(&fixture) + (1 << 20) < before, "{} of {before} are left", size(&fixture));
    let ids = async || {
        let mut ids: Vec<String> = fixture.backups.list(None).await.unwrap().into_iter().map(|backup| backup.id).collect();
        ids.sort();
        ids
    };
    kept.sort();
    assert_eq!(ids().await, kept);
    assert_eq!(fixture.backups.restore(&old, vec![home_at(&fixture.home())], &|_| ()).await.unwrap_err().reason, Reason::NoBackup);
    let forgotten = fixture.backups.forget("alice", &|_| ()).await.unwrap();
    assert_eq!(forgotten.backups, 2);
    assert_eq!(fixture.backups.list(None).await.unwrap().iter().map(|backup| &*backup.home).collect::<Vec<_>>(), ["bob"]);
    assert!(size(&fixture) < 3 << 20, "{} bytes for one backup of 2 MiB", size(&fixture));
    assert!(fixture.verify().await.is_clean());
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_mend() {
    let fixture = Fixture::new();
    let missing = text(&fixture.dir.path().join("not mounted"));
    let run =
        async |config: &Config| open(config).run(subject("alice", &fixture.home(), true, SystemTime::now()), &|_| ()).await.unwrap_err();
    let with = |target: &str, key: &str| Config { target: target.to_owned(), key: Some(key.to_owned().into()), ..Config::default() };
    let error = run(&with(&missing, "k")).await;
    assert!(error.reason == Reason::NoTarget && error.message.contains(&missing) && error.message.contains("mount"), "{error}");
    fixture.run("alice").await;
    let error = run(&with(&text(&fixture.target()), "another key")).await;
    assert!(error.reason == Reason::WrongKey && error.message.contains("backup.key"), "{error}");
    assert!(!error.message.contains("another key"));
    let error = run(&with("/etc", "k")).await;
    assert!(error.reason == Reason::NoTarget && error.message.contains("place of their own"), "{error}");
    let gone = fixture.dir.path().join("gone");
    let error = fixture.backups.run(subject("alice", &gone, true, SystemTime::now()), &|_| ()).await.unwrap_err();
    assert_eq!(error.reason, Reason::Home, "{error}");
    for id in ["", "x", "../../etc/passwd", &"0".repeat(64)] {
        assert_eq!(fixture.backups.restore(id, vec![home_at(&fixture.home())], &|_| ()).await.unwrap_err().reason, Reason::NoBackup);
    }
    fs::write(fixture.home().join("there"), b"").unwrap();
    let id = fixture.run("alice").await.id;
    let error = fixture.backups.restore(&id, vec![home_at(&fixture.home())], &|_| ()).await.unwrap_err();
    assert!(error.reason == Reason::Home && error.message.contains("not empty"), "{error}");
}

#[tokio::test]
async fn a_full_target_is_said_and_what_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    let options = c"size=24m,mode=0700";
    rustix::mount::mount("tmpfs", &target, "tmpfs", rustix::mount::MountFlags::empty(), options).unwrap();
    let _unmount = Unmount(target.clone());
    let fixture = Fixture::with(dir, Config { target: text(&target), key: Some("k".into()), ..Config::default() });
    fs::write(fixture.home().join("a"), noise(4 << 20, 1)).unwrap();
    let first = fixture.run("alice").await;
    fs::write(fixture.home().join("b"), noise(64 << 20, 2)).unwrap();
    let error = fixture.backups.run(subject("alice", &fixture.home(), true, SystemTime::now()), &|_| ()).await.unwrap_err();
    assert!(error.reason == Reason::Full && error.message.contains("make room"), "{error}");
    // What the failed one left makes way even on a full disk.
    fixture.backups.retain(&|_| ()).await.unwrap();
    assert!(fixture.verify().await.is_clean());
    fs::remove_file(fixture.home().join("b")).unwrap();
    fixture.run("alice").await;
    let restored = fixture.restore(&first.id).await;
    assert!(fs::read(restored.path().join("a")).unwrap() == noise(4 << 20, 1));
}

#[tokio::test]
async fn a_restore_onto_a_full_disk_says_so_and_is_over() {
    let fixture = Fixture::new();
    // More than is on its way to those who write when the first of them finds no room.
    for number in 0..2000 {
        fs::write(fixture.home().join(number.to_string()), noise(16 << 10, number)).unwrap();
    }
    let id = fixture.run("alice").await.id;
    let small = fixture.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    rustix::mount::mount("tmpfs", &small, "tmpfs", rustix::mount::MountFlags::empty(), c"size=8m,mode=0700").unwrap();
    let _unmount = Unmount(small.clone());
    let restoring = fixture.backups.restore(&id, vec![home_at(&small)], &|_| ());
    let error = tokio::time::timeout(Duration::from_secs(60), restoring).await.unwrap().unwrap_err();
    assert!(error.message.contains("make room for the whole home"), "{error}");
}

#[tokio::test]
async fn two_gateways_take_turns_and_the_second_says_whom_it_waits_for() {
    let fixture = Fixture::new();
    fs::write(fixture.home().join("a"), noise(1 << 20, 1)).unwrap();
    fixture.run("alice").await;
    // A worker must not inherit it.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(fixture.target(), flags, Mode::empty()).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_innkeeper"));
    let hasty = fixture.backups.clone().with_worker(program, Duration::from_secs(1));
    let error = hasty.verify(1.0, &|_| ()).await.unwrap_err();
    assert!(error.reason == Reason::Busy && error.message.contains("another process"), "{error}");
    assert_eq!(hasty.list(None).await.unwrap().len(), 1, "a list does not wait");
    let waiting = fixture.run("alice");
    let (_, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(held);
    });
}

#[tokio::test]
async fn the_rate_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("target")).unwrap();
    let rate = innkeeper::units::Size::mib(4);
    let config = Config { target: text(&dir.path().join("target")), rate, key: Some("k".into()), ..Config::default() };
    let fixture = Fixture::with(dir, config);
    fs::write(fixture.home().join("a"), noise(16 << 20, 1)).unwrap();
    let start = Instant::now();
    fixture.run("alice").await;
    assert!(start.elapsed() >= Duration::from_secs(3), "16 MiB at 4 MiB a second took {:?}", start.elapsed());
}

#[tokio::test]
async fn restic_reads_it_without_us() {
    let fixture = Fixture::new();
    furnish(&fixture.home());
    // restic before 0.17 knows a link's target as text only.
    fs::remove_file(fixture.home().join("link bytes")).unwrap();
    fixture.run("alice").await;
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command.arg("--no-cache").arg("--repo").arg(fixture.target()).args(arguments).env("RESTIC_PASSWORD", "a key of a test");
        let output = command.output().expect("restic is installed");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let listed: serde_json::Value = serde_json::from_str(&restic(&["snapshots", "--json", "--host", "alice"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(restic(&["check", "--read-data"]).contains("no errors"));
    let into = tempfile::tempdir_in(fixture.dir.path()).unwrap();
    restic(&["restore", "latest", "--target", &text(into.path())]);
    // The home is one directory down. restic before 0.15 writes the zeros of a sparse file.
    let home = into.path().join("home");
    let sparse = home.join("sparse");
    let modified = fs::metadata(&sparse).unwrap().modified().unwrap();
    assert!(Command::new("fallocate").arg("--dig-holes").arg(&sparse).status().unwrap().success());
    fs::File::options().write(true).open(&sparse).unwrap().set_modified(modified).unwrap();
    same(&fixture.home(), &home);
    // And what restic has pruned is still ours to read and to go on with.
    restic(&["prune"]);
    assert!(fixture.verify().await.is_clean());
    let id = fixture.run("alice").await.id;
    same(&fixture.home(), fixture.restore(&id).await.path());
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        if data.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if data.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
        let _ = rustix::fs::unlinkat(CWD, &self.0, AtFlags::REMOVEDIR);
    }
}
