//! One request over one new connection to the engine's Unix socket.
//!
//! bollard's own Unix transport wants the socket to be there when it is made; this one first looks when it is asked. An exec is started
//! through it too, because there the connection itself is the answer.

use std::path::Path;

use bollard::errors::Error;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// What a connection is made of once it has stopped speaking HTTP.
pub(super) type Io = TokioIo<UnixStream>;

/// Sends a request and returns the answer once its headers are here. The connection ends with the answer's body, or its upgrade.
pub(super) async fn send<B>(socket: &Path, request: Request<B>) -> Result<Response<Incoming>, Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(Io::new(stream)).await?;
    // Ends when the answer has been read or dropped; whoever reads the answer is told what went wrong.
    tokio::spawn(connection.with_upgrades());
    Ok(sender.send_request(origin_form(request)?).await?)
}

/// HTTP/1 wants the path alone in the request line, and some host in a header.
fn origin_form<B>(request: Request<B>) -> Result<Request<B>, Error> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse::<Uri>()?;
    head.headers.insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("docker"));
    Ok(Request::from_parts(head, body))
}
