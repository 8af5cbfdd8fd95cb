//! The engine goes away, holds still, or breaks off under live sessions: people read why, nothing hangs, and it is found again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fault::{Relay, holdings, pause, started};
use gateway::{Done, Gateway, finish, wait_for};

/// A gateway that reaches the engine through a relay.
fn relayed(sections: &str) -> (Gateway, Relay) {
    let mut gateway = Gateway::start("");
    gateway.stop();
    let relay = Relay::start(&gateway.dir.path().join("relay.sock"));
    gateway.configure(&format!("\n[engine]\nsocket = \"{}\"\ntimeout = \"3s\"\n{sections}", relay.socket.display()));
    gateway.up();
    (gateway, relay)
}

/// A session that goes on until it is ended, and has begun.
fn session(gateway: &Gateway, account: &str, options: &[&str]) -> Child {
    let mark = format!("begun-{:x}", rand::random::<u32>());
    let mut command = gateway.ssh(account);
    command.args(options).arg(format!("touch {mark}; exec sleep 1000"));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a session to begin", || gateway.home(account).join(&mark).exists());
    child
}

/// Its end, which has to come soon.
fn cut(child: Child) -> Done {
    finish(child, Duration::from_secs(15))
}

#[test]
fn an_engine_that_goes_away_is_missed_by_who_needs_a_container_only_and_is_found_again() {
    let (gateway, relay) = relayed("[pool]\nsize = 1\n");
    let (program, person) = (session(&gateway, "alice", &[]), session(&gateway, "bob", &["-tt"]));
    let before = started(&gateway);
    let (_, ready) = gateway.get("/readyz");
    assert!(ready.contains("\"ready\":true"), "{ready}");
    relay.cut();
    // Who is in a container that runs needs no engine, and who comes to one does not either.
    for account in ["alice", "bob"] {
        assert_eq!(gateway.exec(account, "pgrep -xc sleep").good(), "1\n", "{account}");
    }
    // Who needs a container reads so: quickly and clearly.
    let since = Instant::now();
    let refused = gateway.exec("carol", "true");
    assert!(refused.status == Some(75) && refused.stderr.starts_with("innkeeper: "), "{refused:?}");
    assert!(!refused.stderr.contains(".sock") && !refused.stderr.contains("engine"), "internals are not said: {refused:?}");
    assert!(since.elapsed() < Duration::from_secs(15), "she waited for {:?}", since.elapsed());
    wait_for("readiness to fail", || gateway.get("/readyz").0 == 503);
    assert_eq!(gateway.get("/healthz").0, 200);
    let (status, metrics) = gateway.get("/metrics");
    let mut failures = metrics.lines().filter(|line| line.starts_with("innkeeper_start_failures_total{"));
    assert!(status == 200 && failures.any(|line| !line.ends_with(" 0")), "{metrics}");

    relay.restore();
    let since = Instant::now();
    wait_for("carol to get in", || gateway.exec("carol", "true").status == Some(0));
    assert_eq!(gateway.exec("alice", "echo back").good(), "back\n");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    assert!(before.iter().filter(|(name, _)| !name.contains(".pool.")).all(|container| started(&gateway).contains(container)));
    wait_for("events to be heard again", || gateway.log().contains("stream of engine events is back"));
    for (account, child) in [("alice", program), ("bob", person)] {
        Command::new("docker").args(["kill", &gateway.container(account)]).output().unwrap();
        let done = cut(child);
        assert!((done.text() + &done.stderr).contains("your container ended"), "{account}: {done:?}");
    }
    assert_eq!(gateway.exec("alice", "echo anew").good(), "anew\n");
    wait_for("the pool", || gateway.pool() == 1);
    assert_eq!(gateway.metric("innkeeper_panics_total"), Some(0.0));
}

