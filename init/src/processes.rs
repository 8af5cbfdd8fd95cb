//! The processes that init has opened for its gateway, with pipes or at a terminal.
//!
//! A process outlives the connection that it was opened on. Nobody reads its pipes then, and a pipe that is full would stop it, one that is
//! closed would kill it: so init has the same pipes, and reads them to nowhere as long as the connection of the process is not there. While
//! it is, init leaves them to the gateway.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{self, Exit, Failure, Process, Program, Report, Size};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::failure;
use crate::gateway::{Gateway, Request};
use crate::hearers;
use crate::launch::{self, Launched, Launcher};
use crate::pipes::{Pipes, Unread};
use crate::poll::{Poll, Source, Want, Watch};
use crate::pty;
use crate::terminal::Terminal;

/// Most processes at once.
const PROCESSES: usize = 256;

/// How long a process may take until it is the program: its home may be a file system that does not answer.
const LAUNCH: Duration = Duration::from_secs(10);

/// How long a process that was told that its client is gone may still write: a shell that were to write when its trap runs would be killed
/// for it otherwise.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long after a process was opened the next launcher is started: what was opened goes first.
const AHEAD: Duration = Duration::from_millis(10);

/// Longest name of a terminal, in bytes.
const NAME: usize = 32;

/// Why something is not possible, and the same in words.
type Refusal = (Failure, String);

/// One of them.
struct Opened {
    /// `None` once it has ended.
    pid: Option<Pid>,
    connection: u64,
    launch: Option<Launch>,
    /// Until when it may still write, once it was told that nobody listens.
    hung_up: Option<Instant>,
    kind: Kind,
}

enum Kind {
    /// Output and error.
    Pipes([Unread; 2]),
    Terminal(Box<Terminal>),
}

/// A process that is about to become the program.
struct Launch {
    request: Request,
    socket: OwnedFd,
    watch: Watch,
    until: Instant,
    /// What the gateway gets.
    descriptors: Vec<OwnedFd>,
}

/// All of them, by the numbers that the gateway knows them by.
pub(crate) struct Processes {
    all: BTreeMap<u64, Opened>,
    last: u64,
    /// Waits for the next order, so that nobody waits for its start, a millisecond or less of what takes two or three. There is none
    /// if somebody in the container has ended it or there was no room for it, until after the next process.
    launcher: Option<Launcher>,
    /// When one is to be started.
    launcher_at: Option<Instant>,
}

// === impl Processes ===

impl Processes {
    pub(crate) fn new(now: Instant) -> Self {
        Self { all: BTreeMap::new(), last: 0, launcher: None, launcher_at: Some(now + AHEAD) }
    }

    /// Opens a process, or shows the terminal of that name if there is one.
    pub(crate) fn open(&mut self, request: Request, process: Process, now: Instant, gateway: &mut Gateway, poll: &mut Poll) {
        if let (Some(name), Some(pty)) = (&process.name, &process.pty)
            && self.named(name).is_some()
        {
            return self.view(request, name, pty.size, gateway);
        }
        if let Err((why, text)) = self.start(request, process, now, poll) {
            gateway.answer(request, &Report::Failed { request: request.number, why, text }, Vec::new());
        }
    }

    /// Shows a terminal to one more viewer.
    pub(crate) fn view(&mut self, request: Request, name: &str, size: Size, gateway: &mut Gateway) {
        let number = request.number;
        let Some((process, terminal)) = self.named(name) else {
            let text = "there is no terminal of this name".to_owned();
            return gateway.answer(request, &Report::Failed { request: number, why: Failure::NotFound, text }, Vec::new());
        };
        // Before it is painted: what is painted is of the size that it will have.
        terminal.resize(size);
        match terminal.view(false) {
            Ok(socket) => {
                terminal.nudge();
                gateway.answer(request, &Report::Opened { request: number, process, found: true }, vec![socket]);
            }
            Err(why) => {
                let text = "there is no viewer to be added".to_owned();
                gateway.answer(request, &Report::Failed { request: number, why, text }, Vec::new());
            }
        }
    }

    /// The terminals that are there.
    pub(crate) fn terminals(&self, now: Instant) -> Vec<protocol::Terminal> {
        let terminals = self.all.values().filter_map(|opened| match &opened.kind {
            Kind::Terminal(terminal) if terminal.is_open() => Some(terminal.listed(now)),
            _ => None,
        });
        terminals.collect()
    }

    pub(crate) fn resize(&mut self, process: u64, size: Size) {
        if let Some(terminal) = self.terminal(process) {
            terminal.resize(size);
        }
    }

    /// Sends a signal to who has the terminal, or to the process's own group.
    pub(crate) fn signal(&self, process: u64, signal: u8) {
        let Some(signal) = Signal::from_named_raw(signal.into()) else { return };
        let Some(Opened { pid: Some(pid), kind, .. }) = self.all.get(&process) else { return };
        let group = match kind {
            Kind::Terminal(terminal) => terminal.foreground(),
            Kind::Pipes(_) => None,
        };
        // One that is only being launched may lead no group yet.
        if kill_process_group(group.unwrap_or(*pid), signal).is_err() {
            let _ = kill_process(*pid, signal);
        }
    }

