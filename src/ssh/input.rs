//! What comes from the client on one channel, taken at once and kept until the session or the forward behind it wants it.
//!
//! The protocol library reads a connection in one loop and opens a channel's window again when data *arrives*, not when it is used. A channel
//! that were not drained would stop that loop, and with it the connection: also the client's answers that let our own output go on, which is
//! a deadlock for `ssh h cat <big | slow`. So everything is taken here, and what bounds it is the window: while more than [`HIGH`] bytes wait,
//! [`Input::is_full`] says so, and the handler lets the window shrink to a trickle instead of opening it (`windows`). What all
//! channels of a connection keep together is bounded by `inputs`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::channel::window_size;
use crate::attach::WindowSize;

/// Bytes waiting from which on the client is held back. It may still send what its window allows.
const HIGH: usize = 1 << 20;

/// Bytes waiting from which on nothing is taken at all, which stops the connection. Only a client that disregards its window, or one that
/// has two uploads on one connection of which one is stuck, gets here.
const LIMIT: usize = 8 << 20;

/// How long the connection may be stopped so before the session is ended.
const STUCK: Duration = Duration::from_secs(60);

/// Pieces shorter than this are put together, so that what a piece costs beside its bytes stays small.
const SMALL: usize = 1024;

/// Signals that wait; more are dropped, as pending signals are.
const SIGNALS: usize = 8;

/// What a person types to interrupt, when the terminal is not there yet to make a signal of it.
const CTRL_C: u8 = 3;

/// One channel's input.
pub(super) struct Input {
    waiting: Mutex<Waiting>,
    /// Bytes that wait on all channels of the connection, this one's among them.
    all_waiting: Arc<AtomicUsize>,
    /// Something was added, or it ended.
    added: Notify,
    /// Something was taken.
    taken: Notify,
    terminal: AtomicBool,
    interrupted: Notify,
    gone: CancellationToken,
    closed: AtomicBool,
    stuck: AtomicBool,
    size: watch::Sender<Option<WindowSize>>,
    signals: mpsc::Sender<String>,
    signals_waiting: Mutex<Option<mpsc::Receiver<String>>>,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    /// What is newer than all pieces.
    tail: BytesMut,
    bytes: usize,
    ended: bool,
}

impl Input {
    /// Empty; what waits is counted in `all_waiting` too.
    pub(super) fn counted(all_waiting: Arc<AtomicUsize>) -> Self {
        let (signals, signals_waiting) = mpsc::channel(SIGNALS);
        Self {
            waiting: Mutex::default(),
            all_waiting,
            added: Notify::new(),
            taken: Notify::new(),
            terminal: AtomicBool::new(false),
            interrupted: Notify::new(),
            gone: CancellationToken::new(),
            closed: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            size: watch::Sender::new(None),
            signals,
            signals_waiting: Mutex::new(Some(signals_waiting)),
        }
    }

    /// The client has a terminal on this channel.
    pub(super) fn set_terminal(&self) {
        self.terminal.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.load(Ordering::Relaxed)
    }

    /// Takes everything that arrives, for as long as it is polled; never returns.
    pub(super) async fn collect(&self, mut channel: ChannelReadHalf) {
        loop {
            match channel.wait().await {
                // Of a session that is being ended nothing is kept, but the connection goes on.
                Some(ChannelMsg::Data { .. }) if self.is_stuck() => {}
                Some(ChannelMsg::Data { data }) => self.add(data).await,
                Some(ChannelMsg::Eof) => self.end(),
                Some(ChannelMsg::WindowChange { col_width, row_height, .. }) => {
                    // Only the newest counts: a window that is dragged makes hundreds.
                    self.size.send_replace(Some(window_size(col_width, row_height)));
                }
                Some(ChannelMsg::Signal { signal }) => {
                    if let Some(name) = signal_name(signal) {
                        let _ = self.signals.try_send(name);
                    }
                }
                end @ (Some(ChannelMsg::Close) | None) => {
                    self.closed.store(end.is_some(), Ordering::Relaxed);
                    self.gone.cancel();
                    return std::future::pending().await;
                }
                // Requests are answered in `channel`, and a client has no standard error to send.
                Some(_) => {}
            }
        }
    }

