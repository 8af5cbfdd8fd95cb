//! People in the container who ask: to keep the workspace running, or how it stands. The gateway answers; init carries the words.
//!
//! Each is a connection to an abstract socket, with one question. Whoever has a lease holds it as long as her connection is there. A
//! question that no gateway is there for waits for one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use innkeeper_init::closing::Foreign;
use innkeeper_init::protocol::{Answer, Ask, LOCAL_SOCKET, Lease, Report};
use innkeeper_init::wire::{self, WireError};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with, sockopt};

use crate::gateway::Gateway;
use crate::note::note;
use crate::poll::{Poll, Source, Want, Watch};

/// Most callers at once; more are hung up on.
const CALLERS: usize = 64;

/// Longest question, in bytes.
const LONGEST: usize = 4 * 1024;

/// Longest text of what a lease is for, in bytes: all of them are told in one message.
const WHAT: usize = 256;

/// How long a caller may take to ask, and a gateway to answer, its coming back included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most callers taken before others have their turn.
const TURN: usize = 16;

/// For how long nobody is taken when there are no descriptors left: the kernel would say so without end.
const PAUSE: Duration = Duration::from_millis(100);

struct Caller {
    socket: Foreign,
    watch: Watch,
    /// Until when she may ask, be answered, or hold what she has.
    until: Instant,
    call: Call,
}

enum Call {
    /// She has not asked yet.
    Silent,
    /// She wants the workspace kept; this is the connection on which the gateway was asked.
    Asks { lease: Lease, connection: Option<u64> },
    /// It is not kept for her.
    Refused,
    /// It is.
    Holds { what: String },
    /// She wants to know how it stands.
    Wonders { connection: Option<u64> },
}

/// All of them, by numbers that are their leases' and their questions' as well.
pub(crate) struct Callers {
    listener: Option<OwnedFd>,
    watch: Watch,
    paused: Option<Instant>,
    all: BTreeMap<u64, Caller>,
    last: u64,
}

// === impl Callers ===

impl Callers {
    /// Nobody yet. Where others have the socket, nobody ever: that is no reason not to start.
    pub(crate) fn new() -> Self {
        let listener = listening().inspect_err(|why| note(&format!("nobody inside can ask anything: {why}"))).ok();
        Self { listener, watch: Watch::default(), paused: None, all: BTreeMap::new(), last: 0 }
    }

    /// What is held.
    pub(crate) fn leases(&self, now: Instant) -> Vec<Lease> {
        let leases = self.all.iter().filter_map(|(number, caller)| match &caller.call {
            Call::Holds { what } => {
                let left = caller.until.saturating_duration_since(now).as_millis().div_ceil(1000);
                Some(Lease { lease: *number, seconds: u32::try_from(left).unwrap_or(u32::MAX), what: what.clone() })
            }
            _ => None,
        });
        leases.collect()
    }

