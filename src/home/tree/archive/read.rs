//! An archive, entry by entry.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{self, Timespec};
use tar::{EntryType, Header};

use super::super::attributes::Attributes;
use super::super::budget::Budget;
use super::super::content::write_at;
use super::super::{Limits, Summary, TreeError, Watch};
use super::ahead::ahead;
use super::blocks::Reader;
use super::pax::{self, Extension};
use super::unpack::Unpacking;
use super::{BLOCK, LONGEST_EXTENSION, LONGEST_PATH, MOST_STRETCHES, Seal};

/// How much is read at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// How many extended headers may come before an entry: two of GNU tar's, and one of its own or pax's.
const MOST_EXTENSIONS: u32 = 4;

/// Unpacks an archive that [`write`](super::write) made into an empty directory that nobody else can reach.
///
/// Until this has returned, what is there may be a part or a forgery. When it returns, the archive was whole and all of it is on the disk.
/// Nothing outside of the directory is touched, whatever is in the archive. The limits hold for what it says it contains.
pub fn read(input: impl Read + Send, into: BorrowedFd<'_>, limits: Limits, watch: Watch<'_>) -> Result<Summary, TreeError> {
    let zstd = zstd::Decoder::new(input).map_err(TreeError::of("read the archive"))?;
    unpack(zstd, Unpacking::new(into, None)?, true, limits, watch)
}

/// Unpacks an archive of somebody else's, which has no seal: tar, plain or compressed with gzip or zstd. Everything gets one owner and group.
pub fn read_foreign(
    input: impl Read + Send,
    into: BorrowedFd<'_>,
    owner: u32,
    limits: Limits,
    watch: Watch<'_>,
) -> Result<Summary, TreeError> {
    unpack(decompressed(input)?, Unpacking::new(into, Some(owner))?, false, limits, watch)
}

/// Whether the beginning of a file is one of an archive that [`read_foreign`] reads.
pub fn look(input: impl Read + Send) -> Result<(), TreeError> {
    Reader::new(decompressed(input)?).header().map(drop)
}

/// A tar, however it is compressed.
fn decompressed<'a>(input: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, TreeError> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    Ok(match input.fill_buf().map_err(TreeError::of("read the archive"))? {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(input).map_err(TreeError::of("read the archive"))?),
        _ => Box::new(input),
    })
}

/// `sealed`: whether there has to be a seal.
fn unpack(input: impl Read + Send, to: Unpacking<'_>, sealed: bool, limits: Limits, watch: Watch<'_>) -> Result<Summary, TreeError> {
    ahead(input, |input| unpack_tar(input, to, sealed, limits, watch))
}

fn unpack_tar(input: impl Read, to: Unpacking<'_>, sealed: bool, limits: Limits, watch: Watch<'_>) -> Result<Summary, TreeError> {
    let mut archive =
        Archive { blocks: Reader::new(input), to, buffer: vec![0; CHUNK], budget: Budget::new(limits, watch), entries: 0, bytes: 0 };
    let seal = archive.run()?;
    let own = Seal { entries: archive.entries, bytes: archive.bytes, digest: archive.blocks.digest() };
    match (seal, sealed) {
        (None, true) => return Err(TreeError::Archive("it has no seal: it is not whole, or none of ours")),
        (Some(seal), _) if seal != own => return Err(TreeError::Archive("its seal does not fit: it was changed")),
        (Some(_) | None, _) => {}
    }
    // The other of the two blocks that end an archive; not every tar writes it.
    archive.blocks.finish(if sealed { BLOCK } else { 0 })?;
    archive.to.finish(archive.bytes)
}

struct Archive<'a, 't, R> {
    blocks: Reader<R>,
    to: Unpacking<'t>,
    buffer: Vec<u8>,
    budget: Budget<'a>,
    entries: u64,
    /// Bytes of contents.
    bytes: u64,
}

