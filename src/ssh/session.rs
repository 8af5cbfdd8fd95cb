//! The task behind one session channel: waits for what is asked for, has the workspace made ready, opens the process, bridges, and ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::Channel;
use russh::server::{Handle, Msg};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;

use super::bridge::{self, Ended, Surroundings};
use super::channel::Start;
use super::client::Client;
use super::connection::Connection;
use super::input::Input;
use super::login::Entered;
use super::tasks::contain;
use super::{waiting, words};
use crate::attach::{Exit, Process, ProcessSpec, Program};
use crate::telemetry::Metrics;
use crate::workspace::{OpenError, Progress, Stay};

/// How long a client may keep a channel without asking for anything on it.
const IDLE_CHANNEL: Duration = Duration::from_secs(300);

/// How often a workspace is made ready again whose container went away before the process was open.
const TRIES: usize = 3;

/// How long opening a process may take.
const OPEN: Duration = Duration::from_secs(30);

/// One session.
struct Session {
    connection: Arc<Connection>,
    entered: Entered,
    client: Client,
    input: Arc<Input>,
}

/// Why a session did not come to a process.
enum Unready {
    /// The client is gone.
    Gone,
    /// This is said, and the channel ends with this status.
    Say(String, u32),
}

/// Spawns a session's task. It holds `permit` until it is over.
pub(super) fn begin(
    connection: Arc<Connection>,
    entered: Entered,
    handle: Handle,
    channel: Channel<Msg>,
    input: Arc<Input>,
    started: oneshot::Receiver<Start>,
    permit: Arc<OwnedSemaphorePermit>,
) {
    let span = tracing::info_span!(parent: &connection.span, "session", channel = %channel.id(), account = %entered.grant.account);
    let (read, write) = channel.split();
    let shared = connection.shared.clone();
    let tracked = connection.session_tasks.token();
    let client = Client::new(write, handle, input.clone());
    let session = Session { connection, entered, client, input: input.clone() };
    let metrics = shared.metrics.clone();
    shared.tasks.spawn(span, async move {
        let whole = async {
            let exit = contain(metrics, session.run(started)).await;
            // Before the client hears of the end, as it may open the next session when it does.
            drop(permit);
            session.end(exit.unwrap_or(Some(Exit::Status(words::TEMPORARY)))).await;
        };
        tokio::select! {
            () = whole => {}
            () = input.collect(read) => {}
        }
        drop(tracked);
    });
}

impl Session {
    /// From what is asked for to how it ended; `None` when the client is gone.
    async fn run(&self, started: oneshot::Receiver<Start>) -> Option<Exit> {
        match self.input.gone().run_until_cancelled(tokio::time::timeout(IDLE_CHANNEL, started)).await {
            Some(Ok(Ok(start))) => {
                let _record = Record::begin(&self.connection.shared.metrics, &start);
                self.serve(start).await
            }
            // Nothing was asked for.
            _ => Some(Exit::Status(words::TEMPORARY)),
        }
    }

    async fn end(&self, exit: Option<Exit>) {
        match exit {
            Some(exit) => self.client.finish(exit).await,
            None if self.input.is_stuck() => {
                tracing::warn!("session ended: it was sent more input than it takes");
                self.client.expel(words::INPUT_STUCK, words::TEMPORARY).await;
            }
            None => {}
        }
    }

    /// Runs the process; `None` when the client is gone.
    async fn serve(&self, start: Start) -> Option<Exit> {
        let Start { program, pty, environment } = start;
        let program = match program {
            Ok(program) => program,
            Err(words) => return self.say_and_end(words, Exit::Status(words::NOT_PERMITTED)).await,
        };
        let spec = ProcessSpec { program, pty, env: self.environment(environment), greeting: None };
        // Each on the heap for as long as it lasts: a session spends its life in the second, and what the first needs is gone by then.
        let (stay, process) = match Box::pin(self.open(spec)).await {
            Ok(opened) => opened,
            Err(Unready::Gone) => return None,
            Err(Unready::Say(words, status)) => return self.say_and_end(&words, Exit::Status(status)).await,
        };
        let around = Surroundings {
            ending: stay.ending.clone(),
            draining: self.connection.shared.draining.clone(),
            drain_timeout: self.connection.live.config.drain_timeout.get(),
        };
        let ended = Box::pin(bridge::run(&self.client, &self.input, process, around, || self.note_first_byte(&stay))).await;
        match ended {
            Ended::Exited(exit) => Some(exit),
            Ended::Gone => None,
            Ended::Died(exit) => {
                tracing::warn!("container ended under a session");
                let failed = exit.filter(|exit| *exit != Exit::Status(0));
                self.say_and_end(words::DIED, failed.unwrap_or(Exit::Status(words::TEMPORARY))).await
            }
            Ended::Lost(why) => {
                tracing::error!(error = %why, "session lost");
                self.say_and_end(words::LOST, Exit::Status(words::TEMPORARY)).await
            }
        }
    }

    async fn say_and_end(&self, words: &str, exit: Exit) -> Option<Exit> {
        self.client.say(words).await.ok().map(|()| exit)
    }

