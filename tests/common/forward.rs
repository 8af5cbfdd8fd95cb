//! Both ends of a forward: what listens inside a container, and a client that brings it here.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends, and says why")]
#![allow(unreachable_pub, missing_docs, reason = "shared between test programs")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::gateway::{DEADLINE, Done, Gateway, Session, run, wait_for};

/// Listens on hosts and paths, prints a port for each host and then `up`, says to whoever connects where she is, and repeats what she says.
const ECHO: &str = r#"
import os, socket, sys, threading
def echo(peer, name):
    peer.sendall(name.encode() + b" ")
    while said := peer.recv(65536): peer.sendall(said)
    peer.close()
def serve(listener, name):
    while True: threading.Thread(target=echo, args=(listener.accept()[0], name), daemon=True).start()
for name in sys.argv[1:]:
    if name.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(name)
        listener.listen()
    else:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        listener = socket.create_server((name, 0), family=family)
        print(listener.getsockname()[1])
    threading.Thread(target=serve, args=(listener, name), daemon=True).start()
print("up", flush=True)
sys.stdin.read()
"#;

/// The flags in `/proc/net/unix` of a socket that somebody listens on.
const LISTENS: &str = "00010000";

/// Something that repeats what it hears, in alice's container, at these hosts and paths; the ports of the hosts. It ends with the session.
pub fn echo_inside(gateway: &Gateway, places: &[&str]) -> (Session, Vec<u16>) {
    echo_of(gateway, "alice", places)
}

/// The same in somebody else's.
pub fn echo_of(gateway: &Gateway, account: &str, places: &[&str]) -> (Session, Vec<u16>) {
    let mut session = Session::start(gateway.ssh(account).arg(format!("exec python3 -c '{ECHO}' {}", places.join(" "))));
    let ports = session.expect("up\n").lines().filter_map(|line| line.parse().ok()).collect();
    (session, ports)
}

/// What somebody inside hears who connects to this address, as Python writes it, and says hello.
pub fn reach_from_inside(gateway: &Gateway, address: &str) -> Done {
    let family = match address.as_bytes() {
        [b'"', ..] => "AF_UNIX",
        _ if address.contains(':') => "AF_INET6",
        _ => "AF_INET",
    };
    let program = format!(
        "import socket, sys; s = socket.socket(socket.{family}); s.connect({address}); s.sendall(b\"hello\"); \
         sys.stdout.write(s.makefile().read())"
    );
    gateway.exec("alice", &format!("python3 -c '{program}'"))
}

/// The arguments for a socket here, in the gateway's directory, that leads there.
pub fn local(gateway: &Gateway, near: &str, far: &str) -> [String; 2] {
    ["-L".to_owned(), format!("{}:{far}", gateway.dir.path().join(near).display())]
}

/// Connects to a socket in the gateway's directory.
pub fn connect(gateway: &Gateway, near: &str) -> UnixStream {
    let stream = UnixStream::connect(gateway.dir.path().join(near)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Says this and returns everything that comes back.
pub fn ask(mut stream: UnixStream, words: &str) -> String {
    // The other end may be gone before it has heard anything.
    let _ = stream.write_all(words.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut back = String::new();
    match stream.read_to_string(&mut back) {
        Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => {}
        done => drop(done.unwrap()),
    }
    back
}

/// A port that was free a moment ago, for programs that cannot choose one.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A client that listens here. It ends with the value.
pub struct Listening(Child);

/// A connection that several clients share. It ends with the value.
pub struct Shared<'a> {
    gateway: &'a Gateway,
    account: String,
    path: PathBuf,
    master: Child,
}

// === impl Listening ===

impl Listening {
    /// Starts a client and waits until it listens at these sockets.
    #[track_caller]
    pub fn start(gateway: &Gateway, ssh: &mut Command, near: &[&str]) -> Self {
        let client = Self(ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // Who only tried to connect would already have opened a forward.
        let paths: Vec<String> = near.iter().map(|near| gateway.dir.path().join(near).display().to_string()).collect();
        wait_for("the client to listen", || {
            let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
            let listens =
                |path: &String| sockets.lines().any(|line| line.split_whitespace().nth(3) == Some(LISTENS) && line.ends_with(path));
            paths.iter().all(listens)
        });
        client
    }

    pub fn is_there(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

// === impl Shared ===

impl<'a> Shared<'a> {
    /// Connects, with these options.
    pub fn start(gateway: &'a Gateway, account: &str, options: &[&str]) -> Self {
        let path = gateway.dir.path().join(format!("control-{:x}", rand::random::<u32>()));
        let mut ssh = gateway.ssh(account);
        ssh.args(["-M", "-N", "-S"]).arg(&path).args(options);
        let master = ssh.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("the shared connection", || path.exists());
        Self { gateway, account: account.to_owned(), path, master }
    }

    /// The client, by this connection, with everything but the command.
    pub fn ssh(&self) -> Command {
        let mut ssh = self.gateway.ssh(&self.account);
        ssh.arg("-S").arg(&self.path);
        ssh
    }

    /// Asks for a forward from the container to here; the port that was chosen, or what was complained of.
    pub fn remote(&mut self, wanted: &str) -> Result<u16, String> {
        let done = run(self.ssh().args(["-O", "forward", "-R", wanted]));
        if done.status == Some(0) { Ok(done.text().trim().parse().unwrap_or(0)) } else { Err(done.stderr) }
    }

    /// Calls a forward off, in the words in which it was asked for.
    pub fn cancel(&mut self, wanted: &str) -> Done {
        run(self.ssh().args(["-O", "cancel", "-R", wanted]))
    }

    pub fn master(&self) -> u32 {
        self.master.id()
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        self.master.kill().ok();
        self.master.wait().ok();
    }
}
