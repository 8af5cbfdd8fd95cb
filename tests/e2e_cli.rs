//! The command line against a running gateway: what programs are told of each command, and what a shell completes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use gateway::{Done, Gateway, Session, run, run_with, template, wait_for};
use serde_json::{Value, json};

/// A gateway, and which of its program's commands were tried.
struct Program {
    gateway: Gateway,
    tried: BTreeSet<String>,
}

impl Program {
    fn ask(&mut self, line: &str, input: &str) -> Done {
        let words = line.split(' ').filter(|word| !word.is_empty());
        run_with(self.gateway.innkeeper().args(words).arg("--json"), input.as_bytes())
    }

    /// The one value that a command prints; on standard error it says nothing.
    #[track_caller]
    fn value(&mut self, words: &str, line: &str, input: &str) -> Value {
        let done = self.ask(line, input);
        assert_eq!((done.status, done.stderr.as_str()), (Some(0), ""), "{line}: {done:?}");
        self.tried.insert(words.to_owned());
        serde_json::from_slice(&done.stdout).unwrap_or_else(|why| panic!("{line}: {why}: {done:?}"))
    }

    /// How something is.
    #[track_caller]
    fn shows(&mut self, words: &str, rest: &str) -> Value {
        self.value(words, &format!("{words} {rest}"), "")
    }

    /// What was done: an object that says which command did it, and has these entries.
    #[track_caller]
    fn acts(&mut self, words: &str, rest: &str, expected: Value) -> Value {
        self.acts_with(words, &format!("{words} {rest}"), "", expected)
    }

    /// The same of a command whose line is another, and that reads something.
    #[track_caller]
    fn acts_with(&mut self, words: &str, line: &str, input: &str, expected: Value) -> Value {
        let said = self.value(words, line, input);
        assert_eq!(said["did"], words, "{line}: {said}");
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&said[key], value, "{line}: {key} of {said}");
        }
        said
    }
}

/// Every command that takes `--json`, by its words: what the program's own help lists.
fn with_json(gateway: &Gateway) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left = vec![Vec::<String>::new()];
    while let Some(words) = left.pop() {
        let help = run(gateway.innkeeper().args(&words).arg("--help")).good();
        if help.contains("--json") && !help.contains("\nCommands:\n") {
            found.insert(words.join(" "));
        }
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next());
        left.extend(names.filter(|name| *name != "help").map(|name| [words.clone(), vec![name.to_owned()]].concat()));
    }
    found
}

