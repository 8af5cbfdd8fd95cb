//! The audit trail by itself: what it shows of changes, what a kill leaves, how it rotates, and where it goes beside the disk.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use innkeeper::audit::{Actor, Audit, Config, Event, Report, What, read, verify};
use innkeeper::telemetry::Metrics;
use innkeeper::units::{Size, Span};
use serde_json::Value;

fn open(config: &Config, root: &Path) -> Audit {
    Audit::open(config, root, &Metrics::new().unwrap()).unwrap()
}

fn login(name: &str) -> Event {
    Event::now(Actor::account(name), What::Login { method: "publickey".to_owned(), key: None })
}

/// A trail of so many logins, closed.
fn trail(config: &Config, logins: usize) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("audit");
    let audit = open(config, &root);
    for number in 0..logins {
        audit.record(login(&format!("user-{number}")));
    }
    audit.close();
    (dir, root)
}

fn events(root: &Path) -> Vec<Value> {
    let mut events = Vec::new();
    read(root, &mut |event| {
        events.push(event);
        true
    })
    .unwrap();
    events
}

#[track_caller]
fn sound(root: &Path) -> Report {
    let report = verify(root, None).unwrap();
    assert!(report.flaws.is_empty(), "{:?}", report.flaws);
    report
}

fn current(root: &Path) -> PathBuf {
    root.join("audit.jsonl")
}

#[test]
fn what_was_written_is_there_and_a_change_shows() {
    let (_dir, root) = trail(&Config::default(), 20);
    let report = sound(&root);
    assert_eq!((report.first, report.last, report.events), (1, 20, 20));
    assert_eq!(events(&root)[3]["actor"]["account"], "user-3");
    let whole = fs::read_to_string(current(&root)).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without = |number: usize| lines.iter().enumerate().filter(|(at, _)| *at != number).map(|(_, line)| format!("{line}\n")).collect();
    let changed: [(&str, String); 6] = [
        ("another name", whole.replace("user-7", "user-8")),
        ("a line gone", without(7)),
        ("the first gone", without(0)),
        ("the last gone", without(19)),
        ("a line twice", whole.replace(lines[4], &format!("{}\n{}", lines[4], lines[4]))),
        (
            "two lines the other way round",
            whole.replace(lines[4], "x").replace(lines[5], lines[4]).replace("x\n", &format!("{}\n", lines[5])),
        ),
    ];
    for (what, text) in changed {
        fs::write(current(&root), text).unwrap();
        let flaws = verify(&root, None).unwrap().flaws;
        // Where older lines were removed by age nobody can tell; a digest noted elsewhere can.
        if what == "the first gone" {
            assert!(flaws.is_empty(), "{what}");
        } else {
            assert!(!flaws.is_empty(), "{what}");
        }
    }
    fs::write(current(&root), &whole).unwrap();
    assert!(verify(&root, Some(&report.head)).unwrap().flaws.is_empty());
    assert_eq!(verify(&root, Some(&"0".repeat(64))).unwrap().flaws.len(), 1);
}

#[test]
fn a_line_that_was_written_half_is_cut_off_and_told_of() {
    let (_dir, root) = trail(&Config::default(), 5);
    let whole = fs::read(current(&root)).unwrap();
    let last = whole.iter().rev().skip(1).position(|byte| *byte == b'\n').unwrap() + 1;
    // The machine stops at any byte of the last line, before it was noted where the trail stands.
    for cut in [1, 2, last / 2, last - 1] {
        fs::write(current(&root), &whole[..whole.len() - cut]).unwrap();
        fs::remove_file(root.join("head")).ok();
        let audit = open(&Config::default(), &root);
        audit.record(login("after"));
        audit.close();
        sound(&root);
        let events = events(&root);
        let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["login", "login", "login", "login", "torn", "login"], "{cut}");
        assert_eq!(events[4]["bytes"].as_u64().unwrap() as usize, last - cut);
    }
}

#[test]
fn it_goes_on_over_restarts_and_files_and_forgets_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("audit");
    let config = Config { file_size: Size::bytes(4096), ..Config::default() };
    for run in 0..5 {
        let audit = open(&config, &root);
        for number in 0..40 {
            audit.record(login(&format!("user-{run}-{number}")));
            // Small batches: a file is closed between two.
            if number % 8 == 7 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        audit.close();
    }
    let report = sound(&root);
    assert_eq!((report.first, report.last), (1, 200));
    assert!(report.files > 3, "{}", report.files);
    let mut closed: Vec<PathBuf> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    closed.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("audit-"));
    closed.sort();
    // A file from the middle is missed; the oldest may go when they are old.
    let middle = fs::read(&closed[1]).unwrap();
    fs::remove_file(&closed[1]).unwrap();
    assert!(!verify(&root, None).unwrap().flaws.is_empty());
    fs::write(&closed[1], middle).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3 * 24 * 60 * 60);
    for path in &closed[..2] {
        OpenOptions::new().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    open(&Config { keep: Span::secs(2 * 24 * 60 * 60), ..config }, &root).close();
    let after = sound(&root);
    assert_eq!((after.files, after.last), (report.files - 2, 200));
    assert!(after.first > 1);
}

