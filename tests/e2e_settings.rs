//! What an administrator sets of a workspace: who may be in it, what it may use, its variables and secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::process::Command;
use std::time::Duration;

use gateway::{Done, Gateway, docker, run, run_with, template, wait_for};
use serde_json::Value;

/// A service that writes down what it was given, and stays.
const SERVICE: &str = r#"
secrets = ["JWT_SECRET", "LC_SECRET"]
[[template.default.service]]
name = "web"
command = ["sh", "-c", "printenv JWT_SECRET GREETING >given.new; mv given.new given; exec sleep 1000"]
env = { GREETING = "service" }
"#;

fn workspace(gateway: &Gateway, arguments: &[&str]) -> Done {
    run(gateway.innkeeper().arg("workspace").args(arguments))
}

fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    serde_json::from_str(&workspace(gateway, arguments).good()).unwrap()
}

fn set_secret(gateway: &Gateway, key: &str, value: &[u8]) -> Done {
    run_with(gateway.innkeeper().args(["workspace", "secret", "alice", "set", key]), value)
}

#[test]
fn a_suspended_workspace_tells_why_and_keeps_everything() {
    let mut gateway = Gateway::start(&template(&format!("keep_running = true{SERVICE}")));
    gateway.exec("alice", "echo hers >file").good();
    let mut terminal = gateway.terminal("alice", "echo up; sleep 1000");
    terminal.expect("up");
    let mut held = gateway.ssh("alice");
    let held = std::thread::spawn(move || run(held.arg("echo up; sleep 1000")));
    wait_for("both to be in", || json(&gateway, &["show", "alice", "--json"])["now"]["leases"] == 2);

    let why = "the bill of October is\x1b[2J open";
    assert_eq!(workspace(&gateway, &["suspend", "alice", "--reason", why]).good(), "alice is suspended; nobody can be in it\n");
    assert_eq!(gateway.container_state("alice"), "exited", "stopped when the command is done");
    let told = "innkeeper: this workspace is suspended: the bill of October is\\u{1b}[2J open";
    terminal.expect(told);
    assert_eq!(terminal.end().0, Some(77));
    let held = held.join().unwrap();
    assert_eq!((held.status, held.stderr.trim_end()), (Some(77), told));
    assert_eq!(held.text(), "up\n", "nothing else was said");
    workspace(&gateway, &["suspend", "alice", "--reason", why]).good();

    let refused = |gateway: &Gateway| {
        let done = gateway.exec("alice", "echo in");
        assert_eq!((done.status, done.text().as_str(), done.stderr.trim_end()), (Some(77), "", told));
        assert_eq!(gateway.container_state("alice"), "exited");
    };
    refused(&gateway);
    let mut terminal = gateway.terminal("alice", "");
    terminal.expect(told);
    assert_eq!(terminal.end().0, Some(77));
    gateway.exec("bob", "true").good();
    gateway.kill();
    gateway.up();
    refused(&gateway);
    // Whoever starts it behind the gateway's back starts nothing for long.
    docker(&["start", &gateway.container("alice")]);
    wait_for("it to be stopped again", || gateway.container_state("alice") == "exited");
    refused(&gateway);

    let listed = workspace(&gateway, &["list"]).good();
    assert!(listed.lines().any(|line| line.starts_with("alice  suspended")), "{listed}");
    let shown = workspace(&gateway, &["show", "alice"]).good();
    assert!(shown.contains("suspended  since ") && shown.contains("the bill of October is\\u{1b}[2J open"), "{shown}");
    for _ in 0..2 {
        assert_eq!(workspace(&gateway, &["resume", "alice"]).good(), "alice is not suspended\n");
    }
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    wait_for("the service to run", || json(&gateway, &["services", "alice", "--json"])[0]["state"] == "unknown");
    let early = workspace(&gateway, &["suspend", "zoe", "--reason", "not yet"]);
    assert_eq!((early.status, early.stderr.as_str()), (Some(0), "innkeeper: zoe has no home yet; this is kept for its first login\n"));
}

