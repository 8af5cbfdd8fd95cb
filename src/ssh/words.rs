//! Everything a person reads, and the exit statuses that go with it.
//!
//! | status | meaning |
//! |---|---|
//! | 75 (`EX_TEMPFAIL`) | not now: full, draining, the container ended, or something failed that may work again |
//! | 77 (`EX_NOPERM`) | this account may not do that |
//! | 78 (`EX_CONFIG`) | the account's template is not configured; only an administrator can mend it |
//! | 130 | the person interrupted the wait with Ctrl-C |
//!
//! Every other status is the process's own. Nothing internal is said here: an engine's error text goes to the log.

use std::time::Duration;

use crate::name::printable;
use crate::workspace::{Ending, EnsureError, Progress};

/// The login service gave no verdict.
pub(super) const LOGIN_SERVICE_DOWN: &str = "The login service cannot be reached, so nobody can log in right now. Nothing is wrong with your password or key; try again in a moment.";

/// As [`LOGIN_SERVICE_DOWN`], before anybody has tried.
pub(super) const LOGIN_SERVICE_DOWN_BANNER: &str =
    "The login service could not be reached a moment ago. If you are refused now, it may not be your password or key.\r\n";

/// More failed tries than a connection may have.
pub(super) const TOO_MANY_TRIES: &str = "Too many failed tries to log in.";

/// What a connection that is refused before the handshake gets to read, if its client shows it.
pub(super) const TOO_MANY_CONNECTIONS: &str = "Too many connections, try again later\r\n";

/// The question of the method keyboard-interactive.
pub(super) const PASSWORD_PROMPT: &str = "Password: ";

/// An account that may not run commands.
pub(super) const NO_EXEC: &str = "this account may open a shell only, not run commands";

/// An account that may not transfer files.
pub(super) const NO_SFTP: &str = "this account may not use sftp";

/// The container ended under the session.
pub(super) const DIED: &str = "your container ended, and this session with it; log in again to start it anew";

/// The session's stream broke though the container is there.
pub(super) const LOST: &str = "the connection to your session was lost; log in again";

/// The process could not be opened.
pub(super) const NOT_OPENED: &str = "your session could not be started; try again, and tell the administrator if it keeps happening";

/// The wait was interrupted.
pub(super) const INTERRUPTED: &str = "interrupted";

/// A client that keeps sending what its process does not read.
pub(super) const INPUT_STUCK: &str = "this session was sent more input than it takes; it was ended";

/// What a disconnected client reads when the gateway ends.
pub(super) const SHUTTING_DOWN: &str = "The gateway is restarting. Your container keeps running; log in again in a moment.";

/// What a client reads whose connection has had as many sessions as it may have.
pub(super) const WORN_OUT: &str = "This connection has had very many sessions; connect again for more.";

/// `EX_TEMPFAIL`.
pub(super) const TEMPORARY: u32 = 75;
/// `EX_NOPERM`.
pub(super) const NOT_PERMITTED: u32 = 77;
/// `EX_CONFIG`.
pub(super) const MISCONFIGURED: u32 = 78;
/// 128 + SIGINT, as a shell reports it.
pub(super) const CTRL_C: u32 = 130;

/// One line for why a workspace is not ready, and the exit status.
pub(super) fn not_ready(why: &EnsureError) -> (String, u32) {
    let words = match why {
        EnsureError::QueueFull { waiting } => format!("everything is taken and {waiting} are waiting already; try again later"),
        EnsureError::QueueTimedOut { waited } => {
            format!("everything is taken, and no place came free within {}; try again later", span(*waited))
        }
        EnsureError::TooManySessions { limit } => {
            format!("you have {limit} sessions open, as many as your account may have; close one first")
        }
        EnsureError::NoTemplate(name) => {
            return (
                format!("your account asks for the template {:?}, which does not exist; tell the administrator", printable(name)),
                MISCONFIGURED,
            );
        }
        EnsureError::Home(_) => "your home could not be made available; nothing in it is lost; tell the administrator".to_owned(),
        EnsureError::Engine(_) => {
            "your container could not be started; try again, and tell the administrator if it keeps happening".to_owned()
        }
        EnsureError::Image(_) => {
            "your container's image could not be fetched; try again, and tell the administrator if it keeps happening".to_owned()
        }
        EnsureError::TimedOut(after) => format!("your container was not ready within {}; try again", span(*after)),
        EnsureError::Draining => "the gateway is restarting; try again in a moment".to_owned(),
    };
    (words, TEMPORARY)
}

/// What is happening, as a status of one line; `None` where there is nothing to say.
pub(super) fn progress(progress: &Progress) -> Option<String> {
    Some(match progress {
        Progress::Asked => "getting your container ready".to_owned(),
        Progress::Queued { position: 1 } => "everything is taken; you are next (Ctrl-C to give up)".to_owned(),
        Progress::Queued { position } => format!("everything is taken; {position} in the queue (Ctrl-C to give up)"),
        Progress::Pulling(detail) => format!("fetching the image: {}", printable(detail)),
        Progress::Creating => "making your container".to_owned(),
        Progress::Starting => "starting your container".to_owned(),
    })
}

/// What somebody at a terminal is told when her workspace is about to end.
pub(super) fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Draining(within) => draining(*within),
        Ending::Stopping(reason) => format!("your container is being stopped ({reason}); your home is kept"),
        Ending::Died => DIED.to_owned(),
    }
}

/// What somebody at a terminal is told when the gateway is about to end.
pub(super) fn draining(within: Duration) -> String {
    format!("the gateway is restarting; this session ends within {}, your container keeps running", span(within))
}

fn span(span: Duration) -> humantime::FormattedDuration {
    // To the second: nobody cares for the nanoseconds of a wait.
    humantime::format_duration(Duration::from_secs(span.as_secs_f64().round().max(1.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internals_are_not_said() {
        for why in [EnsureError::Engine("/var/run/docker.sock: EPERM".into()), EnsureError::Home("/srv/homes/alice".into())] {
            let (words, status) = not_ready(&why);
            assert!(!words.contains('/') && status == TEMPORARY, "{words}");
        }
    }

    #[test]
    fn what_the_engine_says_cannot_drive_the_terminal() {
        let words = progress(&Progress::Pulling("\x1b]0;x\x07layer".into()));
        assert_eq!(words.as_deref(), Some("fetching the image: \\u{1b}]0;x\\u{7}layer"));
    }

    #[test]
    fn times_are_said_in_whole_seconds() {
        assert!(draining(Duration::from_millis(9_999)).contains("within 10s"));
    }
}
