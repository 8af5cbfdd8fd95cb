//! Recordings of terminals, and watching them: with a real client, a real container and the real program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/api.rs"]
mod api;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/s3.rs"]
mod s3;

use std::io::{Read, Write};
use std::net::TcpStream;

use api::{Api, token};
use gateway::{DEADLINE, Gateway, Session, Terminal, run, template, wait_for};
use serde_json::Value;

const TOLD: &str = "this terminal is recorded: what it shows, not what you type";

fn admin(gateway: &Gateway, name: &str) -> Api {
    Api::new(gateway.http_port, Some(&token(&mut gateway.innkeeper(), name, &["admin"])))
}

/// All recordings, as the command line has them.
fn recordings(gateway: &Gateway) -> Vec<Value> {
    serde_json::from_str(&run(gateway.innkeeper().args(["recording", "list", "--json"])).good()).unwrap()
}

/// The one recording there is, once it is as it should be.
fn recording(gateway: &Gateway, state: &str) -> String {
    let mut found = None;
    wait_for(&format!("a recording that is {state}"), || {
        let all = recordings(gateway);
        assert!(all.len() <= 1, "{all:?}");
        found = all.into_iter().find(|one| one["state"] == state);
        found.is_some()
    });
    found.unwrap()["id"].as_str().unwrap().to_owned()
}

/// Everything that an exported recording's terminal was sent.
fn output(cast: &str) -> String {
    let events = cast.lines().skip(1).map(|line| serde_json::from_str::<(f64, String, String)>(line).unwrap());
    events.filter(|(_, code, _)| code == "o").map(|(_, _, data)| data).collect()
}

fn export(gateway: &Gateway, id: &str) -> String {
    run(gateway.innkeeper().args(["recording", "export", id])).good()
}

/// A stream of server-sent events.
struct Feed(TcpStream, String);

