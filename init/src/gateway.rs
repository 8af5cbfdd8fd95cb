//! The connection with the gateway: dialed, lost, and dialed again, for ever.
//!
//! What cannot be sent at once waits in a bounded queue. A gateway that lets it run full, or that says what is no order, is hung up on: the
//! next connection begins with everything that is still true. Knows nothing of what is said.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{MAX_MESSAGE, Order, Report};
use innkeeper_init::wire::{self, WireError};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::note::note;
use crate::poll::{Poll, Source, Want, Watch};

/// Most messages that wait for the gateway.
const QUEUE: usize = 1024;

/// Most messages that wait while connections are still accepted: what is accepted comes with a descriptor.
const BUSY: usize = 64;

/// How often the gateway is dialed in the first second after it was lost, and later.
const REDIAL_SOON: Duration = Duration::from_millis(50);
const REDIAL: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(1);

/// How long room is waited for in the gateway's queue. It is full only where others in the container dial without end; who waits has a turn
/// among them when the gateway next empties it, several times a second, and who only asks again and again has none. Nothing else is done
/// meanwhile.
const TURN: Duration = Duration::from_secs(1);

/// An order's number, and on which connection it came: the answer goes there or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) connection: u64,
}

/// The connection.
pub(crate) struct Gateway {
    address: SocketAddrUnix,
    socket: Option<OwnedFd>,
    watch: Watch,
    /// How many there have been: the number of this one.
    connection: u64,
    welcome: bool,
    /// Whether it has given an order that is not known here.
    newer: bool,
    broken: bool,
    queue: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    lost: Instant,
    dial_at: Instant,
    buffer: Vec<u8>,
}

// === impl Gateway ===

impl Gateway {
    /// One that listens there, or will.
    pub(crate) fn new(address: SocketAddrUnix, now: Instant) -> Self {
        let (watch, queue) = (Watch::default(), VecDeque::new());
        let (connection, welcome, newer, broken) = (0, false, false, false);
        Self { address, socket: None, watch, connection, welcome, newer, broken, queue, lost: now, dial_at: now, buffer: Vec::new() }
    }

    /// The number of the connection there is.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.socket.as_ref().map(|_| self.connection)
    }

    /// Whether connections may be accepted for it.
    pub(crate) fn takes_connections(&self) -> bool {
        self.socket.is_some() && self.queue.len() < BUSY
    }

    /// When it is dialed next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.socket.is_none().then_some(self.dial_at)
    }

    /// Dials, if it is time, and says hello.
    pub(crate) fn dial(&mut self, now: Instant, hello: impl FnOnce() -> Report) {
        if self.socket.is_some() || now < self.dial_at {
            return;
        }
        self.dial_at = now + if now.saturating_duration_since(self.lost) < SOON { REDIAL_SOON } else { REDIAL };
        let Ok(socket) = self.connected() else { return };
        self.socket = Some(socket);
        self.connection += 1;
        (self.welcome, self.newer, self.broken) = (false, false, false);
        self.report(&hello(), Vec::new());
    }

    fn connected(&self) -> Result<OwnedFd, Errno> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&socket, Timeout::Send, Some(TURN))?;
        connect(&socket, &self.address)?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }

    /// Says this, with these descriptors, to whoever is there; to nobody if nobody is.
    pub(crate) fn report(&mut self, report: &Report, descriptors: Vec<OwnedFd>) {
        if self.socket.is_none() {
            return;
        }
        match wire::encode(report) {
            Ok(bytes) if self.queue.len() < QUEUE => self.queue.push_back((bytes, descriptors)),
            Ok(_) => self.break_off("the gateway does not listen"),
            Err(why) => self.break_off(&format!("a report could not be written: {why}")),
        }
        self.flush();
    }

    /// Answers an order, unless whoever gave it is gone.
    pub(crate) fn answer(&mut self, request: Request, report: &Report, descriptors: Vec<OwnedFd>) {
        if request.connection == self.connection {
            self.report(report, descriptors);
        }
    }

    /// The next order that has come.
    pub(crate) fn receive(&mut self) -> Option<Order> {
        let socket = self.socket.as_ref().filter(|_| !self.broken)?;
        if self.buffer.is_empty() {
            // Of zeros that nobody wrote: what no message fills takes no memory.
            self.buffer = vec![0; MAX_MESSAGE];
        }
        let why = match wire::receive(socket, &mut self.buffer) {
            Ok(wire::Received { message: Order::Welcome { .. }, .. }) if !self.welcome => {
                self.welcome = true;
                return self.receive();
            }
            Ok(received) if self.welcome => return Some(received.message),
            Ok(_) => "an order came before the welcome".to_owned(),
            Err(WireError::WouldBlock) => return None,
            // Others have their turn, and then the next order.
            Err(WireError::Unknown { .. }) if self.welcome => {
                if !std::mem::replace(&mut self.newer, true) {
                    note("the gateway is newer: what is not known here is not done");
                }
                return None;
            }
            Err(WireError::Closed) => String::new(),
            Err(why) => format!("what the gateway has said: {why}"),
        };
        self.break_off(&why);
        None
    }

    /// It cannot be spoken with: the connection is dropped when the loop comes round.
    pub(crate) fn break_off(&mut self, why: &str) {
        if !why.is_empty() && !self.broken {
            note(why);
        }
        self.broken = true;
    }

    /// Sends what waits, as much as is taken.
    pub(crate) fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some((bytes, descriptors)) = self.queue.front() {
            let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
            match wire::send(socket, bytes, &borrowed) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(WireError::WouldBlock) => return,
                Err(WireError::Closed) => return self.break_off(""),
                Err(why) => return self.break_off(&format!("a report could not be sent: {why}")),
            }
        }
    }

    /// Draws the conclusions of what has happened, and says whether the connection was lost.
    pub(crate) fn settle(&mut self, now: Instant, poll: &mut Poll) -> bool {
        let Some(socket) = &self.socket else { return false };
        if !self.broken {
            poll.watch(socket, &mut self.watch, Source::Gateway, Want { write: !self.queue.is_empty(), ..Want::READ });
            return false;
        }
        poll.forget(socket, &mut self.watch);
        self.socket = None;
        self.queue.clear();
        self.buffer = Vec::new();
        (self.lost, self.dial_at) = (now, now + REDIAL_SOON);
        true
    }
}