    /// Opens the process in a workspace that is ready, which is made so again should its container go away in between.
    async fn open(&self, mut spec: ProcessSpec) -> Result<(Stay, Process), Unready> {
        for _ in 0..TRIES {
            let stay = self.ensure(spec.pty.as_ref().map(|pty| pty.size.columns)).await?;
            self.complete(&mut spec, &stay);
            match tokio::time::timeout(OPEN, self.connection.shared.keeper.open(&stay, &spec)).await {
                Ok(Ok(process)) => return Ok((stay, process)),
                Ok(Err(OpenError::Gone)) => tracing::info!("container went away before the process was open"),
                Ok(Err(OpenError::Attach(why))) => {
                    tracing::error!(error = %why, "process not opened");
                    return Err(Unready::Say(words::NOT_OPENED.to_owned(), words::TEMPORARY));
                }
                Err(_) => {
                    tracing::error!(within = ?OPEN, "process not opened in time");
                    return Err(Unready::Say(words::NOT_OPENED.to_owned(), words::TEMPORARY));
                }
            }
        }
        Err(Unready::Say(words::DIED.to_owned(), words::TEMPORARY))
    }

    /// Has the workspace made ready. The client may go, or the person give up, and then nobody waits any more; that the client's *input* has
    /// ended is no reason, as with `ssh host command </dev/null`.
    async fn ensure(&self, columns: Option<u16>) -> Result<Stay, Unready> {
        let progress = watch::Sender::new(Progress::default());
        let watched = progress.subscribe();
        let ensured = self.connection.shared.keeper.ensure(&self.entered.grant, &progress);
        let ensured = async {
            match columns {
                Some(columns) => waiting::show(&self.client, columns, watched, ensured).await,
                None => ensured.await,
            }
        };
        tokio::select! {
            stay = ensured => stay.map_err(|why| {
                tracing::warn!(error = %why, "workspace not ready");
                let (words, status) = words::not_ready(&why);
                Unready::Say(words, status)
            }),
            () = self.input.gone().cancelled() => Err(Unready::Gone),
            () = self.input.interrupted(), if columns.is_some() => Err(Unready::Say(words::INTERRUPTED.to_owned(), words::CTRL_C)),
        }
    }

    /// What the login says about where it came from, what the grant adds, and what the client set; of a name twice the last counts.
    fn environment(&self, client: Vec<(String, String)>) -> Vec<(String, String)> {
        let (remote, local) = (self.connection.remote, self.connection.local);
        let (from, to) = (remote.ip().to_canonical(), local.ip().to_canonical());
        let mut all = vec![
            ("SSH_CONNECTION".to_owned(), format!("{from} {} {to} {}", remote.port(), local.port())),
            ("SSH_CLIENT".to_owned(), format!("{from} {} {}", remote.port(), local.port())),
        ];
        all.extend(self.entered.grant.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
        all.extend(client);
        all
    }

    /// What is only known once the workspace is ready.
    fn complete(&self, spec: &mut ProcessSpec, stay: &Stay) {
        let Some(pty) = &mut spec.pty else { return };
        if let Some(resized) = *self.input.size().borrow() {
            pty.size = resized;
        }
        if spec.program == Program::LoginShell {
            let unseen = !self.connection.message_shown.swap(true, Ordering::Relaxed);
            let message = self.entered.grant.message.as_ref().filter(|_| unseen);
            let parts: Vec<&str> = stay.motd.iter().chain(message).map(|text| text.trim_end()).filter(|text| !text.is_empty()).collect();
            if spec.greeting.is_none() && !parts.is_empty() {
                spec.greeting = Some(parts.join("\n") + "\n");
            }
        }
    }

    /// Of the connection's first session only: a later one began long after the login.
    fn note_first_byte(&self, stay: &Stay) {
        if !self.connection.first_byte_seen.swap(true, Ordering::Relaxed) {
            let seconds = &self.connection.shared.metrics.first_byte_seconds;
            seconds.with_label_values(&[stay.path.label()]).observe(self.entered.at.elapsed().as_secs_f64());
        }
    }
}

/// What is counted and logged of a session, however it ends.
struct Record<'a> {
    metrics: &'a Metrics,
    kind: &'static str,
    began: Instant,
}

impl<'a> Record<'a> {
    fn begin(metrics: &'a Metrics, start: &Start) -> Self {
        let kind = match start.program {
            Ok(Program::LoginShell) => "shell",
            Ok(Program::Command(_)) => "exec",
            Ok(Program::Sftp) => "sftp",
            Err(_) => "refused",
        };
        metrics.sessions_open.inc();
        tracing::info!(kind, terminal = start.pty.is_some(), "session started");
        Self { metrics, kind, began: Instant::now() }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let lasted = self.began.elapsed();
        self.metrics.sessions_open.dec();
        self.metrics.sessions.with_label_values(&[self.kind]).inc();
        self.metrics.session_seconds.observe(lasted.as_secs_f64());
        tracing::info!(kind = self.kind, ?lasted, "session ended");
    }
}
