//! What the loop waits for: descriptors, and whose they are.
//!
//! Each registration has a number of its own that is never used again, so an event that is already fetched when its source goes away
//! finds nobody. Knows nothing of what the sources are about.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Most events taken at once.
const EVENTS: usize = 64;

/// Whose a descriptor is: where its events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A child has ended.
    ChildSignal,
    /// The container is to stop.
    StopSignal,
    /// The gateway's connection.
    Gateway,
    /// A job is done.
    Jobs,
    /// What a process that is about to become somebody's program has to say.
    Launch { process: u64 },
    /// Output of a process that nobody takes.
    Unread { process: u64, which: usize },
    /// A terminal's own end.
    Master { process: u64 },
    /// A viewer's socket.
    Viewer { process: u64, viewer: u64 },
    /// A listening socket.
    Listener { listener: u64, which: usize },
    /// What a service says.
    Output { service: u64 },
    /// A service's port, that is being looked for.
    Check { service: u64 },
    /// Who reads what services say.
    LogReader { reader: u64 },
    /// Somebody in the container has connected.
    Door,
    /// Somebody in the container.
    Caller { caller: u64 },
}

/// What a source waits for. That the other side has hung up for good is told beside any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Want {
    /// Something to read.
    pub(crate) read: bool,
    /// Room to write.
    pub(crate) write: bool,
    /// That the other side says no more. Told beside what there is to read.
    pub(crate) hangup: bool,
}

/// One descriptor's registration. Whoever holds it must [`Poll::forget`] it before the descriptor is closed: another process may hold the
/// same one, and events would go on for ever.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    token: Option<u64>,
    want: Want,
}

/// All registrations.
pub(crate) struct Poll {
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    next: u64,
}

// === impl Want ===

impl Want {
    pub(crate) const READ: Self = Self { read: true, write: false, hangup: true };
    pub(crate) const NOTHING: Self = Self { read: false, write: false, hangup: false };
}

// === impl Poll ===

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, sources: BTreeMap::new(), next: 0 })
    }

    /// Waits for this from now on; for nothing, not even for hanging up, where `want` is empty.
    pub(crate) fn watch(&mut self, fd: impl AsFd, watch: &mut Watch, source: Source, want: Want) {
        if want == watch.want {
            return;
        }
        if want == Want::NOTHING {
            return self.forget(fd, watch);
        }
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, want.read);
        flags.set(epoll::EventFlags::RDHUP, want.hangup);
        flags.set(epoll::EventFlags::OUT, want.write);
        let done = match watch.token {
            Some(token) => epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), flags),
            None => {
                self.next += 1;
                self.sources.insert(self.next, source);
                watch.token = Some(self.next);
                epoll::add(&self.epoll, fd, epoll::EventData::new_u64(self.next), flags)
            }
        };
        // Fails where the kernel has no memory left, or for a file: which then has no events, as if it were always quiet.
        if done.is_ok() {
            watch.want = want;
        }
    }

    /// Waits for it no more.
    pub(crate) fn forget(&mut self, fd: impl AsFd, watch: &mut Watch) {
        if let Some(token) = watch.token.take() {
            self.sources.remove(&token);
            let _ = epoll::delete(&self.epoll, fd);
        }
        watch.want = Want::NOTHING;
    }

    /// Waits until something happens, at most so long. Whose the events are is looked up one by one, with [`Poll::source`].
    pub(crate) fn wait(&self, timeout: Option<Duration>, events: &mut Vec<u64>) {
        let timeout = timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        let mut list = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, spare_capacity(&mut list), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // Nothing that could be mended, and waiting a little keeps it from turning for ever.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        events.clear();
        events.extend(list.iter().map(|event: &epoll::Event| { event.data }.u64()));
    }

    /// Whose an event is, unless its source is gone by now.
    pub(crate) fn source(&self, event: u64) -> Option<Source> {
        self.sources.get(&event).copied()
    }
}
