//! Whether a service does its work: checked from time to time, by connecting to it or by what a program says.
//!
//! One check at a time, and the next once it is over. A program that takes too long is killed; it is waited for all the same, so that not
//! more and more of them are there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{Check, Exit, Ready, Service};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, getpeername, getsockname, socket_with, sockopt};
use rustix::process::{Pid, Signal};

use super::Around;
use crate::launch::{self, Exec, Launch};
use crate::poll::{Poll, Source, Want, Watch};

/// How often a service is checked that is only starting, where it is not even more often: one that is ready should not have to wait for
/// it to be noticed.
const STARTING: Duration = Duration::from_secs(1);

/// Where a port is looked for, one after the other.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// How one run of a service stands.
pub(super) struct Readiness {
    /// `None`: nobody knows yet.
    pub(super) ready: Option<bool>,
    /// In a row.
    failures: u32,
    since: Instant,
    next: Instant,
    running: Option<Running>,
}

struct Running {
    until: Instant,
    by: By,
}

enum By {
    /// Connecting to this one of [`LOOPBACK`].
    Port { socket: OwnedFd, watch: Watch, address: usize },
    /// `late`: it was killed, and is only waited for.
    Command { pid: Pid, late: bool },
}

/// How connecting goes.
enum Knock {
    Accepted,
    Refused,
    Pending(OwnedFd),
}

// === impl Readiness ===

impl Readiness {
    /// Of a service that starts now.
    pub(super) fn new(ready: &Ready, now: Instant) -> Self {
        let mut new = Self { ready: None, failures: 0, since: now, next: now, running: None };
        new.next = now + new.every(ready, now);
        new
    }

    /// The number of the program that checks.
    pub(super) fn pid(&self) -> Option<Pid> {
        match self.running.as_ref()?.by {
            By::Command { pid, .. } => Some(pid),
            By::Port { .. } => None,
        }
    }

