//! A gateway that is killed at any moment of a backup, a restore or a deletion of backups leaves each home whole, and each backup that it has
//! spoken of: into a directory and a bucket, of homes of several kinds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/filesystem.rs"]
mod filesystem;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/moments.rs"]
mod moments;
#[path = "common/s3.rs"]
mod s3;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup::{Entry, look, noise, text};
use filesystem::FileSystem;
use gateway::{Done, Gateway, finish, mounts_below, run, template, wait_for};
use innkeeper::store::Store;
use moments::{Moments, Rounds};
use s3::Server;
use serde_json::Value;

/// How often it is killed in each of these tests; more with `INNKEEPER_KILL_ROUNDS`.
const ROUNDS: u32 = 21;
/// How long more than half of that may take, unless it was said how often.
const AT_MOST: Duration = Duration::from_secs(60);
/// How long a backup may take: on a busy machine it gets a tenth of what others do.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is to be seen of a home and of its volume.
type Trees = [BTreeMap<PathBuf, Entry>; 2];

/// How homes are kept, and where backups go.
struct Ground {
    driver: &'static str,
    /// What the homes are on, where that is not the state directory.
    disk: Option<FileSystem>,
    target: tempfile::TempDir,
    /// What backups go to instead of that directory.
    server: Option<Server>,
}

impl Ground {
    fn new(driver: &'static str) -> Self {
        let target = tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap();
        Self { driver, disk: None, target, server: None }
    }

    /// With homes on a file system of this kind.
    fn on(driver: &'static str, kind: &str) -> Option<Self> {
        let disk = FileSystem::make(kind, 4 << 30, "").ok()?;
        Some(Self { disk: Some(disk), ..Self::new(driver) })
    }

    fn sections(&self) -> String {
        let (target, s3) = match &self.server {
            Some(server) => ("s3://homes/of/innkeeper".to_owned(), server.section("backup")),
            None => (text(self.target.path()), String::new()),
        };
        let root = self.disk.as_ref().map(|disk| format!("root = \"{}\"\n", disk.path().join("homes").display()));
        format!(
            "\n[backup]\ntarget = \"{target}\"\nkey = \"a key of a test\"\nevery = \"0s\"\n{s3}\n[home]\ndriver = \"{}\"\n{}{}{VOLUME}",
            self.driver,
            root.unwrap_or_default(),
            template("disk = \"128MiB\""),
        )
    }

    fn homes(&self, gateway: &Gateway) -> Homes {
        let root = self.disk.as_ref().map_or_else(|| gateway.state().join("homes"), |disk| disk.path().join("homes"));
        Homes { root: root.canonicalize().unwrap(), are_images: self.driver == "loop" }
    }
}

const VOLUME: &str = "[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"128MiB\"\n";

/// The homes of a gateway.
struct Homes {
    root: PathBuf,
    are_images: bool,
}

impl Homes {
    /// Where a home can be written to that is in use, and its volume.
    fn in_use(&self, of: &str) -> [PathBuf; 2] {
        let root = if self.are_images { self.root.join(".mounts") } else { self.root.clone() };
        [root.join(of), root.join(format!("{of}.data"))]
    }

    /// What is in a home that is not in use, and in its volume.
    fn look(&self, of: &str) -> Trees {
        [self.root.join(of), self.root.join(format!("{of}.data"))]
            .map(|entry| if entry.is_file() { look(&FileSystem::copied_from(&entry).path()) } else { look(&entry) })
    }

    /// Waits until nothing is left that is nobody's, and no home is reachable that nobody uses.
    fn settle(&self) {
        // One image is made ahead of the next home.
        let ahead = usize::from(self.are_images);
        wait_for("nothing to be left over", || {
            let left: Vec<String> = self.entries().into_iter().filter(|name| name.starts_with(['+', '=', '~'])).collect();
            left.len() <= ahead && left.iter().all(|name| name.starts_with('+'))
        });
        let mounts = self.root.join(".mounts");
        wait_for("homes to rest", || !self.are_images || mounts_below(&mounts) == 0);
        let marks = fs::read_dir(&mounts).into_iter().flatten().filter(|entry| entry.as_ref().unwrap().path().extension().is_some());
        assert!(marks.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".frozen")).count() == 0);
        let at = |device: &fs::DirEntry| fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default();
        let devices = || {
            fs::read_dir("/sys/block").unwrap().filter(|device| Path::new(&at(device.as_ref().unwrap())).starts_with(&self.root)).count()
        };
        wait_for("their devices to be let go of", || devices() == 0);
    }

    fn entries(&self) -> Vec<String> {
        let all = fs::read_dir(&self.root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<String> = all.filter(|name| !name.starts_with('.')).collect();
        all.sort();
        all
    }
}

