//! What runs beside sessions: the services that the gateway wants, and what they say.
//!
//! They go on while no gateway is there. One of the same name and content is left alone when the gateway says again what it wants. Their
//! processes are started, told apart and ended in [`service`]; [`readers`] are those who read what they say.

mod backoff;
mod log;
mod readers;
mod readiness;
mod service;

use std::time::{Duration, Instant};

use innkeeper_init::protocol::{self, Exit, Failure, Report, ServiceState};
use rustix::process::Pid;

use self::readers::Readers;
use self::service::Service;
use crate::gateway::{Gateway, Request};
use crate::note::note;
use crate::poll::Poll;

/// Most services.
const SERVICES: usize = 16;

/// Longest name of a service, in bytes.
const NAME: usize = 64;

/// At least so long between two reports of how they stand: a service that ends at once is no reason to write all day.
const BETWEEN: Duration = Duration::from_millis(250);

/// What a service needs of what is around it.
struct Around<'a> {
    now: Instant,
    /// The home of a container that names none.
    home: &'a str,
    /// The number of the last line of all services.
    lines: &'a mut u64,
    poll: &'a mut Poll,
}

/// All of them, those that are only waited for included.
#[derive(Default)]
pub(crate) struct Services {
    all: Vec<Service>,
    readers: Readers,
    last: u64,
    lines: u64,
    changed: bool,
    /// Since when they may be reported.
    quiet_until: Option<Instant>,
    stopping: bool,
}

// === impl Services ===

impl Services {
    /// These are to run, and no others.
    pub(crate) fn serve(&mut self, mut wanted: Vec<protocol::Service>, now: Instant, poll: &mut Poll) {
        let mut names = Vec::new();
        wanted.retain(|service| {
            let good = is_name(&service.name) && !service.command.is_empty() && !names.contains(&service.name) && names.len() < SERVICES;
            if good {
                names.push(service.name.clone());
            } else {
                note("a service is left out: it has no name or command of its own, or there are too many");
            }
            good
        });
        for service in &mut self.all {
            let to_be = wanted.iter().position(|wanted| wanted.name == service.name).map(|at| wanted.remove(at));
            self.changed |= to_be.is_some() != service.is_wanted();
            service.change(to_be, now, poll);
        }
        for service in wanted {
            self.last += 1;
            self.all.push(Service::new(self.last, service, now));
        }
        let place = |service: &Service| names.iter().position(|name| *name == service.name).unwrap_or(names.len());
        self.all.sort_by_key(place);
    }

    /// How those stand that are to run.
    pub(crate) fn states(&self) -> Vec<ServiceState> {
        self.all.iter().filter(|service| service.is_wanted()).map(Service::state).collect()
    }

    /// One more who reads what one says, or all do.
    pub(crate) fn logs(&mut self, request: Request, service: Option<String>, follow: bool, gateway: &mut Gateway, poll: &mut Poll) {
        let known = self.all.iter().any(|one| one.is_wanted() && service.as_ref().is_none_or(|name| *name == one.name));
        let added =
            if known { self.readers.add(service, follow, poll) } else { Err((Failure::NotFound, "there is no such service".to_owned())) };
        let number = request.number;
        match added {
            Ok(socket) => gateway.answer(request, &Report::Connected { request: number }, vec![socket]),
            Err((why, text)) => gateway.answer(request, &Report::Failed { request: number, why, text }, Vec::new()),
        }
    }

    /// One says something.
    pub(crate) fn output_ready(&mut self, number: u64, poll: &mut Poll) {
        if let Some(service) = self.all.iter_mut().find(|service| service.number == number) {
            service.output_ready(&mut self.lines, poll);
        }
    }

    /// A check has something to say.
    pub(crate) fn check_ready(&mut self, number: u64, now: Instant, poll: &mut Poll) {
        if let Some(service) = self.all.iter_mut().find(|service| service.number == number) {
            service.check_ready(&mut Around { now, home: "", lines: &mut self.lines, poll });
        }
    }

    /// A reader has room, or has left.
    pub(crate) fn reader_ready(&mut self, reader: u64) {
        self.readers.ready(reader);
    }

    /// A child has ended; maybe one of these.
    pub(crate) fn ended(&mut self, pid: Pid, exit: Exit, now: Instant, poll: &mut Poll) {
        let around = &mut Around { now, home: "", lines: &mut self.lines, poll };
        let _ = self.all.iter_mut().any(|service| service.ended(pid, exit, around));
    }

    /// Those that run, each the leader of its own session.
    pub(crate) fn pids(&self) -> impl Iterator<Item = Pid> {
        self.all.iter().flat_map(Service::pids)
    }

    /// Nothing is started any more.
    pub(crate) fn stop(&mut self) {
        self.stopping = true;
    }

    /// When there is something to do, if nothing happens.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let report = self.quiet_until.filter(|_| self.changed);
        self.all.iter().filter_map(|service| service.deadline(self.stopping, now)).chain(report).min()
    }

    /// Draws the conclusions of what has happened. `home` is that of a container that names none.
    pub(crate) fn settle(&mut self, now: Instant, home: &str, gateway: &mut Gateway, poll: &mut Poll) {
        for service in &mut self.all {
            service.settle(self.stopping, &mut Around { now, home, lines: &mut self.lines, poll });
            self.changed |= service.has_changed() && service.is_wanted();
            if let Some(number) = service.log.forgotten() {
                self.readers.forget(&service.name, number);
            }
        }
        for mut service in self.all.extract_if(.., |service| service.is_gone()) {
            service.leave(&mut self.lines, poll);
        }
        self.readers.settle(self.all.iter().map(|service| (service.name.as_str(), &service.log)), poll);
        self.quiet_until = self.quiet_until.filter(|until| *until > now);
        // One that comes later reads it in the hello.
        if self.changed && (gateway.connection().is_none() || self.quiet_until.is_none()) {
            gateway.report(&Report::Services { services: self.states() }, Vec::new());
            (self.changed, self.quiet_until) = (false, Some(now + BETWEEN));
        }
    }
}

/// It is shown before each line.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use innkeeper_init::protocol::Restart;

    use super::*;

    fn service(name: &str, command: &str) -> protocol::Service {
        let command = vec![command.to_owned()];
        protocol::Service { name: name.to_owned(), command, env: Vec::new(), directory: None, restart: Restart::Always, ready: None }
    }

    fn numbers(services: &Services) -> Vec<(u64, &str, bool)> {
        services.all.iter().map(|service| (service.number, service.name.as_str(), service.is_wanted())).collect()
    }

    #[test]
    fn what_is_wanted_replaces_what_was() {
        let (mut services, mut poll, now) = (Services::default(), Poll::new().unwrap(), Instant::now());
        services.serve(vec![service("a", "1"), service("b", "1"), service("a", "2"), service("", "1"), service("\n", "1")], now, &mut poll);
        assert_eq!(numbers(&services), [(1, "a", true), (2, "b", true)]);
        services.serve(vec![service("c", "1"), service("b", "2")], now, &mut poll);
        assert_eq!(numbers(&services), [(3, "c", true), (2, "b", true), (1, "a", false)]);
        assert_eq!(services.states().len(), 2);
        let many = (0..20).map(|number| service(&number.to_string(), "1")).collect();
        services.serve(many, now, &mut poll);
        assert_eq!(services.states().len(), SERVICES);
    }
}
