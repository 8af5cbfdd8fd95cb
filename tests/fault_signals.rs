//! Reload and drain: what SIGHUP changes and what it leaves, and how SIGTERM ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use fault::{ended, refusal, started};
use gateway::{Gateway, finish, run, run_with, signal, wait_for};

/// A session that stays open until its input ends, and answers each line.
struct Open {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Open {
    fn begin(gateway: &Gateway, account: &str) -> Self {
        let mut child =
            gateway.ssh(account).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut open = Self { child, input, output };
        open.answers();
        open
    }

    #[track_caller]
    fn answers(&mut self) {
        self.input.write_all(b"hello\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
    }

    fn end(self) -> i32 {
        drop(self.input);
        finish(self.child, Duration::from_secs(30)).status.unwrap()
    }
}

fn reloads(gateway: &Gateway, outcome: &str) -> f64 {
    gateway.metric(&format!("innkeeper_reloads_total{{outcome=\"{outcome}\"}}")).unwrap_or(0.0)
}

#[test]
fn a_broken_file_changes_nothing_and_says_so() {
    let gateway = Gateway::start("\n[template.default]\nimage = \"innkeeper/user:latest\"\nmotd = \"the old one\"\n");
    let mut session = Open::begin(&gateway, "alice");
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    let broken = [
        good.replace("the old one", "the new one") + "\n[nonsense]\nkey = 1\n",
        good.replace("the old one", "the new one").replace("[idle]", "[idle]\ntimeout = \"soon\""),
        good.replace("the old one", "the new one")
            + "\n[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"http://127.0.0.1:1/\"\ntoken_file = \"/nonexistent\"\n",
        good.replace("the old one", "the new one").replace("[ssh]", "[ssh]\nmax_startups = \"1:2\""),
        "[".to_owned(),
    ];
    for (nth, text) in broken.iter().enumerate() {
        std::fs::write(gateway.config(), text).unwrap();
        gateway.reload();
        wait_for("the refusal to be logged", || gateway.log().matches("configuration refused").count() == nth + 1);
    }
    std::fs::remove_file(gateway.config()).unwrap();
    gateway.reload();
    wait_for("a file that is gone to be refused", || gateway.log().matches("configuration refused").count() == broken.len() + 1);
    std::fs::write(gateway.config(), &good).unwrap();
    assert_eq!((reloads(&gateway, "refused"), reloads(&gateway, "applied")), (broken.len() as f64 + 1.0, 0.0));
    session.answers();
    assert_eq!(session.end(), 0);
    assert!(run_with(gateway.ssh("alice").arg("-tt"), b"exit\n").text().contains("the old one"));
}

#[test]
fn a_good_file_is_applied_to_what_comes_and_leaves_what_is_there() {
    let mut gateway = Gateway::start("\n[template.default]\nimage = \"innkeeper/user:latest\"\nmotd = \"the old one\"\n");
    let mut session = Open::begin(&gateway, "alice");
    let before = started(&gateway);
    let mut env = gateway.ssh("bob");
    env.args(["-o", "SetEnv=PROJECT=apollo"]).arg("echo \"[$PROJECT]\"");
    assert_eq!(run(&mut env).good(), "[]\n");

    gateway.configure(
        "\n[template.default]\nimage = \"innkeeper/user:latest\"\nmotd = \"the new one\"\n\
         [ssh]\naccept_env = [\"PROJECT\"]\n[pool]\nsize = 2\n[limits]\nsessions_per_account = 3\n[log]\nfilter = \"debug\"\n",
    );
    gateway.reload();
    wait_for("the new configuration", || gateway.log().contains("configuration applied"));
    assert_eq!(reloads(&gateway, "applied"), 1.0);
    session.answers();
    assert_eq!(started(&gateway).iter().filter(|container| before.contains(container)).count(), before.len());
    assert_eq!(run(&mut env).good(), "[apollo]\n");
    assert!(run_with(gateway.ssh("bob").arg("-tt"), b"exit\n").text().contains("the new one"));
    wait_for("the pool to be filled", || gateway.pool() == 2);
    let more: Vec<Open> = (0..2).map(|_| Open::begin(&gateway, "alice")).collect();
    let refused = gateway.exec("alice", "true");
    assert!(refused.status == Some(75) && refused.stderr.contains("3 sessions"), "{refused:?}");
    more.into_iter().for_each(|open| assert_eq!(open.end(), 0));
    assert!(gateway.log().contains("\"DEBUG\""));

    // The pool empties, and who is idle is stopped by the new clock.
    gateway.configure("\n[idle]\ntimeout = \"1s\"\nkeep_busy = false\n");
    gateway.reload();
    wait_for("the pool to be empty", || gateway.pool() == 0);
    wait_for("bob's container to be stopped", || gateway.container_state("bob") == "exited");
    assert_eq!(gateway.container_state("alice"), "running", "she is in it");
    session.answers();

    // Who may log in, and how, changes too; a key that only a restart applies is named.
    gateway.configure("\n[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"http://127.0.0.1:1/\"\n[engine]\ntimeout = \"50s\"\n");
    gateway.reload();
    wait_for("what needs a restart to be named", || gateway.log().contains("applied only by a restart"));
    assert_ne!(gateway.exec("carol", "true").status, Some(0), "the accounts file is not asked any more");
    gateway.configure("");
    gateway.reload();
    wait_for("the accounts to be back", || gateway.exec("carol", "true").status == Some(0));
    session.answers();
    assert_eq!(session.end(), 0);
    gateway.stop();
}

#[test]
fn a_drain_says_so_lets_sessions_end_and_leaves_containers_running() {
    let mut gateway = Gateway::start("\n[ssh]\ndrain_timeout = \"20s\"\n");
    gateway.exec("bob", "true").good();
    let mut session = Open::begin(&gateway, "alice");
    let mut person = gateway.ssh("carol");
    person.arg("-tt").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut person = person.spawn().unwrap();
    let mut typed = person.stdin.take().unwrap();
    let mut seen = BufReader::new(person.stdout.take().unwrap());
    typed.write_all(b"echo re''ady\n").unwrap();
    read_until(&mut seen, "ready");

    let before = started(&gateway);
    assert_eq!(before.len(), 3);
    let pid = gateway.pid();
    let (port, told) = (gateway.ssh_port, Instant::now());
    signal(pid, "TERM");
    read_until(&mut seen, "the gateway is restarting");
    wait_for("new connections to be refused", || TcpStream::connect(("127.0.0.1", port)).is_err());
    session.answers();
    typed.write_all(b"echo still''here; exit 7\n").unwrap();
    read_until(&mut seen, "stillhere");
    drop(typed);
    assert_eq!(finish(person, Duration::from_secs(20)).status, Some(7));
    assert_eq!(session.end(), 0);
    let status = ended(&mut gateway);
    assert_eq!(status, Some(0), "{}", gateway.log());
    assert!(told.elapsed() < Duration::from_secs(15), "it ends when the last session has, not at the deadline");
    assert_eq!(started(&gateway), before, "containers go on");
    gateway.up();
    assert_eq!(gateway.exec("alice", "echo back").good(), "back\n");
    assert_eq!(started(&gateway), before);
}

#[test]
fn a_drain_has_a_deadline_and_a_second_signal_has_none() {
    let mut gateway = Gateway::start("\n[ssh]\ndrain_timeout = \"2s\"\n");
    let session = Open::begin(&gateway, "alice");
    let took = gateway.stop();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(12), "{took:?}");
    let cut = finish(session.child, Duration::from_secs(10));
    assert_eq!(cut.status, Some(255), "{cut:?}");

    gateway.configure("\n[ssh]\ndrain_timeout = \"1h\"\n");
    gateway.up();
    let session = Open::begin(&gateway, "alice");
    let since = Instant::now();
    signal(gateway.pid(), "TERM");
    wait_for("the drain to begin", || gateway.log().contains("ssh draining"));
    signal(gateway.pid(), "TERM");
    assert_eq!(ended(&mut gateway), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    drop(session.input);
    finish(session.child, Duration::from_secs(10));
}

#[test]
fn a_signal_before_it_serves_ends_it_and_a_burst_of_hangups_does_not() {
    let gateway = Gateway::start("");
    for _ in 0..200 {
        gateway.reload();
    }
    assert_eq!(gateway.exec("alice", "echo here").good(), "here\n");
    assert!(gateway.metric("innkeeper_panics_total").unwrap_or(0.0) == 0.0);
    // Beside it, a second one that may not start: it ends, the first goes on.
    assert_eq!(refusal(&gateway).status, Some(1));
    assert_eq!(gateway.exec("alice", "echo here").good(), "here\n");
}

#[track_caller]
fn read_until(from: &mut impl Read, what: &str) {
    let (mut text, mut byte) = (Vec::new(), [0]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !String::from_utf8_lossy(&text).contains(what) {
        assert!(Instant::now() < deadline && from.read(&mut byte).unwrap() == 1, "no {what:?} in {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
}
