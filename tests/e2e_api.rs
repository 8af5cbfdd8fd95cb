//! The API as a site or a script uses it: over the port, with a token, against a real gateway and a real engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use api::{Api, token};
use gateway::{DEADLINE, Gateway, run, template, wait_for};
use serde_json::{Value, json};

fn admin(gateway: &Gateway) -> Api {
    Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "admin", &["admin"])))
}

/// What opens each route beside `admin`. A new route is to be thought about here.
const OPENS: &[(&str, &str)] = &[
    ("GET /workspaces", "read provision"),
    ("POST /workspaces", "provision"),
    ("GET /workspaces/{name}", "read provision workspace"),
    ("PATCH /workspaces/{name}", ""),
    ("DELETE /workspaces/{name}", ""),
    ("POST /workspaces/{name}/changes", ""),
    ("POST /workspaces/{name}/start", "provision workspace"),
    ("POST /workspaces/{name}/stop", "workspace"),
    ("POST /workspaces/{name}/restart", "workspace"),
    ("POST /workspaces/{name}/suspend", ""),
    ("POST /workspaces/{name}/resume", ""),
    ("POST /workspaces/{name}/tasks", ""),
    ("GET /backups", "read"),
    ("POST /backups", ""),
    ("POST /workspaces/{name}/undelete", ""),
    ("GET /workspaces/{name}/archive", "workspace"),
    ("POST /workspaces/{name}/archive", ""),
    ("GET /workspaces/{name}/services", "read workspace"),
    ("GET /workspaces/{name}/logs", "workspace"),
    ("GET /workspaces/{name}/links", "read provision workspace"),
    ("POST /workspaces/{name}/links", "provision workspace"),
    ("DELETE /workspaces/{name}/links", "provision workspace"),
    ("DELETE /workspaces/{name}/links/{link}", "provision workspace"),
    ("GET /deleted", "read"),
    ("GET /sessions", "read"),
    ("DELETE /sessions/{id}", ""),
    ("GET /sessions/{id}/watch", ""),
    ("GET /recordings", "read"),
    ("GET /recordings/{id}", "read"),
    ("DELETE /recordings/{id}", ""),
    ("GET /recordings/{id}/download", ""),
    ("GET /recordings/{id}/frames", ""),
    ("GET /workspaces/{name}/sessions", "read workspace"),
    ("DELETE /workspaces/{name}/sessions/{id}", "workspace"),
    ("GET /accounts", "read provision"),
    ("POST /accounts", "provision"),
    ("GET /accounts/{account}", "read provision"),
    ("DELETE /accounts/{account}", ""),
    ("PUT /accounts/{account}/password", ""),
    ("GET /accounts/{account}/keys", "read provision"),
    ("POST /accounts/{account}/keys", ""),
    ("DELETE /accounts/{account}/keys/{fingerprint}", ""),
    ("POST /tenants", "provision"),
    ("GET /tokens", ""),
    ("POST /tokens", ""),
    ("GET /tokens/{name}", ""),
    ("DELETE /tokens/{name}", ""),
    ("GET /pool", "read"),
    ("PATCH /pool", ""),
    ("POST /pool/pause", ""),
    ("POST /pool/resume", ""),
    ("POST /pool/drain", ""),
    ("GET /templates", "read provision"),
    ("GET /queue", "read"),
    ("GET /leases", "read"),
    ("GET /engines", "read"),
    ("GET /config", ""),
    ("POST /reload", ""),
    ("GET /audit", "read"),
    ("GET /overview", "read"),
    ("GET /workspaces/{name}/usage", "read workspace"),
    ("GET /capacity", "read"),
    ("GET /events", "read"),
];

#[test]
fn every_route_is_opened_by_its_scopes_and_by_nothing_else() {
    let gateway = Gateway::start("");
    let described = Api::new(gateway.http_port, None).good(200, "GET", "/openapi.json", None);
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"), "{}", described["openapi"]);
    let opens: BTreeMap<&str, &str> = OPENS.iter().copied().collect();
    let scopes = ["read", "provision", "workspace:nowhere", "workspace:elsewhere", "admin"];
    let callers: Vec<(&str, Api)> = scopes
        .iter()
        .map(|scope| {
            let name = format!("t-{}", scope.replace(':', "-"));
            (*scope, Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), &name, &[scope]))))
        })
        .collect();
    let (nobody, forged) = (Api::new(gateway.http_port, None), Api::new(gateway.http_port, Some("ink_made-up")));
    let mut seen = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        let short = path.strip_prefix("/api/v1").unwrap();
        let asked = short
            .replace("{name}", "nowhere")
            .replace("{account}", "nobody")
            .replace("{id}", "4711")
            .replace("{link}", "0123")
            .replace("{fingerprint}", "SHA256:x");
        for method in item.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            seen += 1;
            let route = format!("{method} {short}");
            let opens = opens.get(route.as_str()).unwrap_or_else(|| panic!("{route} is not in the table"));
            assert_eq!(nobody.status(&method, &asked), 401, "{route} without a token");
            assert_eq!(forged.status(&method, &asked), 401, "{route} with one that was made up");
            for (scope, caller) in &callers {
                let is_open = match *scope {
                    "admin" => true,
                    "workspace:nowhere" => opens.split(' ').any(|word| word == "workspace"),
                    // Of another workspace.
                    "workspace:elsewhere" => false,
                    scope => opens.split(' ').any(|word| word == scope),
                };
                let status = caller.status(&method, &asked);
                assert_eq!(status != 403 && status != 401, is_open, "{route} with {scope}: {status}");
            }
        }
    }
    assert_eq!(seen, OPENS.len(), "a route of the table is not described");
}

