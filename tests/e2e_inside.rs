//! What a container is like from inside: how little it may, how little it sees, and what other images than ours still offer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use gateway::{Gateway, docker, image, run, run_with, template, wait_for};

#[test]
fn whoever_is_inside_is_nobody_special() {
    let gateway = Gateway::start(&template("pids = 123\ncpus = 1.5\nopen_files = 1000"));
    let status = gateway.exec("alice", "cat /proc/self/status").good();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
    assert_eq!(field("Uid:"), "1000\t1000\t1000\t1000");
    assert_eq!(gateway.exec("alice", "id -u; id -G; ulimit -n").good(), "1000\n1000\n1000\n");

    // No way up: no set-user-ID program helps, root has no password, and nothing of the system can be changed.
    for line in [
        "sudo -n true",
        "su -c true",
        "mount -t tmpfs none /mnt",
        "unshare -r true",
        "chroot / true",
        "touch /etc/x",
        "dmesg",
        "cat /dev/mem",
        "kill -9 1; test ! -e /proc/1",
        "echo 1 >/proc/sys/kernel/sysrq",
    ] {
        let done = gateway.exec("alice", &format!("{line} </dev/null"));
        assert!(done.status.is_some_and(|status| status != 0), "{line}: {done:?}");
    }
    assert_eq!(
        gateway.exec("alice", "find / -xdev -perm /6000 -type f 2>/dev/null; ls /var/run/docker.sock /run/docker.sock 2>/dev/null").text(),
        ""
    );
    let limits = gateway.inspect("alice", "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuQuota}} {{.HostConfig.Privileged}} {{.HostConfig.PublishAllPorts}}");
    assert_eq!(limits, format!("{0} {0} 123 150000 false false", 512 << 20));
}

#[test]
fn limits_hold_and_what_breaks_them_hurts_its_own_workspace_only() {
    let gateway = Gateway::start(&format!("[template.default]\nimage = \"{}\"\nmemory = \"64MiB\"\npids = 40\n", image()));
    gateway.exec("bob", "true").good();
    let hungry = gateway.exec("alice", "python3 -c 'x = bytearray(200 << 20)'; echo $?");
    assert_eq!(hungry.text(), "137\n", "what takes too much memory is killed, and its shell is not: {hungry:?}");
    let crowd = gateway.exec("alice", "for i in $(seq 100); do sleep 3 & done; wait");
    assert!(crowd.stderr.contains("Resource temporarily unavailable"), "{crowd:?}");
    assert_eq!(gateway.exec("bob", "echo fine").good(), "fine\n");
    wait_for("alice to be back", || gateway.exec("alice", "true").status == Some(0));
}

#[test]
fn secrets_of_the_gateway_are_not_seen_inside() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    let seen =
        gateway.exec("alice", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; cat /proc/self/mountinfo; env").good();
    for word in ["TOKEN", "PASSWORD", "SECRET", "innkeeper.db", "host_key", "accounts.toml", "docker.sock"] {
        assert!(!seen.contains(word), "{word}: {seen}");
    }
    assert!(docker(&["top", &gateway.container("alice")]).lines().count() > 1);
    // Of the state directory, the home is there, and what its init needs.
    let mounts: Vec<&str> = seen.lines().filter(|line| line.contains(gateway.dir.path().file_name().unwrap().to_str().unwrap())).collect();
    let mut targets: Vec<&str> = mounts.iter().filter_map(|line| line.split(' ').nth(4)).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["/.innkeeper", "/home/user"], "{mounts:?}");
}

#[test]
fn containers_do_not_reach_each_other() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "nohup python3 -m http.server 8000 >/dev/null 2>&1 &").good();
    let address = gateway.inspect("alice", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let reach = format!("python3 -c 'import socket; socket.create_connection((\"{address}\", 8000), 3)' 2>&1");
    wait_for("alice's server to listen", || gateway.exec("alice", &reach).status == Some(0));
    let other = gateway.exec("bob", &reach);
    assert!(
        other.status == Some(1)
            && (other.text().contains("timed out") || other.text().contains("refused") || other.text().contains("unreachable")),
        "{other:?}"
    );
    let name = run(gateway.ssh("bob").arg("getent hosts innkeeper.$(hostname).alice alice; true"));
    assert_eq!(name.text(), "", "nor do they know each other's names");
}

/// An image with busybox and nothing else, whose account's shell is one that it does not have.
fn bare_image() -> String {
    let tag = "innkeeper-test/bare:1".to_owned();
    // Tests in several processes want it at once.
    let lock = fs::File::create(std::env::temp_dir().join("innkeeper-test-bare.lock")).unwrap();
    lock.lock().unwrap();
    if run(Command::new("docker").args(["image", "inspect", &tag])).status == Some(0) {
        return tag;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in ["bin", "etc", "proc", "sys", "dev", "tmp", "home/user"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    chown(root.join("home/user"), Some(1000), Some(1000)).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for applet in run(Command::new("/bin/busybox").arg("--list")).good().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "user:x:1000:1000::/home/user:/bin/zsh\n").unwrap();
    let import = format!("tar -C '{}' -c . | docker import -c 'ENV PATH=/bin' - {tag}", root.display());
    run(Command::new("sh").args(["-c", &import])).good();
    tag
}

#[test]
fn an_image_that_lacks_things_costs_those_things_only() {
    let sections = format!("[pool]\nsize = 1\n[template.default]\nimage = \"{}\"\nmemory = \"64MiB\"\n", bare_image());
    let gateway = Gateway::start(&sections);
    assert_eq!(gateway.exec("alice", "echo $SHELL $0; pwd; id -u; echo hers >file").good(), "/bin/sh sh\n/home/user\n1000\n");
    assert_eq!(gateway.exec_with("alice", "cat", b"both ways").good(), "both ways");
    assert_eq!(gateway.exec("alice", "exit 7").status, Some(7));
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect("$ ");
    terminal.send("stty size; echo $TERM\r");
    terminal.expect("24 80\r\nxterm-256color\r\n");
    terminal.send("sh -c 'echo go; exec sleep 300'\r");
    terminal.expect("\r\ngo\r\n");
    terminal.send("\x03");
    terminal.expect("$ ");
    terminal.send("cat file; exit 4\r");
    terminal.expect("hers\r\n");
    assert_eq!(terminal.end().0, Some(4));

    let mut sftp = Command::new("sftp");
    sftp.args(gateway.client_options()).args(["-b", "-", "-P"]).arg(gateway.ssh_port.to_string()).arg("alice@127.0.0.1");
    let refused = run_with(&mut sftp, b"ls\n");
    assert!(refused.status == Some(255) && refused.stderr.contains("this image has no sftp-server"), "{refused:?}");
}
