//! The pipes of a process, and what becomes of its output while nobody takes it: it is read to nowhere.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::poll::{Poll, Source, Want, Watch};

/// How much is read at once, and how often before others have their turn.
const NOWHERE: usize = 16 * 1024;
const TURN: usize = 16;

/// Three pipes: input, output, error.
pub(crate) struct Pipes {
    /// What init keeps of output and error.
    pub(crate) kept: [Unread; 2],
    /// The process's ends.
    pub(crate) theirs: [OwnedFd; 3],
    /// The gateway's ends, none of which blocks.
    pub(crate) given: [OwnedFd; 3],
}

/// init's own hold on an output. As long as there is one, the process can write without anybody else.
pub(crate) struct Unread {
    /// `None` once it has ended, or nobody is to read it.
    pipe: Option<OwnedFd>,
    watch: Watch,
}

// === impl Pipes ===

impl Pipes {
    pub(crate) fn new() -> Result<Self, Errno> {
        let (input, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        let (output, their_output) = pipe_with(PipeFlags::CLOEXEC)?;
        let (error, their_error) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&ours, &output, &error] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let kept = [Unread::of(&output)?, Unread::of(&error)?];
        Ok(Self { kept, theirs: [input, their_output, their_error], given: [ours, output, error] })
    }
}

// === impl Unread ===

impl Unread {
    fn of(pipe: &OwnedFd) -> Result<Self, Errno> {
        Ok(Self { pipe: Some(rustix::io::fcntl_dupfd_cloexec(pipe, 0)?), watch: Watch::default() })
    }

    /// Waits for output if nobody else takes it.
    pub(crate) fn watch(&mut self, poll: &mut Poll, source: Source, want: Want) {
        if let Some(pipe) = &self.pipe {
            poll.watch(pipe, &mut self.watch, source, want);
        }
    }

    /// There is output that nobody takes.
    pub(crate) fn ready(&mut self, poll: &mut Poll) {
        let mut nowhere = [0; NOWHERE];
        for _ in 0..TURN {
            let Some(pipe) = &self.pipe else { return };
            match rustix::io::read(pipe, &mut nowhere[..]) {
                Err(Errno::AGAIN | Errno::INTR) => return,
                Ok(0) | Err(_) => self.close(poll),
                Ok(_) => {}
            }
        }
    }

    /// What the kernel calls the pipe.
    pub(crate) fn inode(&self) -> Option<u64> {
        Some(rustix::fs::fstat(self.pipe.as_ref()?).ok()?.st_ino)
    }

    /// Lets go of it.
    pub(crate) fn close(&mut self, poll: &mut Poll) {
        if let Some(pipe) = self.pipe.take() {
            poll.forget(&pipe, &mut self.watch);
        }
    }
}