impl Feed {
    fn open(gateway: &Gateway, token: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.http_port)).unwrap();
        write!(stream, "GET /api/v1{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(stream, String::new())
    }

    #[track_caller]
    fn hear(&mut self, wanted: &str) {
        while !self.1.contains(wanted) {
            let mut buffer = [0; 65536];
            let length = self.0.read(&mut buffer).unwrap();
            assert!(length > 0, "{wanted}: {}", self.1);
            self.1.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

#[test]
fn a_session_is_recorded_as_it_was_shown_and_she_is_told() {
    let gateway = Gateway::start(&template("recording = \"terminals\""));
    let line = "stty size; printf 'a\\033[31mb\\033[0m \\360\\237\\230\\200\\n'; read word; seq 1 20000; echo got $word; exit 3";
    let mut terminal = gateway.terminal("alice", line);
    let before = terminal.expect("24 80");
    assert!(before.contains(TOLD), "{before}");
    terminal.resize(30, 100);
    terminal.send("secret-word\n");
    let (status, shown) = terminal.end();
    assert_eq!(status, Some(3));
    let id = recording(&gateway, "complete");
    let cast = export(&gateway, &id);
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!((&header["version"], &header["width"], &header["height"]), (&2.into(), &80.into(), &24.into()));
    assert!(cast.contains("\"r\", \"100x30\"]") && cast.ends_with("\"m\", \"the session ended: status 3\"]\n"));
    // What ssh showed is what was recorded, behind our own word.
    let shown = String::from_utf8(shown).unwrap();
    let recorded = output(&cast);
    assert!(recorded.len() > 100_000 && shown.ends_with(&recorded), "{:?}", recorded.get(..200));
    assert!(shown.len() - recorded.len() < 300 && !recorded.contains(TOLD));
    let played = run(gateway.innkeeper().args(["recording", "play", &id, "--speed", "100", "--idle-limit", "10ms"])).good();
    assert!(played.contains("20000\n") && played.contains("got secret-word") && !played.contains('\u{1b}'), "{played}");
    let listed = run(gateway.innkeeper().args(["recording", "list"])).good();
    assert!(listed.contains(&id) && listed.contains("alice") && listed.contains("complete"), "{listed}");
    // A program is told nothing and not recorded.
    let done = gateway.exec("alice", "echo plain");
    assert_eq!((done.good().as_str(), done.stderr.as_str()), ("plain\n", ""));
    assert_eq!(recordings(&gateway).len(), 1);
    for step in ["began", "downloaded", "played"] {
        gateway.trail(&["--event", "recording"], |shown| shown.contains(&format!("\"step\":\"{step}\"")));
    }
    run(gateway.innkeeper().args(["recording", "remove", &id])).good();
    assert!(recordings(&gateway).is_empty());
    assert_eq!(run(gateway.innkeeper().args(["recording", "show", &id])).status, Some(1));
}

#[test]
fn a_recording_goes_to_a_bucket_and_is_played_and_removed_from_there() {
    let server = s3::Server::start();
    server.make_bucket("screens");
    let sections =
        format!("{}\n[recording]\ntarget = \"s3://screens/main\"\n{}", template("recording = \"terminals\""), server.section("recording"));
    let mut gateway = Gateway::start(&sections);
    let asked = run(gateway.innkeeper().args(["check", "--online"]));
    assert!(asked.text().contains("recording.target: s3://screens/main/ answers"), "{asked:?}");
    let (status, _) = gateway.terminal("alice", "echo shown-before-the-$((0+0))-kill").end();
    assert_eq!(status, Some(0));
    recording(&gateway, "complete");
    // Sent or not, noted or not: afterwards it is.
    gateway.kill();
    gateway.up();
    let id = recording(&gateway, "complete");
    wait_for("it to be in the bucket", || recordings(&gateway)[0]["place"] == "bucket");
    let directory = gateway.state().join("recordings");
    let files = || -> Vec<_> { std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    assert_eq!(files(), [format!("{id}.cast.zst.away").as_str()]);
    assert!(output(&export(&gateway, &id)).contains("shown-before-the-0-kill"));
    assert!(run(gateway.innkeeper().args(["recording", "play", &id, "--speed", "100"])).good().contains("shown-before-the-0-kill"));
    // With its workspace it goes from there too.
    run(gateway.innkeeper().args(["workspace", "delete", "alice", "--now"])).good();
    assert!(recordings(&gateway).is_empty());
    wait_for("nothing to be left of it", || files().is_empty());
    drop(server);
    let asked = run(gateway.innkeeper().args(["check", "--online"])).text();
    assert!(asked.contains("✗ recording.target: ") && asked.contains("recording.s3.endpoint"), "{asked}");
    assert!(!gateway.log().contains(s3::SECRET_KEY) && !gateway.log().contains("X-Amz") && !asked.contains(s3::SECRET_KEY));
}

#[test]
fn nobody_is_told_or_recorded_where_it_is_off_and_nobody_can_be_watched() {
    let gateway = Gateway::start("");
    let mut terminal = gateway.terminal("alice", "");
    terminal.send("echo ready-$((1+1))\n");
    terminal.expect("ready-2");
    let api = admin(&gateway, "admin");
    let sessions = api.good(200, "GET", "/sessions", None);
    let session = &sessions["items"][0];
    assert_eq!((&session["recording"], &session["watchable"]), (&Value::Null, &false.into()));
    assert_eq!(api.refused("GET", &format!("/sessions/{}/watch", session["id"]), None, &[]), "refused");
    assert_eq!(api.refused("GET", "/sessions/4711/watch", None, &[]), "not_found");
    terminal.send("exit\n");
    let said = String::from_utf8_lossy(&terminal.end().1).into_owned();
    assert!(!said.contains("recorded"), "{said}");
    assert!(recordings(&gateway).is_empty());
}

#[test]
fn a_kill_leaves_a_recording_that_is_read_up_to_there_also_where_it_is_encrypted() {
    for keyed in [false, true] {
        let mut gateway = Gateway::start(&template("recording = \"terminals\""));
        if keyed {
            let key = gateway.state().parent().unwrap().join("recording.key");
            std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
            let config = std::fs::read_to_string(gateway.config()).unwrap();
            std::fs::write(gateway.config(), format!("{config}\n[recording]\nkey_file = {key:?}\n")).unwrap();
            gateway.stop();
            gateway.up();
        }
        let mut terminal = gateway.terminal("alice", "");
        terminal.send("echo before-the-$((0+0))-kill\n");
        terminal.expect("before-the-0-kill");
        recording(&gateway, "recording");
        std::thread::sleep(std::time::Duration::from_secs(4));
        gateway.kill();
        drop(terminal);
        gateway.up();
        let id = recording(&gateway, "cut");
        let cast = export(&gateway, &id);
        assert!(output(&cast).contains("before-the-0-kill"), "{cast}");
        assert!(cast.ends_with("\"m\", \"the recording is cut here\"]\n"), "{cast}");
        let played = run(gateway.innkeeper().args(["recording", "play", &id, "--idle-limit", "1ms"]));
        assert!(played.stderr.contains("the recording is cut here") && played.good().contains("before-the-0-kill"));
        let shown = run(gateway.innkeeper().args(["recording", "show", &id, "--json"])).good();
        assert!(shown.contains(&format!("\"encrypted\": {keyed}")), "{shown}");
        let dir = gateway.state().join("recordings");
        let files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let unzipped = run(std::process::Command::new("zstd").arg("-dc").arg(&files[0]));
        if keyed {
            assert!(unzipped.status != Some(0) && !unzipped.text().contains("before-the"));
        } else {
            // Broken off, and all there is.
            assert!(unzipped.text().contains("before-the-0-kill"), "{unzipped:?}");
        }
    }
}

#[test]
fn a_session_that_cannot_be_recorded_goes_on_or_ends_as_it_is_configured() {
    let small = "\n[recording]\nquota = \"100KiB\"\nlargest = \"100KiB\"\n";
    let flood = "head -c 3000000 /dev/urandom | base64; echo it-goes-$((1+1))";
    let gateway = Gateway::start(&format!("{}{small}", template("recording = \"terminals\"")));
    let mut terminal = gateway.terminal("alice", flood);
    terminal.expect("it-goes-2");
    assert_eq!(terminal.end().0, Some(0));
    let id = recording(&gateway, "complete");
    let cast = export(&gateway, &id);
    assert!(cast.trim_end().ends_with("recording.quota\"]") || cast.trim_end().ends_with("recording.largest\"]"), "{}", cast.len());
    let all = [r#"innkeeper_recording_failures_total{reason="quota"}"#, r#"innkeeper_recording_failures_total{reason="largest"}"#];
    wait_for("it to be counted", || all.iter().filter_map(|name| gateway.metric(name)).sum::<f64>() == 1.0);
    let audited = run(gateway.innkeeper().args(["audit", "show", "--json", "--event", "recording"])).good();
    assert!(audited.contains("\"step\":\"failed\""), "{audited}");
    // The next pushes it out.
    let mut terminal = gateway.terminal("alice", "head -c 60000 /dev/urandom | base64; echo done-$((1+1))");
    terminal.expect("done-2");
    terminal.end();
    wait_for("the older to go", || recordings(&gateway).iter().all(|one| one["id"] != id.as_str()));
    drop(gateway);
    let gateway = Gateway::start(&format!("{}{small}on_failure = \"end_session\"\n", template("recording = \"terminals\"")));
    let terminal = gateway.terminal("alice", &format!("{flood}; sleep 1000"));
    let (status, said) = terminal.end();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("this session has to be recorded and cannot be right now"), "{}", &said[said.len().saturating_sub(300)..]);
    assert_eq!(status, Some(75));
    assert_eq!(gateway.exec("alice", "echo here").good(), "here\n");
}

fn watched(gateway: &Gateway) -> (Terminal, Value) {
    let terminal = gateway.terminal("alice", "");
    let mut session = Value::Null;
    wait_for("a session to watch", || {
        let all: Vec<Value> = serde_json::from_str(&run(gateway.innkeeper().args(["session", "list", "--json"])).good()).unwrap();
        session = all.into_iter().find(|one| one["watchable"] == true).unwrap_or_default();
        session.is_object()
    });
    (terminal, session)
}

#[test]
fn a_session_is_watched_as_text_whatever_is_written_in_it() {
    let gateway = Gateway::start(&template("recording = \"terminals\"\nwatch = true"));
    let (mut terminal, session) = watched(&gateway);
    terminal.expect("an administrator may watch it");
    let value = token(&mut gateway.innkeeper(), "watcher", &["admin"]);
    let mut feed = Feed::open(&gateway, &value, &format!("/sessions/{}/watch", session["id"]));
    feed.hear("event: frame");
    terminal.send("clear; printf 'live-%s \\033[32mgreen\\033[0m' one; printf '\\033]0;<script>\\007\\033]52;c;aGk=\\007\\033[6n'\n");
    feed.hear("live-one green");
    feed.hear("\"foreground\":2");
    assert!(!feed.1.contains("<script>") && !feed.1.contains("\\u001b") && !feed.1.contains('\u{1b}'), "{}", feed.1);
    let status = gateway.exec("alice", "innkeeper-status").good();
    assert!(status.contains("1 of them, of which 1 are watched by an administrator right now"), "{status}");
    let mut at_command_line = Session::start(gateway.innkeeper().args(["session", "watch", &session["id"].to_string(), "--json"]));
    at_command_line.expect("live-one green");
    // Somebody who does not read delays nothing.
    let _slow = Feed::open(&gateway, &value, &format!("/sessions/{}/watch", session["id"]));
    terminal.send("seq 1 100000; echo all-$((1+1))\n");
    terminal.expect("all-2");
    feed.hear("all-2");
    terminal.send("exit\n");
    terminal.end();
    feed.hear("event: end\ndata: {\"reason\":\"ended\"}");
    assert_eq!(at_command_line.end().status, Some(0));
    wait_for("both of it in the trail", || {
        let audited = run(gateway.innkeeper().args(["audit", "show", "--json", "--event", "watch"])).good();
        audited.contains("\"step\":\"began\"") && audited.contains("\"step\":\"ended\"")
    });
    let id = recording(&gateway, "complete");
    let mut replay = Feed::open(&gateway, &value, &format!("/recordings/{id}/frames?speed=100&idle=0.01"));
    replay.hear("event: end\ndata: {\"complete\":true}");
    assert!(replay.1.contains("event: recording") && replay.1.contains("all-2") && !replay.1.contains("<script>"));
    let api = admin(&gateway, "other");
    assert_eq!(api.refused("GET", &format!("/recordings/{id}/frames?speed=0"), None, &[]), "malformed");
    assert_eq!(api.refused("GET", "/recordings?since=never", None, &[]), "malformed");
    assert_eq!(api.good(200, "GET", "/recordings?workspace=bob", None)["items"], serde_json::json!([]));
}

#[test]
fn recordings_go_with_their_workspace_also_after_a_kill() {
    let mut gateway = Gateway::start(&template("recording = \"terminals\""));
    for account in ["alice", "bob"] {
        let mut terminal = gateway.terminal(account, "echo once");
        terminal.expect("once");
        terminal.end();
    }
    wait_for("both", || recordings(&gateway).iter().filter(|one| one["state"] == "complete").count() == 2);
    run(gateway.innkeeper().args(["workspace", "delete", "alice"])).good();
    assert_eq!(recordings(&gateway).len(), 2, "it can be brought back, and so they are there");
    gateway.kill();
    // As a kill leaves it between what is written down and what is done.
    let store = rusqlite::Connection::open(gateway.state().join("innkeeper.db")).unwrap();
    assert_eq!(store.execute("update setting set stage = 'purging' where workspace = 'alice'", []).unwrap(), 1);
    drop(store);
    gateway.up();
    wait_for("hers to be gone", || {
        let all = recordings(&gateway);
        all.len() == 1 && all[0]["workspace"] == "bob"
    });
    let removed = || {
        let shown = run(gateway.innkeeper().args(["audit", "show", "--json", "--event", "recording"])).good();
        shown.lines().filter(|line| line.contains("\"step\":\"removed\"")).count()
    };
    wait_for("it to be in the trail", || removed() == 1);
    assert_eq!(
        run(gateway.innkeeper().args(["workspace", "delete", "alice", "--now"])).status,
        Some(1),
        "there is nothing of her any more"
    );
    assert_eq!(removed(), 1);
}
