//! A gateway that is killed at any moment of a copy, a deletion, its undoing, an export or an import leaves each workspace whole or gone, and
//! nothing beside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/moments.rs"]
mod moments;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gateway::{Gateway, noise, run, template, wait_for};
use innkeeper::store::{Stage, Store};
use moments::Moments;
use serde_json::Value;

/// How often it is killed; more with `INNKEEPER_KILL_ROUNDS`.
const ROUNDS: u32 = 24;
/// How long more than half of that may take, unless it was said how often.
const AT_MOST: Duration = Duration::from_secs(60);

/// Everything of a tree that a person can tell apart: kind and mode, owner, and what is in it.
type Tree = BTreeMap<String, (u32, u32, Vec<u8>)>;

fn tree(root: &Path) -> Tree {
    let mut all = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match () {
                () if meta.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                () if meta.is_file() => fs::read(&path).unwrap(),
                () => Vec::new(),
            };
            if meta.is_dir() {
                open.push(path.clone());
            }
            all.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), (meta.mode(), meta.uid(), content));
        }
    }
    all
}

/// Fills a home that is not in use with a few hundred things.
fn fill(root: &Path, seed: u8) {
    for dir in 0..8 {
        let at = root.join(format!("{dir}"));
        fs::create_dir_all(&at).unwrap();
        for file in 0..40 {
            let mut content = noise(2000 + file * 300);
            content.push(seed);
            fs::write(at.join(format!("file-{file}")), content).unwrap();
        }
        std::os::unix::fs::symlink("file-1", at.join("link")).unwrap();
    }
    run(std::process::Command::new("chown").args(["-hR", "1000:1000"]).arg(root)).good();
}

fn stages(gateway: &Gateway) -> Vec<Stage> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Store::open(&gateway.state().join("innkeeper.db")).unwrap();
    runtime.block_on(store.passages()).unwrap().into_iter().map(|(_, passage)| passage.stage).collect()
}

fn deleted(gateway: &Gateway) -> BTreeMap<String, String> {
    let listed = run(gateway.innkeeper().args(["workspace", "list", "--deleted", "--json"])).good();
    let all: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.iter().map(|one| (text(&one["name"]), text(&one["state"]))).collect()
}

/// Names among homes, sorted, without what the driver keeps there.
fn entries(homes: &Path) -> Vec<String> {
    let all = fs::read_dir(homes).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<String> = all.filter(|name| !name.starts_with('.')).collect();
    all.sort();
    all
}

#[test]
fn killed_again_and_again_each_workspace_is_whole_or_gone() {
    let said = std::env::var("INNKEEPER_KILL_ROUNDS").ok().map(|rounds| rounds.parse::<u32>().unwrap());
    let mut gateway = Gateway::start(&template("disk = \"1GiB\""));
    let homes = gateway.state().join("homes");
    for (seed, account) in ["alice", "bob"].into_iter().enumerate() {
        gateway.exec(account, "true").good();
        fill(&gateway.home(account), seed as u8);
    }
    // A volume as well: what is of one workspace comes and goes together.
    fs::create_dir(homes.join("alice.data")).unwrap();
    fill(&homes.join("alice.data"), 9);
    let (alice, data, bob) = (tree(&homes.join("alice")), tree(&homes.join("alice.data")), tree(&homes.join("bob")));
    assert!(alice.len() > 300);
    let began = Instant::now();
    let (mut done, mut cut, mut rounds) = (0, 0, 0);
    let mut moments = [(); 4].map(|()| Moments::new(Duration::from_millis(500)));
    while rounds < said.unwrap_or(ROUNDS) && (said.is_some() || rounds < ROUNDS / 2 || began.elapsed() < AT_MOST) {
        rounds += 1;
        let kind = rounds % 4;
        let commands: &[&[&str]] = match kind {
            0 => &[&["copy", "alice", "carol"], &["delete", "carol"]],
            1 => &[&["copy", "alice", "carol"]],
            2 => &[&["delete", "alice"], &["undelete", "alice"]],
            _ => &[&["delete", "carol", "--now"], &["copy", "alice", "carol"]],
        };
        let (mut runs, commands): (Vec<_>, Vec<Vec<String>>) = (
            commands.iter().map(|_| gateway.innkeeper()).collect(),
            commands.iter().map(|command| command.iter().map(|word| (*word).to_owned()).collect()).collect(),
        );
        let client = std::thread::spawn(move || {
            let all = runs.iter_mut().zip(&commands);
            all.map(|(command, words)| run(command.arg("workspace").args(words)).status == Some(0)).collect::<Vec<_>>()
        });
        moments[kind as usize].wait(|| client.is_finished());
        gateway.kill();
        let ended = client.join().unwrap();
        done += ended.iter().filter(|ended| **ended).count();
        cut += ended.iter().filter(|ended| !**ended).count();
        gateway.up();
        // The gateway's own record: as long as anything else is in it, somebody is at it.
        wait_for("what was begun to be finished or undone", || stages(&gateway).iter().all(|stage| *stage == Stage::Deleted));
        wait_for("nothing to be left over", || entries(&homes).iter().all(|name| !name.starts_with(['+', '='])));
        let gone = deleted(&gateway);
        if gone.contains_key("alice") {
            assert_eq!(gateway.exec("alice", "true").status, Some(77), "deleted, and nobody is let in");
            assert!(!homes.join("alice").exists() && !homes.join("alice.data").exists(), "{:?}", entries(&homes));
            run(gateway.innkeeper().args(["workspace", "undelete", "alice"])).good();
        }
        if gone.contains_key("carol") {
            run(gateway.innkeeper().args(["workspace", "undelete", "carol"])).good();
        }
        assert!(tree(&homes.join("alice")) == alice, "round {rounds}: alice's home is not what it was");
        assert!(tree(&homes.join("alice.data")) == data, "round {rounds}: alice's volume is not what it was");
        assert!(tree(&homes.join("bob")) == bob, "round {rounds}: bob's home is not what it was");
        let mut expected = vec!["alice", "alice.data", "bob"];
        if homes.join("carol").exists() {
            assert!(tree(&homes.join("carol")) == alice && tree(&homes.join("carol.data")) == data, "round {rounds}: a copy that is none");
            expected.extend(["carol", "carol.data"]);
        }
        assert_eq!(entries(&homes), expected, "round {rounds}");
    }
    eprintln!("{rounds} rounds, {done} commands ended well, {cut} were cut short");
    assert!(done > 0 && cut > 0, "killed at other moments than during commands: {done}, {cut}");
    assert_eq!(gateway.exec("alice", "cat 0/link | wc -c; ls | wc -l").good(), "2301\n8\n");
    run(gateway.innkeeper().args(["workspace", "delete", "carol", "--now"])).status.unwrap();
    assert_eq!(gateway.exec("carol", "ls -A").text(), "", "a new home, and nothing of the old in it");
}

