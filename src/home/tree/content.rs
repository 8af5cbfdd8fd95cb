//! What is in a regular file, from one into another.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, SeekFrom, Stat};
use rustix::io::{self, Errno};

use super::TreeError;
use super::budget::{Budget, Limits};

/// How much is copied between two looks at whether to go on, in bytes.
const CHUNK: u64 = 8 * 1024 * 1024;
/// Up to here a read and a write take less time than asking the kernel to copy, in bytes.
const SMALL: usize = 128 * 1024;

/// Copies contents, and remembers what these two file systems cannot do.
pub(super) struct Copier {
    clone: bool,
    range: bool,
    buffer: Vec<u8>,
}

impl Copier {
    pub(super) fn new() -> Self {
        Self { clone: true, range: true, buffer: vec![0; SMALL] }
    }

    /// Copies what a file held when it was looked at; what is added to it meanwhile is left, so that nobody keeps us here by writing.
    pub(super) fn copy(&mut self, from: &OwnedFd, stat: &Stat, to: &OwnedFd, budget: &mut Budget<'_>) -> Result<(), TreeError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 {
            return Ok(());
        }
        if self.clone {
            match fs::ioctl_ficlone(to, from) {
                Ok(()) => {
                    let made = fs::fstat(to).map_err(TreeError::of("look at a file"))?;
                    return budget.bytes(allocated(&made));
                }
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY | Errno::NOSYS) => self.clone = false,
                // Of this one file. If there is more to it, copying says so.
                Err(_) => {}
            }
        }
        let mut end = size;
        if allocated(stat) >= size {
            end = self.extent(from, to, 0, size, budget)?;
        } else {
            let mut at = 0;
            while let Some((start, stop)) = next_data(from, at, size)? {
                at = self.extent(from, to, start, stop, budget)?;
                if at < stop {
                    end = at;
                    break;
                }
            }
        }
        // For the hole at the end, and for a file that was cut short.
        fs::ftruncate(to, end).map_err(TreeError::of("set a file's length"))
    }

    /// Copies one stretch without holes, and says where it ended.
    fn extent(&mut self, from: &OwnedFd, to: &OwnedFd, start: u64, stop: u64, budget: &mut Budget<'_>) -> Result<u64, TreeError> {
        let mut at = start;
        while at < stop {
            let want = (stop - at).min(CHUNK);
            budget.bytes(want)?;
            let goal = at + want;
            while at < goal {
                let done = self.some(from, to, at, goal - at)?;
                if done == 0 {
                    return Ok(at);
                }
                at += done;
            }
        }
        Ok(at)
    }

    fn some(&mut self, from: &OwnedFd, to: &OwnedFd, at: u64, want: u64) -> Result<u64, TreeError> {
        let want = usize::try_from(want).unwrap_or(usize::MAX);
        if self.range && want > SMALL {
            let (mut read, mut written) = (at, at);
            match fs::copy_file_range(from, Some(&mut read), to, Some(&mut written), want) {
                // Nothing is the end, or a file system that cannot: reading tells which.
                Ok(0) => {}
                Ok(done) => return Ok(done as u64),
                Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => self.range = false,
                Err(why) => return Err(TreeError::of("copy a file's contents")(why)),
            }
        }
        let want = want.min(self.buffer.len());
        let done = io::retry_on_intr(|| io::pread(from, &mut self.buffer[..want], at)).map_err(TreeError::of("read a file"))?;
        write_at(to, &self.buffer[..done], at)?;
        Ok(done as u64)
    }
}

/// Copies all that is in a file into another, with its holes.
pub(in crate::home) fn copy_contents(from: &OwnedFd, to: &OwnedFd) -> Result<(), TreeError> {
    let stat = fs::fstat(from).map_err(TreeError::of("look at a file"))?;
    let watch = |_| ControlFlow::Continue(());
    Copier::new().copy(from, &stat, to, &mut Budget::new(Limits::default(), &watch))
}

/// The bytes that a file takes on its disk.
pub(super) fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512)
}

/// The next stretch of a file, at or after `at`, that is not a hole.
pub(super) fn next_data(file: &OwnedFd, at: u64, size: u64) -> Result<Option<(u64, u64)>, TreeError> {
    if at >= size {
        return Ok(None);
    }
    let start = match fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => start,
        // A hole up to the end.
        Err(Errno::NXIO) => return Ok(None),
        // A file system that knows nothing of holes.
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        Err(why) => return Err(TreeError::of("find a file's holes")(why)),
    };
    let stop = match fs::seek(file, SeekFrom::Hole(start)) {
        Ok(stop) => stop,
        // Cut short meanwhile.
        Err(Errno::NXIO) => return Ok(None),
        Err(why) => return Err(TreeError::of("find a file's holes")(why)),
    };
    // Going on, whatever they say.
    let (start, stop) = (start.max(at), stop.min(size));
    Ok((start < stop).then_some((start, stop)))
}

/// Writes all of it.
pub(super) fn write_at(to: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), TreeError> {
    while !bytes.is_empty() {
        let done = io::retry_on_intr(|| io::pwrite(to.as_fd(), bytes, at)).map_err(TreeError::of("write a file"))?;
        bytes = bytes.get(done..).unwrap_or_default();
        at += done as u64;
    }
    Ok(())
}
