//! A gateway that is killed at any moment of an upgrade leaves each workspace one container, and never two that run with one home.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/image.rs"]
mod image;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway::{Gateway, mounts_below, run, wait_for};
use image::Tag;
use serde_json::Value;

/// How often it is killed; more with `INNKEEPER_KILL_ROUNDS`.
const ROUNDS: u32 = 16;
/// How long that may take, unless it was said how often.
const AT_MOST: Duration = Duration::from_secs(90);

const SECTIONS: &str = r#"
[idle]
stop_grace = "1s"
[limits]
upgrade_timeout = "2s"
[template.default]
image = "TAG"
memory = "512MiB"
[[template.default.service]]
name = "web"
command = ["sleep", "1000"]
ready = { command = ["test", "-e", "/etc/good"], every = "1s" }
"#;

/// Looks all the time how many containers of the instance run at once, and says the most.
fn watch(gateway: &Gateway, over: &Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    let (filter, over) = (format!("label=innkeeper={}", gateway.instance), Arc::clone(over));
    std::thread::spawn(move || {
        let mut most = 0;
        while !over.load(Ordering::SeqCst) {
            let running = run(Command::new("docker").args(["ps", "-q", "--filter", &filter])).good();
            most = most.max(running.lines().count());
        }
        most
    })
}

fn alice(gateway: &Gateway) -> Value {
    let all: Value = serde_json::from_str(&run(gateway.innkeeper().args(["workspace", "list", "--json"])).good()).unwrap();
    all[0].clone()
}

#[test]
fn killed_again_and_again_she_has_one_container_and_her_home() {
    let said = std::env::var("INNKEEPER_KILL_ROUNDS").ok().map(|rounds| rounds.parse::<u32>().unwrap());
    let tag = Tag::new("RUN echo one > /etc/mark && touch /etc/good");
    tag.build_aside("one", "RUN echo one > /etc/mark && touch /etc/good");
    tag.build_aside("two", "RUN echo two > /etc/mark && touch /etc/good");
    tag.build_aside("bad", "RUN echo bad > /etc/mark");
    let mut gateway = Gateway::start(&SECTIONS.replace("TAG", &tag.name));
    gateway.exec("alice", "echo hers > file").good();
    let slots = gateway.state().join("slots");
    let over = Arc::default();
    let most = watch(&gateway, &over);
    let (began, mut rounds) = (Instant::now(), 0);
    let (mut done, mut undone, mut cut, mut both, mut former) = (0, 0, 0, 0, 0);
    let mut mark = "one".to_owned();
    while rounds < said.unwrap_or(ROUNDS) && (said.is_some() || began.elapsed() < AT_MOST) {
        rounds += 1;
        let next = match rounds % 4 {
            0 => "bad",
            _ if mark == "one" => "two",
            _ => "one",
        };
        tag.point(next);
        // One that runs, or one that stands still, which somebody logs in to.
        let now = rounds % 3 != 0;
        if !now {
            run(gateway.innkeeper().args(["workspace", "upgrade", "alice"])).good();
            run(gateway.innkeeper().args(["workspace", "suspend", "alice", "--reason", "a test"])).good();
            run(gateway.innkeeper().args(["workspace", "resume", "alice"])).good();
        }
        let mut command = if now { gateway.innkeeper() } else { gateway.ssh("alice") };
        let client = std::thread::spawn(move || {
            let words: &[&str] = if now { &["workspace", "upgrade", "alice", "--now"] } else { &["cat", "file"] };
            run(command.args(words))
        });
        // Half of them while one is stopped and the other made, half until all is over.
        let within = if rounds % 2 == 0 { if next == "bad" { 5500 } else { 3000 } } else { 1000 };
        std::thread::sleep(Duration::from_millis(rand::random_range(0..within)));
        gateway.kill();
        let ended = client.join().unwrap();
        // How far it was: the former container has another name, and there is one in its place, or none yet.
        match (gateway.containers().len(), gateway.container_state("alice").is_empty()) {
            (1, true) => former += 1,
            (2, _) => both += 1,
            (count, _) => assert_eq!(count, 1, "round {rounds}"),
        }
        match ended.status {
            Some(0) => done += 1,
            _ if ended.stderr.contains("has its former container") => undone += 1,
            _ => cut += 1,
        }
        gateway.up();
        if now {
            // Nobody logs in: it ran before, and does again.
            wait_for("it to run again", || alice(&gateway)["state"] == "running");
        }
        assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "round {rounds}");
        let settled = || {
            let names: Vec<String> = gateway.containers().into_iter().map(|(name, _)| name).collect();
            names == [gateway.container("alice")] && std::fs::read_dir(&slots).unwrap().count() == 1 && mounts_below(&slots) == 2
        };
        wait_for("one container and its slot to be left", settled);
        let before = std::mem::replace(&mut mark, gateway.exec("alice", "cat /etc/mark").good().trim().to_owned());
        assert!(mark == before || (mark == next && next != "bad"), "round {rounds}: {mark} of {before} and {next}");
        assert_eq!(std::fs::read_to_string(gateway.home("alice").join("file")).unwrap(), "hers\n", "round {rounds}");
    }
    over.store(true, Ordering::SeqCst);
    assert_eq!(most.join().unwrap(), 1, "never two at once");
    eprintln!(
        "{rounds} rounds: {done} upgraded or let in, {undone} undone, {cut} cut short, {former} with the former container alone, {both} with both"
    );
    assert!(cut > 0, "killed at other moments than during upgrades");
    tag.point(if mark == "one" { "two" } else { "one" });
    run(gateway.innkeeper().args(["workspace", "upgrade", "alice", "--now"])).good();
    assert_ne!(gateway.exec("alice", "cat /etc/mark").good().trim(), mark);
    assert_eq!(gateway.metric("innkeeper_orphans_removed_total{kind=\"container\"}").unwrap_or_default(), 0.0);
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
}
