//! A login service that answers as it is told, byte for byte, over plain TCP or mutual TLS. It ends with the value.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What is done with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes, and the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, and the connection is closed.
    Last(Vec<u8>),
    /// No byte, and the connection is closed.
    Close,
    /// No byte, and the connection stays open.
    Hang,
    /// A body that is sent a byte at a time and never ends.
    Drip,
    /// A body that is sent as fast as it is taken and never ends.
    Endless,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// The running service.
pub(crate) struct Service {
    /// The value for `auth.webhook.url`.
    pub(crate) url: String,
    seen: Arc<Seen>,
    accepting: JoinHandle<()>,
}

/// Certificates in files: an authority `ca`, a `server` and a `client` it signed, and a `stranger` that signed itself.
pub(crate) struct Tls {
    dir: TempDir,
}

struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    /// Bytes an endless body had when its connection broke.
    ended_after: watch::Sender<Option<usize>>,
}

// === impl Reply ===

impl Reply {
    pub(crate) fn json(body: &str) -> Self {
        Self::status(200, body)
    }

    pub(crate) fn status(status: u16, body: &str) -> Self {
        let length = if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let body = if status == 204 { "" } else { body };
        Self::Bytes(format!("HTTP/1.1 {status} X\r\n{length}\r\n{body}").into_bytes())
    }

    pub(crate) fn redirect(status: u16, to: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {status} X\r\nlocation: {to}/password\r\ncontent-length: 0\r\n\r\n").into_bytes())
    }

    /// Promises so long a body.
    pub(crate) fn declared(length: usize) -> Self {
        Self::Bytes(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{{").into_bytes())
    }

    /// Ends a byte before the end that was promised.
    pub(crate) fn cut_short(body: &str) -> Self {
        Self::Last(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len() + 1).into_bytes())
    }

    /// Says nothing of closing, and closes.
    pub(crate) fn last(body: &str) -> Self {
        Self::Last(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }
}

// === impl Request ===

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

// === impl Service ===

impl Service {
    /// Answers the request of each number, counted from zero over all connections, with what `script` says.
    pub(crate) async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(script, None).await
    }

    /// The same over TLS, for clients that show a certificate of the authority.
    pub(crate) async fn start_tls(tls: &Tls, script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(script, Some(tls.acceptor())).await
    }

    async fn listen(script: impl Fn(usize) -> Reply + Send + Sync + 'static, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}/ssh", listener.local_addr().unwrap().port());
        let seen =
            Arc::new(Seen { connections: AtomicUsize::new(0), requests: Mutex::new(Vec::new()), ended_after: watch::Sender::new(None) });
        let accepting = tokio::spawn(accept(listener, tls, seen.clone(), Arc::new(script)));
        Self { url, seen, accepting }
    }

    /// How many connections were accepted (and, with TLS, proven).
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().clone()
    }

    /// Waits until the client has broken off an endless body, and says after how many bytes.
    pub(crate) async fn ended_after(&self) -> usize {
        self.seen.ended_after.subscribe().wait_for(Option::is_some).await.unwrap().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Its connections are tasks of a set that it owns, and end with it.
        self.accepting.abort();
    }
}

type Script = Arc<dyn Fn(usize) -> Reply + Send + Sync>;

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Seen>, script: Script) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, seen, script) = (tls.clone(), seen.clone(), script.clone());
        connections.spawn(async move {
            match tls {
                None => serve(stream, &seen, &script).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, &seen, &script).await;
                    }
                }
            }
        });
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Seen, script: &Script) {
    seen.connections.fetch_add(1, Ordering::SeqCst);
    while let Some(request) = read_request(&mut stream).await {
        let number = {
            let mut requests = seen.requests.lock();
            requests.push(request);
            requests.len() - 1
        };
        match script(number) {
            Reply::Bytes(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
                let _ = stream.flush().await;
            }
            Reply::Last(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Close => return,
            Reply::Hang => std::future::pending().await,
            Reply::Drip => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                while stream.write_all(b"1\r\n \r\n").await.is_ok() && stream.flush().await.is_ok() {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                return;
            }
            Reply::Endless => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                let (chunk, mut sent) = ([b' '; 16 << 10], 0);
                while stream.write_all(&chunk).await.is_ok() {
                    sent += chunk.len();
                }
                seen.ended_after.send_replace(Some(sent));
                return;
            }
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let mut request = Request { head: String::from_utf8(head).unwrap(), body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}

// === impl Tls ===

impl Tls {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: String| std::fs::write(dir.path().join(name), pem).unwrap();
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ca, other) = (authority(), authority());
        write("ca.crt", ca.pem());
        for (name, issuer) in [("server", &ca), ("client", &ca), ("stranger", &other)] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            write(&format!("{name}.crt"), params.signed_by(&key, issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { dir }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn acceptor(&self) -> TlsAcceptor {
        let certificates = |name: &str| CertificateDer::pem_file_iter(self.file(name)).unwrap().map(Result::unwrap).collect::<Vec<_>>();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates("ca.crt"));
        let clients = WebPkiClientVerifier::builder(roots.into()).build().unwrap();
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(certificates("server.crt"), key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
