//! The task behind one session channel: waits for what is asked for, has the workspace made ready, opens the process, bridges, and ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::Channel;
use russh::server::{Handle, Msg};
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};
use tokio::time::Instant;

use super::aids::{self, Offered};
use super::bridge::{self, Ended, Surroundings};
use super::channel::Start;
use super::client::Client;
use super::connection::Connection;
use super::input::Input;
use super::leaving::{self, Staying};
use super::login::Entered;
use super::remote::Listener;
use super::tasks::contain;
use super::terminals::{self, Asked};
use super::{waiting, words};
use crate::attach::{AttachError, Exit, Process, ProcessSpec, Program};
use crate::audit::What;
use crate::name::TerminalName;
use crate::workspace::{Ending, OpenError, Progress, StartPath, Stay};

/// How long a client may keep a channel without asking for anything on it.
const IDLE_CHANNEL: Duration = Duration::from_secs(300);

/// How often a workspace is made ready again whose container went away before the process was open.
const TRIES: usize = 3;

/// How long opening a process may take.
const OPEN: Duration = Duration::from_secs(30);

/// How long the list of terminals may take where it was asked for.
const LIST: Duration = Duration::from_secs(10);

/// How long it may take where it is only a line of a greeting.
const GREETING: Duration = Duration::from_millis(300);

/// One session.
struct Session {
    connection: Arc<Connection>,
    entered: Entered,
    client: Client,
    handle: Handle,
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
    let client = Client::new(write, handle.clone(), input.clone());
    let session = Session { connection, entered, client, handle, input: input.clone() };
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
                let Start { program, pty, environment, offered } = start;
                let asked = Asked::of(program, pty.is_some(), self.entered.terminal.as_ref());
                let _record = Record::begin(&self.connection, &asked, pty.is_some());
                let columns = pty.as_ref().map(|pty| pty.size.columns);
                let (program, terminal) = match asked {
                    Asked::Run(program) => (program, None),
                    Asked::Terminal(name) => (Program::LoginShell, Some(name)),
                    Asked::List => return Box::pin(self.list(columns)).await,
                    Asked::Refused(words, status) => return self.say_and_end(words, Exit::Status(status)).await,
                };
                let keep_lost = self.connection.live.session.keep_lost.get();
                self.serve(ProcessSpec { pty, env: environment, terminal, keep_lost, ..ProcessSpec::new(program) }, &offered).await
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
    async fn serve(&self, spec: ProcessSpec, offered: &Offered) -> Option<Exit> {
        // Each on the heap for as long as it lasts: a session spends its life in the second, and what the first needs is gone by then.
        let (stay, process, staying, _display) = match Box::pin(self.open(spec, offered)).await {
            Ok(opened) => opened,
            Err(why) => return self.unready(why).await,
        };
        let control = process.control.clone();
        let around = Surroundings {
            staying: staying.clone(),
            ending: stay.ending.clone(),
            draining: self.connection.shared.draining.clone(),
            drain_timeout: self.connection.live.config.drain_timeout.get(),
        };
        let ended = Box::pin(bridge::run(&self.client, &self.input, process, around, || self.note_first_byte(&stay))).await;
        match ended {
            Ended::Exited(exit) => Some(exit),
            Ended::Gone => {
                Box::pin(leaving::leave(&self.connection, &self.input, stay, staying, control)).await;
                None
            }
            Ended::Died(exit) => {
                tracing::warn!("container ended under a session");
                let barred = match &*stay.ending.borrow() {
                    Some(Ending::Suspended(reason)) => Some(words::suspended(reason)),
                    Some(Ending::Deleted) => Some(words::DELETED.to_owned()),
                    _ => None,
                };
                if let Some(words) = barred {
                    // Whatever its process ended with: the reason is not in it.
                    return self.say_and_end(&words, Exit::Status(words::NOT_PERMITTED)).await;
                }
                let failed = exit.filter(|exit| *exit != Exit::Status(0));
                self.say_and_end(words::DIED, failed.unwrap_or(Exit::Status(words::TEMPORARY))).await
            }
            Ended::Expelled => {
                let unrecorded = *stay.ending.borrow() == Some(Ending::Unrecorded);
                tracing::info!(unrecorded, "session ended by an administrator, or as it cannot be recorded");
                // Her terminal too, were it one that goes on without her: it is the process that is to end.
                let hung_up = tokio::time::timeout(leaving::HANG_UP, control.hang_up()).await;
                if !matches!(hung_up, Ok(Ok(()))) {
                    tracing::warn!("the process of a session that was ended could not be hung up");
                }
                drop(stay);
                if unrecorded {
                    return self.say_and_end(words::UNRECORDED, Exit::Status(words::TEMPORARY)).await;
                }
                self.say_and_end(words::ENDED, Exit::Status(words::NOT_PERMITTED)).await
            }
            Ended::Lost(why) => {
                tracing::error!(error = %why, "session lost");
                self.say_and_end(words::LOST, Exit::Status(words::TEMPORARY)).await
            }
        }
    }

