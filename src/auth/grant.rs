//! What a login gets: the answer of an authenticator, parsed.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::name::{AccountName, TemplateName, WorkspaceName};
use crate::units::Size;

/// What a login gets.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Who it is, as the authenticator names her; sessions are counted under this name.
    pub account: AccountName,
    /// Where she lands.
    pub workspace: WorkspaceName,
    /// Which recipe; the default one when absent.
    pub template: Option<TemplateName>,
    /// Extra environment for her sessions.
    pub environment: BTreeMap<String, EnvValue>,
    /// What differs from the template's limits.
    pub limits: LimitOverrides,
    /// How long her workspace may be idle, when it differs from the configuration; zero: for ever.
    pub idle_timeout: Option<Duration>,
    /// What she may do.
    pub permit: Permit,
    /// Shown to a person at a terminal, once.
    pub message: Option<String>,
    /// How long a verdict on a verified key may be remembered. Passwords never are.
    pub valid_for: Option<Duration>,
}

/// The value of an environment variable, which may be a secret.
#[derive(Clone)]
pub struct EnvValue {
    value: SecretString,
    sensitive: bool,
}

/// Limits that a grant sets in place of the template's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitOverrides {
    /// CPUs, fractions allowed.
    pub cpus: Option<f64>,
    /// Memory; there is no swap beside it.
    pub memory: Option<Size>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// The home's size.
    pub disk: Option<Size>,
    /// Sessions at once for this account.
    pub sessions: Option<u32>,
}

/// What an account may do beside a shell. Everything, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permit {
    /// Port and socket forwarding, both ways.
    pub forwarding: bool,
    /// Agent forwarding.
    pub agent_forwarding: bool,
    /// Commands other than the login shell.
    pub exec: bool,
    /// The sftp subsystem.
    pub sftp: bool,
}

// === impl Grant ===

impl Grant {
    /// The grant of an authenticator that says no more than yes.
    pub fn plain(account: AccountName) -> Self {
        Self {
            workspace: WorkspaceName::for_account(&account),
            account,
            template: None,
            environment: BTreeMap::new(),
            limits: LimitOverrides::default(),
            idle_timeout: None,
            permit: Permit::default(),
            message: None,
            valid_for: None,
        }
    }
}

// === impl EnvValue ===

impl EnvValue {
    /// A value, and whether it must never be seen in a log, an audit line, a label or a later webhook.
    pub fn new(value: impl Into<String>, sensitive: bool) -> Self {
        Self { value: SecretString::from(value.into()), sensitive }
    }

    /// The value itself, for the process it is meant for.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

impl std::fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.sensitive { f.write_str("***") } else { self.expose().fmt(f) }
    }
}

// === impl Permit ===

impl Default for Permit {
    fn default() -> Self {
        Self { forwarding: true, agent_forwarding: true, exec: true, sftp: true }
    }
}
