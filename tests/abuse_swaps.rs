//! Somebody changes places in her home, thousands of times a second, with links that lead out of it, while root backs it up, copies it, puts a
//! backup in its place and takes it away. Nothing outside is read into anything, and nothing outside is changed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/trees.rs"]
mod trees;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gateway::{Done, Gateway, finish, template, wait_for};
use rustix::fs::{Gid, Mode, OFlags, RenameFlags, Uid};
use trees::{MARKER, assert_same, own, see};

/// For how long it is tried, once everything was tried once.
const AT_LEAST: Duration = Duration::from_secs(30);
/// How long a backup may take: on a busy machine it gets a tenth of what others do.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many directories change places, and how many files.
const PAIRS: usize = 30;
/// Files in each directory.
const FILES: usize = 20;

/// A process of hers on the host would be this: a thread with her number and no power, to which nothing but the homes is in reach.
struct Hostile {
    stop: Arc<AtomicBool>,
    swaps: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    fn start(homes: &Path) -> Self {
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&swaps));
        let homes = rustix::fs::open(homes, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let thread = std::thread::spawn(move || {
            let (user, group) = (Uid::from_raw(1000), Gid::from_raw(1000));
            // The kernel's calls are of one thread, unlike those of the C library.
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            let pairs: Vec<(String, String)> = (0..PAIRS)
                .flat_map(|pair| ["dir", "file"].map(|kind| (format!("alice/{kind}{pair}"), format!("alice/{kind} link{pair}"))))
                .collect();
            while !stopped.load(Ordering::SeqCst) {
                for (one, other) in &pairs {
                    // Fails while her home is away.
                    if rustix::fs::renameat_with(&homes, one, &homes, other, RenameFlags::EXCHANGE).is_ok() {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
        Self { stop, swaps, thread: Some(thread) }
    }

    fn count(&self) -> u64 {
        self.swaps.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Directories and files of hers, and beside each a link to one of the same name outside.
fn furnish(home: &Path, outside: &Path) {
    fs::create_dir(outside.join("dir")).unwrap();
    fs::write(outside.join("file"), MARKER).unwrap();
    for number in 0..FILES {
        fs::write(outside.join(format!("dir/{number}")), MARKER).unwrap();
    }
    for pair in 0..PAIRS {
        let dir = home.join(format!("dir{pair}"));
        fs::create_dir(&dir).unwrap();
        for number in 0..FILES {
            fs::write(dir.join(number.to_string()), "hers").unwrap();
        }
        fs::write(home.join(format!("file{pair}")), "hers").unwrap();
        for kind in ["dir", "file"] {
            std::os::unix::fs::symlink(outside.join(kind), home.join(format!("{kind} link{pair}"))).unwrap();
        }
    }
    for path in see(home).keys() {
        own(&home.join(path), 1000, 1000);
    }
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Done {
    let mut command = gateway.innkeeper();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), PATIENCE)
}

/// Everything in a tree is hers, though not all of it may be there.
fn assert_hers(root: &Path) {
    let mut files = 0;
    for (path, seen) in see(root) {
        assert_eq!(seen.owner, (1000, 1000), "{} in {}", path.display(), root.display());
        if seen.mode & 0o170_000 == 0o100_000 {
            assert!(seen.content == b"hers" || seen.content.is_empty(), "{} in {} was read outside", path.display(), root.display());
            files += 1;
        }
    }
    assert!(files > 0, "nothing is in {}", root.display());
}

#[test]
fn whatever_is_swapped_while_root_works_on_a_home_nothing_else_is_met() {
    let dir = tempfile::tempdir().unwrap();
    let (outside, target, file) = (dir.path().join("outside"), dir.path().join("target"), dir.path().join("exported"));
    for made in [&outside, &target] {
        fs::create_dir(made).unwrap();
    }
    let backups = format!("\n[backup]\ntarget = \"{}\"\nkey = \"a key of a test\"\nevery = \"0s\"\n", target.display());
    let gateway = Gateway::start(&format!("{backups}{}", template("disk = \"1GiB\"")));
    gateway.exec("alice", "true").good();
    let (homes, home) = (gateway.state().join("homes"), gateway.home("alice"));
    furnish(&home, &outside);
    let before = see(&outside);
    let hers = see(&home);
    let good: serde_json::Value = serde_json::from_str(&command(&gateway, &["backup", "run", "alice", "--json"]).good()).unwrap();
    let good = format!("alice@{}", good["backups"][0]["id"].as_str().unwrap());
    let exported = file.to_str().unwrap();

    let hostile = Hostile::start(&homes);
    wait_for("places to change", || hostile.count() > 100);
    let began = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || began.elapsed() < AT_LEAST {
        rounds += 1;
        let swaps = hostile.count();
        // Read while it changes, and owned anew elsewhere.
        let made: serde_json::Value = serde_json::from_str(&command(&gateway, &["backup", "run", "alice", "--json"]).good()).unwrap();
        let raced = format!("alice@{}", made["backups"][0]["id"].as_str().unwrap());
        command(&gateway, &["workspace", "copy", "alice", "bob"]).good();
        command(&gateway, &["workspace", "export", "alice", "--to", exported]).good();
        command(&gateway, &["workspace", "import", "carol", "--from", exported]).good();
        command(&gateway, &["backup", "restore", &raced, "--to", "dave"]).good();
        for made in ["bob", "carol", "dave"] {
            assert_hers(&homes.join(made));
            command(&gateway, &["workspace", "delete", made, "--now"]).good();
        }
        fs::remove_file(&file).unwrap();
        // Put in place while she is at it, used, taken back, put in place again, and what was there removed under her hands.
        command(&gateway, &["backup", "restore", &good, "--in-place"]).good();
        gateway.exec("alice", "true").good();
        command(&gateway, &["backup", "revert", "alice"]).good();
        command(&gateway, &["backup", "restore", &good, "--in-place"]).good();
        command(&gateway, &["backup", "confirm", "alice"]).good();
        assert_same(&before, &see(&outside));
        assert!(hostile.count() > swaps + 1_000, "round {rounds} was hardly raced");
    }
    eprintln!("{rounds} rounds, {} swaps", hostile.count());
    drop(hostile);
    // Nothing is lost: each name is one of a pair.
    for (path, seen) in see(&home) {
        let is_file = seen.mode & 0o170_000 == 0o100_000;
        assert!(!is_file || seen.content == b"hers", "{}", path.display());
    }
    assert_eq!(see(&home).len(), hers.len());
    assert_hers(&home);
    assert_same(&before, &see(&outside));
}
