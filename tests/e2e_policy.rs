//! What is set of one workspace: when it is stopped, where its network leads, which of its ports are public.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use api::{Api, token};
use gateway::{Gateway, run, template, wait_for};
use serde_json::{Value, json};

fn admin(gateway: &Gateway) -> Api {
    Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "admin", &["admin"])))
}

#[test]
fn a_workspace_without_a_network_has_its_loopback_alone_from_its_next_start_on() {
    let gateway = Gateway::start(&format!("{}\n[pool]\nsize = 1\n", template("")));
    wait_for("the pool", || gateway.pool() == 1);
    let admin = admin(&gateway);
    let set = |name: &str, network: &Value| {
        admin.good(200, "PATCH", &format!("/workspaces/{name}"), Some(&json!({ "policy": { "network": network } })))["applied"].clone()
    };
    let links = |account: &str| gateway.exec(account, "cd /sys/class/net && echo *").good();
    // Before anybody has come: no container of the pool is given to it, as those have a network.
    assert_eq!(set("alice", &json!("none")), "now");
    assert_eq!(links("alice").trim(), "lo");
    assert_eq!(gateway.metric("innkeeper_pool_claims_total"), Some(0.0));
    assert_eq!(gateway.inspect("alice", "{{.HostConfig.NetworkMode}}"), "none");
    gateway.exec("alice", "echo hers >file").good();
    // While it runs: from its next start on, in another container with the same home.
    assert_eq!(set("alice", &json!("open")), "at-next-start");
    let before = gateway.inspect("alice", "{{.Id}}");
    assert_eq!(links("alice").trim(), "lo");
    admin.good(200, "POST", "/workspaces/alice/restart", None);
    assert_ne!(gateway.inspect("alice", "{{.Id}}"), before);
    assert!(links("alice").contains("eth0"));
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
    // One that is as it should be is only started.
    let before = gateway.inspect("alice", "{{.Id}}");
    admin.good(200, "POST", "/workspaces/alice/restart", None);
    assert_eq!(gateway.inspect("alice", "{{.Id}}"), before);
    // It survives the gateway, is copied, and goes with the workspace.
    run(gateway.innkeeper().args(["workspace", "policy", "alice", "--network", "none", "--idle", "never"])).good();
    let mut gateway = gateway;
    gateway.kill();
    gateway.up();
    let admin = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "again", &["admin"])));
    admin.good(200, "POST", "/workspaces/alice/restart", None);
    assert_eq!(gateway.exec("alice", "cd /sys/class/net && echo *").good().trim(), "lo");
    admin.good(201, "POST", "/workspaces", Some(&json!({ "name": "bob", "copy_of": "alice" })));
    let policy = |name: &str| admin.good(200, "GET", &format!("/workspaces/{name}"), None)["policy"].clone();
    assert_eq!(policy("bob"), json!({ "idle": "never", "network": "none", "public_ports": null }));
    assert_eq!(gateway.exec("bob", "cd /sys/class/net && echo *; cat ~/file").good(), "lo\nhers\n");
    // What is imported is closed to strangers until somebody here says otherwise.
    run(gateway.innkeeper().args(["workspace", "policy", "bob", "--public-ports", "8080"])).good();
    let file = gateway.dir.path().join("bob.export");
    run(gateway.innkeeper().args(["workspace", "export", "bob", "--to"]).arg(&file)).good();
    run(gateway.innkeeper().args(["workspace", "import", "carol", "--from"]).arg(&file)).good();
    assert_eq!(policy("carol"), json!({ "idle": "never", "network": "none", "public_ports": null }));
    run(gateway.innkeeper().args(["workspace", "delete", "alice", "--now"])).good();
    assert!(gateway.exec("alice", "cd /sys/class/net && echo *").good().contains("eth0"), "whoever comes after her has nothing of it");
    assert_eq!(policy("alice"), json!({ "idle": null, "network": null, "public_ports": null }));
}

#[test]
fn a_template_can_say_that_its_containers_have_no_network() {
    let gateway = Gateway::start(&format!("{}\n[pool]\nsize = 1\n", template("network = \"none\"\n")));
    wait_for("the pool", || gateway.pool() == 1);
    assert_eq!(gateway.exec("alice", "cd /sys/class/net && echo *").good().trim(), "lo");
    gateway.wait_metric("innkeeper_pool_claims_total", |claims| claims == 1.0);
    run(gateway.innkeeper().args(["workspace", "policy", "bob", "--network", "open"])).good();
    assert!(gateway.exec("bob", "cd /sys/class/net && echo *").good().contains("eth0"));
}