    async fn add(&self, data: Bytes) {
        if self.is_terminal() && data.contains(&CTRL_C) {
            self.interrupted.notify_one();
        }
        self.push(&data);
        while self.waiting.lock().bytes > LIMIT {
            let taken = self.taken.notified();
            if self.waiting.lock().bytes > LIMIT && tokio::time::timeout(STUCK, taken).await.is_err() {
                self.give_up();
                return;
            }
        }
    }

    /// Takes the client for gone, because what it sends is not taken.
    pub(super) fn give_up(&self) {
        self.stuck.store(true, Ordering::Relaxed);
        self.gone.cancel();
    }

    pub(super) fn push(&self, data: &Bytes) {
        let waiting = &mut *self.waiting.lock();
        if data.len() < SMALL {
            waiting.tail.extend_from_slice(data);
        } else {
            waiting.flush_tail();
            waiting.pieces.push_back(data.clone());
        }
        if waiting.tail.len() >= SMALL {
            waiting.flush_tail();
        }
        waiting.bytes += data.len();
        self.all_waiting.fetch_add(data.len(), Ordering::Relaxed);
        self.added.notify_one();
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.waiting.lock().ended = true;
        self.added.notify_one();
    }

    /// The oldest piece, once there is one; `None` when the client has ended its input.
    pub(super) async fn next(&self) -> Option<Bytes> {
        loop {
            let added = self.added.notified();
            {
                let waiting = &mut *self.waiting.lock();
                if waiting.pieces.is_empty() {
                    waiting.flush_tail();
                }
                if let Some(piece) = waiting.pieces.pop_front() {
                    waiting.bytes -= piece.len();
                    self.all_waiting.fetch_sub(piece.len(), Ordering::Relaxed);
                    self.taken.notify_one();
                    return Some(piece);
                }
                if waiting.ended {
                    return None;
                }
            }
            added.await;
        }
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Whether so much waits that the client should send no more.
    pub(super) fn is_full(&self) -> bool {
        self.waiting() > HIGH
    }

    /// Cancelled when the client has closed the channel or its connection is gone.
    pub(super) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Whether the client has closed the channel itself.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether it is only taken for gone, because it kept sending what nobody reads.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// Waits for a Ctrl-C at the terminal.
    pub(super) async fn interrupted(&self) {
        self.interrupted.notified().await;
    }

    /// The terminal's size when it was changed last.
    pub(super) fn size(&self) -> watch::Receiver<Option<WindowSize>> {
        self.size.subscribe()
    }

    /// The signals; there is one reader.
    pub(super) fn signals(&self) -> Option<mpsc::Receiver<String>> {
        self.signals_waiting.lock().take()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.all_waiting.fetch_sub(self.waiting.get_mut().bytes, Ordering::Relaxed);
    }
}

impl Waiting {
    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

/// The signal's name as in RFC 4254 section 6.10, if it looks like one.
fn signal_name(signal: Sig) -> Option<String> {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => return (name.len() <= 16 && name.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(name),
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn input_ends_after_everything_was_taken() {
        let input = Input::counted(Arc::default());
        input.push(&Bytes::from_static(b"abc"));
        input.end();
        assert_eq!(input.next().await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(input.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let input = Input::counted(Arc::default());
        let (read, ()) = tokio::join!(input.next(), async { input.push(&Bytes::from_static(b"x")) });
        assert_eq!(read.as_deref(), Some(&b"x"[..]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_takes_nothing_is_ended_after_a_while() {
        let input = Input::counted(Arc::default());
        while !input.gone().is_cancelled() {
            input.add(Bytes::from(vec![0; 32 * 1024])).await;
        }
        assert!(input.is_stuck());
        assert!(input.waiting.lock().bytes <= LIMIT + 32 * 1024);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered(lengths in prop::collection::vec(0usize..3000, 0..60)) {
            let input = Input::counted(Arc::default());
            let mut sent = Vec::new();
            for length in lengths {
                let piece: Vec<u8> = (0..length).map(|i| (sent.len() + i) as u8).collect();
                sent.extend_from_slice(&piece);
                input.push(&Bytes::from(piece));
            }
            input.end();
            let mut taken = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async { while let Some(piece) = input.next().await { taken.extend_from_slice(&piece) } });
            prop_assert_eq!(taken, sent);
            prop_assert_eq!(input.waiting.lock().bytes, 0);
        }
    }
}
