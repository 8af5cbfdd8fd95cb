//! A full disk at every step that writes: what can go on goes on, what cannot says so, and nothing that was there is lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::process::{Command, Stdio};

use fault::SmallDisk;
use gateway::{Gateway, run, wait_for};

#[test]
fn a_home_on_a_full_disk_lets_her_in_to_make_room() {
    let mut gateway = Gateway::start("");
    gateway.stop();
    let homes = gateway.state().join("homes");
    let disk = SmallDisk::at(&homes, "2m");
    gateway.up();
    gateway.exec("alice", "echo hers > file; dd if=/dev/zero of=big bs=64k 2>/dev/null; true").good();
    let ballast = disk.fill();
    assert_ne!(gateway.exec("alice", "echo more > more").status, Some(0), "the disk is full");
    // She gets in, also when her container has to be started or made again.
    for how in ["", "kill", "rm"] {
        if how == "kill" {
            run(Command::new("docker").args(["kill", &gateway.container("alice")])).good();
        } else if how == "rm" {
            run(Command::new("docker").args(["rm", "-f", &gateway.container("alice")])).good();
        }
        assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n", "after {how}");
    }
    assert!(gateway.ssh("alice").arg("rm big && echo room > more && cat more").output().unwrap().stdout == b"room\n");
    // Somebody new, whose home would have to be made: a clear refusal or a login, never half a home.
    disk.fill();
    let new = gateway.exec("bob", "pwd");
    if new.status == Some(0) {
        assert_eq!(new.text(), "/home/user\n");
    } else {
        assert!(new.status == Some(75) && new.stderr.contains("your home could not be made available"), "{new:?}");
    }
    fs::remove_file(ballast).unwrap();
    assert_eq!(gateway.exec("bob", "echo his > file && cat file").good(), "his\n");
    assert_eq!(gateway.exec("alice", "cat file more").good(), "hers\nroom\n");
}

#[test]
fn homes_without_inodes_refuse_a_new_home_and_keep_the_old() {
    let mut gateway = Gateway::start("");
    gateway.exec("alice", "echo hers > file").good();
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    let disk = SmallDisk::at(&gateway.state().join("homes"), "2m,nr_inodes=64");
    gateway.up();
    let mut made = 0;
    while fs::write(disk.dir.join(format!("alice/{made}")), "").is_ok() {
        made += 1;
    }
    assert!(made >= 4, "{made}");
    let refused = gateway.exec("bob", "pwd");
    assert!(refused.status == Some(75) && refused.stderr.contains("your home could not be made available"), "{refused:?}");
    assert!(gateway.log().contains("homes/bob") && gateway.log().contains("No space left"), "{}", gateway.log());
    assert_eq!(gateway.exec("alice", "cat file; rm 0 1 2 3").good(), "hers\n");
    assert_eq!(gateway.exec("bob", "pwd").good(), "/home/user\n");
}

#[test]
fn a_full_state_directory_stops_no_login() {
    let mut gateway = Gateway::start("\n[pool]\nsize = 1\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\n");
    gateway.exec("alice", "echo hers > file").good();
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    // Database, slots, host keys and accounts are on it; homes are elsewhere.
    let elsewhere = gateway.dir.path().join("homes");
    fs::rename(gateway.state().join("homes"), &elsewhere).unwrap();
    gateway.configure(&format!(
        "\n[home]\nroot = \"{}\"\n[pool]\nsize = 1\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\n",
        elsewhere.display()
    ));
    let disk = SmallDisk::at(&gateway.state(), "4m");
    gateway.up();
    wait_for("the pool", || gateway.pool() == 1);
    let ballast = disk.fill();
    // From the pool, made, started, attached to: what has a slot needs no more room, and what cannot be remembered is only logged.
    for account in ["alice", "bob", "alice"] {
        gateway.exec(account, "true").good();
    }
    wait_for("alice's container to be stopped", || gateway.container_state("alice") == "exited");
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    wait_for("what cannot be remembered to be logged", || gateway.log().contains("cannot remember when it was used"));
    let (status, _) = gateway.get("/readyz");
    assert_eq!(status, 200, "a full disk is no reason to send people away");

    // The accounts file cannot be changed, and is whole.
    let file = gateway.state().join("accounts.toml");
    let before = fs::read(&file).unwrap();
    let key = gateway.dir.path().join("id.pub");
    let refused = run(gateway.innkeeper().args(["account", "add", "erin", "--key"]).arg(key));
    assert!(
        refused.status == Some(1) && refused.stderr.contains("accounts.toml") && refused.stderr.contains("No space left"),
        "{refused:?}"
    );
    assert_eq!(fs::read(&file).unwrap(), before);
    let names: Vec<_> = fs::read_dir(gateway.state()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().ends_with(".new")), "{names:?}");
    gateway.exec("alice", "true").good();

    // Started anew on the full disk, also after a kill, it serves what it can.
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    gateway.stop();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    gateway.stop();
    fs::remove_file(&ballast).unwrap();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    gateway.add_account("erin");
    gateway.exec("erin", "true").good();
}