#[test]
fn strangers_text_is_short_and_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("audit");
    let audit = open(&Config::default(), &root);
    let target = "\u{1b}[2J<script>\n".repeat(1000);
    audit.record(Event::now(
        Actor::account("a\u{202e}b\n"),
        What::Forward { kind: "direct-tcpip".to_owned(), target, outcome: "opened".to_owned() },
    ));
    audit.close();
    sound(&root);
    let text = fs::read_to_string(current(&root)).unwrap();
    assert!(text.lines().count() == 1 && text.len() < 8192 && !text.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'));
}

#[test]
fn what_cannot_be_kept_up_with_is_counted_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("audit");
    let audit = open(&Config::default(), &root);
    let events_wanted = 100_000_u64;
    for _ in 0..events_wanted {
        audit.record(login("alice"));
    }
    audit.close();
    let report = sound(&root);
    let lost: u64 = events(&root).iter().filter(|event| event["event"] == "lost").map(|event| event["events"].as_u64().unwrap()).sum();
    let told = events(&root).iter().filter(|event| event["event"] == "lost").count() as u64;
    assert_eq!(report.events - told + lost, events_wanted, "each is there, or counted");
}

#[test]
fn lines_go_to_a_syslog_as_well() {
    let syslog = UdpSocket::bind("127.0.0.1:0").unwrap();
    syslog.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let config = Config { syslog: format!("udp://{}", syslog.local_addr().unwrap()), ..Config::default() };
    let (_dir, root) = trail(&config, 1);
    let mut bytes = [0; 4096];
    let length = syslog.recv(&mut bytes).unwrap();
    let text = std::str::from_utf8(&bytes[..length]).unwrap();
    let written = fs::read_to_string(current(&root)).unwrap();
    assert!(text.starts_with("<86>1 ") && text.contains(" innkeeper ") && text.ends_with(written.trim_end()), "{text}");
}

#[test]
fn lines_go_to_a_syslog_of_this_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let config = Config { syslog: format!("unix://{}", path.display()), ..Config::default() };
    // One that is not there yet is not waited for, and has what comes once it is.
    let (_early, _) = trail(&config, 1);
    let syslog = UnixDatagram::bind(&path).unwrap();
    syslog.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (_dir, root) = trail(&config, 2);
    let written = fs::read_to_string(current(&root)).unwrap();
    let mut bytes = [0; 4096];
    for line in written.lines() {
        let length = syslog.recv(&mut bytes).unwrap();
        // As libc's syslog(3) writes it: priority, who, what.
        assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), format!("<86>innkeeper[{}]: {line}", std::process::id()));
    }
    assert_eq!(written.lines().count(), 2);
}

#[test]
fn lines_go_to_a_webhook_in_order_until_they_are_taken() {
    let (dir, root) = trail(&Config::default(), 250);
    let secret = dir.path().join("secret");
    fs::write(&secret, "hunter2").unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let file = dir.path().join("config.toml");
    let text = format!(
        "state_dir = \"{}\"\n[audit.webhook]\nurl = \"http://{address}/events\"\nsecret_file = \"{}\"\n",
        dir.path().display(),
        secret.display()
    );
    fs::write(&file, text).unwrap();
    let loaded = innkeeper::config::Sources::of_process(Some(file)).load().unwrap();
    let taking = std::thread::spawn(move || {
        let (mut taken, mut refused) = (Vec::new(), 0);
        while taken.len() < 250 {
            let (mut stream, _) = server.accept().unwrap();
            let (head, body) = request(&mut stream);
            // Says no now and then, and hangs up without a word.
            refused += 1;
            match refused {
                1 => stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap(),
                3 => drop(stream),
                _ => {
                    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap().to_owned();
                    let (id, at) = (value("webhook-id"), value("webhook-timestamp"));
                    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"hunter2");
                    let signature = value("webhook-signature").strip_prefix("v1,").unwrap().to_owned();
                    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
                    aws_lc_rs::hmac::verify(&key, format!("{id}.{at}.{body}").as_bytes(), &signature).unwrap();
                    let body: Value = serde_json::from_str(&body).unwrap();
                    taken.extend(body["data"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()));
                    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
                }
            }
        }
        taken
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let stops = stop.clone();
    let webhook = loaded.settings.audit.webhook.clone();
    let running = runtime.spawn(async move { innkeeper::audit::run_webhook(webhook, &root, Metrics::new().unwrap(), stops).await });
    let taken = taking.join().unwrap();
    stop.cancel();
    runtime.block_on(running).unwrap();
    assert_eq!(taken, (1..=250).collect::<Vec<u64>>());
}

/// A request's head in lower-case names, and its body.
fn request(stream: &mut std::net::TcpStream) -> (String, String) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).unwrap();
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse::<usize>().unwrap();
            if body.len() >= length {
                return (head.to_owned(), body.to_owned());
            }
        }
    }
}
