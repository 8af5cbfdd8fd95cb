//! The `[audit]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::syslog::Place;
use crate::units::{Size, Span};

/// A file has at least some thousand lines.
const SMALLEST: Size = Size::mib(1);

/// The audit trail: logins, refusals, sessions, forwards, and what was done to workspaces, in `audit/` of the state directory.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether there is one.
    pub enabled: bool,
    /// A file that is larger is closed, and another begun.
    pub file_size: Size,
    /// How long closed files are kept; `0s`: for ever.
    pub keep: Span,
    /// Where each line goes as well: empty for nowhere, `local` for the host's syslog (`/dev/log`), `unix:///PATH` for another
    /// datagram socket, or `udp://HOST:PORT`. Lines may be lost on the way.
    pub syslog: String,
    /// Where events are sent as well, at least once and in order; empty: nowhere.
    pub webhook: Webhook,
}

/// Where events are sent as JSON, signed as <https://www.standardwebhooks.com> says.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    /// Where to: a URL; empty: nowhere.
    pub url: String,
    /// A file with the secret that requests are signed with.
    pub secret_file: Option<PathBuf>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) secret: Option<SecretString>,
}

// === impl Config ===

impl Config {
    /// What is wrong with it, by the key.
    pub fn flaws(&self) -> Vec<(&'static str, String)> {
        let mut flaws = Vec::new();
        flaws.extend(Place::of(&self.syslog).err().map(|why| ("audit.syslog", why)));
        if self.file_size.get() < SMALLEST.get() {
            flaws.push(("audit.file_size", format!("must be {SMALLEST} or more")));
        }
        let url = &self.webhook.url;
        if !url.is_empty() {
            let parsed = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            if parsed.is_none() {
                flaws.push(("audit.webhook.url", "must begin with http:// or https:// and a host".to_owned()));
            }
            if parsed.is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
                flaws.push(("audit.webhook.url", "must have no name and no password in it; requests are signed".to_owned()));
            }
            if self.webhook.secret_file.is_none() {
                flaws.push(("audit.webhook.secret_file", "is not set: whoever takes events could not tell whose they are".to_owned()));
            }
        }
        flaws
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            file_size: Size::mib(64),
            keep: Span::secs(365 * 24 * 60 * 60),
            syslog: String::new(),
            webhook: Webhook::default(),
        }
    }
}