#[test]
fn a_workspace_is_made_changed_started_watched_stopped_and_deleted() {
    let gateway = Gateway::start("");
    let admin = admin(&gateway);
    let new = json!({ "name": "alice", "env": { "COLOUR": "blue" }, "limits": { "pids": 200 } });
    let key = [("idempotency-key", "one")];
    let first = admin.ask_with("POST", "/workspaces", Some(&new), &key);
    assert_eq!((first.status, first.replayed), (201, false), "{first:?}");
    let again = admin.ask_with("POST", "/workspaces", Some(&new), &key);
    assert_eq!((again.status, again.replayed, &again.body), (201, true, &first.body));
    let other = json!({ "name": "bob" });
    assert_eq!(admin.refused("POST", "/workspaces", Some(&other), &key), "key_reused");
    assert_eq!(admin.refused("POST", "/workspaces", Some(&new), &[]), "exists");
    assert_eq!(admin.refused("POST", "/workspaces", Some(&json!({ "name": "bob", "colour": 1 })), &[]), "malformed");
    assert_eq!(admin.refused("POST", "/workspaces", Some(&json!({ "name": "bob", "template": "none" })), &[]), "refused");
    assert_eq!(admin.refused("GET", "/workspaces/bob", None, &[]), "not_found", "nothing was made of what was refused");

    let shown = admin.ask("GET", "/workspaces/alice", None);
    assert_eq!((&shown.body["limits"]["pids"], &shown.body["env"]["COLOUR"]), (&json!(200), &json!("blue")));
    let tag = shown.etag.unwrap();
    let patch = json!({ "env": { "COLOUR": null, "SHAPE": "round" } });
    assert_eq!(admin.ask_with("PATCH", "/workspaces/alice", Some(&patch), &[("if-match", &tag)]).status, 200);
    assert_eq!(admin.refused("PATCH", "/workspaces/alice", Some(&patch), &[("if-match", &tag)]), "changed");
    assert_eq!(admin.good(200, "GET", "/workspaces/alice", None)["env"], json!({ "SHAPE": "round" }));

    // How it goes is told as it happens, and what came of it at last.
    let told = admin.ask_with("POST", "/workspaces/alice/start", None, &[("accept", "text/event-stream")]);
    assert_eq!((told.status, told.kind.as_str()), (200, "text/event-stream"));
    assert!(told.text.contains("\"step\":\"creating\"") && told.text.contains("event: done\ndata: {"), "{}", told.text);
    assert_eq!(gateway.container_state("alice"), "running");
    assert_eq!(admin.good(200, "POST", "/workspaces/alice/start", None)["how"], "attach");
    let listed = |query: &str| admin.good(200, "GET", &format!("/workspaces{query}"), None)["items"].as_array().unwrap().len();
    assert_eq!((listed("?state=running"), listed("?state=absent"), listed("?prefix=al"), listed("?prefix=x")), (1, 0, 1, 0));

    // A session is seen and ended, and the feed tells of both.
    let mut feed = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
    let reading = token(&mut gateway.innkeeper(), "reading", &["read"]);
    write!(feed, "GET /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {reading}\r\n\r\n").unwrap();
    feed.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut heard = String::new();
    let mut hear = |wanted: &str| {
        while !heard.contains(wanted) {
            let mut buffer = [0; 4096];
            let length = feed.read(&mut buffer).unwrap();
            assert!(length > 0, "{wanted}: {heard}");
            heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    hear("event: listening");
    let held = gateway.hold("alice", "echo up; exec sleep 1000");
    hear("event: session-began");
    assert_eq!(admin.good(200, "GET", "/leases", None)["items"][0]["leases"], 1);
    let sessions = admin.good(200, "GET", "/sessions?workspace=alice", None);
    let (id, account) = (&sessions["items"][0]["id"], &sessions["items"][0]["account"]);
    assert_eq!(account, "alice");
    admin.good(204, "DELETE", &format!("/sessions/{id}"), None);
    let held = held.end();
    assert_eq!((held.status, held.text().as_str()), (Some(77), "up\n"), "{held:?}");
    assert!(held.stderr.contains("an administrator has ended this session"), "{held:?}");
    hear("event: session-ended");
    assert_eq!(gateway.container_state("alice"), "running", "the workspace goes on");
    // A terminal does not go on without her, as it would had her network failed.
    let mut terminal = gateway.terminal("alice", "echo up; exec sleep 1234");
    terminal.expect("up");
    let id = admin.good(200, "GET", "/sessions", None)["items"][0]["id"].clone();
    run(gateway.innkeeper().args(["session", "end", &id.to_string()])).good();
    terminal.expect("an administrator has ended this session");
    assert_eq!(terminal.end().0, Some(77));
    wait_for("its process to end", || gateway.exec("alice", "pgrep -f 'sleep 123[4]'").status == Some(1));

    admin.good(200, "POST", "/workspaces/alice/stop", None);
    assert_eq!(gateway.container_state("alice"), "exited");
    hear("\"state\":\"stopped\"");
    admin.good(200, "POST", "/workspaces/alice/restart", None);
    assert_eq!(gateway.container_state("alice"), "running");
    gateway.exec("alice", "test \"$SHAPE\" = round && echo hers >file").good();
    let copy = admin.good(201, "POST", "/workspaces", Some(&json!({ "name": "second", "copy_of": "alice" })));
    assert_eq!(copy["homes"], json!(["second"]));
    let done = admin.good(200, "DELETE", "/workspaces/alice", None);
    assert!(done["until"].is_string(), "{done}");
    assert_eq!(admin.good(200, "GET", "/deleted", None)["items"][0]["name"], "alice");
    admin.good(200, "POST", "/workspaces/alice/undelete", None);
    assert_eq!(gateway.exec("alice", "cat file").good(), "hers\n");
}

#[test]
fn somebody_signs_up_with_one_request_and_logs_in() {
    let mut gateway = Gateway::start(&format!("{}\n[pool]\nsize = 1\n", template("")));
    wait_for("the pool", || gateway.pool() == 1);
    let site = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "site", &["provision"])));
    let new = json!({ "account": "erin", "env": { "PLAN": "small" } });
    let made = site.ask_with("POST", "/tenants", Some(&new), &[("idempotency-key", "signup-1")]);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["workspace"], "erin", "{made:?}");
    // Usually at once; the answer does not wait for long, and it goes on.
    assert!(made.body["ready"].is_boolean(), "{made:?}");
    wait_for("the workspace", || gateway.container_state("erin") == "running");
    gateway.wait_metric("innkeeper_pool_claims_total", |claims| claims == 1.0);
    assert_eq!(made.body["ssh"], format!("ssh://erin@127.0.0.1:{}", gateway.ssh_port));
    assert_eq!(made.body["command"], format!("ssh -p {} -l erin 127.0.0.1", gateway.ssh_port));
    assert_eq!(made.body["web"], Value::Null, "workspaces have no URLs here");
    let password = made.body["password"].as_str().unwrap().to_owned();
    let again = site.ask_with("POST", "/tenants", Some(&new), &[("idempotency-key", "signup-1")]);
    assert_eq!((again.status, again.replayed, &again.body["password"]), (201, true, &Value::Null), "shown once: {again:?}");
    let mut ssh = gateway.ssh_by_password("erin", &[&password]);
    assert_eq!(run(ssh.arg("echo $PLAN")).good(), "small\n");
    assert_eq!(site.refused("POST", "/tenants", Some(&new), &[]), "exists");
    let taken = json!({ "account": "frank", "workspace": "erin" });
    assert_eq!(site.refused("POST", "/tenants", Some(&taken), &[]), "exists");
    assert_eq!(site.refused("GET", "/accounts/frank", None, &[]), "not_found", "nothing is half made");
    for wrong in ["a+b", "x\u{1b}[2J", ""] {
        let answer = site.ask("POST", "/tenants", Some(&json!({ "account": wrong })));
        assert!((400..500).contains(&answer.status) && !answer.text.contains('\u{1b}'), "{answer:?}");
    }
    // What is known of a key outlives the process.
    gateway.kill();
    gateway.up();
    let site = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "site-2", &["provision"])));
    assert_eq!(site.ask_with("POST", "/tenants", Some(&new), &[("idempotency-key", "signup-1")]).status, 409, "another sender's key");
}

