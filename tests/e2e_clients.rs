//! What editors and their like do with a connection: a server that is left behind and found again, many short sessions, an agent, a display.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]

#[path = "common/fault.rs"]
mod fault;
#[path = "common/forward.rs"]
mod forward;
#[path = "common/gateway.rs"]
mod gateway;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fault::holdings;
use forward::{Shared, free_port, local};
use gateway::{Gateway, Session, Terminal, run, signal, wait_for};

/// What an editor sends to `bash` on the other side, with a server of a few lines in place of its own. It is found again if it runs, else started
/// as it is there: in the background, with output of its own, and nothing that would detach it.
const EDITOR: &str = r#"
echo "5d3f: running"
FOLDER="$HOME/.editor-server"
mkdir -p "$FOLDER" && cd "$FOLDER" && exec 9>lock && flock 9
cat >server.py <<'END'
import http.server, os, socket, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"pid %d" % os.getpid())
    def address_string(self):
        return "somebody"
if sys.argv[1] == "port":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print("Extension host agent listening on", server.server_port, flush=True)
else:
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): pass
    server = Server(sys.argv[1], Handler)
    print("Extension host agent listening on", sys.argv[1], flush=True)
server.serve_forever()
END
if [ -f pid ] && kill -0 "$(cat pid)" 2>/dev/null; then
    echo "Found running server..."
else
    echo "Starting server..."
    rm -f socket log
    python3 server.py WHERE &>log </dev/null 9>&- &
    echo $! >pid
    while ! grep -q 'listening on' log 2>/dev/null; do sleep 0.1; done
fi
flock -u 9
echo "5d3f: start"
echo "SSH_AUTH_SOCK==$SSH_AUTH_SOCK=="
echo "listeningOn==$(sed -n 's/.*listening on //p' log)=="
echo "osReleaseId==$(. /etc/os-release; echo $ID)=="
echo "arch==$(uname -m)=="
echo "5d3f: end"
"#;

/// What an editor has found on the other side.
struct Found {
    client: Session,
    started: bool,
    at: String,
}

/// Does as an editor does: a shell without a terminal and a script on its input, which stays open.
fn editor(gateway: &Gateway, options: &[String], shell: &str, wherever: &str) -> Found {
    let mut client = Session::start(gateway.ssh("alice").arg("-T").args(options).arg(shell));
    client.send(EDITOR.replace("WHERE", wherever));
    let said = client.expect("5d3f: end\n");
    assert!(said.starts_with("5d3f: running\n"), "not one byte goes before: {said:?}");
    let (_, at) = said.split_once("listeningOn==").unwrap();
    Found { started: said.contains("Starting server"), at: at.split_once("==").unwrap().0.to_owned(), client }
}

/// What the server says, reached by these options of curl.
fn page(options: &[String], port: &str) -> String {
    run(Command::new("curl").args(["-sS", "--noproxy", ""]).args(options).arg(format!("http://127.0.0.1:{port}/"))).good()
}

/// How long an editor is away: `INNKEEPER_OFFLINE` in seconds.
fn offline() -> Duration {
    Duration::from_secs(std::env::var("INNKEEPER_OFFLINE").map_or(3, |seconds| seconds.parse().unwrap()))
}

#[test]
fn an_editor_leaves_its_server_behind_and_finds_it_again() {
    let gateway = Gateway::start("[ssh]\nkeepalive_interval = \"1s\"\nkeepalive_max = 2\n");
    gateway.exec("alice", "echo 'echo hello from bashrc >/dev/null' >.bashrc").good();
    let dynamic = || {
        let port = free_port().to_string();
        (
            vec!["-o".to_owned(), "ConnectTimeout=15".to_owned(), "-D".to_owned(), port.clone()],
            vec!["--socks5".to_owned(), format!("127.0.0.1:{port}")],
        )
    };
    let (options, proxy) = dynamic();
    let first = editor(&gateway, &options, "bash", "port");
    assert!(first.started);
    let served = page(&proxy, &first.at);
    assert!(served.starts_with("pid "), "{served}");

    // A second window.
    let (options, proxy) = dynamic();
    let second = editor(&gateway, &options, "bash", "port");
    assert_eq!((second.started, &second.at), (false, &first.at));
    assert_eq!(page(&proxy, &second.at), served);

    // Both are lost: one vanishes, one says nothing any more. The server is not, and whoever comes back finds it.
    signal(first.client.pid(), "KILL");
    signal(second.client.pid(), "STOP");
    gateway.wait_metric("innkeeper_sessions_open", |open| open == 0.0);
    gateway.wait_metric("innkeeper_connections_open{stage=\"open\"}", |open| open == 0.0);
    std::thread::sleep(offline());
    // The one that slept finds out when it wakes, and its editor connects anew.
    signal(second.client.pid(), "CONT");
    assert_eq!(second.client.end().status, Some(255));
    let (options, proxy) = dynamic();
    let mut third = editor(&gateway, &options, "bash", "port");
    assert_eq!((third.started, &third.at), (false, &first.at));
    assert_eq!(page(&proxy, &third.at), served);
    // A window that is closed as one closes them does not take it along either.
    third.client.close();
    assert_eq!(third.client.end().status, Some(0));
    let (options, _) = dynamic();
    assert!(!editor(&gateway, &options, "sh -c 'exec bash'", "port").started);
}

