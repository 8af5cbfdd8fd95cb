//! A login service that is slow, down, redirecting, or answers garbage without end: people read that it is not their password.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/gateway.rs"]
mod gateway;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fault::{holdings, pause};
use gateway::{Done, Gateway, run, wait_for};

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    No,
    Hang,
    Close,
    Drip,
    Endless,
    Huge,
    Redirect,
    Error,
    Html,
    Garbage,
    WrongShape,
    Traversal,
}

/// A login service in the test. It lives as long as the test's process.
struct Service {
    port: u16,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<AtomicUsize>,
}

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = Self { port: listener.local_addr().unwrap().port(), mood: Arc::new(Mutex::new(Mood::Good)), asked: Arc::default() };
        let (mood, asked) = (Arc::clone(&service.mood), Arc::clone(&service.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mood, asked) = (Arc::clone(&mood), Arc::clone(&asked));
                std::thread::spawn(move || converse(stream, &mood, &asked));
            }
        });
        service
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

/// Answers one request, then closes. Whoever hangs up early is no concern of a test.
fn converse(mut stream: TcpStream, mood: &Mutex<Mood>, asked: &AtomicUsize) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    asked.fetch_add(1, Ordering::SeqCst);
    let json = |body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let mood = *mood.lock().unwrap();
    let answer = match mood {
        Mood::Good => json(r#"{"success":true}"#),
        Mood::No => json(r#"{"success":false}"#),
        Mood::WrongShape => json(r#"[{"success":true}]"#),
        Mood::Traversal => json(r#"{"success":true,"innkeeper":{"workspace":"../../../etc"}}"#),
        Mood::Html => json("<html>Bad gateway \x1b]0;x\x07</html>"),
        Mood::Redirect => {
            "HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:1/evil\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        Mood::Error => "HTTP/1.1 500 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        Mood::Garbage => "\x00\x01\x02 this is no HTTP \x1b[31m\r\n\r\n".to_owned(),
        Mood::Close => return None,
        Mood::Huge => "HTTP/1.1 200 OK\r\ncontent-length: 4294967296\r\n\r\n{".to_owned(),
        Mood::Endless => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        Mood::Hang | Mood::Drip => String::new(),
    };
    stream.write_all(answer.as_bytes()).ok()?;
    match mood {
        Mood::Hang => pause(10_000),
        Mood::Drip => {
            for _ in 0..100 {
                stream.write_all(b"H").ok()?;
                pause(100);
            }
        }
        Mood::Endless => {
            let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
            // A gigabyte.
            for _ in 0..16_384 {
                stream.write_all(&chunk).ok()?;
            }
        }
        _ => {}
    }
    Some(())
}

/// Logs in with a password, as somebody at a terminal would.
fn log_in(gateway: &Gateway, account: &str) -> Done {
    let askpass = gateway.dir.path().join("askpass");
    std::fs::write(&askpass, "#!/bin/sh\necho swordfish\n").unwrap();
    std::fs::set_permissions(&askpass, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut ssh = std::process::Command::new("ssh");
    ssh.args(["-o", "BatchMode=no", "-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=2"]).args(gateway.client_options());
    ssh.arg("-p").arg(gateway.ssh_port.to_string());
    ssh.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
    run(ssh.arg("-l").arg(account).arg("127.0.0.1").arg("echo in"))
}

#[test]
fn a_service_of_any_mood() {
    let service = Service::start();
    let mut gateway = Gateway::start("");
    gateway.stop();
    let url = format!("http://127.0.0.1:{}/ssh", service.port);
    gateway.configure(&format!(
        "\n[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"{url}\"\ntimeout = \"1s\"\ntoken = \"s3cr3t-token\"\n[ssh]\nlogin_grace = \"4s\"\n"
    ));
    gateway.up();
    assert_eq!(log_in(&gateway, "alice").good(), "in\n");
    service.is(Mood::No);
    let no = log_in(&gateway, "alice");
    assert!(no.status == Some(255) && !no.stderr.contains("login service"), "{no:?}");
    let before = holdings(gateway.pid());
    for mood in [
        Mood::Hang,
        Mood::Close,
        Mood::Drip,
        Mood::Endless,
        Mood::Huge,
        Mood::Redirect,
        Mood::Error,
        Mood::Html,
        Mood::Garbage,
        Mood::WrongShape,
        Mood::Traversal,
    ] {
        service.is(mood);
        let since = Instant::now();
        let done = log_in(&gateway, "alice");
        assert!(done.status == Some(255), "{mood:?}: {done:?}");
        assert!(
            done.stderr.contains("login service cannot be reached") && done.stderr.contains("Nothing is wrong with your password"),
            "{mood:?}: {done:?}"
        );
        assert!(since.elapsed() < Duration::from_secs(15), "{mood:?}: {:?}", since.elapsed());
        assert!(holdings(gateway.pid()).memory <= before.memory + 24 * 1024, "{mood:?}");
        // Back at once.
        service.is(Mood::Good);
        assert_eq!(log_in(&gateway, "alice").good(), "in\n", "after {mood:?}");
    }
    let log = gateway.log();
    assert!(!log.contains("swordfish") && !log.contains("s3cr3t-token"), "a secret is in the log");
    assert!(!log.contains(['\x1b', '\x07']));
    let (_, metrics) = gateway.get("/metrics");
    assert!(!metrics.contains("swordfish") && !metrics.contains("s3cr3t-token"));
    assert_eq!(gateway.containers().len(), 1, "{:?}", gateway.containers());
    assert!(service.asked.load(Ordering::SeqCst) > 20);
    // Nobody listens at all, and then somebody does.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    gateway.configure(&format!(
        "\n[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"http://127.0.0.1:{nobody}/ssh\"\ntimeout = \"1s\"\n"
    ));
    gateway.reload();
    wait_for("the reload", || gateway.log().contains("configuration applied"));
    let done = log_in(&gateway, "alice");
    assert!(done.stderr.contains("login service cannot be reached"), "{done:?}");
    wait_for("not to be ready", || gateway.get("/readyz").0 == 503);
}

#[test]
fn names_that_are_none() {
    let service = Service::start();
    let mut gateway = Gateway::start("");
    gateway.stop();
    let url = format!("http://127.0.0.1:{}/ssh", service.port);
    // Everybody is let in: only the gateway stands between a name and a path.
    gateway.configure(&format!("\n[auth]\nmethods = [\"webhook\"]\n[auth.webhook]\nurl = \"{url}\"\n[limits]\ncontainers = 40\n"));
    gateway.up();
    let long = "n".repeat(10_000);
    let names = [
        "../../etc/passwd",
        "/etc/passwd",
        "..",
        ".",
        "a/b",
        "%h",
        "{{.Id}}",
        "$(touch /tmp/x)",
        "a b",
        "ROOT",
        "a\u{202e}b",
        "a\u{1b}[31mred",
        "a\nlevel=error forged",
        "café",
        "caf\u{65}\u{301}",
        "pool",
        ".pool.",
        "--privileged",
        "a--b",
        &long,
    ];
    let mut refused = 0;
    for name in names {
        let done = log_in(&gateway, name);
        match done.status {
            Some(0) => assert_eq!(done.text(), "in\n", "{name:?}"),
            _ => refused += 1,
        }
    }
    assert!(refused >= 1, "10 kB are no name");
    let plain = |name: &str| {
        !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let listed = |dir: &str| -> Vec<String> {
        std::fs::read_dir(gateway.state().join(dir)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let mut top = listed(".");
    top.retain(|name| !name.starts_with("innkeeper.db"));
    top.sort();
    assert_eq!(top, ["accounts.toml", "admin.sock", "audit", "homes", "host_keys", "init", "lock", "recordings", "slots", "urls"]);
    let homes = listed("homes");
    assert!(homes.iter().all(|home| plain(home)), "{homes:?}");
    assert_eq!(homes.len(), names.len() - refused, "each has a home of her own: {homes:?}");
    for (container, _) in gateway.containers() {
        let workspace = container.rsplit('.').next().unwrap();
        assert!(plain(workspace) && homes.iter().any(|home| home == workspace), "{container}");
    }
    let log = gateway.log();
    assert!(!log.contains(['\x1b', '\u{202e}', '\0']), "raw characters in the log");
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "a forged line");
    assert!(log.len() < 200_000, "{} bytes of log", log.len());
    assert_eq!(gateway.metric("innkeeper_panics_total"), Some(0.0));
}