#[test]
fn what_was_changed_meanwhile_is_refused_wherever_something_is_edited() {
    let gateway = Gateway::start("");
    let admin = admin(&gateway);
    let tag = |path: &str| admin.ask("GET", path, None).etag.unwrap();
    admin.good(201, "POST", "/workspaces", Some(&json!({ "name": "acme" })));
    let old = tag("/workspaces/acme");
    admin.good(200, "PATCH", "/workspaces/acme", Some(&json!({ "env": { "A": "1" } })));
    let edits = [
        ("PATCH", "/workspaces/acme", Some(json!({ "limits": { "pids": 100 } }))),
        ("POST", "/workspaces/acme/changes", Some(json!({ "env": { "set": { "B": "2" }, "unset": [] } }))),
        ("POST", "/workspaces/acme/suspend", Some(json!({ "reason": "unpaid" }))),
        ("POST", "/workspaces/acme/resume", None),
    ];
    for (method, path, body) in &edits {
        assert_eq!(admin.refused(method, path, body.as_ref(), &[("if-match", &old)]), "changed", "{method} {path}");
        let now = tag("/workspaces/acme");
        let done = admin.ask_with(method, path, body.as_ref(), &[("if-match", &now)]);
        assert_eq!(done.status, 200, "{method} {path}: {done:?}");
        assert_ne!(tag("/workspaces/acme"), now, "{method} {path}");
        assert_eq!(done.etag.unwrap(), tag("/workspaces/acme"), "{method} {path} says what it is now");
    }
    for (method, path, body) in [
        ("DELETE", "/workspaces/acme", None),
        ("DELETE", "/workspaces/acme?now=true", None),
        ("POST", "/workspaces/acme/tasks", Some(json!({ "delete": { "now": false } }))),
        ("POST", "/workspaces/acme/tasks", Some(json!({ "copy": { "to": "other" } }))),
    ] {
        assert_eq!(admin.refused(method, path, body.as_ref(), &[("if-match", &old)]), "changed", "{method} {path}");
    }
    assert_eq!(admin.good(200, "GET", "/deleted", None)["items"], json!([]), "nothing was done");
    let now = tag("/workspaces/acme");
    assert_eq!(admin.ask_with("DELETE", "/workspaces/acme", None, &[("if-match", &now)]).status, 200);
    assert_eq!(admin.refused("POST", "/workspaces/acme/undelete", None, &[("if-match", &now)]), "changed");
    let now = tag("/workspaces/acme");
    assert_eq!(admin.ask_with("POST", "/workspaces/acme/undelete", None, &[("if-match", &now)]).status, 200);
    // The pool.
    let was = tag("/pool");
    admin.good(200, "PATCH", "/pool", Some(&json!({ "size": 1 })));
    for (method, path, body) in [
        ("PATCH", "/pool", Some(json!({ "size": 2 }))),
        ("POST", "/pool/pause", None),
        ("POST", "/pool/resume", None),
        ("POST", "/pool/drain", None),
    ] {
        let now = tag("/pool");
        assert_eq!(admin.refused(method, path, body.as_ref(), &[("if-match", &was)]), "changed", "{path}");
        assert_eq!(tag("/pool"), now, "{path}: nothing was done");
        let done = admin.ask_with(method, path, body.as_ref(), &[("if-match", &now)]);
        assert_eq!((done.status, done.etag), (200, Some(tag("/pool"))), "{path}");
        assert_ne!(tag("/pool"), now, "{path}");
    }
    // An account, which is made once for a key, as a token is.
    for (path, new) in
        [("/accounts", json!({ "name": "erin", "generate_password": true })), ("/tokens", json!({ "name": "site", "scopes": ["read"] }))]
    {
        let key = [("idempotency-key", path)];
        let made = admin.ask_with("POST", path, Some(&new), &key);
        let again = admin.ask_with("POST", path, Some(&new), &key);
        assert_eq!((made.status, made.replayed, again.status, again.replayed), (201, false, 201, true), "{made:?} {again:?}");
        let shown = |answer: &Value| ["password", "token"].iter().any(|secret| answer[secret].is_string());
        assert!(shown(&made.body) && !shown(&again.body), "{again:?}");
    }
    let key = std::fs::read_to_string(gateway.dir.path().join("id.pub")).unwrap();
    let old = tag("/accounts/erin");
    admin.good(200, "POST", "/accounts/erin/keys", Some(&json!({ "keys": [key.trim()] })));
    let fingerprint = admin.good(200, "GET", "/accounts/erin/keys", None)["items"][0]["fingerprint"].as_str().unwrap().to_owned();
    let its_key = format!("/accounts/erin/keys/{}", fingerprint.replace('/', "%2F").replace('+', "%2B"));
    let edits = [
        ("POST", "/accounts/erin/keys", Some(json!({ "keys": [key.trim()] })), 200),
        ("PUT", "/accounts/erin/password", Some(json!({ "password": "correct horse" })), 200),
        ("DELETE", &its_key, None, 204),
        ("DELETE", "/accounts/erin", None, 204),
    ];
    for (method, path, body, status) in &edits {
        assert_eq!(admin.refused(method, path, body.as_ref(), &[("if-match", &old)]), "changed", "{method} {path}");
        let now = tag("/accounts/erin");
        let done = admin.ask_with(method, path, body.as_ref(), &[("if-match", &now)]);
        assert_eq!(done.status, *status, "{method} {path}");
        if *path != "/accounts/erin" {
            assert_eq!(done.etag.unwrap(), tag("/accounts/erin"), "{method} {path} says what it is now");
        }
    }
    // A token, where that name was given anew.
    let old = tag("/tokens/site");
    admin.good(204, "DELETE", "/tokens/site", None);
    admin.good(201, "POST", "/tokens", Some(&json!({ "name": "site", "scopes": ["provision"] })));
    assert_eq!(admin.refused("DELETE", "/tokens/site", None, &[("if-match", &old)]), "changed");
    let now = tag("/tokens/site");
    assert_eq!(admin.ask_with("DELETE", "/tokens/site", None, &[("if-match", &now)]).status, 204);
    assert_eq!(admin.refused("GET", "/tokens/site", None, &[]), "not_found");
}

