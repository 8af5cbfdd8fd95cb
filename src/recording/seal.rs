//! What encrypts a recording piece by piece, so that what is on the disk can be read up to any moment, and a piece that is missing, changed
//! or out of its place shows: the STREAM construction (Hoang, Reyhanitabar, Rogaway and Vizár, 2015) over AES-256-GCM.
//!
//! Each recording has a key of its own, by HKDF-SHA-256 from the configured one and a salt. A piece's nonce is its number and whether it is the
//! last; what stands before the pieces is authenticated with each. A piece is written as one byte (1: the last), its length in four, and then
//! the ciphertext.

use std::io::{self, Read};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use secrecy::{ExposeSecret, SecretString};

/// Bytes of plaintext in a piece at most.
pub(super) const PIECE: usize = 64 * 1024;

/// What a recording's key is derived for.
const PURPOSE: &[u8] = b"innkeeper recording 1";

/// What a piece has beside its plaintext: the byte, the length, the tag.
const HEAD: usize = 5;
const TAG: usize = 16;

/// Encrypts the pieces of one recording.
pub(super) struct Sealer(Pieces);

/// Reads them back.
pub(super) struct Opener<R> {
    from: R,
    pieces: Pieces,
    piece: Vec<u8>,
    taken: usize,
    ended: bool,
}

struct Pieces {
    key: LessSafeKey,
    /// What stands before the pieces.
    before: Vec<u8>,
    number: u64,
}

// === impl Sealer ===

impl Sealer {
    pub(super) fn new(key: &SecretString, salt: &[u8], before: &[u8]) -> io::Result<Self> {
        Pieces::new(key, salt, before).map(Self)
    }

    /// The next piece as it is written.
    pub(super) fn seal(&mut self, plain: &[u8], last: bool, to: &mut Vec<u8>) -> io::Result<()> {
        let mut piece = plain.to_vec();
        let nonce = self.0.next(last)?;
        let sealed = self.0.key.seal_in_place_append_tag(nonce, Aad::from(&self.0.before), &mut piece);
        sealed.map_err(|_| io::Error::other("cannot encrypt"))?;
        to.push(last.into());
        to.extend(u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes());
        to.extend(piece);
        Ok(())
    }
}

// === impl Opener ===

impl<R: Read> Opener<R> {
    pub(super) fn new(from: R, key: &SecretString, salt: &[u8], before: &[u8]) -> io::Result<Self> {
        Ok(Self { from, pieces: Pieces::new(key, salt, before)?, piece: Vec::new(), taken: 0, ended: false })
    }

    /// Reads the next piece. `UnexpectedEof`: it, or the last, is not there.
    fn next(&mut self) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it was changed, or encrypted with another key");
        let mut head = [0; HEAD];
        self.from.read_exact(&mut head)?;
        let [last, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if last > 1 || !(TAG..=PIECE + TAG).contains(&length) {
            return Err(damaged());
        }
        self.piece.resize(length, 0);
        self.from.read_exact(&mut self.piece)?;
        let nonce = self.pieces.next(last == 1)?;
        let opened = self.pieces.key.open_in_place(nonce, Aad::from(&self.pieces.before), &mut self.piece);
        let length = opened.map_err(|_| damaged())?.len();
        self.piece.truncate(length);
        (self.taken, self.ended) = (0, last == 1);
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.piece.len() {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let left = self.piece.get(self.taken..).unwrap_or_default();
        let count = left.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(left) {
            *to = *from;
        }
        self.taken += count;
        Ok(count)
    }
}

// === impl Pieces ===

impl Pieces {
    fn new(secret: &SecretString, salt: &[u8], before: &[u8]) -> io::Result<Self> {
        let failed = |_| io::Error::other("cannot derive a key");
        let derived = Salt::new(HKDF_SHA256, salt).extract(secret.expose_secret().as_bytes());
        let key = UnboundKey::from(derived.expand(&[PURPOSE], &AES_256_GCM).map_err(failed)?);
        Ok(Self { key: LessSafeKey::new(key), before: before.to_vec(), number: 0 })
    }

    /// The nonce of the next piece. No two pieces of a recording have the same, and no two recordings the same key.
    fn next(&mut self, last: bool) -> io::Result<Nonce> {
        let mut nonce = [0; NONCE_LEN];
        let number = self.number.to_be_bytes().into_iter().chain([u8::from(last)]);
        for (to, from) in nonce.iter_mut().skip(NONCE_LEN - 9).zip(number) {
            *to = from;
        }
        self.number = self.number.checked_add(1).ok_or_else(|| io::Error::other("too many pieces"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn sealed(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut sealer = Sealer::new(&key("secret"), b"salt", b"before").unwrap();
        let last = pieces.len() - 1;
        let one = |(number, piece): (usize, &&[u8])| {
            let mut to = Vec::new();
            sealer.seal(piece, number == last, &mut to).unwrap();
            to
        };
        pieces.iter().enumerate().map(one).collect()
    }

    fn opened(bytes: &[u8], secret: &str, salt: &[u8], before: &[u8]) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut plain = Vec::new();
        let read = Opener::new(bytes, &key(secret), salt, before).unwrap().read_to_end(&mut plain);
        (plain, read.err().map(|why| why.kind()))
    }

    #[test]
    fn what_is_cut_is_read_so_far_and_known_to_be_cut() {
        let pieces = sealed(&[b"one", b"", b"two", b""]);
        let whole = pieces.concat();
        assert_eq!(opened(&whole, "secret", b"salt", b"before"), (b"onetwo".to_vec(), None));
        for length in 0..whole.len() {
            let (plain, why) = opened(&whole[..length], "secret", b"salt", b"before");
            assert!(b"onetwo".starts_with(&plain), "{length}");
            assert_eq!(why, Some(io::ErrorKind::UnexpectedEof), "{length}");
        }
        assert_eq!(opened(&whole[..whole.len() - pieces[3].len()], "secret", b"salt", b"before").0, b"onetwo");
    }

    #[test]
    fn what_was_changed_moved_left_out_or_is_anothers_is_not_read() {
        let pieces = sealed(&[b"one", b"two", b"three"]);
        let whole = pieces.concat();
        let bad = Some(io::ErrorKind::InvalidData);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_ne!(opened(&changed, "secret", b"salt", b"before").1, None, "{at}");
        }
        assert_eq!(opened(&[&pieces[1][..], &pieces[2]].concat(), "secret", b"salt", b"before"), (Vec::new(), bad));
        assert_eq!(opened(&[&pieces[0][..], &pieces[2]].concat(), "secret", b"salt", b"before"), (b"one".to_vec(), bad));
        let mut early = pieces[..2].concat();
        let at = pieces[0].len();
        early[at] = 1;
        assert_eq!(opened(&early, "secret", b"salt", b"before"), (b"one".to_vec(), bad), "a piece that is said to be the last");
        for (secret, salt, before) in
            [("other", &b"salt"[..], &b"before"[..]), ("secret", b"other", b"before"), ("secret", b"salt", b"other")]
        {
            assert_eq!(opened(&whole, secret, salt, before), (Vec::new(), bad));
        }
        assert!(!whole.windows(3).any(|window| window == b"one" || window == b"two"));
    }
}
