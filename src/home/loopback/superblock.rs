//! What an ext4 says of itself at its beginning.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::HomeError;
use super::super::driver::{Quota, Usage};

/// What is read of it. Of one that is mounted it may be some seconds old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    blocks: u64,
    free_blocks: u64,
    inodes: u32,
    free_inodes: u32,
    block_size: u32,
    blocks_per_group: u32,
    damaged: bool,
}

/// Where it is, and how much of it is read.
const AT: u64 = 1024;
const BYTES: usize = 1024;
/// Of 256 bytes each, in a block of 4 KiB.
const INODES_PER_BLOCK: u64 = 16;
/// ext4's magic number, and where that is.
const MAGIC: (usize, u16) = (0x38, 0xEF53);
/// The kernel has met something that cannot be, or a disk that did not take what was written.
const ERRORS: (usize, u16) = (0x3A, 2);

impl Superblock {
    /// Reads that of an image.
    pub(super) fn read(image: &Path) -> Result<Self, HomeError> {
        let mut block = [0; BYTES];
        let file = File::open(image).map_err(HomeError::of("open", image))?;
        file.read_exact_at(&mut block, AT).map_err(HomeError::of("read", image))?;
        Self::parse(&block).ok_or_else(|| HomeError::of("read", image)(io::Error::other("there is no ext4 in it")))
    }

    fn parse(block: &[u8; BYTES]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_le_bytes(block.get(at..at + 2)?.try_into().ok()?));
        let word = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
        let long = |low: usize, high: usize| Some(u64::from(word(low)?) | u64::from(word(high)?) << 32);
        (half(MAGIC.0)? == MAGIC.1).then_some(())?;
        Some(Self {
            blocks: long(0x4, 0x150)?,
            free_blocks: long(0xC, 0x158)?,
            inodes: word(0x0)?,
            free_inodes: word(0x10)?,
            block_size: 1024u32.checked_shl(word(0x18)?).filter(|size| (1024..=65536).contains(size))?,
            blocks_per_group: word(0x20)?,
            damaged: half(ERRORS.0)? & ERRORS.1 != 0,
        })
    }

    /// Its block size in bytes.
    pub(super) fn block_size(self) -> u32 {
        self.block_size
    }

    /// Whether it has to be checked before it is used again.
    pub(super) fn is_damaged(self) -> bool {
        self.damaged
    }

    /// How large the file system is, in bytes.
    pub(super) fn bytes(self) -> u64 {
        self.blocks.saturating_mul(self.block_size.into())
    }

    /// How many files and directories it may have, and how many of those for rounding up: each group of blocks has a whole number of inode tables'
    /// blocks.
    pub(super) fn inodes(self) -> (u64, u64) {
        let groups = self.blocks.div_ceil(u64::from(self.blocks_per_group.max(1)));
        (self.inodes.into(), groups.saturating_mul(INODES_PER_BLOCK))
    }

    /// How much of that is used, its own needs included.
    pub(super) fn used_bytes(self) -> u64 {
        self.blocks.saturating_sub(self.free_blocks).saturating_mul(self.block_size.into())
    }

    /// The same as an answer.
    pub(super) fn usage(self) -> Usage {
        let limit = Quota { bytes: Some(self.bytes()), inodes: Some(self.inodes.into()) };
        Usage { bytes: self.used_bytes(), inodes: Some(self.inodes.saturating_sub(self.free_inodes).into()), limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_laid_out_and_nothing_else_is_taken_for_one() {
        let mut block = [0; BYTES];
        assert_eq!(Superblock::parse(&block), None);
        block[0x38..0x3A].copy_from_slice(&[0x53, 0xEF]);
        block[0x0] = 100;
        block[0x4] = 10;
        block[0x150] = 1;
        block[0xC] = 4;
        block[0x158] = 1;
        block[0x10] = 90;
        block[0x18] = 2;
        let parsed = Superblock::parse(&block).unwrap();
        assert_eq!((parsed.block_size(), parsed.bytes(), parsed.used_bytes()), (4096, ((1 << 32) + 10) * 4096, 6 * 4096));
        block[0x21] = 0x80;
        let groups = ((1 << 32) + 10_u64).div_ceil(32_768);
        assert_eq!(Superblock::parse(&block).unwrap().inodes(), (100, groups * 16));
        assert_eq!((parsed.usage().inodes, parsed.is_damaged()), (Some(10), false));
        block[0x3A] = 3;
        assert!(Superblock::parse(&block).unwrap().is_damaged());
        block[0x18] = 40;
        assert_eq!(Superblock::parse(&block), None);
    }
}
