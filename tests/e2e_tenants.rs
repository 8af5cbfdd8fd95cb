//! A tenant from its beginning to its end, by curl alone and by the command line alone: made, used by SSH and by URL, watched, limited, suspended,
//! resumed and deleted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;

use std::net::TcpListener;
use std::process::Command;

use api::token;
use gateway::{Gateway, Session, run, wait_for};
use serde_json::{Value, json};

/// A gateway whose workspaces have addresses below `test`.
struct World {
    gateway: Gateway,
    urls: u16,
}

impl World {
    fn start() -> Self {
        let urls = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let sections = format!("\n[urls]\nlisten = \"127.0.0.1:{urls}\"\ndomain = \"test\"\n\n[capacity]\nsample_every = \"1s\"\n");
        Self { gateway: Gateway::start(&sections), urls }
    }

    /// Whoever has this password, in a command that goes on until it is dropped.
    fn serve(&self, account: &str, password: &str) -> Session {
        let line = "echo '<p>hello from erin' >index.html; echo up; exec python3 -m http.server 8080 --bind 127.0.0.1";
        let mut session = Session::start(self.gateway.ssh_by_password(account, &[password]).arg(line));
        session.expect("up\n");
        session
    }

    /// What a browser gets that opens an address and follows it: the status and the body.
    fn open(&self, url: &str) -> (String, String) {
        let jar = self.gateway.dir.path().join("jar");
        let to = format!("::127.0.0.1:{}", self.urls);
        let mut command = Command::new("curl");
        command.args(["-s", "-L", "--noproxy", "*", "--max-time", "60", "-w", "\n%{http_code}", "--connect-to", &to]);
        let text = run(command.arg("-c").arg(&jar).arg("-b").arg(&jar).arg(url)).good();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }

    fn pids_limit(&self, workspace: &str) -> String {
        self.gateway.inspect(workspace, "{{.HostConfig.PidsLimit}}")
    }
}

/// curl, with a token.
struct Curl<'a> {
    world: &'a World,
    token: String,
}

