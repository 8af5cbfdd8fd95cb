//! Directories of the host in a workspace.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway::{Done, Gateway, docker, mounts_below, run, template, wait_for};

/// Directories of a test's own that may be mounted. What is mounted below them is unmounted when this is dropped.
struct Drives(tempfile::TempDir);

impl Drives {
    fn new() -> Self {
        let drives = Self(tempfile::Builder::new().prefix("innkeeper-drives-").tempdir().unwrap());
        fs::set_permissions(drives.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // As the whole of a host is where systemd runs.
        run(Command::new("mount").arg("--bind").args([drives.path(), drives.path()])).good();
        run(Command::new("mount").arg("--make-shared").arg(drives.path())).good();
        drives
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A directory in it with a file in it.
    fn with(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(1000), Some(1000)).unwrap();
        fs::write(path.join("file"), format!("of {name}\n")).unwrap();
        path
    }

    fn start(&self) -> Gateway {
        self.start_with("")
    }

    fn start_with(&self, more: &str) -> Gateway {
        Gateway::start(&format!("[mounts]\nallow = [\"{}\"]\n{more}", self.path().display()))
    }
}

impl Drop for Drives {
    fn drop(&mut self) {
        // All at once, whatever is mounted in it. Nobody left to tell, if this fails.
        Command::new("umount").args(["-R", "-l"]).arg(self.path()).status().ok();
    }
}

fn mount(gateway: &Gateway, account: &str, arguments: &[&str]) -> Done {
    run(gateway.innkeeper().args(["workspace", "mount", account]).args(arguments))
}

fn add(gateway: &Gateway, source: &Path, target: &str, more: &[&str]) -> Done {
    mount(gateway, "alice", &[&["add", source.to_str().unwrap(), target], more].concat())
}

#[test]
fn a_directory_appears_as_it_is_allowed_and_the_container_follows_what_is_set() {
    let drives = Drives::new();
    let (shared, own) = (drives.with("shared"), drives.with("own"));
    let mut gateway = drives.start_with("[pool]\nsize = 1\n");
    wait_for("the pool to be full", || gateway.pool() == 1);
    add(&gateway, &shared, "/mnt/shared", &[]).good();
    assert_eq!(
        gateway.exec("alice", "cat /mnt/shared/file; touch /mnt/shared/new 2>&1").text(),
        "of shared\ntouch: cannot touch '/mnt/shared/new': Read-only file system\n"
    );
    assert_eq!(gateway.pool(), 1, "made, not claimed");
    let options = gateway.exec("alice", "grep ' /mnt/shared ' /proc/self/mountinfo | cut -d' ' -f6").good();
    assert!(["ro", "nosuid", "nodev"].iter().all(|option| options.trim().split(',').any(|has| has == *option)), "{options}");

    // Not under somebody who is in it.
    let held = gateway.hold("alice", "echo up; cat");
    let before = gateway.inspect("alice", "{{.Id}}");
    let said = add(&gateway, &own, "/home/user/own", &["--read-write"]).good();
    assert!(said.contains("from the next start of its container on"), "{said}");
    assert_eq!(gateway.exec("alice", "ls own 2>&1").status, Some(2));
    drop(held);
    docker(&["stop", &gateway.container("alice")]);
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("your container was made anew, as what appears in it from the host has changed");
    terminal.send("exit\n");
    assert_ne!(gateway.inspect("alice", "{{.Id}}"), before);
    assert_eq!(
        gateway.exec("alice", "echo hers >own/new && cat own/new /mnt/shared/file; stat -c %U own").good(),
        "hers\nof shared\nuser\n"
    );
    assert_eq!(fs::read_to_string(own.join("new")).unwrap(), "hers\n");

    // The same set: the same container, also after a kill and a host that has lost its mounts.
    let same = gateway.inspect("alice", "{{.Id}}");
    docker(&["stop", &gateway.container("alice")]);
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat own/new").good(), "hers\n");
    assert_eq!(gateway.inspect("alice", "{{.Id}}"), same);
    let listed = mount(&gateway, "alice", &["list"]).good();
    assert!(listed.contains("/home/user/own") && listed.contains("read-write") && listed.contains("read-only"), "{listed}");
    mount(&gateway, "alice", &["remove", "/home/user/own"]).good();
    mount(&gateway, "alice", &["remove", "/mnt/shared"]).good();
    docker(&["stop", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", "ls own /mnt").good(), "/mnt:\n\nown:\n", "an empty directory of hers is left");
    drop(gateway);
    assert!(own.join("new").exists() && shared.join("file").exists(), "what is the host's is untouched");
}

#[test]
fn a_drive_that_goes_and_comes_keeps_nobody_out() {
    let drives = Drives::new();
    let parent = drives.with("alice");
    fs::create_dir(parent.join("cloud")).unwrap();
    let gateway = drives.start();
    add(&gateway, &parent, "/mnt/drives", &[]).good();
    let _held = gateway.hold("alice", "echo up; cat");
    // Mounted on the host while she is in it, as rclone would, and away again.
    let cloud = parent.join("cloud");
    let on = || run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&cloud)).good();
    on();
    fs::write(cloud.join("remote"), "far away\n").unwrap();
    fs::set_permissions(&cloud, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(gateway.exec("alice", "cat /mnt/drives/cloud/remote").good(), "far away\n");
    run(Command::new("umount").arg(&cloud)).good();
    assert_eq!(gateway.exec("alice", "ls /mnt/drives/cloud").good(), "");
    on();
    gateway.exec("alice", "mountpoint -q /mnt/drives/cloud").good();
    // The gateway lets go of all it has mounted, and the host's own mount stays.
    docker(&["rm", "-f", &gateway.container("alice")]);
    gateway.wait_sweeps(3);
    assert!(mounts_below(&gateway.state().join("slots")) <= 2 && mounts_below(&cloud) == 1);
    run(Command::new("umount").arg(&cloud)).good();

    // Gone altogether: she gets in, is told, and has it again at the next start.
    let away = drives.path().join("away");
    fs::rename(&parent, &away).unwrap();
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("/mnt/drives is not there right now; tell the administrator");
    terminal.send("exit\n");
    terminal.end();
    let listed = mount(&gateway, "alice", &["list"]).good();
    assert!(listed.contains("not to be had"), "{listed}");
    assert_eq!(gateway.exec("alice", "ls /mnt").good(), "");
    fs::rename(&away, &parent).unwrap();
    docker(&["stop", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", "cat /mnt/drives/file").good(), "of alice\n");
}

#[test]
fn nothing_is_mounted_that_is_not_allowed_whatever_it_is_called() {
    let drives = Drives::new();
    let own = drives.with("own");
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("file"), "not hers\n").unwrap();
    symlink(elsewhere.path(), drives.path().join("out")).unwrap();
    let gateway = drives.start();
    let state = gateway.state();
    for source in [
        &drives.path().join("out"),
        elsewhere.path(),
        &own.join("../../"),
        &state,
        Path::new("/"),
        Path::new("/run"),
        &own.join("file"),
        &own.join("none"),
    ] {
        let done = add(&gateway, source, "/data", &[]);
        assert!(done.status == Some(1) && done.stderr.starts_with("innkeeper: /"), "{source:?} {done:?}");
    }
    for target in [
        "/",
        "/home/user",
        "/home",
        "/proc/1",
        "/etc",
        "/etc/x",
        "/dev/shm",
        "/.innkeeper",
        "/usr/bin",
        "data",
        "/a/../etc",
        "/a\nb",
        "/a:b",
        "",
    ] {
        let done = add(&gateway, &own, target, &[]);
        assert_eq!(done.status, Some(1), "{target:?} {done:?}");
    }
    // What was allowed becomes a way out, by somebody who may write to it: the container starts without.
    let inner = own.join("inner");
    fs::create_dir(&inner).unwrap();
    add(&gateway, &inner, "/data", &["--read-write"]).good();
    fs::remove_dir(&inner).unwrap();
    symlink(elsewhere.path(), &inner).unwrap();
    assert_eq!(gateway.exec("alice", "cat /data/file 2>&1; true").good(), "cat: /data/file: No such file or directory\n");
    assert!(gateway.log().contains("is not where it was"), "{}", gateway.log());
    // And her home a way out for the engine.
    let home = gateway.home("alice");
    symlink(elsewhere.path(), home.join("link")).unwrap();
    add(&gateway, &own, "/home/user/link/x", &[]).good();
    docker(&["stop", &gateway.container("alice")]);
    gateway.exec("alice", "true").good();
    assert!(!elsewhere.path().join("x").exists());
    // Taken out of the configuration, it is not mounted any more.
    mount(&gateway, "alice", &["remove", "/home/user/link/x"]).good();
    add(&gateway, &own, "/own", &[]).good();
    gateway.configure(&template(""));
    gateway.reload();
    gateway.wait_metric("innkeeper_reloads_total{outcome=\"applied\"}", |count| count == 1.0);
    docker(&["stop", &gateway.container("alice")]);
    gateway.exec("alice", "test ! -e /own/file").good();
}