    /// Tells which terminals there are.
    async fn list(&self, columns: Option<u16>) -> Option<Exit> {
        let stay = match self.ensure(columns).await {
            Ok(stay) => stay,
            Err(why) => return self.unready(why).await,
        };
        let listed = tokio::time::timeout(LIST, self.connection.shared.keeper.terminals(&stay)).await;
        let all = match listed {
            Ok(Ok(terminals)) => terminals::reachable(terminals),
            Ok(Err(OpenError::Gone)) => return self.say_and_end(words::DIED, Exit::Status(words::TEMPORARY)).await,
            Ok(Err(OpenError::Attach(why))) => {
                tracing::error!(error = %why, "terminals not listed");
                return self.say_and_end(words::NOT_LISTED, Exit::Status(words::TEMPORARY)).await;
            }
            Err(_) => {
                tracing::error!(within = ?LIST, "terminals not listed in time");
                return self.say_and_end(words::NOT_LISTED, Exit::Status(words::TEMPORARY)).await;
            }
        };
        if all.is_empty() {
            return self.say_and_end(words::NO_TERMINALS, Exit::Status(0)).await;
        }
        let lines = words::terminals(&all);
        let lines = if columns.is_some() { lines.replace('\n', "\r\n") } else { lines };
        self.client.write(lines).await.ok().map(|()| Exit::Status(0))
    }

    async fn unready(&self, why: Unready) -> Option<Exit> {
        match why {
            Unready::Gone => None,
            Unready::Say(words, status) => self.say_and_end(&words, Exit::Status(status)).await,
        }
    }

    async fn say_and_end(&self, words: &str, exit: Exit) -> Option<Exit> {
        self.client.say(words).await.ok().map(|()| exit)
    }

