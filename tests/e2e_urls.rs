//! Workspace URLs: an application in a container, asked by curl and by hand, and what strangers and the application itself try.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

#[path = "common/gateway.rs"]
mod gateway;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gateway::{Gateway, Session, docker, noise, run, sha256, wait_for};
use serde_json::Value;

/// A gateway that serves workspaces below `test` on a port of the loopback.
struct World {
    gateway: Gateway,
    port: u16,
    scheme: &'static str,
    ca: Option<std::path::PathBuf>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl World {
    fn start(urls: &str, rest: &str) -> Self {
        let port = free_port();
        let gateway = Gateway::start(&format!("{rest}\n[urls]\nlisten = \"127.0.0.1:{port}\"\ndomain = \"test\"\n{urls}\n"));
        Self { gateway, port, scheme: "http", ca: None }
    }

    /// The application, running in the account's workspace.
    fn application(&self, account: &str, port: u16) -> Session {
        self.gateway.exec_with(account, "cat > application.py", include_bytes!("common/application.py")).good();
        self.gateway.hold(account, &format!("exec python3 application.py {port}"))
    }

    /// The same without a session of hers that lasts.
    fn application_alone(&self, account: &str, port: u16) {
        self.gateway.exec_with(account, "cat > application.py", include_bytes!("common/application.py")).good();
        let line = format!(
            "setsid python3 application.py {port} >/dev/null 2>&1 </dev/null & \
             until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' 2>/dev/null; do sleep 0.1; done"
        );
        self.gateway.exec(account, &line).good();
    }

    fn link(&self, workspace: &str, port: u16, more: &[&str]) -> String {
        run(self.gateway.innkeeper().args(["open", workspace, &port.to_string()]).args(more)).good().trim().to_owned()
    }

    fn url(&self, host: &str, path: &str) -> String {
        format!("{}://{host}.test:{}{path}", self.scheme, self.port)
    }

    /// curl, for which every name is here.
    fn curl_command(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--noproxy", "*", "--connect-to", &format!("::127.0.0.1:{}", self.port)]);
        if let Some(ca) = &self.ca {
            command.arg("--cacert").arg(ca);
        }
        command
    }

    /// What curl prints: the body, and the status in the last line.
    fn curl(&self, arguments: &[&str]) -> (u16, String) {
        let done = run(self.curl_command().args(["--max-time", "60", "--write-out", "\n%{http_code}"]).args(arguments));
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (status.parse().unwrap(), body.to_owned())
    }

    fn asked(&self, arguments: &[&str]) -> Value {
        let (status, body) = self.curl(arguments);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A connection by which a public application has answered, and which is kept.
    fn answered(&self) -> TcpStream {
        let mut answered = None;
        wait_for("an answer", || {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut head = [0; 12];
            let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: 8080--alice.test\r\n\r\n");
            let good = asked.and_then(|()| stream.read_exact(&mut head)).is_ok() && &head == b"HTTP/1.1 200";
            answered = good.then_some(stream);
            good
        });
        answered.unwrap()
    }

    /// What a raw request is answered, to the end of the connection.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[test]
fn a_link_opens_a_port_and_the_application_hears_who_it_is() {
    let world = World::start("public = [9000]", "");
    let _application = world.application("alice", 8080);
    let jar = world.gateway.dir.path().join("jar");
    let jar = jar.to_str().unwrap();
    let link = world.link("alice", 8080, &["--visitor", "bob"]);
    assert!(link.starts_with(&world.url("8080--alice", "/.innkeeper/open?t=")), "{link}");
    let seen = world.asked(&["-L", "-c", jar, "-b", jar, &format!("{link}&to=%2Fhello%3Fa%3Db")]);
    assert_eq!((seen["path"].as_str().unwrap(), seen["method"].as_str().unwrap()), ("/hello?a=b", "GET"));
    let lies = ["-H", "X-Innkeeper-Visitor: root", "-H", "X-Forwarded-For: 1.2.3.4", "-H", "Cookie: own=1"];
    let seen = world.asked(&[&["-b", jar, &world.url("8080--alice", "/")][..], &lies].concat());
    let header = |name: &str| seen["headers"][name].as_str().map(str::to_owned);
    assert_eq!(header("x-innkeeper-visitor").as_deref(), Some("bob"));
    assert_eq!(header("x-innkeeper-workspace").as_deref(), Some("alice"));
    assert_eq!(header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(header("host"), Some(format!("8080--alice.test:{}", world.port)));
    assert!(!seen.to_string().contains("innkeeper-url"), "our cookie stays with us: {seen}");
    // It is for this port of this workspace.
    world.gateway.exec("carol", "true").good();
    let cookie = std::fs::read_to_string(jar).unwrap().lines().last().unwrap().split('\t').next_back().unwrap().to_owned();
    for host in ["8081--alice", "8080--carol", "8080--nobody"] {
        let (status, body) = world.curl(&["-H", &format!("Cookie: innkeeper-url={cookie}"), &world.url(host, "/")]);
        assert_eq!((status, body.contains("needs a link")), (401, true), "{host}");
    }
    // What the application sets for others, or in our name, does not arrive.
    let (_, head) = world.curl(&["-b", jar, "-i", &world.url("8080--alice", "/cookies")]);
    let set: Vec<&str> = head.lines().filter(|line| line.to_lowercase().starts_with("set-cookie")).collect();
    assert_eq!(set, ["set-cookie: a=1; Path=/"], "{head}");
    // Bodies both ways, with a length and without.
    let big = world.gateway.dir.path().join("big");
    std::fs::write(&big, vec![7; 3_000_000]).unwrap();
    let expected = format!("3000000 {}", run(Command::new("sha256sum").arg(&big)).good().split(' ').next().unwrap());
    let data = format!("@{}", big.display());
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
        assert_eq!(world.curl(&[&["-b", jar, "--data-binary", &data, &world.url("8080--alice", "/post")], more].concat()).1, expected);
    }
    // Taken back, and what goes on by it ends; not even a cookie is good; links made later are.
    let upgrade = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n";
    let under_way = [("/upgrade", upgrade, "HTTP/1.1 101"), ("/endless", "", "data: more")].map(|(path, more, until)| {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: 8080--alice.test\r\nCookie: innkeeper-url={cookie}\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut seen = String::new();
        while !seen.contains(until) {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0, "{path}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        stream
    });
    run(world.gateway.innkeeper().args(["unlink", "alice"])).good();
    wait_for("it to be taken back", || world.curl(&["-b", jar, &world.url("8080--alice", "/")]).0 == 401);
    for mut stream in under_way {
        // Ends, by whatever kind of end.
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(ended.as_ref().err().is_none_or(|why| why.kind() == std::io::ErrorKind::ConnectionReset), "{ended:?}");
    }
    assert_eq!(world.curl(&[&link]).0, 401);
    assert_eq!(world.curl(&[&world.link("alice", 8080, &[])]).0, 303);
    // A public port needs none; whoever has no workspace has none there either.
    let _public = world.gateway.hold("alice", "exec python3 application.py 9000");
    assert_eq!(world.asked(&[&world.url("9000--alice", "/")])["headers"]["x-innkeeper-access"], "public");
    let strangers: Vec<_> = ["9000--nobody", "8080--alice", "8080--nobody", "x"].map(|host| world.curl(&[&world.url(host, "/")])).into();
    assert!(strangers.iter().all(|answer| *answer == strangers[0] && answer.0 == 401), "{strangers:?}");
    // Whoever comes after her under her name has nothing to do with links to her.
    let link = world.link("alice", 8080, &[]);
    run(world.gateway.innkeeper().args(["workspace", "delete", "alice", "--now"])).good();
    let _another = world.application("alice", 8080);
    assert_eq!(world.curl(&[&link]).0, 401);
    let shown = run(world.gateway.innkeeper().args(["audit", "show", "--event", "link-opened", "--json"])).good();
    assert!(shown.contains("\"port\":8080") && shown.contains("bob"), "{shown}");
}

#[test]
fn what_sleeps_is_started_and_stays_while_it_is_used() {
    let idle = "[idle]\ntimeout = \"3s\"\nsweep_every = \"1s\"\n";
    let service = "[[template.default.service]]\nname = \"web\"\ncommand = [\"python3\", \"application.py\", \"8080\"]\n";
    let world = World::start("public = [8080]", &format!("{idle}{service}"));
    world.gateway.exec_with("alice", "cat > application.py", include_bytes!("common/application.py")).good();
    let asleep = || docker(&["inspect", "--format", "{{.State.Running}}", &world.gateway.container("alice")]).trim() == "false";
    wait_for("it to sleep", asleep);
    // A program waits; somebody at a browser is told, and her page asks again.
    let (status, _) = world.curl(&["--retry", "20", "--retry-delay", "1", "--retry-all-errors", &world.url("8080--alice", "/")]);
    assert_eq!(status, 200);
    let url = world.url("8080--alice", "/stream");
    let mut stream = world.curl_command().args(["--no-buffer", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 8];
    let since = Instant::now();
    stream.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(since.elapsed() < Duration::from_secs(4), "events arrive as they come, not at the end");
    // Five seconds of a stream are more than the idle limit.
    let mut rest = String::new();
    stream.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    stream.wait().unwrap();
    assert!(rest.contains("data: 49"), "{rest}");
    wait_for("it to sleep again", asleep);
    wait_for("her page to go on by itself", || {
        let (status, page) = world.curl(&["-H", "Accept: text/html", &world.url("8080--alice", "/")]);
        assert!(matches!(status, 200 | 502) || status == 503 && page.contains("http-equiv=\"refresh\""), "{status} {page}");
        status == 200
    });
    run(world.gateway.innkeeper().args(["workspace", "suspend", "alice", "--reason", "unpaid"])).good();
    assert_eq!(world.curl(&[&world.url("8080--alice", "/")]).0, 401, "a stranger learns nothing of it");
}

#[test]
fn who_waits_at_a_browser_is_shown_that_it_starts() {
    let service = "[[template.default.service]]\nname = \"web\"\ncommand = [\"python3\", \"application.py\", \"8080\"]\n";
    let world = World::start("public = [8080]", &format!("[limits]\ncontainers = 1\n[idle]\ntimeout = \"0s\"\n{service}"));
    world.gateway.exec_with("bob", "cat > application.py", include_bytes!("common/application.py")).good();
    // There is one place, and she has it: his workspace cannot start however quick the machine is.
    let held = world.gateway.hold("alice", "echo up; exec cat");
    assert_eq!(world.gateway.container_state("bob"), "exited");
    let browser = ["-H", "Accept: text/html,application/xhtml+xml;q=0.9", "-i"];
    let url = world.url("8080--bob", "/");
    let (status, page) = world.curl(&[&browser[..], &[&url]].concat());
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert_eq!(status, 503, "{page}");
    for line in ["content-type: text/html; charset=utf-8", "cache-control: no-store", "retry-after: 2"] {
        assert!(head.lines().any(|said| said.eq_ignore_ascii_case(line)), "{line}: {head}");
    }
    for part in ["<meta http-equiv=\"refresh\" content=\"2\">", "<h1>Starting …</h1>", "This page goes on by itself."] {
        assert!(body.contains(part), "{part}: {body}");
    }
    // The page alone has it started, as soon as that can be.
    world.gateway.wait_metric("innkeeper_queue_length", |waiting| waiting == 1.0);
    drop(held);
    wait_for("his workspace", || world.gateway.container_state("bob") == "running");
    wait_for("his application", || {
        let (status, page) = world.curl(&[&browser[..], &[&url]].concat());
        assert!(matches!(status, 200 | 502) || status == 503 && page.contains("http-equiv=\"refresh\""), "{status} {page}");
        status == 200
    });
    // What a form sends is not asked for again by a page: it waits.
    let held = world.gateway.hold("alice", "echo up; exec cat");
    let form = Session::start(world.curl_command().args(browser).args(["-d", "a=1", &url]));
    world.gateway.wait_metric("innkeeper_queue_length", |waiting| waiting == 1.0);
    drop(held);
    let answer = form.end().good();
    assert!(["HTTP/1.1 200", "HTTP/1.1 502"].iter().any(|status| answer.starts_with(status)), "{answer}");
}

/// A WebSocket (RFC 6455) to port 8080 of a workspace, with short frames of text.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(world: &World, workspace: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let upgrade =
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let request = format!("GET /websocket HTTP/1.1\r\nHost: 8080--{workspace}.test\r\n{upgrade}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let head = head(&mut stream).to_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("\r\nupgrade: websocket\r\n"), "{head}");
        // The key and its answer are those of RFC 6455, section 1.3.
        assert!(head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
        Self(stream)
    }

    /// Sends a text, which comes back.
    fn echo(&mut self, text: &str) {
        let mask: [u8; 4] = rand::random();
        let length = u8::try_from(text.len()).unwrap();
        let mut frame = vec![0x81, 0x80 | length];
        frame.extend_from_slice(&mask);
        frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).unwrap();
        let mut answer = vec![0; 2 + text.len()];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!((&answer[..2], std::str::from_utf8(&answer[2..])), (&[0x81, length][..], Ok(text)));
    }
}

/// The head of an answer.
fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[test]
fn an_open_web_socket_keeps_its_workspace_running() {
    let world = World::start("public = [8080]", "\n[idle]\ntimeout = \"2s\"\nkeep_busy = false\n");
    world.gateway.exec("carol", "true").good();
    world.application_alone("alice", 8080);
    let mut socket = WebSocket::open(&world, "alice");
    socket.echo("hello");
    // Hers is asked for once and later, and is stopped: silence is as long here.
    assert_eq!(world.curl(&[&world.url("8080--carol", "/")]).0, 502);
    wait_for("what is idle to be stopped", || world.gateway.container_state("carol") == "exited");
    world.gateway.wait_sweeps(2);
    assert_eq!(world.gateway.container_state("alice"), "running");
    socket.echo("still there");
    drop(socket);
    wait_for("it to be stopped when nobody is there", || world.gateway.container_state("alice") == "exited");
}

#[test]
fn web_sockets_take_places_of_their_workspace_alone() {
    let world = World::start("public = [8080]\nrequests_per_workspace = 3\n", "");
    let _applications = ["alice", "bob"].map(|account| world.application(account, 8080));
    let mut sockets: Vec<WebSocket> = (0..3).map(|_| WebSocket::open(&world, "alice")).collect();
    let (status, body) = world.curl(&[&world.url("8080--alice", "/")]);
    assert_eq!((status, body.contains("as many requests as it may")), (503, true), "{body}");
    let upgrade = "Connection: Upgrade, close\r\nUpgrade: websocket\r\n";
    let refused = world.raw(&format!("GET /websocket HTTP/1.1\r\nHost: 8080--alice.test\r\n{upgrade}\r\n"));
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(world.curl(&[&world.url("8080--bob", "/")]).0, 200);
    for socket in &mut sockets {
        socket.echo("hello");
    }
    sockets.pop();
    wait_for("a place", || world.curl(&[&world.url("8080--alice", "/")]).0 == 200);
}

#[test]
fn who_is_slow_keeps_nobody_waiting_and_is_served_to_the_end() {
    // How long a request takes to arrive is not how long an application takes to answer.
    let (within, slow_for) = (Duration::from_secs(10), Duration::from_secs(14));
    let world = World::start(&format!("public = [8080]\nanswer_within = \"{}s\"", within.as_secs()), "");
    let _application = world.application("alice", 8080);
    let enough = AtomicBool::new(false);
    let pause = || std::thread::sleep(Duration::from_millis(100));
    let connect = |head: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(format!("{head} HTTP/1.1\r\nHost: 8080--alice.test\r\nConnection: close\r\n").as_bytes()).unwrap();
        stream
    };
    // One byte in a while, until it is enough.
    let send = || {
        let mut stream = connect("POST /post");
        stream.write_all(b"Transfer-Encoding: chunked\r\n\r\n").unwrap();
        let mut count = 0;
        while !enough.load(Ordering::Relaxed) {
            if stream.write_all(b"1\r\nx\r\n").is_err() {
                break;
            }
            count += 1;
            pause();
        }
        let _ = stream.write_all(b"0\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        (answer, format!("{count} {}", sha256(&vec![b'x'; count])))
    };
    // More than what lies between holds.
    let big = noise(12 << 20);
    let read = || {
        let mut stream = connect("POST /echo");
        stream.write_all(format!("Content-Length: {}\r\n\r\n", big.len()).as_bytes()).unwrap();
        stream.write_all(&big).unwrap();
        let head = head(&mut stream);
        let mut body = Vec::new();
        while !enough.load(Ordering::Relaxed) {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            body.push(byte[0]);
            pause();
        }
        stream.read_to_end(&mut body).unwrap();
        (head, body)
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4).map(|_| scope.spawn(send)).collect();
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        let (since, mut others) = (Instant::now(), Vec::new());
        while since.elapsed() < slow_for {
            others.push(world.curl(&[&world.url("8080--alice", "/")]).0);
        }
        enough.store(true, Ordering::Relaxed);
        assert!(others.iter().all(|status| *status == 200), "{others:?}");
        for sender in senders {
            let (answer, expected) = sender.join().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&expected), "{answer}");
        }
        for reader in readers {
            let (head, body) = reader.join().unwrap();
            assert!(head.starts_with("HTTP/1.1 200") && body == big, "{head}");
        }
    });
}

