//! Passwords of the accounts file: argon2id hashes in PHC form, made and verified.
//!
//! Both take tens of milliseconds and the memory below, on purpose; whoever calls from async code does so on a blocking thread.

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// A password's hash. It is not printed, not even by `Debug`.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Hash(PasswordHash);

/// What a verification works in, to be used again: an allocator that is given back megabytes by one thread after another keeps most of them.
#[derive(Default)]
pub struct Memory(Vec<Block>);

/// Why a text is not a usable hash. Does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Another algorithm, or no hash at all: a password in the clear, say.
    #[error("password is not an argon2id hash; set it with: innkeeper account passwd")]
    Form,
    /// A login would take too long or too much memory.
    #[error("password hash has costs beyond what a login may take; set it anew with: innkeeper account passwd")]
    Costs,
    /// The random source failed.
    #[error("a hash could not be made: {0}")]
    Making(String),
}

// === impl Hash ===

impl Hash {
    /// Hashes a password with a salt of its own.
    pub fn of(password: &[u8]) -> Result<Self, HashError> {
        hasher().hash_password(password).map(Self).map_err(|error| HashError::Making(error.to_string()))
    }

    /// A hash of the usual costs that no password has: what is verified for an account that does not exist, so that it takes as long.
    pub fn of_nobody() -> Result<Self, HashError> {
        let encoded = |bytes: &[u8]| BASE64_STANDARD_NO_PAD.encode(bytes);
        let (salt, output): ([u8; 16], [u8; 32]) = (rand::random(), rand::random());
        Self::try_from(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${}${}", encoded(&salt), encoded(&output)))
    }

    /// Is this the password? Takes as long for a wrong one.
    pub fn verify(&self, password: &[u8]) -> bool {
        self.verify_in(password, &mut Memory::default())
    }

    /// The same in memory that was used before, or will be.
    pub fn verify_in(&self, password: &[u8], memory: &mut Memory) -> bool {
        let (Some(salt), Some(expected), Ok(params)) = (&self.0.salt, &self.0.hash, Params::try_from(&self.0)) else { return false };
        let Ok(version) = self.0.version.map_or(Ok(Version::default()), Version::try_from) else { return false };
        let blocks = params.block_count();
        memory.0.resize(blocks.max(memory.0.len()), Block::default());
        let mut output = vec![0; expected.as_bytes().len()];
        let hasher = Argon2::new(Algorithm::Argon2id, version, params);
        let made = hasher.hash_password_into_with_memory(password, salt, &mut output, &mut memory.0[..blocks]);
        // A hash made elsewhere may take far more; that much is not kept.
        memory.0.truncate(hasher_blocks());
        memory.0.shrink_to_fit();
        made.is_ok() && output.ct_eq(expected.as_bytes()).into()
    }

    /// The hash as it is written to the file.
    pub fn expose(&self) -> String {
        self.0.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        let hash = PasswordHash::new(&text).map_err(|_| HashError::Form)?;
        if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
            return Err(HashError::Form);
        }
        let costs = Params::try_from(&hash).map_err(|_| HashError::Form)?;
        if costs.m_cost() > MAX_MEMORY_KIB || costs.t_cost() > MAX_PASSES || costs.p_cost() > MAX_LANES {
            return Err(HashError::Costs);
        }
        Ok(Self(hash))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

fn hasher() -> Argon2<'static> {
    // The constants are within the bounds, which a test holds; the library's own default is the same set.
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The memory of a verification at the usual costs.
fn hasher_blocks() -> usize {
    hasher().params().block_count()
}

/// Longest password that is hashed, in bytes: longer than any typed one, short enough to cost nothing.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// Memory per verification, in KiB. This and the next two are OWASP's first choice for argon2id (Password Storage Cheat Sheet).
const MEMORY_KIB: u32 = 19 << 10;
/// Passes over that memory.
const PASSES: u32 = 2;
/// Lanes; more only help where they run in parallel.
const LANES: u32 = 1;
/// A hash made elsewhere may cost more, up to these: 256 MiB, and about a second.
const MAX_MEMORY_KIB: u32 = 256 << 10;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password() {
        let hash = Hash::of(b"correct horse").unwrap();
        assert!(hash.verify(b"correct horse"));
        assert!(!hash.verify(b"correct horsf"));
        assert!(!hash.verify(b""));
        let mut memory = Memory::default();
        for password in [&b"correct horse"[..], b"other", b"correct horse"] {
            assert_eq!(hash.verify_in(password, &mut memory), password == b"correct horse", "whatever was in the memory before");
        }
        let text = hash.expose();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        assert!(Hash::try_from(text).unwrap().verify(b"correct horse"));
        assert_ne!(hash.expose(), Hash::of(b"correct horse").unwrap().expose(), "each has its own salt");
        assert_eq!(format!("{hash:?}"), "***");
    }

    #[test]
    fn nobodys_hash_costs_what_a_real_one_costs() {
        let (nobody, real) = (Hash::of_nobody().unwrap(), Hash::of(b"x").unwrap());
        assert_eq!(nobody.0.params, real.0.params);
        assert_eq!(nobody.0.version, real.0.version);
        assert!(!nobody.verify(b"x"));
    }

    #[test]
    fn what_is_no_hash_is_refused_without_repeating_it() {
        let other = |text: &str| Hash::try_from(text.to_owned()).unwrap_err();
        assert_eq!(other("hunter2"), HashError::Form);
        assert_eq!(other("$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"), HashError::Form);
        assert_eq!(other("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ"), HashError::Form);
        assert_eq!(other("$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"), HashError::Costs);
    }
}