#[test]
fn the_keys_of_an_account_are_listed_and_one_is_removed() {
    let gateway = Gateway::start("");
    let admin = admin(&gateway);
    let reader = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "reader", &["read"])));
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB a tablet";
    assert_eq!(admin.good(200, "POST", "/accounts/alice/keys", Some(&json!({ "keys": [other] })))["added"], 1);
    let listed = reader.ask("GET", "/accounts/alice/keys?limit=1", None);
    assert_eq!(listed.etag, reader.ask("GET", "/accounts/alice", None).etag);
    let more = reader.good(200, "GET", &format!("/accounts/alice/keys?cursor={}", listed.body["next"].as_str().unwrap()), None);
    let keys = [&listed.body["items"][0], &more["items"][0]];
    assert_eq!(more["next"], Value::Null);
    assert!(!listed.text.contains("AAAA") && !more.to_string().contains("AAAA"), "no key itself");
    let tablet = keys.iter().find(|key| key["comment"] == "a tablet").unwrap();
    let hers = keys.iter().find(|key| key["comment"] == "a test").unwrap();
    assert_eq!(tablet["algorithm"], "ssh-ed25519");
    let path = |key: &Value| {
        let encoded: String = key["fingerprint"].as_str().unwrap().bytes().map(|byte| format!("%{byte:02X}")).collect();
        format!("/accounts/alice/keys/{encoded}")
    };
    assert_eq!(reader.refused("DELETE", &path(tablet), None, &[]), "forbidden");
    gateway.exec("alice", "true").good();
    admin.good(204, "DELETE", &path(tablet), None);
    assert_eq!(admin.refused("DELETE", &path(tablet), None, &[]), "not_found");
    assert_eq!(admin.refused("DELETE", "/accounts/alice/keys/tablet", None, &[]), "malformed");
    assert_eq!(admin.refused("GET", "/accounts/nobody/keys", None, &[]), "not_found");
    gateway.exec("alice", "true").good();
    admin.good(204, "DELETE", &path(hers), None);
    assert_eq!(gateway.exec("alice", "true").status, Some(255), "it opens nothing any more");
    let act = format!("DELETE /api/v1/accounts/alice/keys/{}", tablet["fingerprint"].as_str().unwrap());
    gateway.trail(&["--event", "admin"], |shown| shown.contains(&act) && shown.contains("answered 204"));
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let target = tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap();
    let backups = format!("\n[backup]\ntarget = \"{}\"\nevery = \"0s\"\nverify_every = \"0s\"\n", target.path().display());
    let gateway = Gateway::start(&format!("{backups}\n[limits]\ncontainers = 1\n{}", template("disk = \"1GiB\"")));
    let admin = admin(&gateway);
    let list = |path: &str| admin.good(200, "GET", path, None)["items"].as_array().unwrap().clone();
    let names = |path: &str, key: &str| -> Vec<String> { list(path).iter().map(|one| one[key].as_str().unwrap().to_owned()).collect() };
    // Backups: three of two workspaces, the newest first.
    let back_up = |name: &str| admin.good(200, "POST", &format!("/workspaces/{name}/tasks"), Some(&json!({ "back-up": {} })));
    for name in ["alice", "bob"] {
        admin.good(201, "POST", "/workspaces", Some(&json!({ "name": name })));
        gateway.exec(name, "echo hers >file").good();
        admin.good(200, "POST", &format!("/workspaces/{name}/stop"), None);
        back_up(name);
    }
    gateway.exec("alice", "echo more >file").good();
    admin.good(200, "POST", "/workspaces/alice/stop", None);
    back_up("alice");
    let all = names("/backups", "id");
    assert_eq!((all.len(), names("/backups", "workspace")), (3, ["alice", "bob", "alice"].map(str::to_owned).to_vec()));
    let first = admin.good(200, "GET", "/backups?limit=2", None);
    let rest = admin.good(200, "GET", &format!("/backups?limit=2&cursor={}", first["next"].as_str().unwrap()), None);
    let ids = |page: &Value| page["items"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(([ids(&first), ids(&rest)].concat(), &rest["next"], &rest["unconfirmed"]), (all.clone(), &Value::Null, &json!([])));
    assert_eq!(list("/backups?workspace=bob").len(), 1);
    assert_eq!((list("/backups?until=2020-01-01T00:00:00Z").len(), list("/backups?since=2020-01-01T00:00:00Z").len()), (0, 3));
    assert_eq!(admin.refused("GET", "/backups?since=yesterday", None, &[]), "malformed");
    let listed: Value = serde_json::from_str(&run(gateway.innkeeper().args(["backup", "list", "--json"])).good()).unwrap();
    assert_eq!(listed["backups"].as_array().unwrap().len(), 3);
    // Workspaces, leases, sessions.
    let held = gateway.hold("alice", "echo up; exec sleep 1000");
    admin.good(200, "POST", "/workspaces/bob/suspend", Some(&json!({ "reason": "unpaid" })));
    assert_eq!(names("/workspaces?suspended=true", "name"), ["bob"]);
    assert_eq!(names("/workspaces?suspended=false", "name"), ["alice"]);
    assert_eq!(names("/leases?workspace=alice", "workspace"), ["alice"]);
    assert_eq!(list("/leases?template=none").len(), 0);
    assert_eq!((list("/sessions?since=2020-01-01T00:00:00Z").len(), list("/sessions?until=2020-01-01T00:00:00Z").len()), (1, 0));
    assert_eq!((list("/workspaces/alice/sessions?account=alice").len(), list("/workspaces/alice/sessions?account=bob").len()), (1, 0));
    // The queue, in which carol and dave wait for alice's place.
    let waiting: Vec<_> = ["carol", "dave"]
        .map(|name| {
            let child = gateway.ssh(name).arg("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            wait_for("her to wait", || list("/queue").iter().any(|one| one["workspace"] == name));
            child
        })
        .into();
    let first = admin.good(200, "GET", "/queue?limit=1", None);
    assert_eq!((&first["items"], &first["waiting"]), (&json!([{ "workspace": "carol", "position": 1 }]), &json!(2)));
    let rest = admin.good(200, "GET", &format!("/queue?limit=1&cursor={}", first["next"].as_str().unwrap()), None);
    assert_eq!((&rest["items"], &rest["next"]), (&json!([{ "workspace": "dave", "position": 2 }]), &Value::Null));
    assert_eq!(names("/queue?workspace=dave", "workspace"), ["dave"]);
    for mut child in waiting {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    drop(held);
    // Accounts, tokens, what was deleted.
    run(gateway.innkeeper().args(["account", "add", "erin", "--generate", "--workspace", "bob", "--template", "web"])).good();
    assert_eq!(names("/accounts?workspace=bob", "name"), ["bob", "erin"]);
    assert_eq!(names("/accounts?template=web", "name"), ["erin"]);
    assert_eq!(names("/accounts?prefix=al", "name"), ["alice"]);
    token(&mut gateway.innkeeper(), "reader", &["read"]);
    assert_eq!(names("/tokens?scope=read", "name"), ["reader"]);
    assert_eq!((names("/tokens?expired=false", "name").len(), names("/tokens?expired=true", "name").len()), (2, 0));
    admin.good(200, "DELETE", "/workspaces/bob", None);
    assert_eq!(names("/deleted?state=deleted&prefix=b&since=2020-01-01T00:00:00Z", "name"), ["bob"]);
    assert_eq!(list("/deleted?prefix=x").len() + list("/deleted?until=2020-01-01T00:00:00Z").len(), 0);
}

#[test]
fn who_signs_up_is_told_the_names_that_are_configured() {
    let urls = "listen = \"127.0.0.1:0\"\ndomain = \"example.org\"\nport = \":443\"\nbehind_tls = true\n";
    let gateway = Gateway::start(&format!("\n[ssh]\npublic_address = \"ssh.example.org:22\"\n\n[urls]\n{urls}"));
    let site = Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), "site", &["provision"])));
    let made = site.good(201, "POST", "/tenants", Some(&json!({ "account": "erin" })));
    assert_eq!(made["ssh"], "ssh://erin@ssh.example.org:22");
    assert_eq!(made["command"], "ssh -p 22 -l erin ssh.example.org");
    assert_eq!(made["web"], "https://{port}--erin.example.org");
    // A name of its own, and the port that is listened on; from when the configuration is loaded.
    gateway.configure(&format!("\n[ssh]\npublic_address = \"[2001:db8::1]\"\n\n[urls]\n{urls}"));
    let admin = admin(&gateway);
    assert_eq!(admin.good(200, "POST", "/reload", None), json!({ "changed": ["ssh.public_address"], "needs_restart": [] }));
    let made = site.good(201, "POST", "/tenants", Some(&json!({ "account": "frank" })));
    assert_eq!(made["ssh"], format!("ssh://frank@[2001:db8::1]:{}", gateway.ssh_port));
    assert_eq!(made["command"], format!("ssh -p {} -l frank 2001:db8::1", gateway.ssh_port));
}