    /// Somebody has connected.
    pub(crate) fn accept(&mut self, now: Instant) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..TURN {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map(Foreign::from) {
                Ok(socket) if self.all.len() < CALLERS && is_own(&socket) => {
                    self.last += 1;
                    let caller = Caller { socket, watch: Watch::default(), until: now + PATIENCE, call: Call::Silent };
                    self.all.insert(self.last, caller);
                }
                Ok(_) | Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.paused = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    /// She asks, or hangs up. Who says more than one thing is hung up on.
    pub(crate) fn ready(&mut self, number: u64, now: Instant, gateway: &mut Gateway, poll: &mut Poll) {
        let Some(caller) = self.all.get_mut(&number) else { return };
        let asked = match wire::receive_foreign(&caller.socket, &mut [0; LONGEST]) {
            Ok(received) => Some(received.message),
            Err(WireError::WouldBlock) => return,
            Err(_) => None,
        };
        match (asked, &caller.call) {
            (Some(Ask::Keep { seconds, what }), Call::Silent) => {
                let what = what.get(..what.floor_char_boundary(WHAT)).unwrap_or_default().to_owned();
                caller.call = Call::Asks { lease: Lease { lease: number, seconds, what }, connection: None };
                caller.until = now + PATIENCE;
            }
            (Some(Ask::Status), Call::Silent) => {
                caller.call = Call::Wonders { connection: None };
                caller.until = now + PATIENCE;
            }
            _ => self.end(number, gateway, poll),
        }
    }

    /// The gateway keeps the workspace for one of them, or does not.
    pub(crate) fn keep(&mut self, lease: u64, seconds: u32, words: Option<String>, now: Instant, gateway: &mut Gateway, poll: &mut Poll) {
        let Some(caller) = self.all.get_mut(&lease) else {
            // She has left before it was granted.
            if seconds > 0 {
                gateway.report(&Report::KeepEnded { lease }, Vec::new());
            }
            return;
        };
        let Call::Asks { lease: asked, .. } = &mut caller.call else { return };
        let (seconds, what) = (seconds.min(asked.seconds), std::mem::take(&mut asked.what));
        caller.until = now + Duration::from_secs(seconds.into());
        caller.call = if seconds == 0 { Call::Refused } else { Call::Holds { what } };
        if !caller.say(&Answer::Kept { seconds, words }) || seconds == 0 {
            self.end(lease, gateway, poll);
        }
    }

    /// The gateway says how the workspace stands.
    pub(crate) fn tell(&mut self, question: u64, text: String, gateway: &mut Gateway, poll: &mut Poll) {
        if let Some(caller) = self.all.get_mut(&question)
            && let Call::Wonders { .. } = caller.call
        {
            caller.say(&Answer::Status { text });
            self.end(question, gateway, poll);
        }
    }

    /// When there is something to do, if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.all.values().map(|caller| caller.until).chain(self.paused).min()
    }

    /// Asks the gateway what it was not asked yet, and ends what has taken too long.
    pub(crate) fn settle(&mut self, now: Instant, gateway: &mut Gateway, poll: &mut Poll) {
        self.paused = self.paused.filter(|until| *until > now);
        if let Some(listener) = &self.listener {
            let want = if self.paused.is_none() { Want::READ } else { Want::NOTHING };
            poll.watch(listener, &mut self.watch, Source::Door, want);
        }
        let here = gateway.connection();
        for (number, caller) in &mut self.all {
            poll.watch(&caller.socket, &mut caller.watch, Source::Caller { caller: *number }, Want::READ);
            match &mut caller.call {
                Call::Asks { lease, connection } if here.is_some() && *connection != here => {
                    *connection = here;
                    gateway.report(&Report::KeepAsked { lease: lease.clone() }, Vec::new());
                }
                Call::Wonders { connection } if here.is_some() && *connection != here => {
                    *connection = here;
                    gateway.report(&Report::StatusAsked { question: *number }, Vec::new());
                }
                _ => {}
            }
        }
        let late: Vec<_> = self.all.iter().filter(|(_, caller)| caller.until <= now).map(|(number, _)| *number).collect();
        for number in late {
            if let Some(caller) = self.all.get_mut(&number)
                && let Call::Asks { .. } = caller.call
            {
                caller.say(&Answer::Kept { seconds: 0, words: Some("the gateway does not answer".to_owned()) });
            }
            self.end(number, gateway, poll);
        }
    }

    /// Hangs up on her. What she holds, or may be given yet, is not held any more.
    fn end(&mut self, number: u64, gateway: &mut Gateway, poll: &mut Poll) {
        let Some(mut caller) = self.all.remove(&number) else { return };
        poll.forget(&caller.socket, &mut caller.watch);
        if let Call::Holds { .. } | Call::Asks { connection: Some(_), .. } = caller.call {
            gateway.report(&Report::KeepEnded { lease: number }, Vec::new());
        }
    }
}

// === impl Caller ===

impl Caller {
    /// Whether it could be said. There is room: nothing was said to her before.
    fn say(&self, answer: &Answer) -> bool {
        wire::encode(answer).and_then(|bytes| wire::send(&self.socket, &bytes, &[])).is_ok()
    }
}

fn listening() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&listener, &SocketAddrUnix::new_abstract_name(LOCAL_SOCKET)?)?;
    listen(&listener, TURN as i32)?;
    Ok(listener)
}

/// The socket has no permissions: others of the container's may connect, and so may whoever else has its network.
fn is_own(socket: &Foreign) -> bool {
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == rustix::process::getuid())
}
