//! A container as an application: what its init runs beside sessions, how an administrator sees it, and what becomes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use gateway::{Gateway, Session, docker, image, run, run_with, template, wait_for};
use serde_json::Value;

/// A web server that says who it is, and leaves its process's number in the home.
const WEB: &str = r#"
[[template.default.service]]
name = "web"
command = ["sh", "-c", "echo hello from $INNKEEPER_WORKSPACE $COLOUR; echo $$ >pid.new; mv pid.new pid; exec python3 -u -m http.server 8080"]
env = { COLOUR = "blue" }
[template.default.service.ready]
port = 8080
every = "1s"
grace = "0s"
"#;

/// What the CLI says of alice's only service.
fn service(gateway: &Gateway) -> Value {
    let said = run(gateway.innkeeper().args(["workspace", "services", "alice", "--json"])).good();
    serde_json::from_str::<Value>(&said).unwrap()[0].take()
}

#[track_caller]
fn wait_state(gateway: &Gateway, state: &str) {
    wait_for(&format!("the service to be {state}"), || service(gateway)["state"] == state);
}

/// The process's number of the service, once it is another than `before`.
#[track_caller]
fn pid(gateway: &Gateway, before: &str) -> String {
    let file = gateway.home("alice").join("pid");
    let read = || fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
    let mut now = String::new();
    wait_for("the service to start", || {
        now = read();
        !now.is_empty() && now != before
    });
    now
}

fn follow(gateway: &Gateway) -> Session {
    Session::start(gateway.innkeeper().args(["workspace", "logs", "alice", "--service", "web", "--follow"]))
}

#[test]
fn an_administrator_sees_who_has_what() {
    let mut gateway = Gateway::start("[idle]\ntimeout = \"2s\"\n");
    let list = |gateway: &Gateway| -> Value {
        serde_json::from_str(&run(gateway.innkeeper().args(["workspace", "list", "--json"])).good()).unwrap()
    };
    assert_eq!(list(&gateway), Value::Array(Vec::new()));
    let held = gateway.hold("alice", "echo up; cat");
    let alice = list(&gateway)[0].take();
    assert_eq!((&alice["name"], &alice["state"], &alice["leases"]), (&"alice".into(), &"running".into(), &1.into()));
    assert_eq!(alice["container"].as_str().unwrap(), gateway.inspect("alice", "{{.Id}}"));
    assert_eq!(run(gateway.innkeeper().args(["workspace", "services", "alice"])).good(), "NAME  STATE  RESTARTS  LAST EXIT\n");
    drop(held);
    wait_for("alice's container to be stopped", || list(&gateway)[0]["state"] == "stopped");
    let refused = run(gateway.innkeeper().args(["workspace", "logs", "alice"]));
    assert_eq!((refused.status, refused.stderr.as_str()), (Some(1), "innkeeper: workspace alice does not run\n"));
    gateway.stop();
    let nobody = run(gateway.innkeeper().args(["workspace", "list"]));
    assert!(nobody.status == Some(1) && nobody.stderr.contains("is `innkeeper serve` running?"), "{nobody:?}");
    gateway.up();
    assert_eq!(list(&gateway)[0]["state"], "stopped", "found again");
}

#[test]
fn a_service_is_started_watched_and_started_again() {
    let gateway = Gateway::start(&template(WEB));
    gateway.exec("alice", "true").good();
    let first = pid(&gateway, "");
    wait_state(&gateway, "ready");
    gateway.wait_metric("innkeeper_services{state=\"ready\"}", |count| count == 1.0);

    let mut logs = follow(&gateway);
    logs.expect("hello from alice blue\n");
    assert!(gateway.exec("alice", "curl -s http://127.0.0.1:8080/").good().contains("Directory listing"));
    logs.expect("GET / HTTP/1.1");

    // The pause doubles each time.
    let mut before = first;
    for (restarts, pause) in [(1, 1), (2, 2)] {
        let killed = Instant::now();
        gateway.exec("alice", &format!("kill -9 {before}")).good();
        before = pid(&gateway, &before);
        assert!(killed.elapsed() >= Duration::from_secs(pause) - Duration::from_millis(100), "{:?}", killed.elapsed());
        wait_for("the restart to be told", || service(&gateway)["restarts"] == restarts);
        assert_eq!(service(&gateway)["exit"]["signal"], 9);
        logs.expect("hello from alice blue\n");
        wait_state(&gateway, "ready");
    }
    gateway.wait_metric("innkeeper_service_restarts_total", |count| count == 2.0);
    assert_eq!(gateway.metric("innkeeper_service_failures_total"), Some(0.0));
}

