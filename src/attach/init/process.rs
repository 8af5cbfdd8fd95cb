//! A process that init has opened, as the one who asked for it sees it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream;
use innkeeper_init::protocol::{self, Order, Size};
use tokio::sync::watch;

use super::descriptor::{Pipe, Socket};
use super::link::Link;
use crate::attach::{AttachError, Chunk, Control, Exit, OutputKind, WindowSize};

/// Most that is read out of the pipes of a process that has ended: what the largest pipe holds that its user can make. What it said is among
/// it; a child in the background that goes on writing is not listened to for longer.
const LEFT_IN_PIPES: usize = 1 << 20;

/// Signals by their names in RFC 4254 section 6.10, and their numbers on Linux.
const SIGNALS: [(&str, u8); 13] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("KILL", 9),
    ("PIPE", 13),
    ("QUIT", 3),
    ("SEGV", 11),
    ("TERM", 15),
    ("USR1", 10),
    ("USR2", 12),
];

/// How a process ends.
pub(super) type ExitWatch = watch::Receiver<Option<protocol::Exit>>;

/// What can be asked of a process.
pub(super) struct InitControl {
    pub(super) link: Link,
    pub(super) process: u64,
    pub(super) exit: ExitWatch,
    /// Whether it is at a terminal, which init keeps.
    pub(super) terminal: bool,
}

/// The output of a process with pipes.
pub(super) struct Output {
    pipes: [Option<Pipe>; 2],
    /// Which is asked first, in turns, so that neither keeps the other waiting.
    first: usize,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Once the process has ended: what may still be read.
    left: Option<usize>,
}

// === impl Output ===

impl Output {
    pub(super) fn new(stdout: Pipe, stderr: Pipe, mut exit: ExitWatch) -> Self {
        let ended = Box::pin(async move {
            // Without init nobody says so; then the pipes' own end counts.
            if exit.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        Self { pipes: [Some(stdout), Some(stderr)], first: 0, ended, left: None }
    }

    /// Asks both pipes, `ask` telling how.
    fn poll_pipes(&mut self, mut ask: impl FnMut(&Pipe) -> Poll<io::Result<bytes::Bytes>>) -> Poll<Option<io::Result<Chunk>>> {
        for turn in 0..2 {
            let number = (self.first + turn) % 2;
            let Some(pipe) = self.pipes.get(number).and_then(Option::as_ref) else { continue };
            match ask(pipe) {
                Poll::Pending => {}
                Poll::Ready(Ok(data)) if data.is_empty() => self.pipes[number] = None,
                Poll::Ready(Ok(data)) => {
                    self.first = 1 - number;
                    let kind = if number == 0 { OutputKind::Stdout } else { OutputKind::Stderr };
                    return Poll::Ready(Some(Ok(Chunk { kind, data })));
                }
                Poll::Ready(Err(why)) => return Poll::Ready(Some(Err(why))),
            }
        }
        if self.pipes.iter().all(Option::is_none) { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Stream for Output {
    type Item = io::Result<Chunk>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.left.is_none() && this.ended.as_mut().poll(cx).is_ready() {
            this.left = Some(LEFT_IN_PIPES);
        }
        let Some(left) = this.left else { return this.poll_pipes(|pipe| pipe.poll_piece(cx)) };
        if left == 0 {
            return Poll::Ready(None);
        }
        // What is in them now is all; asked directly, as readiness may be old.
        let last = this.poll_pipes(|pipe| match pipe.piece_now() {
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            read => Poll::Ready(read),
        });
        match last {
            Poll::Ready(Some(Ok(chunk))) => {
                this.left = Some(left.saturating_sub(chunk.data.len()));
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(other) => Poll::Ready(other),
            Poll::Pending => Poll::Ready(None),
        }
    }
}

/// The output of a terminal: to its viewer's end.
pub(super) fn terminal_output(socket: Socket) -> Pin<Box<dyn Stream<Item = io::Result<Chunk>> + Send>> {
    Box::pin(stream::unfold(Some(socket), |socket| async move {
        let socket = socket?;
        match poll_fn(|cx| socket.poll_piece(cx)).await {
            Ok(data) if data.is_empty() => None,
            Ok(data) => Some((Ok(Chunk { kind: OutputKind::Stdout, data }), Some(socket))),
            // Its other end went away with something of ours in it.
            Err(why) if why.kind() == io::ErrorKind::ConnectionReset => None,
            Err(why) => Some((Err(why), None)),
        }
    }))
}

// === impl InitControl ===

#[async_trait::async_trait]
impl Control for InitControl {
    async fn resize(&self, size: WindowSize) -> Result<(), AttachError> {
        self.link.say(Order::Resize { process: self.process, size: size_of(size) }).await
    }

    async fn signal(&self, name: &str) -> Result<(), AttachError> {
        let known = SIGNALS.into_iter().find(|(known, _)| *known == name);
        let (_, signal) = known.ok_or(AttachError::Unsupported("this signal"))?;
        self.link.say(Order::Signal { process: self.process, signal }).await
    }

    async fn exit(&self) -> Result<Exit, AttachError> {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        ended.map(exit_of).ok_or_else(|| AttachError::Init("went away before it said how the process ended".to_owned()))
    }

    async fn orphaned(&self) {
        self.link.gone().cancelled().await;
    }

    fn outlives(&self) -> bool {
        self.terminal
    }

    async fn hang_up(&self) -> Result<(), AttachError> {
        self.link.say(Order::HangUp { process: self.process }).await
    }
}

/// A size in the protocol's words.
pub(super) fn size_of(size: WindowSize) -> Size {
    Size { columns: size.columns, rows: size.rows }
}

fn exit_of(exit: protocol::Exit) -> Exit {
    match exit {
        protocol::Exit::Status(status) => Exit::Status(u32::from(status)),
        protocol::Exit::Signal(number) => match SIGNALS.into_iter().find(|(_, known)| *known == number) {
            Some((name, _)) => Exit::Signal(name),
            // One that the protocol has no name for: as a shell reports it.
            None => Exit::Status(128 + u32::from(number)),
        },
    }
}
