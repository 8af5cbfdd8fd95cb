//! Everything a person reads, and the exit statuses that go with it.
//!
//! | status | meaning |
//! |---|---|
//! | 64 (`EX_USAGE`) | not like this: a terminal's name without a terminal, or mosh |
//! | 75 (`EX_TEMPFAIL`) | not now: full, draining, the container ended, or something failed that may work again |
//! | 77 (`EX_NOPERM`) | this account may not do that, or its workspace is suspended |
//! | 78 (`EX_CONFIG`) | the account's template is not configured; only an administrator can mend it |
//! | 130 | the person interrupted the wait with Ctrl-C |
//!
//! Every other status is the process's own. Nothing internal is said here: an engine's error text goes to the log.

use std::time::Duration;

use super::forward::Refusal;
use super::leaving::Staying;
use crate::attach::{Failure, Terminal};
use crate::name::{TerminalName, printable};
use crate::workspace::{Ending, EnsureError, Fullness, Note, Progress};

/// The login service gave no verdict.
pub(super) const LOGIN_SERVICE_DOWN: &str =
    "The login service cannot be reached right now. Nothing is wrong with your password or key; try again in a moment.";

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

/// A terminal's name in a request without a terminal.
pub(super) const NEEDS_TERMINAL: &str = "a name after @ is a terminal's, which your client must ask for: ssh -t ... @name";

/// A terminal's name where terminals do not outlive their clients.
pub(super) const NO_NAMES: &str = "terminals in your container have no names; log in without one";

/// A client of mosh.
pub(super) const NO_MOSH: &str = "mosh cannot work here: it needs to reach your container by UDP. \
     A terminal that has a name survives lost connections as well: ssh -t ... @name";

/// The list of an account's terminals is empty.
pub(super) const NO_TERMINALS: &str = "you have no terminal that has a name; `ssh -t ... @name` opens one";

/// The terminals could not be asked for.
pub(super) const NOT_LISTED: &str = "your terminals could not be listed; try again, and tell the administrator if it keeps happening";
/// That nobody may be in a workspace as it is gone, or about to go.
pub(super) const DELETED: &str = "this workspace was deleted; if that is a mistake, tell the administrator soon";

/// An administrator has ended the session.
pub(super) const ENDED: &str = "an administrator has ended this session; your workspace goes on";

/// The session is to be recorded.
pub(super) const RECORDED: &str = "this terminal is recorded: what it shows, not what you type";

/// The same, where it may be watched too.
pub(super) const WATCHED: &str = "this terminal is recorded, and an administrator may watch it: what it shows, not what you type";

/// The session has to be recorded, and cannot be.
pub(super) const UNRECORDED: &str =
    "this session has to be recorded and cannot be right now, so it is ended; your workspace goes on; tell the administrator";

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

/// The client's key agent cannot be had in the container.
pub(super) const NO_AGENT: &str = "your key agent cannot be used here; the session starts without it";

/// The client's display cannot be had in the container.
pub(super) const NO_DISPLAY: &str = "your display cannot be used here; the session starts without it";

/// What a disconnected client reads when the gateway ends.
pub(super) const SHUTTING_DOWN: &str = "The gateway is restarting. Your container keeps running; log in again in a moment.";

/// What a client reads whose connection has had as many sessions as it may have.
pub(super) const WORN_OUT: &str = "This connection has had very many sessions; connect again for more.";

/// `EX_USAGE`.
pub(super) const USAGE: u32 = 64;
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
        EnsureError::Suspended(reason) => return (suspended(reason), NOT_PERMITTED),
        EnsureError::Deleted => return (DELETED.to_owned(), NOT_PERMITTED),
        EnsureError::Passing => "your workspace is being made or brought back right now; try again in a moment".to_owned(),
        EnsureError::DiskLow => "there is no room for a new home right now; tell the administrator".to_owned(),
        EnsureError::Settings(_) => "what is set of your workspace could not be read; tell the administrator".to_owned(),
        EnsureError::Draining => "the gateway is restarting; try again in a moment".to_owned(),
    };
    (words, TEMPORARY)
}