#[test]
fn both_sides_go_over_to_another_protocol() {
    let world = World::start("public = [8080]", "");
    let _application = world.application("alice", 8080);
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = "GET /upgrade HTTP/1.1\r\nHost: 8080--alice.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let head = head(&mut stream).to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), word.to_uppercase());
    }
    // Not one that was not asked for, and none where the application says no.
    let refused = world.raw("GET / HTTP/1.1\r\nHost: 8080--alice.test\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 200"), "{refused}");
}

#[test]
fn wrong_requests_and_applications_that_lie_end_at_themselves() {
    let world = World::start("public = [8080, 8081]\nanswer_within = \"3s\"\nrequests_per_workspace = 8", "");
    let _application = world.application("alice", 8080);
    let host = "Host: 8080--alice.test\r\n";
    for (what, request) in [
        ("two hosts", format!("GET / HTTP/1.1\r\n{host}Host: 8080--bob.test\r\n\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("a host of the line and another", format!("GET http://8080--bob.test/ HTTP/1.1\r\n{host}\r\n")),
        ("two lengths", format!("POST /post HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")),
        (
            "a length and chunks",
            format!("POST /post HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ),
        ("a tunnel", format!("CONNECT 127.0.0.1:22 HTTP/1.1\r\n{host}\r\n")),
        ("a long head", format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(200_000))),
        ("garbage", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_owned()),
    ] {
        let answer = world.raw(&request);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
    // One request that hides another is one request.
    let smuggled = format!(
        "POST /post HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"
    );
    let answer = world.raw(&smuggled);
    assert!(answer.matches("HTTP/1.1").count() <= 1, "{answer}");
    for path in ["/babble", "/two-lengths", "/long-head", "/hang-up"] {
        let (status, body) = world.curl(&[&world.url("8080--alice", path)]);
        assert_eq!(status, 502, "{path}: {body}");
    }
    assert_eq!(world.curl(&[&world.url("8080--alice", "/never")]).0, 504);
    assert_eq!(world.curl(&[&world.url("8081--alice", "/")]).0, 502, "nothing listens there");
    let (_, short) = world.curl(&[&world.url("8080--alice", "/short")]);
    assert!(short.contains("no more"));
    // One that answers before it has heard all: whoever sends first and reads then hears it all the same.
    let length = 12 << 20;
    let mut sending = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    sending.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    sending.write_all(format!("POST /refuse HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n").as_bytes()).unwrap();
    sending.write_all(&vec![b'x'; length]).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"too much") {
        let mut piece = [0; 1024];
        let read = sending.read(&mut piece).unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    // As many as it may at once, and no more; the next ones are told so at once.
    let held: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
            stream.write_all(format!("GET /stream HTTP/1.1\r\n{host}\r\n").as_bytes()).unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
            stream
        })
        .collect();
    assert_eq!(world.curl(&[&world.url("8080--alice", "/")]).0, 503);
    drop(held);
    wait_for("room", || world.curl(&[&world.url("8080--alice", "/")]).0 == 200);
    // Its container goes away, and comes back with the next request.
    docker(&["rm", "--force", &world.gateway.container("alice")]);
    wait_for("another container", || matches!(world.curl(&[&world.url("8080--alice", "/")]).0, 502));
    let _again = world.application("alice", 8080);
    assert_eq!(world.curl(&[&world.url("8080--alice", "/")]).0, 200);
}

/// A certificate for the names that are asked for, and its key, put where the configuration says.
fn certificate(dir: &Path) -> rcgen::CertifiedKey<rcgen::KeyPair> {
    let names = ["8080--alice.test", "7070--alice.test"].map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    made
}

#[test]
fn it_is_encrypted_and_a_new_certificate_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let first = certificate(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut world = World::start(&format!("public = [8080]\ntls_cert = \"{}\"\ntls_key = \"{}\"", cert.display(), key.display()), "");
    let ca = world.gateway.dir.path().join("ca.pem");
    std::fs::write(&ca, first.cert.pem()).unwrap();
    (world.scheme, world.ca) = ("https", Some(ca.clone()));
    let _application = world.application("alice", 8080);
    let (sent, back) = (world.gateway.dir.path().join("sent"), world.gateway.dir.path().join("back"));
    let big = noise(5_000_000);
    std::fs::write(&sent, &big).unwrap();
    let (body, back_to) = (format!("@{}", sent.display()), back.to_str().unwrap());
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let seen = world.asked(&[version, &world.url("8080--alice", "/x")]);
        assert_eq!((&seen["path"], &seen["headers"]["x-forwarded-proto"]), (&Value::from("/x"), &Value::from("https")));
        let told = ["--output", back_to, "--write-out", "%{http_version}\n%{http_code}"];
        let echo = world.url("8080--alice", "/echo");
        assert_eq!(world.curl(&[&[version, "--data-binary", &body, &echo][..], &told].concat()), (200, spoken.to_owned()));
        assert!(std::fs::read(&back).unwrap() == big, "{version}: another body came back");
        // Of a stream without an end, events arrive as they come.
        let url = world.url("8080--alice", "/endless");
        let mut endless = Session::start(world.curl_command().args([version, "--no-buffer", "--include", &url]));
        let head = endless.expect("\r\n\r\n").to_lowercase();
        assert!(head.starts_with(&format!("http/{spoken} 200")) && head.contains("content-type: text/event-stream"), "{head}");
        for _ in 0..3 {
            endless.expect("data: more\n\n");
        }
    }
    let link = world.link("alice", 7070, &[]);
    let (status, head) = world.curl(&["-i", &link]);
    assert!(status == 303 && head.contains("__Host-innkeeper=") && head.contains("Secure") && head.contains("HttpOnly"), "{head}");
    // Another one, whose files are there one after the other.
    let second = certificate(dir.path());
    std::fs::write(&ca, second.cert.pem()).unwrap();
    wait_for("the new certificate", || world.curl(&[&world.url("8080--alice", "/")]).0 == 200);
}

#[test]
fn a_path_and_a_port_of_its_own_lead_there_as_well() {
    let fixed = free_port();
    let extra =
        format!("paths = true\npublic = [8080]\n[[urls.fixed]]\nlisten = \"127.0.0.1:{fixed}\"\nworkspace = \"alice\"\nport = 8080");
    let world = World::start(&extra, "");
    let _application = world.application("alice", 8080);
    let base = format!("http://test:{}/@alice/8080", world.port);
    let seen = world.asked(&[&format!("{base}/x?y")]);
    assert_eq!((&seen["path"], &seen["headers"]["x-forwarded-prefix"]), (&Value::from("/x?y"), &Value::from("/@alice/8080")));
    let (status, head) = world.curl(&["-i", &format!("{base}/away")]);
    assert!(status == 302 && head.to_lowercase().contains("location: /@alice/8080/there"), "{head}");
    let (_, head) = world.curl(&["-i", &format!("{base}/cookies")]);
    assert!(head.contains("a=1; Path=/@alice/8080/"), "{head}");
    let own = run(Command::new("curl").args(["--silent", "--noproxy", "*", &format!("http://127.0.0.1:{fixed}/")]));
    assert!(own.good().contains("needs a link"), "a fixed port needs a link as any other, unless it is said to be public");
    // A link by path becomes a cookie of that path.
    let _private = world.gateway.hold("alice", "exec python3 application.py 7070");
    let private = format!("http://test:{}/@alice/7070", world.port);
    assert_eq!(world.curl(&[&format!("{private}/")]).0, 401);
    let link = world.link("alice", 7070, &[]);
    assert!(link.starts_with(&format!("{private}/.innkeeper/open?t=")), "{link}");
    let jar = world.gateway.dir.path().join("jar");
    let jar = jar.to_str().unwrap();
    let (status, head) = world.curl(&["-i", "-c", jar, &link]);
    let head: Vec<&str> = head.lines().collect();
    let cookie = head.iter().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert_eq!((status, head.contains(&"location: /@alice/7070/")), (303, true), "{head:?}");
    assert!(cookie.contains("; Path=/@alice/7070/;") && !cookie.to_lowercase().contains("domain="), "{cookie}");
    let seen = world.asked(&["-b", jar, &format!("{private}/x")]);
    let header = |name: &str| seen["headers"][name].as_str();
    assert_eq!((header("x-innkeeper-access"), header("x-forwarded-prefix"), header("cookie")), (Some("link"), Some("/@alice/7070"), None));
    // Another path of the host gets none of it, and would not take it.
    let elsewhere = format!("http://test:{}/@alice/8080/x", world.port);
    assert_eq!(world.asked(&["-b", jar, &elsewhere])["headers"]["x-innkeeper-access"], "public");
    let pair = cookie.split(';').next().unwrap();
    assert_eq!(world.asked(&["-H", &format!("Cookie: {pair}"), &elsewhere])["headers"]["x-innkeeper-access"], "public");
    let another = format!("http://test:{}/@alice/7071/", world.port);
    assert_eq!(world.curl(&["-H", &format!("Cookie: {pair}"), &another]).0, 401);
}

#[test]
fn a_port_of_its_own_has_no_name_and_needs_no_other_address() {
    let (public, private, local) = (free_port(), free_port(), free_port());
    let fixed = |listen: String, port: u16, public: bool| {
        format!("\n[[urls.fixed]]\nlisten = \"{listen}\"\nworkspace = \"alice\"\nport = {port}\npublic = {public}\n")
    };
    let all = [
        fixed(format!("127.0.0.1:{public}"), 8080, true),
        fixed(format!("0.0.0.0:{private}"), 7070, false),
        fixed(format!("127.0.0.1:{local}"), 6060, false),
    ];
    let mut world = World { gateway: Gateway::start(&all.concat()), port: public, scheme: "http", ca: None };
    let _applications = [world.application("alice", 8080), world.application("alice", 7070)];
    let seen = world.asked(&[&format!("http://127.0.0.1:{public}/x")]);
    assert_eq!((&seen["path"], &seen["headers"]["x-innkeeper-access"]), (&Value::from("/x"), &Value::from("public")));
    assert_eq!(world.asked(&["http://what.ever/"])["headers"]["host"], "what.ever", "by whatever name");
    // What listens everywhere is linked to by a name that leads somewhere.
    assert!(world.link("alice", 6060, &[]).starts_with(&format!("http://127.0.0.1:{local}/.innkeeper/open?t=")));
    let machine = run(Command::new("uname").arg("-n")).good();
    let base = format!("http://{}:{private}", machine.trim());
    let link = world.link("alice", 7070, &[]);
    assert!(link.starts_with(&format!("{base}/.innkeeper/open?t=")), "{link}");
    world.port = private;
    assert_eq!(world.curl(&[&format!("{base}/")]).0, 401);
    let jar = world.gateway.dir.path().join("jar");
    let jar = jar.to_str().unwrap();
    assert_eq!(world.asked(&["-L", "-c", jar, "-b", jar, &link])["headers"]["x-innkeeper-access"], "link");
    let nowhere = run(world.gateway.innkeeper().args(["open", "alice", "5050"]));
    assert!(nowhere.status != Some(0) && nowhere.stderr.contains("no addresses"), "{nowhere:?}");
}

#[test]
fn a_probe_wakes_nothing_and_keeps_nothing_awake() {
    let world = World::start("probe_paths = [\"/healthz\"]\npublic = [8080]\n", "\n[idle]\ntimeout = \"2s\"\nkeep_busy = false\n");
    let probe = |path: &str| world.curl(&[&world.url("8080--alice", path)]).0;
    // It goes on without her, and answers as long as the workspace runs.
    world.application_alone("alice", 8080);
    wait_for("it to answer", || probe("/healthz") == 200);
    let asked = Instant::now();
    wait_for("it to be stopped though it is asked again and again", || {
        let status = probe("/healthz");
        assert!([200, 502, 503].contains(&status), "{status}");
        world.gateway.container_state("alice") == "exited"
    });
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    let (status, body) = world.curl(&[&world.url("8080--alice", "/healthz")]);
    assert_eq!((status, body.contains("sleeps")), (503, true), "{body}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.gateway.container_state("alice"), "exited", "asking woke nothing");
    assert_eq!(world.curl(&[&world.url("8080--nobody", "/healthz")]).0, 401, "and says nothing of who is not there");
    // Anything else does, and so does what is sent there.
    assert_eq!(world.curl(&["-X", "POST", "-d", "x", &world.url("8080--alice", "/healthz")]).0, 502);
    assert_eq!(world.gateway.container_state("alice"), "running");
}

#[test]
fn one_address_has_so_many_connections_and_others_are_served() {
    let world = World::start("public = [8080]\nconnections_per_address = 3\n", "");
    let _application = world.application("alice", 8080);
    wait_for("it to answer", || world.curl(&[&world.url("8080--alice", "/")]).0 == 200);
    // Answered once, each has a place: who came before may have held one for a moment longer, and the next is then hung up on.
    let held: Vec<TcpStream> = (0..3).map(|_| world.answered()).collect();
    let from = |address: &str| world.curl(&["--interface", address, &world.url("8080--alice", "/")]).0;
    assert_eq!((from("127.0.0.1"), from("127.0.0.2")), (0, 200));
    assert!(world.gateway.metric("innkeeper_connections_refused_total{reason=\"urls_per_address\"}").is_some_and(|refused| refused >= 1.0));
    drop(held);
    wait_for("the places to be free", || from("127.0.0.1") == 200);
}

#[test]
fn who_asks_nothing_does_not_keep_a_connection() {
    let world = World::start("", "");
    let mut streams: Vec<TcpStream> = ["", "PRI * HT"]
        .iter()
        .map(|said| {
            let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
            stream.write_all(said.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
}
