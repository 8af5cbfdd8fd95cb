//! What people do inside their containers, to the gateway and to others: nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fault::{holdings, pause, steady};
use gateway::{Gateway, finish, image, run, wait_for};

#[test]
fn a_fork_bomb_is_its_owners_own() {
    let gateway = Gateway::start(&format!("\n[template.default]\nimage = \"{}\"\nmemory = \"256MiB\"\npids = 64\ncpus = 1.0\n", image()));
    gateway.exec("bob", "true").good();
    gateway.exec("alice", "echo hers > file").good();
    let mut bomb = gateway.ssh("alice");
    bomb.arg("bomb() { bomb | bomb & }; bomb; sleep 20").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut bomb = bomb.spawn().unwrap();
    let cgroup = || run(Command::new("docker").args(["inspect", "-f", "{{.State.Pid}}", &gateway.container("alice")])).good();
    let pid = cgroup();
    let group = fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let pids = group.lines().find_map(|line| line.split_once(":pids:").map(|(_, path)| format!("/sys/fs/cgroup/pids{path}/pids.current")));
    let pids = pids.unwrap_or_else(|| format!("/sys/fs/cgroup{}/pids.current", group.trim().trim_start_matches("0::")));
    wait_for("the bomb to have gone off", || fs::read_to_string(&pids).is_ok_and(|count| count.trim().parse::<u32>().unwrap() >= 50));
    for _ in 0..5 {
        let since = Instant::now();
        assert_eq!(gateway.exec("bob", "echo here").good(), "here\n");
        assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    }
    assert!(fs::read_to_string(&pids).unwrap().trim().parse::<u32>().unwrap() <= 64);
    // Somebody who cannot start a process in her own container is told so, and not left waiting.
    let since = Instant::now();
    let stuck = gateway.exec("alice", "true");
    assert!(since.elapsed() < Duration::from_secs(40), "{stuck:?} after {:?}", since.elapsed());
    bomb.kill().unwrap();
    bomb.wait().unwrap();
    run(Command::new("docker").args(["kill", &gateway.container("alice")])).good();
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
}

#[test]
fn what_is_written_to_the_first_process_is_bounded_on_disk() {
    let gateway = Gateway::start("");
    let before = holdings(gateway.pid());
    gateway.exec("alice", "timeout 4 yes > /proc/1/fd/1; true").good();
    let log = run(Command::new("docker").args(["inspect", "-f", "{{.LogPath}}", &gateway.container("alice")])).good();
    let dir = std::path::Path::new(log.trim()).parent().unwrap();
    let size = |prefix: &str| -> u64 {
        fs::read_dir(dir)
            .unwrap()
            .flatten()
            .filter(|file| file.file_name().to_string_lossy().contains(prefix))
            .map(|file| file.metadata().unwrap().len())
            .sum()
    };
    assert!(size("-json.log") <= 4 << 20, "{} bytes of log", size("-json.log"));
    assert!(holdings(gateway.pid()).memory <= before.memory + 16 * 1024);
    assert!(!gateway.log().contains("y\\ny"), "it is not the gateway's log");
    gateway.exec("alice", "true").good();
}

#[test]
fn start_up_files_are_her_own_trouble() {
    let gateway = Gateway::start("");
    let dir = gateway.dir.path();
    fs::write(dir.join("local"), "content\n").unwrap();
    let options = |gateway: &Gateway| gateway.client_options();
    let scp = |to: &str, args: &[&str]| {
        let mut command = Command::new("scp");
        command.args(options(&gateway)).args(args).arg("-P").arg(gateway.ssh_port.to_string()).arg(dir.join("local"));
        run(command.arg(format!("alice@127.0.0.1:{to}")))
    };
    // Bash reads it for every command that comes over the network, if at all; sftp does not run a shell's start-up files.
    gateway.exec("alice", "echo 'echo garbage' > .bashrc; cp .bashrc .profile; cp .bashrc .bash_profile").good();
    assert_eq!(scp("by-sftp", &[]).good(), "");
    assert_eq!(gateway.exec("alice", "cat by-sftp").good().lines().last(), Some("content"));
    gateway.exec("alice", "echo 'exec sleep 1000' > .bashrc; cp .bashrc .profile; cp .bashrc .bash_profile");
    let mut mend = Command::new("sftp");
    mend.args(options(&gateway)).arg("-P").arg(gateway.ssh_port.to_string()).args(["-b", "-", "alice@127.0.0.1"]);
    let mended = gateway::run_with(&mut mend, b"rm .bashrc\nrm .profile\nrm .bash_profile\n");
    assert_eq!(mended.status, Some(0), "she mends it by sftp: {mended:?}");
    assert_eq!(scp("by-scp", &["-O"]).status, Some(0));
    assert_eq!(gateway.exec("alice", "cat by-scp").good(), "content\n");
}

