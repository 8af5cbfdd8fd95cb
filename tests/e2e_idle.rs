//! When containers are stopped: idle ones, busy ones, and those that have run for long enough.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use gateway::{Gateway, run, wait_for};

#[test]
fn an_idle_container_is_stopped_and_its_processes_may_tidy_up_first() {
    let gateway = Gateway::start("[idle]\ntimeout = \"1s\"\nstop_grace = \"10s\"\n");
    // It is in somebody's hands, so it is not idle, whatever the clock says.
    let mut held = gateway.hold("alice", "echo up; cat");
    gateway.wait_sweeps(5);
    assert_eq!(gateway.container_state("alice"), "running");
    // A background process without CPU time to speak of does not keep it; it is asked to end, and given the time.
    let line = r#"(trap 'sleep 1; echo tidy >~/left' TERM; sleep 300 & wait $!; wait) >/dev/null 2>&1 &"#;
    gateway.exec("alice", line).good();
    held.close();
    assert_eq!(held.end().status, Some(0));
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
    assert_eq!(fs::read_to_string(gateway.home("alice").join("left")).unwrap(), "tidy\n");
    gateway.wait_metric("innkeeper_stops_total{reason=\"idle\"}", |count| count == 1.0);
    let id = gateway.inspect("alice", "{{.Id}}");
    assert_eq!(gateway.exec("alice", "cat left; pgrep -xf 'sleep 300'").text(), "tidy\n");
    assert_eq!(gateway.inspect("alice", "{{.Id}}"), id, "the same container, started again");
    gateway.wait_metric("innkeeper_starts_total{path=\"start\"}", |count| count == 1.0);
}

#[test]
fn a_container_that_computes_is_not_idle() {
    let gateway = Gateway::start("[idle]\ntimeout = \"1s\"\n");
    gateway.exec("bob", "true").good();
    gateway.exec("alice", "(while [ ! -e ~/enough ]; do :; done) >/dev/null 2>&1 &").good();
    wait_for("bob's container to be stopped", || gateway.container_state("bob") == "exited");
    gateway.wait_sweeps(8);
    assert_eq!(gateway.container_state("alice"), "running");
    fs::write(gateway.home("alice").join("enough"), "").unwrap();
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
}

#[test]
fn nothing_is_stopped_where_that_is_switched_off_and_busy_ones_are_where_they_do_not_count() {
    let gateway = Gateway::start("[idle]\ntimeout = \"0s\"\nkeep_busy = false\n");
    gateway.exec("alice", "(while :; do :; done) >/dev/null 2>&1 &").good();
    gateway.wait_sweeps(4);
    assert_eq!(gateway.container_state("alice"), "running");
    gateway.configure("[idle]\ntimeout = \"1s\"\nkeep_busy = false\n");
    gateway.reload();
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
}

#[test]
fn a_job_that_asks_for_it_is_kept_also_by_the_next_gateway_and_no_longer_than_it_runs() {
    let mut gateway = Gateway::start("[idle]\ntimeout = \"1s\"\nkeep_busy = false\n");
    let job = "innkeeper-keep 1h -- sh -c 'touch begun; while ! test -e enough; do sleep 0.1; done; touch done'";
    gateway.exec("alice", &format!("{job} >/dev/null 2>&1 </dev/null & while ! test -e begun; do sleep 0.1; done")).good();
    gateway.wait_sweeps(6);
    assert_eq!(gateway.container_state("alice"), "running");
    gateway.kill();
    // Longer than it may be idle, as far as the next one has it written down.
    std::thread::sleep(Duration::from_secs(2));
    gateway.up();
    gateway.wait_sweeps(6);
    assert_eq!(gateway.container_state("alice"), "running", "it was asked for before");
    fs::write(gateway.home("alice").join("enough"), "").unwrap();
    wait_for("the job to be done and its container to be stopped", || gateway.container_state("alice") == "exited");
    assert!(gateway.home("alice").join("done").exists());
}

#[test]
fn a_container_that_has_run_for_long_enough_is_stopped_under_its_sessions() {
    let gateway = Gateway::start("[idle]\nmax_lifetime = \"10s\"\n");
    let held = gateway.hold("alice", "echo up; sleep 300");
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("your container will be stopped in ");
    terminal.expect("your container is being stopped (it has run for as long as it may)");
    let done = held.end();
    assert!(done.status.is_some_and(|status| status != 0) && done.stderr.contains("your container ended"), "{done:?}");
    assert!(terminal.end().0.is_some_and(|status| status != 0));
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
    gateway.wait_metric("innkeeper_stops_total{reason=\"lifetime\"}", |count| count >= 1.0);
    assert_eq!(gateway.exec("alice", "echo back").good(), "back\n");
}

#[test]
fn an_administrator_gives_notice_and_may_take_it_back() {
    let gateway = Gateway::start("[idle]\nnotice = \"3s\"\n");
    let mut terminal = gateway.terminal("alice", "");
    terminal.send("echo up$((40 + 2))\n");
    terminal.expect("up42");
    let mut asked = gateway.innkeeper().args(["workspace", "stop", "alice", "--in", "1h"]).stderr(Stdio::null()).spawn().unwrap();
    terminal.expect("your container will be stopped in 1h (an administrator stops it, and can put it off); your home is kept");
    asked.kill().unwrap();
    asked.wait().unwrap();
    terminal.expect("your container is not stopped after all");
    terminal.send("echo still$((40 + 2))\n");
    terminal.expect("still42");

    // As configured, then.
    let asked = std::thread::spawn({
        let mut stop = gateway.innkeeper();
        stop.args(["workspace", "stop", "alice"]);
        move || run(&mut stop).good()
    });
    terminal.expect("your container will be stopped in 3s");
    terminal.expect("your container is being stopped (an administrator stopped it)");
    assert!(terminal.end().0.is_some_and(|status| status != 0));
    assert_eq!(asked.join().unwrap(), "alice is stopped\n");

    // Nobody is in it: there is nobody to wait for, and it is not asked to wait for longer than anybody's patience.
    gateway.exec("alice", "true").good();
    let begun = gateway.innkeeper().args(["workspace", "restart", "alice", "--in", "1h"]).output().unwrap();
    assert!(begun.status.success(), "{begun:?}");
    let refused = run(gateway.innkeeper().args(["workspace", "stop", "alice", "--in", "2h"]));
    assert!(refused.status != Some(0) && refused.stderr.contains("at most 1h"), "{refused:?}");
}
