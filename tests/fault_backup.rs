//! A gateway that is killed at any moment of a backup or a restore leaves each home whole, and each backup that it has spoken of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/moments.rs"]
mod moments;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup::{look, noise};
use gateway::{Done, Gateway, finish, run, template, wait_for};
use innkeeper::store::Store;
use moments::Moments;
use serde_json::Value;

/// How often it is killed; more with `INNKEEPER_KILL_ROUNDS`.
const ROUNDS: u32 = 24;
/// How long more than half of that may take, unless it was said how often.
const AT_MOST: Duration = Duration::from_secs(120);

/// Fills a home that is not in use with a few hundred things, those of one seed all different from those of another.
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

fn entries(homes: &Path) -> Vec<String> {
    let all = fs::read_dir(homes).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<String> = all.filter(|name| !name.starts_with('.')).collect();
    all.sort();
    all
}

/// How long a backup may take: on a busy machine it gets a tenth of what others do.
const PATIENCE: Duration = Duration::from_secs(300);

fn command(gateway: &Gateway, arguments: &[&str]) -> Done {
    let mut command = gateway.innkeeper();
    command.arg("backup").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), PATIENCE)
}

fn ids(gateway: &Gateway) -> (BTreeSet<String>, bool) {
    let listed: Value = serde_json::from_str(&command(gateway, &["list", "--json"]).good()).unwrap();
    let ids = listed["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap().to_owned()).collect();
    (ids, !listed["unconfirmed"].as_array().unwrap().is_empty())
}

#[test]
fn killed_again_and_again_each_home_is_whole_and_so_is_each_backup() {
    let said = std::env::var("INNKEEPER_KILL_ROUNDS").ok().map(|rounds| rounds.parse::<u32>().unwrap());
    let target = tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap();
    let target = target.path().display();
    let backups = format!("\n[backup]\ntarget = \"{target}\"\nkey = \"a key of a test\"\nevery = \"0s\"\n");
    let mut gateway = Gateway::start(&format!("{backups}{}", template("disk = \"1GiB\"")));
    let homes = gateway.state().join("homes");
    let (home, volume) = (homes.join("alice"), homes.join("alice.data"));
    gateway.exec("alice", "true").good();
    fs::create_dir(&volume).unwrap();
    fill(&home, 1);
    fill(&volume, 2);
    let old = (look(&home), look(&volume));
    let made: Value = serde_json::from_str(&command(&gateway, &["run", "alice", "--json"]).good()).unwrap();
    let first = made[0]["id"].as_str().unwrap().to_owned();
    fill(&home, 3);
    fill(&volume, 4);
    fs::remove_dir_all(home.join("5")).unwrap();
    let new = (look(&home), look(&volume));
    assert!(old.0.len() > 200 && old != new);

    let which = format!("alice@{first}");
    let kinds: [&[&str]; 4] =
        [&["verify"], &["run", "alice", "--json"], &["restore", &which, "--to", "carol"], &["restore", &which, "--in-place"]];
    let mut moments = kinds.map(|arguments| {
        let began = Instant::now();
        command(&gateway, arguments).good();
        Moments::new(began.elapsed())
    });
    command(&gateway, &["revert", "alice"]).good();
    run(gateway.innkeeper().args(["workspace", "delete", "carol", "--now"])).good();
    assert!((look(&home), look(&volume)) == new);

    let began = Instant::now();
    let (mut done, mut cut, mut rounds, mut swapped) = (0, 0, 0_u32, 0);
    let mut known = BTreeSet::from([first.clone()]);
    while rounds < said.unwrap_or(ROUNDS) && (said.is_some() || rounds < ROUNDS / 2 || began.elapsed() < AT_MOST) {
        rounds += 1;
        let kind = [0, 1, 2, 3, 1, 3][rounds as usize % 6];
        let arguments = kinds[kind];
        let mut client = gateway.innkeeper();
        client.arg("backup").args(arguments);
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let client = std::thread::spawn(move || finish(client.spawn().unwrap(), PATIENCE));
        moments[kind].wait(|| client.is_finished());
        gateway.kill();
        let ended = client.join().unwrap();
        if ended.status == Some(0) {
            done += 1;
            if arguments[0] == "run" {
                let made: Value = serde_json::from_str(&ended.text()).unwrap();
                known.insert(made[0]["id"].as_str().unwrap().to_owned());
            }
        } else {
            cut += 1;
        }
        gateway.up();
        wait_for("what was begun to be finished or undone", || passing(&gateway) == 0);
        wait_for("nothing to be left over", || entries(&homes).iter().all(|name| !name.starts_with(['+', '='])));
        let (listed, unconfirmed) = ids(&gateway);
        assert!(listed.is_superset(&known), "round {rounds}: a backup that was made is gone");
        known = listed;
        let verified = command(&gateway, &["verify"]);
        assert_eq!(verified.status, Some(0), "round {rounds}: {verified:?}");
        let now = (look(&home), look(&volume));
        assert!(now == *if unconfirmed { &old } else { &new }, "round {rounds}: alice is neither what she was nor what she had");
        if unconfirmed {
            swapped += 1;
            command(&gateway, &["revert", "alice"]).good();
            assert!((look(&home), look(&volume)) == new, "round {rounds}: what was kept is not what it was");
        }
        if homes.join("carol").exists() {
            assert!((look(&homes.join("carol")), look(&homes.join("carol.data"))) == old, "round {rounds}: a restore that is none");
            run(gateway.innkeeper().args(["workspace", "delete", "carol", "--now"])).good();
        }
        let left: Vec<String> = entries(&homes).into_iter().filter(|name| !name.contains("@deleted@")).collect();
        assert_eq!(left, ["alice", "alice.data"], "round {rounds}");
    }
    eprintln!(
        "{rounds} rounds, {done} commands ended well, {cut} were cut short, {swapped} times restored in place, {} backups",
        known.len()
    );
    assert!(done > 0 && cut > 0, "killed at other moments than during commands: {done}, {cut}");
    // Every backup is what alice was or had when it was made.
    for (number, id) in known.iter().enumerate().step_by(known.len().div_ceil(4)) {
        let to = format!("check{number}");
        command(&gateway, &["restore", &format!("alice@{id}"), "--to", &to]).good();
        let is = (look(&homes.join(&to)), look(&homes.join(format!("{to}.data"))));
        assert!(is == old || is == new, "backup {id}");
    }
    assert_eq!(gateway.exec("alice", "ls | wc -l").good(), "6\n");
}
