//! Those who read what services say: each a socket, and how far it has come.
//!
//! What a reader has not taken waits in the services' logs, which are bounded, and beside it no more than one piece of [`PIECE`]: who is too
//! slow loses the oldest, and is told.

use std::os::fd::OwnedFd;

use innkeeper_init::protocol::Failure;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use super::log::Log;
use crate::failure;
use crate::poll::{Poll, Source, Want, Watch};

/// Most readers at once.
const READERS: usize = 8;

/// How much is written at once, in bytes, a line more or less; and how often before others have their turn.
const PIECE: usize = 16 * 1024;
const TURN: usize = 8;

/// What is read where lines are missing.
const LOST: &[u8] = b"innkeeper: lines are missing here: they were read too slowly\n";

struct Reader {
    id: u64,
    socket: OwnedFd,
    watch: Watch,
    /// One service's lines, or all.
    service: Option<String>,
    follow: bool,
    /// The number of the first line that it has not got.
    next: u64,
    lost: bool,
    piece: Vec<u8>,
    /// It takes no more now.
    full: bool,
    gone: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Readers {
    all: Vec<Reader>,
    last: u64,
}

// === impl Readers ===

impl Readers {
    /// One more, and the end from which it reads.
    pub(super) fn add(&mut self, service: Option<String>, follow: bool, poll: &mut Poll) -> Result<OwnedFd, (Failure, String)> {
        if self.all.len() >= READERS {
            // Some may have left, and it was not heard yet.
            self.all.iter_mut().for_each(Reader::listen);
            self.leave(poll);
        }
        if self.all.len() >= READERS {
            return Err((Failure::Exhausted, format!("there are {READERS} readers already")));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|why| (failure::of(why), format!("no descriptors: {why}")))?;
        self.last += 1;
        let (watch, piece, id) = (Watch::default(), Vec::new(), self.last);
        self.all.push(Reader { id, socket, watch, service, follow, next: 0, lost: false, piece, full: false, gone: false });
        Ok(theirs)
    }

    /// A service's lines up to this number are no more.
    pub(super) fn forget(&mut self, service: &str, number: u64) {
        for reader in self.all.iter_mut().filter(|reader| reader.wants(service)) {
            reader.lost |= reader.next <= number;
        }
    }

    /// It has room, or has hung up.
    pub(super) fn ready(&mut self, id: u64) {
        if let Some(reader) = self.all.iter_mut().find(|reader| reader.id == id) {
            reader.full = false;
            reader.listen();
        }
    }

    /// Writes what is new.
    pub(super) fn settle<'a>(&mut self, logs: impl Iterator<Item = (&'a str, &'a Log)> + Clone, poll: &mut Poll) {
        for reader in &mut self.all {
            let wanted: Vec<_> = logs.clone().filter(|(service, _)| reader.wants(service)).collect();
            let more = reader.pump(&wanted);
            reader.gone |= !more && (!reader.follow || wanted.is_empty());
            poll.watch(&reader.socket, &mut reader.watch, Source::LogReader { reader: reader.id }, Want { write: more, ..Want::READ });
        }
        self.leave(poll);
    }

    /// Forgets those that have left, or have read everything.
    fn leave(&mut self, poll: &mut Poll) {
        for mut reader in self.all.extract_if(.., |reader| reader.gone) {
            poll.forget(&reader.socket, &mut reader.watch);
        }
    }
}

// === impl Reader ===

impl Reader {
    fn wants(&self, service: &str) -> bool {
        self.service.as_deref().is_none_or(|wanted| wanted == service)
    }

