//! A connection's byte stream that can be ended from outside.
//!
//! The protocol's own task has no abort handle, and while it waits for a peer that stops reading it hears nothing else. So whoever must be able
//! to end a connection (the login deadline, a drain) cancels a token, and both directions of the stream fail at once. It also sees, as nobody
//! else does, whether a peer ends its stream or is cut off.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::leaving::{Parting, Went};

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
    parting: Arc<Parting>,
    /// The peer has hung up on what was written, so that nothing is written any more; what it said before that is still to be read.
    reset: bool,
}

impl<S> Guard<S> {
    /// Guards `stream` with `kill`; the identification line goes to `identification` once it was read, and its end to `parting`.
    pub(super) fn new(stream: S, kill: &CancellationToken, identification: Arc<OnceLock<String>>, parting: Arc<Parting>) -> Self {
        Self {
            stream,
            read_aborted: Box::pin(kill.clone().cancelled_owned()),
            write_aborted: Box::pin(kill.clone().cancelled_owned()),
            first_line: Some(Vec::new()),
            identification,
            parting,
            reset: false,
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

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
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
        let mut polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.reset && buf.filled().len() == before && buf.remaining() > 0 && polled.is_ready() {
            // Whoever was told of a reset first was told of it alone: the kernel says end of stream to everybody after.
            polled = Poll::Ready(Err(reset()));
        }
        match &polled {
            Poll::Ready(Ok(())) if buf.filled().len() == before && buf.remaining() > 0 => self.parting.note(Went::Closed),
            Poll::Ready(Err(why)) => self.parting.note(Went::of(why)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
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
        if self.reset {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &polled {
            // A client that ends with something unread resets the stream, and its goodbye may lie in front of that: reading finds out.
            Poll::Ready(Err(why)) if why.kind() == io::ErrorKind::ConnectionReset => {
                self.reset = true;
                return Poll::Ready(Ok(bytes.len()));
            }
            Poll::Ready(Err(why)) => self.parting.note(Went::of(why)),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        polled
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
        // The protocol does this where nothing has failed yet: one side has said goodbye. If it was ours, that is noted already.
        self.parting.note(Went::Closed);
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
        let (mut read, mut write) = tokio::io::split(Guard::new(near, &kill, Arc::default(), Arc::default()));
        let reading = tokio::spawn(async move { read.read_u8().await });
        let writing = tokio::spawn(async move { write.write_all(&[0; 64]).await });
        tokio::task::yield_now().await;
        kill.cancel();
        assert_eq!(reading.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn how_it_ended_is_noted_by_who_sees_it_first() {
        let kill = CancellationToken::new();
        let guarded = || {
            let (near, far) = tokio::io::duplex(8);
            let parting = Arc::new(Parting::default());
            (Guard::new(near, &kill, Arc::default(), parting.clone()), far, parting)
        };
        let (mut guard, mut far, parting) = guarded();
        far.write_all(b"x").await.unwrap();
        guard.read_u8().await.unwrap();
        assert!(!parting.is_known(), "while it goes on");
        far.shutdown().await.unwrap();
        assert!(guard.read_u8().await.is_err());
        assert_eq!(parting.went().await, Went::Closed);

        let (mut guard, _far, parting) = guarded();
        guard.shutdown().await.unwrap();
        assert_eq!(parting.went().await, Went::Closed, "she has said goodbye");

        let (mut guard, _far, parting) = guarded();
        parting.note(Went::Lost);
        guard.shutdown().await.unwrap();
        assert_eq!(parting.went().await, Went::Lost, "we have said goodbye");

        let (mut guard, far, parting) = guarded();
        drop(far);
        guard.write_all(b"x").await.unwrap_err();
        assert_eq!(parting.went().await, Went::Closed, "its stream had ended");
    }

    #[tokio::test]
    async fn what_was_said_before_a_reset_is_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (near, _) = listener.accept().await.unwrap();
        let parting = Arc::new(Parting::default());
        let mut guard = Guard::new(near, &CancellationToken::new(), Arc::default(), parting.clone());
        guard.write_all(b"never read").await.unwrap();
        far.readable().await.unwrap();
        far.write_all(b"goodbye").await.unwrap();
        drop(far);
        // The one who is told of the reset is the next to write.
        while !guard.reset {
            guard.write_all(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut goodbye = [0; 7];
        guard.read_exact(&mut goodbye).await.unwrap();
        assert_eq!(&goodbye, b"goodbye");
        assert!(!parting.is_known(), "it depends on what that meant");
        assert_eq!(guard.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(parting.went().await, Went::Lost);
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
            let mut guard = Guard::new(near, &CancellationToken::new(), identification.clone(), Arc::default());
            for piece in pieces {
                far.write_all(piece.as_bytes()).await.unwrap();
                let mut buffer = vec![0; piece.len()];
                guard.read_exact(&mut buffer).await.unwrap();
            }
            assert_eq!(identification.get(), Some(&expect));
        }
    }
}