#[test]
fn links_in_a_home_lead_the_gateway_nowhere() {
    let mut gateway = Gateway::start(&format!(
        "\n[template.default]\nimage = \"{}\"\nmemory = \"256MiB\"\nmotd = \"welcome\"\n[pool]\nsize = 1\n",
        image()
    ));
    let outside = gateway.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret\n").unwrap();
    let owner = |path: &std::path::Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.uid(), meta.gid(), meta.mode(), meta.ctime())
    };
    let before = [owner(&outside), owner(&outside.join("secret")), owner(std::path::Path::new("/etc/shadow"))];
    let path = outside.display();
    gateway
        .exec(
            "alice",
            &format!(
                "ln -s /etc/shadow .hushlogin; ln -s {path} link; ln -s {path}/secret .profile; ln -s / root; ln -s .. up; \
                 mkfifo .bash_profile .ssh 2>/dev/null; ln -s /etc/shadow .bashrc; mkdir -p a/b/c; ln -s ../../.. a/b/c/d; chmod 0 a; true"
            ),
        )
        .good();
    for how in ["kill", "rm", "restart"] {
        match how {
            "kill" => drop(run(Command::new("docker").args(["kill", &gateway.container("alice")]))),
            "rm" => drop(run(Command::new("docker").args(["rm", "-f", &gateway.container("alice")]))),
            _ => {
                gateway.stop();
                gateway.up();
            }
        }
        assert_eq!(gateway.exec("alice", "cat link/secret .hushlogin 2>/dev/null; pwd").text(), "/home/user\n", "after {how}");
    }
    assert_eq!([owner(&outside), owner(&outside.join("secret")), owner(std::path::Path::new("/etc/shadow"))], before);
    assert!(fs::symlink_metadata(gateway.home("alice").join("link")).unwrap().is_symlink());

    // Everything in it gone while she is in it, and the directory made useless: it is put right at the next start.
    gateway.exec("alice", "chmod -R u+rwx a; find . -mindepth 1 -delete; ls -A; touch new; chmod 0 .").good();
    let entered = gateway.exec("alice", "chmod 700 ~; ls ~");
    assert_eq!(entered.text(), "new\n", "{entered:?}");
    assert_eq!(fs::metadata(gateway.home("alice")).unwrap().uid(), 1000);
}

#[test]
fn who_ignores_to_be_asked_is_killed_after_the_grace() {
    let gateway = Gateway::start("\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\nstop_grace = \"2s\"\n");
    gateway.exec("alice", "setsid sh -c 'trap \"\" HUP TERM INT QUIT; echo $$ > ignores; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null & sleep 0.3").good();
    let since = Instant::now();
    wait_for("her container to be stopped", || gateway.container_state("alice") == "exited");
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    assert_eq!(gateway.exec("alice", "test -s ignores; pgrep -fc 'HUP TERM [I]NT'; true").good(), "0\n");
}

#[test]
fn output_that_nobody_reads_and_the_largest_files_are_no_memory_of_the_gateways() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    let before = holdings(gateway.pid()).memory;
    let mut stalled: Vec<_> = (0..8)
        .map(|_| {
            let mut command = gateway.ssh("alice");
            command.arg("yes; true").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    wait_for("all to be there", || gateway.metric("innkeeper_sessions_open") == Some(8.0));
    let during = steady(gateway.pid()).memory;
    pause(3_000);
    let later = holdings(gateway.pid()).memory;
    assert!(during <= before + 64 * 1024, "{before} {during}");
    assert!(later <= during + 2 * 1024, "it grows: {during} {later}");
    for child in &mut stalled {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A terminal that is filled with what a terminal obeys, and half of a character: it arrives as it is.
    let odd = gateway.exec("alice", "printf '\\033]0;x\\007\\377\\376\\000end'");
    assert_eq!(odd.stdout, b"\x1b]0;x\x07\xff\xfe\x00end");
    // Killing everything she may kill ends her sessions, not her container.
    let mut open = gateway.ssh("alice");
    let open =
        open.arg("echo begun > begun; exec sleep 1000").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a session to begin", || gateway.home("alice").join("begun").exists());
    gateway.exec("alice", "kill -9 -1").good();
    assert_eq!(finish(open, Duration::from_secs(20)).status, Some(255), "what OpenSSH's client makes of a signal");
    assert_eq!(gateway.exec("alice", "echo again").good(), "again\n");
}