#[test]
fn an_engine_that_holds_still_keeps_nobody_for_ever() {
    let (mut gateway, relay) = relayed("[limits]\nstart_timeout = \"5s\"\n[ssh]\ndrain_timeout = \"2s\"\n");
    gateway.exec("alice", "true").good();
    gateway.exec("bob", "true").good();
    let open = session(&gateway, "alice", &[]);
    relay.hold();
    // Whoever comes now waits for as long as is configured, not for ever; many at once as well.
    let since = Instant::now();
    let waiting: Vec<Child> = (0..10)
        .map(|nth| {
            let account = ["alice", "carol", "bob", "dave"][nth % 4];
            let mut command = gateway.ssh(account);
            command.arg("true").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for (nth, child) in waiting.into_iter().enumerate() {
        let done = finish(child, Duration::from_secs(50));
        // Whose container runs is not kept waiting at all.
        let expected = if nth % 2 == 0 { Some(0) } else { Some(75) };
        assert!(done.status == expected && (nth % 2 == 0 || done.stderr.starts_with("innkeeper: ")), "{done:?}");
    }
    assert!(since.elapsed() < Duration::from_secs(45), "{:?}", since.elapsed());
    let (status, _) = gateway.get("/readyz");
    assert_eq!(status, 503);
    assert_eq!(gateway.get("/metrics").0, 200);
    // She is still in hers: nothing was said about it, it only stands still. It goes on when the engine does.
    relay.restore();
    wait_for("alice to get in", || gateway.exec("alice", "true").status == Some(0));
    wait_for("carol to get in", || gateway.exec("carol", "true").status == Some(0));
    assert_eq!(
        gateway.containers().len(),
        3 + usize::from(gateway.containers().iter().any(|(name, _)| name == &gateway.container("dave")))
    );
    // Nor is the end of the gateway held up.
    relay.hold();
    let took = gateway.stop();
    assert!(took < Duration::from_secs(30), "{took:?}");
    cut(open);
    relay.restore();
}

#[test]
fn answers_that_break_off_in_the_middle_harm_nobody_else() {
    let (gateway, relay) = relayed("[pool]\nsize = 1\n");
    gateway.exec("alice", "echo hers > file").good();
    let before = holdings(gateway.pid());
    for bytes in [0, 1, 17, 100, 500, 1_500, 4_000, 12_000, 40_000] {
        relay.break_after(bytes);
        for account in ["alice", "bob"] {
            let done = gateway.exec(account, "cat file 2>/dev/null; true");
            // Either it had enough of the answers, or it says what is the matter.
            let said = done.status == Some(0) || (done.status == Some(75) && done.stderr.starts_with("innkeeper: "));
            assert!(said, "after {bytes} bytes: {done:?}");
        }
        relay.restore();
        wait_for("alice to get in", || gateway.exec("alice", "cat file").text() == "hers\n");
    }
    for account in ["alice", "bob", "carol"] {
        wait_for("everybody to get in", || gateway.exec(account, "true").status == Some(0));
    }
    wait_for("nothing that nobody owns to be left", || {
        let containers = gateway.containers();
        let owned = ["alice", "bob", "carol"].map(|account| gateway.container(account));
        containers.iter().filter(|(name, _)| owned.contains(name)).count() == 3 && containers.len() == 4 && gateway.pool() == 1
    });
    let slots = std::fs::read_dir(gateway.state().join("slots")).unwrap().count();
    assert_eq!(slots, 4);
    pause(500);
    let after = holdings(gateway.pid());
    assert!(after.descriptors <= before.descriptors + 10, "{before:?} {after:?}");
    assert_eq!(gateway.metric("innkeeper_panics_total"), Some(0.0));
}

#[test]
fn a_gateway_without_its_engine_starts_nothing_and_a_late_engine_is_used() {
    let (mut gateway, relay) = relayed("");
    gateway.exec("alice", "echo hers > file").good();
    gateway.stop();
    relay.hold();
    let since = Instant::now();
    let refused = fault::refusal(&gateway);
    let said = fault::complaints(&refused).join("\n");
    assert!(refused.status == Some(1) && said.contains("engine.socket") && said.contains("relay.sock"), "{refused:?}");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    relay.restore();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
}