#[test]
fn an_editors_server_may_listen_on_a_socket() {
    let gateway = Gateway::start("");
    let path = "/home/user/.editor-server/socket";
    let near = gateway.dir.path().join("near");
    let found = editor(&gateway, &local(&gateway, "near", path), "bash", path);
    assert_eq!((found.started, found.at.as_str()), (true, path));
    let by_socket = [vec!["--unix-socket".to_owned()], vec![near.display().to_string()]].concat();
    let served = page(&by_socket, "0");
    drop(found);
    std::fs::remove_file(&near).unwrap();
    gateway.wait_metric("innkeeper_sessions_open", |open| open == 0.0);
    let again = editor(&gateway, &local(&gateway, "near", path), "bash", path);
    assert!(!again.started);
    assert_eq!(page(&by_socket, "0"), served);
}

/// As often as an editor of JetBrains' asks: by the clock, whether those before have ended or not. On a machine that is slower than that, as
/// often as so many at once allow.
const SHORT: u32 = 500;
const EVERY: Duration = Duration::from_millis(120);
const AT_ONCE: usize = 50;

#[test]
fn five_hundred_short_sessions_in_a_minute_all_work_and_leave_nothing_open() {
    let gateway = Gateway::start("");
    gateway.exec("alice", "true").good();
    let shared = Shared::start(&gateway, "alice", &[]);
    run(shared.ssh().arg("true")).good();
    let settled = || {
        gateway.wait_metric("innkeeper_sessions_open", |open| open == 0.0);
        gateway.wait_metric("innkeeper_connections_open{stage=\"open\"}", |open| open == 1.0);
        holdings(gateway.pid()).descriptors
    };
    let before = settled();
    // Four of five on one connection, as editors have them; every fifth with a connection of its own.
    let (done, ended) = std::sync::mpsc::channel();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..SHORT {
            if number as usize >= AT_ONCE {
                ended.recv().unwrap();
            }
            std::thread::sleep((EVERY * number).saturating_sub(begun.elapsed()));
            let (gateway, shared, done) = (&gateway, &shared, done.clone());
            scope.spawn(move || {
                // Whatever becomes of it, the next may begin.
                let _done = Told(done);
                let mut ssh = if number % 5 == 4 { gateway.ssh("alice") } else { shared.ssh() };
                let done = run(ssh.args(["-o", "ControlMaster=no"]).arg(format!("uname -s; exit {}", number % 3)));
                let status = i32::try_from(number % 3).ok();
                assert_eq!((done.status, done.text().as_str(), done.stderr.as_str()), (status, "Linux\n", ""));
            });
        }
    });
    eprintln!("{SHORT} sessions in {:?}", begun.elapsed());
    let mut after = settled();
    wait_for("descriptors to be given back", || {
        after = settled();
        after <= before + 3
    });
    gateway.wait_metric("innkeeper_sessions_total{kind=\"exec\"}", |count| count == f64::from(SHORT) + 2.0);
    let left = "ps -e -o comm= | grep -cvxE 'innkeeper-init|bash|ps|grep'";
    assert_eq!(gateway.exec("alice", left).text(), "0\n", "no process is left inside");
}

/// Says that something is over when it is dropped.
struct Told(std::sync::mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send(()).ok();
    }
}

