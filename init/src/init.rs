//! The loop of a container's first process: waits, hands each event to whose it is, draws conclusions, and waits again.
//!
//! One thread does it all, so nothing is locked; what could block is a [`crate::jobs`] thread's or a process's of its own. Each room has a
//! `ready` that only reads and writes, and a `settle` that is called after every round, draws conclusions from the whole, and says what is
//! waited for next. To add a source of events: a variant of [`Source`], a room with `ready`, `settle`, and `deadline` if it has timers,
//! and a line in each of [`Init::event`], [`Init::settle`] and [`Init::deadline`].

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{Failure, Order, Report, VERSION};
use rustix::net::SocketAddrUnix;
use rustix::process::WaitOptions;
use signal_hook::consts::{SIGCHLD, SIGTERM};

use crate::callers::Callers;
use crate::gateway::{Gateway, Request};
use crate::jobs::{Done, Job, Jobs};
use crate::launch;
use crate::listeners::Listeners;
use crate::note::note;
use crate::poll::{Poll, Source, Want, Watch};
use crate::processes::Processes;
use crate::services::Services;
use crate::stop;

/// Most orders taken before others have their turn.
const ORDERS: usize = 32;

/// How often it is looked whether all have gone that were told to. Whoever was started by the engine's exec is not this one's child, and
/// its end is not told.
const GONE: Duration = Duration::from_millis(20);

/// Everything there is.
pub(crate) struct Init {
    poll: Poll,
    children: UnixStream,
    stop: UnixStream,
    stopping: bool,
    gateway: Gateway,
    processes: Processes,
    listeners: Listeners,
    services: Services,
    callers: Callers,
    jobs: Jobs,
}

// === impl Init ===

impl Init {
    /// For the gateway that listens there.
    pub(crate) fn new(gateway: SocketAddrUnix) -> io::Result<Self> {
        let mut poll = Poll::new()?;
        let children = signal(SIGCHLD, Source::ChildSignal, &mut poll)?;
        let stop = signal(SIGTERM, Source::StopSignal, &mut poll)?;
        let jobs = Jobs::new(&mut poll)?;
        let gateway = Gateway::new(gateway, Instant::now());
        let (processes, listeners, services) = (Processes::new(Instant::now()), Listeners::default(), Services::default());
        let callers = Callers::new();
        Ok(Self { poll, children, stop, stopping: false, gateway, processes, listeners, services, callers, jobs })
    }

    /// Until the container is stopped.
    pub(crate) fn run(mut self) {
        let mut events = Vec::new();
        // Whoever ended before the signal was waited for.
        self.reap();
        loop {
            // Somebody's last process must not go with a mistake in here: what is half done is told to the gateway anew.
            let round = catch_unwind(AssertUnwindSafe(|| self.round(&mut events)));
            match round {
                // What its listeners have made in the file system goes with it.
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => self.gateway.break_off("a round was not finished"),
            }
        }
    }

    /// Whether it was the last.
    fn round(&mut self, events: &mut Vec<u64>) -> bool {
        let now = Instant::now();
        self.settle(now);
        if self.stopping && stop::is_over(self.processes.pids().chain(self.services.pids())) {
            return true;
        }
        let timeout = self.deadline().map(|at| at.saturating_duration_since(now));
        self.poll.wait(timeout, events);
        for event in events.drain(..) {
            // What came before it may have taken its source away.
            if let Some(source) = self.poll.source(event) {
                self.event(source);
            }
        }
        false
    }

    fn event(&mut self, source: Source) {
        match source {
            Source::ChildSignal => {
                quiet(&self.children);
                self.reap();
            }
            Source::StopSignal => {
                quiet(&self.stop);
                if !self.stopping {
                    self.stopping = true;
                    self.services.stop();
                    self.processes.stop();
                    stop::tell(&self.processes.pids().chain(self.services.pids()).collect::<Vec<_>>());
                }
            }
            Source::Gateway => self.orders(),
            Source::Jobs => self.results(),
            Source::Launch { process } => self.processes.launch_ready(process, &mut self.gateway, &mut self.poll),
            Source::Unread { process, which } => self.processes.unread_ready(process, which, &mut self.poll),
            Source::Master { process } => self.processes.master_ready(process),
            Source::Viewer { process, viewer } => self.processes.viewer_ready(process, viewer),
            Source::Listener { listener, which } => self.listeners.ready(listener, which, &mut self.gateway),
            Source::Output { service } => self.services.output_ready(service, &mut self.poll),
            Source::Check { service } => self.services.check_ready(service, Instant::now(), &mut self.poll),
            Source::LogReader { reader } => self.services.reader_ready(reader),
            Source::Door => self.callers.accept(Instant::now()),
            Source::Caller { caller } => self.callers.ready(caller, Instant::now(), &mut self.gateway, &mut self.poll),
        }
    }