/// Whatever makes a workspace or a backup is done once for a key; a workspace also where a kill came between that and the answer.
#[test]
fn a_copy_an_import_and_a_backup_are_made_once_for_a_key() {
    let target = tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap();
    let backups = format!("\n[backup]\ntarget = \"{}\"\nevery = \"0s\"\nverify_every = \"0s\"\n", target.path().display());
    let mut gateway = Gateway::start(&format!("{backups}{}", template("disk = \"1GiB\"")));
    let value = token(&mut gateway.innkeeper(), "admin", &["admin"]);
    gateway.exec("alice", "echo hers > file").good();
    let parcel = gateway.dir.path().join("parcel");
    run(gateway.innkeeper().args(["workspace", "export", "alice", "--to"]).arg(&parcel)).good();
    let tasks = [
        ("/workspaces/alice/tasks", json!({ "copy": { "to": "bob" } }), "copy"),
        ("/workspaces/alice/tasks", json!({ "back-up": {} }), "backup"),
        ("/backups", json!({ "back-up": {} }), "all"),
        ("/workspaces/dave/tasks", json!({ "restore": { "from": "alice" } }), "restore"),
        ("/workspaces", json!({ "name": "erin", "copy_of": "alice" }), "copy-of"),
    ];
    let admin = Api::new(gateway.http_port, Some(&value));
    for (path, task, key) in &tasks {
        let key = [("idempotency-key", *key)];
        let first = admin.ask_with("POST", path, Some(task), &key);
        assert!([200, 201].contains(&first.status) && !first.replayed, "{path} {first:?}");
        let again = admin.ask_with("POST", path, Some(task), &key);
        assert_eq!((again.status, again.replayed, &again.body), (first.status, true, &first.body));
        let streamed = [key[0], ("accept", "text/event-stream")];
        if !path.ends_with("/workspaces") {
            assert_eq!(admin.refused("POST", path, Some(task), &streamed), "malformed");
        }
    }
    let made = || admin.good(200, "GET", "/backups", None)["items"].as_array().unwrap().len();
    // One of alice alone, and one of everybody there was: alice and bob.
    assert_eq!(made(), 3);
    assert_eq!(admin.refused("POST", tasks[0].0, Some(&tasks[0].1), &[]), "exists");
    assert_eq!(admin.refused("POST", tasks[0].0, Some(&tasks[0].1), &[("idempotency-key", "another")]), "exists");
    let import = |port: u16| {
        let url = format!("http://127.0.0.1:{port}/api/v1/workspaces/carol/archive");
        let data = format!("@{}", parcel.display());
        let header = format!("authorization: Bearer {value}");
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--include", "--header", &header, "--header", "idempotency-key: import"]);
        run(curl.args(["--header", "expect:", "--data-binary", &data, &url])).good().to_lowercase()
    };
    let first = import(gateway.http_port);
    assert!(first.starts_with("http/1.1 200") && !first.contains("idempotency-replayed"), "{first}");
    let again = import(gateway.http_port);
    assert!(again.starts_with("http/1.1 200") && again.contains("idempotency-replayed: true"), "{again}");
    // As it was before the answers were written down.
    gateway.kill();
    let store = rusqlite::Connection::open(gateway.state().join("innkeeper.db")).unwrap();
    assert_eq!(store.execute("update request set status = null, answer = null", []).unwrap(), 6);
    drop(store);
    gateway.up();
    let admin = Api::new(gateway.http_port, Some(&value));
    for (path, task, key) in [&tasks[0], &tasks[3], &tasks[4]] {
        let answer = admin.ask_with("POST", path, Some(task), &[("idempotency-key", key)]);
        assert!([200, 201].contains(&answer.status) && !answer.replayed && answer.body["unchanged"] == true, "{answer:?}");
    }
    let after = import(gateway.http_port);
    assert!(after.starts_with("http/1.1 200") && after.contains("\"unchanged\":true"), "{after}");
    for account in ["bob", "carol", "dave", "erin"] {
        gateway.add_account(account);
        assert_eq!(gateway.exec(account, "cat file").good(), "hers\n", "{account}");
    }
}

