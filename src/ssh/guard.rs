//! A connection's byte stream that can be ended from outside.
//!
//! The protocol's own task has no abort handle, and while it waits for a peer that stops reading it hears nothing else. So whoever must be able
//! to end a connection (the login deadline, a drain) cancels a token, and both directions of the stream fail at once.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Longest identification line (RFC 4253 section 4.2), in bytes.
const MAX_IDENTIFICATION: usize = 255;

/// A stream that fails with `ConnectionAborted` once its token is cancelled, and remembers the client's identification line, which is the
/// first thing that a client says and which the protocol library tells nobody.
pub(super) struct Guard<S> {
    stream: S,
    // One for each direction: a future remembers only the last task that polled it.
    read_aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    write_aborted: Pin<Box<WaitForCancellationFutureOwned>>,
    first_line: Option<Vec<u8>>,
    identification: Arc<OnceLock<String>>,
}

impl<S> Guard<S> {
    /// Guards `stream` with `kill`; the identification line goes to `identification` once it was read.
    pub(super) fn new(stream: S, kill: &CancellationToken, identification: Arc<OnceLock<String>>) -> Self {
        Self {
            stream,
            read_aborted: Box::pin(kill.clone().cancelled_owned()),
            write_aborted: Box::pin(kill.clone().cancelled_owned()),
            first_line: Some(Vec::new()),
            identification,
        }
    }

    fn note_identification(&mut self, bytes: &[u8]) {
        let Some(line) = &mut self.first_line else { return };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&bytes[..end.unwrap_or(bytes.len()).min(MAX_IDENTIFICATION)]);
        if end.is_some() || line.len() >= MAX_IDENTIFICATION {
            let text = String::from_utf8_lossy(line).trim_end_matches('\r').chars().take(MAX_IDENTIFICATION).collect();
            let _ = self.identification.set(text);
            self.first_line = None;
        }
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "ended by the gateway")
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read_aborted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.first_line.is_some() {
            self.note_identification(&buf.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.write_aborted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_aborted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_aborted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(aborted()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn cancelling_wakes_both_directions() {
        let (near, _far) = tokio::io::duplex(8);
        let kill = CancellationToken::new();
        let (mut read, mut write) = tokio::io::split(Guard::new(near, &kill, Arc::default()));
        let reading = tokio::spawn(async move { read.read_u8().await });
        let writing = tokio::spawn(async move { write.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        kill.cancel();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn the_identification_line_is_noted_however_it_is_cut() {
        for (pieces, expect) in [
            (vec!["SSH-2.0-OpenSSH_9.6\r\nrest"], "SSH-2.0-OpenSSH_9.6".to_owned()),
            (vec!["SSH-2.0", "-x\n"], "SSH-2.0-x".to_owned()),
            (vec![&*"y".repeat(300)], "y".repeat(255)),
        ] {
            let (near, mut far) = tokio::io::duplex(1024);
            let identification = Arc::new(OnceLock::new());
            let mut guard = Guard::new(near, &CancellationToken::new(), identification.clone());
            for piece in pieces {
                far.write_all(piece.as_bytes()).await.unwrap();
                let mut buffer = vec![0; piece.len()];
                guard.read_exact(&mut buffer).await.unwrap();
            }
            assert_eq!(identification.get(), Some(&expect));
        }
    }
}
