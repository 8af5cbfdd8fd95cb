//! Bytes both ways between a client and a process, and everything else that either has to tell the other, until one of them ends.
//!
//! The directions do not wait for each other: input may end first and output still arrives whole, and a process that does not read its input
//! can still write.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Gone};
use super::input::Input;
use super::leaving::Staying;
use super::words;
use crate::attach::{AttachError, Control, Exit, Process};
use crate::workspace::Ending;

/// How long output and exit status of a process in a dead container are waited for.
const AFTER_DEATH: Duration = Duration::from_secs(5);

/// How long after an end that looks like a container's death the news of one is waited for.
const NEWS: Duration = Duration::from_secs(1);

/// How long it may take to be known how a process ended whose output has.
const EXIT_KNOWN: Duration = Duration::from_secs(10);

/// How long a request about a process may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How much later an end that is said again must be for it to be another.
const PUT_OFF: Duration = Duration::from_secs(60);

/// How much sooner: no more than what tells of one end may scatter.
const BROUGHT_FORWARD: Duration = Duration::from_secs(5);

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The process did.
    Exited(Exit),
    /// The client is gone. What becomes of the process is not decided here.
    Gone,
    /// The container did, and took the process with it.
    Died(Option<Exit>),
    /// An administrator has ended the session, or it must be recorded and cannot be.
    Expelled,
    /// The process's stream broke.
    Lost(String),
}

/// What happens around a session.
pub(super) struct Surroundings {
    /// The workspace's end.
    pub(super) ending: watch::Receiver<Option<Ending>>,
    /// The gateway's.
    pub(super) draining: CancellationToken,
    /// How long sessions may go on after that.
    pub(super) drain_timeout: Duration,
    /// Whether the process goes on without its client.
    pub(super) staying: Staying,
}