#[test]
fn with_json_each_command_prints_one_value_and_each_that_acts_says_what_it_did() {
    let lent = tempfile::Builder::new().prefix("innkeeper-lent-").tempdir().unwrap();
    let target = tempfile::Builder::new().prefix("innkeeper-target-").tempdir().unwrap();
    let (lent, target) = (lent.path().display().to_string(), target.path().display().to_string());
    let gateway = Gateway::start(&format!(
        "[mounts]\nallow = [\"{lent}\"]\n[backup]\ntarget = \"{target}\"\nevery = \"0s\"\nverify_every = \"0s\"\n\
         [urls]\nlisten = \"127.0.0.1:0\"\ndomain = \"test\"\n[capacity]\nsample_every = \"1s\"\n{}",
        template("disk = \"1GiB\"\nrecording = \"terminals\"")
    ));
    let mut program = Program { gateway, tried: BTreeSet::new() };
    let p = &mut program;

    // Somebody signs up, and comes.
    let made = p.acts("tenant create", "erin --memory 256MiB --env PLAN=small", json!({ "account": "erin", "workspace": "erin" }));
    let password = made["password"].as_str().unwrap().to_owned();
    let erin = |p: &Program, line: &str| run(p.gateway.ssh_by_password("erin", &[&password]).arg(line));
    assert_eq!(erin(p, "echo hers > file; echo $PLAN").good(), "small\n");
    assert_eq!(made["ssh"], format!("ssh://erin@localhost:{}", p.gateway.ssh_port));
    p.acts_with("tenant create", "tenant create fred --password-stdin", "a password\n", json!({ "account": "fred", "password": null }));
    assert_eq!(run(p.gateway.ssh_by_password("fred", &["a password"]).arg("true")).status, Some(0));

    // A workspace from its beginning to its end.
    p.acts("workspace create", "w --env A=b", json!({ "name": "w" }));
    p.acts("workspace create", "x --start", json!({ "name": "x", "how": "create", "state": "running" }));
    p.acts("workspace start", "w", json!({ "name": "w", "how": "create", "state": "running" }));
    p.acts("workspace stop", "w", json!({ "name": "w" }));
    p.acts("workspace restart", "w", json!({ "name": "w", "how": "start", "state": "running" }));
    p.acts("workspace limit", "w --pids 100", json!({ "name": "w", "applied": "now" }));
    assert_eq!(p.shows("workspace limit", "w")["pids"], 100);
    p.acts("workspace policy", "w --idle 1h --public-ports 80", json!({ "name": "w", "applied": "now" }));
    assert_eq!(p.shows("workspace policy", "w")["public_ports"], json!([80]));
    let of_w = |p: &mut Program, group: &str, act: &str, rest: &str, input: &str| {
        let line = format!("workspace {group} w {act} {rest}");
        p.acts_with(&format!("workspace {group} {act}"), &line, input, json!({ "name": "w", "home": true }));
    };
    of_w(p, "env", "set", "A=c", "");
    of_w(p, "env", "unset", "B", "");
    assert_eq!(p.value("workspace env list", "workspace env w list", "")["A"], "c");
    of_w(p, "secret", "set", "KEY", "told to nobody\n");
    of_w(p, "secret", "generate", "OTHER", "");
    of_w(p, "secret", "rotate", "OTHER", "");
    of_w(p, "secret", "remove", "OTHER", "");
    let secrets = p.value("workspace secret list", "workspace secret w list", "");
    assert!(secrets[0]["name"] == "KEY" && !secrets.to_string().contains("told"), "{secrets}");
    of_w(p, "mount", "add", &format!("{lent} /lent"), "");
    assert_eq!(p.value("workspace mount list", "workspace mount w list", "")[0]["target"], "/lent");
    of_w(p, "mount", "remove", "/lent", "");
    p.acts("workspace suspend", "w --reason unpaid", json!({ "name": "w", "applied": "now" }));
    p.acts("workspace resume", "w", json!({ "name": "w", "applied": "now" }));
    p.acts("workspace copy", "w v", json!({ "name": "v", "from": "w", "homes": ["v"] }));
    for (act, left) in [("take", json!(["s"])), ("remove", json!([]))] {
        let line = format!("workspace snapshot w {act} s");
        p.acts_with(&format!("workspace snapshot {act}"), &line, "", json!({ "name": "w", "snapshot": "s" }));
        assert_eq!(p.value("workspace snapshot list", "workspace snapshot w list", ""), left);
    }
    let parcel = p.gateway.dir.path().join("parcel").display().to_string();
    let exported = p.acts("workspace export", &format!("w --to {parcel}"), json!({ "name": "w", "file": parcel }));
    assert_eq!(exported["bytes"], Path::new(&parcel).metadata().unwrap().len());
    p.acts("workspace import", &format!("u --from {parcel}"), json!({ "name": "u", "homes": ["u"] }));
    p.acts("workspace upgrade", "w", json!({ "name": "w", "upgraded": "unneeded" }));
    p.acts("workspace upgrade", "--all", json!({ "upgraded": {}, "failed": [] }));
    let deleted = p.acts("workspace delete", "v", json!({ "name": "v" }));
    assert!(deleted["until"].is_string(), "{deleted}");
    assert_eq!(p.shows("workspace list", "--deleted")[0]["name"], "v");
    p.acts("workspace undelete", "v", json!({ "name": "v", "homes": ["v"] }));
    p.acts("workspace delete", "v --now", json!({ "name": "v", "until": null }));
    assert_eq!(p.shows("workspace show", "w")["own_limits"]["pids"], 100);
    assert!(p.shows("workspace list", "--state running").as_array().unwrap().iter().any(|one| one["name"] == "x"));
    assert_eq!(p.shows("workspace services", "x"), json!([]));
    assert_eq!(p.shows("workspace usage", "x --span day")["span"], "day");

    // Its backups.
    let made = p.acts("backup run", "w", json!({ "failed": [] }));
    assert_eq!(made["backups"][0]["workspace"], "w");
    assert_eq!(p.shows("backup list", "w")["backups"][0]["id"], made["backups"][0]["id"]);
    p.acts("backup verify", "", json!({ "wrong": 0, "backups": 1 }));
    p.acts("backup restore", "w --to r", json!({ "name": "r", "from": "w", "homes": ["r"] }));
    p.acts("backup restore", "w --in-place", json!({ "name": "w", "from": "w" }));
    p.acts("backup revert", "w", json!({ "name": "w" }));
    p.acts("backup restore", "w --in-place", json!({ "name": "w", "from": "w" }));
    p.acts("backup confirm", "w", json!({ "name": "w" }));
    // What could be done and what could not are told together.
    let some = p.ask("backup run w nobody", "");
    let said: Value = serde_json::from_slice(&some.stdout).unwrap();
    assert_eq!((some.status, &said["backups"][0]["workspace"]), (Some(1), &json!("w")), "{said}");
    assert!(said["failed"][0].as_str().unwrap().starts_with("nobody: "), "{said}");

    // Sessions, and what is recorded of them.
    let held = p.gateway.hold("alice", "echo up; exec sleep 1000");
    let listed = p.shows("session list", "--workspace alice");
    let id = listed[0]["id"].as_u64().unwrap();
    assert_eq!(p.shows("lease list", "")[0], json!({ "workspace": "alice", "leases": 1, "idle_seconds": null }));
    let mut events = Session::start(p.gateway.innkeeper().args(["session", "watch", "--json"]));
    events.expect("listening");
    p.acts("session end", &id.to_string(), json!({ "id": id }));
    events.expect("\"session-ended\"");
    p.tried.insert("session watch".to_owned());
    assert_eq!(held.end().status, Some(77));
    p.gateway.terminal("alice", "echo recorded").end();
    wait_for("its recording", || p.shows("recording list", "--workspace alice")[0]["state"] == "complete");
    let recording = p.shows("recording list", "")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(p.shows("recording show", &recording)["workspace"], "alice");
    let screens = p.ask(&format!("recording play {recording} --speed 100"), "").good();
    assert!(screens.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["lines"].is_array()), "{screens}");
    p.tried.insert("recording play".to_owned());
    p.acts("recording remove", &recording, json!({ "id": recording }));

    // The pool, tokens, accounts, links.
    p.acts("pool resize", "1", json!({ "size": 1, "paused": false }));
    wait_for("one to be ready", || p.shows("pool show", "")["templates"][0]["ready"] == 1);
    p.acts("pool pause", "", json!({ "paused": true }));
    p.acts("pool resume", "", json!({ "paused": false }));
    p.acts("pool drain", "", json!({ "drained": 1 }));
    let token = p.acts("token create", "site --scope read", json!({ "name": "site", "scopes": ["read"] }));
    assert!(token["token"].as_str().unwrap().starts_with("ink_"), "{token}");
    assert_eq!(p.shows("token list", "")[0]["name"], "site");
    p.acts("token revoke", "site", json!({ "name": "site" }));
    let added = p.acts("account add", "gina --generate", json!({ "name": "gina", "made": true, "keys": 0 }));
    let changed = p.acts("account passwd", "gina --generate", json!({ "name": "gina" }));
    assert!(added["password"].is_string() && changed["password"].is_string() && added["password"] != changed["password"]);
    let key = p.gateway.dir.path().join("id.pub").display().to_string();
    p.acts("account add", &format!("gina --key {key}"), json!({ "name": "gina", "made": false, "keys": 1, "password": null }));
    assert!(p.shows("account list", "").as_array().unwrap().iter().any(|one| one["name"] == "gina"));
    let fingerprint = p.shows("account key list", "gina")[0]["fingerprint"].as_str().unwrap().to_owned();
    p.acts("account key remove", &format!("gina {fingerprint}"), json!({ "name": "gina", "fingerprint": fingerprint }));
    assert_eq!(p.shows("account key list", "gina"), json!([]));
    p.acts("account remove", "gina", json!({ "name": "gina" }));
    let link = p.acts("open", "alice 8080", json!({ "workspace": "alice", "port": 8080 }));
    assert!(link["url"].is_string(), "{link}");
    p.acts("unlink", &format!("alice {}", link["id"].as_str().unwrap()), json!({ "workspace": "alice", "link": link["id"] }));
    assert_eq!(p.shows("open", "alice"), json!([]));

    // The gateway itself.
    assert_eq!(p.shows("queue list", "")["waiting"], 0);
    assert_eq!(p.shows("engine list", "")[0]["answers"], true);
    assert_eq!(p.shows("template list", "")[0]["name"], "default");
    assert!(p.shows("capacity", "")["templates"].is_array());
    assert!(p.shows("top", "--once")["overview"]["host"].is_object());
    assert_eq!(p.shows("check", "")["usable"], true);
    assert!(p.shows("config show", "")["pool"]["size"].is_number());
    assert_eq!(p.shows("config show", "--running")["instance"], p.gateway.instance);
    p.acts("config reload", "", json!({ "changed": [], "needs_restart": [] }));
    let port = p.gateway.http_port;
    let healthy = run(p.gateway.innkeeper().args(["healthcheck", "--json"]).env("INNKEEPER__HTTP__LISTEN", format!("127.0.0.1:{port}")));
    assert_eq!(serde_json::from_str::<Value>(&healthy.good()).unwrap(), json!({ "did": "healthcheck" }));
    p.tried.insert("healthcheck".to_owned());
    let shown = p.ask("audit show --event admin", "").good();
    assert!(shown.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["event"] == "admin"));
    p.tried.insert("audit show".to_owned());
    assert_eq!(p.shows("audit verify", "")["flaws"], json!([]));

    // What is refused is told by the stable word that the API has for it, and nothing is said to have been done.
    for (line, code) in [("workspace stop nobody", "not_found"), ("session end 4711", "not_found"), ("workspace create w", "exists")] {
        let refused = p.ask(line, "");
        let why: Value = serde_json::from_str(&refused.stderr).unwrap();
        assert_eq!(
            (refused.status, refused.text().as_str(), &why["code"], &why["exit"]),
            (Some(1), "", &json!(code), &json!(1)),
            "{line}: {why}"
        );
    }
    p.gateway.stop();
    p.acts("clean", "", json!({}));
    assert_eq!(p.gateway.containers(), []);
    let untried: Vec<_> = with_json(&p.gateway).difference(&p.tried).cloned().collect();
    assert_eq!(untried, Vec::<String>::new(), "each is tried here");
}

