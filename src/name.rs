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

/// The name of a terminal in a workspace, of the same form as a workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TerminalName(String);

/// The name of a service in a template, of the same form as a workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ServiceName(String);

/// The name of a volume of a workspace beside its home, of the same form as a workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct VolumeName(String);

/// The name of a snapshot of a workspace that is kept, of the same form as a workspace's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SnapshotName(String);

/// The name of an environment variable that somebody may set who is not the one to run with it: ASCII letters, digits and `_`, not a digit
/// first, and none of those that change which code runs or speak for the login.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct VariableName(String);

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

// === impl TerminalName ===

impl TerminalName {
    /// How a terminal's name begins that nobody gave it: one whose client was lost.
    const LOST: &str = "lost-";

    /// Takes apart what was typed at login: the account, and the terminal that is named after its last `+`. Where no terminal's name follows,
    /// or nothing comes before, all of it is the account.
    pub fn split(typed: &str) -> (&str, Option<Self>) {
        match typed.rsplit_once('+') {
            Some((account, name)) if !account.is_empty() => match name.parse() {
                Ok(name) => (account, Some(name)),
                Err(_) => (typed, None),
            },
            _ => (typed, None),
        }
    }

    /// Whether it is that of a terminal whose client was lost.
    pub fn is_lost(&self) -> bool {
        self.0.starts_with(Self::LOST)
    }
}

// === impl ServiceName ===

impl Default for ServiceName {
    /// The service of a template that has but one.
    fn default() -> Self {
        Self("main".to_owned())
    }
}

// === impl VolumeName ===

impl Default for VolumeName {
    /// The volume of a template that has but one.
    fn default() -> Self {
        Self("data".to_owned())
    }
}

// === impl VariableName ===

impl VariableName {
    /// Longest name, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Names that nobody sets from outside: they change which code runs, or speak for the login.
    const NEVER: [&str; 13] =
        ["BASHOPTS", "BASH_ENV", "ENV", "HOME", "IFS", "LOGNAME", "PATH", "PROMPT_COMMAND", "PS4", "SHELL", "SHELLOPTS", "USER", "ZDOTDIR"];

    /// The same for names that begin like this.
    const NEVER_BEGINNING: [&str; 6] = ["BASH_FUNC_", "DOCKER_", "DYLD_", "INNKEEPER_", "LD_", "SSH_"];

    /// Whether a text is such a name, whatever its length.
    pub fn fits(name: &str) -> bool {
        variable_form(name).is_none()
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
        label_name!($type, $kind, label_problem);
    };
    ($type:ident, $kind:literal, $problem:ident) => {
        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                match $problem(&name) {
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
label_name!(TerminalName, "terminal");
label_name!(ServiceName, "service");
label_name!(VolumeName, "volume");
label_name!(SnapshotName, "snapshot");
label_name!(VariableName, "variable", variable_problem);

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

fn variable_problem(name: &str) -> Option<&'static str> {
    if name.len() > VariableName::MAX_BYTES { Some("is longer than 128 bytes") } else { variable_form(name) }
}

fn variable_form(name: &str) -> Option<&'static str> {
    let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if name.is_empty() {
        return Some("is empty");
    }
    if !well_formed {
        return Some("has a character other than A-Z, a-z, 0-9 and _, or a digit first");
    }
    let never = VariableName::NEVER.contains(&name) || VariableName::NEVER_BEGINNING.iter().any(|beginning| name.starts_with(beginning));
    never.then_some("changes which code runs, or speaks for the login")
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
    fn a_terminal_is_named_after_the_last_plus_and_odd_accounts_stay_whole() {
        let split = |typed| {
            let (account, terminal) = TerminalName::split(typed);
            (account, terminal.map(String::from))
        };
        assert_eq!(split("alice+work"), ("alice", Some("work".to_owned())));
        assert_eq!(split("a+b+c"), ("a+b", Some("c".to_owned())));
        assert_eq!(split("a@example.org+work"), ("a@example.org", Some("work".to_owned())));
        assert_eq!(split("++x"), ("+", Some("x".to_owned())));
        let longest = "x".repeat(32);
        let (long, too_long) = (format!("alice+{longest}"), format!("alice+{longest}x"));
        assert_eq!(split(&long), ("alice", Some(longest)));
        for whole in ["alice", "a+b@example.org", "alice+", "+work", "+", "", "alice+Work", "alice+-x", "alice+a b", "alice+é", &too_long]
        {
            assert_eq!(split(whole), (whole, None));
        }
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
