//! The certificate, read again when its files change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(10);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct TlsError {
    path: PathBuf,
    why: String,
}

/// What connections are encrypted with.
pub(super) struct Tls {
    cert: PathBuf,
    key: PathBuf,
    acceptor: ArcSwap<ServerConfig>,
    /// What the files were like before they were read.
    known: [Option<Stamp>; 2],
}

/// By which a file that was changed or replaced is told: device, inode, length, and both times with their nanoseconds.
type Stamp = (u64, u64, u64, [i64; 4]);

impl Tls {
    pub(super) fn open(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        // Before: what changes while they are read is seen as a change.
        let known = stamp(cert, key);
        let config = read(cert, key)?;
        Ok(Arc::new(Self { cert: cert.to_owned(), key: key.to_owned(), acceptor: ArcSwap::new(config), known }))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.acceptor.load_full())
    }

    /// Takes new files in use, until it is told to stop. Two that do not fit, as in between of a change, change nothing.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut known = self.known;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
            let now = stamp(&self.cert, &self.key);
            if now == known {
                continue;
            }
            known = now;
            let tls = Arc::clone(&self);
            let read = tokio::task::spawn_blocking(move || read(&tls.cert, &tls.key)).await;
            match read {
                Ok(Ok(config)) => {
                    self.acceptor.store(config);
                    info!(path = %self.cert.display(), "certificate read again");
                }
                Ok(Err(why)) => error!(%why, "the new certificate cannot be used, going on with the one before"),
                Err(why) => error!(%why, "the certificate was not read"),
            }
        }
    }
}

fn stamp(cert: &Path, key: &Path) -> [Option<Stamp>; 2] {
    [cert, key].map(|path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()]))
    })
}

fn read(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |why: &dyn std::fmt::Display| TlsError { path, why: why.to_string() }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect);
    let chain = chain.map_err(|why| failed(cert)(&why))?;
    if chain.is_empty() {
        return Err(failed(cert)(&io::Error::other("has no certificate")));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|why| failed(key)(&why))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|why| failed(cert)(&why))?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, secret).map_err(|why| failed(cert)(&why))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
