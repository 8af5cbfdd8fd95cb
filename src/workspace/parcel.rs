//! Several things of unknown length in one stream: what a workspace is when it goes from host to host.
//!
//! ```text
//! "innkeeper workspace 1\n"
//! section*        each of frames: a length of four bytes, big-endian, and so many bytes; a length of 0 ends the section
//! ```
//! The sections are: the settings, as JSON; for each home its name and its archive; and the word `end`, without which it is not whole. What is
//! read is taken to be made by an enemy: nothing is longer in memory than said here.

use std::io::{self, ErrorKind, Read, Write};

/// How it begins.
const MAGIC: &[u8] = b"innkeeper workspace 1\n";
/// The most that is in a frame, in bytes.
const FRAME: usize = 64 * 1024;

/// A stream that is being written.
pub(super) struct Writer<W>(W);

/// A stream that is being read.
pub(super) struct Reader<R>(R);

/// A section that is being written.
pub(super) struct Filling<'a, W> {
    out: &'a mut W,
    frame: Vec<u8>,
}

/// A section that is being read.
pub(super) struct Section<'a, R> {
    input: &'a mut R,
    left: usize,
    over: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self(out))
    }

    pub(super) fn section(&mut self) -> Filling<'_, W> {
        Filling { out: &mut self.0, frame: Vec::with_capacity(FRAME) }
    }

    /// A section that is in memory.
    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut section = self.section();
        section.write_all(bytes)?;
        section.end()
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Filling<'_, W> {
    pub(super) fn end(mut self) -> io::Result<()> {
        self.send()?;
        self.out.write_all(&[0; 4])
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.frame.is_empty() {
            // No more than FRAME is ever in it.
            self.out.write_all(&u32::try_from(self.frame.len()).unwrap_or(u32::MAX).to_be_bytes())?;
            self.out.write_all(&self.frame)?;
            self.frame.clear();
        }
        Ok(())
    }
}

impl<W: Write> Write for Filling<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frame.len() == FRAME {
            self.send()?;
        }
        let taken = bytes.len().min(FRAME - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.out.flush()
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(mut input: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic == *MAGIC { Ok(Self(input)) } else { Err(wrong("it is no export of a workspace, or of a later version")) }
    }

    pub(super) fn section(&mut self) -> Section<'_, R> {
        Section { input: &mut self.0, left: 0, over: false }
    }

    /// A section that is read into memory, if it is at most so long.
    pub(super) fn take(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let (mut section, mut bytes) = (self.section(), Vec::new());
        section.by_ref().take(most as u64).read_to_end(&mut bytes)?;
        section.end()?;
        Ok(bytes)
    }
}

impl<R: Read> Section<'_, R> {
    /// Nothing more may be in it.
    pub(super) fn end(mut self) -> io::Result<()> {
        if self.read(&mut [0])? == 0 { Ok(()) } else { Err(wrong("something in it is longer than it may be")) }
    }
}

impl<R: Read> Read for Section<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.over || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if self.left > FRAME {
                return Err(wrong("a length in it cannot be"));
            }
            self.over = self.left == 0;
            if self.over {
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left);
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it is cut short"));
        }
        self.left -= read;
        Ok(read)
    }
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(sections: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        sections.iter().for_each(|section| writer.put(section).unwrap());
        bytes
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_and_a_part_is_none(sections in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5), at: prop::sample::Index) {
            let mut sections = sections;
            sections.push(vec![7; FRAME * 2 + 1]);
            let bytes = packed(&sections);
            let read = |bytes: &[u8]| -> io::Result<Vec<Vec<u8>>> {
                let mut reader = Reader::new(bytes)?;
                sections.iter().map(|_| reader.take(FRAME * 3)).collect()
            };
            prop_assert_eq!(read(&bytes).unwrap(), sections.clone());
            prop_assert!(read(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn nothing_that_is_read_panics_or_grows(noise: Vec<u8>) {
            let mut reader = Reader(noise.as_slice());
            if let Ok(bytes) = reader.take(10) {
                prop_assert!(bytes.len() <= 10);
            }
        }
    }

    #[test]
    fn what_is_too_long_is_said_to_be() {
        assert!(Reader::new(&b"something else, and long enough"[..]).is_err());
        let bytes = packed(&[vec![1; 11]]);
        assert!(Reader::new(bytes.as_slice()).unwrap().take(10).is_err());
        let mut huge = MAGIC.to_vec();
        huge.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(Reader::new(huge.as_slice()).unwrap().take(10).is_err());
    }
}
