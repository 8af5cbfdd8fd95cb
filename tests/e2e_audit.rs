//! The audit trail of a gateway in use: what people and administrators do is in it, and a kill takes nothing from it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use api::{Api, token};
use gateway::{Gateway, run, wait_for};
use serde_json::{Value, json};

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
fn the_syslog_of_this_host_has_each_line_of_the_trail() {
    let dir = tempfile::tempdir().unwrap();
    let syslog = UnixDatagram::bind(dir.path().join("log")).unwrap();
    syslog.set_read_timeout(Some(gateway::DEADLINE)).unwrap();
    let gateway = Gateway::start(&format!("[audit]\nsyslog = \"unix://{}\"\n", dir.path().join("log").display()));
    gateway.exec("alice", "true").good();
    let mut bytes = [0; 16 * 1024];
    let said = loop {
        let length = syslog.recv(&mut bytes).unwrap();
        let line = std::str::from_utf8(&bytes[..length]).unwrap();
        let (head, event) = line.split_once(": ").unwrap();
        assert_eq!(head, format!("<86>innkeeper[{}]", gateway.pid()));
        if serde_json::from_str::<Value>(event).unwrap()["event"] == "login" {
            break event.to_owned();
        }
    };
    let path = gateway.dir.path().join("state/audit/audit.jsonl");
    assert!(std::fs::read_to_string(path).unwrap().lines().any(|line| line == said), "{said}");
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

#[test]
fn what_is_refused_over_http_is_in_the_trail_and_a_flood_of_it_is_a_few_lines() {
    const FLOOD: u64 = 400;
    let urls = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut gateway = Gateway::start(&format!("\n[urls]\nlisten = \"127.0.0.1:{urls}\"\ndomain = \"test\"\n"));
    let (port, dir) = (gateway.http_port, gateway.dir.path().to_owned());
    let curl = |arguments: &[&str]| -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--noproxy", "*", "--max-time", "60", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        run(command.args(arguments)).good()
    };
    let base = format!("http://127.0.0.1:{port}");
    let origin = format!("Origin: {base}");
    let admin = token(&mut gateway.innkeeper(), "admin", &["admin"]);
    let onlooker = Api::new(port, Some(&token(&mut gateway.innkeeper(), "onlooker", &["read"])));
    let stranger = Api::new(port, None);
    // The API, which asks for a token.
    assert_eq!(stranger.refused("GET", "/workspaces/alice", None, &[]), "unauthenticated");
    let forged = Api::new(port, Some("ink_made-up"));
    assert_eq!(forged.refused("DELETE", "/workspaces/alice", None, &[]), "unauthenticated");
    assert_eq!(onlooker.refused("GET", "/config", None, &[]), "forbidden");
    assert_eq!(onlooker.refused("POST", "/workspaces/alice/stop", None, &[]), "forbidden");
    let made = Api::new(port, Some(&admin)).good(
        201,
        "POST",
        "/tokens",
        Some(&json!({ "name": "short", "scopes": ["read"], "expires_in": "1s" })),
    );
    let short = Api::new(port, made["token"].as_str());
    wait_for("it to expire", || short.ask("GET", "/queue", None).status == 401);
    // The dashboard, and requests in its sessions.
    let log_in = |token: &str, more: &[&str]| {
        let body = json!({ "token": token }).to_string();
        let url = format!("{base}/dashboard/session");
        curl(&[&["--header", "content-type: application/json", "--data", &body, &url][..], more].concat())
    };
    let jar = dir.join("jar");
    let jar = jar.to_str().unwrap();
    assert_eq!(log_in("ink_made-up-too", &["--header", &origin]), "401");
    assert_eq!(log_in(&admin, &[]), "403", "from another site's page");
    assert_eq!(log_in(&admin, &["--header", &origin, "--cookie-jar", jar]), "201");
    let pause = format!("{base}/api/v1/pool/pause");
    assert_eq!(curl(&["--request", "POST", "--header", &origin, "--cookie", jar, &pause]), "403");
    assert_eq!(curl(&["--header", "Cookie: innkeeper-session=made-up", &format!("{base}/api/v1/pool")]), "401");
    // Workspace URLs.
    run(gateway.innkeeper().args(["workspace", "create", "alice"])).good();
    let link = run(gateway.innkeeper().args(["open", "alice", "8080"])).good().trim().to_owned();
    run(gateway.innkeeper().args(["unlink", "alice"])).good();
    let at = format!("http://127.0.0.1:{urls}");
    let asked = |host: &str, path: &str, more: &[&str]| {
        let (host, url) = (format!("Host: {host}.test"), format!("{at}{path}"));
        curl(&[&["--header", &host, &url][..], more].concat())
    };
    let opened = link.split_once("/.innkeeper").unwrap().1;
    assert_eq!(asked("8080--alice", "/", &[]), "401");
    assert_eq!(asked("8080--alice", "/", &["--header", "Cookie: innkeeper-url=made.up"]), "401");
    assert_eq!(asked("8080--alice", &format!("/.innkeeper{opened}"), &[]), "401");
    assert_eq!(asked("8081--alice", &format!("/.innkeeper{opened}"), &[]), "401");
    assert_eq!(asked("nobody", "/", &[]), "401");
    // A flood, all of it of one kind.
    for _ in 0..FLOOD {
        assert_eq!(stranger.status("GET", "/overview"), 401);
    }
    gateway.stop();

    let told = shown(&gateway, &["--event", "refused"]);
    let expected = [
        ("api", "no-token", "GET /api/v1/workspaces/alice", json!("alice"), json!("stranger")),
        ("api", "unknown-token", "DELETE /api/v1/workspaces/alice", json!("alice"), json!("stranger")),
        ("api", "scope", "GET /api/v1/config", Value::Null, json!({ "token": "onlooker" })),
        ("api", "expired-token", "GET /api/v1/queue", Value::Null, json!({ "token": "short" })),
        ("api", "csrf", "POST /api/v1/pool/pause", Value::Null, json!({ "dashboard": "token admin" })),
        ("api", "session-over", "GET /api/v1/pool", Value::Null, json!("stranger")),
        ("dashboard", "unknown-token", "log in", Value::Null, json!({ "dashboard": null })),
        ("dashboard", "csrf", "log in", Value::Null, json!({ "dashboard": null })),
        ("url", "no-link", "port 8080", json!("alice"), json!("stranger")),
        ("url", "forged-link", "port 8080", json!("alice"), json!("stranger")),
        ("url", "link-revoked", "a link to port 8080", json!("alice"), json!("stranger")),
        ("url", "link-to-elsewhere", "a link to port 8081", json!("alice"), json!("stranger")),
        ("url", "no-such-address", "nobody.test", Value::Null, json!("stranger")),
    ];
    for (door, reason, asked, workspace, actor) in &expected {
        let is_it = |event: &&Value| event["door"] == *door && event["reason"] == *reason && event["asked"] == *asked;
        let event = told.iter().find(is_it).unwrap_or_else(|| panic!("{door} {reason} {asked}: {told:?}"));
        assert_eq!((&event["workspace"], &event["actor"], &event["times"]), (workspace, actor, &json!(1)), "{event}");
        assert_eq!(event["remote"], "127.0.0.1", "{event}");
    }
    let of = |reason: &str| told.iter().filter(|event| event["door"] == "api" && event["reason"] == reason).collect::<Vec<_>>();
    let times = |events: &[&Value]| events.iter().map(|event| event["times"].as_u64().unwrap()).sum::<u64>();
    // One line at once, and one at the end, or a few more where five minutes went by meanwhile.
    assert_eq!(times(&of("no-token")), 1 + FLOOD, "each is told or counted: {told:?}");
    assert!(of("no-token").len() <= 4, "{told:?}");
    assert_eq!(times(&of("scope")), 2);
    let text = std::fs::read_to_string(dir.join("state/audit/audit.jsonl")).unwrap();
    let secrets = [admin.as_str(), "made-up", "made.up", opened.split_once("t=").unwrap().1, made["token"].as_str().unwrap()];
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    run(gateway.innkeeper().args(["audit", "verify"])).good();
}