impl Curl<'_> {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut command = Command::new("curl");
        command.args(["-s", "--noproxy", "*", "--max-time", "60", "-w", "\n%{http_code}", "-X", method]);
        command.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        if let Some(body) = body {
            command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let text = run(command.arg(format!("http://127.0.0.1:{}/api/v1{path}", self.world.gateway.http_port))).good();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }

    #[track_caller]
    fn good(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.ask(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

#[test]
fn by_curl_alone() {
    let world = World::start();
    let gateway = &world.gateway;
    let curl = Curl { world: &world, token: token(&mut gateway.innkeeper(), "site", &["admin"]) };
    // Made.
    let made = curl.good("POST", "/tenants", Some(&json!({ "account": "erin" })));
    let password = made["password"].as_str().unwrap();
    assert_eq!(made["ssh"], format!("ssh://erin@127.0.0.1:{}", gateway.ssh_port));
    assert_eq!(made["web"], format!("http://{{port}}--erin.test:{}", world.urls));
    // Used by SSH and by URL.
    assert_eq!(run(gateway.ssh_by_password("erin", &[password]).arg("echo hers >file; cat file")).good(), "hers\n");
    let served = world.serve("erin", password);
    assert_eq!(world.open(&format!("http://8080--erin.test:{}/", world.urls)).0, "401", "without a link");
    let link = curl.good("POST", "/workspaces/erin/links", Some(&json!({ "port": 8080, "lifetime": "5m" })));
    wait_for("it to be served", || world.open(link["url"].as_str().unwrap()).0 == "200");
    let page = format!("http://8080--erin.test:{}/", world.urls);
    assert!(world.open(&page).1.contains("hello from erin"), "by the cookie that the link became");
    // Watched.
    wait_for("it to be measured", || curl.good("GET", "/workspaces/erin", None)["now"]["state"] == "running");
    wait_for("a history", || !curl.good("GET", "/workspaces/erin/usage", None)["points"].as_array().unwrap().is_empty());
    let sessions = curl.good("GET", "/workspaces/erin/sessions", None);
    assert_eq!(sessions["items"][0]["account"], "erin", "{sessions}");
    assert_eq!(curl.good("GET", "/overview", None)["workspaces"]["running"], 1);
    let trail = || curl.good("GET", "/audit?workspace=erin&kind=link-opened", None)["items"].as_array().unwrap().len();
    wait_for("the trail", || trail() >= 1);
    // Limited.
    let done = curl.good("PATCH", "/workspaces/erin", Some(&json!({ "limits": { "pids": 100 } })));
    assert_eq!((&done["applied"], world.pids_limit("erin").as_str()), (&json!("now"), "100"));
    // Suspended.
    curl.good("POST", "/workspaces/erin/suspend", Some(&json!({ "reason": "unpaid" })));
    let ended = served.end();
    assert!(ended.stderr.contains("unpaid"), "{ended:?}");
    let refused = run(gateway.ssh_by_password("erin", &[password]).arg("true"));
    assert!(refused.status != Some(0) && refused.stderr.contains("unpaid"), "{refused:?}");
    assert_eq!(world.open(&page).0, "403");
    // Resumed.
    curl.good("POST", "/workspaces/erin/resume", None);
    assert_eq!(run(gateway.ssh_by_password("erin", &[password]).arg("cat file")).good(), "hers\n");
    assert_eq!(world.pids_limit("erin"), "100");
    // Deleted.
    curl.good("DELETE", "/accounts/erin", None);
    curl.good("DELETE", "/workspaces/erin", None);
    assert_eq!(curl.good("GET", "/deleted", None)["items"][0]["name"], "erin");
    assert_eq!((world.open(&page).0.as_str(), gateway.container_state("erin").as_str()), ("401", ""));
    assert_ne!(run(gateway.ssh_by_password("erin", &[password]).arg("true")).status, Some(0));
    curl.good("POST", "/workspaces/erin/tasks", Some(&json!({ "delete": { "now": true, "backups": false } })));
    assert_eq!(curl.ask("GET", "/workspaces/erin", None).0, 404);
    assert!(!gateway.home("erin").exists());
}

#[test]
fn by_the_command_line_alone() {
    let world = World::start();
    let gateway = &world.gateway;
    let innkeeper = |line: &str| run(gateway.innkeeper().args(line.split(' ')));
    let good = |line: &str| innkeeper(line).good();
    // Made.
    good("workspace create erin --env PLAN=small --start");
    let added = good("account add erin --generate");
    let password = added.trim_end().rsplit_once("password: ").unwrap().1;
    // Used by SSH and by URL.
    assert_eq!(run(gateway.ssh_by_password("erin", &[password]).arg("echo hers >file; echo $PLAN")).good(), "small\n");
    let served = world.serve("erin", password);
    let link = good("open erin 8080 --for 5m");
    wait_for("it to be served", || world.open(link.trim()).0 == "200");
    let page = format!("http://8080--erin.test:{}/", world.urls);
    assert!(world.open(&page).1.contains("hello from erin"));
    // Watched.
    let listed: Value = serde_json::from_str(&good("session list --json")).unwrap();
    assert_eq!((&listed[0]["account"], &listed[0]["workspace"]), (&json!("erin"), &json!("erin")));
    assert!(good("workspace list").contains("erin  running  default"));
    assert!(good("top --once").contains("places 1 of 12"));
    assert!(good("workspace show erin").contains("state      running"));
    wait_for("the trail", || good("audit show --workspace erin --event link-opened").contains("link-opened"));
    // Limited.
    good("workspace limit erin --pids 100");
    assert_eq!(world.pids_limit("erin"), "100");
    // Suspended.
    good("workspace suspend erin --reason unpaid");
    let ended = served.end();
    assert!(ended.stderr.contains("unpaid"), "{ended:?}");
    assert_ne!(run(gateway.ssh_by_password("erin", &[password]).arg("true")).status, Some(0));
    assert_eq!(world.open(&page).0, "403");
    // Resumed.
    good("workspace resume erin");
    assert_eq!(run(gateway.ssh_by_password("erin", &[password]).arg("cat file")).good(), "hers\n");
    // Deleted.
    good("account remove erin");
    good("workspace delete erin --now");
    assert_eq!((world.open(&page).0.as_str(), gateway.container_state("erin").as_str()), ("401", ""));
    assert_eq!(innkeeper("workspace show erin").status, Some(1));
    assert!(!gateway.home("erin").exists());
}

#[test]
fn accounts_are_changed_by_the_gateway_where_one_runs_and_in_the_file_where_none_does() {
    let mut gateway = Gateway::start("");
    let key = gateway.dir.path().join("id.pub");
    let key = key.to_str().unwrap().to_owned();
    let printed = run(std::process::Command::new("ssh-keygen").args(["-lf", &key])).good();
    let fingerprint = printed.split(' ').nth(1).unwrap();
    let lines = [
        "add erin --generate",
        "passwd erin --generate",
        &format!("add erin --key {key}"),
        "list --json",
        "key list erin",
        &format!("key remove erin {fingerprint}"),
        "key list erin --json",
        "remove erin",
    ];
    let all = |gateway: &Gateway| -> Vec<String> {
        lines.iter().map(|line| run(gateway.innkeeper().arg("account").args(line.split(' '))).good()).collect()
    };
    let by_gateway = all(&gateway);
    assert!(by_gateway[0].starts_with("added erin with a password to the gateway's accounts file\npassword: "), "{by_gateway:?}");
    assert_eq!(by_gateway[2], "added 1 key to erin\n");
    assert!(by_gateway[4].contains(fingerprint) && by_gateway[4].contains("a test"), "{by_gateway:?}");
    assert_eq!((by_gateway[5].as_str(), by_gateway[6].as_str()), (format!("{fingerprint} opens erin no more\n").as_str(), "[]\n"));
    let twice = run(gateway.innkeeper().args(["account", "add", "alice", "--generate"]));
    assert!(twice.status == Some(1) && twice.stderr.contains("there is an account alice"), "{twice:?}");
    let nobody = run(gateway.innkeeper().args(["account", "remove", "nobody"]));
    assert!(nobody.status == Some(1) && nobody.stderr.contains("no account nobody"), "{nobody:?}");
    let acts = || run(gateway.innkeeper().args(["audit", "show", "--event", "admin"])).good();
    wait_for("the trail", || acts().contains("DELETE /api/v1/accounts/erin"));
    let removed = format!("DELETE /api/v1/accounts/erin/keys/{fingerprint}");
    for act in ["POST /api/v1/accounts: erin", "PUT /api/v1/accounts/erin/password", "POST /api/v1/accounts/erin/keys", &removed] {
        assert!(acts().contains(act), "{act}: {}", acts());
    }
    gateway.stop();
    let by_file = all(&gateway);
    assert!(by_file[0].starts_with("added erin with a password to /"), "{by_file:?}");
    assert_eq!((&by_gateway[2..], &by_gateway[1][..30]), (&by_file[2..], &by_file[1][..30]), "the same either way");
    let listed: Value = serde_json::from_str(&by_file[3]).unwrap();
    let erin = listed.as_array().unwrap().iter().find(|one| one["name"] == "erin").unwrap();
    assert_eq!(
        (&erin["password"], &erin["keys"][0]["algorithm"], &erin["workspace"]),
        (&json!(true), &json!("ssh-ed25519"), &json!("erin"))
    );
}

#[test]
fn who_has_a_token_of_one_workspace_lists_and_ends_its_sessions_and_no_others() {
    let world = World::start();
    let gateway = &world.gateway;
    let hers = Curl { world: &world, token: token(&mut gateway.innkeeper(), "hers", &["workspace:alice"]) };
    let admin = Curl { world: &world, token: token(&mut gateway.innkeeper(), "all", &["admin"]) };
    let (alice, _bob) = (gateway.hold("alice", "echo up; exec sleep 1000"), gateway.hold("bob", "echo up; exec sleep 1000"));
    let listed = hers.good("GET", "/workspaces/alice/sessions", None);
    assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["account"]), (1, &json!("alice")), "{listed}");
    let all = admin.good("GET", "/sessions", None);
    let of = |name: &str| all["items"].as_array().unwrap().iter().find(|one| one["account"] == name).unwrap()["id"].clone();
    assert_eq!(hers.ask("GET", "/workspaces/bob/sessions", None).0, 403);
    assert_eq!(hers.ask("GET", "/sessions", None).0, 403);
    assert_eq!(hers.ask("DELETE", &format!("/sessions/{}", of("alice")), None).0, 403);
    assert_eq!(hers.ask("DELETE", &format!("/workspaces/alice/sessions/{}", of("bob")), None).0, 404);
    assert_eq!(hers.ask("DELETE", "/workspaces/alice/sessions/4711", None).0, 404);
    assert_eq!(hers.ask("DELETE", &format!("/workspaces/alice/sessions/{}", of("alice")), None).0, 204);
    assert_eq!(alice.end().status, Some(77));
    assert_eq!(admin.good("GET", "/sessions", None)["items"].as_array().unwrap().len(), 1, "bob goes on");
}