#[test]
fn people_read_tables_of_the_queue_leases_the_engine_and_what_a_reload_changed() {
    let gateway = Gateway::start("[limits]\ncontainers = 1\n");
    let good = |line: &str| run(gateway.innkeeper().args(line.split(' '))).good();
    assert_eq!(good("queue list"), "0 of 1 places are taken, 0 wait\n");
    let alice = gateway.hold("alice", "echo up; exec sleep 1000");
    let bob = Session::start(gateway.ssh("bob").arg("echo hers"));
    wait_for("bob to wait", || good("queue list") == "1 of 1 places are taken, 1 wait\nPOSITION  WORKSPACE\n1         bob\n");
    assert_eq!(good("lease list"), "WORKSPACE  LEASES  IDLE\nalice      1       -\n");
    good("workspace stop alice");
    drop(alice);
    assert_eq!(bob.end().good(), "hers\n");
    let idle = good("lease list --idle");
    assert!(idle.lines().any(|line| line.split_whitespace().take(2).eq(["bob", "0"])), "{idle}");
    let engines = good("engine list");
    assert!(engines.starts_with("NAME ") && engines.contains(" docker ") && engines.contains(" yes "), "{engines}");
    let usage = good("workspace usage bob");
    assert!(["CPUS", "in use", "allowed", "512.0 MiB"].iter().all(|word| usage.contains(word)), "{usage}");
    assert_eq!(good("config reload"), "nothing has changed\n");
    gateway.configure("[limits]\ncontainers = 2\n[audit]\nsyslog = \"local\"\n");
    let reloaded = run(gateway.innkeeper().args(["config", "reload"]));
    assert_eq!(
        (reloaded.stderr.as_str(), reloaded.good().contains("limits.containers")),
        ("innkeeper: only a restart applies audit\n", true)
    );
    assert!(good("queue list").starts_with("1 of 2 places"), "{}", good("queue list"));
    // What the gateway goes by is not what the file says that has been changed since.
    gateway.configure("[limits]\ncontainers = 3\n[audit]\nsyslog = \"local\"\n");
    assert!(good("config show --running").contains("containers = 2\n") && good("config show").contains("containers = 3\n"));
    gateway.configure("[limits]\ncontainers = \"many\"\n");
    let refused = run(gateway.innkeeper().args(["config", "reload"]));
    assert!(refused.status == Some(64) && refused.stderr.contains("limits.containers"), "{refused:?}");
    gateway.configure("");
}

