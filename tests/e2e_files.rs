//! Files in and out, by the programs that people use for it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway::{Done, Gateway, Session, noise, run, run_with, signal, wait_for};

/// Runs these lines in sftp.
fn sftp(gateway: &Gateway, lines: &str) -> Done {
    let mut sftp = Command::new("sftp");
    sftp.args(gateway.client_options()).args(["-b", "-", "-P"]).arg(gateway.ssh_port.to_string()).arg("alice@127.0.0.1");
    run_with(sftp.current_dir(gateway.dir.path()), lines.as_bytes())
}

fn scp(gateway: &Gateway, arguments: &[&str]) -> Done {
    let port = gateway.ssh_port.to_string();
    run(Command::new("scp").args(gateway.client_options()).args(["-P", &port]).args(arguments).current_dir(gateway.dir.path()))
}

/// The command that rsync and git reach the gateway with.
fn remote_shell(gateway: &Gateway) -> String {
    format!("ssh {} -p {}", gateway.client_options().join(" "), gateway.ssh_port)
}

fn git(gateway: &Gateway, arguments: &[&str]) -> Done {
    let mut git = Command::new("git");
    git.env("GIT_SSH_COMMAND", remote_shell(gateway)).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0");
    git.args(["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main", "-c", "safe.directory=*"]);
    run(git.args(arguments).current_dir(gateway.dir.path()))
}

/// A small tree with what trees have: depth, an empty directory, an executable, a link, odd names.
fn plant(at: &Path) {
    fs::create_dir_all(at.join("deep/er/and deeper")).unwrap();
    fs::create_dir_all(at.join("empty")).unwrap();
    fs::write(at.join("deep/er/and deeper/ünïcode \"x\".txt"), "leaf").unwrap();
    for number in 0..100 {
        fs::write(at.join(format!("deep/{number}")), noise(number * 100)).unwrap();
    }
    run(Command::new("sh").args(["-c", "printf '#!/bin/sh' >run; chmod 755 run; ln -s run link"]).current_dir(at)).good();
}

#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    run(Command::new("diff").args(["-r", "--no-dereference"]).args([one, other])).good();
}

#[test]
fn sftp_puts_gets_renames_lists_and_resumes() {
    let gateway = Gateway::start("");
    let here = |name: &str| gateway.dir.path().join(name);
    let bytes = noise(5 << 20);
    fs::write(here("big"), &bytes).unwrap();
    fs::write(here("small"), "small").unwrap();
    sftp(&gateway, "put big\nput small\nmkdir dir\nrename small dir/small\nget dir/small back\nput -p small other\nrename other dir/small\nls -l dir\ndf -h\ndf -i\nchmod 600 big\nln -s big link\nrm link\n").good();
    let home = gateway.home("alice");
    assert!(fs::read(home.join("big")).unwrap() == bytes);
    assert_eq!(fs::read(here("back")).unwrap(), b"small");

    // What was cut short goes on where it was.
    fs::write(home.join("up"), &bytes[..1 << 20]).unwrap();
    gateway.exec("alice", "test -O big && chmod 666 up 2>/dev/null; rm -f up && head -c 1048576 big >up").good();
    fs::write(here("down"), &bytes[..1 << 20]).unwrap();
    sftp(&gateway, "reput big up\nreget big down\n").good();
    assert!(fs::read(home.join("up")).unwrap() == bytes && fs::read(here("down")).unwrap() == bytes);

    gateway.exec("alice", "mkdir many; cd many; seq -f %05g 1 10000 | xargs touch").good();
    let listed = sftp(&gateway, "ls -l many\n").good();
    assert_eq!(listed.lines().filter(|line| line.starts_with("-rw")).count(), 10_000);
    let failed = sftp(&gateway, "get no-such-file\n");
    assert!(failed.status == Some(1) && failed.stderr.contains("not found"), "{failed:?}");
}

#[test]
fn scp_copies_by_either_protocol_and_between_two_accounts() {
    let gateway = Gateway::start("");
    let here = |name: &str| gateway.dir.path().join(name);
    plant(&here("tree"));
    fs::remove_file(here("tree/link")).unwrap();
    fs::write(here("one"), noise(3 << 20)).unwrap();
    for (protocol, name) in [("-s", "new"), ("-O", "old")] {
        scp(&gateway, &[protocol, "-p", "one", &format!("alice@127.0.0.1:{name}")]).good();
        scp(&gateway, &[protocol, &format!("alice@127.0.0.1:{name}"), name]).good();
        assert_same(&here("one"), &here(name));
        scp(&gateway, &[protocol, "-r", "tree", &format!("alice@127.0.0.1:tree-{name}")]).good();
        assert_same(&here("tree"), &gateway.home("alice").join(format!("tree-{name}")));
        scp(&gateway, &[protocol, "-r", &format!("alice@127.0.0.1:tree-{name}"), &format!("back-{name}")]).good();
        assert_same(&here("tree"), &here(&format!("back-{name}")));
    }
    let at = |account: &str, name: &str| format!("scp://{account}@127.0.0.1:{}/{name}", gateway.ssh_port);
    scp(&gateway, &["-3", &at("alice", "new"), &at("bob", "hers")]).good();
    assert_same(&here("one"), &gateway.home("bob").join("hers"));
    assert_eq!(scp(&gateway, &["alice@127.0.0.1:missing", "x"]).status, Some(1));
}

