//! A real S3 server, s3s-fs. It knows one account, and refuses what is not signed with that one's secret.

#![allow(dead_code, reason = "each program of tests uses some of it")]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use innkeeper::bucket;

/// The account that it knows.
pub(crate) const ACCESS_KEY: &str = "access";
pub(crate) const SECRET_KEY: &str = "not-to-be-told";

/// A server of its own, whose buckets end with it.
pub(crate) struct Server {
    process: Option<Child>,
    buckets: tempfile::TempDir,
    address: SocketAddr,
    pub(crate) endpoint: String,
}

impl Server {
    /// One that answers.
    pub(crate) fn start() -> Self {
        let program = program();
        // It cannot be handed a socket, and a port that was free a moment ago may not be: then it ends at once.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let buckets = tempfile::tempdir().unwrap();
            let mut server = Self { process: None, buckets, address, endpoint: format!("http://{address}") };
            if server.answers(&program) {
                return server;
            }
        }
        panic!("the S3 server does not start");
    }

    /// Starts it again where it was, with what it had.
    pub(crate) fn up(&mut self) {
        assert!(self.answers(&program()), "the S3 server does not start again");
    }

    /// Ends it as the kernel would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn answers(&mut self, program: &Path) -> bool {
        let mut command = Command::new(program);
        command.args(["--host", &self.address.ip().to_string(), "--port", &self.address.port().to_string()]);
        command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]).arg(self.buckets.path());
        let process = self.process.insert(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let connected = TcpStream::connect(self.address).is_ok();
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if connected {
                return true;
            }
            assert!(Instant::now() < deadline, "the S3 server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes a bucket: to this server that is a directory.
    pub(crate) fn make_bucket(&self, name: &str) {
        fs::create_dir(self.buckets.path().join(name)).unwrap();
    }

    /// How many objects are in a bucket, below this.
    pub(crate) fn objects(&self, below: &str) -> usize {
        let (mut count, mut todo) = (0, vec![self.buckets.path().join(below)]);
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                    _ => count += 1,
                }
            }
        }
        count
    }

    /// The part of a configuration that leads to it, for backups or recordings.
    pub(crate) fn section(&self, of: &str) -> String {
        let endpoint = &self.endpoint;
        format!("\n[{of}.s3]\nendpoint = \"{endpoint}\"\naccess_key = \"{ACCESS_KEY}\"\nsecret_key = \"{SECRET_KEY}\"\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How to get to the account that the server at this address knows.
pub(crate) fn service(endpoint: &str) -> bucket::Config {
    bucket::Config {
        endpoint: Some(endpoint.to_owned()),
        access_key: Some(ACCESS_KEY.into()),
        secret_key: Some(SECRET_KEY.into()),
        ..bucket::Config::default()
    }
}

/// Where the server's program is, which is built the first time.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/s3-server.sh");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let built = Command::new(script).arg(target).stderr(Stdio::inherit()).output().unwrap();
    assert!(built.status.success(), "the S3 server cannot be built");
    PathBuf::from(String::from_utf8(built.stdout).unwrap().trim_end())
}
