//! What the API shows for a dashboard: how all is, what a workspace uses, how many more fit, what was recorded; and links, against a real gateway
//! and a real engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;

use std::net::TcpListener;
use std::process::Command;

use api::{Api, token};
use gateway::{Gateway, run, wait_for};
use serde_json::{Value, json};

const QUICKLY: &str = "\n[capacity]\nsample_every = \"1s\"\nhost_price = 49.0\n";

fn caller(gateway: &Gateway, name: &str, scopes: &[&str]) -> Api {
    Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), name, scopes)))
}

fn items(answer: &Value) -> &Vec<Value> {
    answer["items"].as_array().unwrap()
}

#[test]
fn what_is_used_is_measured_and_shown_against_what_may_be() {
    let gateway = Gateway::start(QUICKLY);
    let reader = caller(&gateway, "reader", &["read"]);
    let admin = caller(&gateway, "admin", &["admin"]);
    admin.good(201, "POST", "/workspaces", Some(&json!({ "name": "still", "limits": { "cpus": 0.5, "memory": "64MiB" } })));
    let busy = gateway.hold("alice", "echo up; exec timeout 300 sh -c 'while :; do :; done'");
    let listed = |name: &str| {
        let all = reader.good(200, "GET", "/workspaces", None);
        items(&all).iter().find(|one| one["name"] == name).unwrap().clone()
    };
    wait_for("it to be measured", || listed("alice")["usage"]["cpu"].as_f64().is_some_and(|cpu| cpu > 0.2));
    let alice = listed("alice");
    assert!(alice["usage"]["memory"].as_u64().unwrap() > 0 && alice["usage"]["pids"].as_u64().unwrap() >= 2, "{alice}");
    assert_eq!((&alice["allowed"]["memory"], &alice["allowed"]["cpu"]), (&json!(512 << 20), &json!(2.0)), "{alice}");
    assert!(alice["last_login"].is_string(), "{alice}");
    let still = listed("still");
    assert_eq!(
        (&still["allowed"]["cpu"], &still["usage"]["cpu"], &still["state"]),
        (&json!(0.5), &Value::Null, &json!("absent")),
        "{still}"
    );
    assert!(still.get("last_login").is_none(), "nobody ever came: {still}");

    let points = || reader.good(200, "GET", "/workspaces/alice/usage", None);
    wait_for("a history", || points()["points"].as_array().unwrap().len() >= 3);
    let usage = points();
    let point = usage["points"].as_array().unwrap().last().unwrap();
    assert!(point["cpu"].as_f64().unwrap() > 0.2 && point["memory"].as_u64().unwrap() > 0 && point["at"].is_string(), "{usage}");
    assert_eq!((&usage["idle_seconds"], &usage["every_seconds"], &usage["state"]), (&Value::Null, &json!(1.0), &json!("running")));
    assert_eq!(usage["idle_timeout_seconds"], 1800);
    let cost = &usage["cost"];
    assert!(cost["by_limits"].as_f64().unwrap() > cost["by_use"].as_f64().unwrap() && cost["currency"] == "EUR", "{cost}");
    assert!(!reader.good(200, "GET", "/workspaces/alice/usage?span=day", None)["points"].as_array().unwrap().is_empty());
    assert_eq!(reader.refused("GET", "/workspaces/nobody/usage", None, &[]), "not_found");
    assert_eq!(reader.refused("GET", "/workspaces/alice/usage?span=year", None, &[]), "malformed");
    assert_eq!(caller(&gateway, "hers", &["workspace:alice"]).ask("GET", "/workspaces/alice/usage", None).status, 200);

    wait_for("a sweep", || reader.good(200, "GET", "/overview", None)["containers"]["running"] == 1);
    let overview = reader.good(200, "GET", "/overview", None);
    assert_eq!((&overview["sessions"], &overview["workspaces"]), (&json!(1), &json!({ "absent": 1, "running": 1 })), "{overview}");
    let starts = overview["starts"].as_array().unwrap();
    let create = starts.iter().find(|one| one["path"] == "create").unwrap();
    assert!(
        create["count"] == 1 && create["p50"].as_f64().unwrap() > 0.0 && create["p99"].as_f64() >= create["p50"].as_f64(),
        "{starts:?}"
    );
    let host = &overview["host"];
    let (cpus, cpu) = (host["cpus"].as_u64().unwrap(), host["cpu"].as_f64().unwrap());
    assert!(cpus >= 1 && (0.0..=1.0).contains(&cpu) && host["load"].as_array().unwrap().len() == 3, "{host}");
    for of in ["memory", "state_disk", "homes_disk"] {
        assert!(host[of]["used"].as_u64().unwrap() <= host[of]["total"].as_u64().unwrap(), "{host}");
    }
    assert_eq!(overview["queue"], json!({ "capacity": 12, "taken": 1, "waiting": 0 }));

    let capacity = reader.good(200, "GET", "/capacity", None);
    assert_eq!((&capacity["running"], &capacity["places"], &capacity["promised"]["cpu"]), (&json!(1), &json!(12), &json!(2.0)));
    assert_eq!(capacity["price"], json!({ "host": 49.0, "currency": "EUR" }));
    assert!(capacity["addresses"].as_u64().is_some_and(|all| all > 10), "{capacity}");
    let of = &capacity["templates"][0];
    let share = 2.0 / cpus as f64;
    assert_eq!((&of["template"], &of["limits"]["cpu"], &of["use"]["of"]), (&json!("default"), &json!(2.0), &json!("template")), "{of}");
    assert!(of["by_limits"]["share"].as_f64().unwrap() >= share && of["by_limits"]["cost"].as_f64().unwrap() > 0.0, "{of}");
    assert!(of["by_use"]["more"].as_u64().unwrap() <= 11 && of["by_use"]["bound"].is_string(), "{of}");
    let shown = run(gateway.innkeeper().arg("capacity")).good();
    assert!(
        shown.starts_with("1 run, at most 12 at once\n") && shown.contains("default   limits  2.00") && shown.contains("EUR"),
        "{shown}"
    );
    let top = run(gateway.innkeeper().args(["top", "--once"])).good();
    assert!(top.contains("cpu ") && top.contains("load ") && top.contains("/2.00") && top.contains("/0.50 GiB"), "{top}");

    // Prometheus is told the same, of what runs.
    let metric = |name: &str| format!("innkeeper_workspace_{name}{{workspace=\"alice\"}}");
    gateway.wait_metric(&metric("disk_used_bytes"), |bytes| bytes >= 0.0);
    gateway.wait_metric(&metric("disk_limit_bytes"), |bytes| Some(bytes) == alice["allowed"]["disk"].as_f64());
    gateway.wait_metric(&metric("memory_limit_bytes"), |bytes| Some(bytes) == alice["allowed"]["memory"].as_f64());
    assert!(!gateway.get("/metrics").1.contains("workspace=\"still\""));

    // What stands still uses nothing now, and when somebody was last there is known after a start as well.
    drop(busy);
    let last = listed("alice")["last_login"].clone();
    admin.good(200, "POST", "/workspaces/alice/stop", None);
    assert_eq!((&listed("alice")["usage"]["cpu"], &listed("alice")["state"]), (&Value::Null, &json!("stopped")));
    wait_for("her series to go", || !gateway.get("/metrics").1.contains("workspace=\"alice\""));
    let mut gateway = gateway;
    gateway.stop();
    gateway.up();
    let reader = caller(&gateway, "again", &["read"]);
    let all = reader.good(200, "GET", "/workspaces?prefix=alice", None);
    assert_eq!(items(&all)[0]["last_login"], last, "{all}");
}

