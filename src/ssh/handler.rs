//! The client's messages and our answers, one connection's.
//!
//! Every callback runs inside the protocol's loop and answers at once: a reply that is put off gets lost when the next request overtakes it,
//! and a callback that waits for a channel waits for itself. What takes time is in `session`. Whatever is not answered here is refused.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handler as Protocol, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, MethodKind, MethodSet, Pty};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::Instrument;

use super::channel::Requests;
use super::connection::{Connection, Farewell, Stage};
use super::input::Input;
use super::login::{Answer, Login};
use super::protocol::{WINDOW, methods};
use super::{session, words};
use crate::attach::Program;
use crate::name::printable;

/// The window of a client that is held back, in bytes: two, the least that the library opens again by itself.
const TRICKLE: u32 = 2;

/// How long each trickle is held, so that a client that is held back costs nothing.
const TRICKLE_EVERY: Duration = Duration::from_millis(10);

/// Sessions that one connection may have one after another. The library keeps about 3.5 KiB of each that we close first until the connection
/// ends; with this it is at most 35 MiB, and clients that share connections (OpenSSH, JetBrains) make another by themselves.
const SESSIONS_IN_A_LIFE: usize = 10_000;

/// How long a new session waits for the place of one that is being closed.
const CLOSING: Duration = Duration::from_millis(250);

/// One connection's handler.
pub(super) struct Handler {
    connection: Arc<Connection>,
    login: Login,
    channels: HashMap<ChannelId, Requests>,
    /// Sessions that were asked for so far.
    opened: usize,
    /// Whether a refused session was logged; one line is enough.
    shortage_logged: bool,
}

impl Handler {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { login: Login::new(connection.clone()), connection, channels: HashMap::new(), opened: 0, shortage_logged: false }
    }

    /// Puts an answer into the protocol's words.
    fn auth(&self, answer: Answer) -> Auth {
        let farewell = match answer {
            Answer::Yes => return Auth::Accept,
            // Always the same methods: left to itself the library takes "password" off the list after the first try.
            Answer::No => return reject(methods()),
            Answer::TooManyTries => Farewell::TooManyTries,
            Answer::Unavailable => Farewell::LoginServiceDown,
        };
        self.connection.stage.send_replace(Stage::Over(farewell));
        // The library must answer this try before the farewell goes out. A client that is offered what it already failed would ask
        // its person for another password now; with this one it comes back at once, and reads the farewell.
        reject(MethodSet::from(&[MethodKind::KeyboardInteractive][..]))
    }

    /// A forward of some kind, which there are none of: an administrator finds out why it does not work.
    fn refuse_forward(&self, kind: &'static str) {
        tracing::info!(parent: &self.connection.span, kind, "forward refused");
    }

    /// A place for one more session. One that was closed just now may still hold its own, which is worth a moment.
    async fn session_permit(&self) -> Option<OwnedSemaphorePermit> {
        let sessions = self.connection.sessions.clone();
        let closing = self.channels.len() < self.connection.live.config.max_sessions;
        let wait = if closing { CLOSING } else { Duration::ZERO };
        tokio::time::timeout(wait, sessions.acquire_owned()).await.ok()?.ok()
    }

    fn requests(&mut self, id: ChannelId) -> Option<&mut Requests> {
        self.channels.get_mut(&id)
    }

    /// Starts a program, or where the grant does not permit it, has that said in its place.
    fn start(&mut self, id: ChannelId, program: Program, session: &mut Session) -> Result<(), Error> {
        let permit = self.login.entered().map(|entered| entered.grant.permit).unwrap_or_default();
        let program = match program {
            Program::Command(_) if !permit.exec => Err(words::NO_EXEC),
            Program::Sftp if !permit.sftp => Err(words::NO_SFTP),
            permitted => Ok(permitted),
        };
        let started = self.requests(id).is_some_and(|requests| requests.start(program));
        answer(session, id, started)
    }
}

fn reject(methods: MethodSet) -> Auth {
    Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
}

fn answer(session: &mut Session, id: ChannelId, success: bool) -> Result<(), Error> {
    if success { session.channel_success(id) } else { session.channel_failure(id) }
}

