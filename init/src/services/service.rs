//! One service: a program that is started, watched, ended and started again.
//!
//! It is started as a session's process is ([`crate::launch`]), at the head of a session and a group of its own. A run is over when nobody
//! of its group is left: what would be started next may need what the last one still has.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{self, Exit, Restart, ServiceState};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, test_kill_process_group};

use super::Around;
use super::backoff::Backoff;
use super::log::Log;
use super::readiness::Readiness;
use crate::launch::{self, Exec, Launch};
use crate::poll::{Poll, Source, Want, Watch};

/// How long those may take who are told to end, until they are killed; and how often one that does not even so is.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is looked whether the last of a group has gone. Whoever is not this one's child is not told of.
const GONE: Duration = Duration::from_millis(50);

/// How much of what it says is read at once, in bytes, and how often before others have their turn.
const READ: usize = 16 * 1024;
const TURN: usize = 4;

/// What a shell ends with that cannot start a command.
const NOT_STARTED: Exit = Exit::Status(127);

/// A service.
pub(super) struct Service {
    /// What its events are known by.
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) log: Log,
    /// `None`: it is not wanted any more, and only waited for.
    wanted: Option<protocol::Service>,
    state: State,
    readiness: Option<Readiness>,
    /// Whether what is wanted has been started at all.
    begun: bool,
    restarts: u32,
    exit: Option<Exit>,
    backoff: Backoff,
    output: Option<OwnedFd>,
    watch: Watch,
    told: Option<Standing>,
}

/// Where it is in its life.
#[derive(Clone, Copy)]
enum State {
    /// It is started then.
    Due(Instant),
    /// It runs.
    Up { pid: Pid, since: Instant },
    /// It was told to end, or has ended and left some of its group. They are killed at `until`; it is started again at `then`.
    Ending { pid: Pid, leader: bool, until: Instant, then: Instant },
    /// It has ended, and is not started again.
    Over,
}

/// What is told of it, but for its name.
type Standing = (bool, Option<bool>, u32, Option<Exit>);

// === impl Service ===

impl Service {
    /// One that is started as soon as there is time.
    pub(super) fn new(number: u64, wanted: protocol::Service, now: Instant) -> Self {
        let (name, state) = (wanted.name.clone(), State::Due(now));
        let (log, backoff, watch) = (Log::default(), Backoff::default(), Watch::default());
        let (readiness, exit, output, told) = (None, None, None, None);
        let (wanted, begun, restarts) = (Some(wanted), false, 0);
        Self { number, name, log, wanted, state, readiness, begun, restarts, exit, backoff, output, watch, told }
    }

