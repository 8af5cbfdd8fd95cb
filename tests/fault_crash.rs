//! A gateway that is killed at any moment loses nothing, leaves nothing behind, and touches no container.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::collections::{BTreeSet, HashSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fault::{pause, started};
use gateway::{Gateway, mounts_below, run, wait_for};

const ACCOUNTS: [&str; 4] = ["alice", "bob", "carol", "dave"];
const ROUNDS: usize = 12;

/// Nobody's containers, slots and mounts are gone: what there is belongs to a workspace or to the pool.
fn nothing_is_left(gateway: &Gateway, pool: usize) {
    wait_for("only what somebody owns to be left", || {
        let containers = gateway.containers();
        let workspaces = containers.iter().filter(|(name, _)| ACCOUNTS.iter().any(|account| *name == gateway.container(account))).count();
        let slots = std::fs::read_dir(gateway.state().join("slots")).unwrap().count();
        let spares = containers.len() - workspaces;
        // The directory of slots is one mount; each workspace that has run since the machine started has its home mounted on its slot.
        let mounts = mounts_below(&gateway.state().join("slots")) - 1;
        spares == pool && gateway.pool() == pool && slots == containers.len() && mounts == workspaces
    });
    let names: Vec<String> = gateway.containers().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
}

#[test]
fn killed_again_and_again_under_load_it_loses_nothing() {
    // Idle stops are part of the load: the clock is short.
    let mut gateway = Gateway::start("\n[pool]\nsize = 1\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\nstop_grace = \"1s\"\n");
    let written: Arc<Mutex<BTreeSet<(String, String)>>> = Arc::default();
    for round in 0..ROUNDS {
        let over = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = ACCOUNTS
            .iter()
            .map(|account| {
                let (mut ssh, over, written) = (gateway.ssh(account), Arc::clone(&over), Arc::clone(&written));
                let account = (*account).to_owned();
                ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                std::thread::spawn(move || {
                    let (program, options): (_, Vec<_>) = (ssh.get_program().to_owned(), ssh.get_args().map(ToOwned::to_owned).collect());
                    for number in 0.. {
                        if over.load(Ordering::SeqCst) {
                            return;
                        }
                        let file = format!("{round}-{number}");
                        let line = format!("echo {file} > {file} && sync {file}");
                        let status = Command::new(&program)
                            .args(&options)
                            .arg(line)
                            .stdin(Stdio::null())
                            .stdout(Stdio::null())
                            .stderr(Stdio::null())
                            .status();
                        if status.unwrap().success() {
                            written.lock().unwrap().insert((account.clone(), file));
                        }
                        // Sometimes long enough to be stopped in between.
                        pause(rand::random_range(0..400) + if number % 5 == 4 { 1500 } else { 0 });
                    }
                })
            })
            .collect();
        if round % 2 == 1 {
            let before = written.lock().unwrap().len();
            wait_for("a load", || written.lock().unwrap().len() >= before + 4);
        }
        pause(rand::random_range(200..2500));
        gateway.kill();
        over.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let before = started(&gateway);
        gateway.up();
        let after = started(&gateway);
        let touched: Vec<_> = before.iter().filter(|(name, what)| after.iter().any(|(other, now)| name == other && what != now)).collect();
        assert_eq!(touched, Vec::<&(String, String)>::new(), "round {round}: started anew by the restart");
        if round % 4 == 3 {
            nothing_is_left(&gateway, 1);
        }
    }
    for account in ACCOUNTS {
        gateway.exec(account, "true").good();
    }
    nothing_is_left(&gateway, 1);
    let written = written.lock().unwrap();
    assert!(written.len() > ROUNDS * 2, "there was a load: {}", written.len());
    for (account, file) in written.iter() {
        let text = std::fs::read_to_string(gateway.home(account).join(file));
        assert_eq!(text.ok().as_deref(), Some(format!("{file}\n").as_str()), "{account} was told that {file} is written");
    }
    // And she sees the same from inside.
    let alices: BTreeSet<String> = written.iter().filter(|(account, _)| account == "alice").map(|(_, file)| file.clone()).collect();
    let inside = gateway.exec("alice", "ls").good();
    let inside: HashSet<&str> = inside.lines().collect();
    assert!(alices.iter().all(|file| inside.contains(file.as_str())));
}

#[test]
fn jobs_outlive_a_killed_gateway() {
    let mut gateway = Gateway::start("\n[pool]\nsize = 1\n");
    wait_for("a pool container", || gateway.pool() == 1);
    gateway.exec("alice", "setsid sh -c 'while :; do date +%s%N > tick; sleep 0.1; done' >/dev/null 2>&1 </dev/null &").good();
    gateway.exec("bob", "nohup sh -c 'while :; do date +%s%N > tick; sleep 0.1; done' >/dev/null 2>&1 </dev/null &").good();
    let before = started(&gateway);
    let tick = |account: &str| std::fs::read_to_string(gateway.home(account).join("tick")).unwrap_or_default();
    wait_for("the jobs to run", || !tick("alice").is_empty() && !tick("bob").is_empty());
    let home = |account: &str| gateway.home(account).join("tick");
    let (alice, bob) = (home("alice"), home("bob"));
    // A session that is open when it happens, too.
    let mut open = gateway.ssh("alice");
    open.arg("echo $$ > shell; exec sleep 1000").stdin(Stdio::null());
    let mut open = open.spawn().unwrap();
    wait_for("the session's process", || gateway.home("alice").join("shell").exists());
    gateway.kill();
    assert!(!open.wait().unwrap().success());
    let now = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    for path in [&alice, &bob] {
        let last = now(path);
        wait_for("the job to go on", || !now(path).is_empty() && now(path) != last);
    }
    gateway.up();
    let after = started(&gateway);
    assert!(before.iter().all(|container| !container.0.contains("alice") && !container.0.contains("bob") || after.contains(container)));
    let last = now(&alice);
    wait_for("the job to go on after the restart", || !now(&alice).is_empty() && now(&alice) != last);
}

#[test]
fn a_start_that_is_killed_at_any_moment_is_made_good_by_the_next() {
    let mut gateway = Gateway::start("\n[pool]\nsize = 1\n");
    gateway.exec("alice", "echo hers > file").good();
    gateway.stop();
    for nth in 0..20_u64 {
        let mut child = gateway.innkeeper().arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        pause(nth * 15);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // As after the machine was started anew: nothing is mounted, containers stand still.
    gateway.up();
    gateway.exec("alice", "true").good();
    gateway.stop();
    run(Command::new("docker").args(["kill", &gateway.container("alice")])).good();
    run(Command::new("umount").arg("-l").arg(gateway.state().join("slots"))).good();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    assert_eq!(gateway.exec("bob", "ls -A file 2>&1; true").good().trim(), "ls: cannot access 'file': No such file or directory");
    wait_for("one pool container", || gateway.pool() == 1 && gateway.containers().len() == 3);
}
