//! A real S3 server, from PyPI.

#![allow(dead_code, reason = "each program of tests uses some of it")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use innkeeper::bucket;

use crate::venv;

/// A server of its own, whose buckets end with it.
pub(crate) struct Server {
    process: Child,
    pub(crate) endpoint: String,
}

impl Server {
    /// One that answers.
    pub(crate) fn start() -> Self {
        Self::start_at(free_address())
    }

    /// One that answers at this address.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/moto.txt");
        let process = Command::new(venv::python("moto", &requirements))
            .args(["-m", "moto.server", "--host", &address.ip().to_string(), "--port", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, endpoint: format!("http://{address}") };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the server did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub(crate) async fn make_bucket(&self, name: &str) {
        let made = reqwest::Client::new().put(format!("{}/{name}", self.endpoint)).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// It cannot be handed a socket: a port that was free a moment ago is, but for bad luck, free still.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// How to get to a service at this address.
pub(crate) fn service(endpoint: &str) -> bucket::Config {
    bucket::Config {
        endpoint: Some(endpoint.to_owned()),
        access_key: Some("access".into()),
        secret_key: Some("secret".into()),
        ..bucket::Config::default()
    }
}