#[test]
fn the_audit_trail_is_read_from_its_end_a_page_at_a_time() {
    let gateway = Gateway::start("");
    let reader = caller(&gateway, "reader", &["read"]);
    gateway.exec("alice", "true").good();
    run(gateway.ssh_by_password("nobody", &["wrong"]).arg("true"));
    run(gateway.innkeeper().args(["workspace", "suspend", "alice", "--reason", "unpaid"])).good();
    let page = |query: &str| reader.good(200, "GET", &format!("/audit?{query}"), None);
    wait_for("it to be written", || items(&page("kind=admin&workspace=alice")).iter().any(|event| event["actor"] == "host"));
    let newest = page("limit=3");
    let seqs = |page: &Value| items(page).iter().map(|event| event["seq"].as_u64().unwrap()).collect::<Vec<_>>();
    let first = seqs(&newest);
    assert!(first.len() == 3 && first[0] == first[1] + 1 && first[1] == first[2] + 1, "{first:?}");
    let next = page(&format!("limit=3&cursor={}", newest["next"].as_str().unwrap()));
    assert_eq!(seqs(&next)[0], first[2] - 1, "{next}");
    assert!(items(&page("account=alice&kind=login")).iter().all(|event| event["event"] == "login"));
    assert_eq!(items(&page("account=alice&kind=login")).len(), 1);
    assert!(!items(&page("account=nobody&kind=login-refused")).is_empty());
    assert!(items(&page("until=2020-01-01T00:00:00Z")).is_empty() && items(&page("since=2099-01-01T00:00:00Z")).is_empty());
    let began = items(&page("kind=gateway-started"))[0]["at"].as_str().unwrap().to_owned();
    assert!(seqs(&page(&format!("since={began}"))).last().is_some_and(|seq| *seq >= 1));
    for wrong in ["since=yesterday", "cursor=!", "limit=0", "cursor=aGVsbG8", "colour=1"] {
        assert_eq!(reader.refused("GET", &format!("/audit?{wrong}"), None, &[]), "malformed", "{wrong}");
    }
    assert_eq!(caller(&gateway, "site", &["provision"]).ask("GET", "/audit", None).status, 403);
}

