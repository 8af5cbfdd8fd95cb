//! One of those who watch a terminal: a socket, and what it has not taken yet.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::poll::Watch;

/// Most bytes of output that wait for a viewer, except for a painting of the whole screen, and for what a program has said last.
pub(crate) const ROOM: usize = 64 * 1024;

/// A viewer.
pub(crate) struct Viewer {
    pub(crate) id: u64,
    pub(crate) socket: OwnedFd,
    pub(crate) watch: Watch,
    waiting: VecDeque<u8>,
    /// It has missed something, because others were faster: once it has taken what waits, the screen is painted anew.
    behind: bool,
    /// It has left.
    pub(crate) gone: bool,
}

// === impl Viewer ===

impl Viewer {
    pub(crate) fn new(id: u64, socket: OwnedFd) -> Self {
        Self { id, socket, watch: Watch::default(), waiting: VecDeque::new(), behind: false, gone: false }
    }

    /// Whether it can take this much more.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        !self.behind && self.waiting.len() + bytes <= ROOM
    }

    /// Whether something waits for it.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether it has missed something and has taken what it has not missed.
    pub(crate) fn wants_painting(&self) -> bool {
        self.behind && self.waiting.is_empty()
    }

    /// Whether it says no more, though what it has said is not read yet.
    pub(crate) fn has_hung_up(&self) -> bool {
        let mut polled = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        poll(&mut polled, Some(&Timespec::default())).is_ok() && !polled[0].revents().is_empty()
    }

    /// Output for it, if it has room; otherwise it misses this.
    pub(crate) fn offer(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.push(bytes);
        } else {
            self.behind = true;
        }
    }

    /// The whole screen: from here on it has missed nothing.
    pub(crate) fn paint(&mut self, painting: &[u8]) {
        self.behind = false;
        self.push(painting);
    }

    /// It may have room now.
    pub(crate) fn flush(&mut self) {
        while !self.waiting.is_empty() && !self.gone {
            let taken = write(&self.socket, self.waiting.as_slices().0, &mut self.gone);
            if taken == 0 {
                return;
            }
            self.waiting.drain(..taken);
        }
        // Idle ones cost nothing.
        self.waiting.shrink_to(0);
    }

    fn push(&mut self, bytes: &[u8]) {
        let taken = if self.waiting.is_empty() { write(&self.socket, bytes, &mut self.gone) } else { 0 };
        self.waiting.extend(bytes.get(taken..).unwrap_or_default());
    }
}

/// How much of it was taken; and whether the viewer is gone.
fn write(socket: &OwnedFd, bytes: &[u8], gone: &mut bool) -> usize {
    match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(taken) => taken,
        Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => 0,
        Err(_) => {
            *gone = true;
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_is_slower_than_the_room_misses_output_and_is_painted_when_it_has_caught_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut viewer = Viewer::new(1, ours.into());
        let mut taken = Vec::new();
        let mut offered = 0;
        while viewer.has_room(4096) {
            viewer.offer(&[b'x'; 4096]);
            offered += 4096;
        }
        viewer.offer(&[b'y'; 4096]);
        assert!(!viewer.wants_painting() && !viewer.has_room(1));
        while viewer.is_waiting() {
            let _ = theirs.read_to_end(&mut taken);
            viewer.flush();
        }
        assert!(viewer.wants_painting());
        viewer.paint(b"screen");
        let _ = theirs.read_to_end(&mut taken);
        assert_eq!(taken.len(), offered + 6);
        assert!(taken.ends_with(b"xxscreen") && viewer.has_room(4096));
        drop(theirs);
        viewer.offer(b"z");
        assert!(viewer.gone);
    }
}
