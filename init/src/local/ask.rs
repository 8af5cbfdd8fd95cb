//! Asking init: one question, one answer, and a connection that holds what was granted.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{Answer, Ask, LOCAL_SOCKET, MAX_MESSAGE};
use innkeeper_init::wire::{self, WireError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// How long an answer may take: longer than init waits for the gateway.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Nobody listens.
    NotThere,
    /// More ask than are answered.
    Busy,
    /// It took too long, for init or for this.
    TimedOut,
    /// Anything else.
    Broken(String),
}

// === impl NoAnswer ===

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("this container has nobody to ask"),
            Self::Busy => f.write_str("too many are asking"),
            Self::TimedOut => f.write_str("the gateway does not answer"),
            Self::Broken(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// Asks this: the connection, and the answer.
pub(super) fn ask(ask: &Ask) -> Result<(OwnedFd, Answer), NoAnswer> {
    let broken = |why: Errno| NoAnswer::Broken(why.to_string());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(broken)?;
    let address = SocketAddrUnix::new_abstract_name(LOCAL_SOCKET).map_err(broken)?;
    connect(&socket, &address).map_err(|why| match why {
        Errno::CONNREFUSED => NoAnswer::NotThere,
        Errno::AGAIN => NoAnswer::Busy,
        why => broken(why),
    })?;
    let bytes = wire::encode(ask).map_err(|why| NoAnswer::Broken(why.to_string()))?;
    wire::send(&socket, &bytes, &[]).map_err(hung_up)?;
    let until = Instant::now() + PATIENCE;
    loop {
        if !wait(&socket, Some(until.saturating_duration_since(Instant::now()))) {
            return Err(NoAnswer::TimedOut);
        }
        match wire::receive(&socket, &mut vec![0; MAX_MESSAGE]) {
            Ok(received) => return Ok((socket, received.message)),
            Err(WireError::WouldBlock) => {}
            Err(why) => return Err(hung_up(why)),
        }
    }
}

/// Waits until init says something, or hangs up. `false`: it took too long.
pub(super) fn wait(socket: &OwnedFd, longest: Option<Duration>) -> bool {
    let longest = longest.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
    loop {
        match poll(&mut [PollFd::new(socket, PollFlags::IN)], longest.as_ref()) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Init hangs up on those of another user, on one too many, and on whoever the gateway has no answer for.
fn hung_up(why: WireError) -> NoAnswer {
    match why {
        WireError::Closed => NoAnswer::Broken("there is no answer: the gateway is away, this is another user, or too many ask".to_owned()),
        why => NoAnswer::Broken(why.to_string()),
    }
}
