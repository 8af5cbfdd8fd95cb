//! Connections to applications in containers, kept for the next request.
//!
//! A connection has no task of its own: whoever waits for an answer, or for more of its body, drives it. So a request wakes nobody but its
//! own task, which is what its time was mostly spent on.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::body::{Last, Passed};
use super::target::Target;
use crate::attach::{Address, AttachError, Failure};
use crate::workspace::{Keeper, OpenError, Stay};

/// Most connections that wait for another request, of one port.
const IDLE: usize = 64;
/// How long they do. Many servers hang up after five seconds.
const IDLE_FOR: Duration = Duration::from_secs(4);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an application that has answered already may take in what is sent to it still.
const DRAIN: Duration = Duration::from_secs(30);
/// Longest head of an answer, in bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// The connections.
pub(super) struct Upstream {
    keeper: Arc<dyn Keeper>,
    idle: Mutex<HashMap<Target, Vec<Idle>>>,
}

struct Idle {
    line: Line,
    container: String,
    since: Instant,
}

/// A connection, and where its requests go in.
struct Line {
    sender: SendRequest<Passed>,
    /// `None`: it is over.
    connection: Option<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

/// A connection that goes back when it is dropped, if it can take another request.
pub(super) struct Lent {
    upstream: Arc<Upstream>,
    target: Target,
    container: String,
    line: Option<Line>,
}

/// Why there is no answer.
pub(super) enum Failed {
    /// Nothing listens there.
    Nobody,
    /// The container is not there any more.
    Gone,
    /// It hung up, or spoke something else.
    Broken(String),
    TooSlow,
}

impl Upstream {
    pub(super) fn new(keeper: Arc<dyn Keeper>) -> Self {
        Self { keeper, idle: Mutex::default() }
    }

    /// Sends a request, and returns the head of its answer, and what is to be held until its body is over.
    pub(super) async fn ask(
        self: &Arc<Self>,
        target: &Target,
        stay: &Stay,
        request: Request<Incoming>,
        within: Duration,
    ) -> Result<(Response<Incoming>, Lent), Failed> {
        let (head, body) = request.into_parts();
        let (body, last) = Passed::new(body);
        let mut request = Request::from_parts(head, body);
        // One that waited may have been hung up on in this moment: then nothing of the request was read, and it goes over a new one.
        while let Some(mut line) = self.take(target, &stay.container) {
            let sent = line.sender.try_send_request(request);
            match line.answer(sent, &last, within).await {
                None => return Err(Failed::TooSlow),
                Some(Ok(response)) => return Ok((response, self.lend(target, stay, line))),
                Some(Err(mut why)) => match why.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failed::Broken(why.into_error().to_string())),
                },
            }
        }
        let mut line = timeout(CONNECT, self.connect(target, stay)).await.map_err(|_| Failed::TooSlow)??;
        let sent = line.sender.send_request(request);
        match line.answer(sent, &last, within).await {
            None => Err(Failed::TooSlow),
            Some(Ok(response)) => Ok((response, self.lend(target, stay, line))),
            Some(Err(why)) => Err(Failed::Broken(why.to_string())),
        }
    }

    fn take(&self, target: &Target, container: &str) -> Option<Line> {
        loop {
            let mut one = self.idle.lock().get_mut(target)?.pop()?;
            if one.container == container && one.since.elapsed() < IDLE_FOR && one.line.is_ready() {
                return Some(one.line);
            }
        }
    }

    fn lend(self: &Arc<Self>, target: &Target, stay: &Stay, line: Line) -> Lent {
        Lent { upstream: Arc::clone(self), target: target.clone(), container: stay.container.clone(), line: Some(line) }
    }

    async fn connect(&self, target: &Target, stay: &Stay) -> Result<Line, Failed> {
        let to = Address::Tcp { host: "127.0.0.1".to_owned(), port: target.port };
        let stream = self.keeper.connect(stay, &to).await.map_err(|why| match why {
            OpenError::Gone => Failed::Gone,
            OpenError::Attach(AttachError::Failed { why: Failure::Refused | Failure::NotFound, .. }) => Failed::Nobody,
            OpenError::Attach(AttachError::Failed { why: Failure::TimedOut, .. }) => Failed::TooSlow,
            OpenError::Attach(why) => Failed::Broken(why.to_string()),
        })?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|why| Failed::Broken(why.to_string()))?;
        Ok(Line { sender, connection: Some(Box::pin(connection.with_upgrades())) })
    }

    /// Lets go of connections that have waited for long enough. To be called now and then.
    pub(super) fn sweep(&self) {
        self.idle.lock().retain(|_, waiting| {
            waiting.retain(|one| one.since.elapsed() < IDLE_FOR);
            !waiting.is_empty()
        });
    }
}

impl Line {
    /// Goes on with it, as far as it goes now. Whoever is polled with this is woken when it goes further.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && connection.as_mut().poll(cx).is_ready()
        {
            // Why it failed, its request hears.
            self.connection = None;
        }
    }

    /// Drives it until then.
    async fn until<T>(&mut self, then: impl Future<Output = T>) -> T {
        let mut then = pin!(then);
        poll_fn(|cx| {
            self.drive(cx);
            then.as_mut().poll(cx)
        })
        .await
    }

    /// Drives it until there is an answer. `None`: there was none for so long, and no more of the request was passed on: however slowly it
    /// arrives, the application is not late.
    async fn answer<T>(&mut self, sent: impl Future<Output = T>, last: &Last, within: Duration) -> Option<T> {
        last.is_now();
        let mut answer = pin!(self.until(sent));
        loop {
            let seen = last.when();
            match timeout_at(seen + within, &mut answer).await {
                Ok(answer) => return Some(answer),
                Err(_) if last.when() == seen => return None,
                Err(_) => {}
            }
        }
    }

    /// Drives it until it takes another request, or is over.
    async fn finish(&mut self) {
        poll_fn(|cx| {
            self.drive(cx);
            if self.connection.is_none() || self.sender.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether it takes a request now: neither hung up on nor in the middle of another.
    fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }
}

impl Lent {
    /// Goes on with the connection: to be called before more of its answer is asked for.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(line) = &mut self.line {
            line.drive(cx);
        }
    }

    /// Drives the connection to its end: when it has become another protocol's.
    pub(super) async fn finish(&mut self) {
        if let Some(line) = &mut self.line {
            line.finish().await;
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut line) = self.line.take() else { return };
        if !line.is_ready() {
            // An application may answer before all was sent to it, and take that then: were it hung up on, whoever sends would be hung up on too,
            // before she has read the answer. One that was not read to its end ends at once.
            if line.connection.is_some()
                && let Ok(runtime) = Handle::try_current()
            {
                runtime.spawn(timeout(DRAIN, async move { line.finish().await }));
            }
            return;
        }
        let mut idle = self.upstream.idle.lock();
        let waiting = idle.entry(self.target.clone()).or_default();
        if waiting.len() < IDLE {
            waiting.push(Idle { line, container: std::mem::take(&mut self.container), since: Instant::now() });
        }
    }
}
