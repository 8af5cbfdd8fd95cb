//! When everything is taken: who waits, what she sees, and who gets in.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use gateway::{Gateway, Session, wait_for};

const QUEUE: &str = "innkeeper_queue_length";

#[test]
fn at_a_terminal_a_full_house_is_a_queue_that_moves() {
    let gateway = Gateway::start("[limits]\ncontainers = 1\n[idle]\ntimeout = \"0s\"\n");
    let mut alice = gateway.terminal("alice", "");
    alice.expect("$ ");
    let mut bob = gateway.terminal("bob", "");
    bob.expect("you are next");
    let mut carol = gateway.terminal("carol", "");
    carol.expect("2 in the queue");
    let mut dave = gateway.terminal("dave", "");
    dave.expect("3 in the queue");
    dave.send("\x03");
    let (status, seen) = dave.end();
    assert!(status == Some(130) && String::from_utf8_lossy(&seen).contains("interrupted"), "{status:?} {}", String::from_utf8_lossy(&seen));
    gateway.wait_metric(QUEUE, |waiting| waiting == 2.0);

    // The one who leaves makes room, long before she would be idle.
    alice.send("exit\r");
    assert_eq!(alice.end().0, Some(0));
    bob.expect("$ ");
    assert_eq!(gateway.container_state("alice"), "exited");
    carol.expect("you are next");
    bob.send("exit\r");
    assert_eq!(bob.end().0, Some(0));
    carol.expect("$ ");
    carol.send("exit\r");
    assert_eq!(carol.end().0, Some(0));
    gateway.wait_metric("innkeeper_stops_total{reason=\"room\"}", |count| count == 2.0);
    assert_eq!(gateway.exec("alice", "echo back").good(), "back\n", "and she comes back the same way");
}

#[test]
fn a_program_waits_in_silence_and_then_fails_in_one_line() {
    let gateway = Gateway::start("[limits]\ncontainers = 1\nqueue = 1\nqueue_timeout = \"10s\"\n[pool]\nsize = 1\n");
    wait_for("the pool to be filled", || gateway.pool() == 1);
    let held = gateway.hold("alice", "echo up; cat");
    let waiting = Session::start(gateway.ssh("bob").arg("echo in"));
    gateway.wait_metric(QUEUE, |waiting| waiting == 1.0);
    let refused = gateway.exec("carol", "echo in");
    assert_eq!((refused.status, refused.text().as_str()), (Some(75), ""), "{refused:?}");
    assert!(refused.stderr.contains("waiting already") && refused.stderr.lines().count() == 1, "{refused:?}");
    let late = waiting.end();
    assert_eq!((late.status, late.text().as_str()), (Some(75), ""), "{late:?}");
    assert!(late.stderr.contains("no place came free within 1") && late.stderr.lines().count() == 1, "{late:?}");

    // In time, it gets in and nothing tells that it has waited.
    gateway.configure("[limits]\ncontainers = 1\nqueue = 1\nqueue_timeout = \"60s\"\n[pool]\nsize = 1\n");
    gateway.reload();
    gateway.wait_metric("innkeeper_reloads_total{outcome=\"applied\"}", |count| count == 1.0);
    let waiting = Session::start(gateway.ssh("bob").arg("echo in"));
    gateway.wait_metric(QUEUE, |waiting| waiting == 1.0);
    drop(held);
    let done = waiting.end();
    assert_eq!((done.good().as_str(), done.stderr.as_str()), ("in\n", ""));
    // Who hangs up leaves the queue.
    let held = gateway.hold("bob", "echo up; cat");
    let waiting = Session::start(gateway.ssh("carol").arg("echo in"));
    gateway.wait_metric(QUEUE, |waiting| waiting == 1.0);
    drop(waiting);
    gateway.wait_metric(QUEUE, |waiting| waiting == 0.0);
    drop(held);
}

#[test]
fn an_account_has_only_so_many_sessions() {
    let gateway = Gateway::start("[limits]\nsessions_per_account = 2\n");
    let held: Vec<Session> = (0..2).map(|_| gateway.hold("alice", "echo up; cat")).collect();
    let refused = gateway.exec("alice", "echo in");
    assert_eq!((refused.status, refused.text().as_str()), (Some(75), ""), "{refused:?}");
    assert!(refused.stderr.contains("2 sessions open") && refused.stderr.lines().count() == 1, "{refused:?}");
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("2 sessions open");
    assert_eq!(terminal.end().0, Some(75));
    assert_eq!(gateway.exec("bob", "echo in").good(), "in\n");
    drop(held);
    gateway.wait_metric("innkeeper_sessions_open", |open| open == 0.0);
    assert_eq!(gateway.exec("alice", "echo in").good(), "in\n");
}
