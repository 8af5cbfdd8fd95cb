//! The client's messages and our answers, one connection's.
//!
//! Every callback runs inside the protocol's loop and answers at once: a reply that is put off gets lost when the next request overtakes it,
//! and a callback that waits for a channel waits for itself. What takes time is in `session` and `forward`; only a place to listen is waited
//! for here, within a deadline, as the reply says which port it has. Whatever is not answered here is refused.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::keys::Certificate;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler as Protocol, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Error, MethodKind, MethodSet, Pty};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::aids::Display;
use super::channel::Requests;
use super::connection::{CHANNELS_IN_A_LIFE, Connection, Farewell, Stage};
use super::forward::{self, Kind, Refusal};
use super::login::{Answer, Login};
use super::protocol::methods;
use super::remote::{Listeners, Place};
use super::windows::{TRICKLE, TRICKLE_EVERY, Windows};
use super::{session, terminals, words};
use crate::attach::{Address, Program};
use crate::auth::Permit;
use crate::name::printable;

/// How long a new session waits for the place of one that is being closed.
const CLOSING: Duration = Duration::from_millis(250);

/// One connection's handler.
pub(super) struct Handler {
    connection: Arc<Connection>,
    login: Login,
    channels: HashMap<ChannelId, Requests>,
    /// Sessions that were asked for so far.
    opened: usize,
    /// Where the client listens in the container.
    listeners: Listeners,
    windows: Windows,
    /// Whether a refused session was logged; one line is enough.
    shortage_logged: bool,
}

impl Handler {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let (login, listeners) = (Login::new(connection.clone()), Listeners::new(connection.clone()));
        Self { login, listeners, windows: Windows::default(), connection, channels: HashMap::new(), opened: 0, shortage_logged: false }
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

    /// Whether who is logged in may have a forward of this kind; that she may not is logged.
    fn may_forward(&self, kind: Kind) -> bool {
        let may = kind.is_permitted(self.permit());
        if !may {
            self.connection.forwards.refuse(&self.connection, kind, "", Refusal::Denied);
        }
        may
    }

    /// What who is logged in may do.
    fn permit(&self) -> Permit {
        self.login.entered().map(|entered| self.connection.shared.keeper.permit(&entered.grant)).unwrap_or_default()
    }

    /// The client wants to reach something in the container.
    async fn forward(&self, kind: Kind, to: Option<Address>, channel: Channel<Msg>, reply: ChannelOpenHandle) {
        match self.login.entered() {
            Some(entered) => Box::pin(forward::toward(&self.connection, entered, kind, to, channel, reply)).await,
            None => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
        }
    }

    /// The client wants to listen in the container.
    async fn listen(&mut self, place: Place, handle: Handle) -> Option<u16> {
        let entered = self.login.entered()?.clone();
        Box::pin(self.listeners.listen(&entered, handle, place)).await
    }

    /// A place for one more session. One that was closed just now may still hold its own, which is worth a moment.
    async fn session_permit(&self) -> Option<OwnedSemaphorePermit> {
        let sessions = self.connection.sessions.clone();
        let closing = self.channels.len() < self.connection.live.config.max_sessions;
        match sessions.clone().try_acquire_owned() {
            // A timer has milliseconds: who is refused at once needs none.
            Err(_) if closing => tokio::time::timeout(CLOSING, sessions.acquire_owned()).await.ok()?.ok(),
            tried => tried.ok(),
        }
    }

    fn requests(&mut self, id: ChannelId) -> Option<&mut Requests> {
        self.channels.get_mut(&id)
    }