#[test]
fn a_gateway_that_is_killed_leaves_services_as_they_are_and_knows_them_again() {
    let mut gateway = Gateway::start(&format!("[idle]\ntimeout = \"1s\"\n{}{WEB}", template("keep_running = true")));
    gateway.exec("alice", "true").good();
    let before = pid(&gateway, "");
    wait_state(&gateway, "ready");
    gateway.kill();
    gateway.up();
    wait_state(&gateway, "ready");
    // Nobody is logged in, and it is kept for longer than anything idle would be.
    gateway.wait_sweeps(6);
    assert_eq!(gateway.container_state("alice"), "running");
    assert_eq!((pid(&gateway, ""), service(&gateway)["restarts"].as_u64()), (before, Some(0)));
    let said = run(gateway.innkeeper().args(["workspace", "logs", "alice"])).good();
    assert!(said.contains("hello from alice blue\n"), "{said}");
}

#[test]
fn one_that_is_not_ready_is_seen_and_started_again_where_that_is_wished() {
    let unready = r#"
[[template.default.service]]
name = "web"
command = ["sh", "-c", "echo $$ >pid.new; mv pid.new pid; exec sleep 600"]
[template.default.service.ready]
command = ["test", "-e", "/home/user/good"]
every = "1s"
retries = 2
grace = "0s"
"#;
    let gateway = Gateway::start(&template(unready));
    gateway.exec("alice", "true").good();
    let before = pid(&gateway, "");
    wait_state(&gateway, "unready");
    gateway.wait_metric("innkeeper_services{state=\"unready\"}", |count| count == 1.0);
    gateway.exec("alice", "touch good").good();
    wait_state(&gateway, "ready");
    assert_eq!(pid(&gateway, ""), before, "nobody has touched it");

    gateway.exec("alice", "rm good").good();
    gateway.configure(&template(&format!("{unready}restart = true\n")));
    gateway.reload();
    assert_ne!(pid(&gateway, &before), before, "told anew, and started again because it is not ready");
}

#[test]
fn an_image_brings_its_own_program() {
    let mut gateway = Gateway::start("");
    let tag = format!("innkeeper-test/application:{}", gateway.instance);
    let recipe = format!(
        "FROM {}\nWORKDIR /tmp\nENTRYPOINT [\"sh\", \"-c\", \"echo $$ >/home/user/pid.new; mv /home/user/pid.new /home/user/pid; pwd; exec sleep 600\"]\n\
         HEALTHCHECK --interval=1s --retries=1 CMD test -e /home/user/good\n",
        image()
    );
    run_with(Command::new("docker").args(["build", "--quiet", "--tag", &tag, "-"]), recipe.as_bytes()).good();
    let service = "[[template.default.service]]\nname = \"web\"\nimage = true\nready = { image = true }\n";
    gateway.stop();
    gateway.configure(&format!("[template.default]\nimage = \"{tag}\"\nmemory = \"512MiB\"\n{service}"));
    gateway.up();
    gateway.exec("alice", "true").good();
    pid(&gateway, "");
    follow(&gateway).expect("/tmp\n");
    wait_state(&gateway, "unready");
    gateway.exec("alice", "touch good").good();
    wait_state(&gateway, "ready");
    gateway.stop();
    run(gateway.innkeeper().arg("clean")).good();
    docker(&["image", "rm", &tag]);
}