#[test]
fn one_workspace_is_stopped_sooner_and_another_never() {
    let gateway = Gateway::start("\n[idle]\ntimeout = \"3s\"\nkeep_busy = false\n");
    let admin = admin(&gateway);
    for (name, idle) in [("alice", json!("1s")), ("bob", json!("never")), ("carol", json!("1h"))] {
        admin.good(200, "PATCH", &format!("/workspaces/{name}"), Some(&json!({ "policy": { "idle": idle } })));
        gateway.exec(name, "true").good();
    }
    gateway.exec("dave", "true").good();
    wait_for("those with a limit to be stopped", || ["alice", "dave"].iter().all(|name| gateway.container_state(name) == "exited"));
    gateway.wait_sweeps(6);
    assert_eq!((gateway.container_state("bob"), gateway.container_state("carol")), ("running".to_owned(), "running".to_owned()));
    let status = |name: &str| gateway.exec(name, "innkeeper-status").good();
    assert!(status("bob").contains("never stopped for being idle"), "{}", status("bob"));
    assert!(status("carol").contains("stopped 1h after"), "{}", status("carol"));
    let usage = |name: &str| admin.good(200, "GET", &format!("/workspaces/{name}/usage"), None)["idle_timeout_seconds"].clone();
    assert_eq!([usage("bob"), usage("carol"), usage("dave")], [Value::Null, json!(3600), json!(3)]);
    // It is gone by at once.
    admin.good(200, "PATCH", "/workspaces/bob", Some(&json!({ "policy": { "idle": null } })));
    wait_for("it to be stopped", || gateway.container_state("bob") == "exited");
    for wrong in [json!("0s"), json!("often"), json!("2years"), json!("")] {
        assert_eq!(admin.refused("PATCH", "/workspaces/bob", Some(&json!({ "policy": { "idle": wrong } })), &[]), "refused", "{wrong}");
    }
    let both = json!({ "policy": { "idle": "1h" }, "limits": {} });
    assert_eq!(admin.refused("PATCH", "/workspaces/bob", Some(&both), &[]), "refused");
    assert_eq!(admin.refused("PATCH", "/workspaces/bob", Some(&json!({ "policy": {} })), &[]), "refused");
    assert_eq!(admin.refused("PATCH", "/workspaces/bob", Some(&json!({ "policy": { "network": "vpn" } })), &[]), "refused");
    assert_eq!(admin.refused("PATCH", "/workspaces/bob", Some(&json!({ "policy": { "public_ports": [0] } })), &[]), "refused");
    assert_eq!(admin.refused("PATCH", "/workspaces/bob", Some(&json!({ "policy": { "public_ports": [70_000] } })), &[]), "malformed");
}

#[test]
fn a_port_of_one_workspace_is_public_until_it_is_not() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut gateway = Gateway::start(&format!("\n[urls]\nlisten = \"127.0.0.1:{port}\"\ndomain = \"test\"\n"));
    gateway.exec_with("alice", "cat > application.py", include_bytes!("common/application.py")).good();
    let served = gateway.hold("alice", "exec python3 application.py 8080");
    gateway.exec("bob", "true").good();
    let curl = |host: &str| {
        let to = format!("::127.0.0.1:{port}");
        let url = format!("http://{host}.test:{port}/");
        run(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--connect-to", &to, &url])).good()
    };
    assert_eq!(curl("8080--alice"), "401");
    let set = run(gateway.innkeeper().args(["workspace", "policy", "alice", "--public-ports", "8080,9000"])).good();
    assert!(set.contains("policies of alice are set"), "{set}");
    assert_eq!((curl("8080--alice"), curl("8081--alice"), curl("8080--bob")), ("200".to_owned(), "401".to_owned(), "401".to_owned()));
    assert!(run(gateway.innkeeper().args(["workspace", "policy", "alice"])).good().contains("public ports  8080,9000"));
    assert!(run(gateway.innkeeper().args(["workspace", "show", "alice"])).good().contains("public ports  8080,9000"));
    drop(served);
    gateway.stop();
    gateway.up();
    let _served = gateway.hold("alice", "exec python3 application.py 8080");
    let last = std::time::Instant::now();
    wait_for("it to be served again", || curl("8080--alice") == "200" || last.elapsed() > Duration::from_secs(30));
    assert_eq!(curl("8080--alice"), "200", "after a start too");
    run(gateway.innkeeper().args(["workspace", "policy", "alice", "--public-ports", "default"])).good();
    assert_eq!(curl("8080--alice"), "401");
}