/// Runs until the process has ended and all its output was sent, or the client is gone.
pub(super) async fn run(client: &Client, input: &Input, process: Process, mut around: Surroundings, first_byte: impl FnOnce()) -> Ended {
    let Process { input: stdin, output, control } = process;
    let (mut death, mut expelled) = (around.ending.clone(), around.ending.clone());
    let ended = {
        let output = async {
            let mut first_byte = Some(first_byte);
            let mut output = output;
            let mut broken = None;
            while let Some(chunk) = output.next().await {
                if let Some(first_byte) = first_byte.take() {
                    first_byte();
                }
                match chunk {
                    Ok(chunk) => {
                        if client.send(chunk).await == Err(Gone) {
                            return Ended::Gone;
                        }
                    }
                    Err(why) => {
                        broken = Some(why.to_string());
                        break;
                    }
                }
            }
            match (tokio::time::timeout(EXIT_KNOWN, control.exit()).await, broken) {
                (Ok(Ok(exit)), None) => Ended::Exited(exit),
                (Ok(Ok(_)), Some(why)) => Ended::Lost(why),
                (Ok(Err(why)), _) => Ended::Lost(why.to_string()),
                (Err(_), _) => Ended::Lost("nobody says how it ended".to_owned()),
            }
        };
        let too_late = async {
            if death.wait_for(|ending| *ending == Some(Ending::Died)).await.is_err() {
                // Nobody is left who would say so.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(AFTER_DEATH).await;
        };
        let expelled = async {
            if expelled.wait_for(|ending| matches!(ending, Some(Ending::Ended | Ending::Unrecorded))).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = output => ended,
            () = expelled => Ended::Expelled,
            () = input.gone().cancelled() => Ended::Gone,
            () = too_late => Ended::Died(None),
            never = feed(input, stdin) => match never {},
            never = steer(input, &*control) => match never {},
            never = tell(client, input, &mut around) => match never {},
        }
    };
    match ended {
        Ended::Exited(exit) if is_suspicious(exit) => died(&mut around.ending, &*control, Some(exit)).await.unwrap_or(Ended::Exited(exit)),
        Ended::Lost(why) => died(&mut around.ending, &*control, None).await.unwrap_or(Ended::Lost(why)),
        ended => ended,
    }
}

/// Whether a process that is stopped or killed along with its container ends like this.
fn is_suspicious(exit: Exit) -> bool {
    matches!(exit, Exit::Signal("HUP" | "KILL" | "TERM") | Exit::Status(129 | 137 | 143))
}

/// Whether the container died or is being stopped, as far as that is known in a moment.
async fn died(ending: &mut watch::Receiver<Option<Ending>>, control: &dyn Control, exit: Option<Exit>) -> Option<Ended> {
    let told = ending.wait_for(|ending| ending.as_ref().is_some_and(Ending::is_now));
    let news = async {
        // An engine that is being stopped stops its containers, and tells nobody.
        tokio::select! {
            told = told => told.is_ok(),
            () = control.orphaned() => true,
        }
    };
    tokio::time::timeout(NEWS, news).await.unwrap_or(false).then_some(Ended::Died(exit))
}

/// Carries input to the process. Input that it does not want any more is taken nevertheless, and dropped.
async fn feed(input: &Input, mut stdin: Pin<Box<dyn AsyncWrite + Send>>) -> Infallible {
    let mut open = true;
    while let Some(piece) = input.next().await {
        if open && let Err(why) = stdin.write_all(&piece).await {
            tracing::debug!(error = %why, "process takes no more input");
            open = false;
        }
        // Buffered writers hold back what is short, and a keystroke is.
        open = open && stdin.flush().await.is_ok();
    }
    let _ = stdin.shutdown().await;
    std::future::pending().await
}

/// Hands on window sizes and signals. While one is on its way, only the newest size waits behind it.
async fn steer(input: &Input, control: &dyn Control) -> Infallible {
    let mut size = input.size();
    let mut signals = input.signals();
    size.mark_changed();
    loop {
        let signal = async {
            match &mut signals {
                Some(signals) => signals.recv().await,
                None => None,
            }
        };
        tokio::select! {
            Ok(()) = size.changed() => {
                let newest = *size.borrow_and_update();
                if let Some(newest) = newest {
                    note("resize", tokio::time::timeout(REQUEST, control.resize(newest)).await);
                }
            }
            Some(name) = signal => note("signal", tokio::time::timeout(REQUEST, control.signal(&name)).await),
        }
    }
}

/// Tells a person at a terminal what is about to happen, each thing once: what is only to come again when it was put off.
async fn tell(client: &Client, input: &Input, around: &mut Surroundings) -> Infallible {
    let mut told_drain = false;
    let mut told_until: Option<Instant> = None;
    let mut known = true;
    loop {
        let drained = around.draining.cancelled();
        let news = tokio::select! {
            () = drained, if !told_drain => Ending::Draining(around.drain_timeout),
            changed = around.ending.changed(), if known => {
                known = changed.is_ok();
                match around.ending.borrow_and_update().clone() {
                    // That a container died is told with the session's end, when all of its output is there; that she was sent out, too.
                    Some(ending) if !matches!(ending, Ending::Died | Ending::Ended | Ending::Unrecorded) => ending,
                    _ => continue,
                }
            }
            else => return std::future::pending().await,
        };
        match news {
            Ending::Draining(_) if std::mem::replace(&mut told_drain, true) => continue,
            Ending::Soon { within, .. } if told_until.is_some_and(|told| is_same(told, Instant::now() + within)) => continue,
            Ending::Soon { within, .. } => told_until = Some(Instant::now() + within),
            // Who was not told of it need not hear that it is off.
            Ending::Stays if told_until.take().is_none() => continue,
            Ending::Draining(_)
            | Ending::Stays
            | Ending::Stopping(_)
            | Ending::Suspended(_)
            | Ending::Deleted
            | Ending::Ended
            | Ending::Unrecorded
            | Ending::Died => {}
        }
        if input.is_terminal() && client.say(&words::ending(&news, &around.staying)).await == Err(Gone) {
            return std::future::pending().await;
        }
    }
}

/// Whether an end that is to come is the one that was told already.
fn is_same(told: Instant, end: Instant) -> bool {
    end < told + PUT_OFF && end + BROUGHT_FORWARD > told
}

fn note<E: std::fmt::Display>(request: &str, answer: Result<Result<(), AttachError>, E>) {
    match answer {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!(request, error = %why, "request to a process failed"),
        Err(_) => tracing::warn!(request, "request to a process not answered"),
    }
}
