//! The two ends of a stream of tar blocks, with a digest of what went through.

use std::io::{Read, Write};

use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::super::TreeError;
use super::BLOCK;

/// Where blocks are written.
pub(super) struct Writer<W> {
    out: W,
    hash: Sha256,
}

/// Where blocks are read.
pub(super) struct Reader<R> {
    input: R,
    hash: Sha256,
}

/// What is read of a broken archive.
pub(super) const TRUNCATED: TreeError = TreeError::Archive("it ends too early");

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hash: Sha256::new() }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(TreeError::of("write the archive"))
    }

    /// Fills up the last block of so many bytes.
    pub(super) fn pad(&mut self, written: u64) -> Result<(), TreeError> {
        self.write(&[0; BLOCK][..padding(written)])
    }

    /// Writes a header that says what kind, size and path it has.
    pub(super) fn header(&mut self, mut header: Header, kind: EntryType, path: &[u8], size: u64) -> Result<(), TreeError> {
        header.set_entry_type(kind);
        header.set_size(size);
        let name = &mut header.as_old_mut().name;
        let length = path.len().min(name.len());
        name[..length].copy_from_slice(&path[..length]);
        header.set_cksum();
        self.write(header.as_bytes())
    }

    /// Writes an extended header.
    pub(super) fn extension(&mut self, kind: EntryType, records: &[u8]) -> Result<(), TreeError> {
        let mut header = Header::new_ustar();
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        self.header(header, kind, b"././@PaxHeader", records.len() as u64)?;
        self.write(records)?;
        self.pad(records.len() as u64)
    }

    /// The digest of everything so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    pub(super) fn into_inner(self) -> W {
        self.out
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, hash: Sha256::new() }
    }

    /// Reads a header without counting it to the digest; nothing at the end of the archive.
    pub(super) fn header(&mut self) -> Result<Option<Header>, TreeError> {
        let mut header = Header::new_old();
        self.input.read_exact(header.as_mut_bytes()).map_err(broken)?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let bytes = header.as_bytes();
        let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().ok() != Some(sum) {
            return Err(TreeError::Archive("a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// Counts what was read without that to the digest.
    pub(super) fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
    }

    /// Reads so many bytes into the buffer's beginning.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut [u8], want: u64) -> Result<&'a [u8], TreeError> {
        let want = usize::try_from(want).map_or(buffer.len(), |want| want.min(buffer.len()));
        let bytes = &mut buffer[..want];
        self.input.read_exact(bytes).map_err(broken)?;
        self.hash.update(&*bytes);
        Ok(bytes)
    }

    /// Reads a whole extended header with what fills it up, without counting it.
    pub(super) fn extension(&mut self, size: usize) -> Result<Vec<u8>, TreeError> {
        let mut bytes = vec![0; size + padding(size as u64)];
        self.input.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    /// Reads what fills up the last block of so many bytes.
    pub(super) fn pad(&mut self, read: u64) -> Result<(), TreeError> {
        self.read(&mut [0; BLOCK], padding(read) as u64).map(drop)
    }

    /// The digest of everything that was counted.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// Reads to the end. There must be so many zeros, may be some more, and nothing else.
    pub(super) fn finish(&mut self, least: usize) -> Result<(), TreeError> {
        let mut zeros = 0;
        // Two blocks end an archive; some tars write up to 10 KiB at once, others up to a megabyte.
        let mut left = 2 * 1024 * 1024_usize;
        let mut buffer = [0; 8 * 1024];
        loop {
            let length = self.input.read(&mut buffer).map_err(broken)?;
            if length == 0 {
                return if zeros < least { Err(TRUNCATED) } else { Ok(()) };
            }
            zeros += length;
            left = left.saturating_sub(length);
            if left == 0 || buffer[..length].iter().any(|byte| *byte != 0) {
                return Err(TreeError::Archive("there is more after its end"));
            }
        }
    }
}

/// How much fills up the last block of so many bytes.
pub(super) fn padding(bytes: u64) -> usize {
    let over = (bytes % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

fn broken(why: std::io::Error) -> TreeError {
    if why.kind() == std::io::ErrorKind::UnexpectedEof { TRUNCATED } else { TreeError::of("read the archive")(why) }
}
