//! Workspaces: one container each, whatever arrives at once, whatever is done to it, and whoever else is on the engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use gateway::{Gateway, docker, run, wait_for};

#[test]
fn thirty_logins_at_once_share_one_new_container() {
    let gateway = Gateway::start("");
    std::thread::scope(|scope| {
        let logins: Vec<_> = (0..30).map(|_| scope.spawn(|| gateway.exec("alice", "hostname; cat /proc/self/cgroup"))).collect();
        let said: BTreeSet<String> = logins.into_iter().map(|login| login.join().unwrap().good()).collect();
        assert_eq!(said.len(), 1, "{said:?}");
    });
    assert_eq!(gateway.containers(), [(gateway.container("alice"), "running".to_owned())]);
    let names = docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", "label=innkeeper"]);
    assert_eq!(names.lines().filter(|name| name.contains(&gateway.instance)).count(), 1);
}

#[test]
fn what_is_done_to_a_container_from_outside_is_put_right_at_the_next_login() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "echo hers >file").good();
    let container = gateway.container("alice");
    for deed in [&["kill"][..], &["rm", "-f"], &["stop", "-t", "1"]] {
        let held = gateway.hold("alice", "echo up; sleep 300");
        let mut terminal = gateway.terminal("alice", "");
        terminal.expect("$ ");
        docker(&[deed, &[container.as_str()]].concat());
        let done = held.end();
        assert!(done.status.is_some_and(|status| status != 0), "{deed:?}: {done:?}");
        assert!(done.stderr.contains("your container ended"), "{deed:?}: {done:?}");
        let (status, seen) = terminal.end();
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(status.is_some_and(|status| status != 0) && seen.contains("your container ended"), "{deed:?}: {status:?} {seen}");
        assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "{deed:?}");
        assert_eq!(gateway.containers(), [(container.clone(), "running".to_owned())], "{deed:?}");
    }
    let mut held = gateway.hold("alice", "echo up; cat");
    docker(&["pause", &container]);
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "paused");
    held.send("still there\n");
    held.expect("still there\n");
    let network = gateway.inspect("alice", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}");
    docker(&["network", "disconnect", "-f", &network, &container]);
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "without its network");
}

#[test]
fn accounts_that_share_a_workspace_meet_in_one_container() {
    let gateway = Gateway::start("");
    for name in ["erin", "frank"] {
        gateway.add_account_with(name, &["--workspace", "acme"]);
    }
    let mut erin = gateway.hold("erin", "echo up; cat >board; echo written");
    erin.send("minutes");
    erin.close();
    erin.expect("written\n");
    assert_eq!(gateway.exec("frank", "sleep 0.1; pgrep -c -x sleep >/dev/null; cat board; ls -A").good(), "minutesboard\n");
    assert_eq!(gateway.containers(), [(gateway.container("acme"), "running".to_owned())]);
    assert_eq!(gateway.exec("alice", "ls -A").good(), "", "nobody else sees it");
}

#[test]
fn odd_account_names_get_workspaces_of_their_own_and_touch_nothing_else() {
    let gateway = Gateway::start("");
    // OpenSSH's client itself keeps the worse ones back.
    let odd = [
        "Alice",
        "ALICE",
        "a.b@example.org",
        "../../escape",
        "/etc/passwd",
        "..",
        ".",
        "a/b",
        "a b",
        "ünïcode",
        "a--b",
        "%h",
        "$HOME",
        "*",
    ];
    let long = "n".repeat(200);
    let names: Vec<&str> = odd.into_iter().chain([long.as_str()]).collect();
    for name in &names {
        gateway.add_account(name);
        let done = gateway.exec(name, "echo mine >file; ls -A; pwd");
        assert_eq!(done.good(), "file\n/home/user\n", "{name}");
    }
    let homes: Vec<String> =
        fs::read_dir(gateway.state().join("homes")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(homes.len(), names.len(), "{homes:?}");
    for home in &homes {
        let plain = home.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        assert!(plain && home.len() <= 32 && gateway.home(home).join("file").is_file(), "{home}");
    }
    let found = run(Command::new("find").arg(gateway.dir.path()).args([
        "-name",
        "file",
        "-not",
        "-path",
        "*/homes/*",
        "-not",
        "-path",
        "*/slots/*",
    ]));
    assert_eq!(found.good(), "", "a file outside of the homes");
    let top: BTreeSet<String> =
        fs::read_dir(gateway.dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(top, ["config.toml", "id", "id.pub", "known_hosts", "state"].map(str::to_owned).into());
    let too_long = run(gateway.ssh(&"n".repeat(10_000)).arg("true"));
    assert_eq!(too_long.status, Some(255));
    assert_eq!(gateway.exec("alice", "true").status, Some(0));
}

#[test]
fn two_gateways_on_one_engine_leave_each_others_containers_alone() {
    let one = Gateway::start("[pool]\nsize = 1\n");
    let mut other = Gateway::start("[pool]\nsize = 1\n");
    let mut session = other.hold("alice", "echo up; cat");
    one.exec("alice", "echo one >file").good();
    wait_for("both pools to be full", || one.pool() == 1 && other.pool() == 1);
    let theirs = other.containers();
    one.wait_sweeps(3);
    assert_eq!(other.containers(), theirs);
    assert_eq!(other.exec("alice", "ls -A").good(), "", "she is another alice");
    drop(one);
    session.send("still there\n");
    session.expect("still there\n");
    session.close();
    assert_eq!(session.end().status, Some(0));
    assert_eq!(other.containers(), theirs);
    other.stop();
}
