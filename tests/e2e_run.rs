//! The gateway in the hands of who runs it: health, figures, reload, drain, and being killed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/service.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
mod service;

use std::time::Duration;

use gateway::{Gateway, Session, docker, mounts_below, run, template, wait_for};
use service::{Reply, Service};

#[test]
fn health_is_told_and_a_missing_login_service_is_not_ready() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(Service::start(|_| Reply::json(r#"{"success": true}"#)));
    let gateway = Gateway::start(&format!("[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"{}\"\n", service.url));
    assert_eq!(gateway.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(gateway.get("/readyz"), (200, r#"{"ready":true,"checks":{"auth":"ok","engine":"ok","open":"ok"}}"#.to_owned()));
    drop(service);
    drop(runtime);
    wait_for("it to be not ready", || {
        gateway.get("/readyz") == (503, r#"{"ready":false,"checks":{"auth":"failed","engine":"ok","open":"ok"}}"#.to_owned())
    });
    assert_eq!(gateway.get("/healthz").0, 200, "it lives all the same");
    assert_eq!(gateway.get("/").0, 307, "to the dashboard");
    assert_eq!(gateway.get("/nothing").0, 404);
}

#[test]
fn figures_tell_what_happened() {
    let gateway = Gateway::start("[pool]\nsize = 1\n");
    wait_for("the pool to be filled", || gateway.pool() == 1);
    gateway.exec("alice", "true").good();
    gateway.exec("alice", "head -c 30000000 /dev/zero >file; i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").good();
    gateway.exec("nobody", "true");
    let mut held = gateway.hold("alice", "echo up; cat");
    gateway.wait_metric("innkeeper_sessions_open", |open| open == 1.0);
    gateway.wait_metric("innkeeper_container_cpu_seconds_total{workspace=\"alice\"}", |seconds| seconds > 0.1);
    let (status, text) = gateway.get("/metrics");
    assert_eq!(status, 200);
    let value = |name: &str| -> f64 {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    assert_eq!(value("innkeeper_connections_total"), 4.0);
    assert_eq!(value("innkeeper_connections_open{stage=\"open\"}"), 1.0);
    assert_eq!(value("innkeeper_logins_total{method=\"publickey\",outcome=\"granted\"}"), 3.0);
    assert!(value("innkeeper_auth_seconds_count{authenticator=\"accounts\"}") >= 4.0);
    assert_eq!(value("innkeeper_starts_total{path=\"claim\"}"), 1.0);
    assert_eq!(value("innkeeper_starts_total{path=\"attach\"}"), 2.0);
    assert_eq!(value("innkeeper_start_seconds_count{path=\"claim\"}"), 1.0);
    assert_eq!(value("innkeeper_first_byte_seconds_count{path=\"attach\"}"), 1.0, "of two sessions one said something");
    assert_eq!(value("innkeeper_pool_desired{template=\"default\"}"), 1.0);
    assert_eq!(value("innkeeper_pool_claims_total"), 1.0);
    assert_eq!(value("innkeeper_sessions_total{kind=\"exec\"}"), 2.0);
    assert_eq!(value("innkeeper_session_seconds_count"), 2.0);
    assert_eq!(value("innkeeper_queue_length"), 0.0);
    value("innkeeper_queue_seconds_count");
    assert_eq!(
        (value("innkeeper_pool_misses_total"), value("innkeeper_pool_failures_total"), value("innkeeper_panics_total")),
        (0.0, 0.0, 0.0)
    );
    assert!(value("innkeeper_sweeps_total") >= 1.0 && value("innkeeper_containers{state=\"running\"}") >= 1.0);
    assert!(value("innkeeper_container_memory_bytes{workspace=\"alice\"}") > 100_000.0);
    assert!(value("innkeeper_container_pids{workspace=\"alice\"}") >= 2.0);
    for (name, wanted) in [
        ("memory_limit_bytes", (512 << 20) as f64),
        ("cpu_limit_cores", 2.0),
        ("pids_limit", 512.0),
        ("disk_limit_bytes", (50u64 << 30) as f64),
        ("sessions", 1.0),
        ("idle_seconds", 0.0),
        ("logins_total", 3.0),
    ] {
        gateway.wait_metric(&format!("innkeeper_workspace_{name}{{workspace=\"alice\"}}"), |now| now == wanted);
    }
    for direction in ["in", "out"] {
        value(&format!("innkeeper_container_network_bytes_total{{direction=\"{direction}\",workspace=\"alice\"}}"));
        value(&format!("innkeeper_container_block_bytes_total{{direction=\"{direction}\",workspace=\"alice\"}}"));
    }
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") > 3.0);
    let mut samples = text.lines().filter(|line| !line.starts_with('#'));
    assert!(!samples.any(|line| line.contains("nobody")), "what strangers type is no label");

    held.close();
    held.end();
    gateway.wait_metric("innkeeper_workspace_sessions{workspace=\"alice\"}", |open| open == 0.0);
    gateway.wait_metric("innkeeper_workspace_idle_seconds{workspace=\"alice\"}", |idle| idle > 0.0);
    docker(&["rm", "-f", &gateway.container("alice")]);
    wait_for("her figures to go with her container", || !gateway.get("/metrics").1.contains("workspace=\"alice\""));
}

#[test]
fn a_changed_configuration_is_applied_and_a_bad_one_changes_nothing() {
    let gateway = Gateway::start(&template("motd = \"old news\""));
    let mut held = gateway.hold("alice", "echo up; cat");
    let reload = |text: &str, outcome: &str, count: f64| {
        gateway.configure(text);
        gateway.reload();
        gateway.wait_metric(&format!("innkeeper_reloads_total{{outcome=\"{outcome}\"}}"), |now| now == count);
    };
    let greeted = |words: &str| {
        let mut terminal = gateway.terminal("alice", "");
        terminal.expect(words);
        terminal.send("exit\r");
        terminal.end();
    };
    reload(&template("motd = \"new news\""), "applied", 1.0);
    greeted("new news");
    for (number, bad) in
        ["\n[template.default]\nimagee = \"x\"\n", "not = toml = at all\n", "[idle]\ntimeout = \"soon\"\n", "[limits]\ncontainers = -1\n"]
            .iter()
            .enumerate()
    {
        reload(bad, "refused", number as f64 + 1.0);
    }
    greeted("new news");
    assert!(gateway.log().contains("imagee"), "the log names the key");
    reload(&template("motd = \"newest\""), "applied", 2.0);
    greeted("newest");
    held.send("still there\n");
    held.expect("still there\n");
}

#[test]
fn told_to_stop_it_says_so_and_lets_sessions_end() {
    let mut gateway = Gateway::start("[ssh]\ndrain_timeout = \"4s\"\n");
    let mut short = gateway.hold("alice", "echo up; read line; sleep 1; echo done; exit 6");
    let held = gateway.hold("alice", "echo up; cat");
    let mut terminal = gateway.terminal("bob", "");
    terminal.expect("$ ");
    let pid = gateway.pid();
    let stopping = std::thread::scope(|scope| {
        let stopping = scope.spawn(|| gateway.stop());
        terminal.expect("the gateway is restarting; this session ends within 4s");
        short.send("go\n");
        let done = short.end();
        assert_eq!(
            (done.status, done.text().as_str(), done.stderr.as_str()),
            (Some(6), "up\ndone\n", ""),
            "a program is not told, and ends by itself"
        );
        stopping.join().unwrap()
    });
    assert!(stopping > Duration::from_secs(2) && stopping < Duration::from_secs(20), "{stopping:?}");
    assert!(held.end().status != Some(0) && terminal.end().0 != Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(gateway.containers().iter().filter(|(_, state)| state == "running").count(), 2, "containers go on");
    gateway.up();
    assert_eq!(gateway.exec("alice", "echo back").good(), "back\n");
}

#[test]
fn killed_it_leaves_everything_running_and_finds_it_again() {
    let mut gateway = Gateway::start("[pool]\nsize = 2\n");
    wait_for("the pool to be filled", || gateway.pool() == 2);
    gateway.exec("alice", "echo hers >file; nohup sleep 302 >/dev/null 2>&1 &").good();
    wait_for("the pool to be filled", || gateway.pool() == 2);
    let held = gateway.hold("alice", "echo up; cat");
    let before = docker(&["ps", "-q", "--filter", &format!("label=innkeeper={}", gateway.instance)]);
    gateway.kill();
    assert!(held.end().status != Some(0));
    gateway.up();
    assert_eq!(gateway.exec("alice", "cat file; pgrep -cxf 'sleep 302'").good(), "hers\n1\n");
    gateway.wait_sweeps(2);
    let after = docker(&["ps", "-q", "--filter", &format!("label=innkeeper={}", gateway.instance)]);
    assert_eq!(before, after, "nothing was made, nothing was thrown away");
    gateway.exec("bob", "true").good();
    gateway.wait_metric("innkeeper_starts_total{path=\"claim\"}", |count| count == 1.0);
    let done = run(gateway.innkeeper().arg("clean"));
    assert!(done.status != Some(0), "not while it runs: {done:?}");
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    assert_eq!((gateway.containers().len(), mounts_below(gateway.dir.path())), (0, 0));
    assert!(gateway.home("alice").join("file").exists(), "homes stay");
}

#[test]
fn a_start_counts_as_what_it_was_though_nobody_has_come_in_yet() {
    let gateway = Gateway::start("");
    let socket = gateway.dir.path().join("control");
    // Logged in, and no session yet.
    let _master = Session::start(gateway.ssh("alice").args(["-M", "-N", "-S"]).arg(&socket));
    wait_for("the container that is made meanwhile", || gateway.container_state("alice") == "running");
    wait_for("the gateway to know", || gateway.log().contains("created"));
    for _ in 0..2 {
        run(gateway.ssh("alice").arg("-S").arg(&socket).arg("true")).good();
    }
    gateway.wait_metric("innkeeper_starts_total{path=\"create\"}", |count| count == 1.0);
    gateway.wait_metric("innkeeper_starts_total{path=\"attach\"}", |count| count == 1.0);
    gateway.wait_metric("innkeeper_workspace_logins_total{workspace=\"alice\"}", |count| count == 1.0);
}
