//! An init that is not what it should be, and people who get at the real one: neither is anybody's trouble but their own container's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fault::{Holdings, holdings, pause};
use gateway::{Done, Gateway, docker, finish, wait_for};

/// How long somebody else's command may take at any time. It takes a fraction of a second; test machines are busy.
const OTHERS: Duration = Duration::from_secs(4);

/// Memory in KiB, and descriptors, that may be in use afterwards and were not before.
const MEMORY: u64 = 24 * 1024;
const DESCRIPTORS: usize = 4;

/// Where a container's init is on the host.
fn init_of(gateway: &Gateway, account: &str) -> PathBuf {
    let format = "{{range .Mounts}}{{if eq .Destination \"/.innkeeper\"}}{{.Source}}{{end}}{{end}}";
    PathBuf::from(gateway.inspect(account, format)).join("innkeeper-init")
}

/// Somebody else is served, and soon.
#[track_caller]
fn others_are_served(gateway: &Gateway, while_what: &str) {
    let since = Instant::now();
    assert_eq!(gateway.exec("bob", "echo here").good(), "here\n", "while {while_what}");
    assert!(since.elapsed() < OTHERS, "{:?} while {while_what}", since.elapsed());
}

#[track_caller]
fn nothing_stays(gateway: &Gateway, before: Holdings, of_what: &str) {
    let mut now = holdings(gateway.pid());
    for _ in 0..100 {
        if now.memory <= before.memory + MEMORY && now.descriptors <= before.descriptors + DESCRIPTORS {
            return;
        }
        pause(100);
        now = holdings(gateway.pid());
    }
    panic!("after {of_what}: {before:?} became {now:?}");
}

fn begin(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Ends a client that may be waiting for what never comes.
fn end(mut child: Child) -> Option<Done> {
    if child.try_wait().unwrap().is_none() {
        child.kill().unwrap();
    }
    Some(finish(child, Duration::from_secs(5)))
}

#[test]
fn no_init_is_anybodys_trouble_but_its_own_containers() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    gateway.exec("bob", "true").good();
    let container = gateway.inspect("alice", "{{.Id}}");
    let program = init_of(&gateway, "alice");
    docker(&["kill", &gateway.container("alice")]);
    wait_for("it to be dead", || gateway.container_state("alice") == "exited");
    fs::remove_file(&program).unwrap();
    fs::write(&program, include_str!("common/liar.py")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let set = |mode: &str| fs::write(gateway.home("alice").join("mode"), mode).unwrap();
    set("few");
    assert_ne!(gateway.exec("alice", "true").status, Some(0), "it is the liar now");
    others_are_served(&gateway, "it comes up");
    let before = holdings(gateway.pid());
    let descriptors = [
        "file",
        "directory",
        "whole",
        "terminal",
        "netlink",
        "datagrams",
        "event",
        "wrong-ends",
        "named",
        "lingering",
        "lingering-inside",
        "none",
        "few",
        "many",
    ];
    let words = [
        "half",
        "close",
        "garbage",
        "deep",
        "long-list",
        "oversized",
        "no-pipes-but-a-tale",
        "twice",
        "never-ends",
        "exits-alone",
        "silent",
        "blocks",
        "flows",
        "news",
        "much-news",
        "strangers-call",
        "unasked",
        "hello-again",
    ];
    for mode in descriptors.into_iter().chain(words) {
        set(mode);
        let said = gateway.log().len();
        let mut clients = vec![begin(gateway.ssh("alice").arg("true"))];
        if descriptors.contains(&mode) {
            clients.push(begin(gateway.ssh("alice").args(["-tt", "true"])));
        }
        pause(200);
        for _ in 0..3 {
            others_are_served(&gateway, mode);
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline && clients.iter_mut().any(|client| client.try_wait().unwrap().is_none()) {
            pause(50);
        }
        let ends: Vec<_> = clients.into_iter().map(|client| end(client).unwrap()).collect();
        if descriptors.contains(&mode) && mode != "wrong-ends" && mode != "named" {
            assert!(ends.iter().all(|end| end.status.is_some_and(|status| status != 0)), "{mode}: {ends:?}");
            let log = gateway.log();
            let lines: Vec<_> =
                log.get(said..).unwrap_or_default().lines().filter(|line| line.contains("alice") || line.contains(&container)).collect();
            assert!(lines.iter().any(|line| line.contains("init")), "{mode}: {lines:#?}");
        }
        nothing_stays(&gateway, before, mode);
    }
    let lines = gateway.log().lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\"")).count();
    assert!(lines < 300, "{lines} lines of log");
    // One that is newer than its gateway is no liar.
    set("newer");
    let (first, said) = (gateway.inspect("alice", "{{.State.Pid}}"), gateway.log().len());
    docker(&["kill", &gateway.container("alice")]);
    // Somebody who was still waiting for the one before may have it started again at once.
    wait_for("it to be dead", || gateway.inspect("alice", "{{.State.Pid}}") != first);
    for _ in 0..6 {
        let done = gateway.exec("alice", "true");
        assert_eq!((done.text().as_str(), done.status), ("served\n", Some(3)), "{done:?}");
    }
    let log = gateway.log();
    let told = |what: &str| log[said..].lines().filter(|line| line.contains(what) && line.contains(&container)).count();
    assert!((1..=2).contains(&told("newer than this gateway")), "once a conversation: {}", &log[said..]);
    assert_eq!(told("does not keep to the protocol"), 0, "{}", &log[said..]);
    nothing_stays(&gateway, before, "newer");
    // She gets a real one, and all is well.
    fs::remove_file(&program).unwrap();
    fs::copy(init_of(&gateway, "bob"), &program).unwrap();
    docker(&["kill", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", "echo mended").good(), "mended\n");
}