/// Fills a home with a few hundred things, those of one seed all different from those of another.
fn fill(root: &Path, seed: u64) {
    for dir in 0..6 {
        let at = root.join(format!("{dir}"));
        fs::create_dir_all(&at).unwrap();
        for file in 0..40_u64 {
            fs::write(at.join(format!("file-{file}")), noise(2000 + usize::try_from(file).unwrap() * 300, seed * 1000 + dir * 40 + file))
                .unwrap();
        }
    }
    fs::write(root.join("large"), noise(12 << 20, seed)).unwrap();
    run(std::process::Command::new("chown").args(["-hR", "1000:1000"]).arg(root)).good();
}

/// How many workspaces are on their way.
fn passing(gateway: &Gateway) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Store::open(&gateway.state().join("innkeeper.db")).unwrap();
    runtime.block_on(store.passages()).unwrap().len()
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Done {
    let mut command = gateway.innkeeper();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), PATIENCE)
}

/// The backup that a command has said it made.
fn id_of(made: &Done) -> String {
    let made: Value = serde_json::from_str(&made.text()).unwrap();
    made["backups"][0]["id"].as_str().unwrap().to_owned()
}

/// Alice's backups, and whether there is one to be confirmed.
fn backups(gateway: &Gateway) -> (BTreeSet<String>, bool) {
    let listed: Value = serde_json::from_str(&command(gateway, &["backup", "list", "--json"]).good()).unwrap();
    let hers = listed["backups"].as_array().unwrap().iter().filter(|backup| backup["workspace"] == "alice");
    let ids = hers.map(|backup| backup["id"].as_str().unwrap().to_owned()).collect();
    (ids, !listed["unconfirmed"].as_array().unwrap().is_empty())
}

/// Dave, who has what alice has and something besides, of which there is a backup.
fn have_dave(gateway: &Gateway, homes: &Homes) {
    if !homes.entries().iter().any(|name| name == "dave") {
        command(gateway, &["workspace", "copy", "alice", "dave"]).good();
    }
    gateway.exec("dave", "head -c 4M /dev/urandom > besides").good();
    command(gateway, &["backup", "run", "dave"]).good();
}