#[test]
fn limits_apply_to_what_runs_and_are_kept() {
    let mut gateway = Gateway::start("");
    let held = gateway.hold("alice", "echo up; cat");
    let has = |gateway: &Gateway| gateway.inspect("alice", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuQuota}}");
    assert_eq!(has(&gateway), format!("{} 512 200000", 512 << 20));
    workspace(&gateway, &["limit", "alice", "--memory", "256MiB", "--cpus", "0.5"]).good();
    assert_eq!(has(&gateway), format!("{} 512 50000", 256 << 20));
    workspace(&gateway, &["limit", "alice", "--pids", "64", "--inodes", "5000"]).good();
    let limits = workspace(&gateway, &["limit", "alice"]).good();
    let row =
        |name: &str| limits.lines().find(|line| line.starts_with(name)).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!(row("memory").as_deref(), Some("memory 256MiB 256MiB enforced now"), "{limits}");
    let measured = "measured only: it is a plain directory, whose size nothing limits";
    assert_eq!(row("disk"), Some(format!("disk 50GiB - {measured}")), "{limits}");
    assert_eq!(row("inodes"), Some(format!("inodes 5000 5000 {measured}")), "{limits}");
    drop(held);
    gateway.kill();
    docker(&["rm", "-f", &gateway.container("alice")]);
    gateway.up();
    gateway.exec("alice", "true").good();
    assert_eq!(has(&gateway), format!("{} 64 50000", 256 << 20), "a new container");
    let _held = gateway.hold("alice", "echo up; cat");
    workspace(&gateway, &["limit", "alice", "--reset", "--pids", "100"]).good();
    assert_eq!(has(&gateway), format!("{} 100 200000", 512 << 20));
    for (wrong, status) in [(["--cpus", "0"], 1), (["--memory", "1KiB"], 1), (["--memory", "lots"], 64), (["--pids", "-1"], 64)] {
        let done = workspace(&gateway, &[&["limit", "alice"], &wrong[..]].concat());
        assert!(done.status == Some(status) && !done.stderr.is_empty(), "{wrong:?} {done:?}");
    }
    assert_eq!(json(&gateway, &["show", "alice", "--json"])["own_limits"]["pids"], 100);
}

#[test]
fn variables_go_before_the_grants_and_a_clients_before_them_but_never_before_a_secret() {
    let gateway = Gateway::start(&template(SERVICE));
    workspace(&gateway, &["env", "alice", "set", "GREETING=hello there", "LC_ALL=C", "EMPTY=", "EQUALS=a=b", "LINES_=a\nb"]).good();
    set_secret(&gateway, "LC_SECRET", b"hers\n").good();
    let with = |line: &str| {
        let mut ssh = gateway.ssh("alice");
        run(ssh.args(["-o", "SetEnv=LC_ALL=POSIX LC_SECRET=stolen GREETING=no"]).arg(line)).good()
    };
    assert_eq!(with("printenv GREETING LC_ALL LC_SECRET EMPTY EQUALS LINES_"), "hello there\nPOSIX\nhers\n\na=b\na\nb\n");
    let given = gateway.home("alice").join("given");
    let jwt = gateway.exec("alice", "printenv JWT_SECRET").good();
    assert!(jwt.trim_end().len() >= 43);
    wait_for("the service to have them", || fs::read_to_string(&given).is_ok_and(|given| given == format!("{jwt}hello there\n")));
    assert_ne!(gateway.exec("bob", "printenv JWT_SECRET").good(), jwt, "each has its own");
    docker(&["rm", "-f", &gateway.container("alice")]);
    assert_eq!(gateway.exec("alice", "printenv JWT_SECRET").good(), jwt, "whatever container it is");

    // Changed, services have them at once, and sessions from the next one on.
    workspace(&gateway, &["secret", "alice", "rotate", "JWT_SECRET"]).good();
    workspace(&gateway, &["env", "alice", "unset", "GREETING", "ABSENT"]).good();
    let rotated = gateway.exec("alice", "printenv JWT_SECRET").good();
    assert_ne!(rotated, jwt);
    wait_for("the service to have the new ones", || fs::read_to_string(&given).is_ok_and(|given| given == format!("{rotated}service\n")));
    let by_hand = workspace(&gateway, &["secret", "alice", "rotate", "LC_SECRET"]);
    assert!(by_hand.status == Some(1) && by_hand.stderr.contains("set by hand"), "{by_hand:?}");
    workspace(&gateway, &["secret", "alice", "generate", "LONG", "--bytes", "100"]).good();
    assert_eq!(gateway.exec("alice", "printenv LONG | tr -d '\\n' | wc -c").good(), "134\n");
    workspace(&gateway, &["secret", "alice", "remove", "LC_SECRET"]).good();
    let anew = gateway.exec("alice", "printenv LC_SECRET").good();
    assert!(anew.len() > 40, "the template wants it: {anew}");
}

