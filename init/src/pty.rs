//! Opening a pseudo-terminal.

use std::os::fd::{AsFd, OwnedFd};

use innkeeper_init::protocol::{Mode, Size};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcsetattr, tcsetwinsize};

use crate::modes;

/// A terminal of this size and with these modes: init's end, which never blocks, and the process's.
pub(crate) fn open(size: Size, given: &[Mode]) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    // Not by its path: the container decides what is there.
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    resize(&master, size)?;
    if !given.is_empty() {
        let mut terminal = tcgetattr(&slave)?;
        modes::apply(&mut terminal, given);
        tcsetattr(&slave, OptionalActions::Now, &terminal)?;
    }
    Ok((master, slave))
}

/// Gives it another size, which its foreground group is told by the kernel.
pub(crate) fn resize(master: impl AsFd, size: Size) -> Result<(), Errno> {
    tcsetwinsize(master, Winsize { ws_col: size.columns, ws_row: size.rows, ws_xpixel: 0, ws_ypixel: 0 })
}