/// Why a forward is refused, as clients show it behind the protocol's own reason.
pub(super) fn no_forward(why: Refusal) -> &'static str {
    match why {
        Refusal::Denied => "this account may not forward this",
        Refusal::Limit => "this connection has as many forwards as it may have",
        Refusal::Unready => "your container is not ready",
        Refusal::Failed(Failure::Refused) => "Connection refused",
        Refusal::Failed(Failure::NotFound) => "no such host or socket",
        Refusal::Failed(Failure::Denied) => "Permission denied",
        Refusal::Failed(Failure::Exhausted) => "your container has no process or file left for it",
        Refusal::Failed(Failure::TimedOut) => "Connection timed out",
        Refusal::Failed(Failure::Invalid) => "no address, or no socket to connect to",
        Refusal::Failed(Failure::Taken | Failure::Other) => "not possible",
    }
}

/// The exit status of a process that could not be started, as a shell gives it.
pub(super) fn not_started(why: Failure) -> u32 {
    match why {
        Failure::NotFound => 127,
        Failure::Denied | Failure::Invalid => 126,
        Failure::Refused | Failure::Taken | Failure::Exhausted | Failure::TimedOut | Failure::Other => TEMPORARY,
    }
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
        Progress::Upgrading => "making your container anew, from a newer image".to_owned(),
    })
}

/// What somebody at a terminal is told when her workspace is about to end.
pub(super) fn ending(ending: &Ending, staying: &Staying) -> String {
    match ending {
        Ending::Draining(within) => draining(*within, staying),
        Ending::Soon { reason, within, can_be_kept } => {
            let ask = if *can_be_kept { "; `innkeeper-keep 1h` asks for more time" } else { "" };
            format!("your container will be stopped in {} ({reason}); your home is kept{ask}", span(*within))
        }
        Ending::Stays => "your container is not stopped after all".to_owned(),
        Ending::Stopping(reason) => format!("your container is being stopped ({reason}); your home is kept"),
        Ending::Suspended(reason) => format!("{}; this session ends now, your home is kept", suspended(reason)),
        Ending::Deleted => format!("{DELETED}; this session ends now"),
        Ending::Ended => ENDED.to_owned(),
        Ending::Unrecorded => UNRECORDED.to_owned(),
        Ending::Died => DIED.to_owned(),
    }
}

/// That nobody may be in a workspace, and why: an administrator's words.
pub(super) fn suspended(reason: &str) -> String {
    format!("this workspace is suspended: {}", printable(reason))
}

/// A line for who logs in and has a workspace in which something is not as it was, or should be.
pub(super) fn note(note: &Note) -> String {
    match note {
        Note::Absent(target) => format!("{} is not there right now; tell the administrator", printable(target)),
        Note::Upgraded => "your container was made anew, from a newer image; your home is as it was".to_owned(),
        Note::Replaced => {
            "your container was made anew, as what appears in it from the host has changed; your home is as it was".to_owned()
        }
    }
}

/// What somebody at a terminal is told when the gateway is about to end.
fn draining(within: Duration, staying: &Staying) -> String {
    let after = match staying {
        Staying::Named(name, _) => format!("its terminal goes on; to get back into it: {}", way_into(name)),
        Staying::WhenLost(keep) => {
            format!("its terminal goes on for {}; log in again in a moment, and you are told how to get back into it", span(*keep))
        }
        Staying::OverRestart | Staying::Never => "your container keeps running".to_owned(),
    };
    format!("the gateway is restarting; this session ends within {}, {after}", span(within))
}

/// A line for who logs in and has a terminal that was cut off.
pub(super) fn lost(name: &TerminalName, terminal: &Terminal) -> String {
    let ago = span(seconds(terminal.alone));
    format!("a terminal of yours was cut off {ago} ago and still runs; to get back into it: {}", way_into(name))
}

