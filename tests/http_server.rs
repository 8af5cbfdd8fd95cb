//! Health and metrics over real sockets, for clients that behave and for those that do not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use innkeeper::http::{self, Pages};
use innkeeper::telemetry::{Metrics, Outcome, Probe};
use reqwest::{Method, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(pages: Pages) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(http::serve(listener, pages, None, None, shutdown.clone()));
        Self { address, shutdown, task }
    }

    async fn plain() -> Self {
        Self::start(Pages::new(Metrics::new().unwrap(), Vec::new())).await
    }

    async fn ask(&self, method: Method, path: &str) -> Response {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        client.request(method, format!("http://{}{path}", self.address)).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.ask(Method::GET, path).await;
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

fn counting(outcome: Outcome) -> (Probe, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let probe = Probe::new("engine", move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(outcome.clone())
    });
    (probe, asked)
}

#[tokio::test]
async fn alive_is_said_with_headers_that_keep_browsers_out() {
    let server = Server::plain().await;
    let answer = server.ask(Method::GET, "/healthz").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(answer.text().await.unwrap(), "ok\n");

    let head = server.ask(Method::HEAD, "/metrics").await;
    assert_eq!(head.status(), 200);
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(head.text().await.unwrap(), "");
}

#[tokio::test]
async fn what_is_not_there_and_what_may_not_be_done_is_said() {
    let server = Server::plain().await;
    let (status, text) = server.get("/../etc/passwd").await;
    assert_eq!((status, text.as_str()), (404, "there are /healthz, /readyz, /metrics, /api/v1 and /dashboard/\n"));
    let answer = server.ask(Method::POST, "/healthz").await;
    assert_eq!(answer.status(), 405);
    assert_eq!(answer.headers()["allow"], "GET,HEAD");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn ready_names_what_is_missing_and_not_why() {
    let (engine, _) = counting(Outcome::Failed("no such file /var/run/docker.sock".to_owned()));
    let auth = Probe::new("auth webhook", || std::future::ready(Outcome::Fine(String::new())));
    let server = Server::start(Pages::new(Metrics::new().unwrap(), vec![engine, auth])).await;
    let (status, text) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(text, r#"{"ready":false,"checks":{"auth webhook":"ok","engine":"failed"}}"#);
}

#[tokio::test]
async fn asking_often_asks_the_engine_once() {
    let (engine, asked) = counting(Outcome::Fine(String::new()));
    let server = Server::start(Pages::new(Metrics::new().unwrap(), vec![engine])).await;
    let all = futures_util::future::join_all((0..40).map(|_| server.get("/readyz"))).await;
    assert!(all.iter().all(|(status, text)| *status == 200 && text == r#"{"ready":true,"checks":{"engine":"ok"}}"#));
    // Forty requests may take longer than an answer is good for, on a loaded machine; not forty times as long.
    assert!(asked.load(Ordering::Relaxed) <= 4, "{asked:?}");
}

#[tokio::test]
async fn a_check_that_hangs_is_a_check_that_failed() {
    let (engine, _) = counting(Outcome::Fine(String::new()));
    let auth = Probe::new("auth", std::future::pending);
    let server = Server::start(Pages::new(Metrics::new().unwrap(), vec![engine, auth])).await;
    let (status, text) = timeout(Duration::from_secs(10), server.get("/readyz")).await.unwrap();
    assert_eq!((status, text.as_str()), (503, r#"{"ready":false,"checks":{"auth":"failed","engine":"ok"}}"#));
}

#[tokio::test]
async fn metrics_are_refreshed_before_they_are_shown() {
    let metrics = Metrics::new().unwrap();
    let counter = metrics.sweeps.clone();
    let pages = Pages::new(metrics, Vec::new()).refreshing(move || {
        let counter = counter.clone();
        Box::pin(async move { counter.inc() })
    });
    let server = Server::start(pages).await;
    let answer = server.ask(Method::GET, "/metrics").await;
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4");
    let text = answer.text().await.unwrap();
    assert!(text.contains("\ninnkeeper_sweeps_total 1\n"), "{text}");
    assert!(text.contains("\nprocess_open_fds "), "{text}");
}

/// More connections than there are places, each with half a request: they are ended, and who asks properly is answered.
#[tokio::test]
async fn slow_requests_keep_nobody_out() {
    let server = Server::plain().await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        slow.push(stream);
    }
    let begun = Instant::now();
    let (status, _) = timeout(Duration::from_secs(30), server.get("/healthz")).await.expect("an answer while others are slow");
    assert_eq!(status, 200);
    assert!(begun.elapsed() >= Duration::from_secs(1), "there was a place left: the test does not fill them");
    for mut stream in slow {
        // A status line or nothing, and then the end.
        let mut rest = Vec::new();
        let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.expect("slow connections are ended");
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_body_is_not_read_and_a_long_head_is_refused() {
    let server = Server::plain().await;
    let mut stream = server.connect().await;
    stream.write_all(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n").await.unwrap();
    // Writing fails once the server has closed; what it took until then is what the sockets' buffers hold.
    let block = vec![0; 1 << 16];
    let mut taken = 0;
    while timeout(Duration::from_secs(10), stream.write_all(&block)).await.expect("the connection is closed").is_ok() {
        taken += block.len();
        assert!(taken < 64 << 20, "the body is read");
    }

    let mut stream = server.connect().await;
    stream.write_all(format!("GET /healthz HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(30_000)).as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 431");
    assert_eq!(server.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_connections() {
    let server = Server::plain().await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");
    server.shutdown.cancel();
    timeout(Duration::from_millis(1900), server.task).await.expect("ends at once, not after the two seconds of a drain").unwrap();
}
