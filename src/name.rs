//! Names that cross a boundary, each parsed once into its own type.
//!
//! This file knows nothing of what the names are used for. A value that exists here may be put into a path, a label or a
//! container name without another look; whatever could not be is [`AccountName`], which only ever gets printed escaped.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A name that did not parse, with what is wrong about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} {problem}")]
pub struct NameError {
    kind: &'static str,
    name: String,
    problem: &'static str,
}

/// What somebody typed at login: untrusted text, at most [`AccountName::MAX_BYTES`] bytes of it.
///
/// Its `Display` escapes control, bidirectional and other invisible characters, so it can be shown in a log or a terminal; its bytes
/// never reach a path or a container name, for that there is [`WorkspaceName::for_account`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountName(String);

/// The name of a workspace: `[a-z0-9]`, then up to 31 of `[a-z0-9-]`. Safe in paths, labels and container names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct WorkspaceName(String);

/// The name of a template, of the same form as a workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TemplateName(String);

/// The name of one gateway among those that share an engine, of the same form as a workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct InstanceName(String);

/// One accepted connection: 32 lowercase hexadecimal digits, as the webhook protocol wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u128);

// === impl AccountName ===

impl AccountName {
    /// Longest name taken, in bytes. Longer than any e-mail address (254) and short enough to log.
    pub const MAX_BYTES: usize = 256;

    /// Takes what was typed, if it is of a length anybody could have meant.
    pub fn parse(typed: &str) -> Result<Self, NameError> {
        let problem = if typed.is_empty() {
            "is empty"
        } else if typed.len() > Self::MAX_BYTES {
            "is longer than 256 bytes"
        } else {
            return Ok(Self(typed.to_owned()));
        };
        Err(NameError { kind: "account", name: typed.chars().take(32).collect(), problem })
    }

    /// The text as it was typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl WorkspaceName ===

impl WorkspaceName {
    /// Longest name, in bytes: leaves room for a prefix in a 63-byte DNS label.
    pub const MAX_BYTES: usize = 32;

    /// The workspace of an account whose grant names none.
    ///
    /// A name that already is one is kept, every other is mapped to `readable--hash`. A kept name never contains `--`, so no account can
    /// be called what another is mapped to; the hash has 80 bits, so nobody finds a second account that maps to a given workspace.
    pub fn for_account(account: &AccountName) -> Self {
        let typed = account.as_str();
        if !typed.contains("--")
            && let Ok(name) = Self::try_from(typed.to_owned())
        {
            return name;
        }
        let mut readable: String = typed
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .skip_while(|c| *c == '-')
            .take(14)
            .collect();
        readable.truncate(readable.trim_end_matches('-').len());
        if readable.is_empty() {
            readable.push('x');
        }
        let hash = BASE32_NOPAD.encode(&Sha256::digest(typed.as_bytes())[..10]).to_ascii_lowercase();
        Self(format!("{readable}--{hash}"))
    }
}

// === impl TemplateName ===

impl Default for TemplateName {
    /// The template of whoever is given no other.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

// === impl ConnectionId ===

impl ConnectionId {
    /// A new, random one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

macro_rules! label_name {
    ($type:ident, $kind:literal) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                match label_problem(&name) {
                    None => Ok(Self(name)),
                    Some(problem) => Err(NameError { kind: $kind, name: name.chars().take(64).collect(), problem }),
                }
            }
        }
        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::try_from(name.to_owned())
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}
label_name!(WorkspaceName, "workspace");
label_name!(TemplateName, "template");
label_name!(InstanceName, "instance");

fn label_problem(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.len() > WorkspaceName::MAX_BYTES {
        return Some("is longer than 32 characters");
    }
    if name.starts_with('-') {
        return Some("starts with a hyphen");
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (!name.bytes().all(allowed)).then_some("has a character other than a-z, 0-9 and -")
}

/// Text from a stranger, fit for a log line or a terminal: control characters and those that change the reading direction or are
/// invisible are written as `\u{..}`.
pub fn printable(text: &str) -> String {
    let unsafe_char = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
            || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' | '\u{61c}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if unsafe_char(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mapped(typed: &str) -> String {
        WorkspaceName::for_account(&AccountName::parse(typed).unwrap()).to_string()
    }

    #[test]
    fn plain_names_are_kept_and_others_mapped() {
        assert_eq!(mapped("alice"), "alice");
        assert_eq!(mapped("a-1"), "a-1");
        assert!(mapped("Alice").starts_with("alice--"));
        assert!(mapped("../../etc").starts_with("etc--"));
        assert!(mapped("\0\n").starts_with("x--"));
        assert_ne!(mapped("Alice"), mapped("ALICE"));
        assert_ne!(mapped(&mapped("Alice")), mapped("Alice"), "nobody can be called what another is mapped to");
    }

    #[test]
    fn printable_escapes_what_a_terminal_would_obey() {
        assert_eq!(printable("a\x1b]52;c;x\u{202e}b"), "a\\u{1b}]52;c;x\\u{202e}b");
    }

    proptest! {
        #[test]
        fn every_account_maps_to_a_valid_name(typed in "\\PC{1,64}|[\\x00-\\x7f]{1,80}") {
            let name = mapped(&typed);
            prop_assert!(WorkspaceName::try_from(name).is_ok());
        }

        #[test]
        fn different_accounts_get_different_workspaces(a in "[aA]-?[bB.]{0,2}-{0,2}", b in "[aA]-?[bB.]{0,2}-{0,2}") {
            prop_assert_eq!(a == b, mapped(&a) == mapped(&b));
        }
    }
}
