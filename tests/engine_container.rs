//! What a container may and may not do, asked of the container itself and of the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

#[path = "common/container.rs"]
mod container;
#[path = "common/engine.rs"]
mod engine;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use container::{TestContainer, at_terminal, within};
use engine::{TestInstance, docker};
use innkeeper::attach::Program;
use innkeeper::engine::docker::Docker;
use innkeeper::engine::{Config, ContainerState, Engine, EngineError, Limits, Mount, NetworkSpec, Propagation};
use innkeeper::units::Size;
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn a_process_has_no_power_and_cannot_get_any() {
    let container = TestContainer::start("power", "busybox").await;
    for status in ["/proc/self/status", "/proc/1/status"] {
        let text = container.text(&format!("cat {status}")).await;
        let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(fields[set], "0000000000000000", "{set} of {status}");
        }
        assert_eq!((fields["NoNewPrivs"], fields["Seccomp"]), ("1", "2"), "{status}");
        assert_eq!(fields["Uid"], "1000\t1000\t1000\t1000");
        assert_eq!(fields["Gid"], "1000\t1000\t1000\t1000");
    }
    assert_eq!(container.text("ulimit -n; ulimit -c; hostname").await, "256\n0\nbox");
    assert_eq!(
        docker(&["inspect", "-f", "{{.HostConfig.Privileged}} {{.HostConfig.RestartPolicy.Name}}", &container.id.0]).trim(),
        "false no"
    );
    let log = docker(&["inspect", "-f", "{{.HostConfig.LogConfig}}", &container.id.0]);
    assert!(log.contains("max-size:1m"), "{log}");
}

#[tokio::test]
async fn the_kernel_keeps_the_limits() {
    let container = TestContainer::start("limits", "busybox").await;
    assert_eq!(limits(&container), (64 << 20, 64, 1.0));
    assert!(no_swap(&container), "swap is off");
    let more = Limits { cpus: 0.5, memory: Size::mib(128), pids: 100, open_files: 256 };
    container.engine.set_limits(&container.id, &more).await.unwrap();
    assert_eq!(limits(&container), (128 << 20, 100, 0.5));
    assert!(no_swap(&container), "swap stays off");

    let usage = container.engine.usage(&container.id).await.unwrap();
    assert!(usage.memory > 0 && usage.memory < 128 << 20 && usage.pids >= 1 && usage.cpu > Duration::ZERO, "{usage:?}");
    // More memory than there is may be asked for, but not had.
    let hog = container.run("tail /dev/zero", b"").await;
    assert_eq!(hog.exit, innkeeper::attach::Exit::Status(137));
}

#[tokio::test]
async fn containers_do_not_reach_each_other() {
    let a = TestContainer::start("icc", "busybox").await;
    let b = a.engine.create(&innkeeper::engine::ContainerSpec { name: format!("{}-b", a.instance.0), ..a.spec.clone() }).await.unwrap();
    a.engine.start(&b).await.unwrap();
    let address = docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &b.0]);
    let address = address.trim();
    docker(&["exec", "-d", &b.0, "nc", "-ll", "-p", "7777", "-e", "echo", "reached"]);
    // It listens: it is reached from inside itself, and from the host.
    within(async { while !docker_exec_reaches(&b.0, "127.0.0.1") {} }).await;
    assert!(std::net::TcpStream::connect_timeout(&format!("{address}:7777").parse().unwrap(), Duration::from_secs(5)).is_ok());
    let said = a.run(format!("nc -w 2 {address} 7777 </dev/null"), b"").await;
    assert!(said.stdout.is_empty() && said.exit != innkeeper::attach::Exit::Status(0), "{said:?}");
}

fn docker_exec_reaches(id: &str, address: &str) -> bool {
    let output = std::process::Command::new("docker").args(["exec", id, "nc", "-w", "2", address, "7777"]).output().unwrap();
    output.stdout == b"reached\n"
}

#[tokio::test]
async fn one_name_is_one_network_and_nobody_elses() {
    let (one, other) = (TestInstance::new("net"), TestInstance::new("net"));
    let connect = |instance: &TestInstance| Docker::connect(&Config::default(), &instance.0.parse().unwrap()).unwrap();
    let network = NetworkSpec { name: one.0.clone() };
    let engines: Vec<_> = (0..4).map(|_| connect(&one)).collect();
    let made = futures_util::future::join_all(engines.iter().map(|engine| engine.ensure_network(&network))).await;
    made.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    let filter = format!("name=^{}$", one.0);
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &filter]).lines().count(), 1);
    let Err(EngineError::Refused { why, .. }) = connect(&other).ensure_network(&network).await else { panic!("taken over") };
    assert!(why.contains("somebody else"), "{why}");
    connect(&other).remove_everything().await.unwrap();
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &filter]).lines().count(), 1);
    connect(&one).remove_everything().await.unwrap();
    assert_eq!(docker(&["network", "ls", "-q", "--filter", &filter]), "");
}