/// A key agent with one key. It ends with the value.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_key_agent_is_there_for_every_session_of_a_connection() {
    let gateway = Gateway::start("");
    let socket = gateway.dir.path().join("agent");
    let _agent = Agent(Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap());
    wait_for("the agent", || UnixStream::connect(&socket).is_ok());
    run(Command::new("ssh-add").arg("-q").arg(gateway.dir.path().join("id")).env("SSH_AUTH_SOCK", &socket)).good();
    let key = run(Command::new("ssh-keygen").arg("-lf").arg(gateway.dir.path().join("id.pub"))).good();
    let fingerprint = key.split(' ').nth(1).unwrap();

    let control = gateway.dir.path().join("control");
    let mut master = gateway.ssh("alice");
    master.env("SSH_AUTH_SOCK", &socket).args(["-A", "-M", "-N", "-S"]).arg(&control);
    let _master = Session::start(&mut master);
    wait_for("the shared connection", || control.exists());
    let shared = |line: &str| {
        let mut ssh = gateway.ssh("alice");
        ssh.env("SSH_AUTH_SOCK", &socket).args(["-A", "-S"]).arg(&control).arg(line);
        ssh
    };
    let line = "ssh-add -l && echo up; read word; ssh-add -l && echo $word $SSH_AUTH_SOCK";
    let (mut first, mut second) = (Session::start(&mut shared(line)), Session::start(&mut shared(line)));
    for session in [&mut first, &mut second] {
        let listed = session.expect("up\n");
        assert!(listed.contains(fingerprint), "{listed}");
    }
    first.send("one\n");
    let done = first.end();
    assert!(done.good().contains(fingerprint), "{done:?}");
    second.send("two\n");
    let said = second.end().good();
    assert!(said.matches(fingerprint).count() == 2, "still there after the first has ended: {said}");
    let path = said.lines().last().unwrap().split(' ').nth(1).unwrap().to_owned();
    assert!(run(&mut shared("ssh-add -l")).good().contains(fingerprint));
    // It signs: git and ssh inside go on with it.
    let signed = "echo x >x && ssh-add -L >key.pub && ssh-keygen -q -Y sign -f key.pub -n file x && ssh-keygen -Y check-novalidate -n file -s x.sig <x";
    let signed = run(&mut shared(signed)).good();
    assert!(signed.contains("Good"), "{signed}");

    // Who does not ask has none, and with the connection it is gone.
    assert_eq!(gateway.exec("alice", "echo \"[$SSH_AUTH_SOCK]\"").good(), "[]\n");
    gateway.exec("alice", &format!("SSH_AUTH_SOCK={path} ssh-add -l")).good();
    drop(_master);
    wait_for("the socket to be taken away", || gateway.exec("alice", &format!("test -e {path}")).status == Some(1));
}

/// Connects to the display as a program does: with the cookie of the authority file, or with another one.
const PROGRAM: &str = r#"
import os, socket, struct, sys
data, fields = open(os.environ["XAUTHORITY"], "rb").read()[2:], []
while data:
    length, = struct.unpack(">H", data[:2])
    fields.append(data[2:2 + length])
    data = data[2 + length:]
address, number, name, cookie = fields
host, display = os.environ["DISPLAY"].split(":")
assert display.split(".")[0].encode() == number and name == b"MIT-MAGIC-COOKIE-1" and len(cookie) == 16, fields
if sys.argv[1] == "wrong": cookie = bytes(16)
pad = lambda text: text + bytes(-len(text) % 4)
display = socket.create_connection((host, 6000 + int(number)))
display.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) + pad(name) + pad(cookie))
print(display.makefile("rb").read().decode())
"#;

#[test]
fn a_window_inside_opens_on_the_display_here() {
    let gateway = Gateway::start("");
    // A display is a port from 6000 on; those that X servers take themselves are left to them.
    let (number, display) = (50..200).find_map(|number| Some((number, TcpListener::bind(("127.0.0.1", 6000 + number)).ok()?))).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut program, _)) = display.accept() {
            let mut setup = [0; 48];
            program.read_exact(&mut setup).unwrap();
            assert_eq!((setup[0], &setup[12..30]), (b'l', &b"MIT-MAGIC-COOKIE-1"[..]));
            program.write_all(b"a screen").unwrap();
        }
    });
    let program = |which: &str| {
        let mut ssh = gateway.ssh("alice");
        ssh.env("DISPLAY", format!("127.0.0.1:{number}")).env_remove("XAUTHORITY");
        run(ssh.args(["-Y", "-o", "XAuthLocation=/nonexistent"]).arg(format!("python3 -c '{PROGRAM}' {which}")))
    };
    let done = program("right");
    assert_eq!(done.good(), "a screen\n", "{done:?}");
    assert_eq!(program("right").good(), "a screen\n", "the number is free again, or another is taken");
    let wrong = program("wrong");
    assert!(!wrong.text().contains("a screen"), "the client keeps out who does not know its cookie: {wrong:?}");
    assert_eq!(gateway.exec("alice", "echo \"[$DISPLAY][$XAUTHORITY]\"").good(), "[][]\n");
}

