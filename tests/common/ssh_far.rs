//! What can be connected to in a workspace that is this machine, and where it can be listened: loopback and sockets, nothing else.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use innkeeper::attach::{Address, AttachError, Duplex, Endpoint, Failure, Incoming, Listening};
use innkeeper::workspace::{Ending, OpenError};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};

type Ended = watch::Receiver<Option<Ending>>;

pub async fn connect(to: &Address) -> Result<Box<dyn Duplex>, OpenError> {
    match to {
        Address::Tcp { host, port } => {
            assert!(host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback()), "{host}");
            Ok(Box::new(TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?))
        }
        Address::Unix { path } => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
    }
}

/// Listens until `ending` says that the container died; what has to be made for it is made in `directory`.
pub async fn listen(on: &Endpoint, directory: &Path, ending: Ended) -> Result<Listening, OpenError> {
    match on {
        Endpoint::At { address: Address::Tcp { host, port } } => {
            let host = if host == "localhost" || host.is_empty() { "127.0.0.1" } else { host };
            let listener = TcpListener::bind((host, *port)).await.map_err(failed)?;
            let port = listener.local_addr().unwrap().port();
            Ok(accept_tcp(ending, listener, Address::Tcp { host: host.to_owned(), port }))
        }
        Endpoint::At { address: Address::Unix { path } } => accept_unix(ending, path),
        Endpoint::Agent => accept_unix(ending, directory.join(format!("agent.{}", rand::random::<u32>())).to_str().unwrap()),
        Endpoint::X11 { protocol, cookie } => {
            let file = directory.join(format!("xauth.{}", rand::random::<u32>()));
            std::fs::write(&file, [protocol.as_bytes(), b" ", cookie].concat()).unwrap();
            // Any port, not the first of a few: another test's, just given up, may still be knocked at.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
            let port = listener.local_addr().unwrap().port();
            Ok(accept_tcp(ending, listener, Address::Tcp { host: file.to_str().unwrap().to_owned(), port }))
        }
    }
}

fn accept_tcp(mut ending: Ended, listener: TcpListener, on: Address) -> Listening {
    let (sender, connections) = mpsc::channel(8);
    tokio::spawn(async move {
        while let Some(Ok((stream, from))) = accept(&mut ending, &sender, listener.accept()).await {
            let from = Address::Tcp { host: from.ip().to_string(), port: from.port() };
            let _ = sender.send(Incoming { stream: Box::new(stream), from: Some(from) }).await;
        }
    });
    Listening { on, connections }
}

fn accept_unix(mut ending: Ended, path: &str) -> Result<Listening, OpenError> {
    // A socket that nobody listens on is replaced.
    if std::os::unix::net::UnixStream::connect(path).is_err_and(|why| why.kind() == io::ErrorKind::ConnectionRefused) {
        std::fs::remove_file(path).unwrap();
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    let (sender, connections) = mpsc::channel(8);
    let on = Address::Unix { path: path.to_owned() };
    let path = path.to_owned();
    tokio::spawn(async move {
        while let Some(Ok((stream, _))) = accept(&mut ending, &sender, listener.accept()).await {
            let _ = sender.send(Incoming { stream: Box::new(stream), from: None }).await;
        }
        let _ = std::fs::remove_file(path);
    });
    Ok(Listening { on, connections })
}

/// The next one, for as long as somebody listens and the container is there.
async fn accept<T>(ending: &mut Ended, sender: &mpsc::Sender<Incoming>, accept: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        _ = ending.wait_for(|ending| *ending == Some(Ending::Died)) => None,
        accepted = accept => Some(accepted),
        () = sender.closed() => None,
    }
}

fn failed(why: io::Error) -> OpenError {
    let text = why.to_string();
    let why = match why.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::NotFound => Failure::NotFound,
        io::ErrorKind::PermissionDenied => Failure::Denied,
        io::ErrorKind::AddrInUse => Failure::Taken,
        _ => Failure::Other,
    };
    OpenError::Attach(AttachError::Failed { why, text })
}
