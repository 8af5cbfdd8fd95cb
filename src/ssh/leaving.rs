//! How a client left, and what becomes of its process then.
//!
//! Who *closes* a session ends what runs in it, as with sshd. Who is *lost*, because a network failed or the gateway ended the connection, did
//! not mean to: her terminal goes on for a while, and she can get back into it. A terminal that has a name goes on in either case. What has no
//! terminal is told that its client is gone, unless it is the gateway that goes.
//! How a terminal goes on is the far side's part and not known here; neither is what anybody is told.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::connection::Connection;
use super::input::Input;
use crate::attach::{Control, ProcessSpec};
use crate::name::TerminalName;
use crate::workspace::{Ending, Stay};

/// Workspaces that are kept running at once for terminals that were left in them. Each is a task of about a kilobyte; one more goes by its
/// idle limit alone.
pub(super) const MAX_KEPT: usize = 4096;

/// How long after a client is gone it may take to be known how it went. The protocol's task and its watcher notice one after the other.
const KNOWN: Duration = Duration::from_secs(1);

/// How long hanging a process up may take.
pub(super) const HANG_UP: Duration = Duration::from_secs(10);

/// How often a terminal that was left is asked whether it has ended.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It meant to: it has closed the channel, said goodbye, or ended its stream, as the kernel does for a client that is killed when it has
    /// read everything.
    Closed,
    /// Its network failed, it does not answer any more, we have ended the connection, or the connection was reset without a goodbye, which
    /// the kernel of a killed client and whatever stands between look alike in.
    Lost,
}

/// How one connection's client left, once that is known. Who says it first is right: what comes after follows from it.
pub(super) struct Parting(watch::Sender<Option<Went>>);

/// Whether a process goes on without its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Staying {
    /// In any case: its terminal has a name. One that is only called lost goes on for as long as is given here.
    Named(TerminalName, Duration),
    /// For so long, if the client is lost.
    WhenLost(Duration),
    /// If it is the gateway that goes: it has no terminal, and nobody could come back to it, but a restart touches no job.
    OverRestart,
    /// Not at all.
    Never,
}

// === impl Went ===

impl Went {
    /// What a failed stream says about it.
    pub(super) fn of(why: &io::Error) -> Self {
        // A peer that has ended its stream answers what is still sent to it so, and one that is cut off does not.
        let ended = matches!(why.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof);
        if ended { Self::Closed } else { Self::Lost }
    }
}

// === impl Parting ===

impl Default for Parting {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Parting {
    /// Says how it was, unless that was said before.
    pub(super) fn note(&self, went: Went) {
        self.0.send_if_modified(|known| known.is_none() && known.replace(went).is_none());
    }

    /// Whether anybody has said.
    #[cfg(test)]
    pub(super) fn is_known(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// How it was. What nobody can say in a moment is taken for lost, which ends nothing that somebody may want.
    pub(super) async fn went(&self) -> Went {
        let mut known = self.0.subscribe();
        let known = tokio::time::timeout(KNOWN, known.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|went| *went).unwrap_or(Went::Lost)
    }
}

// === impl Staying ===

impl Staying {
    /// What was asked for, and what this process can do.
    pub(super) fn of(spec: &ProcessSpec, control: &dyn Control) -> Self {
        match &spec.terminal {
            _ if spec.pty.is_none() => Self::OverRestart,
            _ if !control.outlives() => Self::Never,
            Some(name) => Self::Named(name.clone(), spec.keep_lost),
            None if spec.keep_lost.is_zero() => Self::Never,
            None => Self::WhenLost(spec.keep_lost),
        }
    }
}

/// The client of a process is gone: hangs it up, or leaves it and sees to it that its workspace is there for as long as it is.
pub(super) async fn leave(connection: &Connection, input: &Input, stay: Stay, staying: Staying, control: Arc<dyn Control>) {
    let keep = match staying {
        Staying::Named(name, keep) => {
            tracing::info!(terminal = %name, "left its terminal");
            // Its own clock runs anew from here.
            name.is_lost().then_some(keep)
        }
        Staying::WhenLost(keep) if how_gone(connection, input).await == Went::Lost => {
            tracing::info!(?keep, "lost its client, which may come back");
            Some(keep)
        }
        Staying::OverRestart if connection.shared.draining.is_cancelled() && how_gone(connection, input).await == Went::Lost => {
            tracing::info!("leaves its process running");
            None
        }
        Staying::WhenLost(_) | Staying::OverRestart | Staying::Never => return hang_up(&*control).await,
    };
    if let Some(keep) = keep {
        hold(connection, stay, control, keep);
    }
}

async fn how_gone(connection: &Connection, input: &Input) -> Went {
    // A write fails a little before the channel is known to be gone.
    let _ = tokio::time::timeout(KNOWN, input.gone().cancelled()).await;
    // One that was sent too much is ended by us, with a word, and not to be come back to.
    if input.is_closed() || input.is_stuck() { Went::Closed } else { connection.parting.went().await }
}

async fn hang_up(control: &dyn Control) {
    match tokio::time::timeout(HANG_UP, control.hang_up()).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(error = %why, "not hung up"),
        Err(_) => tracing::warn!(within = ?HANG_UP, "not hung up in time"),
    }
}

/// Keeps a workspace running for `keep`, or until nothing is left that it would be for. Somebody who comes back meanwhile has a lease of her
/// own, so that it does no harm to hold this one beside it.
fn hold(connection: &Connection, mut stay: Stay, control: Arc<dyn Control>, keep: Duration) {
    let shared = connection.shared.clone();
    // Nobody is there: it must not take the place of somebody who would be.
    stay.lease.end_session();
    let Ok(permit) = shared.kept.clone().try_acquire_owned() else {
        tracing::warn!(limit = MAX_KEPT, "too many terminals were left; this one's workspace goes by its idle limit");
        return;
    };
    let draining = shared.draining.clone();
    shared.tasks.spawn(tracing::Span::current(), async move {
        let exited = async {
            // It is meant to be asked of what has ended, and does not wait for long.
            while control.exit().await.is_err() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        let mut ending = stay.ending.clone();
        let stopped = ending.wait_for(|ending| ending.as_ref().is_some_and(Ending::is_now));
        tokio::select! {
            () = tokio::time::sleep(keep) => {}
            () = exited => {}
            _ = stopped => {}
            () = draining.cancelled() => {}
        }
        drop((stay, permit));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_says_first_how_a_client_left_is_right() {
        let parting = Parting::default();
        assert_eq!(parting.went().await, Went::Lost, "nobody says");
        parting.note(Went::Closed);
        parting.note(Went::Lost);
        assert_eq!(parting.went().await, Went::Closed);
    }

    #[test]
    fn a_stream_that_was_ended_is_told_from_one_that_failed() {
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof] {
            assert_eq!(Went::of(&kind.into()), Went::Closed, "{kind}");
        }
        for kind in
            [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable, io::ErrorKind::ConnectionAborted]
        {
            assert_eq!(Went::of(&kind.into()), Went::Lost, "{kind}");
        }
    }
}
