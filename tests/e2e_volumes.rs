//! Volumes beside the home, seen by the people in them: through a real gateway, with a real client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/filesystem.rs"]
mod filesystem;
#[path = "common/gateway.rs"]
mod gateway;

use filesystem::unmount_below;
use gateway::{Gateway, docker, has_sys_resource, mounts_below, run, template, wait_for};

const CLAIMS: &str = "innkeeper_starts_total{path=\"claim\"}";
const WRITE: &str = "for d in ~ /data /srv/cache; do echo $d > $d/file || exit; done";
const READ: &str = "cat ~/file /data/file /srv/cache/file";
const FILES: &str = "/home/user\n/data\n/srv/cache\n";
const DATA: (&str, &str, &str) = ("data", "/data", "32MiB");
const CACHE: (&str, &str, &str) = ("cache", "/srv/cache", "32MiB");

/// Sections of a configuration with this driver, these sections, and volumes of these names, paths and sizes.
fn sections(driver: &str, more: &str, volumes: &[(&str, &str, &str)]) -> String {
    let mut text = format!("[home]\ndriver = \"{driver}\"\n{more}\n{}", template("disk = \"64MiB\""));
    for (name, path, disk) in volumes {
        text.push_str(&format!("\n[[template.default.volume]]\nname = \"{name}\"\npath = \"{path}\"\ndisk = \"{disk}\"\n"));
    }
    text
}

/// Tells a gateway of other settings, and waits until it has them.
fn reload(gateway: &Gateway, sections: &str) {
    let applied = "innkeeper_reloads_total{outcome=\"applied\"}";
    let before = gateway.metric(applied).unwrap_or(0.0);
    gateway.configure(sections);
    gateway.reload();
    gateway.wait_metric(applied, |now| now > before);
}