#[test]
fn a_first_start_on_a_full_disk_names_the_path_and_leaves_nothing_broken() {
    let mut gateway = Gateway::start("");
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    let state = gateway.state();
    let accounts = fs::read(state.join("accounts.toml")).unwrap();
    fs::remove_dir_all(&state).unwrap();
    fs::create_dir(&state).unwrap();
    // Less room each time: it fails at another step.
    // The larger ones have room for what containers need.
    for pages in [1, 2, 3, 8, 480, 484, 488, 492, 496, 500, 508, 600] {
        let disk = SmallDisk::at(&state, &format!("{}k", pages * 4));
        let mut child = gateway.innkeeper().arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        // Either it serves or it has ended.
        while std::io::BufRead::read_line(&mut log, &mut said).unwrap() > 0 && !said.contains("found again") {
            assert!(std::time::Instant::now() < until, "{said}");
        }
        let serves = said.contains("found again");
        if serves {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        if !serves {
            let complaints: Vec<&str> = said.lines().filter(|line| !line.starts_with('{')).collect();
            assert!(status.code() == Some(1) && complaints.len() == 1, "{pages} pages: {status}: {said}");
            assert!(complaints[0].contains(state.to_str().unwrap()), "{pages} pages: {complaints:?}");
        }
        // A key is whole, or there is none.
        for key in fs::read_dir(state.join("host_keys")).into_iter().flatten() {
            let path = key.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            assert!(!path.file_name().unwrap().to_str().unwrap().starts_with('.'), "a draft is left: {}", path.display());
            assert!(text.ends_with("-----END OPENSSH PRIVATE KEY-----\n") || path.extension().is_some(), "{pages} pages: {text}");
        }
        drop(disk);
    }
    fs::write(state.join("accounts.toml"), accounts).unwrap();
    gateway.up();
    gateway.exec("alice", "true").good();
}

#[test]
fn a_log_that_cannot_be_written_is_no_reason_to_stop() {
    let mut gateway = Gateway::start("");
    gateway.stop();
    let logs = gateway.dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let disk = SmallDisk::at(&logs, "64k");
    let log = fs::File::create(logs.join("log")).unwrap();
    let port = free_port();
    gateway.configure(&format!("\n[ssh]\nlisten = [\"127.0.0.1:{port}\"]\n"));
    let mut child = gateway.innkeeper().arg("serve").stdin(Stdio::null()).stderr(log).spawn().unwrap();
    wait_for("it to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    gateway.ssh_port = port;
    disk.fill();
    let answers: Vec<_> = (0..3).map(|_| gateway.exec("alice", "echo here")).collect();
    // The other end of a pipe can be gone, too.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answers.iter().all(|answer| answer.text() == "here\n"), "{answers:?}");
    let mut child = gateway.innkeeper().arg("serve").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    wait_for("it to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let answer = gateway.exec("alice", "echo here");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answer.good(), "here\n");
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_full_disk_takes_what_an_administrator_sets_and_keeps_out_only_who_has_no_home() {
    let mut gateway = Gateway::start("");
    gateway.exec("alice", "echo hers > file").good();
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    let reserve = gateway.state().join("reserve");
    assert!(!reserve.exists());
    let disk = SmallDisk::at(&gateway.state(), "256m");
    gateway.configure("\n[limits]\ndisk_floor = \"100MiB\"\nreserve = \"64MiB\"\n");
    gateway.up();
    let size = || fs::metadata(&reserve).map_or(0, |data| data.len());
    assert_eq!(size(), 64 << 20);
    gateway.wait_metric("innkeeper_disk_free_bytes{which=\"state\"}", |free| free > f64::from(100 << 20));
    assert_eq!(gateway.metric("innkeeper_disk_low"), Some(0.0));
    let filled = disk.fill();
    gateway.wait_metric("innkeeper_disk_low", |low| low == 1.0);
    let refused = gateway.exec("bob", "pwd");
    assert!(refused.status == Some(75) && refused.stderr.contains("no room for a new home right now"), "{refused:?}");
    assert!(!gateway.home("bob").exists());
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");

    // Until the log of the database has used up what it had, nothing need be given up.
    let value = "x".repeat(8000);
    for round in 0..8 {
        run(gateway.innkeeper().args(["workspace", "env", "alice", "set", &format!("ROUND={round}"), &format!("V{round}={value}")])).good();
        if round < 5 {
            run(gateway.innkeeper().args(["workspace", "env", "alice", "unset", &format!("V{round}")])).good();
        }
    }
    assert_eq!(gateway.exec("alice", "echo $ROUND").good(), "7\n");
    assert_eq!(size(), 0, "given up");
    assert!(gateway.log().contains("reserved space is given up"), "{}", gateway.log());
    fs::remove_file(filled).unwrap();
    wait_for("it to be reserved again", || size() == 64 << 20);
    gateway.wait_metric("innkeeper_disk_low", |low| low == 0.0);
    assert_eq!(gateway.exec("bob", "pwd").good(), "/home/user\n");
}