/// Kills the gateway again and again while it works on backups.
fn killed_again_and_again(ground: &Ground) {
    let mut gateway = Gateway::start(&ground.sections());
    let homes = ground.homes(&gateway);
    gateway.exec("alice", "true").good();
    let [home, volume] = homes.in_use("alice");
    fill(&home, 1);
    fill(&volume, 2);
    let old = [look(&home), look(&volume)];
    let first = id_of(&command(&gateway, &["backup", "run", "alice", "--json"]));
    fill(&home, 3);
    fill(&volume, 4);
    fs::remove_dir_all(home.join("5")).unwrap();
    let new = [look(&home), look(&volume)];
    assert!(old[0].len() > 200 && old != new);

    let which = format!("alice@{first}");
    let kinds: [&[&str]; 5] = [
        &["backup", "verify"],
        &["backup", "run", "alice", "--json"],
        &["backup", "restore", &which, "--to", "carol"],
        &["backup", "restore", &which, "--in-place"],
        &["workspace", "delete", "dave", "--now", "--backups"],
    ];
    have_dave(&gateway, &homes);
    let mut moments = kinds.map(|arguments| {
        let began = Instant::now();
        command(&gateway, arguments).good();
        Moments::new(began.elapsed())
    });
    command(&gateway, &["backup", "revert", "alice"]).good();
    command(&gateway, &["workspace", "delete", "carol", "--now"]).good();
    homes.settle();
    assert!(homes.look("alice") == new);

    let (mut done, mut cut, mut rounds, mut swapped) = (0, 0, 0, 0);
    let mut known = backups(&gateway).0;
    assert!(known.contains(&first));
    for round in Rounds::new(ROUNDS, AT_MOST) {
        rounds = round;
        let kind = [0, 1, 2, 3, 4, 1, 3][round as usize % 7];
        let arguments = kinds[kind];
        if arguments.contains(&"dave") {
            have_dave(&gateway, &homes);
        }
        let mut client = gateway.innkeeper();
        client.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let client = std::thread::spawn(move || finish(client.spawn().unwrap(), PATIENCE));
        moments[kind].wait(|| client.is_finished());
        gateway.kill();
        let ended = client.join().unwrap();
        if ended.status == Some(0) {
            done += 1;
            if arguments[1] == "run" {
                known.insert(id_of(&ended));
            }
        } else {
            cut += 1;
        }
        gateway.up();
        wait_for("what was begun to be finished or undone", || passing(&gateway) == 0);
        if homes.entries().iter().any(|name| name == "dave") {
            command(&gateway, &["workspace", "delete", "dave", "--now", "--backups"]).good();
        }
        homes.settle();
        let (listed, unconfirmed) = backups(&gateway);
        assert!(listed.is_superset(&known), "round {round}: a backup that was made is gone");
        known = listed;
        let verified = command(&gateway, &["backup", "verify"]);
        assert_eq!(verified.status, Some(0), "round {round}, {arguments:?}: {verified:?}");
        let expected = if unconfirmed { &old } else { &new };
        assert!(homes.look("alice") == *expected, "round {round}, {arguments:?}: alice is neither what she was nor what she had");
        if unconfirmed {
            swapped += 1;
            command(&gateway, &["backup", "revert", "alice"]).good();
            assert!(homes.look("alice") == new, "round {round}: what was kept is not what it was");
        }
        if homes.entries().iter().any(|name| name == "carol") {
            assert!(homes.look("carol") == old, "round {round}: a restore that is none");
            command(&gateway, &["workspace", "delete", "carol", "--now"]).good();
        }
        let left: Vec<String> = homes.entries().into_iter().filter(|name| !name.contains("@deleted@") && !name.starts_with('+')).collect();
        assert_eq!(left, ["alice", "alice.data"], "round {round}");
    }
    eprintln!(
        "{rounds} rounds, {done} commands ended well, {cut} were cut short, {swapped} times restored in place, {} backups",
        known.len()
    );
    assert!(done > 0 && cut > 0, "killed at other moments than during commands: {done}, {cut}");
    // Every backup is what alice was or had when it was made.
    for (number, id) in known.iter().enumerate().step_by(known.len().div_ceil(4)) {
        let to = format!("check{number}");
        command(&gateway, &["backup", "restore", &format!("alice@{id}"), "--to", &to]).good();
        homes.settle();
        let is = homes.look(&to);
        assert!(is == old || is == new, "backup {id}");
    }
    assert_eq!(gateway.exec("alice", "ls | wc -l").good(), "6\n");
}

#[test]
fn killed_again_and_again_each_home_is_whole_and_so_is_each_backup() {
    killed_again_and_again(&Ground::new("directory"));
}

#[test]
fn killed_again_and_again_each_backup_in_a_bucket_is_whole() {
    let server = Server::start();
    server.make_bucket("homes");
    killed_again_and_again(&Ground { server: Some(server), ..Ground::new("directory") });
}

#[test]
fn killed_again_and_again_each_image_is_whole() {
    killed_again_and_again(&Ground::new("loop"));
}

#[test]
fn killed_again_and_again_each_image_of_which_there_are_snapshots_is_whole() {
    // Where images share their blocks they are frozen for a moment, which a kill must not leave them.
    killed_again_and_again(&Ground::on("loop", "btrfs").unwrap());
}

#[test]
fn killed_again_and_again_each_subvolume_is_whole() {
    killed_again_and_again(&Ground::on("btrfs", "btrfs").unwrap());
}