#[tokio::test]
async fn a_mount_made_later_appears_in_a_running_container() {
    let slots = SharedMount::new();
    let slot = slots.0.join("slot");
    std::fs::create_dir(&slot).unwrap();
    let mounts = vec![Mount { source: slot.clone(), target: "/home/user".to_owned(), read_only: false, propagation: Propagation::Slave }];
    let container = TestContainer::start_with(container::Way::Exec, "slot", "busybox", |spec| spec.mounts = mounts).await;
    assert_eq!(container.text("ls -A ~").await, "");
    let said = container.run("touch ~/lost", b"").await;
    assert_eq!(said.exit, innkeeper::attach::Exit::Status(1), "a slot without its home takes nothing");

    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("file"), "here").unwrap();
    mount(&["--bind", home.path().to_str().unwrap(), slot.to_str().unwrap()]);
    assert_eq!(container.text("cat ~/file").await, "here");
    // Nothing is left of it for whoever is next.
    container.engine.remove(&container.id).await.unwrap();
    assert!(std::process::Command::new("umount").arg(&slot).status().unwrap().success());
}

/// An empty directory that mounts travel out of.
struct SharedMount(PathBuf);

impl SharedMount {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("innkeeper-slots-").tempdir().unwrap().keep();
        let path = dir.to_str().unwrap();
        mount(&["--bind", path, path]);
        mount(&["--make-shared", path]);
        Self(dir)
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-R", "-l"]).arg(&self.0).status();
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn mount(args: &[&str]) {
    assert!(std::process::Command::new("mount").args(args).status().unwrap().success(), "mount {args:?}");
}

#[tokio::test]
async fn the_first_process_ends_at_once_reaps_and_asks_the_others_to_end() {
    for sh in ["busybox", "dash", "bash"] {
        let container = TestContainer::start(&format!("pid1-{sh}"), sh).await;
        // Children that lose their parent are the first process's to reap.
        container.text("for i in 1 2 3 4 5; do (sh -c 'sleep 0.05 & exit' ) ; done").await;
        container.until("! grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null").await;
        // The first process knows what to do with TERM as soon as its child is there.
        container.until("grep -q sleep /proc/[0-9]*/comm").await;
        let began = Instant::now();
        container.engine.stop(&container.id, Duration::from_secs(20)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(15), "{sh}: {:?} to stop a container in which nothing runs", began.elapsed());

        // A job that puts its things in order, and a shell at a terminal.
        container.engine.start(&container.id).await.unwrap();
        let job = "trap 'sleep 0.3; echo saved >~/state; exit' TERM; echo ready >~/state; while :; do sleep 1; done";
        let _job = container.open(&container::command(job)).await;
        let mut shell = container.open(&at_terminal(Program::LoginShell)).await;
        shell.input.write_all(b"echo here >~/shell\n").await.unwrap();
        container.until("test -s ~/shell && grep -q ready ~/state").await;
        let began = Instant::now();
        container.engine.stop(&container.id, Duration::from_secs(20)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "{sh}: {:?} to stop", began.elapsed());
        assert_eq!(container.engine.inspect(&container.id.0).await.unwrap().unwrap().state, ContainerState::Exited);
        container.engine.start(&container.id).await.unwrap();
        assert_eq!(container.text("cat ~/state").await, "saved", "{sh}");
    }
}

/// Memory in bytes, processes, CPUs: as the kernel has them, on either kind of cgroup.
fn limits(container: &TestContainer) -> (u64, u64, f64) {
    let read = |controller: &str, file: &str| std::fs::read_to_string(cgroup(container, controller).join(file)).unwrap();
    let number = |text: String| text.trim().parse::<u64>().unwrap();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory = number(read("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" }));
    let pids = number(read("pids", "pids.max"));
    let cpus = if v2 {
        let text = read("cpu", "cpu.max");
        let (quota, period) = text.trim().split_once(' ').unwrap();
        quota.parse::<f64>().unwrap() / period.parse::<f64>().unwrap()
    } else {
        read("cpu", "cpu.cfs_quota_us").trim().parse::<f64>().unwrap() / read("cpu", "cpu.cfs_period_us").trim().parse::<f64>().unwrap()
    };
    (memory, pids, cpus)
}

fn no_swap(container: &TestContainer) -> bool {
    let read = |file: &str| std::fs::read_to_string(cgroup(container, "memory").join(file)).ok();
    if let Some(swap) = read("memory.swap.max") {
        return swap.trim() == "0";
    }
    // Without swap accounting there is no second file, and the swappiness has to do.
    match read("memory.memsw.limit_in_bytes") {
        Some(both) => Some(both) == read("memory.limit_in_bytes"),
        None => read("memory.swappiness").unwrap().trim() == "0",
    }
}

/// The container's directory of a controller, on the host.
fn cgroup(container: &TestContainer, controller: &str) -> PathBuf {
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &container.id.0]);
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap(), fields.next().unwrap().trim_start_matches('/'));
        if controllers.split(',').any(|name| name == controller) {
            return Path::new("/sys/fs/cgroup").join(controllers).join(path);
        }
    }
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    Path::new("/sys/fs/cgroup").join(path)
}
