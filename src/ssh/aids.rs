//! What a client lends to the processes of its sessions: its key agent and its display.
//!
//! Both are sockets in the container that somebody in it may connect to, and variables that say where. A session whose client lends nothing
//! that works starts without.

use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE;
use parking_lot::Mutex;
use russh::server::Handle;

use super::connection::Connection;
use super::forward::{Announced, Refusal, Way};
use super::login::Entered;
use super::remote::{self, Listener};
use crate::attach::{Address, Endpoint};
use crate::workspace::Stay;

/// Longest name of a way to authenticate at a display, in bytes.
const MAX_PROTOCOL: usize = 64;

/// Longest cookie, in bytes; MIT-MAGIC-COOKIE-1 has 16.
const MAX_COOKIE: usize = 128;

/// Most screens of a display.
const MAX_SCREEN: u32 = 255;

/// The port of the display 0.
const FIRST_PORT: u16 = 6000;

/// What the client has offered on one channel.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// Its agent.
    pub(super) agent: bool,
    /// Its display.
    pub(super) display: Option<Display>,
}

/// A display that the client offers.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Display {
    protocol: String,
    /// Not the display's own: the client exchanges them.
    cookie: Vec<u8>,
    screen: u32,
    /// Whether it is for one connection only.
    once: bool,
}

/// The socket at which one connection's agent is had. It stays for as long as the connection does, so that a second session, or what is left
/// of the first, still has it.
#[derive(Default)]
pub(super) struct Agent(Mutex<Option<AgentSocket>>);

struct AgentSocket {
    container: String,
    path: String,
    listener: Listener,
}

/// What one session was lent.
#[derive(Default)]
pub(super) struct Lent {
    /// Variables that say where.
    pub(super) env: Vec<(String, String)>,
    /// The display can be had for as long as this is held; connections that are there by then go on.
    pub(super) display: Option<Listener>,
    /// Something that was offered cannot be had.
    pub(super) lacks_agent: bool,
    /// The same.
    pub(super) lacks_display: bool,
}

/// Makes what the client offers available in a workspace that is ready.
pub(super) async fn lend(offered: &Offered, connection: &Arc<Connection>, entered: &Entered, handle: &Handle, stay: &Stay) -> Lent {
    let mut lent = Lent::default();
    if offered.agent {
        match connection.agent.path(connection, entered, handle, stay).await {
            Ok(path) => lent.env.push(("SSH_AUTH_SOCK".to_owned(), path)),
            Err(_) => lent.lacks_agent = true,
        }
    }
    if let Some(display) = &offered.display {
        match display.listen(connection, entered, handle, stay).await {
            Ok((listener, env)) => {
                lent.env.extend(env);
                lent.display = Some(listener);
            }
            Err(_) => lent.lacks_display = true,
        }
    }
    lent
}

// === impl Agent ===

impl Agent {
    /// Where it is; it is made if it is not there.
    async fn path(&self, connection: &Arc<Connection>, entered: &Entered, handle: &Handle, stay: &Stay) -> Result<String, Refusal> {
        let there = |socket: &AgentSocket| (!socket.listener.is_over() && socket.container == stay.container).then(|| socket.path.clone());
        if let Some(path) = self.0.lock().as_ref().and_then(there) {
            return Ok(path);
        }
        let listening = remote::listen(connection, stay, &Endpoint::Agent).await?;
        let Address::Unix { path } = listening.on.clone() else { return Err(Refusal::Unready) };
        // Two sessions may have come here at once: the first to have it is whose socket both get.
        let mut socket = self.0.lock();
        if let Some(path) = socket.as_ref().and_then(there) {
            return Ok(path);
        }
        // No stay: a socket that nobody uses keeps no workspace running, and who uses it has one.
        let way = way(connection, handle, Announced::Agent, stay);
        let listener = Listener::begin(way, entered.clone(), listening, false);
        *socket = Some(AgentSocket { container: stay.container.clone(), path: path.clone(), listener });
        Ok(path)
    }
}

// === impl Display ===

impl Display {
    /// What a client says of its display, if that can be.
    pub(super) fn parse(once: bool, protocol: &str, cookie: &str, screen: u32) -> Option<Self> {
        let is_name = (1..=MAX_PROTOCOL).contains(&protocol.len()) && protocol.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_name || cookie.len() > 2 * MAX_COOKIE || screen > MAX_SCREEN {
            return None;
        }
        let cookie = HEXLOWER_PERMISSIVE.decode(cookie.as_bytes()).ok().filter(|cookie| !cookie.is_empty())?;
        Some(Self { protocol: protocol.to_owned(), cookie, screen, once })
    }

    async fn listen(
        &self,
        connection: &Arc<Connection>,
        entered: &Entered,
        handle: &Handle,
        stay: &Stay,
    ) -> Result<(Listener, [(String, String); 2]), Refusal> {
        let endpoint = Endpoint::X11 { protocol: self.protocol.clone(), cookie: self.cookie.clone() };
        let listening = remote::listen(connection, stay, &endpoint).await?;
        // The port, and as its host the path of the file with the cookie.
        let Address::Tcp { host: file, port } = listening.on.clone() else { return Err(Refusal::Unready) };
        let number = port.checked_sub(FIRST_PORT).ok_or(Refusal::Unready)?;
        let name = format!("localhost:{number}.{}", self.screen);
        let mut way = way(connection, handle, Announced::X11, stay);
        // A window may be open for longer than the session that opened it.
        way.stay = connection.shared.keeper.reach(&entered.grant).await.ok().map(Arc::new);
        let listener = Listener::begin(way, entered.clone(), listening, self.once);
        Ok((listener, [("DISPLAY".to_owned(), name), ("XAUTHORITY".to_owned(), file)]))
    }
}

impl std::fmt::Debug for Display {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Display").field("protocol", &self.protocol).field("screen", &self.screen).finish_non_exhaustive()
    }
}

fn way(connection: &Arc<Connection>, handle: &Handle, announced: Announced, stay: &Stay) -> Way {
    Way { connection: connection.clone(), handle: handle.clone(), announced, ending: stay.ending.clone(), stay: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_what_looks_like_one() {
        let display = Display::parse(true, "MIT-MAGIC-COOKIE-1", "00fFa1", 2).unwrap();
        assert_eq!(display, Display { protocol: "MIT-MAGIC-COOKIE-1".into(), cookie: vec![0, 0xff, 0xa1], screen: 2, once: true });
        assert!(!format!("{display:?}").contains("161"), "a cookie is a credential");
        let hex = "00".repeat(MAX_COOKIE + 1);
        for (protocol, cookie, screen) in [
            ("", "00", 0),
            ("MIT MAGIC", "00", 0),
            ("a\nb", "00", 0),
            (&*"a".repeat(65), "00", 0),
            ("MIT", "", 0),
            ("MIT", "0", 0),
            ("MIT", "0g", 0),
            ("MIT", "; id", 0),
            ("MIT", &*hex, 0),
            ("MIT", "00", 256),
        ] {
            assert!(Display::parse(false, protocol, cookie, screen).is_none(), "{protocol:?} {cookie:?} {screen}");
        }
    }
}