#[test]
fn links_are_made_listed_and_taken_back_and_the_trail_says_by_whom() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gateway = Gateway::start(&format!("\n[urls]\nlisten = \"127.0.0.1:{port}\"\ndomain = \"test\"\n"));
    let hers = caller(&gateway, "hers", &["workspace:alice"]);
    let admin = caller(&gateway, "admin", &["admin"]);
    assert_eq!(admin.refused("POST", "/workspaces/nobody/links", Some(&json!({ "port": 8080 })), &[]), "not_found");
    gateway.exec("alice", "true").good();
    for (wrong, code) in [
        (json!({ "port": 0 }), "refused"),
        (json!({ "port": 8080, "lifetime": "25h" }), "refused"),
        (json!({ "port": 8080, "lifetime": "30s" }), "refused"),
        (json!({ "port": 70_000 }), "malformed"),
        (json!({ "port": 8080, "colour": 1 }), "malformed"),
    ] {
        assert_eq!(hers.refused("POST", "/workspaces/alice/links", Some(&wrong), &[]), code, "{wrong}");
    }
    let new = json!({ "port": 8080, "lifetime": "2h", "visitor": "bob" });
    let key = [("idempotency-key", "one")];
    let made = hers.ask_with("POST", "/workspaces/alice/links", Some(&new), &key);
    assert_eq!((made.status, &made.body["seconds"], &made.body["visitor"]), (201, &json!(7200), &json!("bob")), "{made:?}");
    let again = hers.ask_with("POST", "/workspaces/alice/links", Some(&new), &key);
    assert_eq!((again.replayed, &again.body["url"], &again.body["id"]), (true, &Value::Null, &made.body["id"]), "shown once");
    let url = made.body["url"].as_str().unwrap().to_owned();
    let curl = |url: &str| {
        let to = format!("::127.0.0.1:{port}");
        run(Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--connect-to", &to, url])).good()
    };
    assert_eq!(curl(&url), "303");
    let by_hand = run(gateway.innkeeper().args(["open", "alice", "9000"])).good();
    assert_eq!(curl(by_hand.trim()), "303");
    let listed = hers.good(200, "GET", "/workspaces/alice/links", None);
    assert_eq!(items(&listed).len(), 2, "{listed}");
    assert!(!listed.to_string().contains(url.split("?t=").nth(1).unwrap()), "what is listed opens nothing");
    let id = made.body["id"].as_str().unwrap();
    assert!(run(gateway.innkeeper().args(["open", "alice"])).good().contains(&format!("{id}  8080  bob")));
    hers.good(204, "DELETE", &format!("/workspaces/alice/links/{id}"), None);
    assert_eq!((curl(&url), curl(by_hand.trim())), ("401".to_owned(), "303".to_owned()));
    assert_eq!(hers.refused("DELETE", &format!("/workspaces/alice/links/{id}"), None, &[]), "not_found");
    assert_eq!(caller(&gateway, "others", &["workspace:bob"]).ask("GET", "/workspaces/alice/links", None).status, 403);
    run(gateway.innkeeper().args(["unlink", "alice"])).good();
    assert_eq!(curl(by_hand.trim()), "401");
    assert!(items(&hers.good(200, "GET", "/workspaces/alice/links", None)).is_empty());
    let of = |kind: &str| admin.good(200, "GET", &format!("/audit?workspace=alice&kind={kind}"), None)["items"].clone();
    wait_for("it to be written", || of("link-revoked").as_array().unwrap().len() == 2);
    let (made, revoked) = (of("link-made"), of("link-revoked"));
    assert_eq!((&made[0]["actor"], &made[0]["port"]), (&json!("host"), &json!(9000)), "{made}");
    assert_eq!((&made[1]["actor"]["token"], &made[1]["visitor"], &made[1]["link"]), (&json!("hers"), &json!("bob"), &json!(id)), "{made}");
    assert_eq!((&revoked[0]["actor"], &revoked[1]["link"]), (&json!("host"), &json!(id)), "{revoked}");
    let trail = std::fs::read_to_string(gateway.state().join("audit/audit.jsonl")).unwrap();
    assert!(!trail.contains("?t=") && !trail.contains(url.split("?t=").nth(1).unwrap()));
}