    /// Whoever it was for does not come back. A process with pipes is told by the pipes too, a little later.
    pub(crate) fn hang_up(&mut self, process: u64, now: Instant, poll: &mut Poll) {
        match self.all.get_mut(&process) {
            Some(Opened { pid, kind: Kind::Terminal(terminal), .. }) => terminal.hang_up(*pid, poll),
            Some(Opened { pid, hung_up, kind: Kind::Pipes(pipes), .. }) => {
                hung_up.get_or_insert(now + LAST_WORDS);
                if let Some(pid) = pid {
                    let pipes: Vec<u64> = pipes.iter().filter_map(Unread::inode).collect();
                    hearers::tell(*pid, &pipes);
                }
            }
            None => {}
        }
    }

    /// A child has ended; maybe one of these.
    pub(crate) fn ended(&mut self, pid: Pid, exit: Exit, gateway: &mut Gateway, poll: &mut Poll) {
        self.launcher.take_if(|launcher| launcher.pid() == pid);
        let Some(process) = self.all.iter().find(|(_, opened)| opened.pid == Some(pid)).map(|(process, _)| *process) else { return };
        // The news of its launch may still be unread, and comes first.
        self.launch_ready(process, gateway, poll);
        let Some(opened) = self.all.get_mut(&process) else { return };
        opened.pid = None;
        match &mut opened.kind {
            Kind::Terminal(terminal) => terminal.finish(poll),
            Kind::Pipes(pipes) => pipes.iter_mut().for_each(|unread| unread.close(poll)),
        }
        gateway.report(&Report::Exited { process, exit }, Vec::new());
    }

    /// A launch has something to say.
    pub(crate) fn launch_ready(&mut self, process: u64, gateway: &mut Gateway, poll: &mut Poll) {
        let Some(opened) = self.all.get_mut(&process) else { return };
        let Some(launch) = &mut opened.launch else { return };
        let (request, state) = (launch.request, launch::state(&launch.socket));
        if let Launched::Pending = state {
            return;
        }
        poll.forget(&launch.socket, &mut launch.watch);
        let descriptors = std::mem::take(&mut launch.descriptors);
        opened.launch = None;
        match state {
            Launched::Failed(why, text) => {
                self.give_up(process, poll);
                gateway.answer(request, &Report::Failed { request: request.number, why, text }, Vec::new());
            }
            _ => gateway.answer(request, &Report::Opened { request: request.number, process, found: false }, descriptors),
        }
    }

    /// A process says something that nobody takes.
    pub(crate) fn unread_ready(&mut self, process: u64, which: usize, poll: &mut Poll) {
        let Some(Opened { kind: Kind::Pipes(pipes), .. }) = self.all.get_mut(&process) else { return };
        if let Some(unread) = pipes.get_mut(which) {
            unread.ready(poll);
        }
    }

    /// A terminal has something to say, or room.
    pub(crate) fn master_ready(&mut self, process: u64) {
        if let Some(terminal) = self.terminal(process) {
            terminal.master_ready();
        }
    }

    /// A viewer has something to say, or room, or has left.
    pub(crate) fn viewer_ready(&mut self, process: u64, viewer: u64) {
        if let Some(terminal) = self.terminal(process) {
            terminal.viewer_ready(viewer);
        }
    }

    /// Nothing is opened any more.
    pub(crate) fn stop(&mut self) {
        (self.launcher, self.launcher_at) = (None, None);
    }

