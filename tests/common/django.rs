//! A real Django that answers the gateway's questions: the project of `deploy/examples/django`, served by gunicorn.
//!
//! Its packages are installed once, under `target/`; its database and its process end with the value.

// A module of several test binaries, of which each uses a part.
#![allow(dead_code, unreachable_pub)]

use std::io::Write;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[path = "venv.rs"]
mod venv;

/// A running server with an empty user table.
pub struct Django {
    port: u16,
    server: Child,
    python: PathBuf,
    state: TempDir,
}

impl Django {
    /// Starts one. The port is open when this returns.
    pub fn start() -> Self {
        let python = venv::python("django", &project().join("requirements.txt"));
        let state = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        run(command(&python, state.path()).args(["manage.py", "migrate", "--verbosity", "0"]), "");
        // The server inherits the socket as its standard input: no port is free in between, and who connects early waits in its backlog.
        let server = command(&python, state.path())
            .args(["-m", "gunicorn", "mysite.wsgi", "--bind", "fd://0", "--worker-class", "gthread", "--threads", "4"])
            .args(["--keep-alive", "60", "--graceful-timeout", "1", "--log-level", "warning", "--no-control-socket"])
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        Self { port, server, python, state }
    }

    /// The value for `auth.webhook.url`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/ssh", self.port)
    }

    /// The bearer token it wants to see.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// Adds a user with a password.
    pub fn add_user(&self, name: &str, password: &str) {
        self.manage(&["addsshuser", name, "--password-stdin"], password);
    }

    /// Adds a public key, as in an `authorized_keys` file, to a user, who is made if she does not exist.
    pub fn add_key(&self, user: &str, public_key: &str) {
        self.manage(&["addsshuser", user, "--key", public_key], "");
    }

    /// Runs `manage.py` with these arguments and this standard input. `addsshuser --help` has what can be said of a user.
    pub fn manage(&self, args: &[&str], input: &str) {
        run(command(&self.python, self.state.path()).arg("manage.py").args(args), input);
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        // A politely ended gunicorn ends its workers.
        if let Some(pid) = Pid::from_raw(self.server.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.server.wait();
    }
}

fn command(python: &Path, state: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .current_dir(project())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DJANGO_SECRET_KEY", "only-for-tests")
        .env("INNKEEPER_TOKEN", TOKEN)
        .env("DJANGO_DATABASE", state.join("db.sqlite3"));
    command
}

fn run(command: &mut Command, input: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/django")
}

const TOKEN: &str = "a-token-for-tests";