#[test]
fn killed_again_and_again_an_export_is_whole_or_none_and_an_import_too() {
    let said = std::env::var("INNKEEPER_KILL_ROUNDS").ok().map(|rounds| rounds.parse::<u32>().unwrap());
    let mut gateway = Gateway::start(&template("disk = \"1GiB\""));
    let homes = gateway.state().join("homes");
    gateway.exec("alice", "true").good();
    fill(&gateway.home("alice"), 1);
    fs::create_dir(homes.join("alice.data")).unwrap();
    fill(&homes.join("alice.data"), 9);
    let (alice, data) = (tree(&homes.join("alice")), tree(&homes.join("alice.data")));
    let files = tempfile::tempdir().unwrap();
    let (kept, new) = (files.path().join("kept"), files.path().join("new"));
    run(gateway.innkeeper().args(["workspace", "export", "alice", "--to"]).arg(&kept)).good();
    let began = Instant::now();
    let (mut done, mut cut, mut rounds) = (0, 0, 0);
    let mut moments = [(); 3].map(|()| Moments::new(Duration::from_millis(300)));
    while rounds < said.unwrap_or(ROUNDS) && (said.is_some() || rounds < ROUNDS / 2 || began.elapsed() < AT_MOST) {
        rounds += 1;
        let import = rounds % 3 != 0;
        // The one that sends it is killed instead: what it has sent so far is no workspace.
        let client_dies = rounds % 6 == 5;
        let mut command = gateway.innkeeper();
        match import {
            true => command.args(["workspace", "import", "carol", "--from"]).arg(&kept),
            false => command.args(["workspace", "export", "alice", "--to"]).arg(&new),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().unwrap();
        moments[rounds as usize % 3].wait(|| client.try_wait().unwrap().is_some());
        if client_dies {
            client.kill().unwrap();
        } else {
            gateway.kill();
        }
        let well = gateway::finish(client, gateway::DEADLINE).status == Some(0);
        if well {
            done += 1;
        } else {
            cut += 1;
        }
        if !client_dies {
            gateway.up();
        }
        let settled = || stages(&gateway).is_empty() && entries(&homes).iter().all(|name| !name.starts_with(['+', '=']));
        // What a client has asked for that was killed then may not even have begun.
        let quiet = if client_dies { Duration::from_secs(1) } else { Duration::ZERO };
        let mut since = Instant::now();
        wait_for("what was begun to be finished or undone, and nothing to be left over", || {
            let settled = settled();
            if !settled {
                since = Instant::now();
            }
            settled && since.elapsed() >= quiet
        });
        assert!(tree(&homes.join("alice")) == alice, "round {rounds}: alice's home is not what it was");
        assert!(tree(&homes.join("alice.data")) == data, "round {rounds}: alice's volume is not what it was");
        let mut expected = vec!["alice", "alice.data"];
        if homes.join("carol").exists() {
            assert!(import || !well, "round {rounds}");
            assert!(tree(&homes.join("carol")) == alice, "round {rounds}: an import that is none");
            assert!(tree(&homes.join("carol.data")) == data, "round {rounds}: an import without its volume");
            expected.extend(["carol", "carol.data"]);
        } else {
            assert!(!import || !well, "round {rounds}: it was said that it is there");
        }
        assert_eq!(entries(&homes), expected, "round {rounds}");
        if expected.len() > 2 {
            run(gateway.innkeeper().args(["workspace", "delete", "carol", "--now"])).good();
        }
        // A file that has its name is whole: the next import is of it.
        let named = fs::read_dir(files.path()).unwrap().count();
        if import {
            assert_eq!(named, 1, "round {rounds}");
        } else {
            assert_eq!(
                (named, new.exists()),
                if well { (2, true) } else { (1 + usize::from(new.exists()), new.exists()) },
                "round {rounds}"
            );
            if new.exists() {
                fs::rename(&new, &kept).unwrap();
            }
        }
    }
    eprintln!("{rounds} rounds, {done} ended well, {cut} were cut short");
    assert!(done > 0 && cut > 0, "killed at other moments than during them: {done}, {cut}");
    run(gateway.innkeeper().args(["workspace", "import", "carol", "--from"]).arg(&kept)).good();
    assert_eq!(gateway.exec("carol", "cat 0/link | wc -c; ls | wc -l").good(), "2301\n8\n");
}

#[test]
fn killed_again_and_again_a_snapshot_is_whole_or_none_and_so_is_a_home_that_starts_with_one() {
    let said = std::env::var("INNKEEPER_KILL_ROUNDS").ok().map(|rounds| rounds.parse::<u32>().unwrap());
    let volume = "\n[[template.default.volume]]\nname = \"data\"\npath = \"/data\"\ndisk = \"1GiB\"\n";
    let sections = |skeleton: &str, of_volume: &str| template(&format!("disk = \"1GiB\"\n{skeleton}\n{volume}{of_volume}"));
    let mut gateway = Gateway::start(&sections("", ""));
    let homes = gateway.state().join("homes");
    gateway.exec("alice", "true").good();
    fill(&homes.join("alice"), 1);
    fill(&homes.join("alice.data"), 9);
    let (alice, data) = (tree(&homes.join("alice")), tree(&homes.join("alice.data")));
    run(gateway.innkeeper().args(["workspace", "snapshot", "alice", "take", "base"])).good();
    gateway.stop();
    let skeleton = "skeleton = \"workspace:alice@base\"";
    gateway.configure(&sections(skeleton, skeleton));
    gateway.up();
    let began = Instant::now();
    let (mut done, mut cut, mut rounds) = (0, 0, 0);
    let mut moments = [(); 3].map(|()| Moments::new(Duration::from_millis(300)));
    while rounds < said.unwrap_or(ROUNDS) && (said.is_some() || rounds < ROUNDS / 2 || began.elapsed() < AT_MOST) {
        rounds += 1;
        let kind = rounds as usize % 3;
        let mut command = match kind {
            0 => gateway.ssh("carol"),
            _ => gateway.innkeeper(),
        };
        match kind {
            0 => command.arg("true"),
            1 => command.args(["workspace", "snapshot", "alice", "take", "other"]),
            _ => command.args(["workspace", "snapshot", "alice", "remove", "other"]),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().unwrap();
        moments[kind].wait(|| client.try_wait().unwrap().is_some());
        gateway.kill();
        if gateway::finish(client, gateway::DEADLINE).status == Some(0) {
            done += 1;
        } else {
            cut += 1;
        }
        gateway.up();
        let part = |name: &str| name.contains("@snapshot@other") && !homes.join("alice@snapshot@other").exists();
        wait_for("nothing to be left over", || entries(&homes).iter().all(|name| !name.starts_with(['+', '=']) && !part(name)));
        assert!(tree(&homes.join("alice")) == alice && tree(&homes.join("alice.data")) == data, "round {rounds}");
        for snapshot in ["base", "other"] {
            let (home, volume) = (homes.join(format!("alice@snapshot@{snapshot}")), homes.join(format!("alice.data@snapshot@{snapshot}")));
            if snapshot == "base" || home.exists() {
                assert!(tree(&home) == alice && tree(&volume) == data, "round {rounds}: the snapshot {snapshot} is not whole");
            }
        }
        for (name, whole) in [("carol", &alice), ("carol.data", &data)] {
            if homes.join(name).exists() {
                assert!(tree(&homes.join(name)) == *whole, "round {rounds}: {name} is a part of what it is to start with");
            }
        }
        if kind == 0 {
            run(gateway.innkeeper().args(["workspace", "delete", "carol", "--now"])).status.unwrap();
        }
    }
    eprintln!("{rounds} rounds, {done} ended well, {cut} were cut short");
    assert!(done > 0 && cut > 0, "killed at other moments than during them: {done}, {cut}");
    assert_eq!(gateway.exec("carol", "cat 0/link | wc -c; ls | wc -l; ls /data | wc -l").good(), "2301\n8\n8\n");
}
