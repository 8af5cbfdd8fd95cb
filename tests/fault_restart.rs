//! Docker itself restarted under live sessions, with and without live-restore. An engine of the test's own, as others use the machine's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/engine.rs"]
mod engine;
#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/second_engine.rs"]
mod second_engine;

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gateway::{Gateway, finish, run, wait_for};
use second_engine::SecondEngine;

/// A gateway on an engine of its own.
fn on(engine: &SecondEngine, image: &str) -> Gateway {
    let mut gateway = Gateway::start("");
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    gateway.configure(&format!(
        "\n[engine]\nsocket = \"{}\"\ntimeout = \"20s\"\n[pool]\nsize = 1\n[template.default]\nimage = \"{image}\"\nmemory = \"64MiB\"\n",
        engine.socket().display()
    ));
    gateway.up();
    gateway
}

fn session(gateway: &Gateway, account: &str, options: &[&str]) -> Child {
    let mark = format!("begun-{:x}", rand::random::<u32>());
    let mut command = gateway.ssh(account);
    command.args(options).arg(format!("touch {mark}; exec sleep 1000"));
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a session to begin", || gateway.home(account).join(&mark).exists());
    child
}

/// What the engine says of a container: its id and when it was started.
fn seen(engine: &SecondEngine, gateway: &Gateway, account: &str) -> String {
    run(engine.docker().args(["inspect", "-f", "{{.Id}} {{.State.StartedAt}}", &gateway.container(account)])).text()
}

#[test]
fn docker_restarted_under_live_sessions() {
    let image = engine::image("bash");
    let mut engine = SecondEngine::start(false, &[&image]);
    let gateway = on(&engine, &image);
    gateway.exec("alice", "echo hers > file").good();
    for how in ["kill", "stop"] {
        let id = seen(&engine, &gateway, "alice").split(' ').next().unwrap().to_owned();
        let (program, person) = (session(&gateway, "alice", &[]), session(&gateway, "bob", &["-tt"]));
        if how == "kill" {
            // What runs does not notice, until the engine is there again and puts an end to it.
            engine.kill();
            assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
            engine.up();
        } else {
            engine.stop();
        }
        for child in [program, person] {
            let done = finish(child, Duration::from_secs(20));
            let said = done.text() + &done.stderr;
            assert!(said.contains("innkeeper: ") && said.contains("log in again"), "{how}: {done:?}");
            assert!(done.status.is_some_and(|status| status != 0), "{how}: {done:?}");
        }
        if how == "stop" {
            let refused = gateway.exec("alice", "true");
            assert!(refused.status == Some(75) && refused.stderr.starts_with("innkeeper: "), "{how}: {refused:?}");
            engine.up();
        }
        let since = Instant::now();
        wait_for("alice to get in", || gateway.exec("alice", "true").status == Some(0));
        assert!(since.elapsed() < Duration::from_secs(30), "{how}: {:?}", since.elapsed());
        assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
        assert!(seen(&engine, &gateway, "alice").starts_with(&id), "{how}: her container is found again");
        wait_for("bob to get in", || gateway.exec("bob", "true").status == Some(0));
        wait_for("a pool container that runs", || {
            let spares = run(engine.docker().args(["ps", "--format", "{{.Names}}"])).text();
            spares.lines().filter(|name| name.contains(".pool.")).count() == 1
        });
    }
    wait_for("the pool's old containers to be removed", || {
        run(engine.docker().args(["ps", "-a", "--format", "{{.Names}}"])).text().lines().count() == 3
    });
    assert_eq!(gateway.metric("innkeeper_panics_total"), Some(0.0));
    drop(gateway);
}

#[test]
fn docker_restarted_with_live_restore_leaves_what_runs() {
    let image = engine::image("bash");
    let mut engine = SecondEngine::start(true, &[&image]);
    let gateway = on(&engine, &image);
    gateway
        .exec("alice", "echo hers > file; setsid sh -c 'while :; do date +%s > tick; sleep 0.1; done' >/dev/null 2>&1 </dev/null &")
        .good();
    let before = seen(&engine, &gateway, "alice");
    let mut open = session(&gateway, "alice", &[]);
    engine.kill();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "nor is who comes meanwhile kept out");
    engine.up();
    wait_for("alice to get in", || gateway.exec("alice", "true").status == Some(0));
    assert_eq!(seen(&engine, &gateway, "alice"), before, "it was not touched");
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    let tick = || std::fs::read_to_string(gateway.home("alice").join("tick")).unwrap_or_default();
    let last = tick();
    wait_for("her job to go on", || !tick().is_empty() && tick() != last);
    assert!(open.try_wait().unwrap().is_none(), "her session was not touched either");
    open.kill().unwrap();
    open.wait().unwrap();
    drop(gateway);
}