    /// When there is something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.running {
            Some(Running { by: By::Command { late: true, .. }, .. }) => None,
            Some(running) => Some(running.until),
            None => Some(self.next),
        }
    }

    /// A connection is there, or is not to be had.
    pub(super) fn port_ready(&mut self, ready: &Ready, number: u64, around: &mut Around<'_>) {
        let Some(Running { by: By::Port { socket, watch, address }, .. }) = &mut self.running else { return };
        let knocked = match sockopt::socket_error(&*socket) {
            Ok(Ok(())) => accepted(socket),
            _ => false,
        };
        around.poll.forget(&*socket, watch);
        let address = *address + 1;
        if knocked {
            self.conclude(true, ready, around.now);
        } else {
            self.knock(address, ready, number, around);
        }
    }

    /// The program that checks has ended.
    pub(super) fn command_ended(&mut self, exit: Exit, ready: &Ready, now: Instant) {
        match self.running.take() {
            Some(Running { by: By::Command { late: false, .. }, .. }) => self.conclude(exit == Exit::Status(0), ready, now),
            // It counted when its time was up.
            _ => self.next = now + self.every(ready, now),
        }
    }

    /// Draws the conclusions of what has happened, and checks if it is time.
    pub(super) fn settle(&mut self, service: &Service, ready: &Ready, number: u64, around: &mut Around<'_>) {
        let now = around.now;
        if let Some(running) = &mut self.running
            && running.until <= now
        {
            match &mut running.by {
                By::Port { socket, watch, .. } => {
                    around.poll.forget(&*socket, watch);
                    self.conclude(false, ready, now);
                }
                By::Command { late: true, .. } => {}
                By::Command { pid, late } => {
                    *late = true;
                    launch::signal(*pid, Signal::KILL);
                    self.count(false, ready, now);
                }
            }
        }
        if self.running.is_none() && self.next <= now {
            match &ready.by {
                Check::Port(_) => self.knock(0, ready, number, around),
                Check::Command(command) => self.ask(command.clone(), service, ready, around),
            }
        }
    }

    /// Checks no more: the run is over.
    pub(super) fn end(&mut self, poll: &mut Poll) {
        match self.running.take() {
            Some(Running { by: By::Port { socket, mut watch, .. }, .. }) => poll.forget(&socket, &mut watch),
            Some(Running { by: By::Command { pid, .. }, .. }) => launch::signal(pid, Signal::KILL),
            None => {}
        }
    }

    /// Connects to the first of the addresses from this one on that does not refuse at once.
    fn knock(&mut self, from: usize, ready: &Ready, number: u64, around: &mut Around<'_>) {
        let until = self.running.take().map_or(around.now + seconds(ready.timeout), |running| running.until);
        let Check::Port(port) = ready.by else { return };
        for (address, ip) in LOOPBACK.iter().enumerate().skip(from) {
            match knock(SocketAddr::new(*ip, port)) {
                Knock::Accepted => return self.conclude(true, ready, around.now),
                Knock::Refused => {}
                Knock::Pending(socket) => {
                    let mut watch = Watch::default();
                    around.poll.watch(&socket, &mut watch, Source::Check { service: number }, Want { write: true, ..Want::NOTHING });
                    self.running = Some(Running { until, by: By::Port { socket, watch, address } });
                    return;
                }
            }
        }
        self.conclude(false, ready, around.now);
    }

    /// Starts the program that checks.
    fn ask(&mut self, command: Vec<String>, service: &Service, ready: &Ready, around: &Around<'_>) {
        let (env, directory, home) = (service.env.clone(), service.directory.clone(), around.home.to_owned());
        let started = launch::nowhere().and_then(|nowhere| {
            let descriptors = [nowhere.try_clone()?, nowhere.try_clone()?, nowhere];
            Ok(launch::start(None, &Launch::Exec(Exec { command, env, directory, home }), &descriptors))
        });
        match started {
            // Its socket is of no use: what cannot be started ends with a status that is not 0.
            Ok(Ok((pid, _))) => {
                let until = around.now + seconds(ready.timeout);
                self.running = Some(Running { until, by: By::Command { pid, late: false } });
            }
            Ok(Err(_)) | Err(_) => self.conclude(false, ready, around.now),
        }
    }

    /// A check is over.
    fn conclude(&mut self, good: bool, ready: &Ready, now: Instant) {
        self.running = None;
        self.count(good, ready, now);
        self.next = now + self.every(ready, now);
    }

    fn count(&mut self, good: bool, ready: &Ready, now: Instant) {
        if good {
            (self.ready, self.failures) = (Some(true), 0);
        } else if !self.in_grace(ready, now) {
            self.failures += 1;
            if self.failures >= ready.retries.max(1) {
                self.ready = Some(false);
            }
        }
    }

    fn in_grace(&self, ready: &Ready, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < Duration::from_secs(ready.grace.into())
    }

    fn every(&self, ready: &Ready, now: Instant) -> Duration {
        let every = seconds(ready.every);
        if self.ready.is_none() && self.in_grace(ready, now) { every.min(STARTING) } else { every }
    }
}

/// At least one: nothing is checked without end.
fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.max(1).into())
}

fn knock(at: SocketAddr) -> Knock {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let Ok(socket) = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None) else {
        return Knock::Refused;
    };
    match connect(&socket, &at) {
        Ok(()) if accepted(&socket) => Knock::Accepted,
        Err(Errno::INPROGRESS) => Knock::Pending(socket),
        Ok(()) | Err(_) => Knock::Refused,
    }
}

/// A connection to a port from which the kernel lets connections begin can have been made with itself.
fn accepted(socket: &OwnedFd) -> bool {
    match (getsockname(socket), getpeername(socket)) {
        (Ok(ours), Ok(Some(theirs))) => ours != theirs,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready { by: Check::Port(1), every: 10, timeout: 1, retries: 3, grace: 5, restart: false }
    }

    #[test]
    fn it_is_not_ready_after_so_many_failures_in_a_row_and_none_count_while_it_starts() {
        let (ready, start) = (ready(), Instant::now());
        let mut readiness = Readiness::new(&ready, start);
        assert_eq!(readiness.next, start + STARTING);
        for _ in 0..10 {
            readiness.conclude(false, &ready, start + Duration::from_secs(4));
        }
        assert_eq!((readiness.ready, readiness.failures), (None, 0));
        let later = start + Duration::from_secs(6);
        readiness.conclude(false, &ready, later);
        readiness.conclude(false, &ready, later);
        assert_eq!(readiness.next, later + Duration::from_secs(10));
        readiness.conclude(true, &ready, later);
        assert_eq!(readiness.ready, Some(true));
        readiness.conclude(false, &ready, later);
        readiness.conclude(false, &ready, later);
        assert_eq!(readiness.ready, Some(true), "not yet");
        readiness.conclude(false, &ready, later);
        assert_eq!(readiness.ready, Some(false));
    }
}
