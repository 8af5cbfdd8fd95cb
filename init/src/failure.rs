//! What the kernel's errors are called in the words for the gateway.

use std::io;

use innkeeper_init::protocol::Failure;
use rustix::io::Errno;

/// Of a call of the kernel's.
pub(crate) fn of(why: Errno) -> Failure {
    match why {
        Errno::NOENT | Errno::NOTDIR => Failure::NotFound,
        Errno::CONNREFUSED | Errno::CONNRESET => Failure::Refused,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => Failure::Denied,
        Errno::ADDRINUSE | Errno::EXIST => Failure::Taken,
        Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOSPC => Failure::Exhausted,
        Errno::TIMEDOUT => Failure::TimedOut,
        // No socket, and one of another kind than is asked for.
        Errno::NOTSOCK | Errno::PROTOTYPE => Failure::Invalid,
        Errno::TOOBIG | Errno::NAMETOOLONG | Errno::INVAL => Failure::Invalid,
        _ => Failure::Other,
    }
}

/// Of a call of the standard library's.
pub(crate) fn of_io(why: &io::Error) -> Failure {
    match (Errno::from_io_error(why), why.kind()) {
        (Some(errno), _) => of(errno),
        (None, io::ErrorKind::TimedOut) => Failure::TimedOut,
        (None, io::ErrorKind::InvalidInput) => Failure::Invalid,
        (None, _) => Failure::Other,
    }
}
