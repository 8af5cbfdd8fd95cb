//! The `[recording]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::bucket;
use crate::units::{Size, Span};

/// The shortest key, in characters: a word that somebody makes up is found by trying.
const SHORTEST_KEY: usize = 32;

/// The largest object that is made with one request, in bytes: what S3 services take.
const LARGEST_OBJECT: u64 = 5 << 30;

/// Recordings of terminals, in `recordings/` of the state directory or in a bucket. Which are made, their template says (`recording`).
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What recordings are encrypted with, at least 32 characters, as `openssl rand -hex 32` prints them. What was recorded with another key
    /// can be read with that one only. Where none is set, whoever can read the state directory can read what was on everybody's screen.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub key: Option<SecretString>,
    /// File with the key, instead of `key`.
    pub key_file: Option<PathBuf>,
    /// Where recordings go once they have ended: `s3://bucket/prefix`. Empty: they stay on the disk. One gateway, one place.
    pub target: String,
    /// The service behind `target`.
    pub s3: bucket::Config,
    /// How large all recordings on the disk get together. The oldest go first, but for those that go on. With a `target` only what it has
    /// not taken yet counts, and is lost if it takes nothing for so long.
    pub quota: Size,
    /// How large one recording gets, compressed, so that nobody makes all others go. A session that is longer is recorded so far and then as
    /// `on_failure` says.
    pub largest: Size,
    /// For how long a recording is kept after its session has ended, wherever it is; `0s`: as long as the quota allows, and in a bucket for
    /// ever.
    pub keep: Span,
    /// What becomes of a session that cannot be recorded, or not any more: the disk is full or does not keep up, or it is larger than it may be.
    pub on_failure: OnFailure,
    /// What becomes of recordings when their workspace is deleted for good.
    pub when_deleted: WhenDeleted,
}

/// What becomes of a session that cannot be recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It goes on.
    #[default]
    Continue,
    /// It is ended, and its person told why.
    EndSession,
}

/// What becomes of a deleted workspace's recordings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenDeleted {
    /// They go with it.
    #[default]
    Remove,
    /// They are kept as all others are.
    Keep,
}

impl Config {
    /// Where recordings go; `None`: they stay.
    pub fn target(&self) -> Result<Option<bucket::Location>, String> {
        if self.target.is_empty() {
            return Ok(None);
        }
        bucket::Location::parse(&self.target).unwrap_or_else(|| Err("must be `s3://bucket/prefix`, or empty".to_owned())).map(Some)
    }

    /// What is wrong with it, by the key.
    pub fn flaws(&self) -> Vec<(&'static str, String)> {
        let mut flaws = Vec::new();
        if self.key.as_ref().is_some_and(|key| key.expose_secret().chars().count() < SHORTEST_KEY) {
            flaws
                .push(("recording.key_file", format!("must have {SHORTEST_KEY} characters or more; make one with `openssl rand -hex 32`")));
        }
        match self.target() {
            Err(why) => flaws.push(("recording.target", why)),
            Ok(Some(_)) if self.largest.get() > LARGEST_OBJECT => {
                flaws.push(("recording.largest", "must be at most 5GiB where `recording.target` is set".to_owned()));
            }
            Ok(_) => {}
        }
        if self.largest.get() == 0 || self.largest.get() > self.quota.get() {
            flaws.push(("recording.largest", "must be more than nothing, and not more than `recording.quota`".to_owned()));
        }
        flaws
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            key: None,
            key_file: None,
            target: String::new(),
            s3: bucket::Config::default(),
            quota: Size::gib(10),
            largest: Size::mib(256),
            keep: Span::secs(90 * 24 * 60 * 60),
            on_failure: OnFailure::default(),
            when_deleted: WhenDeleted::default(),
        }
    }
}
