//! People are told some time before an administrator stops the workspace that they are in.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Ending;
use super::driver::{Handle, Request, Seen};

/// Why it is stopped, and who can do something about it.
const REASON: &str = "an administrator stops it, and can put it off";

/// How often that is said again, for those who have come since. Who was told does not hear it twice.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// Takes back what was said, unless the time is over.
struct Notice<'a> {
    handle: &'a Handle,
    is_over: bool,
}

/// Says that a workspace will be stopped, and returns when it is to be, or has come to `rest` otherwise. Dropped before that, it says that
/// the workspace stays.
pub(super) async fn give(handle: &Handle, within: Duration, rest: impl Fn(&Seen) -> bool) {
    let end = Instant::now() + within;
    let mut notice = Notice { handle, is_over: false };
    let say = async {
        loop {
            let soon = Ending::Soon { reason: REASON, within: end.saturating_duration_since(Instant::now()), can_be_kept: false };
            handle.inbox.send(Request::Announce(soon)).await.ok();
            sleep(SAY_AGAIN).await;
        }
    };
    let mut seen = handle.seen.clone();
    let resting = async { drop(seen.wait_for(|seen| rest(seen)).await) };
    let early = async {
        tokio::select! { () = resting => {} () = say => {} }
    };
    timeout_at(end, early).await.ok();
    notice.is_over = true;
}

impl Drop for Notice<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            // With a full inbox nobody is told; the workspace stays all the same.
            self.handle.inbox.try_send(Request::Announce(Ending::Stays)).ok();
        }
    }
}