/// A line for who logs in and has a home or a volume that is nearly full.
pub(super) fn fullness(fullness: &Fullness) -> String {
    let Fullness { volume, percent, used, limit, files } = fullness;
    let (percent, used, limit, files) = (*percent, *used, *limit, *files);
    let (what, at) = match volume {
        Some(volume) => (format!("volume {}", volume.name), volume.path.as_str()),
        None => ("home".to_owned(), "~"),
    };
    let amount = |number: u64| if files { number.to_string() } else { bytesize::ByteSize(number).to_string() };
    let (of, du, sort) = if files { (" files", "du --inodes", "sort -n") } else { ("", "du -h", "sort -h") };
    let then = if percent >= Fullness::PRESSING { "; delete something before nothing can be saved" } else { "" };
    let (used, limit) = (amount(used), amount(limit));
    format!("your {what} is {percent}% full, {used} of {limit}{of}{then}; what is largest in it: {du} {at} | {sort} | tail")
}

/// The list of an account's terminals, a line for each.
pub(super) fn terminals(all: &[(TerminalName, Terminal)]) -> String {
    let width = all.iter().map(|(name, _)| name.as_str().len()).max().unwrap_or_default();
    let line = |(name, terminal): &(TerminalName, Terminal)| {
        let watched = match (terminal.viewers, terminal.left) {
            (0, None) => format!("nobody watches, since {}", span(seconds(terminal.alone))),
            (0, Some(left)) => {
                format!("nobody watches, since {}; it ends in {}", span(seconds(terminal.alone)), span(seconds(left)))
            }
            (viewers, _) => format!("watched by {viewers}"),
        };
        format!("{:width$}  {watched}; to get into it: {}\n", name.as_str(), way_into(name))
    };
    all.iter().map(line).collect()
}

/// What to type to get into a terminal. Under which name a client knows the gateway is not known here.
fn way_into(name: &TerminalName) -> String {
    format!("ssh -t ... @{name}")
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn span(span: Duration) -> humantime::FormattedDuration {
    // To the second: nobody cares for the nanoseconds of a wait.
    humantime::format_duration(Duration::from_secs(span.as_secs_f64().round().max(1.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::FullVolume;

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
    fn a_full_home_is_said_in_what_it_is_full_of() {
        let full = |percent, files| fullness(&Fullness { volume: None, percent, used: 82 << 30, limit: 100 << 30, files });
        assert_eq!(full(82, false), "your home is 82% full, 82.0 GiB of 100.0 GiB; what is largest in it: du -h ~ | sort -h | tail");
        assert!(full(90, true).contains("90% full, 88046829568 of 107374182400 files; delete something"), "{}", full(90, true));
        let volume = Some(FullVolume { name: "data".parse().unwrap(), path: "/srv/data".to_owned() });
        let full = fullness(&Fullness { volume, percent: 82, used: 82, limit: 100, files: true });
        assert_eq!(full, "your volume data is 82% full, 82 of 100 files; what is largest in it: du --inodes /srv/data | sort -n | tail");
    }

    #[test]
    fn times_are_said_in_whole_seconds() {
        assert!(draining(Duration::from_millis(9_999), &Staying::Never).contains("within 10s"));
    }

    #[test]
    fn more_time_is_offered_only_where_it_can_be_had() {
        let soon = |can_be_kept| ending(&Ending::Soon { reason: "why", within: Duration::from_secs(300), can_be_kept }, &Staying::Never);
        assert_eq!(soon(false), "your container will be stopped in 5m (why); your home is kept");
        assert!(soon(true).ends_with("; `innkeeper-keep 1h` asks for more time"));
    }

    #[test]
    fn a_list_says_of_each_terminal_who_watches_and_how_to_get_into_it() {
        let terminal = |viewers, alone, left| Terminal { process: 0, name: String::new(), viewers, alone, left };
        let all = [("lost-1", terminal(0, 180, Some(1620))), ("work", terminal(2, 0, None)), ("x", terminal(0, 61, None))];
        let all = all.map(|(name, terminal)| (name.parse().unwrap(), terminal));
        assert_eq!(
            terminals(&all),
            "lost-1  nobody watches, since 3m; it ends in 27m; to get into it: ssh -t ... @lost-1\n\
             work    watched by 2; to get into it: ssh -t ... @work\n\
             x       nobody watches, since 1m 1s; to get into it: ssh -t ... @x\n"
        );
    }
}