/// A kill between what a request makes and its answer: the same request goes on from whatever there is, and never makes two.
#[test]
fn a_signup_that_a_kill_cut_short_goes_on_when_it_is_sent_again() {
    let mut gateway = Gateway::start("");
    let value = token(&mut gateway.innkeeper(), "site", &["provision"]);
    let new = json!({ "account": "erin", "env": { "PLAN": "small" } });
    let sign_up = |port| Api::new(port, Some(&value)).ask_with("POST", "/tenants", Some(&new), &[("idempotency-key", "k")]);
    assert_eq!(sign_up(gateway.http_port).status, 201);
    for account_is_there in [true, false] {
        gateway.kill();
        let store = rusqlite::Connection::open(gateway.state().join("innkeeper.db")).unwrap();
        // As it was before the answer was written down.
        assert_eq!(store.execute("update request set status = null, answer = null", []).unwrap(), 1);
        drop(store);
        if !account_is_there {
            run(gateway.innkeeper().args(["account", "remove", "erin"])).good();
        }
        gateway.up();
        let made = sign_up(gateway.http_port);
        assert_eq!((made.status, made.replayed), (201, false), "{made:?}");
        let password = made.body["password"].as_str().unwrap();
        assert_eq!(run(gateway.ssh_by_password("erin", &[password]).arg("echo $PLAN")).good(), "small\n");
        let again = sign_up(gateway.http_port);
        assert_eq!((again.status, again.replayed), (201, true), "{again:?}");
    }
    let accounts = run(gateway.innkeeper().args(["account", "list"])).good();
    assert_eq!(accounts.lines().filter(|line| line.starts_with("erin ")).count(), 1, "{accounts}");
}