    /// Starts a program, or where the grant does not permit it, has that said in its place.
    fn start(&mut self, id: ChannelId, program: Program, session: &mut Session) -> Result<(), Error> {
        let permit = self.permit();
        let program = match program {
            Program::Command(command) if !permit.exec && !terminals::is_asked_for(&command) => Err(words::NO_EXEC),
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

/// What waits is on the heap: the library keeps room for the largest of these as long as a connection lasts, whose logins are long over.
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
        let answer = Box::pin(self.login.password(user, password.as_bytes()).instrument(span)).await;
        Ok(self.auth(answer))
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Error> {
        let span = self.connection.span.clone();
        let answer = Box::pin(self.login.key_offered(user, offer.public_key, offer.algorithm).instrument(span)).await;
        Ok(self.auth(answer))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let span = self.connection.span.clone();
        let answer = Box::pin(self.login.key_verified(user, key.public_key, key.algorithm).instrument(span)).await;
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
        let answer = Box::pin(self.login.password(user, &password).instrument(span)).await;
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
        if self.opened + self.connection.forwards.closed_first() > CHANNELS_IN_A_LIFE {
            self.connection.stage.send_replace(Stage::Over(Farewell::WornOut));
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let Some(permit) = Box::pin(self.session_permit()).await else {
            if !std::mem::replace(&mut self.shortage_logged, true) {
                tracing::warn!(parent: &self.connection.span, limit = self.connection.live.config.max_sessions, "session refused: too many");
            }
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (start, started) = oneshot::channel();
        let input = self.connection.inputs.begin(channel.id());
        let permit = Arc::new(permit);
        self.channels.insert(channel.id(), Requests::new(start, input.clone(), permit.clone()));
        session::begin(self.connection.clone(), entered.clone(), session.handle(), channel, input, started, permit);
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_x11(&mut self, _: Channel<Msg>, _: &str, _: u32, reply: ChannelOpenHandle, _: &mut Session) -> Result<(), Error> {
        // Displays are on the other side.
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.forward(Kind::Local, forward::port(host, port), channel, reply).await;
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
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        self.forward(Kind::LocalSocket, forward::socket(path), channel, reply).await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Error> {
        self.channels.remove(&id);
        Ok(())
    }

    fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> impl Future<Output = Result<(), Error>> + Send {
        let connection = self.connection.clone();
        let held = data.len() <= TRICKLE as usize && connection.inputs.is_full(id);
        async move {
            if connection.inputs.is_crowded() {
                connection.inputs.relieve().await;
            } else if held {
                tokio::time::sleep(TRICKLE_EVERY).await;
            }
            Ok(())
        }
    }

    fn adjust_window(&mut self, id: ChannelId, current: u32) -> u32 {
        let inputs = &self.connection.inputs;
        self.windows.next(current, inputs.is_full(id), inputs.is_any_full(), Instant::now())
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

    async fn x11_request(
        &mut self,
        id: ChannelId,
        once: bool,
        protocol: &str,
        cookie: &str,
        screen: u32,
        session: &mut Session,
    ) -> Result<(), Error> {
        let display = Display::parse(once, protocol, cookie, screen).filter(|_| self.may_forward(Kind::X11));
        let noted = self.requests(id).filter(|requests| !requests.has_started()).zip(display);
        let noted = noted.map(|(requests, display)| requests.offered.display = Some(display));
        answer(session, id, noted.is_some())
    }

    async fn agent_request(&mut self, id: ChannelId, _: &mut Session) -> Result<bool, Error> {
        if !self.may_forward(Kind::Agent) {
            return Ok(false);
        }
        let noted = self.requests(id).filter(|requests| !requests.has_started()).map(|requests| requests.offered.agent = true);
        Ok(noted.is_some())
    }

    async fn tcpip_forward(&mut self, host: &str, port: &mut u32, session: &mut Session) -> Result<bool, Error> {
        let Ok(asked) = u16::try_from(*port) else { return Ok(false) };
        let bound = self.listen(Place::Port(host.to_owned(), asked), session.handle()).await;
        *port = u32::from(bound.unwrap_or(asked));
        Ok(bound.is_some())
    }

    async fn cancel_tcpip_forward(&mut self, host: &str, port: u32, _: &mut Session) -> Result<bool, Error> {
        let Ok(port) = u16::try_from(port) else { return Ok(false) };
        Ok(self.listeners.cancel(&Place::Port(host.to_owned(), port)).await)
    }

    async fn streamlocal_forward(&mut self, path: &str, session: &mut Session) -> Result<bool, Error> {
        Ok(self.listen(Place::Socket(path.to_owned()), session.handle()).await.is_some())
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Error> {
        Ok(self.listeners.cancel(&Place::Socket(path.to_owned())).await)
    }
}
