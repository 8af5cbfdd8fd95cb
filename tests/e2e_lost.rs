//! What becomes of sessions when one of the ends is lost: the client, the container, or the gateway in between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/forward.rs"]
mod forward;
#[path = "common/gateway.rs"]
mod gateway;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use forward::{Listening, connect, echo_inside, local};
use gateway::{Gateway, docker, run, signal, wait_for};

#[test]
fn a_container_that_is_killed_ends_what_is_in_it_with_words() {
    let gateway = Gateway::start("");
    let (_inside, ports) = echo_inside(&gateway, &["127.0.0.1"]);
    let mut program = gateway.hold("alice", "echo up; cat");
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("$ ");
    let mut ssh = gateway.ssh("alice");
    let mut client = Listening::start(&gateway, ssh.args(local(&gateway, "near", &format!("127.0.0.1:{}", ports[0]))).arg("-N"), &["near"]);
    let mut stream = connect(&gateway, "near");
    let mut greeting = [0; 10];
    stream.read_exact(&mut greeting).unwrap();
    program.send("hello\n");
    program.expect("hello\n");

    docker(&["kill", &gateway.container("alice")]);
    let done = program.end();
    assert!(done.stderr.contains("your container ended") && done.status == Some(75), "{done:?}");
    terminal.expect("your container ended");
    assert_eq!(terminal.end().0, Some(75));
    assert_eq!(stream.read(&mut greeting).unwrap(), 0, "the forward ends");
    assert!(client.is_there(), "and the connection that it was on does not");
    assert_eq!(gateway.exec("alice", "echo back").good(), "back\n");
}

#[test]
fn a_client_that_is_killed_is_noticed_within_two_keepalives() {
    let gateway = Gateway::start("[ssh]\nkeepalive_interval = \"3s\"\nkeepalive_max = 2\n");
    let told = gateway.home("alice").join("told");
    let line = "trap 'touch ~/told; exit' HUP; echo up; while :; do sleep 0.2; done";
    // Its kernel says so at once; one that is only silent is asked twice.
    for (name, within) in [("KILL", 6), ("STOP", 12)] {
        let client = gateway.hold("alice", line);
        let since = Instant::now();
        signal(client.pid(), name);
        wait_for("its process to be told", || told.exists());
        // A slow machine adds to it what two of its own keepalives would be.
        assert!(since.elapsed() < Duration::from_secs(within + 6), "{name}: {:?}", since.elapsed());
        std::fs::remove_file(&told).unwrap();
        gateway.wait_metric("innkeeper_connections_open{stage=\"open\"}", |open| open == 0.0);
    }
}

#[test]
fn a_gateway_that_is_killed_under_load_leaves_jobs_alone_and_lets_people_in_again() {
    let mut gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    gateway.exec("bob", "true").good();
    // No terminal, no nohup, nothing that would detach it; and one that also writes to who listens.
    let job = gateway.hold("alice", "echo $$ >pid; echo up; for i in $(seq 3000); do date +%s%N >>file; sleep 0.2; done");
    let loud = gateway.hold("bob", "echo $$ >pid; echo up; for i in $(seq 3000); do date +%s%N | tee -a file; sleep 0.2; done");
    let started = gateway.inspect("alice", "{{.State.StartedAt}}");
    let file = |account: &str| gateway.home(account).join("file");
    let files = [("alice", file("alice")), ("bob", file("bob"))];
    let over = AtomicBool::new(false);
    let ssh: Vec<_> = (0..2).map(|_| gateway.ssh("carol")).collect();
    std::thread::scope(|scope| {
        // Others come and go when it happens.
        for mut ssh in ssh {
            let over = &over;
            scope.spawn(move || {
                ssh.arg("head -c 1000000 /dev/zero");
                while !over.load(Ordering::Relaxed) {
                    run(&mut ssh);
                }
            });
        }
        wait_for("the load", || gateway.container_state("carol") == "running");
        signal(gateway.pid(), "KILL");
        over.store(true, Ordering::Relaxed);
    });
    gateway.kill();
    for held in [job, loud] {
        assert_eq!(held.end().status, Some(255), "their clients see the connection end");
    }
    let still_grow = || {
        for (account, file) in &files {
            let length = || std::fs::metadata(file).unwrap().len();
            let before = length();
            wait_for(&format!("the job of {account} to go on"), || length() > before + 40);
        }
    };
    still_grow();
    let since = Instant::now();
    gateway.up();
    assert_eq!(gateway.exec("dave", "echo in").good(), "in\n");
    assert!(since.elapsed() < Duration::from_secs(50), "new logins work: {:?}", since.elapsed());
    for account in ["alice", "bob"] {
        assert_eq!(gateway.exec(account, "kill -0 $(cat pid) && echo there").good(), "there\n", "{account}");
    }
    still_grow();
    assert_eq!(gateway.inspect("alice", "{{.State.StartedAt}}"), started, "her container was not touched");
}

#[test]
fn a_gateway_that_is_stopped_leaves_jobs_alone() {
    let mut gateway = Gateway::start("[ssh]\ndrain_timeout = \"1s\"\n");
    let job = gateway.hold("alice", "echo $$ >pid; echo up; for i in $(seq 3000); do date +%s%N | tee -a file; sleep 0.2; done");
    let closed = gateway.hold("bob", "trap 'touch told; exit' HUP; echo up; while :; do sleep 0.2; done");
    let length = || std::fs::metadata(gateway.home("alice").join("file")).unwrap().len();
    // Who leaves by herself is not taken for somebody who was cut off.
    drop(closed);
    wait_for("bob's process to be told", || gateway.home("bob").join("told").exists());
    let pid = gateway.pid();
    signal(pid, "TERM");
    assert_eq!(job.end().status, Some(255), "its client sees the connection end");
    wait_for("the gateway to be gone", || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty()));
    let before = length();
    // For longer than those may still write who were told that nobody listens.
    wait_for("the job to go on", || length() > before + 20 * 30);
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.exec("alice", "kill -0 $(cat pid) && echo there").good(), "there\n");
}