/// Volumes are as lasting as a home is, with this driver.
fn last(driver: &str) {
    let mut gateway = Gateway::start(&sections(driver, "[pool]\nsize = 1", &[DATA, CACHE]));
    wait_for("the pool to be filled", || gateway.pool() == 1);
    gateway.exec("alice", WRITE).good();
    gateway.wait_metric(CLAIMS, |count| count == 1.0);
    let mounts =
        gateway.exec("alice", "grep -E ' (/home/user|/data|/srv/cache) ' /proc/mounts; stat -c '%U %G %a' /data /srv/cache").good();
    assert!(mounts.ends_with("user user 700\nuser user 700\n"), "{mounts}");
    // The slot's own is below what was mounted on it.
    for path in ["/home/user", "/data", "/srv/cache"] {
        let last = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(path)).unwrap();
        assert!(last.contains("nosuid") && last.contains("nodev"), "{mounts}");
    }
    assert_eq!(gateway.exec("bob", "ls -A /data /srv/cache").good(), "/data:\n\n/srv/cache:\n", "another's are another's");

    // Another container, that ran already.
    wait_for("the pool to be filled again", || gateway.pool() == 1);
    docker(&["rm", "-f", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    wait_for("three to be claimed", || gateway.metric(CLAIMS).is_some_and(|count| (2.0..=3.0).contains(&count)));

    // The gateway is killed, and the container goes on; then the host is started anew, and nothing is mounted.
    let container = gateway.inspect("alice", "{{.Id}}");
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    docker(&["kill", &container]);
    gateway.kill();
    for (name, _) in gateway.containers().iter().filter(|(name, _)| *name != gateway.container("alice")) {
        docker(&["rm", "-f", name]);
    }
    unmount_below(&gateway.state());
    assert_eq!(mounts_below(&gateway.state()), 0);
    gateway.up();
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    assert_eq!(gateway.inspect("alice", "{{.Id}}"), container, "the same, started again");

    // Killed while it stands still, with slots that are nobody's: they go, what was on them stays.
    docker(&["rm", "-f", &container]);
    gateway.wait_sweeps(2);
    let slots = || std::fs::read_dir(gateway.state().join("slots")).unwrap().count();
    wait_for("only the pool's to be left", || gateway.pool() == 1 && slots() == 3);
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    assert_eq!(mounts_below(&gateway.state()), 0);
    assert_eq!(std::fs::read_dir(gateway.state().join("slots")).unwrap().count(), 0);
    gateway.up();
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
}

#[test]
fn volumes_in_directories_last_as_a_home_does() {
    last("directory");
}

#[test]
fn volumes_in_images_last_as_a_home_does() {
    last("loop");
}

#[test]
fn a_full_volume_leaves_the_others_and_the_home_alone() {
    let gateway = Gateway::start(&sections("loop", "", &[DATA, CACHE]));
    let said = gateway.exec("alice", "dd if=/dev/zero of=/data/big bs=64k; echo $?");
    assert!(said.text().trim() == "1" && said.stderr.contains("No space left on device"), "{said:?}");
    gateway.exec("alice", "head -c 8M /dev/zero > /srv/cache/some; head -c 16M /dev/zero > some; sync; ls -l /srv/cache/some some").good();
    let status = gateway.exec("alice", "innkeeper-status").good();
    let line = |start: &str| status.lines().any(|line| line.starts_with(start) && line.contains("MiB of") && line.contains("files"));
    assert!(line("home ") && line("volume    data at /data: ") && line("volume    cache at /srv/cache: "), "{status}");
    let mut told = String::new();
    // A login does not wait for long for what its disks say.
    wait_for("her to be told", || {
        let mut terminal = gateway.terminal("alice", "");
        terminal.send("echo pro''mpt\n");
        told = terminal.expect("prompt");
        terminal.send("exit\n");
        told.contains("your volume data is 100% full") || told.contains("your volume data is 99% full")
    });
    assert!(told.contains("du -h /data") && !told.contains("your home") && !told.contains("volume cache"), "{told}");
    gateway.exec("alice", "rm /data/big && echo room > /data/file").good();

    // A larger one, while she is in it.
    let size = || -> u64 { gateway.exec("alice", "df -B1 --output=size /data | tail -1").good().trim().parse().unwrap() };
    let held = gateway.hold("alice", "echo up; sleep 100");
    reload(&gateway, &sections("loop", "", &[("data", "/data", "128MiB"), CACHE]));
    gateway.exec("alice", "true").good();
    assert_eq!(size() > 100 << 20, has_sys_resource(), "while it is in use it takes CAP_SYS_RESOURCE");
    drop(held);
    reload(&gateway, &sections("loop", "[idle]\ntimeout = \"1s\"\nkeep_busy = false", &[("data", "/data", "128MiB"), CACHE]));
    wait_for("her container to be stopped", || gateway.container_state("alice") == "exited");
    wait_for("all to be let go of", || mounts_below(&gateway.state().join("homes")) == 0);
    assert!(size() > 100 << 20);
    assert_eq!(gateway.exec("alice", "cat /data/file").good(), "room\n");
}

#[test]
fn a_template_with_other_volumes_makes_another_container_at_the_next_start() {
    let mut gateway = Gateway::start(&sections("loop", "", &[DATA, CACHE]));
    gateway.exec("alice", WRITE).good();
    let container = |gateway: &Gateway| gateway.inspect("alice", "{{.Id}}");
    let first = container(&gateway);
    let held = gateway.hold("alice", "echo up; sleep 100");
    let idle = "[idle]\ntimeout = \"1s\"\nkeep_busy = false";
    let logs = ("logs", "/srv/logs", "32MiB");
    reload(&gateway, &sections("loop", idle, &[DATA, logs]));
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    assert_eq!(container(&gateway), first, "nobody is put out");
    drop(held);
    wait_for("her container to be stopped", || gateway.container_state("alice") == "exited");
    let said = gateway.exec("alice", "cat ~/file /data/file; echo new > /srv/logs/file; grep -c /srv/cache /proc/mounts");
    assert_eq!(said.text(), "/home/user\n/data\n0\n", "{said:?}");
    assert_ne!(container(&gateway), first);
    assert!(gateway.log().contains("replacing the container; its files are all in its home and volumes"), "{}", gateway.log());
    assert!(gateway.home("alice.cache").is_file(), "what no template names any more stays");

    // Back again, and killed before anybody is there to see it.
    wait_for("her container to be stopped", || gateway.container_state("alice") == "exited");
    gateway.kill();
    gateway.configure(&sections("loop", idle, &[DATA, CACHE]));
    gateway.up();
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    assert_eq!(mounts_below(&gateway.state()), 0);
    let mut left: Vec<_> = std::fs::read_dir(gateway.state().join("homes")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["alice", "alice.cache", "alice.data", "alice.logs"]);
}

#[test]
fn where_nothing_can_be_mounted_volumes_are_in_the_container_from_the_first() {
    let volumes = sections("directory", "[pool]\nsize = 1", &[DATA, CACHE]);
    let mut gateway = Gateway::start(&volumes);
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    let slots = gateway.state().join("slots");
    std::fs::remove_dir(&slots).unwrap();
    std::fs::write(&slots, "in the way").unwrap();
    gateway.up();
    assert!(gateway.log().contains("nothing can be mounted"));
    gateway.exec("alice", WRITE).good();
    docker(&["rm", "-f", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    docker(&["stop", "-t1", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", READ).good(), FILES);
    assert_eq!(gateway.pool(), 0);
    gateway.stop();
    std::fs::remove_file(&slots).unwrap();
}

#[test]
fn check_says_what_is_wrong_with_volumes() {
    let gateway = Gateway::start("");
    let check = |volumes: &[(&str, &str, &str)]| {
        gateway.configure(&sections("loop", "", volumes));
        run(gateway.innkeeper().arg("check"))
    };
    assert_eq!(check(&[DATA, CACHE]).status, Some(0));
    let said = check(&[("data", "/etc/x", "32MiB"), ("data", "/home/user/x", "1MiB"), ("Up", "/srv", "32MiB")]);
    let text = said.text();
    assert_eq!(said.status, Some(64), "{text}");
    for wrong in [
        "template.default.volume.0.path: is in /etc",
        "template.default.volume.1.name: there is another volume called data",
        "template.default.volume.1.path: is in or around the home, /home/user",
        "template.default.volume.1.disk: must be at least 16MiB",
        "template.default.volume.2.name: volume name \"Up\" has a character other than",
    ] {
        assert!(text.contains(wrong), "{wrong}\n{text}");
    }
    gateway.configure("");
}

#[test]
fn a_volume_of_one_workspace_is_limited_while_it_is_in_use_and_it_is_said_how_that_holds() {
    let gateway = Gateway::start(&sections("loop", "", &[DATA, CACHE]));
    let held = gateway.hold("alice", "echo up; sleep 1000");
    gateway.exec("bob", "true").good();
    let size = |account: &str| -> u64 { gateway.exec(account, "df -B1 --output=size /data | tail -1").good().trim().parse().unwrap() };
    let limit = |arguments: &[&str]| run(gateway.innkeeper().args(["workspace", "limit", "alice"]).args(arguments));
    let said = limit(&["--volume", "data=128MiB"]).good();
    if has_sys_resource() {
        assert!(said.contains("volumes.data.disk: enforced now"), "{said}");
    } else {
        assert!(said.contains("volumes.data.disk: enforced from the next start on"), "{said}");
    }
    assert_eq!(size("alice") > 100 << 20, has_sys_resource());
    assert!(size("bob") < 64 << 20, "another's is as the template says");
    let said = limit(&["--volume", "data=48MiB", "--volume", "cache=64MiB", "--volume-inodes", "data=200000", "--inodes", "100000"]).good();
    if has_sys_resource() {
        assert!(said.contains("volumes.data.disk: enforced from the next start on: a file system is made smaller only"), "{said}");
    }
    assert!(said.contains("volumes.data.inodes: not possible: ") && said.contains("  inodes: not possible: "), "{said}");
    let unknown = limit(&["--volume", "dta=1GiB"]);
    assert!(unknown.status == Some(1) && unknown.stderr.contains("no volume dta; it has: cache, data"), "{unknown:?}");

    gateway.exec("alice", "head -c 8M /dev/zero > /data/big; sync").good();
    let shown: serde_json::Value =
        serde_json::from_str(&run(gateway.innkeeper().args(["workspace", "show", "alice", "--json"])).good()).unwrap();
    let data = shown["storage"].as_array().unwrap().iter().find(|one| one["volume"] == "data").unwrap();
    assert!(data["bytes"].as_u64().unwrap() > 8 << 20 && data["inodes"].as_u64().is_some(), "{shown}");
    assert_eq!(
        (&shown["limits"]["volumes"]["cache"]["disk"], &shown["own_limits"]["volumes"]["cache"]["disk"]),
        (&"64MiB".into(), &"64MiB".into())
    );
    let table = limit(&[]).good();
    assert!(table.lines().any(|line| line.starts_with("volumes.data.disk") && line.contains("48MiB")), "{table}");
    gateway
        .wait_metric("innkeeper_workspace_volume_limit_bytes{volume=\"data\",workspace=\"alice\"}", |bytes| bytes == f64::from(48 << 20));
    gateway.wait_metric("innkeeper_workspace_volume_used_bytes{volume=\"data\",workspace=\"alice\"}", |bytes| bytes > 8e6);

    // Smaller, once nobody is in it.
    gateway.exec("alice", "rm /data/big && echo hers > /data/file").good();
    drop(held);
    run(gateway.innkeeper().args(["workspace", "stop", "alice"])).good();
    assert!(size("alice") < 48 << 20);
    assert_eq!(gateway.exec("alice", "cat /data/file").good(), "hers\n");
    let table = limit(&[]).good();
    assert!(table.lines().any(|line| line.starts_with("volumes.data.disk") && line.ends_with("enforced now")), "{table}");
}

#[test]
fn in_a_directory_a_limit_is_said_to_be_measured() {
    let gateway = Gateway::start(&sections("directory", "", &[DATA]));
    gateway.exec("alice", "true").good();
    let said =
        run(gateway.innkeeper().args(["workspace", "limit", "alice", "--disk", "1GiB", "--pids", "100", "--volume", "data=1GiB"])).good();
    for line in ["  disk: measured only: it is a plain directory", "  volumes.data.disk: measured only", "  pids: enforced now"] {
        assert!(said.lines().any(|found| found.starts_with(line)), "{line}\n{said}");
    }
}