#[test]
fn tokens_end_when_they_are_revoked_or_expire_and_are_not_in_the_state_directory() {
    let mut gateway = Gateway::start("");
    let value = token(&mut gateway.innkeeper(), "script", &["read", "workspace:alice"]);
    let script = Api::new(gateway.http_port, Some(&value));
    script.good(200, "GET", "/queue", None);
    gateway.stop();
    gateway.up();
    let script = Api::new(gateway.http_port, Some(&value));
    script.good(200, "GET", "/queue", None);
    for entry in std::fs::read_dir(gateway.state()).unwrap().map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(value.len()).any(|window| window == value.as_bytes()), "{entry:?}");
    }
    assert!(!gateway.log().contains(&value));
    let listed = run(gateway.innkeeper().args(["token", "list"])).good();
    assert!(listed.contains("script") && listed.contains("read workspace:alice") && !listed.contains(&value), "{listed}");
    run(gateway.innkeeper().args(["token", "revoke", "script"])).good();
    assert_eq!(script.refused("GET", "/queue", None, &[]), "unauthenticated");
    assert_eq!(run(gateway.innkeeper().args(["token", "revoke", "script"])).status, Some(1));

    let admin = admin(&gateway);
    let short = admin.good(201, "POST", "/tokens", Some(&json!({ "name": "short", "scopes": ["read"], "expires_in": "2s" })));
    let short = Api::new(gateway.http_port, short["token"].as_str());
    assert!([200, 401].contains(&short.ask("GET", "/queue", None).status));
    wait_for("it to expire", || short.ask("GET", "/queue", None).status == 401);
    assert_eq!(admin.refused("POST", "/tokens", Some(&json!({ "name": "x", "scopes": ["root"] })), &[]), "refused");
}