/// A display without a screen, as an X server keeps it. It ends with the value.
struct Display {
    server: Child,
    name: String,
    authority: std::path::PathBuf,
}

impl Display {
    fn start(gateway: &Gateway) -> Self {
        let authority = gateway.dir.path().join("Xauthority");
        let cookie = |name: &str| {
            let mut xauth = Command::new("xauth");
            run(xauth.arg("-f").arg(&authority).args(["add", name, ".", "00112233445566778899aabbccddeeff"]))
        };
        // The file must be there first, and the server takes any entry for its own.
        cookie(":0");
        let mut server = Command::new("Xvfb");
        server.args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-auth"]).arg(&authority);
        let mut server = server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut number = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut number).unwrap();
        let name = format!(":{}", number.trim());
        cookie(&name).good();
        Self { server, name, authority }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

#[test]
fn a_program_inside_asks_a_real_display() {
    let gateway = Gateway::start("");
    let display = Display::start(&gateway);
    // The image has no program of X11: it is lent one of here, with all that it needs.
    let program = "/usr/bin/xdpyinfo";
    let beside = gateway.dir.path().join("x11");
    std::fs::create_dir(&beside).unwrap();
    let needs = run(Command::new("ldd").arg(program)).good();
    let files: Vec<&str> = needs.split_whitespace().filter(|word| word.starts_with('/')).chain([program]).collect();
    let names: Vec<&str> = files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
    for (file, name) in files.iter().zip(&names) {
        std::fs::copy(file, beside.join(name)).unwrap();
    }
    let loader = names.iter().find(|name| name.starts_with("ld-")).unwrap();
    let line = format!("x11/{loader} --library-path x11 x11/xdpyinfo");
    let packed = Command::new("tar").arg("-C").arg(&beside).args(["-cf", "-", "."]).output().unwrap().stdout;
    gateway.exec_with("alice", "mkdir x11 && tar -C x11 -xf -", &packed).good();
    let mut ssh = gateway.ssh("alice");
    ssh.env("DISPLAY", &display.name).env("XAUTHORITY", &display.authority).arg("-Y");
    let said = run(ssh.arg(&line)).good();
    assert!(said.contains("name of display:    localhost:1") && said.contains("800x600 pixels"), "{said}");
    // Who does not know the cookie that the session was given is kept out by the client.
    let mut ssh = gateway.ssh("alice");
    ssh.env("DISPLAY", &display.name).env("XAUTHORITY", &display.authority).arg("-Y");
    let refused = run(ssh.arg(format!("XAUTHORITY=/dev/null {line}")));
    assert!(refused.status == Some(1) && refused.stderr.contains("unable to open display"), "{refused:?}");
}

#[test]
fn who_brings_mosh_is_told_what_works_instead() {
    let gateway = Gateway::start("");
    // The client itself, in each of its ways to find out where the server is.
    for way in ["proxy", "local", "remote"] {
        let mut mosh = Command::new("mosh");
        mosh.arg(format!("--ssh=ssh {} -p {}", gateway.client_options().join(" "), gateway.ssh_port));
        mosh.arg(format!("--experimental-remote-ip={way}")).arg("alice@127.0.0.1").env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color");
        let mut terminal = Terminal::open(&mosh, 24, 80);
        terminal.expect("mosh cannot work here: it needs to reach your container by UDP");
        let (status, seen) = terminal.end();
        let seen = String::from_utf8_lossy(&seen);
        assert!(status != Some(0) && !seen.contains("command not found"), "{way}: {seen}");
    }
}

#[test]
fn the_image_has_what_clients_look_for() {
    let gateway = Gateway::start("");
    // Editors download and unpack their servers, look at processes and take locks; Ansible wants Python.
    let programs = "bash sh tar gzip xz curl python3 git rsync scp ssh ssh-add ps pgrep flock sed awk grep find env uname getconf mktemp nohup setsid \
                    sha256sum base64 readlink stat tput less id getent";
    let missing = gateway.exec("alice", &format!("for program in {programs}; do command -v $program >/dev/null || echo $program; done"));
    assert_eq!(missing.good(), "");
    gateway.exec("alice", "test -x /usr/lib/openssh/sftp-server && python3 -c 'import json, ssl, zipfile, venv' && test -s /etc/ssl/certs/ca-certificates.crt").good();
    let libc = gateway.exec("alice", "getconf GNU_LIBC_VERSION").good();
    let version: Vec<u32> = libc.trim().trim_start_matches("glibc ").split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version >= vec![2, 28], "{libc}: the oldest that editors' servers still run on");
    gateway.exec("alice", "ls /usr/lib/*/libstdc++.so.6").good();
}
