//! What is wrong with a configuration, where, and how it is mended.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Something wrong with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The key, `idle.timeout`; empty where the whole file is meant.
    pub key: String,
    /// Where its value comes from.
    pub origin: Origin,
    /// What is wrong and how it is mended. Never contains a secret.
    pub message: String,
    /// Whether it can be lived with.
    pub severity: Severity,
}

/// Whether a problem can be lived with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// It is said, and life goes on.
    Warning,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A configuration file.
    File {
        /// Which.
        path: PathBuf,
        /// Its line, from 1; 0 where the file as a whole is meant.
        line: usize,
        /// Its column in characters, from 1.
        column: usize,
    },
    /// An environment variable of this name.
    Variable(String),
}

/// A configuration that nothing can be started with: at least one of the problems is an error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Unusable {
    /// Everything that was found, warnings too.
    pub problems: Vec<Problem>,
}

impl Problem {
    /// Something nothing can be started with. Its origin is filled in by who knows it.
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), origin: Origin::Default, message: message.into(), severity: Severity::Error }
    }

    /// Something that can be lived with.
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, message) }
    }

    pub(super) fn at(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }
}

/// One line: the place, the key, what is wrong.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => path.display().fmt(f),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}
