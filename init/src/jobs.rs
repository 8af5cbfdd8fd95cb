//! What may take long, or hang on a file system that does not answer, each in a thread of its own that ends with it: dialing out, and
//! listening at a path. The loop only hears of the result.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{Address, Endpoint, Failure};
use rustix::event::{EventfdFlags, eventfd};

use crate::dial::dial;
use crate::gateway::Request;
use crate::listen::{Bound, bind};
use crate::poll::{Poll, Source, Want, Watch};

/// Most jobs at once.
const JOBS: usize = 64;

/// Stack of a job, in bytes: a name server's answer is read onto it.
const STACK: usize = 256 * 1024;

/// How long a job may take. Threads that are stuck longer count among the most there may be.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why something is not possible, and the same in words.
pub(crate) type Refusal = (Failure, String);

/// What is to be done.
pub(crate) enum Job {
    /// Connect there.
    Connect(Address),
    /// Listen there.
    Listen(Endpoint),
}

/// What became of it.
pub(crate) enum Done {
    /// It is connected.
    Connected(OwnedFd),
    /// It listens.
    Listening(Bound),
    /// Neither.
    Failed(Refusal),
}

/// The jobs.
pub(crate) struct Jobs {
    running: usize,
    results: Receiver<(Request, Done)>,
    sender: SyncSender<(Request, Done)>,
    wake: Arc<OwnedFd>,
    /// The home of a container that names none, as the gateway has said it last.
    home: String,
}

// === impl Jobs ===

impl Jobs {
    pub(crate) fn new(poll: &mut Poll) -> std::io::Result<Self> {
        // Never full: there are no more senders than it has places.
        let (sender, results) = sync_channel(JOBS);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        // Never forgotten: it is there as long as the process.
        poll.watch(&*wake, &mut Watch::default(), Source::Jobs, Want::READ);
        Ok(Self { running: 0, results, sender, wake, home: String::new() })
    }

    /// The home of a container that names none.
    pub(crate) fn know_home(&mut self, home: &str) {
        if self.home != home {
            home.clone_into(&mut self.home);
        }
    }

    /// The same, as it is known.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// Starts one.
    pub(crate) fn start(&mut self, request: Request, job: Job) -> Result<(), Refusal> {
        if self.running >= JOBS {
            return Err((Failure::Exhausted, format!("{JOBS} connections are being made already")));
        }
        let (sender, wake, home) = (self.sender.clone(), self.wake.clone(), self.home.clone());
        let run = move || {
            let until = Instant::now() + DEADLINE;
            let done = match job {
                Job::Connect(to) => dial(&to, &home, until).map(Done::Connected),
                Job::Listen(on) => bind(&on, &home).map(Done::Listening),
            };
            let _ = sender.send((request, done.unwrap_or_else(Done::Failed)));
            let _ = rustix::io::write(&*wake, &1u64.to_ne_bytes());
        };
        // A process that is out of threads is the container's limit.
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
        thread.map_err(|why| (Failure::Exhausted, format!("no thread: {why}")))?;
        self.running += 1;
        Ok(())
    }

    /// The next result.
    pub(crate) fn next(&mut self) -> Option<(Request, Done)> {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8][..]);
        let result = self.results.try_recv().ok()?;
        self.running = self.running.saturating_sub(1);
        Some(result)
    }
}