    /// When there is something to do, if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadlines = self.all.values().flat_map(|opened| {
            let terminal = match &opened.kind {
                Kind::Terminal(terminal) => terminal.deadline(),
                Kind::Pipes(_) => opened.hung_up,
            };
            opened.launch.as_ref().map(|launch| launch.until).into_iter().chain(terminal)
        });
        deadlines.chain(self.launcher_at).min()
    }

    /// Those that run, each the leader of its own session.
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.all.values().filter_map(|opened| opened.pid)
    }

    /// Draws the conclusions of what has happened.
    pub(crate) fn settle(&mut self, now: Instant, gateway: &mut Gateway, poll: &mut Poll) {
        self.late(now, gateway, poll);
        if self.launcher_at.take_if(|at| *at <= now).is_some() {
            self.launcher = Launcher::start().ok();
        }
        let connection = gateway.connection();
        let mut names: Vec<String> = self.terminals(now).into_iter().map(|terminal| terminal.name).collect();
        self.all.retain(|process, opened| {
            if let Some(launch) = &mut opened.launch {
                poll.watch(&launch.socket, &mut launch.watch, Source::Launch { process: *process }, Want::READ);
            }
            match &mut opened.kind {
                Kind::Terminal(terminal) => {
                    if terminal.is_overdue(now) {
                        terminal.hang_up(opened.pid, poll);
                    }
                    let to_do = terminal.settle(now, poll, || lost(&mut names));
                    // With nothing kept, being lost and being hung up are one.
                    if terminal.is_overdue(now) {
                        terminal.hang_up(opened.pid, poll);
                    }
                    to_do || opened.pid.is_some()
                }
                Kind::Pipes(pipes) => {
                    if opened.hung_up.is_some_and(|until| until <= now) {
                        pipes.iter_mut().for_each(|unread| unread.close(poll));
                        opened.hung_up = None;
                    }
                    let is_read = connection == Some(opened.connection) && opened.hung_up.is_none();
                    let want = if is_read { Want::NOTHING } else { Want::READ };
                    for (which, unread) in pipes.iter_mut().enumerate() {
                        unread.watch(poll, Source::Unread { process: *process, which }, want);
                    }
                    opened.pid.is_some()
                }
            }
        });
    }

    fn start(&mut self, request: Request, process: Process, now: Instant, poll: &mut Poll) -> Result<(), Refusal> {
        if process.name.as_deref().is_some_and(|name| !is_name(name)) || process.name.is_some() && process.pty.is_none() {
            return Err((Failure::Invalid, "no name for a terminal".to_owned()));
        }
        if matches!(&process.program, Program::Command(command) if command.contains(&0)) {
            return Err((Failure::Invalid, "a NUL in the command".to_owned()));
        }
        if self.all.len() >= PROCESSES {
            return Err((Failure::Exhausted, format!("there are {PROCESSES} processes already")));
        }
        let number = self.last + 1;
        let errno = |why| (failure::of(why), format!("no descriptors: {why}"));
        let (kind, theirs, given) = match &process.pty {
            Some(pty) => {
                let (master, slave) = pty::open(pty.size, &pty.modes).map_err(errno)?;
                let mut terminal = Terminal::new(number, master, pty.size, process.name.as_deref(), process.keep);
                let viewer = terminal.view(true).map_err(|why| (why, "no viewer".to_owned()))?;
                (Kind::Terminal(Box::new(terminal)), vec![slave], vec![viewer])
            }
            None => {
                let pipes = Pipes::new().map_err(errno)?;
                (Kind::Pipes(pipes.kept), pipes.theirs.into(), pipes.given.into())
            }
        };
        self.launcher_at = Some(now + AHEAD);
        let (pid, socket) = launch::start(self.launcher.take(), &launch::Launch::Session(process), &theirs)?;
        self.last = number;
        let mut launch = Launch { request, socket, watch: Watch::default(), until: now + LAUNCH, descriptors: given };
        poll.watch(&launch.socket, &mut launch.watch, Source::Launch { process: number }, Want::READ);
        self.all.insert(number, Opened { pid: Some(pid), connection: request.connection, launch: Some(launch), hung_up: None, kind });
        Ok(())
    }

    /// Gives up on launches that take too long.
    fn late(&mut self, now: Instant, gateway: &mut Gateway, poll: &mut Poll) {
        let late = self.all.iter().filter_map(|(process, opened)| Some((*process, opened.launch.as_ref()?)));
        let late: Vec<_> = late.filter(|(_, launch)| launch.until <= now).map(|(process, launch)| (process, launch.request)).collect();
        for (process, request) in late {
            self.give_up(process, poll);
            let text = "the process did not start in time".to_owned();
            gateway.answer(request, &Report::Failed { request: request.number, why: Failure::TimedOut, text }, Vec::new());
        }
    }

    /// Forgets a process that has not become what it should. Its end is nobody's news.
    fn give_up(&mut self, process: u64, poll: &mut Poll) {
        let Some(mut opened) = self.all.remove(&process) else { return };
        if let Some(pid) = opened.pid {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(launch) = &mut opened.launch {
            poll.forget(&launch.socket, &mut launch.watch);
        }
        match &mut opened.kind {
            Kind::Terminal(terminal) => terminal.abandon(poll),
            Kind::Pipes(pipes) => pipes.iter_mut().for_each(|unread| unread.close(poll)),
        }
    }

    fn named(&mut self, name: &str) -> Option<(u64, &mut Terminal)> {
        self.all.iter_mut().find_map(|(process, opened)| match &mut opened.kind {
            Kind::Terminal(terminal) if terminal.is_open() && !name.is_empty() && terminal.name() == name => {
                Some((*process, &mut **terminal))
            }
            _ => None,
        })
    }

    fn terminal(&mut self, process: u64) -> Option<&mut Terminal> {
        match &mut self.all.get_mut(&process)?.kind {
            Kind::Terminal(terminal) => Some(terminal),
            Kind::Pipes(_) => None,
        }
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= NAME && name.bytes().next().is_some_and(plain) && name.bytes().all(|byte| plain(byte) || byte == b'-')
}

/// A name for a terminal that nobody watches any more, beside these.
fn lost(names: &mut Vec<String>) -> String {
    let name = (1..).map(|number| format!("lost-{number}")).find(|name| !names.contains(name)).unwrap_or_default();
    names.push(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for name in ["a", "0", "work-2", &"x".repeat(32)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-a", "A", "a_b", "ä", "a b", &"x".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_lost_terminal_has_the_smallest_free_number() {
        let mut names = vec!["lost-1".to_owned(), "lost-3".to_owned()];
        assert_eq!((lost(&mut names), lost(&mut names)), ("lost-2".to_owned(), "lost-4".to_owned()));
    }
}