#[test]
fn the_gateway_is_shown_and_its_pool_and_configuration_are_changed() {
    let gateway = Gateway::start(&template(""));
    let admin = admin(&gateway);
    let engines = admin.good(200, "GET", "/engines", None);
    let (engine, others) = engines["items"].as_array().unwrap().split_first().unwrap();
    assert_eq!((&engine["kind"], &engine["answers"], &engine["why"], others.len()), (&json!("docker"), &json!(true), &Value::Null, 0));
    assert!(engine["version"].is_string() && engine["address"].as_str().unwrap().starts_with("unix:///"), "{engine}");
    assert_eq!(admin.good(200, "GET", "/templates", None)["items"][0]["name"], "default");
    assert_eq!(admin.good(200, "GET", "/config", None)["instance"], gateway.instance.as_str());
    let shown = admin.ask("GET", "/pool", None);
    let tag = shown.etag.unwrap();
    let patch = json!({ "size": 1 });
    assert_eq!(admin.ask_with("PATCH", "/pool", Some(&patch), &[("if-match", &tag)]).body["size"], 1);
    assert_eq!(admin.refused("PATCH", "/pool", Some(&patch), &[("if-match", &tag)]), "changed");
    wait_for("the pool", || admin.good(200, "GET", "/pool", None)["templates"][0]["ready"] == 1);
    let drained = run(gateway.innkeeper().args(["pool", "drain"])).good();
    assert_eq!(drained, "1 thrown away; the pool is paused\n");
    assert!(run(gateway.innkeeper().args(["pool", "show"])).good().contains("paused"));
    gateway.configure(&format!("{}\n[idle]\ntimeout = \"17m\"\n", template("")));
    let reloaded = admin.good(200, "POST", "/reload", None);
    assert_eq!(reloaded["changed"], json!(["idle.timeout"]));
    assert_eq!(admin.good(200, "GET", "/config", None)["idle"]["timeout"], "17m");
    assert_eq!(admin.good(200, "GET", "/pool", None)["paused"], false, "what is written is what holds again");
    let text = std::fs::read(gateway.config()).unwrap();
    std::fs::write(gateway.config(), "nonsense = 1\n").unwrap();
    assert_eq!(admin.refused("POST", "/reload", None, &[]), "refused");
    std::fs::write(gateway.config(), text).unwrap();
    assert_eq!(admin.good(200, "GET", "/config", None)["idle"]["timeout"], "17m");
}

#[test]
fn what_is_too_long_slow_or_nowhere_is_refused_as_a_problem() {
    let gateway = Gateway::start("");
    let admin = admin(&gateway);
    assert_eq!(admin.refused("GET", "/nothing", None, &[]), "not_found");
    assert_eq!(admin.refused("PUT", "/queue", None, &[]), "method_not_allowed");
    assert_eq!(admin.refused("GET", "/workspaces?limit=0", None, &[]), "malformed");
    assert_eq!(admin.refused("GET", "/workspaces?colour=1", None, &[]), "malformed");
    assert_eq!(admin.refused("GET", "/workspaces/..%2f..", None, &[]), "malformed");
    assert_eq!(admin.refused("POST", "/workspaces/alice/suspend", None, &[]), "media_type");
    let long = json!({ "reason": "x".repeat(600_000) });
    assert_eq!(admin.refused("POST", "/workspaces/alice/suspend", Some(&long), &[]), "too_long");
    let name = "x".repeat(300);
    assert_eq!(admin.refused("POST", "/workspaces", Some(&json!({ "name": "x" })), &[("idempotency-key", &name)]), "malformed");

    let mut stream = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET /api/v1/queue HTTP/1.1\r\nhost: x\r\nx: {}\r\n", "y".repeat(40_000)).ok();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // A body that never comes ends its own connection only.
    let value = token(&mut gateway.innkeeper(), "slow", &["admin"]);
    let mut slow = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
    slow.set_read_timeout(Some(DEADLINE)).unwrap();
    let head = "content-type: application/json\r\ncontent-length: 100\r\nconnection: close";
    write!(slow, "POST /api/v1/workspaces HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {value}\r\n{head}\r\n\r\n{{").unwrap();
    admin.good(200, "GET", "/queue", None);
    let mut answer = String::new();
    slow.read_to_string(&mut answer).ok();
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"code\":\"timeout\""), "{answer}");
}

#[test]
fn the_program_shows_all_of_it_and_takes_no_orders_from_names() {
    let gateway = Gateway::start("");
    run(gateway.innkeeper().args(["workspace", "create", "alice", "--env", "A=1", "--start"])).good();
    let held = gateway.hold("alice", "echo up; exec sleep 1000");
    let sessions = run(gateway.innkeeper().args(["session", "list"])).good();
    assert!(sessions.starts_with("ID  ACCOUNT  WORKSPACE  FOR\n1   alice    alice"), "{sessions}");
    let top = run(gateway.innkeeper().args(["top", "--once"])).good();
    assert!(top.starts_with("places 1 of ") && top.contains("alice  running  default"), "{top}");
    let top: Value = serde_json::from_str(&run(gateway.innkeeper().args(["top", "--once", "--json"])).good()).unwrap();
    assert_eq!(top["sessions"][0]["account"], "alice");
    assert_eq!(run(gateway.innkeeper().args(["workspace", "stop", "alice"])).good(), "alice is stopped\n");
    drop(held);
    assert_eq!(run(gateway.innkeeper().args(["workspace", "start", "alice"])).good(), "alice runs (its container was started)\n");
    let logs = run(gateway.innkeeper().args(["workspace", "logs", "alice"]));
    assert!(logs.status == Some(1) && logs.stderr.contains("alice has no services"), "{logs:?}");
    let list = run(gateway.innkeeper().args(["workspace", "list", "--state", "running", "--json"])).good();
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()[0]["name"], "alice");
    assert!(run(gateway.innkeeper().args(["template", "list"])).good().contains("default"));
    let page = run(gateway.innkeeper().args(["man", "workspace", "delete"])).good();
    assert!(page.contains(".TH innkeeper\\-workspace\\-delete") && page.contains("\\-\\-now"), "{page}");
    assert_eq!(run(gateway.innkeeper().args(["man", "nothing"])).status, Some(1));
}