impl Protocol for Handler {
    type Error = Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Error> {
        let down = self.connection.shared.login_service_down.load(Ordering::Relaxed);
        Ok(down.then(|| words::LOGIN_SERVICE_DOWN_BANNER.to_owned()))
    }

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Error> {
        Ok(reject(methods()))
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Error> {
        let span = self.connection.span.clone();
        let answer = self.login.password(user, password.as_bytes()).instrument(span).await;
        Ok(self.auth(answer))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        let span = self.connection.span.clone();
        let answer = self.login.key_offered(user, offer.public_key, offer.algorithm).instrument(span).await;
        Ok(self.auth(answer))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let span = self.connection.span.clone();
        let answer = self.login.key_verified(user, key.public_key, key.algorithm).instrument(span).await;
        Ok(self.auth(answer))
    }

    /// The library checks a certificate's signature and dates, not who signed it, for whom, or what for: none is trusted.
    async fn auth_openssh_certificate(&mut self, _user: &str, _certificate: &Certificate) -> Result<Auth, Error> {
        Ok(reject(methods()))
    }

    /// Not offered, except for the farewell of `auth`. For clients that try it nevertheless it is another way to type a password.
    async fn auth_keyboard_interactive<'a>(&'a mut self, user: &str, _: &str, response: Option<Response<'a>>) -> Result<Auth, Error> {
        if let Stage::Over(farewell) = *self.connection.stage.borrow() {
            return Ok(Auth::Partial { name: "".into(), instructions: farewell.words().into(), prompts: (&[]).into() });
        }
        let Some(mut response) = response else {
            return Ok(Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![(words::PASSWORD_PROMPT.into(), false)].into(),
            });
        };
        let password = response.next().unwrap_or_default();
        let span = self.connection.span.clone();
        let answer = self.login.password(user, &password).instrument(span).await;
        Ok(self.auth(answer))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Error> {
        self.connection.stage.send_replace(Stage::Open);
        Ok(())
    }

    async fn channel_open_session(&mut self, channel: Channel<Msg>, reply: ChannelOpenHandle, session: &mut Session) -> Result<(), Error> {
        self.channels.retain(|_, requests| !requests.is_over());
        let Some(entered) = self.login.entered().filter(|_| !self.connection.shared.draining.is_cancelled()) else {
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        self.opened += 1;
        if self.opened > SESSIONS_IN_A_LIFE {
            self.connection.stage.send_replace(Stage::Over(Farewell::WornOut));
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let Some(permit) = self.session_permit().await else {
            if !std::mem::replace(&mut self.shortage_logged, true) {
                tracing::warn!(parent: &self.connection.span, limit = self.connection.live.config.max_sessions, "session refused: too many");
            }
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (start, started) = oneshot::channel();
        let input = Arc::new(Input::new());
        let permit = Arc::new(permit);
        self.channels.insert(channel.id(), Requests::new(start, input.clone(), permit.clone()));
        session::begin(self.connection.clone(), entered.clone(), session.handle(), channel, input, started, permit);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_x11(&mut self, _: Channel<Msg>, _: &str, _: u32, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), Error> {
        self.refuse_forward("x11");
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse_forward("direct-tcpip");
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.refuse_forward("direct-streamlocal");
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }

    fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> impl Future<Output = Result<(), Error>> + Send {
        let held = data.len() <= TRICKLE as usize && self.requests(id).is_some_and(|requests| requests.input.is_full());
        async move {
            if held {
                tokio::time::sleep(TRICKLE_EVERY).await;
            }
            Ok(())
        }
    }

    /// Called after a channel's window was opened to `current`; the answer is what the next one, of whichever channel, is opened to.
    ///
    /// While a session has more input than it takes, windows are opened by a trickle only, which keeps its client sending just enough to
    /// notice when that is over. Another channel that flows gets its window nevertheless, at its next piece.
    fn adjust_window(&mut self, id: ChannelId, current: u32) -> u32 {
        let starved = current == TRICKLE && self.requests(id).is_none_or(|requests| !requests.input.is_full());
        let some_full = || self.channels.values().any(|requests| requests.input.is_full());
        if starved || !some_full() { WINDOW } else { TRICKLE }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        _: u32,
        _: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Error> {
        let set = self.requests(id).is_some_and(|requests| requests.set_pty(term, columns, rows, modes));
        answer(session, id, set)
    }

    async fn env_request(&mut self, id: ChannelId, name: &str, value: &str, session: &mut Session) -> Result<(), Error> {
        let connection = self.connection.clone();
        let set = self.requests(id).is_some_and(|requests| requests.set_env(&connection.live.accept_env, name, value));
        answer(session, id, set)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Error> {
        self.start(id, Program::LoginShell, session)
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), Error> {
        self.start(id, Program::Command(command.to_vec()), session)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Error> {
        if name != "sftp" {
            tracing::info!(parent: &self.connection.span, name = %printable(&name.chars().take(64).collect::<String>()), "unknown subsystem");
            return session.channel_failure(id);
        }
        self.start(id, Program::Sftp, session)
    }

    /// Taken by `input`, in order with the data; here it is only answered, should a client want that.
    async fn window_change_request(&mut self, id: ChannelId, _: u32, _: u32, _: u32, _: u32, session: &mut Session) -> Result<(), Error> {
        session.channel_success(id)
    }

    async fn x11_request(&mut self, id: ChannelId, _: bool, _: &str, _: &str, _: u32, session: &mut Session) -> Result<(), Error> {
        self.refuse_forward("x11");
        session.channel_failure(id)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, Error> {
        self.refuse_forward("agent");
        Ok(false)
    }

    async fn tcpip_forward(&mut self, _: &str, _: &mut u32, _: &mut Session) -> Result<bool, Error> {
        self.refuse_forward("tcpip-forward");
        Ok(false)
    }

    async fn streamlocal_forward(&mut self, _: &str, _: &mut Session) -> Result<bool, Error> {
        self.refuse_forward("streamlocal-forward");
        Ok(false)
    }
}
