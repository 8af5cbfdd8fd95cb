//! The client's end of one session channel, as the session sees it: bytes, a word to the person, and the end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};

use super::input::Input;
use crate::attach::{Chunk, Exit, OutputKind};

/// SSH's number for standard error (RFC 4254 section 5.2).
const STDERR: u32 = 1;

/// How long a client that is being expelled is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The client has closed the channel, or is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// The client's end.
pub(super) struct Client {
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    input: Arc<Input>,
}

impl Client {
    pub(super) fn new(write: ChannelWriteHalf<Msg>, handle: Handle, input: Arc<Input>) -> Self {
        Self { write, handle, input }
    }

    /// Sends output, as fast as the client has room for it.
    pub(super) async fn send(&self, chunk: Chunk) -> Result<(), Gone> {
        let sent = async {
            match chunk.kind {
                OutputKind::Stdout => self.write.data_bytes(chunk.data).await,
                OutputKind::Stderr => self.write.extended_data_bytes(STDERR, chunk.data).await,
            }
        };
        // The library does not wake who waits for room on a channel that was closed.
        let sent = self.input.gone().run_until_cancelled(sent).await;
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(Gone) }
    }

    /// Writes to the terminal as it is.
    pub(super) async fn write(&self, text: impl Into<Bytes>) -> Result<(), Gone> {
        self.send(Chunk { kind: OutputKind::Stdout, data: text.into() }).await
    }

    /// Tells the person something: on a line of its own at a terminal, on standard error otherwise.
    pub(super) async fn say(&self, words: &str) -> Result<(), Gone> {
        if self.input.is_terminal() {
            self.write(format!("\r\n\x1b[Kinnkeeper: {words}\r\n")).await
        } else {
            self.send(Chunk { kind: OutputKind::Stderr, data: format!("innkeeper: {words}\n").into() }).await
        }
    }

    /// Ends the channel: how the process ended, then that no more comes, then the close. All of it stays behind what was sent before.
    pub(super) async fn finish(&self, exit: Exit) {
        let id = self.write.id();
        let end = async {
            let _ = match exit {
                Exit::Status(status) => self.handle.exit_status_request(id, status).await,
                Exit::Signal(name) => self.handle.exit_signal_request(id, signal(name), false, String::new(), String::new()).await,
            };
            let _ = self.write.eof().await;
            let _ = self.write.close().await;
        };
        // The queue that these go through is not emptied while the client does not read.
        self.input.gone().run_until_cancelled(end).await;
    }

    /// Ends the channel of a client that is only taken for gone, as far as it lets us.
    pub(super) async fn expel(&self, words: &str, status: u32) {
        let id = self.write.id();
        let text = Bytes::from(format!("\r\ninnkeeper: {words}\r\n"));
        let _ = tokio::time::timeout(PATIENCE, self.write.extended_data_bytes(STDERR, text)).await;
        let _ = tokio::time::timeout(PATIENCE, self.handle.exit_status_request(id, status)).await;
        let _ = tokio::time::timeout(PATIENCE, self.handle.close(id)).await;
    }
}

fn signal(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_owned()),
    }
}
