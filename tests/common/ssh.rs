//! An SSH server with a fake authenticator and a fake keeper that runs local processes, and the real OpenSSH client to drive it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of what is meant for all")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use innkeeper::auth::{Attempt, AuthError, Authenticator, Grant, KeyProof, OfferedKey, Verdict};
use innkeeper::ssh::{Config, Server, SessionConfig, SshSettings};
use innkeeper::telemetry::Metrics;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

#[path = "ssh_keeper.rs"]
mod keeper;
pub use keeper::FakeKeeper;

pub const ACCOUNT: &str = "alice";
pub const PASSWORD: &str = "correct horse";

/// A running server and everything that belongs to it; all of it ends when it is dropped.
pub struct Gateway {
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
    pub server: Server,
    pub metrics: Metrics,
    pub keeper: Arc<FakeKeeper>,
    pub auth: Arc<FakeAuth>,
    pub shutdown: CancellationToken,
    pub running: tokio::task::JoinHandle<()>,
}

/// One account with one password and some keys, and what may be wrong with asking about it.
#[derive(Default)]
pub struct FakeAuth {
    pub keys: Mutex<HashSet<OfferedKey>>,
    /// What was asked, in order: `password`, `offered`, `verified`.
    pub asked: Mutex<Vec<(&'static str, Attempt)>>,
    pub down: AtomicBool,
    pub change_grant: Mutex<Option<ChangeGrant>>,
    pub takes: Mutex<Duration>,
    /// A key that is offered is good, and no longer when it is signed with.
    pub withdraws: AtomicBool,
}

/// What a test changes about the grant.
pub type ChangeGrant = Box<dyn Fn(&mut Grant) + Send>;

/// Fails a test that hangs.
pub async fn within<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), test).await.expect("the test hangs")
}

/// Waits until something is so, for a quarter of a minute.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never became so: {what}");
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_with_sessions(|config, _| change(config)).await
    }

    pub async fn start_with_sessions(change: impl FnOnce(&mut Config, &mut SessionConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("id");
        make_key(&key, &["-t", "ed25519"]).await;
        let auth = Arc::new(FakeAuth::default());
        auth.trust(&key);
        let keeper = Arc::new(FakeKeeper::default());
        let metrics = Metrics::new().unwrap();
        let (mut config, mut session) = (Config::default(), SessionConfig::default());
        change(&mut config, &mut session);
        let settings = SshSettings { config, session, host_keys: directory.path().join("host_keys") };
        let server = Server::new(settings, auth.clone(), keeper.clone(), metrics.clone(), innkeeper::audit::Audit::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (server, shutdown) = (server.clone(), shutdown.clone());
            async move { server.run(vec![listener], shutdown).await }
        });
        Self { address, directory, server, metrics, keeper, auth, shutdown, running }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Options that make any of OpenSSH's programs use this server and nothing of the machine's own.
    pub fn options(&self) -> Vec<String> {
        let known = self.path("known_hosts");
        [
            "-F".to_owned(),
            "/dev/null".to_owned(),
            format!("-oPort={}", self.address.port()),
            format!("-oUserKnownHostsFile={}", known.display()),
            "-oGlobalKnownHostsFile=/dev/null".to_owned(),
            "-oStrictHostKeyChecking=accept-new".to_owned(),
            "-oIdentitiesOnly=yes".to_owned(),
            "-oIdentityAgent=none".to_owned(),
            "-oLogLevel=ERROR".to_owned(),
        ]
        .into()
    }

    /// `ssh` as the account, with its key, with nobody to ask; options may follow, then the host is to be given by [`Gateway::host`].
    pub fn ssh(&self) -> Command {
        let mut command = self.program("ssh");
        command.arg("-oBatchMode=yes").arg("-i").arg(self.path("id"));
        command
    }

    /// `ssh` that answers the password prompt with `password`, every time.
    pub fn ssh_with_password(&self, password: &str) -> Command {
        let askpass = self.path("askpass");
        std::fs::write(&askpass, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
        std::fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let mut command = self.program("ssh");
        command.arg("-oPreferredAuthentications=password,keyboard-interactive");
        command.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        command
    }

    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.args(self.options());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// `ssh` at a terminal of this size, running what follows.
    pub fn ssh_at_terminal(&self, columns: u16, rows: u16, arguments: &[&str]) -> Terminal {
        self.ssh_at_terminal_as(ACCOUNT, &[], columns, rows, arguments)
    }

    /// The same with another name, and options that go before all others.
    pub fn ssh_at_terminal_as(&self, name: &str, options: &[&str], columns: u16, rows: u16, arguments: &[&str]) -> Terminal {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(pty_process::Size::new(rows, columns)).unwrap();
        let mut command = pty_process::Command::new("ssh")
            .args(options)
            .args(self.options())
            .args(["-oBatchMode=yes", "-tt", "-i"])
            .arg(self.path("id"))
            .env("TERM", "xterm-256color")
            .kill_on_drop(true);
        command = command.arg(format!("{name}@127.0.0.1")).args(arguments);
        Terminal { child: command.spawn(pts).unwrap(), pty, seen: Vec::new() }
    }

    pub fn host(&self) -> String {
        format!("{ACCOUNT}@127.0.0.1")
    }

    /// Runs a command by `ssh` and waits for its end.
    pub async fn run(&self, command: &str) -> Output {
        self.ssh().arg(self.host()).arg(command).output().await.unwrap()
    }

    /// The same with input.
    pub async fn run_with_input(&self, command: &str, input: Vec<u8>) -> Output {
        let mut child = self.ssh().arg(self.host()).arg(command).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let write = async move {
            // A command may end without reading all of it.
            let _ = stdin.write_all(&input).await;
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), write);
        output.unwrap()
    }

    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.metrics.registry.gather();
        let family = families.iter().find(|family| family.name() == format!("innkeeper_{name}"));
        let matches = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(key, value)| metric.get_label().iter().any(|label| label.name() == *key && label.value() == *value))
        };
        let metrics = family.map(|family| family.get_metric().iter().filter(matches).collect::<Vec<_>>()).unwrap_or_default();
        metrics.iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value() + m.get_histogram().get_sample_count() as f64).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A terminal with a program at it.
