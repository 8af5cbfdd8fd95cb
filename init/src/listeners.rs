//! What is listened on for the gateway: it accepts, and passes on what it has accepted.
//!
//! All of it is the connection's: with the gateway's go its listeners.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{Address, Failure, Report};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::gateway::{Gateway, Request};
use crate::listen::Bound;
use crate::poll::{Poll, Source, Want, Watch};

/// Most listeners at once.
const LISTENERS: usize = 128;

/// Most connections accepted before others have their turn.
const TURN: usize = 16;

/// For how long nothing is accepted when there are no descriptors left: the kernel would say so without end.
const PAUSE: Duration = Duration::from_millis(100);

struct Listener {
    bound: Bound,
    watches: Vec<Watch>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Listeners {
    all: BTreeMap<u64, Listener>,
    last: u64,
    paused: Option<Instant>,
}

// === impl Listeners ===

impl Listeners {
    /// Whether there may be one more, with so many on their way.
    pub(crate) fn may_add(&self) -> bool {
        self.all.len() < LISTENERS
    }

    /// One more, as was asked for.
    pub(crate) fn add(&mut self, request: Request, bound: Bound, gateway: &mut Gateway) {
        if gateway.connection() != Some(request.connection) {
            return;
        }
        if !self.may_add() {
            let text = format!("there are {LISTENERS} listeners already");
            return gateway.report(&Report::Failed { request: request.number, why: Failure::Exhausted, text }, Vec::new());
        }
        self.last += 1;
        gateway.report(&Report::Listening { request: request.number, listener: self.last, on: bound.on.clone() }, Vec::new());
        let watches = bound.sockets.iter().map(|_| Watch::default()).collect();
        self.all.insert(self.last, Listener { bound, watches });
    }

    /// One less.
    pub(crate) fn remove(&mut self, listener: u64, poll: &mut Poll) {
        if let Some(listener) = self.all.remove(&listener) {
            listener.close(poll);
        }
    }

    /// None any more.
    pub(crate) fn clear(&mut self, poll: &mut Poll) {
        std::mem::take(&mut self.all).into_values().for_each(|listener| listener.close(poll));
    }

    /// Somebody has connected.
    pub(crate) fn ready(&mut self, listener: u64, which: usize, gateway: &mut Gateway) {
        let Some(socket) = self.all.get(&listener).and_then(|listener| listener.bound.sockets.get(which)) else { return };
        for _ in 0..TURN {
            if !gateway.takes_connections() {
                return;
            }
            match accept(socket) {
                Ok((accepted, from)) => gateway.report(&Report::Accepted { listener, from }, vec![accepted]),
                Err(Errno::AGAIN) => return,
                // The caller has hung up again.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => {
                    self.paused = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    /// When there is something to do, if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.paused
    }

    /// Draws the conclusions of what has happened.
    pub(crate) fn settle(&mut self, now: Instant, gateway: &Gateway, poll: &mut Poll) {
        self.paused = self.paused.filter(|until| *until > now);
        let want = if self.paused.is_none() && gateway.takes_connections() { Want::READ } else { Want::NOTHING };
        for (number, Listener { bound, watches }) in &mut self.all {
            for (which, (socket, watch)) in bound.sockets.iter().zip(watches).enumerate() {
                poll.watch(socket, watch, Source::Listener { listener: *number, which }, want);
            }
        }
    }
}

fn accept(socket: impl AsFd) -> Result<(OwnedFd, Option<Address>), Errno> {
    let (accepted, from) = acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let from = from.and_then(|from| SocketAddr::try_from(from).ok());
    let from = from.map(|from| Address::Tcp { host: from.ip().to_canonical().to_string(), port: from.port() });
    if from.is_some() {
        // Keys that somebody types on the other side do not wait for each other.
        let _ = rustix::net::sockopt::set_tcp_nodelay(&accepted, true);
    }
    Ok((accepted, from))
}

// === impl Listener ===

impl Listener {
    fn close(mut self, poll: &mut Poll) {
        for (socket, watch) in self.bound.sockets.iter().zip(&mut self.watches) {
            poll.forget(socket, watch);
        }
        self.bound.close();
    }
}
