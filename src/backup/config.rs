//! The `[backup]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::retention::Keep;
use crate::bucket;
use crate::units::{Size, Span};

/// Backups of homes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where backups go: an absolute directory that is there already, on another disk, or `s3://bucket/prefix`. Empty: no backups. The
    /// format is restic's; without us, `restic` reads it. One gateway, one target.
    pub target: String,
    /// What the repository is encrypted with. Whoever loses it loses every backup: keep a copy elsewhere. Where none is set, whoever can
    /// read the target can read every home in it.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub key: Option<SecretString>,
    /// File with the key, instead of `key`.
    pub key_file: Option<PathBuf>,
    /// How old a home's last backup gets before the next is made. `0s`: only when asked.
    pub every: Span,
    /// How many backups of a home are kept however old they are.
    pub keep_last: u32,
    /// How long every backup is kept however many there are.
    pub keep_for: Span,
    /// How often the repository is verified: everything that says where data are, and `verify_percent` of the data. `0s`: only when asked.
    pub verify_every: Span,
    /// How much of the data is read each time, chosen at random; all of it as long as something was found wrong. From 1 to 100.
    pub verify_percent: u8,
    /// How many bytes a second are read from a home at most. `0B`: as many as there are.
    pub rate: Size,
    /// How many processors a backup uses at most.
    pub threads: u32,
    /// The service behind an `s3://` target.
    pub s3: bucket::Config,
}

/// Where backups go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A directory.
    Directory(PathBuf),
    /// A place in a bucket.
    S3(bucket::Location),
}

// === impl Config ===

impl Config {
    /// Where backups go; `None` where there are none.
    pub fn target(&self) -> Result<Option<Target>, String> {
        if self.target.is_empty() { Ok(None) } else { Target::parse(&self.target).map(Some) }
    }

    /// What is kept.
    pub fn keep(&self) -> Keep {
        Keep { last: self.keep_last, age: self.keep_for.get() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            target: String::new(),
            key: None,
            key_file: None,
            every: Span::secs(24 * 60 * 60),
            keep_last: 7,
            keep_for: Span::secs(30 * 24 * 60 * 60),
            verify_every: Span::secs(7 * 24 * 60 * 60),
            verify_percent: 10,
            rate: Size::bytes(0),
            threads: 4,
            s3: bucket::Config::default(),
        }
    }
}

// === impl Target ===

impl Target {
    /// Reads a target as it is written in a configuration.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(location) = bucket::Location::parse(text) {
            return location.map(Self::S3);
        }
        let path = PathBuf::from(text);
        if path.is_absolute() && path.parent().is_some() {
            Ok(Self::Directory(path))
        } else {
            Err("must be an absolute directory or `s3://bucket/prefix`".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        assert_eq!(Target::parse("/var/backups/x").unwrap(), Target::Directory("/var/backups/x".into()));
        assert!(matches!(Target::parse("s3://b/a").unwrap(), Target::S3(location) if location.bucket == "b"));
        for wrong in ["backups", "/", "s3://", "http://b/"] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
