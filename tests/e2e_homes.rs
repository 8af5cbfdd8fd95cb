//! Homes with a limit, seen by the people in them: through a real gateway, with a real client.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/filesystem.rs"]
mod filesystem;
#[path = "common/gateway.rs"]
mod gateway;

use std::process::Command;

use filesystem::FileSystem;
use gateway::{Gateway, has_sys_resource, mounts_below, run, template, wait_for};

const CLAIMS: &str = "innkeeper_starts_total{path=\"claim\"}";

/// Sections of a configuration with this driver, a pool of one, and homes of this size.
fn sections(home: &str, disk: &str) -> String {
    format!("[home]\n{home}\n[pool]\nsize = 1\n{}", template(&format!("disk = \"{disk}\"\nmotd = \"welcome\"")))
}

/// What a person reads at a terminal before her first prompt.
fn greeting(gateway: &Gateway, account: &str) -> String {
    let mut terminal = gateway.terminal(account, "");
    terminal.send("echo pro''mpt\n");
    let read = terminal.expect("prompt");
    terminal.send("exit\n");
    read
}

/// The greeting, once it is as wanted: a login does not wait for long for what its disk says.
fn told(gateway: &Gateway, account: &str, so: impl Fn(&str) -> bool) -> String {
    let mut read = String::new();
    wait_for("her to be told", || {
        read = greeting(gateway, account);
        so(&read)
    });
    read
}

#[test]
fn an_image_limits_a_home_and_she_gets_in_when_it_is_full() {
    let gateway = Gateway::start(&sections("driver = \"loop\"", "64MiB"));
    wait_for("the pool to be filled", || gateway.pool() == 1);
    let full = "dd if=/dev/zero of=big bs=64k; echo $?";
    let said = gateway.exec("alice", full);
    assert!(said.text().trim() == "1" && said.stderr.contains("No space left on device"), "{said:?}");
    // Through a slot, into a container that ran already.
    gateway.wait_metric(CLAIMS, |count| count == 1.0);
    let mount = gateway.exec("alice", "grep ' /home/user ' /proc/mounts; ls -A; stat -c '%U %a' .").good();
    assert!(mount.contains(" ext4 ") && mount.contains("nosuid") && mount.contains("nodev"), "{mount}");
    assert!(mount.ends_with("big\nuser 700\n"), "{mount}");
    // The neighbour, and the host.
    assert_eq!(gateway.exec("bob", "echo his > file; cat file").good(), "his\n");
    assert!(gateway.state().join("homes/alice").is_file());

    // At a hundred per cent she gets in, by whatever way her container comes to run, is told so, and can make room.
    for how in ["", "stop", "rm"] {
        match how {
            "stop" => run(Command::new("docker").args(["stop", "-t1", &gateway.container("alice")])).good(),
            "rm" => run(Command::new("docker").args(["rm", "-f", &gateway.container("alice")])).good(),
            _ => String::new(),
        };
        // Some blocks may be left that no file of this one's size could have.
        let full = |read: &str| read.contains("your home is 100% full") || read.contains("your home is 99% full");
        let read = told(&gateway, "alice", full);
        assert!(read.contains("welcome") && read.contains("delete something"), "{how}: {read}");
    }
    let status = gateway.exec("alice", "innkeeper-status").good();
    assert!(status.lines().any(|line| line.starts_with("home ") && line.contains("MiB of") && line.contains("files")), "{status}");
    assert_eq!(gateway.exec("alice", "rm big && echo room > file && cat file").good(), "room\n");
    assert!(!greeting(&gateway, "alice").contains("full"));
    gateway.exec("alice", "head -c 46M /dev/zero > most").good();
    let read = told(&gateway, "alice", |read| read.contains("your home is 8"));
    assert!(!read.contains("delete something"), "{read}");
    gateway.exec("alice", "head -c 51M /dev/zero > most").good();
    told(&gateway, "alice", |read| read.contains("your home is 9"));
    assert!(!gateway.exec("alice", "true").stderr.contains("full"), "only people are told");
}

#[test]
fn an_image_grows_and_goes_with_its_container_and_its_gateway() {
    let mut gateway = Gateway::start(&sections("driver = \"loop\"", "64MiB"));
    gateway.exec("alice", "echo hers > file").good();
    let size = |gateway: &Gateway| -> u64 { gateway.exec("alice", "df -B1 --output=size . | tail -1").good().trim().parse().unwrap() };
    assert!(size(&gateway) < 64 << 20);
    let held = gateway.hold("alice", "echo up; sleep 100");
    gateway.configure(&sections("driver = \"loop\"", "256MiB"));
    gateway.reload();
    wait_for("the settings to be applied", || gateway.log().contains("configuration applied"));
    gateway.exec("alice", "true").good();
    let at_once = size(&gateway) > 200 << 20;
    let capable = has_sys_resource();
    assert_eq!(at_once, capable, "while it is in use it takes CAP_SYS_RESOURCE");
    if !capable {
        assert!(gateway.log().contains("changed later") && gateway.log().contains("CAP_SYS_RESOURCE"), "{}", gateway.log());
    }
    drop(held);

    // Nothing is torn, and nothing mounted twice, by a kill of the gateway.
    gateway.kill();
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    let mounted = |gateway: &Gateway| mounts_below(&gateway.state().join("homes"));
    assert_eq!(mounted(&gateway), 1);

    // One that stands still has no mount and no loop device, and is the size it should be when it comes back.
    gateway.stop();
    let idle = sections("driver = \"loop\"", "256MiB") + "\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\n";
    gateway.configure(&idle);
    gateway.up();
    wait_for("her container to be stopped", || gateway.container_state("alice") == "exited");
    wait_for("her home to be let go of", || mounted(&gateway) == 0);
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    assert!(size(&gateway) > 200 << 20, "{}", gateway.log());

    // Somebody else starts it: the home is there all the same.
    wait_for("her container to be stopped", || gateway.container_state("alice") == "exited" && mounted(&gateway) == 0);
    run(Command::new("docker").args(["start", &gateway.container("alice")])).good();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");

    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    assert_eq!(mounted(&gateway), 0);
    assert_eq!(std::fs::read_dir(gateway.state().join("homes")).unwrap().count(), 1, "her home, and nothing else");
}

