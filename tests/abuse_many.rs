//! Many sessions, one after another and at once: nothing of them is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::process::{Command, Stdio};

use fault::{Holdings, holdings};
use gateway::{Gateway, run, wait_for};

/// What the gateway holds once nobody is connected.
fn settled(gateway: &Gateway) -> Holdings {
    let metrics = || gateway.get("/metrics").1;
    let busy = |line: &str| {
        (line.starts_with("innkeeper_connections_open") || line.starts_with("innkeeper_sessions_open")) && !line.ends_with(" 0")
    };
    wait_for("everybody to be gone", || !metrics().lines().any(busy));
    holdings(gateway.pid())
}

/// What runs in a container, but for its first process and the one launcher that waits for the next session.
fn processes(gateway: &Gateway, account: &str) -> Vec<String> {
    let top = run(Command::new("docker").args(["top", &gateway.container(account), "-o", "pid,args"])).good();
    let own = |line: &&str| !line.contains("/.innkeeper/innkeeper-init");
    let (launchers, others): (Vec<_>, Vec<_>) = top.lines().skip(1).filter(own).partition(|line| line.ends_with(" innkeeper-launch"));
    launchers.into_iter().skip(1).chain(others).map(str::to_owned).collect()
}

#[test]
fn three_hundred_sessions_leave_nothing() {
    let gateway = Gateway::start("");
    // The first ones make what stays: connections to nowhere, threads, caches.
    for _ in 0..20 {
        gateway.exec("alice", "true").good();
    }
    let before = settled(&gateway);
    // Connections of their own, and many on one; some end by themselves, some are cut, some have a terminal.
    let control = gateway.dir.path().join("control");
    let path = format!("ControlPath={}", control.display());
    let mut master = gateway.ssh("alice");
    master.args(["-o", &path, "-o", "ControlMaster=yes", "-N"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut master = master.spawn().unwrap();
    wait_for("the shared connection", || control.exists());
    std::thread::scope(|scope| {
        for part in 0..3 {
            let (gateway, path) = (&gateway, &path);
            scope.spawn(move || (0..100).for_each(|nth| one(gateway, path, part * 100 + nth)));
        }
    });
    master.kill().unwrap();
    master.wait().unwrap();
    let mut after = settled(&gateway);
    wait_for("descriptors to be given back", || {
        after = settled(&gateway);
        // Threads that wait for the disk go when they had nothing to do for ten seconds.
        after.descriptors <= before.descriptors + 3 && after.threads <= before.threads + 8
    });
    assert!(after.memory <= before.memory + 16 * 1024, "{before:?} {after:?}");
    wait_for("nothing to be left in the container", || processes(&gateway, "alice").is_empty());
}

/// One session: on the shared connection or one of its own, at a terminal or not.
fn one(gateway: &Gateway, path: &str, nth: i32) {
    let mut ssh = gateway.ssh("alice");
    if nth % 3 != 0 {
        ssh.args(["-o", path]);
    }
    if nth % 10 == 0 {
        ssh.arg("-tt");
    }
    let done = run(ssh.arg(format!("exit {}", nth % 7)));
    assert_eq!(done.status, Some(nth % 7), "{done:?}");
}

#[test]
fn a_hundred_at_once_leave_nothing() {
    // However long it takes: two processors may have to do all of it for both sides.
    let gateway = Gateway::start("\n[ssh]\nmax_startups = \"200:30:300\"\nmax_startups_per_source = 200\nlogin_grace = \"150s\"\n");
    gateway.exec("alice", "true").good();
    let before = settled(&gateway);
    let children: Vec<_> = (0..100)
        .map(|nth| {
            let account = ["alice", "bob"][nth % 2];
            let mut ssh = Command::new("ssh");
            // OpenSSH takes the first word of two.
            ssh.args(["-o", "ConnectTimeout=150"]).args(gateway.ssh(account).get_args());
            // Every fifth is cut instead of ending.
            ssh.arg(if nth % 5 == 4 { "exec sleep 1000" } else { "sleep 1; echo done" });
            (nth, ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    let (cut, ending): (Vec<_>, Vec<_>) = children.into_iter().partition(|(nth, _)| nth % 5 == 4);
    for (_, child) in ending {
        let done = gateway::finish(child, 3 * gateway::DEADLINE);
        assert_eq!(done.text(), "done\n", "{done:?}");
    }
    for (_, mut child) in cut {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut after = settled(&gateway);
    wait_for("descriptors to be given back", || {
        after = settled(&gateway);
        after.descriptors <= before.descriptors + 3
    });
    assert!(after.memory <= before.memory + 48 * 1024, "{before:?} {after:?}");
    for account in ["alice", "bob"] {
        wait_for("nothing to be left in the containers", || processes(&gateway, account).is_empty());
    }
    assert_eq!(gateway.containers().len(), 2, "one each");
    assert_eq!(gateway.metric("innkeeper_panics_total"), Some(0.0));
}
