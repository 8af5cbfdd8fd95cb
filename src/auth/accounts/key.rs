//! A line of an `authorized_keys` file, parsed: which key it is, and who says so.
//!
//! A key here is its wire form and nothing more: which signatures it may make, and whether it made one, is decided where packets are.

use std::fmt;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::auth::OfferedKey;
use crate::name::printable;

/// A public key that opens an account. Two are the same key whatever their comments say.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct AuthorizedKey {
    algorithm: String,
    /// The key in SSH's wire form; begins with the algorithm once more.
    blob: Vec<u8>,
    comment: String,
}

/// Why a line is not a key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not `algorithm base64 comment`.
    #[error("not a public key; give a line such as the one in ~/.ssh/id_ed25519.pub")]
    Form,
    /// The private half.
    #[error("this is a private key; give the public one, the file whose name ends in .pub")]
    Private,
    /// Something before the algorithm, as in `command="…" ssh-ed25519 AAAA`.
    #[error("the key begins with options, which are not supported here; leave only the key and its comment")]
    Options,
    /// A certificate, a DSA key, or something never heard of.
    #[error("the key is of type {0}, which is not accepted; make one with: ssh-keygen -t ed25519")]
    Algorithm(String),
    /// The base64 text is cut off or damaged.
    #[error("the key is damaged: its {0} text is not a whole key of that type")]
    Damaged(String),
    /// An RSA key that can be broken.
    #[error("the key is RSA with {0} bits, and fewer than 2048 are not safe; make a new one with: ssh-keygen -t ed25519")]
    Weak(usize),
}

// === impl AuthorizedKey ===

impl AuthorizedKey {
    /// Is this the offered key? The algorithm and the key itself count, the comment does not.
    pub fn is(&self, offered: &OfferedKey) -> bool {
        let mut words = offered.0.split_ascii_whitespace();
        let (Some(algorithm), Some(text)) = (words.next(), words.next()) else { return false };
        algorithm == self.algorithm && decode(text).is_some_and(|blob| blob == self.blob)
    }

    /// The SHA-256 fingerprint, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }

    /// The algorithm's name, `ssh-ed25519` say.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// What stands behind the key.
    pub fn comment(&self) -> &str {
        &self.comment
    }
}

impl PartialEq for AuthorizedKey {
    fn eq(&self, other: &Self) -> bool {
        self.blob == other.blob
    }
}

impl std::str::FromStr for AuthorizedKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        if line.contains("PRIVATE KEY-----") {
            return Err(KeyError::Private);
        }
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return Err(KeyError::Form);
        }
        let mut words = line.trim().splitn(3, [' ', '\t']);
        let (Some(algorithm), Some(text)) = (words.next(), words.next()) else { return Err(KeyError::Form) };
        if !ALGORITHMS.contains(&algorithm) {
            let named_later = line.split([' ', '\t']).skip(1).any(|word| ALGORITHMS.contains(&word));
            return Err(if named_later { KeyError::Options } else { KeyError::Algorithm(shortened(algorithm)) });
        }
        let damaged = || KeyError::Damaged(algorithm.to_owned());
        let blob = decode(text).ok_or_else(damaged)?;
        let fields = fields(&blob).ok_or_else(damaged)?;
        if fields.first() != Some(&algorithm.as_bytes()) || fields.len() < 2 {
            return Err(damaged());
        }
        if algorithm == "ssh-rsa" {
            let bits = bits(fields.get(2).ok_or_else(damaged)?);
            if bits < MIN_RSA_BITS {
                return Err(KeyError::Weak(bits));
            }
        }
        Ok(Self { algorithm: algorithm.to_owned(), comment: words.next().unwrap_or_default().trim().to_owned(), blob })
    }
}

impl TryFrom<String> for AuthorizedKey {
    type Error = KeyError;

    fn try_from(line: String) -> Result<Self, KeyError> {
        line.parse()
    }
}

impl fmt::Display for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, BASE64_STANDARD.encode(&self.blob))?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

