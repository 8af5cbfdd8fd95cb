//! People in a container who try its init and the gateway behind it: the socket that init dials, the one on which it answers, its process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fault::{Holdings, holdings, pause, steady};
use gateway::{DEADLINE, Gateway, finish, template, wait_for};

/// How long a command may take while somebody is up to something. It takes a fraction of a second; test machines are busy.
const SERVED: Duration = Duration::from_secs(5);

/// One in whose workspace the intruder's program is, with a processor and so many processes to herself.
fn gateway() -> Gateway {
    let gateway = Gateway::start(&template("cpus = 1.0\npids = 256"));
    gateway.exec_with("alice", "cat > intruder.py", include_bytes!("common/intruder.py")).good();
    gateway.exec("bob", "true").good();
    gateway
}

/// Alice's program, going on.
fn intrude(gateway: &Gateway, what: &str) -> Child {
    let mut command = gateway.ssh("alice");
    command.arg(format!("exec python3 intruder.py {what}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[track_caller]
fn is_served(gateway: &Gateway, account: &str) {
    let since = Instant::now();
    assert_eq!(gateway.exec(account, "echo here").good(), "here\n");
    assert!(since.elapsed() < SERVED, "{account}: {:?}", since.elapsed());
}

fn init(gateway: &Gateway) -> Holdings {
    holdings(gateway.inspect("alice", "{{.State.Pid}}").parse().unwrap())
}

#[track_caller]
fn is_as_before(before: Holdings, now: impl Fn() -> Holdings) {
    let mut seen = now();
    let deadline = Instant::now() + Duration::from_secs(15);
    while seen.descriptors > before.descriptors + 4 || seen.memory > before.memory + 16 * 1024 {
        assert!(Instant::now() < deadline, "{before:?} became {seen:?}");
        pause(100);
        seen = now();
    }
}

#[test]
fn whoever_dials_the_gateway_is_hung_up_on() {
    let mut gateway = gateway();
    assert_eq!(gateway.exec("alice", "python3 intruder.py dial").good(), "hung up on\n");
    let told = |gateway: &Gateway| gateway.log().lines().filter(|line| line.contains("who has dialled is not let in")).count();
    let container = gateway.inspect("alice", "{{.Id}}");
    wait_for("a line in the log", || gateway.log().lines().any(|line| line.contains("is not let in") && line.contains(&container)));
    let before = holdings(gateway.pid());
    let flood = intrude(&gateway, "flood-gateway 12");
    pause(2_000);
    for _ in 0..5 {
        is_served(&gateway, "bob");
        is_served(&gateway, "alice");
    }
    assert!(told(&gateway) <= 3, "{} lines", told(&gateway));
    // A gateway that starts in the middle of it finds her init all the same.
    gateway.kill();
    gateway.up();
    let since = Instant::now();
    is_served(&gateway, "bob");
    assert_eq!(gateway.exec("alice", "echo here").good(), "here\n");
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    finish(flood, DEADLINE);
    wait_for("the flood to be over", || gateway.exec("alice", "pgrep -f intruder.py").status == Some(1));
    is_as_before(Holdings { memory: before.memory + 16 * 1024, ..before }, || holdings(gateway.pid()));
    assert!(told(&gateway) <= 4, "{} lines", told(&gateway));
}

#[test]
fn a_flood_of_questions_keeps_init_from_nothing() {
    let gateway = gateway();
    let before = init(&gateway);
    let flood = intrude(&gateway, "flood-init 8");
    pause(1_000);
    for _ in 0..5 {
        is_served(&gateway, "bob");
        is_served(&gateway, "alice");
        let now = init(&gateway);
        // Those who ask, and what came beside one question and is about to be closed.
        assert!(now.descriptors <= before.descriptors + 64 + 253 + 16 && now.memory <= before.memory + 16 * 1024, "{before:?} {now:?}");
    }
    finish(flood, DEADLINE);
    wait_for("the flood to be over", || gateway.exec("alice", "pgrep -f intruder.py").status == Some(1));
    is_as_before(before, || init(&gateway));
    assert!(gateway.exec("alice", "innkeeper-status").good().contains("workspace"));
}

#[test]
fn nobody_waits_for_what_she_lets_linger() {
    let gateway = gateway();
    // As a stranger, and asking init.
    let _strangers = ["linger-gateway 60", "linger-init 60"].map(|what| gateway.hold("alice", &format!("exec python3 intruder.py {what}")));
    pause(1_000);
    is_served(&gateway, "bob");
    is_served(&gateway, "alice");
    // Over forwards, read and unread.
    let _trap = gateway.hold("alice", "exec python3 intruder.py trap");
    let local = gateway.dir.path().join("local");
    let mut forward = gateway.ssh("alice");
    forward
        .args(["-N", "-L", &format!("{}:/home/user/trap", local.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut forward = forward.spawn().unwrap();
    wait_for("the forward", || local.exists());
    let mut calls: Vec<_> = (0..8).map(|_| UnixStream::connect(&local).unwrap()).collect();
    for call in &mut calls {
        let mut bytes = [0; 3];
        call.set_read_timeout(Some(SERVED)).unwrap();
        call.read_exact(&mut bytes).expect("its bytes arrive; what came beside them does not matter");
    }
    for _ in 0..3 {
        is_served(&gateway, "bob");
        is_served(&gateway, "alice");
    }
    drop(calls);
    forward.kill().unwrap();
    forward.wait().unwrap();
    is_served(&gateway, "bob");
}

#[test]
fn descriptors_that_somebody_keeps_under_way_keep_nobody_from_hers() {
    let gateway = gateway();
    assert_eq!(gateway.exec("alice", "ulimit -Sn; ulimit -Hn").good(), "16384\n16384\n", "nobody allows herself more");
    let _kept = gateway.hold("alice", "exec python3 intruder.py under-way 60");
    for _ in 0..3 {
        is_served(&gateway, "bob");
        is_served(&gateway, "alice");
    }
    let mut terminal = gateway.terminal("bob", "@work");
    terminal.send(b"echo is $((1+1))\n");
    terminal.expect("is 2");
}

#[test]
fn the_first_process_can_be_stopped_and_nothing_else() {
    let gateway = gateway();
    let pid = gateway.inspect("alice", "{{.State.Pid}}");
    assert_eq!(gateway.exec("alice", "python3 intruder.py at-init").good(), "{}\n");
    is_served(&gateway, "alice");
    assert_eq!(gateway.inspect("alice", "{{.State.Pid}}"), pid, "it goes on");
    // What an engine says to stop a container, she may say as well.
    let mut open = gateway.ssh("alice");
    let open = open.arg("kill -TERM 1; sleep 1000").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert_ne!(finish(open, DEADLINE).status, Some(0));
    is_served(&gateway, "bob");
    assert_eq!(gateway.exec("alice", "ls intruder.py").good(), "intruder.py\n");
}

#[test]
fn who_takes_all_memory_takes_her_own() {
    let gateway = Gateway::start(&template("memory = \"128MiB\"\ncpus = 1.0").replace("memory = \"512MiB\"\n", ""));
    gateway.exec_with("alice", "cat > intruder.py", include_bytes!("common/intruder.py")).good();
    gateway.exec("bob", "true").good();
    let before = holdings(gateway.pid());
    for _ in 0..3 {
        let hogs: Vec<_> = (0..3).map(|_| intrude(&gateway, "hog")).collect();
        for _ in 0..3 {
            is_served(&gateway, "bob");
        }
        for hog in hogs {
            assert_ne!(finish(hog, DEADLINE).status, Some(0));
        }
        let since = Instant::now();
        assert_eq!(gateway.exec("alice", "ls intruder.py").good(), "intruder.py\n");
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    }
    is_as_before(before, || holdings(gateway.pid()));
}

#[test]
fn terminals_that_nobody_watches_or_reads_are_no_memory() {
    let gateway = gateway();
    const LOUD: &[u8] = b"yes $(seq 1 400 | tr '\\n' x)\n";
    // Two that nobody watches any more, and two watched by clients whose own output nobody reads.
    for name in ["@loud-1", "@loud-2"] {
        let mut terminal = gateway.terminal("alice", name);
        terminal.send(LOUD);
        terminal.expect("1x2x3");
    }
    let mut stalled = ["@loud-3", "@loud-4"].map(|name| {
        let mut command = gateway.ssh("alice");
        command.args(["-tt", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = command.spawn().unwrap();
        client.stdin.as_mut().unwrap().write_all(LOUD).unwrap();
        client
    });
    wait_for("all to be loud", || gateway.exec("alice", "pgrep -xc yes; true").text().trim() == "4");
    let gateway_then = steady(gateway.pid());
    let init_then = init(&gateway);
    pause(5_000);
    let (init_now, gateway_now) = (init(&gateway), holdings(gateway.pid()));
    assert!(init_now.memory <= init_then.memory + 2 * 1024, "{init_then:?} {init_now:?}");
    assert!(gateway_now.memory <= gateway_then.memory + 4 * 1024, "{gateway_then:?} {gateway_now:?}");
    assert!(init_now.memory < 32 * 1024, "{init_now:?}");
    is_served(&gateway, "bob");
    is_served(&gateway, "alice");
    for client in &mut stalled {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}