    /// Opens the process in a workspace that is ready, which is made so again should its container go away in between.
    async fn open(&self, mut spec: ProcessSpec, offered: &Offered) -> Result<(Stay, Process, Staying, Option<Listener>), Unready> {
        let client = std::mem::take(&mut spec.env);
        let mut told = false;
        for _ in 0..TRIES {
            let stay = self.ensure(spec.pty.as_ref().map(|pty| pty.size.columns)).await?;
            spec.env = self.environment(&stay, &client);
            self.complete(&mut spec, &stay).await;
            let display = self.lend(offered, &mut spec, &stay).await;
            // Also where no greeting is read: before a command at a terminal, and whoever has a `.hushlogin`.
            if let (Some(recorded), Some(_), false) = (&stay.recorded, &spec.pty, std::mem::replace(&mut told, true)) {
                let _ = self.client.say(if recorded.watchable { words::WATCHED } else { words::RECORDED }).await;
            }
            match tokio::time::timeout(OPEN, self.connection.shared.keeper.open(&stay, &spec)).await {
                Ok(Ok(process)) => {
                    let staying = Staying::of(&spec, &*process.control);
                    return Ok((stay, process, staying, display));
                }
                Ok(Err(OpenError::Gone)) => tracing::info!("container went away before the process was open"),
                Ok(Err(OpenError::Attach(AttachError::Unsupported(why)))) if spec.terminal.is_some() => {
                    tracing::info!(why, "no terminal with a name");
                    return Err(Unready::Say(words::NO_NAMES.to_owned(), words::USAGE));
                }
                Ok(Err(OpenError::Attach(AttachError::Failed { why, text }))) => {
                    tracing::info!(?why, text, "process not opened");
                    return Err(Unready::Say(text, words::not_started(why)));
                }
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

    /// What the login says about where it came from, what the grant adds, what is set of the workspace, and what the client set; of a name
    /// twice the last counts. Secrets are not for here: they come after all of it, where the process is opened.
    fn environment(&self, stay: &Stay, client: &[(String, String)]) -> Vec<(String, String)> {
        let (remote, local) = (self.connection.remote, self.connection.local);
        let (from, to) = (remote.ip().to_canonical(), local.ip().to_canonical());
        let mut all = vec![
            ("SSH_CONNECTION".to_owned(), format!("{from} {} {to} {}", remote.port(), local.port())),
            ("SSH_CLIENT".to_owned(), format!("{from} {} {}", remote.port(), local.port())),
        ];
        all.extend(self.entered.grant.environment.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())));
        all.extend(stay.env.iter().chain(client).cloned());
        all
    }

    /// What is only known once the workspace is ready.
    async fn complete(&self, spec: &mut ProcessSpec, stay: &Stay) {
        let Some(pty) = &mut spec.pty else { return };
        if let Some(resized) = *self.input.size().borrow() {
            pty.size = resized;
        }
        if spec.program == Program::LoginShell {
            let unseen = !self.connection.message_shown.swap(true, Ordering::Relaxed);
            let message = self.entered.grant.message.as_ref().filter(|_| unseen);
            let lost = if unseen { self.lost(stay, spec.terminal.as_ref()).await } else { None };
            let full: Vec<String> = stay.fullness.iter().map(words::fullness).collect();
            let notes: Vec<String> = stay.notes.iter().map(words::note).collect();
            let parts = stay.motd.iter().chain(message).chain(&notes).chain(&full).chain(&lost).map(|text| text.trim_end());
            let parts: Vec<&str> = parts.filter(|text| !text.is_empty()).collect();
            if parts.is_empty() {
                return;
            }
            // Where the container went away before she was in it, what was to be said then is said still.
            let before = spec.greeting.take().unwrap_or_default();
            let new = parts.into_iter().filter(|part| !before.contains(part));
            spec.greeting = Some(new.fold(before.clone(), |all, part| all + part + "\n"));
        }
    }

    /// Has the client's agent and display made available; the display is, for as long as what is returned is held.
    async fn lend(&self, offered: &Offered, spec: &mut ProcessSpec, stay: &Stay) -> Option<Listener> {
        let lent = aids::lend(offered, &self.connection, &self.entered, &self.handle, stay).await;
        spec.env.extend(lent.env);
        for (_, words) in [(lent.lacks_agent, words::NO_AGENT), (lent.lacks_display, words::NO_DISPLAY)].iter().filter(|(lacks, _)| *lacks)
        {
            if self.input.is_terminal() {
                let _ = self.client.say(words).await;
            }
        }
        lent.display
    }

    /// What she is told of the terminals that were lost to her, the one that she is about to see left out. A login neither waits for it nor
    /// fails by it.
    async fn lost(&self, stay: &Stay, but: Option<&TerminalName>) -> Option<String> {
        if stay.path != StartPath::Attach {
            return None;
        }
        let listed = tokio::time::timeout(GREETING, self.connection.shared.keeper.terminals(stay)).await;
        let mut lost = terminals::lost(listed.ok()?.ok()?);
        lost.retain(|(name, _)| Some(name) != but);
        let lines: Vec<String> = lost.iter().map(|(name, terminal)| words::lost(name, terminal)).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
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
    connection: &'a Connection,
    kind: &'static str,
    began: Instant,
}

impl<'a> Record<'a> {
    fn begin(connection: &'a Connection, asked: &Asked, terminal: bool) -> Self {
        let kind = asked.label();
        connection.shared.metrics.sessions_open.inc();
        connection.record(What::SessionStarted { kind: kind.to_owned(), terminal });
        tracing::info!(kind, terminal, "session started");
        Self { connection, kind, began: Instant::now() }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let lasted = self.began.elapsed();
        let metrics = &self.connection.shared.metrics;
        metrics.sessions_open.dec();
        metrics.sessions.with_label_values(&[self.kind]).inc();
        metrics.session_seconds.observe(lasted.as_secs_f64());
        self.connection.record(What::SessionEnded { kind: self.kind.to_owned(), lasted });
        tracing::info!(kind = self.kind, ?lasted, "session ended");
    }
}
