//! How one line follows from the one before: pure.
//!
//! A line is `{"seq":7, …,"chain":"<64 hex digits>"}`. The digest is HMAC-SHA-256, under the trail's key, of the digest before and of the
//! bytes of this line up to the member `chain`: of bytes, so that nobody needs to agree on how JSON is written.

use aws_lc_rs::hmac;

/// What stands between what a line says and its digest.
const MEMBER: &str = ",\"chain\":\"";
/// What follows the digest.
const END: &str = "\"}";

/// A digest.
pub(super) type Digest = [u8; 32];

/// The trail's secret.
#[derive(Clone)]
pub(super) struct Key(pub(super) [u8; 32]);

/// Where a chain stands: after the line with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Link {
    /// The number of the last line; 0: there is none yet.
    pub(super) seq: u64,
    /// Its digest.
    pub(super) digest: Digest,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// It does not have the form of one.
    Form,
    /// Its number does not follow.
    Seq {
        /// The one that it has.
        found: u64,
    },
    /// It, or the one before, is not what was written.
    Digest,
}

/// A line's parts, nothing of them believed.
pub(super) struct Parts<'a> {
    pub(super) seq: u64,
    pub(super) said: &'a [u8],
    pub(super) digest: Digest,
}

// === impl Key ===

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

// === impl Link ===

impl Link {
    /// The line that follows, with its line feed, of a JSON object's members without braces.
    pub(super) fn follow(&mut self, key: &Key, members: &str) -> String {
        self.seq += 1;
        let mut line = format!("{{\"seq\":{},{members}", self.seq);
        self.digest = digest(key, &self.digest, line.as_bytes());
        line.push_str(MEMBER);
        line.push_str(&hex::encode(self.digest));
        line.push_str(END);
        line.push('\n');
        line
    }

    /// Goes on by a line that was read, without its line feed, if it follows.
    pub(super) fn check(&mut self, key: &Key, line: &[u8]) -> Result<(), Broken> {
        let parts = Parts::of(line).ok_or(Broken::Form)?;
        if parts.seq != self.seq + 1 {
            return Err(Broken::Seq { found: parts.seq });
        }
        if digest(key, &self.digest, parts.said) != parts.digest {
            return Err(Broken::Digest);
        }
        *self = Self { seq: parts.seq, digest: parts.digest };
        Ok(())
    }
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// Of a line without its line feed.
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        let tail = MEMBER.len() + 64 + END.len();
        let (said, rest) = line.split_at_checked(line.len().checked_sub(tail)?)?;
        let digits = rest.strip_prefix(MEMBER.as_bytes())?.strip_suffix(END.as_bytes())?;
        let mut digest = Digest::default();
        hex::decode_to_slice(digits, &mut digest).ok()?;
        let number = said.strip_prefix(b"{\"seq\":")?;
        let end = number.iter().position(|byte| !byte.is_ascii_digit())?;
        let seq = std::str::from_utf8(number.get(..end)?).ok()?.parse().ok()?;
        Some(Self { seq, said, digest })
    }
}

fn digest(key: &Key, before: &Digest, said: &[u8]) -> Digest {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &key.0));
    context.update(before);
    context.update(said);
    let mut digest = Digest::default();
    // As long as the algorithm's name says.
    for (to, from) in digest.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_missing_or_foreign_line_does_not_follow() {
        let key = Key([7; 32]);
        let mut link = Link::default();
        let lines: Vec<String> = (0..4).map(|n| link.follow(&key, &format!("\"event\":\"x\",\"n\":{n}"))).collect();
        let bare = |n: usize| lines[n].trim_end().as_bytes();
        let mut check = Link::default();
        for n in 0..4 {
            serde_json::from_slice::<serde_json::Value>(bare(n)).unwrap();
            check.check(&key, bare(n)).unwrap();
        }
        assert_eq!(check, link);
        let after_first = || {
            let mut check = Link::default();
            check.check(&key, bare(0)).unwrap();
            check
        };
        assert_eq!(after_first().check(&key, bare(2)), Err(Broken::Seq { found: 3 }));
        assert_eq!(after_first().check(&key, lines[1].trim_end().replace("\"n\":1", "\"n\":9").as_bytes()), Err(Broken::Digest));
        assert_eq!(after_first().check(&Key([8; 32]), bare(1)), Err(Broken::Digest));
        for cut in 0..bare(1).len() {
            assert_eq!(after_first().check(&key, &bare(1)[..cut]), Err(Broken::Form), "{cut}");
        }
    }
}