    /// It has nothing to say: what there is to be read is its end.
    fn listen(&mut self) {
        let said = recv(&self.socket, &mut [0; 1024][..], RecvFlags::DONTWAIT);
        self.gone |= !matches!(said, Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR));
    }

    /// Writes as much as is taken; says whether something is left.
    fn pump(&mut self, logs: &[(&str, &Log)]) -> bool {
        for _ in 0..TURN {
            if self.full || self.gone {
                return true;
            }
            self.fill(logs);
            if self.piece.is_empty() {
                // Followers that have nothing to read cost nothing.
                self.piece.shrink_to(0);
                return false;
            }
            match send(&self.socket, &self.piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(taken) => drop(self.piece.drain(..taken)),
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => self.full = true,
                Err(_) => self.gone = true,
            }
        }
        true
    }

    fn fill(&mut self, logs: &[(&str, &Log)]) {
        while self.piece.len() < PIECE {
            if std::mem::take(&mut self.lost) {
                self.piece.extend_from_slice(LOST);
            }
            let lines = logs.iter().filter_map(|(service, log)| Some((log.from(self.next)?, service)));
            let Some((line, service)) = lines.min_by_key(|(line, _)| line.number) else { return };
            line.write(service, &mut self.piece);
            self.next = line.number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn services_are_read_in_the_order_in_which_they_spoke() {
        let (mut readers, mut poll, mut last) = (Readers::default(), Poll::new().unwrap(), 0);
        let (mut a, mut b) = (Log::default(), Log::default());
        for (log, text) in [(0, "1\n"), (1, "2\n"), (0, "3\n")] {
            if log == 0 { &mut a } else { &mut b }.take(text.as_bytes(), &mut last);
        }
        let mut all = UnixStream::from(readers.add(None, false, &mut poll).unwrap());
        let mut one = UnixStream::from(readers.add(Some("b".to_owned()), false, &mut poll).unwrap());
        readers.settle([("a", &a), ("b", &b)].into_iter(), &mut poll);
        let mut text = String::new();
        all.read_to_string(&mut text).unwrap();
        let ends: Vec<_> = text.lines().map(|line| (&line[..3], line.chars().last().unwrap())).collect();
        assert_eq!(ends, [("[a]", '1'), ("[b]", '2'), ("[a]", '3')]);
        text.clear();
        one.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("[b]") && text.lines().count() == 1);
        assert!(readers.all.is_empty());
        let kept: Vec<_> = (0..READERS).map(|_| readers.add(None, true, &mut poll).unwrap()).collect();
        assert_eq!(readers.add(None, true, &mut poll).unwrap_err().0, Failure::Exhausted);
        drop(kept);
        let _new = readers.add(None, true, &mut poll).unwrap();
        assert_eq!(readers.all.len(), 1, "those that have hung up make room");
    }

    #[test]
    fn who_is_too_slow_loses_the_oldest_and_is_told() {
        let (mut readers, mut poll, mut last) = (Readers::default(), Poll::new().unwrap(), 0);
        let mut log = Log::default();
        let mut reader = UnixStream::from(readers.add(None, true, &mut poll).unwrap());
        let mut said = 0;
        for _ in 0..100 {
            for _ in 0..100 {
                log.take(format!("{said} {}\n", "x".repeat(100)).as_bytes(), &mut last);
                said += 1;
            }
            if let Some(number) = log.forgotten() {
                readers.forget("a", number);
            }
            readers.settle([("a", &log)].into_iter(), &mut poll);
        }
        assert!(readers.all[0].piece.len() < 2 * PIECE);
        let mut text = Vec::new();
        while reader.read_to_end(&mut text).is_err() && !readers.all[0].piece.is_empty() {
            readers.ready(1);
            readers.settle([("a", &log)].into_iter(), &mut poll);
        }
        let text = String::from_utf8(text).unwrap();
        let of = |line: &str| line.split(' ').nth(2).and_then(|number| number.parse::<u32>().ok());
        let lost: Vec<_> = text.lines().enumerate().filter(|(_, line)| line.as_bytes() == &LOST[..LOST.len() - 1]).collect();
        assert_eq!(lost.len(), 1);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with('[')).map(|line| of(line).unwrap()).collect();
        let gaps: Vec<_> = lines.windows(2).enumerate().filter(|(_, two)| two[0] + 1 != two[1]).map(|(at, _)| at + 1).collect();
        assert_eq!(gaps, [lost[0].0], "it is told where lines are missing");
        assert_eq!((lines[0], lines.last()), (0, Some(&(said - 1))));
    }
}
