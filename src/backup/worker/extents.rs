//! Files that are mostly holes.
//!
//! A file of 8 EiB without a byte in it is made in a moment, and would be read for centuries. Small holes are read as the zeros they are,
//! which cost nothing in the repository, and come back as holes. A file with more of a hole than [`HOLLOW`] is stored as its data alone,
//! with an attribute that says where each piece belongs. `restic` restores such a file as its pieces, one after another, with the
//! attribute.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// From how many bytes of holes on a file is stored as its data alone. Reading as many zeros takes about a second.
const HOLLOW: u64 = 1 << 30;

/// The shortest hole that is left out then: what is shorter is cheaper read than listed.
const SHORTEST_HOLE: u64 = 1 << 20;

/// The most pieces a file is stored in: 4 MiB of list. What has more is left out of the backup.
const MOST: usize = 1 << 18;

/// The attribute's name. A user's own attribute of that name is not stored.
pub(super) const ATTRIBUTE: &str = "user.innkeeper.extents";

/// Where the pieces of a file belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Extents {
    /// The length of the whole file in bytes.
    pub(super) size: u64,
    /// Offset and length of each piece, in order, apart from each other.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Extents {
    /// A file without holes.
    pub(super) fn whole(size: u64) -> Self {
        Self { size, pieces: vec![(0, size)] }
    }

    /// How many bytes are stored.
    pub(super) fn stored(&self) -> u64 {
        self.pieces.iter().map(|(_, length)| length).sum()
    }

    /// Whether a file of this size that takes so many bytes on the disk must be looked at.
    pub(super) fn may_be_hollow(size: u64, taken: u64) -> bool {
        size.saturating_sub(taken) > HOLLOW
    }

    /// Finds the pieces of an open file. `None`: there are too many.
    pub(super) fn of(file: impl AsFd, size: u64) -> io::Result<Option<Self>> {
        let file = file.as_fd();
        let mut pieces: Vec<(u64, u64)> = Vec::new();
        let mut at = 0;
        while at < size {
            let start = match seek(file, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole from here on.
                Err(Errno::NXIO) => break,
                Err(why) => return Err(why.into()),
            };
            let end = match seek(file, SeekFrom::Hole(start)) {
                Ok(end) => end,
                // Cut off since.
                Err(Errno::NXIO) => break,
                Err(why) => return Err(why.into()),
            };
            if start >= size || end <= at {
                break;
            }
            let end = end.min(size);
            let full = pieces.len() == MOST;
            match pieces.last_mut().filter(|(offset, length)| start - (*offset + *length) < SHORTEST_HOLE) {
                Some((offset, length)) => *length = end - *offset,
                None if full => return Ok(None),
                None => pieces.push((start, end - start)),
            }
            at = end;
        }
        Ok(Some(Self { size, pieces }))
    }

    /// As the attribute holds it: numbers of eight bytes, the size first.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let numbers = std::iter::once(self.size).chain(self.pieces.iter().flat_map(|(offset, length)| [*offset, *length]));
        numbers.flat_map(u64::to_le_bytes).collect()
    }

    /// Reads the attribute; `None` if it is none that [`Extents::to_bytes`] made.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
        let size = numbers.next().filter(|size| rest.is_empty() && i64::try_from(*size).is_ok())?;
        let mut pieces = Vec::new();
        let mut end = 0;
        while let Some(offset) = numbers.next() {
            let length = numbers.next()?;
            if offset < end {
                return None;
            }
            end = offset.checked_add(length).filter(|end| *end <= size)?;
            pieces.push((offset, length));
        }
        Some(Self { size, pieces })
    }

    /// Where the bytes that are stored from `from` on belong: for each part of `length` bytes, its offset in what is stored and in the file.
    pub(super) fn place(&self, from: u64, length: u64) -> Vec<(u64, u64, u64)> {
        let mut parts = Vec::new();
        let mut stored = 0;
        for (offset, piece) in &self.pieces {
            let start = from.max(stored);
            let end = (from + length).min(stored + piece);
            if start < end {
                parts.push((start, offset + (start - stored), end - start));
            }
            stored += piece;
            if stored >= from + length {
                break;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_of_a_vast_file_are_found_at_once() {
        let file = tempfile::tempfile().unwrap();
        let size = 1 << 42;
        file.set_len(size).unwrap();
        file.write_all_at(&[1; 100], 5 << 40 >> 3).unwrap();
        file.write_all_at(&[2; 100], size - 100).unwrap();
        let extents = Extents::of(&file, size).unwrap().unwrap();
        assert_eq!(extents.pieces.len(), 2);
        assert!(extents.stored() < 1 << 17, "{extents:?}");
        assert_eq!(Extents::from_bytes(&extents.to_bytes()), Some(extents));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let list = |numbers: &[u64]| Extents::from_bytes(&numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>());
        assert!(list(&[10, 0, 5, 5, 5]).is_some());
        for wrong in [&[][..], &[10, 0], &[10, 5, 6], &[10, 0, 5, 4, 1], &[u64::MAX, 0, 1], &[10, u64::MAX, 2]] {
            assert_eq!(list(wrong), None, "{wrong:?}");
        }
        assert_eq!(Extents::from_bytes(&[0; 7]), None);
    }

    proptest! {
        #[test]
        fn every_stored_byte_has_one_place(gaps in prop::collection::vec((0u64..9, 1u64..9), 0..9), from in 0u64..40, length in 1u64..40) {
            let mut end = 0;
            let pieces: Vec<(u64, u64)> = gaps.iter().map(|(gap, piece)| { let at = end + gap; end = at + piece; (at, *piece) }).collect();
            let extents = Extents { size: end, pieces };
            let places: Vec<u64> = extents.pieces.iter().flat_map(|(at, n)| *at..at + n).collect();
            let expected: Vec<(u64, u64)> =
                (from..from + length).filter_map(|n| Some((n, *places.get(usize::try_from(n).unwrap())?))).collect();
            let found: Vec<(u64, u64)> =
                extents.place(from, length).iter().flat_map(|(n, at, len)| (0..*len).map(|i| (n + i, at + i)).collect::<Vec<_>>()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