pub struct Terminal {
    pub child: tokio::process::Child,
    pub pty: pty_process::Pty,
    pub seen: Vec<u8>,
}

impl Terminal {
    /// Reads until `what` was seen; everything up to its end is returned and not looked at again.
    pub async fn see(&mut self, what: &str) -> String {
        loop {
            let found = self.seen.windows(what.len()).position(|window| window == what.as_bytes());
            if let Some(at) = found {
                let rest = self.seen.split_off(at + what.len());
                return text(&std::mem::replace(&mut self.seen, rest));
            }
            assert!(self.read().await, "ended without {what:?}, after {:?}", text(&self.seen));
        }
    }

    /// Reads to the end, and returns what is left to see and the status.
    pub async fn end(&mut self) -> (String, Option<i32>) {
        while self.read().await {}
        (text(&std::mem::take(&mut self.seen)), self.child.wait().await.unwrap().code())
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), self.pty.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing more to see after {:?}", text(&self.seen)));
        // A terminal whose last process has gone reads as an error.
        let length = read.unwrap_or(0);
        self.seen.extend_from_slice(&buffer[..length]);
        length > 0
    }

    pub async fn write(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.unwrap();
    }
}

impl FakeAuth {
    /// Lets the account in with the key in `path` (its public half is beside it).
    pub fn trust(&self, path: &Path) {
        self.keys.lock().insert(public_key(path));
    }

    pub fn count(&self, kind: &str) -> usize {
        self.asked.lock().iter().filter(|(asked, _)| *asked == kind).count()
    }

    async fn verdict(&self, kind: &'static str, attempt: &Attempt, good: bool) -> Result<Verdict, AuthError> {
        self.asked.lock().push((kind, attempt.clone()));
        let takes = *self.takes.lock();
        tokio::time::sleep(takes).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(AuthError::Unreachable("connection refused".into()));
        }
        if !good || attempt.account.as_str() != ACCOUNT {
            return Ok(Verdict::Denied);
        }
        let mut grant = Grant::plain(attempt.account.clone());
        if let Some(change) = &*self.change_grant.lock() {
            change(&mut grant);
        }
        Ok(Verdict::Granted(Box::new(grant)))
    }
}

#[async_trait::async_trait]
impl Authenticator for FakeAuth {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn password(&self, attempt: &Attempt, password: &[u8]) -> Result<Verdict, AuthError> {
        self.verdict("password", attempt, password == PASSWORD.as_bytes()).await
    }

    async fn public_key(&self, attempt: &Attempt, key: &OfferedKey, proof: KeyProof) -> Result<Verdict, AuthError> {
        let kind = match proof {
            KeyProof::Offered => "offered",
            KeyProof::Verified => "verified",
        };
        let good = match self.withdraws.load(Ordering::SeqCst) {
            true => self.keys.lock().remove(key),
            false => self.keys.lock().contains(key),
        };
        self.verdict(kind, attempt, good).await
    }

    async fn ready(&self) -> Result<(), AuthError> {
        Ok(())
    }
}

/// A client that does what OpenSSH's would not.
pub struct Trusting;

impl russh::client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &russh::keys::PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub type Client = russh::client::Handle<Trusting>;

impl Gateway {
    /// Connects such a client.
    pub async fn connect(&self) -> Client {
        russh::client::connect(Arc::default(), self.address, Trusting).await.unwrap()
    }

    /// Connects and logs in.
    pub async fn log_in(&self) -> Client {
        let mut client = self.connect().await;
        assert!(client.authenticate_password(ACCOUNT, PASSWORD).await.unwrap().success());
        client
    }
}

/// Makes a key pair with `ssh-keygen`.
pub async fn make_key(path: &Path, options: &[&str]) {
    let made = Command::new("ssh-keygen").args(["-q", "-N", "", "-C", ""]).args(options).arg("-f").arg(path).status().await.unwrap();
    assert!(made.success());
}

pub fn public_key(path: &Path) -> OfferedKey {
    let text = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    OfferedKey(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
