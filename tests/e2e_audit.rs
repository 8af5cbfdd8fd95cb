//! The audit trail of a gateway in use: what people and administrators do is in it, and a kill takes nothing from it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use api::{Api, token};
use gateway::{Gateway, run, wait_for};
use serde_json::Value;

/// What `innkeeper audit show --json` prints with these arguments.
fn shown(gateway: &Gateway, arguments: &[&str]) -> Vec<Value> {
    let text = run(gateway.innkeeper().args(["audit", "show", "--json"]).args(arguments)).good();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

#[test]
fn what_is_done_is_in_the_trail_and_stays_there() {
    let mut gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    let mut denied = gateway.ssh_by_password("bob\u{1b}[2J", &["wrong"]);
    denied.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let mut denied = gateway.ssh_by_password("mallory", &["wrong"]);
    denied.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    let mut forward = gateway.ssh("alice");
    forward.args(["-W", "127.0.0.1:9"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    run(gateway.innkeeper().args(["workspace", "env", "alice", "set", "COLOUR=blue-secret"])).good();
    run(gateway.innkeeper().args(["workspace", "delete", "alice", "--now"])).good();
    wait_for("all of it", || {
        let alice = shown(&gateway, &["--workspace", "alice"]);
        let kinds = kinds(&alice);
        ["login", "session-started", "session-ended", "forward", "admin", "workspace"].iter().all(|kind| kinds.contains(kind))
            && alice.iter().any(|event| event["step"] == "deleted-for-good")
    });
    let alice = shown(&gateway, &["--workspace", "alice"]);
    let login = alice.iter().find(|event| event["event"] == "login").unwrap();
    assert!(
        login["remote"] == "127.0.0.1" && login["actor"]["account"] == "alice" && login["key"].as_str().unwrap().starts_with("SHA256:")
    );
    let started = alice.iter().find(|event| event["event"] == "session-started").unwrap();
    assert_eq!(started["connection"], login["connection"], "what belongs together can be told");
    let refused = shown(&gateway, &["--account", "mallory"]);
    assert!(!refused.is_empty() && refused.iter().all(|event| event["event"] == "login-refused"), "{refused:?}");
    let all = run(gateway.innkeeper().args(["audit", "show"])).good();
    assert!(!all.contains('\u{1b}') && !all.contains("blue-secret") && all.contains("login-refused"), "{all}");
    // Killed in the middle of its life, it goes on where it was.
    gateway.kill();
    let verified = run(gateway.innkeeper().args(["audit", "verify", "--json"]));
    let report: Value = serde_json::from_str(&verified.good()).unwrap();
    gateway.up();
    gateway.exec("carol", "true").good();
    let digest = report["head"].as_str().unwrap();
    run(gateway.innkeeper().args(["audit", "verify", "--head", digest])).good();
    assert_eq!(kinds(&shown(&gateway, &["--event", "gateway-started"])).len(), 2);
    // Somebody takes out what she did.
    let path = gateway.dir.path().join("state/audit/audit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let without: String = text.lines().filter(|line| !line.contains("mallory")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, without).unwrap();
    let verified = run(gateway.innkeeper().args(["audit", "verify"]));
    assert!(verified.status == Some(1) && String::from_utf8_lossy(&verified.stdout).contains("lines are missing"), "{verified:?}");
}

#[test]
fn whoever_hangs_up_leaves_nothing_that_is_made_and_not_in_the_trail() {
    let gateway = Gateway::start("");
    let token = token(&mut gateway.innkeeper(), "hasty", &["provision"]);
    let told = || -> BTreeSet<String> {
        let acts = shown(&gateway, &["--event", "admin"]);
        let made = acts.iter().filter_map(|event| event["act"].as_str()?.strip_prefix("POST /api/v1/accounts: ").map(str::to_owned));
        made.collect()
    };
    for number in 0..60_u64 {
        let body = format!("{{\"name\":\"hasty{number:02}\",\"password\":\"long-enough-to-be-one\"}}");
        let head = format!(
            "POST /api/v1/accounts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
        stream.write_all((head + &body).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_micros(number * number * 100));
    }
    // Whoever waits for her answer is in there too, and comes last.
    let body = serde_json::json!({ "name": "patient", "password": "long-enough-to-be-one" });
    Api::new(gateway.http_port, Some(&token)).good(201, "POST", "/accounts", Some(&body));
    let made = || -> BTreeSet<String> {
        let listed = run(gateway.innkeeper().args(["account", "list"])).good();
        listed.split_whitespace().filter(|word| word.starts_with("hasty") || *word == "patient").map(str::to_owned).collect()
    };
    wait_for("the trail to have what was made", || told() == made());
    assert!(made().len() > 5, "some were not too hasty: {:?}", made());
}