    fn settle(&mut self, now: Instant) {
        if self.gateway.settle(now, &mut self.poll) {
            self.listeners.clear(&mut self.poll);
        }
        let (processes, callers, services) = (&self.processes, &self.callers, &self.services);
        let hello = || {
            let (terminals, leases, services) = (processes.terminals(now), callers.leases(now), services.states());
            Report::Hello { version: VERSION, terminals, leases, services }
        };
        self.gateway.dial(now, hello);
        self.processes.settle(now, &mut self.gateway, &mut self.poll);
        self.listeners.settle(now, &self.gateway, &mut self.poll);
        self.services.settle(now, self.jobs.home(), &mut self.gateway, &mut self.poll);
        self.callers.settle(now, &mut self.gateway, &mut self.poll);
        // Again: what was said in the meantime may wait for room.
        if self.gateway.settle(now, &mut self.poll) {
            self.listeners.clear(&mut self.poll);
        }
    }

    /// When there is something to do, if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let now = Instant::now();
        let gone = self.stopping.then(|| now + GONE);
        let rooms = [self.processes.deadline(), self.listeners.deadline(), self.services.deadline(now), self.callers.deadline()];
        rooms.into_iter().chain([self.gateway.deadline(), gone]).flatten().min()
    }

    /// Takes the end of every child, whosever it was.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let exit = launch::exit_of(status);
            self.processes.ended(pid, exit, &mut self.gateway, &mut self.poll);
            self.services.ended(pid, exit, Instant::now(), &mut self.poll);
        }
    }

    fn orders(&mut self) {
        self.gateway.flush();
        for _ in 0..ORDERS {
            let Some(order) = self.gateway.receive() else { return };
            self.order(order);
        }
    }

    fn order(&mut self, order: Order) {
        let connection = self.gateway.connection().unwrap_or_default();
        let as_request = |number| Request { number, connection };
        match order {
            Order::Open { request, .. } if self.stopping => {
                self.refuse(as_request(request), Failure::Other, "the container is being stopped".to_owned());
            }
            Order::Open { request, process } => {
                self.jobs.know_home(&process.home);
                self.processes.open(as_request(request), process, Instant::now(), &mut self.gateway, &mut self.poll);
            }
            Order::View { request, name, size } => self.processes.view(as_request(request), &name, size, &mut self.gateway),
            Order::List { request } => {
                let terminals = self.processes.terminals(Instant::now());
                self.gateway.report(&Report::Terminals { request, terminals }, Vec::new());
            }
            Order::Resize { process, size } => self.processes.resize(process, size),
            Order::Signal { process, signal } => self.processes.signal(process, signal),
            Order::HangUp { process } => self.processes.hang_up(process, Instant::now(), &mut self.poll),
            Order::Connect { request, to } => self.job(as_request(request), Job::Connect(to)),
            Order::Listen { request, .. } if !self.listeners.may_add() => {
                self.refuse(as_request(request), Failure::Exhausted, "there are too many listeners".to_owned());
            }
            Order::Listen { request, on } => self.job(as_request(request), Job::Listen(on)),
            Order::Unlisten { listener } => self.listeners.remove(listener, &mut self.poll),
            Order::Serve { services } => self.services.serve(services, Instant::now(), &mut self.poll),
            Order::Logs { request, service, follow } => {
                self.services.logs(as_request(request), service, follow, &mut self.gateway, &mut self.poll)
            }
            Order::KeepAnswer { lease, seconds, words } => {
                self.callers.keep(lease, seconds, words, Instant::now(), &mut self.gateway, &mut self.poll);
            }
            Order::StatusAnswer { question, text } => self.callers.tell(question, text, &mut self.gateway, &mut self.poll),
            Order::Welcome { .. } => self.gateway.break_off("a second welcome"),
        }
    }

    fn job(&mut self, request: Request, job: Job) {
        if let Err((why, text)) = self.jobs.start(request, job) {
            self.refuse(request, why, text);
        }
    }

    fn results(&mut self) {
        while let Some((request, done)) = self.jobs.next() {
            match done {
                Done::Connected(socket) => self.gateway.answer(request, &Report::Connected { request: request.number }, vec![socket]),
                Done::Listening(bound) => self.listeners.add(request, bound, &mut self.gateway),
                Done::Failed((why, text)) => self.refuse(request, why, text),
            }
        }
    }

    fn refuse(&mut self, request: Request, why: Failure, text: String) {
        self.gateway.answer(request, &Report::Failed { request: request.number, why, text }, Vec::new());
    }
}

/// A socket that has something to read when this signal has come.
fn signal(signal: i32, source: Source, poll: &mut Poll) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal, write)?;
    // Never forgotten: it is there as long as the process.
    poll.watch(&read, &mut Watch::default(), source, Want::READ);
    Ok(read)
}

/// Reads what has made it ready.
fn quiet(stream: &UnixStream) {
    while matches!(rustix::io::read(stream, &mut [0; 64][..]), Ok(1..)) {}
}

/// Replaces the words of a panic by a line: what it would unwind through is of no use in a program without symbols.
pub(crate) fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        note(&format!("panic at {place}"));
    }));
}
