//! A client's stream whose bytes are acknowledged at once for as long as it logs in.
//!
//! OpenSSH's client leaves Nagle's algorithm on until it has logged in, and says two things in a row in the exchange of keys: the second waits
//! until the first is acknowledged (RFC 896). The kernel would do that with the next thing that we say, of which there is none before we have the
//! second, or after 40 ms, which is what every other login took longer. Once it is logged in the client waits for no acknowledgement.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::net::sockopt::set_tcp_quickack;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The stream; it asks whether the client logs in still.
pub(super) struct Prompt<F> {
    stream: TcpStream,
    logs_in: Option<F>,
}

impl<F: Fn() -> bool> Prompt<F> {
    /// A stream, and whether its client logs in still: a thing that ends once.
    pub(super) fn new(stream: TcpStream, logs_in: F) -> Self {
        Self { stream, logs_in: Some(logs_in) }
    }
}

impl<F: Fn() -> bool + Unpin> AsyncRead for Prompt<F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(logs_in) = &self.logs_in
            && buf.filled().len() > before
        {
            if logs_in() {
                // It holds until we say something, so that it is set each time. Where it fails the login takes longer.
                let _ = set_tcp_quickack(&self.stream, true);
            } else {
                self.logs_in = None;
            }
        }
        polled
    }
}

impl<F: Unpin> AsyncWrite for Prompt<F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::net::sockopt::set_tcp_nodelay;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// How long the second of two small things takes that a client with Nagle's algorithm says in a row, in half of some:
    /// the kernel acknowledges the first ones of a connection at once anyway.
    async fn second(logs_in: bool) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        set_tcp_nodelay(&client, false).unwrap();
        let mut stream = Prompt::new(listener.accept().await.unwrap().0, || logs_in);
        let mut took = Vec::new();
        for _ in 0..41 {
            // Question and answer, as lines of identification are: from then on the kernel waits for an answer to acknowledge with.
            client.write_all(b"a").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'a');
            stream.write_all(b"b").await.unwrap();
            assert_eq!(client.read_u8().await.unwrap(), b'b');
            client.write_all(b"c").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'c');
            let began = Instant::now();
            client.write_all(b"d").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'd');
            took.push(began.elapsed());
        }
        took.sort();
        took[took.len() / 2]
    }

    #[tokio::test]
    async fn what_a_client_says_twice_in_a_row_waits_for_nothing_while_it_logs_in() {
        let (prompt, usual) = (second(true).await, second(false).await);
        assert!(prompt < usual / 2, "{prompt:?}, and {usual:?} otherwise");
    }
}