#[test]
fn rsync_mirrors_and_takes_up_what_was_cut_short() {
    let gateway = Gateway::start("");
    let here = |name: &str| gateway.dir.path().join(name);
    let shell = remote_shell(&gateway);
    let rsync = |arguments: &[&str]| {
        let mut rsync = Command::new("rsync");
        rsync.args(["-e", &shell]).args(arguments).current_dir(gateway.dir.path());
        rsync
    };
    plant(&here("tree"));
    run(&mut rsync(&["-az", "--delete", "tree/", "alice@127.0.0.1:mirror/"])).good();
    let mirror = gateway.home("alice").join("mirror");
    assert_same(&here("tree"), &mirror);
    fs::remove_dir_all(here("tree/deep/er")).unwrap();
    fs::write(here("tree/deep/7"), "changed").unwrap();
    run(&mut rsync(&["-az", "--delete", "tree/", "alice@127.0.0.1:mirror/"])).good();
    assert_same(&here("tree"), &mirror);
    run(&mut rsync(&["-az", "--delete", "alice@127.0.0.1:mirror/", "back/"])).good();
    assert_same(&here("tree"), &here("back"));

    let bytes = noise(8 << 20);
    fs::write(here("big"), &bytes).unwrap();
    let slow = Session::start(&mut rsync(&["--partial", "--bwlimit=1m", "big", "alice@127.0.0.1:"]));
    let home = gateway.home("alice");
    let growing = || {
        fs::read_dir(&home)
            .unwrap()
            .flatten()
            .any(|entry| entry.file_name().to_str().unwrap().starts_with(".big.") && entry.metadata().unwrap().len() > 1 << 20)
    };
    wait_for("a megabyte to be there", growing);
    signal(slow.pid(), "INT");
    slow.end();
    wait_for("what was sent to be kept", || home.join("big").exists());
    assert!(fs::metadata(home.join("big")).unwrap().len() >= 1 << 20);
    run(&mut rsync(&["--partial", "big", "alice@127.0.0.1:"])).good();
    assert!(fs::read(home.join("big")).unwrap() == bytes);
}

#[test]
fn git_clones_and_pushes() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "git init -q --bare -b main project.git").good();
    let url = format!("ssh://alice@127.0.0.1:{}/home/user/project.git", gateway.ssh_port);
    git(&gateway, &["init", "-q", "work"]).good();
    plant(&gateway.dir.path().join("work"));
    git(&gateway, &["-C", "work", "add", "."]).good();
    git(&gateway, &["-C", "work", "commit", "-qm", "first"]).good();
    git(&gateway, &["-C", "work", "push", "-q", &url, "main"]).good();
    git(&gateway, &["clone", "-q", &url, "clone"]).good();
    let head = |directory: &str| git(&gateway, &["-C", directory, "rev-parse", "HEAD"]).good();
    assert_eq!(head("work"), head("clone"));
    let traced = run(Command::new("git")
        .args(["ls-remote", &url])
        .envs([("GIT_SSH_COMMAND", remote_shell(&gateway)), ("GIT_TRACE_PACKET", "1".to_owned())]));
    assert!(traced.stderr.contains("< version 2"), "{traced:?}");
    let denied = git(&gateway, &["clone", "-q", &url.replace("project", "none"), "none"]);
    assert!(denied.status == Some(128) && denied.stderr.contains("does not appear to be a git repository"), "{denied:?}");
}

/// A mounted file system. It is unmounted with the value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        Command::new("fusermount3").arg("-u").arg(&self.0).status().ok();
    }
}

#[test]
fn a_home_can_be_mounted_and_worked_in() {
    let gateway = Gateway::start("");
    let at = gateway.dir.path().join("mounted");
    fs::create_dir(&at).unwrap();
    git(&gateway, &["init", "-q", "work"]).good();
    plant(&gateway.dir.path().join("work"));
    git(&gateway, &["-C", "work", "add", "."]).good();
    git(&gateway, &["-C", "work", "commit", "-qm", "first"]).good();

    let mut sshfs = Command::new("sshfs");
    sshfs.arg("alice@127.0.0.1:").arg(&at).args(["-p", &gateway.ssh_port.to_string(), "-o", "idmap=user"]);
    sshfs.arg("-o").arg(format!("ssh_command=ssh {}", gateway.client_options().join(" ")));
    let mounted = Mounted(at.clone());
    run(&mut sshfs).good();
    git(&gateway, &["clone", "-q", "work", "mounted/clone"]).good();
    git(&gateway, &["-C", "mounted/clone", "status", "--porcelain"]).good();
    fs::write(at.join("clone/new"), "new").unwrap();
    fs::rename(at.join("clone/new"), at.join("clone/run")).unwrap();
    assert_eq!(fs::read_dir(at.join("clone/deep")).unwrap().count(), 101);
    drop(mounted);
    assert_eq!(gateway.exec("alice", "cd clone && git log --oneline | wc -l && git status --porcelain").good(), "1\n M run\n");
}
