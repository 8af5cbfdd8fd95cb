//! An answer's body, and what is held until it is over; and a request's, and when more of it was passed on.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::stays::Hold;
use super::upstream::Lent;

type Over = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of an answer.
pub(super) enum Body {
    /// One of our own.
    Own(UnsyncBoxBody<Bytes, io::Error>),
    /// An application's.
    Carried {
        body: Incoming,
        /// What its end lets go of: the connection it comes over, and with it the workspace's lease and a place among its requests.
        held: Option<Box<(Lent, Hold)>>,
        /// When it is to end though more would come.
        over: Over,
        /// What went wrong with it, while what came before is written.
        failed: Option<hyper::Error>,
    },
}

impl Body {
    /// One of our own.
    pub(super) fn own(body: impl HttpBody<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
        Self::Own(body.map_err(|never| match never {}).boxed_unsync())
    }

    /// None.
    pub(super) fn nothing() -> Self {
        Self::own(Empty::new())
    }

    /// An application's, until then.
    pub(super) fn carried(body: Incoming, lent: Lent, hold: Hold, over: Over) -> Self {
        Self::Carried { body, held: Some(Box::new((lent, hold))), over, failed: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body).poll_frame(cx),
            Self::Carried { body, held, over, failed } => {
                if let Some(why) = failed.take() {
                    return Poll::Ready(Some(Err(io::Error::other(why))));
                }
                if over.as_mut().poll(cx).is_ready() {
                    *held = None;
                    return Poll::Ready(Some(Err(io::Error::other("the link is over"))));
                }
                let mut polled = Poll::Pending;
                // Once more: the connection reads on only after it was asked for more.
                for _ in 0..2 {
                    if polled.is_pending() {
                        if let Some(held) = held {
                            held.0.drive(cx);
                        }
                        polled = Pin::new(&mut *body).poll_frame(cx);
                    }
                }
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    *held = None;
                }
                match polled {
                    Poll::Ready(Some(Err(why))) => {
                        // Told at once it would take with it what was not written yet: an answer that breaks off is one up to there.
                        *failed = Some(why);
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    polled => polled.map_err(io::Error::other),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Carried { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Carried { body, .. } => body.size_hint(),
        }
    }
}

/// The body of a request.
pub(super) struct Passed {
    body: Incoming,
    last: Last,
}

/// When more of a request was last passed on.
#[derive(Clone)]
pub(super) struct Last(Arc<Mutex<Instant>>);

// === impl Passed ===

impl Passed {
    pub(super) fn new(body: Incoming) -> (Self, Last) {
        let last = Last(Arc::new(Mutex::new(Instant::now())));
        (Self { body, last: last.clone() }, last)
    }
}

impl HttpBody for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.last.is_now();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Last ===

impl Last {
    pub(super) fn is_now(&self) {
        *self.0.lock() = Instant::now();
    }

    pub(super) fn when(&self) -> Instant {
        *self.0.lock()
    }
}