#[test]
fn a_secret_is_seen_in_its_workspace_and_nowhere_else() {
    let gateway = Gateway::start(&format!("\n[limits]\nreserve = \"64MiB\"\n{}", template(SERVICE)));
    let file = gateway.dir.path().join("value");
    fs::write(&file, "s3cret-of-the-file").unwrap();
    workspace(&gateway, &["secret", "alice", "set", "FILE", "--from-file", file.to_str().unwrap()]).good();
    set_secret(&gateway, "PIPE", b"s3cret-of-the-pipe\r\n").good();
    assert_eq!(gateway.exec("alice", "printenv FILE PIPE").good(), "s3cret-of-the-file\ns3cret-of-the-pipe\n");
    let jwt = gateway.exec("alice", "printenv JWT_SECRET").good();
    gateway.exec("alice", "sleep 1; ps ax >/dev/null").good();
    let process = |file: &str| fs::read(format!("/proc/{}/{file}", gateway.pid())).unwrap();
    let of_process = [process("cmdline"), process("environ")].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let inspected = docker(&["inspect", &gateway.container("alice")]);
    let ps = String::from_utf8_lossy(&run(Command::new("docker").args(["top", &gateway.container("alice")])).stdout).into_owned();
    let listed = workspace(&gateway, &["secret", "alice", "list"]).good();
    let of_commands = [&["show", "alice"][..], &["show", "alice", "--json"], &["secret", "alice", "list", "--json"], &["list", "--json"]];
    let of_commands = of_commands.map(|arguments| workspace(&gateway, arguments).good()).concat();
    let places = [inspected, ps, gateway.log(), gateway.get("/metrics").1, listed.clone(), of_commands, of_process.concat()];
    for place in &places {
        assert!(!place.contains("s3cret") && !place.contains(jwt.trim_end()), "{place}");
    }
    assert!(listed.starts_with("SECRET") && listed.contains("FILE        by hand") && listed.contains("JWT_SECRET  made up"), "{listed}");
    for name in ["innkeeper.db", "innkeeper.db-wal", "innkeeper.db-shm", "reserve"] {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(gateway.state().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(gateway.state().join("reserve")).unwrap().len(), 64 << 20);
}

#[test]
fn what_cannot_be_set_says_why_and_sets_nothing() {
    let gateway = Gateway::start("");
    for wrong in ["LD_PRELOAD=x", "PATH=/x", "HOME=/", "SSH_X=1", "INNKEEPER_X=1", "1A=x", "A-B=x", "A\nB=x", "É=x", "=x", "NO_VALUE"] {
        let done = workspace(&gateway, &["env", "alice", "set", "GOOD=1", wrong]);
        assert_eq!(done.status, Some(64), "{wrong:?} {done:?}");
    }
    let huge = format!("HUGE={}", "x".repeat(100_000));
    let done = workspace(&gateway, &["env", "alice", "set", "GOOD=1", &huge]);
    assert!(done.status == Some(1) && done.stderr.contains("48 KiB"), "{done:?}");
    for (value, says) in [(&b"a\0b"[..], "zero byte"), (b"\xff\xfe", "not UTF-8"), (b"", "is empty"), (&[b'x'; 70_000], "64 KiB")] {
        let done = set_secret(&gateway, "KEY", value);
        assert!(done.status == Some(1) && done.stderr.contains(says) && !done.stderr.contains("a\0b"), "{says} {done:?}");
    }
    assert_eq!(workspace(&gateway, &["suspend", "alice"]).status, Some(64), "people are told a reason");
    assert_eq!(workspace(&gateway, &["suspend", "alice", "--reason", " "]).status, Some(1));
    assert_eq!(workspace(&gateway, &["suspend", "../alice", "--reason", "x"]).status, Some(64));
    let nobody = workspace(&gateway, &["show", "alice"]);
    assert!(nobody.status == Some(1) && nobody.stderr.contains("no workspace alice is known"), "{nobody:?}");
    let off = workspace(&gateway, &["mount", "alice", "add", "/srv", "/data"]);
    assert!(off.status == Some(1) && off.stderr.contains("mounts.allow"), "{off:?}");
}

#[test]
fn a_kill_right_after_a_command_leaves_all_of_it_or_nothing() {
    let mut gateway = Gateway::start("");
    let variables = |round: u32| -> Vec<String> { (0..60).map(|number| format!("V{number}={round}")).collect() };
    let mut now = 0;
    for round in 1..=8 {
        let mut command = gateway.innkeeper();
        command.args(["workspace", "env", "alice", "set"]).args(variables(round));
        let command = std::thread::spawn(move || run(&mut command));
        std::thread::sleep(Duration::from_millis(u64::from(round) * 6));
        gateway.kill();
        let done = command.join().unwrap();
        gateway.up();
        let shown = workspace(&gateway, &["env", "alice", "list", "--json"]);
        let env: std::collections::BTreeMap<String, String> = match shown.status {
            Some(0) => serde_json::from_str(&shown.text()).unwrap(),
            _ => std::collections::BTreeMap::new(),
        };
        let whole = |round: u32| env.len() == 60 && env.values().all(|value| *value == round.to_string());
        let (before, after) = (if now == 0 { env.is_empty() } else { whole(now) }, whole(round));
        assert!(before || after, "half: {env:?}");
        assert!(after || done.status != Some(0), "said to be set, and is not");
        now = if after { round } else { now };
    }
    // And the other way round: what was said to be so is so.
    for round in 0..3 {
        workspace(&gateway, &["suspend", "alice", "--reason", &format!("reason {round}")]).good();
        gateway.kill();
        gateway.up();
        let shown = json(&gateway, &["show", "alice", "--json"]);
        assert_eq!(shown["suspended"]["reason"], format!("reason {round}"));
    }
}
