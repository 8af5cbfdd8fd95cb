//! Reading ahead: a thread reads, and decompresses, while what it has read is unpacked. Neither then waits for the other's half of the work.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::super::TreeError;

/// How much is handed over at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many of these may wait to be unpacked. All that an archive can do is fill them.
const CHUNKS: usize = 4;

/// What was read ahead, up to the end or the first error.
pub(super) struct Ahead {
    filled: Receiver<io::Result<Vec<u8>>>,
    used: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// Has a thread read ahead of what is done with it. Returns when that is done and the thread has ended, which is when a read that it is in
/// returns: an input that may never return one has to be given a deadline by whoever opens it.
pub(super) fn ahead<T>(input: impl Read + Send, work: impl FnOnce(Ahead) -> Result<T, TreeError>) -> Result<T, TreeError> {
    let (full, filled) = sync_channel(CHUNKS);
    let (used, empty) = channel();
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("archive".to_owned());
        reader.spawn_scoped(scope, move || fill(input, &full, &empty)).map_err(TreeError::of("start a thread"))?;
        work(Ahead { filled, used, chunk: Vec::new(), at: 0 })
    })
}

fn fill(mut input: impl Read, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut chunk = empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
        chunk.clear();
        let read = (&mut input).take(CHUNK as u64).read_to_end(&mut chunk);
        let is_last = chunk.len() < CHUNK;
        // Nobody is left to take it: whoever unpacks has seen enough.
        if !chunk.is_empty() && full.send(Ok(chunk)).is_err() {
            return;
        }
        if let Err(why) = read {
            full.send(Err(why)).ok();
            return;
        }
        if is_last {
            return;
        }
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            // The thread has ended with the input.
            let Ok(next) = self.filled.recv() else { return Ok(&[]) };
            let used = std::mem::replace(&mut self.chunk, next?);
            self.used.send(used).ok();
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.chunk.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let length = ready.len().min(buffer.len());
        buffer[..length].copy_from_slice(&ready[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes, a few at a time, then an error if there is one to give.
    struct Source(usize, bool);

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.0.min(buffer.len()).min(100_000);
            buffer[..length].fill(7);
            self.0 -= length;
            if length == 0 && self.1 { Err(io::Error::other("torn")) } else { Ok(length) }
        }
    }

    #[test]
    fn all_of_it_arrives_and_the_error_after_it() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 10 * CHUNK + 5] {
            for torn in [false, true] {
                let mut bytes = Vec::new();
                let read = ahead(Source(length, torn), |mut input| Ok(input.read_to_end(&mut bytes))).unwrap();
                assert!(bytes.len() == length && bytes.iter().all(|byte| *byte == 7), "{length}: {}", bytes.len());
                assert_eq!(read.is_err(), torn, "{length}");
            }
        }
    }

    #[test]
    fn who_has_seen_enough_does_not_wait_for_the_rest() {
        let endless = io::repeat(1);
        let first = ahead(endless, |mut input| input.read_exact(&mut [0; 10]).map_err(TreeError::of("read"))).is_ok();
        assert!(first);
    }
}
