//! A tree in one stream: tar in the pax format, compressed with zstd, so that any tar can list and unpack it.
//!
//! A home's archive ends with a seal: a comment, as far as tar is concerned, with the numbers of entries and bytes and a digest of everything
//! before it. Without the seal, or with one that does not fit, an archive is not whole and [`read`] says so, whatever was unpacked by then.
//!
//! What is read is taken to be made by an enemy, though nobody else than [`write`] should have: homes' archives lie on other people's disks.

mod ahead;
mod blocks;
mod pax;
mod read;
mod unpack;
mod write;

pub use read::{look, read, read_foreign};
pub use write::write;

/// The size of a block: of a header, and of what contents are padded to, in bytes.
const BLOCK: usize = 512;
/// The longest path of an entry, in bytes. Each entry has its path in it, so that the depth of a tree counts once for every file in it.
const LONGEST_PATH: usize = 64 * 1024;
/// The most that an extended header may take, in bytes: it is read into memory.
const LONGEST_EXTENSION: usize = 1024 * 1024;
/// The most that the extended attributes of one file may take, in bytes, so that they and two paths fit into an extended header.
const LONGEST_ATTRIBUTES: usize = 512 * 1024;
/// The most stretches of data that a file with holes may have: they are listed in memory.
const MOST_STRETCHES: usize = 128 * 1024;

/// What the end of an archive says of the rest of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seal {
    entries: u64,
    bytes: u64,
    digest: [u8; 32],
}

impl Seal {
    /// As a comment.
    fn to_text(&self) -> String {
        format!("innkeeper 1 entries={} bytes={} sha256={}", self.entries, self.bytes, data_encoding::HEXLOWER.encode(&self.digest))
    }

    /// Out of a comment; nothing if it is a comment of somebody else's.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (entries, rest) = text.strip_prefix("innkeeper 1 entries=")?.split_once(" bytes=")?;
        let (bytes, digest) = rest.split_once(" sha256=")?;
        let digest = data_encoding::HEXLOWER.decode(digest.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { entries: entries.parse().ok()?, bytes: bytes.parse().ok()?, digest })
    }
}