impl<R: Read> Archive<'_, '_, R> {
    /// Unpacks everything up to the end, and hands out the seal if it was the last.
    fn run(&mut self) -> Result<Option<Seal>, TreeError> {
        let mut extension = Extension::default();
        let mut extensions = 0;
        while let Some(header) = self.blocks.header()? {
            let kind = header.entry_type();
            if matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink) {
                extensions += 1;
                if extensions > MOST_EXTENSIONS {
                    return Err(TreeError::Archive("there are too many extended headers"));
                }
                if let Some(seal) = self.extend(&header, kind, &mut extension)? {
                    return match self.blocks.header()? {
                        None => Ok(Some(seal)),
                        Some(_) => Err(TreeError::Archive("there is more after its seal")),
                    };
                }
                continue;
            }
            self.blocks.count(header.as_bytes());
            extensions = 0;
            self.entry(&header, kind, std::mem::take(&mut extension))?;
        }
        Ok(None)
    }

    /// Reads an extended header, or the seal.
    fn extend(&mut self, header: &Header, kind: EntryType, extension: &mut Extension) -> Result<Option<Seal>, TreeError> {
        let size = usize::try_from(header.entry_size().map_err(|_| NUMBER)?).unwrap_or(usize::MAX);
        if size > LONGEST_EXTENSION {
            return Err(TreeError::Archive("an extended header is too long"));
        }
        let whole = self.blocks.extension(size)?;
        let bytes = &whole[..size];
        if kind == EntryType::XGlobalHeader {
            let global = pax::parse(bytes).ok_or(TreeError::Archive("an extended header makes no sense"))?;
            if let Some(seal) = global.comment.as_deref().and_then(Seal::parse) {
                return Ok(Some(seal));
            }
        } else if kind == EntryType::XHeader {
            // Of two, what the latter says holds; nobody writes two.
            *extension = pax::parse(bytes).ok_or(TreeError::Archive("an extended header makes no sense"))?;
        } else {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            *(if kind == EntryType::GNULongName { &mut extension.path } else { &mut extension.link }) = Some(text);
        }
        self.blocks.count(header.as_bytes());
        self.blocks.count(&whole);
        Ok(None)
    }

    fn entry(&mut self, header: &Header, kind: EntryType, mut extension: Extension) -> Result<(), TreeError> {
        self.budget.entry()?;
        self.entries += 1;
        let size = extension.size.map_or_else(|| header.entry_size(), Ok).map_err(|_| NUMBER)?;
        let path = extension.sparse_name.take().or(extension.path.take()).unwrap_or_else(|| header.path_bytes().into_owned());
        let path = parts(&path)?;
        let attributes = told(header, &mut extension)?;
        let link = || extension.link.clone().or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        match kind {
            EntryType::Directory => self.to.directory(&path, attributes)?,
            EntryType::Symlink => self.to.symlink(&path, link(), &attributes)?,
            EntryType::Fifo => self.to.fifo(&path, &attributes)?,
            EntryType::Link => self.to.link(&path, &parts(&link())?)?,
            EntryType::Regular | EntryType::Continuous => return self.file(&path, size, &extension, &attributes),
            EntryType::Char | EntryType::Block => self.to.device(),
            _ => return Err(TreeError::Archive("an entry is of a kind that is not read")),
        }
        self.skip(size)
    }

    fn file(&mut self, path: &[&[u8]], size: u64, extension: &Extension, attributes: &Attributes) -> Result<(), TreeError> {
        let file = self.to.file(path)?;
        let is_sparse = match (extension.sparse_version, extension.sparse_size) {
            ((Some(1), Some(0)), Some(_)) => true,
            ((None, None), None) if !extension.sparse_other => false,
            _ => return Err(TreeError::Archive("a file's holes are written in a way that is not read")),
        };
        let Some(file) = file else { return self.skip(size) };
        if is_sparse {
            self.sparse(&file, size, extension.sparse_size.unwrap_or(0))?;
        } else {
            self.stretch(&file, 0, size)?;
            self.blocks.pad(size)?;
        }
        self.to.finish_file(&file, attributes)
    }

    /// Reads the stretches of a file with holes, after the list of them.
    fn sparse(&mut self, file: &OwnedFd, size: u64, real_size: u64) -> Result<(), TreeError> {
        const WRONG: TreeError = TreeError::Archive("the list of a file's holes makes no sense");
        let mut list = List { left: size, read: 0, block: [0; BLOCK], at: BLOCK };
        let count = list.number(&mut self.blocks)?;
        if count > MOST_STRETCHES as u64 {
            return Err(TreeError::Archive("a file has too many holes"));
        }
        let mut stretches = Vec::new();
        let (mut end, mut sum) = (0, 0_u64);
        for _ in 0..count {
            let (start, length) = (list.number(&mut self.blocks)?, list.number(&mut self.blocks)?);
            let stop = start.checked_add(length).filter(|stop| start >= end && *stop <= real_size).ok_or(WRONG)?;
            stretches.push((start, stop));
            end = stop;
            sum += length;
        }
        if sum != list.left {
            return Err(WRONG);
        }
        // First: it fails at once where a file cannot be so long.
        fs::ftruncate(file, real_size).map_err(TreeError::of("set a file's length"))?;
        for (start, stop) in stretches {
            self.stretch(file, start, stop)?;
        }
        self.blocks.pad(sum)
    }

    fn stretch(&mut self, file: &OwnedFd, mut at: u64, stop: u64) -> Result<(), TreeError> {
        while at < stop {
            let want = (stop - at).min(CHUNK as u64);
            self.take(want)?;
            let bytes = self.blocks.read(&mut self.buffer, want)?;
            write_at(file, bytes, at)?;
            at += want;
        }
        Ok(())
    }

    /// Reads contents that are not wanted.
    fn skip(&mut self, size: u64) -> Result<(), TreeError> {
        let mut left = size;
        while left > 0 {
            let want = left.min(CHUNK as u64);
            self.take(want)?;
            self.blocks.read(&mut self.buffer, want)?;
            left -= want;
        }
        self.blocks.pad(size)
    }

    fn take(&mut self, bytes: u64) -> Result<(), TreeError> {
        self.bytes = self.bytes.saturating_add(bytes);
        self.budget.bytes(bytes)
    }
}

