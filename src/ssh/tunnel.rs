//! Bytes both ways between a channel and something in the container that it is connected to.
//!
//! Each direction ends by itself, as with a connection that has nothing in between. Knows nothing of who wanted it, nor of what it is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::server::Msg;
use russh::{Channel, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::CancellationToken;

use super::input::Input;
use crate::attach::Duplex;
use crate::workspace::Ending;

/// What is read at once, in bytes: two of the largest packets that a client takes.
const PIECE: usize = 64 * 1024;

/// What is shorter is copied out of its piece, whose memory would otherwise be kept until the client has read.
const SHORT: usize = PIECE / 8;

/// How long the client is left to close a channel by itself on which both directions have ended. If we close it first, the library keeps what
/// it knows of it until the connection ends.
const CLOSE: Duration = Duration::from_secs(1);

/// How long the far end may take to take what a client has sent that is gone.
const LINGER: Duration = Duration::from_secs(10);

/// How long what a dead container has still sent is waited for.
const AFTER_DEATH: Duration = Duration::from_secs(5);

/// How a channel was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The client did, or is gone.
    ByClient,
    /// We did.
    ByUs,
}

/// Carries until both directions have ended or one of the ends is gone, and closes the channel.
pub(super) async fn carry(channel: Channel<Msg>, input: &Input, far: Box<dyn Duplex>, ending: watch::Receiver<Option<Ending>>) -> Closed {
    let (read, write) = channel.split();
    let (from_far, to_far) = tokio::io::split(far);
    let silent = CancellationToken::new();
    let inward = async {
        let taken = feed(input, to_far).await;
        if taken.is_err() {
            // As long as the far end speaks it is there; what it does not want to hear is taken nevertheless, so that the client goes on.
            silent.run_until_cancelled(async { while input.next().await.is_some() {} }).await;
        }
        taken
    };
    let outward = async {
        input.gone().run_until_cancelled(speak(from_far, &write)).await;
        silent.cancel();
    };
    let both = async {
        if let (Ok(()), ()) = tokio::join!(inward, outward) {
            input.gone().run_until_cancelled(tokio::time::sleep(CLOSE)).await;
        }
    };
    let gone = async {
        input.gone().cancelled().await;
        if !input.is_stuck() {
            // A client says its last, ends and closes in one breath: what it has said is on its way still.
            input.end();
            tokio::time::sleep(LINGER).await;
        }
    };
    tokio::select! {
        () = both => {}
        () = death(ending) => {}
        () = gone => {}
        () = input.collect(read) => {}
    }
    if input.gone().is_cancelled() && !input.is_stuck() {
        return Closed::ByClient;
    }
    // The queue that this goes through is not emptied while the client does not read.
    let _ = tokio::time::timeout(CLOSE, write.close()).await;
    Closed::ByUs
}

/// From the client, until it has ended its direction or the far end takes no more.
async fn feed(input: &Input, mut far: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(piece) = input.next().await {
        far.write_all(&piece).await?;
        far.flush().await?;
    }
    // Of an end that is gone already there is nothing to tell.
    let _ = far.shutdown().await;
    Ok(())
}

/// To the client, until the far end has ended its direction. One that breaks has ended.
async fn speak(mut far: impl AsyncRead + Unpin, write: &ChannelWriteHalf<Msg>) {
    while let Ok(piece) = next_piece(&mut far).await
        && !piece.is_empty()
    {
        if write.data_bytes(piece).await.is_err() {
            return;
        }
    }
    let _ = write.eof().await;
}

/// The next bytes; none at the end. Memory is taken when there is something to read, so that a connection that is silent has none.
fn next_piece(far: &mut (impl AsyncRead + Unpin)) -> impl Future<Output = io::Result<Bytes>> {
    std::future::poll_fn(move |cx| {
        let mut piece = BytesMut::with_capacity(PIECE);
        poll_read_buf(Pin::new(&mut *far), cx, &mut piece)
            .map_ok(|length| if length < SHORT { Bytes::copy_from_slice(&piece) } else { piece.freeze() })
    })
}

/// Returns when the container is dead, and has had time to be heard to the end.
async fn death(mut ending: watch::Receiver<Option<Ending>>) {
    if ending.wait_for(|ending| *ending == Some(Ending::Died)).await.is_err() {
        // Nobody is left who would say so.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(AFTER_DEATH).await;
}