impl fmt::Debug for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, self.fingerprint())
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(text).ok()
}

/// The length-prefixed fields of a key's wire form (RFC 4251, section 5), or `None` when they do not end where the text does.
fn fields(mut blob: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while let Some((length, rest)) = blob.split_first_chunk::<4>() {
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        fields.push(field);
        blob = rest;
    }
    blob.is_empty().then_some(fields)
}

/// The length of a big-endian number.
fn bits(number: &[u8]) -> usize {
    match number.iter().position(|byte| *byte != 0) {
        None => 0,
        Some(first) => (number.len() - first) * 8 - number[first].leading_zeros() as usize,
    }
}

fn shortened(word: &str) -> String {
    printable(&word.chars().take(40).collect::<String>())
}

/// What OpenSSH makes and accepts today. Keys of certificates and DSA are not among them.
const ALGORITHMS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
/// Shorter RSA keys are within reach of factoring (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(algorithm: &str, fields: &[&[u8]]) -> String {
        let mut blob = Vec::new();
        for field in [&[algorithm.as_bytes()], fields].concat() {
            blob.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
            blob.extend(field);
        }
        format!("{algorithm} {}", BASE64_STANDARD.encode(blob))
    }

    fn error(line: &str) -> KeyError {
        line.parse::<AuthorizedKey>().unwrap_err()
    }

    const REAL: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJQY6rRKAiY5aonMzQIdAa99zhzUUdiAMXCYxKCmUP9z a comment";

    #[test]
    fn a_key_is_itself_whatever_its_comment() {
        let key: AuthorizedKey = REAL.parse().unwrap();
        assert_eq!(key.comment(), "a comment");
        assert_eq!(key.to_string(), REAL);
        // As `ssh-keygen -l` prints it for this key.
        assert_eq!(key.fingerprint(), "SHA256:9+h9NIFZiAYoG/2xFHsz2lGwTuN4rpx2XL9kj312kHE");
        let bare = REAL.rsplitn(3, ' ').last().unwrap();
        assert!(key.is(&OfferedKey(bare.to_owned())));
        assert!(!key.is(&OfferedKey(line("ssh-ed25519", &[&[1; 32]]))));
        assert!(!key.is(&OfferedKey(bare.replace("ssh-ed25519", "ssh-rsa"))));
        assert!(!key.is(&OfferedKey(String::new())));
    }

    #[test]
    fn what_is_no_key_says_why() {
        assert_eq!(error(""), KeyError::Form);
        assert_eq!(error("ssh-ed25519"), KeyError::Form);
        assert_eq!(error("-----BEGIN OPENSSH PRIVATE KEY-----"), KeyError::Private);
        assert_eq!(error(&format!("no-pty {REAL}")), KeyError::Options);
        assert_eq!(error(&line("ssh-dss", &[b"x"])), KeyError::Algorithm("ssh-dss".into()));
        assert_eq!(error("ssh-ed25519 AAAA"), KeyError::Damaged("ssh-ed25519".into()));
        assert_eq!(error(&REAL.replacen("AAAAI", "AAAI", 1)), KeyError::Damaged("ssh-ed25519".into()));
        assert_eq!(error(&line("ssh-rsa", &[&[1, 0, 1], &[&[0, 0x80][..], &[0; 127]].concat()])), KeyError::Weak(1024));
        assert!(line("ssh-rsa", &[&[1, 0, 1], &[&[0, 0x80][..], &[0; 255]].concat()]).parse::<AuthorizedKey>().is_ok());
        assert_eq!(error(&format!("{REAL}\n{REAL}")), KeyError::Form);
    }

    proptest! {
        #[test]
        fn no_line_breaks_the_parser(line in "\\PC{0,80}", blob in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = line.parse::<AuthorizedKey>();
            let _ = format!("ssh-rsa {}", BASE64_STANDARD.encode(blob)).parse::<AuthorizedKey>();
        }
    }
}