const NUMBER: TreeError = TreeError::Archive("a number in a header makes no sense");

/// The list of a file's stretches, in decimal, a line each, in blocks of their own.
struct List {
    /// What is left of the entry.
    left: u64,
    read: usize,
    block: [u8; BLOCK],
    at: usize,
}

impl List {
    fn number<R: Read>(&mut self, blocks: &mut Reader<R>) -> Result<u64, TreeError> {
        const WRONG: TreeError = TreeError::Archive("the list of a file's holes makes no sense");
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                self.left = self.left.checked_sub(self.block.len() as u64).ok_or(WRONG)?;
                blocks.read(&mut self.block, BLOCK as u64)?;
                self.read += 1;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return pax::number(&digits).ok_or(WRONG),
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Err(WRONG),
            }
        }
    }
}

/// The names that a path leads through. What leads out of the tree is an error.
fn parts(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    if path.is_empty() || path.len() > LONGEST_PATH + 1 || path.contains(&0) {
        return Err(TreeError::Archive("a path is empty or too long"));
    }
    if path.starts_with(b"/") {
        return Err(TreeError::Archive("a path begins at the root"));
    }
    let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    if parts.contains(&&b".."[..]) {
        return Err(TreeError::Archive("a path leads out of the tree"));
    }
    Ok(parts)
}

/// What the headers say of an entry.
fn told(header: &Header, extension: &mut Extension) -> Result<Attributes, TreeError> {
    let id = |given: Option<u32>, plain: std::io::Result<u64>| -> Result<u32, TreeError> {
        let id = match given {
            Some(id) => id,
            None => u32::try_from(plain.map_err(|_| NUMBER)?).map_err(|_| NUMBER)?,
        };
        // The last number means "leave it".
        if id == u32::MAX { Err(NUMBER) } else { Ok(id) }
    };
    let seconds = || header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).ok_or(NUMBER);
    let mtime = match extension.mtime {
        Some(mtime) => mtime,
        None => Timespec { tv_sec: seconds()?, tv_nsec: 0 },
    };
    Ok(Attributes {
        uid: id(extension.uid, header.uid())?,
        gid: id(extension.gid, header.gid())?,
        mode: header.mode().map_err(|_| NUMBER)?,
        mtime,
        extended: std::mem::take(&mut extension.attributes),
    })
}