#[test]
fn a_shell_completes_the_names_of_workspaces_that_there_are() {
    let gateway = Gateway::start("");
    let good = |line: &str| run(gateway.innkeeper().args(line.split(' '))).good();
    for name in ["alpha", "alps", "beta"] {
        good(&format!("workspace create {name}"));
    }
    let program = Path::new(env!("CARGO_BIN_EXE_innkeeper")).parent().unwrap().display().to_string();
    let script = gateway.dir.path().join("innkeeper.fish");
    std::fs::write(&script, good("completions fish")).unwrap();
    let offered = |line: &str| {
        let ask = format!("source {}; complete -C 'innkeeper --config {} {line}' | cut -f 1", script.display(), gateway.config().display());
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &ask])
            .env("PATH", format!("{program}:/usr/local/bin:/usr/bin:/bin"))
            .env("HOME", gateway.dir.path());
        run(&mut fish).good()
    };
    assert_eq!(offered("workspace stop al"), "alpha\nalps\n");
    assert_eq!(offered("open b"), "beta\n");
    assert_eq!(offered("workspace env al"), "alpha\nalps\n");
    assert_eq!(offered("session list --workspace be"), "beta\n");
    // A new one is named by whoever makes it, and a token is no workspace.
    assert_eq!((offered("workspace create al"), offered("workspace copy alpha be"), offered("token revoke al")), Default::default());
}