    /// Whether it is one of those that are to run.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether it was not wanted any more, and has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.wanted.is_none() && matches!(self.state, State::Due(_) | State::Over)
    }

    /// From now on it is to be this, or not to be.
    pub(super) fn change(&mut self, wanted: Option<protocol::Service>, now: Instant, poll: &mut Poll) {
        if self.wanted == wanted {
            return;
        }
        self.wanted = wanted;
        (self.begun, self.restarts, self.exit, self.backoff) = (false, 0, None, Backoff::default());
        self.state = match self.state {
            State::Up { pid, .. } => self.tell_to_end(pid, true, now, now, poll),
            State::Ending { pid, leader, until, .. } => State::Ending { pid, leader, until, then: now },
            State::Due(_) | State::Over => State::Due(now),
        };
    }

    /// How it stands.
    pub(super) fn state(&self) -> ServiceState {
        let (running, ready, restarts, exit) = self.standing();
        ServiceState { name: self.name.clone(), running, ready, restarts, exit }
    }

    /// Whether it stands otherwise than when this was asked last.
    pub(super) fn has_changed(&mut self) -> bool {
        let standing = Some(self.standing());
        standing != std::mem::replace(&mut self.told, standing)
    }

    /// Who is to be told when the container is stopped.
    pub(super) fn pids(&self) -> impl Iterator<Item = Pid> {
        let own = match self.state {
            State::Up { pid, .. } | State::Ending { pid, .. } => Some(pid),
            State::Due(_) | State::Over => None,
        };
        own.into_iter().chain(self.readiness.as_ref().and_then(Readiness::pid))
    }

    /// It says something.
    pub(super) fn output_ready(&mut self, lines: &mut u64, poll: &mut Poll) {
        for _ in 0..TURN {
            let Some(output) = &self.output else { return };
            let mut buffer = [0; READ];
            match rustix::io::read(output, &mut buffer[..]) {
                Err(Errno::AGAIN | Errno::INTR) => return,
                Ok(0) | Err(_) => self.close(lines, poll),
                Ok(length) => self.log.take(buffer.get(..length).unwrap_or_default(), lines),
            }
        }
    }

    /// What checks it has heard from its port.
    pub(super) fn check_ready(&mut self, around: &mut Around<'_>) {
        if let (Some(readiness), Some(protocol::Service { ready: Some(ready), .. })) = (&mut self.readiness, &self.wanted) {
            readiness.port_ready(ready, self.number, around);
        }
    }

    /// A child has ended. `false`: it is not this one's.
    pub(super) fn ended(&mut self, pid: Pid, exit: Exit, around: &mut Around<'_>) -> bool {
        match self.state {
            State::Up { pid: own, since } if own == pid => {
                // What it has said to its end comes before how it has ended.
                self.output_ready(around.lines, around.poll);
                self.has_ended(exit, around.now.saturating_duration_since(since), Some(pid), around);
            }
            State::Ending { pid: own, until, then, .. } if own == pid => {
                self.exit = self.begun.then_some(exit);
                self.state = State::Ending { pid, leader: false, until, then };
            }
            _ => {
                let own = self.readiness.as_mut().filter(|readiness| readiness.pid() == Some(pid));
                let Some((readiness, protocol::Service { ready: Some(ready), .. })) = own.zip(self.wanted.as_ref()) else { return false };
                readiness.command_ended(exit, ready, around.now);
            }
        }
        true
    }

    /// Draws the conclusions of what has happened. Nothing is started once the container is being stopped.
    pub(super) fn settle(&mut self, stopping: bool, around: &mut Around<'_>) {
        let now = around.now;
        if let State::Ending { pid, leader, until, then } = self.state {
            let late = until <= now;
            if late {
                launch::signal(pid, Signal::KILL);
            }
            self.state = match (leader, late) {
                (false, true) => State::Due(then),
                (false, false) if !is_there(pid) => State::Due(then),
                (true, true) => State::Ending { pid, leader, until: now + AGAIN, then },
                _ => self.state,
            };
        }
        if let State::Due(at) = self.state
            && at <= now
            && !stopping
        {
            self.start(around);
        }
        if let State::Up { pid, since } = self.state
            && let Some(readiness) = &mut self.readiness
            && let Some(service) = &self.wanted
            && let Some(ready) = &service.ready
        {
            readiness.settle(service, ready, self.number, around);
            if ready.restart && readiness.ready == Some(false) && !stopping {
                let pause = self.backoff.after(now.saturating_duration_since(since));
                self.say(&format!("not ready: ended, and started again in {}s", pause.as_secs()), around.lines);
                self.state = self.tell_to_end(pid, true, now, now + pause, around.poll);
            }
        }
        if let Some(output) = &self.output {
            around.poll.watch(output, &mut self.watch, Source::Output { service: self.number }, Want::READ);
        }
    }

    /// When there is something to do, if nothing happens.
    pub(super) fn deadline(&self, stopping: bool, now: Instant) -> Option<Instant> {
        match self.state {
            State::Due(at) => (!stopping && self.wanted.is_some()).then_some(at),
            State::Up { .. } => self.readiness.as_ref().and_then(Readiness::deadline),
            State::Ending { leader: false, until, .. } => Some(until.min(now + GONE)),
            State::Ending { until, .. } => Some(until),
            State::Over => None,
        }
    }

    /// Nothing of it is waited for any more.
    pub(super) fn leave(&mut self, lines: &mut u64, poll: &mut Poll) {
        self.check_no_more(poll);
        self.close(lines, poll);
    }

    fn standing(&self) -> Standing {
        let running = matches!(self.state, State::Up { .. } | State::Ending { leader: true, .. });
        (running, self.readiness.as_ref().and_then(|readiness| readiness.ready), self.restarts, self.exit)
    }

    fn start(&mut self, around: &mut Around<'_>) {
        let Some(service) = self.wanted.clone() else { return };
        self.output_ready(around.lines, around.poll);
        self.close(around.lines, around.poll);
        if std::mem::replace(&mut self.begun, true) {
            self.restarts = self.restarts.saturating_add(1);
        }
        match self.run(&service, around.home) {
            Ok(pid) => {
                self.readiness = service.ready.as_ref().map(|ready| Readiness::new(ready, around.now));
                self.state = State::Up { pid, since: around.now };
            }
            Err(why) => {
                self.say(&format!("cannot be started: {why}"), around.lines);
                self.has_ended(NOT_STARTED, Duration::ZERO, None, around);
            }
        }
    }

    fn run(&mut self, service: &protocol::Service, home: &str) -> Result<Pid, String> {
        let descriptors = |why: Errno| format!("no descriptors: {why}");
        let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(descriptors)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(descriptors)?;
        let error = theirs.try_clone().map_err(|why| format!("no descriptors: {why}"))?;
        let input = launch::nowhere().map_err(|why| format!("/dev/null: {why}"))?;
        let (command, env, directory) = (service.command.clone(), service.env.clone(), service.directory.clone());
        let exec = Exec { command, env, directory, home: home.to_owned() };
        // Why it cannot become the program it says itself, where it will be looked for: in the log.
        let (pid, _) = launch::start(None, &Launch::Exec(exec), &[input, theirs, error]).map_err(|(_, text)| text)?;
        self.output = Some(output);
        Ok(pid)
    }

    fn has_ended(&mut self, exit: Exit, ran: Duration, group: Option<Pid>, around: &mut Around<'_>) {
        self.check_no_more(around.poll);
        self.exit = Some(exit);
        let again = match self.wanted.as_ref().map(|service| service.restart) {
            Some(Restart::Always) => true,
            Some(Restart::OnFailure) => exit != Exit::Status(0),
            Some(Restart::Never) | None => false,
        };
        let how = match exit {
            Exit::Status(status) => format!("ended with status {status}"),
            Exit::Signal(signal) => format!("ended by signal {signal}"),
        };
        if !again {
            self.state = State::Over;
            return self.say(&how, around.lines);
        }
        let pause = self.backoff.after(ran);
        self.say(&format!("{how}, started again in {}s", pause.as_secs()), around.lines);
        let then = around.now + pause;
        self.state = match group.filter(|group| is_there(*group)) {
            Some(group) => self.tell_to_end(group, false, around.now, then, around.poll),
            None => State::Due(then),
        };
    }

    /// Tells its group. What is stopped goes on, or it could not end.
    fn tell_to_end(&mut self, pid: Pid, leader: bool, now: Instant, then: Instant, poll: &mut Poll) -> State {
        self.check_no_more(poll);
        launch::signal(pid, Signal::TERM);
        launch::signal(pid, Signal::CONT);
        State::Ending { pid, leader, until: now + PATIENCE, then }
    }

    fn check_no_more(&mut self, poll: &mut Poll) {
        if let Some(mut readiness) = self.readiness.take() {
            readiness.end(poll);
        }
    }

    /// A line of init's own.
    fn say(&mut self, text: &str, lines: &mut u64) {
        self.log.end(lines);
        self.log.take(format!("innkeeper: {text}\n").as_bytes(), lines);
    }

    fn close(&mut self, lines: &mut u64, poll: &mut Poll) {
        if let Some(output) = self.output.take() {
            poll.forget(&output, &mut self.watch);
        }
        self.log.end(lines);
    }
}

/// Whether somebody of this group is left.
fn is_there(group: Pid) -> bool {
    test_kill_process_group(group).is_ok()
}
