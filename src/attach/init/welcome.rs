//! Who dials on a container's socket: its init, or somebody else in it.
//!
//! The socket is there for everybody in the container, and what they say of themselves is worth nothing. The kernel knows which process has
//! dialled, and the engine which is the container's first one; only that is welcome. Strangers are hung up on: many in one go, so that one who
//! floods the socket does not keep init out, and then everybody waits for a while, so that they cost the gateway no time.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use innkeeper_init::closing::Foreign;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::descriptor::polled;
use super::directories::BACKLOG;
use super::link::Link;
use crate::attach::{AttachError, Question};
use crate::engine::{ContainerId, Engine};
use crate::home::SlotId;

/// How long nobody is let in after one about whom the engine was asked was not, after so many strangers, or after an accept that failed. They
/// are as many as can wait: each time the queue has been emptied once, whoever waited for a place in it has had one.
const PAUSE: Duration = Duration::from_millis(200);
const STRANGERS: u32 = BACKLOG as u32;

/// How long strangers are told by the engine's last answer. An init that was started in the meantime is taken for one as long.
const KNOWN: Duration = Duration::from_secs(1);

/// An init that comes back sooner than this after it was let in is let in later each time, at most so much: every time costs a question to
/// the engine, and perhaps a line in the log.
const STEADY: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often one container is told of in the log whose socket is dialled by others.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How often the engine is asked who a container's first process is while it does not know yet, and for how long in between: init may dial
/// before the engine has taken note that it runs.
const LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What a container's init is let in with.
pub(super) struct Host {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) slot: SlotId,
}

/// Who has dialled so far.
#[derive(Default)]
struct Callers {
    /// The first process as the engine has last said, and when. Only to tell who is another: its number may be somebody else's by now.
    first: Option<(ContainerId, u32, Instant)>,
    /// Those that were not let in.
    strangers: u32,
    /// When one was last told of, and how many came since.
    said: Option<Instant>,
    unsaid: u64,
}

/// Lets init in, for as long as this is polled. Whoever is newer takes the place of who was there.
pub(super) fn run(
    host: Host,
    socket: Foreign,
    mut container: watch::Receiver<Option<ContainerId>>,
    links: watch::Sender<Option<Link>>,
) -> std::io::Result<impl Future<Output = ()> + Send> {
    let socket = polled(socket, Interest::READABLE)?;
    Ok(async move {
        let mut callers = Callers::default();
        let mut pause = PAUSE;
        loop {
            let Ok(Some(id)) = container.wait_for(Option::is_some).await.map(|id| id.clone()) else { return };
            let dialled = match accept(&socket).await {
                Ok(dialled) => dialled,
                Err(why) => {
                    tracing::warn!(slot = host.slot.as_str(), error = %why, "cannot accept an init");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            if callers.is_stranger(&id, &dialled) {
                callers.count(&id, "not its first process");
                if callers.strangers.is_multiple_of(STRANGERS) {
                    sleep(PAUSE).await;
                }
                continue;
            }
            let since = Instant::now();
            match admit(&host, &id, dialled, &mut callers).await {
                Ok(link) => {
                    tracing::debug!(container = id.0, "init is there");
                    let gone = link.gone().clone();
                    if let Some(before) = links.send_replace(Some(link)) {
                        before.hang_up();
                    }
                    // Nothing is lost by waiting here: while it is there it does not dial.
                    let steady = gone.run_until_cancelled(sleep_until(since + STEADY)).await.is_some();
                    pause = if steady { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                    sleep_until(since + pause).await;
                }
                Err(why) => {
                    callers.count(&id, &why.to_string());
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

async fn accept(socket: &AsyncFd<Foreign>) -> std::io::Result<Foreign> {
    // Our own socket, which nobody shares: it does not wait.
    let accept = |socket: &Foreign| Ok(accept_with(socket.as_fd(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?.into());
    socket.async_io(Interest::READABLE, accept).await
}

async fn admit(host: &Host, container: &ContainerId, dialled: Foreign, callers: &mut Callers) -> Result<Link, AttachError> {
    let peer = process(&dialled).ok_or_else(|| AttachError::Init("nobody is there".to_owned()))?;
    for _ in 0..LOOKS {
        match host.engine.inspect(&container.0).await?.and_then(|found| found.pid) {
            Some(first) if first == peer => return Link::begin(dialled, container.clone(), first, host.questions.clone()).await,
            Some(first) => {
                callers.first = Some((container.clone(), first, Instant::now()));
                return Err(AttachError::Init(format!("process {peer} of the host is not its first")));
            }
            None => sleep(LOOK_AGAIN).await,
        }
    }
    Err(AttachError::Init("the container does not run".to_owned()))
}

/// Which process of the host is at the other end.
fn process(dialled: &Foreign) -> Option<u32> {
    Some(socket_peercred(dialled).ok()?.pid.as_raw_nonzero().get().unsigned_abs())
}

// === impl Callers ===

impl Callers {
    /// Whether it is somebody else for sure, without asking the engine again.
    fn is_stranger(&self, container: &ContainerId, dialled: &Foreign) -> bool {
        let known = self.first.as_ref().filter(|(of, _, at)| of == container && at.elapsed() < KNOWN);
        known.is_some_and(|(_, first, _)| process(dialled) != Some(*first))
    }

    /// One was not let in. The log has one line for many.
    fn count(&mut self, container: &ContainerId, why: &str) {
        self.strangers = self.strangers.wrapping_add(1);
        if self.said.is_some_and(|said| said.elapsed() < SAID_EVERY) {
            self.unsaid += 1;
            return;
        }
        tracing::warn!(container = container.0, why, more_before = self.unsaid, "who has dialled is not let in");
        (self.said, self.unsaid) = (Some(Instant::now()), 0);
    }
}
