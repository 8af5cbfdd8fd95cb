//! The real program, with the real engine, and the real OpenSSH client to talk to it.
//!
//! Everything a gateway makes is removed when it is dropped, whatever became of the test.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on ends, and says why")]
#![allow(unreachable_pub, missing_docs, reason = "shared between test programs")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[path = "terminal.rs"]
mod terminal;

pub use terminal::{Session, Terminal};

/// How long anything in a test may take before the test has failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A running gateway.
pub struct Gateway {
    pub dir: tempfile::TempDir,
    pub instance: String,
    pub ssh_port: u16,
    pub http_port: u16,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
    /// Whether `clean` is called on what is left.
    pub clean: bool,
}

/// What came of a command.
#[derive(Debug)]
pub struct Done {
    pub status: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its output, if it ended well.
    #[track_caller]
    pub fn good(&self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.text()
    }
}

/// The image that users live in.
pub fn image() -> String {
    std::env::var("INNKEEPER_TEST_IMAGE").unwrap_or_else(|_| "innkeeper/user:latest".to_owned())
}

impl Gateway {
    /// Starts one with accounts `alice`, `bob`, … that log in with the key in `dir`, and this text added to its configuration.
    pub fn start(sections: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("innkeeper-test-").tempdir().unwrap();
        let instance = format!("test-{:08x}", rand::random::<u32>());
        let key = dir.path().join("id");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "a test", "-f"]).arg(&key)).good();
        let mut gateway = Self { dir, instance, ssh_port: 0, http_port: 0, child: None, log: Arc::default(), clean: true };
        gateway.configure(sections);
        for account in ["alice", "bob", "carol", "dave"] {
            gateway.add_account(account);
        }
        gateway.up();
        gateway
    }

    /// Writes the configuration. Sections that are not given are those of the tests: everything small and quick.
    pub fn configure(&self, sections: &str) {
        let mut text = format!("instance = \"{}\"\nstate_dir = \"{}\"\n", self.instance, self.dir.path().join("state").display());
        let (top, rest) = sections.split_once("\n[").map_or((sections, String::new()), |(top, rest)| (top, format!("[{rest}")));
        text.push_str(top);
        text.push('\n');
        text.push_str(&rest);
        let defaults = [
            ("[ssh]", "listen = [\"127.0.0.1:0\"]\n"),
            ("[http]", "listen = \"127.0.0.1:0\"\n"),
            ("[log]", "format = \"json\"\n"),
            ("[pool]", "size = 0\n"),
            ("[limits]", "disk_floor = \"0B\"\nreserve = \"0B\"\n"),
            ("[idle]", "sweep_every = \"500ms\"\nstop_grace = \"2s\"\n"),
        ];
        for (section, keys) in defaults {
            match text.find(&format!("{section}\n")) {
                Some(at) => {
                    let keys: String = keys.lines().filter(|key| !has_key(&text[at..], key)).flat_map(|key| [key, "\n"]).collect();
                    text.insert_str(at + section.len() + 1, &keys);
                }
                None => text.push_str(&format!("\n{section}\n{keys}")),
            }
        }
        if !text.contains("[template.default]") {
            text.push_str(&format!("\n[template.default]\nimage = \"{}\"\nmemory = \"512MiB\"\n", image()));
        }
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn home(&self, workspace: &str) -> PathBuf {
        self.state().join("homes").join(workspace)
    }

    pub fn add_account(&self, name: &str) {
        self.add_account_with(name, &[]);
    }

    /// Adds an account that logs in with the key in `dir`.
    pub fn add_account_with(&self, name: &str, options: &[&str]) {
        let key = self.dir.path().join("id.pub");
        run(self.innkeeper().args(["account", "add", "--key"]).arg(key).args(options).args(["--", name])).good();
    }

    /// The program, with this gateway's configuration.
    pub fn innkeeper(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
        command.arg("--config").arg(self.config());
        command
    }

    /// Starts the program and waits until it listens.
    pub fn up(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut child = self.innkeeper().arg("serve").stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, log) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&self.log));
        log.lock().unwrap().clear();
        let reader = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines() {
                let Ok(line) = line else { return };
                let mut log = reader.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.child = Some(child);
        wait_for("the gateway to listen", || {
            if let Ok(Some(status)) = self.child.as_mut().unwrap().try_wait() {
                panic!("the gateway ended: {status}\n{}", self.log());
            }
            let log = self.log();
            let port = |message: &str| {
                let line = log.lines().find(|line| line.contains(message))?;
                let (_, rest) = line.split_once("127.0.0.1:")?;
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            };
            match (port("ssh listening"), port("http listening")) {
                (Some(ssh), Some(http)) => {
                    (self.ssh_port, self.http_port) = (ssh, http);
                    log.contains("found again")
                }
                _ => false,
            }
        });
    }

    /// Ends it as the kernel would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends it as an administrator would, and says how long that took.
    pub fn stop(&mut self) -> Duration {
        let mut child = self.child.take().unwrap();
        let since = Instant::now();
        signal(child.id(), "TERM");
        let deadline = since + DEADLINE;
        loop {
            if child.try_wait().unwrap().is_some() {
                return since.elapsed();
            }
            assert!(Instant::now() < deadline, "did not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn reload(&self) {
        signal(self.pid(), "HUP");
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The OpenSSH client, with everything but the command.
    pub fn ssh(&self, account: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.client_options()).arg("-p").arg(self.ssh_port.to_string()).arg("-l").arg(account).arg("127.0.0.1");
        command
    }

    /// Options that every OpenSSH program takes.
    pub fn client_options(&self) -> Vec<String> {
        let dir = self.dir.path().display();
        let mut options = vec!["-F".to_owned(), "/dev/null".to_owned(), "-i".to_owned(), format!("{dir}/id")];
        let known_hosts = format!("UserKnownHostsFile={dir}/known_hosts");
        let fixed = ["IdentitiesOnly=yes", "StrictHostKeyChecking=accept-new", "LogLevel=ERROR", "BatchMode=yes", "ConnectTimeout=20"];
        for option in fixed.into_iter().chain([known_hosts.as_str()]) {
            options.extend(["-o".to_owned(), option.to_owned()]);
        }
        options
    }

    /// The OpenSSH client that knows no key, and types these passwords in turn; the last one again and again.
    pub fn ssh_by_password(&self, account: &str, passwords: &[&str]) -> Command {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = |what: &str| self.dir.path().join(format!("{what}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let (answers, ask) = (name("answers"), name("askpass"));
        std::fs::write(&answers, passwords.join("\n") + "\n").unwrap();
        let path = answers.display();
        std::fs::write(&ask, format!("#!/bin/sh\nhead -n 1 {path}\n[ $(wc -l <{path}) = 1 ] || sed -i 1d {path}\n")).unwrap();
        std::fs::set_permissions(&ask, std::fs::Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new("ssh");
        command.env("SSH_ASKPASS", ask).env("SSH_ASKPASS_REQUIRE", "force");
        command.args(["-o", "BatchMode=no", "-o", "PubkeyAuthentication=no"]).args(self.client_options());
        command.arg("-p").arg(self.ssh_port.to_string()).arg("-l").arg(account).arg("127.0.0.1");
        command
    }

    /// Starts a command line in the account's workspace and waits until it has said `up`.
    pub fn hold(&self, account: &str, line: &str) -> Session {
        let mut session = Session::start(self.ssh(account).arg(line));
        session.expect("up\n");
        session
    }

    /// A terminal of 24 rows and 80 columns at which the account's login shell, or a command line, runs.
    pub fn terminal(&self, account: &str, line: &str) -> Terminal {
        let mut ssh = self.ssh(account);
        ssh.args(["-tt", "-e", "none"]).env("TERM", "xterm-256color");
        if !line.is_empty() {
            ssh.arg(line);
        }
        Terminal::open(&ssh, 24, 80)
    }

    /// Runs a command line in the account's workspace.
    pub fn exec(&self, account: &str, line: &str) -> Done {
        run(self.ssh(account).arg(line))
    }

    /// Runs a command line with this as its input.
    pub fn exec_with(&self, account: &str, line: &str, input: &[u8]) -> Done {
        run_with(self.ssh(account).arg(line), input)
    }

    /// What `docker inspect` says of a workspace's container.
    pub fn inspect(&self, workspace: &str, format: &str) -> String {
        docker(&["inspect", "-f", format, &self.container(workspace)]).trim().to_owned()
    }

    /// The name of a workspace's container.
    pub fn container(&self, workspace: &str) -> String {
        format!("innkeeper.{}.{workspace}", self.instance)
    }

    /// The state of a workspace's container, as the engine says; empty: there is none.
    pub fn container_state(&self, workspace: &str) -> String {
        let name = self.container(workspace);
        run(Command::new("docker").args(["inspect", "-f", "{{.State.Status}}", &name])).text().trim().to_owned()
    }

    /// Names of all containers of the instance, with their states.
    pub fn containers(&self) -> Vec<(String, String)> {
        let filter = format!("label=innkeeper={}", self.instance);
        let listed =
            run(Command::new("docker").args(["ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.State}}", "--filter", &filter])).good();
        listed.lines().filter_map(|line| line.split_once(' ')).map(|(name, state)| (name.to_owned(), state.to_owned())).collect()
    }

    /// How many containers stand ready in the pool. One that runs is not ready before it was warmed, which the gateway alone knows.
    pub fn pool(&self) -> usize {
        let running = self.containers().iter().filter(|(name, state)| name.contains(".pool.") && state == "running").count();
        if TcpStream::connect(("127.0.0.1", self.http_port)).is_err() {
            return running;
        }
        let (_, text) = self.get("/metrics");
        let ready = text.lines().filter(|line| line.starts_with("innkeeper_pool_ready{"));
        let ready: f64 = ready.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
        running.min(ready as usize)
    }

    /// One page over HTTP: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    /// The value of a metric, by its name and labels as exposed; up to a second old.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits until a metric is as wanted.
    #[track_caller]
    pub fn wait_metric(&self, name: &str, so: impl Fn(f64) -> bool) {
        wait_for(name, || self.metric(name).is_some_and(&so));
    }

    /// What `audit show` prints with these arguments, once it is as wanted: the trail is written beside what is recorded in it.
    #[track_caller]
    pub fn trail(&self, arguments: &[&str], so: impl Fn(&str) -> bool) -> String {
        let mut shown = String::new();
        wait_for("the audit trail", || {
            shown = run(self.innkeeper().args(["audit", "show", "--json"]).args(arguments)).good();
            so(&shown)
        });
        shown
    }

    /// Waits until the sweeper has looked this many times more.
    #[track_caller]
    pub fn wait_sweeps(&self, times: u32) {
        let before = self.metric("innkeeper_sweeps_total").unwrap();
        self.wait_metric("innkeeper_sweeps_total", |now| now >= before + f64::from(times));
    }
}

/// What a terminal was sent, without the line that a person reads while she waits, and which is wiped away again.
pub fn without_waiting(seen: &[u8]) -> &[u8] {
    const CLEAR: &[u8] = b"\r\x1b[K";
    if !seen.starts_with(CLEAR) {
        return seen;
    }
    let last = seen.windows(CLEAR.len()).rposition(|bytes| bytes == CLEAR).unwrap_or_default();
    &seen[last + CLEAR.len()..]
}

/// How an instance's containers stand, and what their first processes have said.
fn words_of(instance: &str) -> Option<String> {
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    };
    let listed = docker(&["ps", "--all", "--filter", &format!("name={instance}"), "--format", "{{.Names}} {{.Status}}"])?;
    let words = listed.lines().filter_map(|line| {
        let name = line.split(' ').next()?;
        Some(format!("--- {line}\n{}", docker(&["logs", "--tail", "20", name])?))
    });
    Some(words.collect())
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the gateway\n{}", self.log());
            eprint!("{}", words_of(&self.instance).unwrap_or_default());
        }
        if self.clean {
            let cleaned = self.innkeeper().arg("clean").output().unwrap();
            if !cleaned.status.success() && !std::thread::panicking() {
                panic!("clean: {}", String::from_utf8_lossy(&cleaned.stderr));
            }
        }
    }
}

/// Whether a section that begins here has the key of this line.
fn has_key(section: &str, line: &str) -> bool {
    let key = line.split(' ').next().unwrap_or_default();
    let body = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    body.into_iter().any(|line| line.split(' ').next() == Some(key))
}

/// Runs `docker` and returns what it printed.
pub fn docker(args: &[&str]) -> String {
    run(Command::new("docker").args(args)).good()
}

/// The section of the default template, with these keys added to it.
pub fn template(keys: &str) -> String {
    format!("\n[template.default]\nimage = \"{}\"\nmemory = \"512MiB\"\n{keys}\n", image())
}

/// The SHA-256 of bytes, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    rand::fill(&mut noise[..]);
    noise
}

/// Runs a command to its end, within [`DEADLINE`].
pub fn run(command: &mut Command) -> Done {
    run_with(command, b"")
}

/// Runs a command with this as its input.
pub fn run_with(command: &mut Command, input: &[u8]) -> Done {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command may end before it has read everything.
    std::thread::spawn(move || stdin.write_all(&input).ok());
    finish(child, DEADLINE)
}

/// Waits for the end of a command that was spawned with pipes; ends it at the deadline.
pub fn finish(mut child: Child, within: Duration) -> Done {
    let id = child.id();
    drop(child.stdin.take());
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match wait.recv_timeout(within) {
        Ok(output) => {
            let Output { status, stdout, stderr } = output.unwrap();
            Done { status: status.code(), signal: status.signal(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
        }
        Err(_) => {
            signal(id, "KILL");
            panic!("a command did not end within {within:?}");
        }
    }
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Waits until something is so.
#[track_caller]
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A directory's mounts: those at or below it.
pub fn mounts_below(dir: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(dir.to_str().unwrap()))).count()
}

/// Whether this process, and so a gateway that it starts, has `CAP_SYS_RESOURCE`.
pub fn has_sys_resource() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    u64::from_str_radix(effective, 16).unwrap() >> 24 & 1 == 1
}