#[test]
fn a_subvolume_grows_while_it_is_in_use() {
    let disk = FileSystem::make("btrfs", 1 << 30, "").unwrap();
    let home = format!("driver = \"btrfs\"\nroot = \"{}\"", disk.path().join("homes").display());
    let gateway = Gateway::start(&sections(&home, "32MiB"));
    let said = gateway.exec("alice", "dd if=/dev/zero of=big bs=64k; echo $?");
    assert!(said.text().trim() == "1" && said.stderr.contains("quota exceeded"), "{said:?}");
    Command::new("sync").status().unwrap();
    told(&gateway, "alice", |read| read.contains("% full") && read.contains("delete something"));
    let _held = gateway.hold("alice", "echo up; sleep 100");
    gateway.configure(&sections(&home, "128MiB"));
    gateway.reload();
    wait_for("the settings to be applied", || gateway.log().contains("configuration applied"));
    gateway.exec("alice", "head -c 64M /dev/zero > more").good();
    gateway.exec("alice", "rm big more").good();
}

#[test]
fn a_plain_directory_is_measured_beside_the_logins() {
    let gateway = Gateway::start(&sections("driver = \"directory\"", "10MiB"));
    gateway.exec("alice", "head -c 9500K /dev/zero > most").good();
    let _held = gateway.hold("alice", "echo up; sleep 100");
    wait_for("it to be measured", || gateway.exec("alice", "innkeeper-status").good().contains("home      9.3 MiB of 10.0 MiB"));
    told(&gateway, "alice", |read| read.contains("your home is 9"));
    // What was written last is seen after a stop as well.
    gateway.exec("alice", "rm most; head -c 4M /dev/zero > last").good();
    run(gateway.innkeeper().args(["workspace", "stop", "alice"])).good();
    wait_for("it to be measured once more", || {
        let all: serde_json::Value = serde_json::from_str(&run(gateway.innkeeper().args(["workspace", "list", "--json"])).good()).unwrap();
        all[0]["usage"]["disk"].as_u64().is_some_and(|bytes| (4 << 20..5 << 20).contains(&bytes))
    });
}

#[test]
fn check_says_what_can_be_limited() {
    let gateway = Gateway::start("");
    let check = |sections: &str| {
        gateway.configure(sections);
        run(gateway.innkeeper().args(["check", "--online"])).text()
    };
    assert!(check("[home]\ndriver = \"directory\"\n").contains("home.driver: homes are plain directories"));
    assert!(check("[home]\ndriver = \"loop\"\n").contains("bytes and inodes are limited"));
    for driver in ["btrfs", "xfs"] {
        let said = check(&format!("[home]\ndriver = \"{driver}\"\n"));
        assert!(said.contains("✗ home.driver: ") && said.contains("choose another home.driver"), "{said}");
    }
    let said = check(&format!("[home]\ndriver = \"loop\"\n{}", template("disk = \"1MiB\"\ninodes = 1000000")));
    assert!(said.contains("disk: must be at least 16MiB") && said.contains("one for each 4096 bytes"), "{said}");
    let said = check(&format!("[home]\ndriver = \"btrfs\"\n{}", template("inodes = 1000")));
    assert!(said.contains("inodes: cannot be limited"), "{said}");
    gateway.configure("");
}

#[test]
fn a_loop_device_that_nobody_has_mounted_goes_at_a_start_and_by_the_sweep() {
    const LOOPS: &str = "innkeeper_orphans_removed_total{kind=\"loop\"}";
    let mut gateway = Gateway::start(&sections("driver = \"loop\"\n[idle]\ntimeout = \"1s\"\nkeep_busy = false", "64MiB"));
    gateway.exec("alice", "echo hers > file").good();
    let image = gateway.state().join("homes/alice");
    let rests = |gateway: &Gateway| gateway.container_state("alice") == "exited" && !mounted(gateway);
    let attach = || run(Command::new("losetup").args(["--find", "--show"]).arg(&image)).good().trim().to_owned();
    let attached = |device: &str| std::fs::exists(device.replace("/dev/", "/sys/block/") + "/loop/backing_file").unwrap();
    wait_for("her home to be let go of", || rests(&gateway));
    let device = attach();
    wait_for("the sweep to find it", || !attached(&device));
    gateway.wait_metric(LOOPS, |count| count == 1.0);
    gateway.kill();
    let device = attach();
    gateway.up();
    wait_for("the start to find it", || !attached(&device));
    gateway.wait_metric(LOOPS, |count| count == 1.0);
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
}

/// Whether alice's home is mounted anywhere.
fn mounted(gateway: &Gateway) -> bool {
    let point = gateway.state().join("homes/.mounts/alice");
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(point.to_str().unwrap())
}
