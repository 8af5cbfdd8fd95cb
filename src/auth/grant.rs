//! What a login gets: the answer of an authenticator, parsed.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use crate::name::{AccountName, TemplateName, VolumeName, WorkspaceName};
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Files and directories in the home.
    pub inodes: Option<u64>,
    /// Sessions at once for this account.
    pub sessions: Option<u32>,
    /// What may be in its volumes, by their names. One that its template does not name is nobody's.
    #[serde(deserialize_with = "null_is_none", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, VolumeLimits>,
}

/// Limits of a volume in place of the template's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeLimits {
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Size>,
    /// Files and directories in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inodes: Option<u64>,
}

fn null_is_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What an account may do beside a shell. Everything, unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Permit {
    /// Forwarding of ports, sockets and X11. Where it is off, the three that follow are off too.
    pub forwarding: bool,
    /// From the client to ports and sockets in the container: `-L`, `-D`, `-W`.
    pub local_forwarding: bool,
    /// From ports and sockets in the container to the client: `-R`.
    pub remote_forwarding: bool,
    /// Windows of programs in the container on the client's display: `-X`, `-Y`.
    pub x11_forwarding: bool,
    /// The client's key agent in the container: `-A`.
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

// === impl LimitOverrides ===

impl LimitOverrides {
    /// These, and where they say nothing, those below.
    pub fn over(self, below: Self) -> Self {
        let mut volumes = below.volumes;
        for (name, VolumeLimits { disk, inodes }) in self.volumes {
            let under = volumes.entry(name).or_default();
            *under = VolumeLimits { disk: disk.or(under.disk), inodes: inodes.or(under.inodes) };
        }
        Self {
            cpus: self.cpus.or(below.cpus),
            memory: self.memory.or(below.memory),
            pids: self.pids.or(below.pids),
            disk: self.disk.or(below.disk),
            inodes: self.inodes.or(below.inodes),
            sessions: self.sessions.or(below.sessions),
            volumes,
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

impl Permit {
    /// What both permit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            forwarding: self.forwarding && other.forwarding,
            local_forwarding: self.local_forwarding && other.local_forwarding,
            remote_forwarding: self.remote_forwarding && other.remote_forwarding,
            x11_forwarding: self.x11_forwarding && other.x11_forwarding,
            agent_forwarding: self.agent_forwarding && other.agent_forwarding,
            exec: self.exec && other.exec,
            sftp: self.sftp && other.sftp,
        }
    }

    /// Whether the client may connect to something in the container.
    pub fn forwards_in(self) -> bool {
        self.forwarding && self.local_forwarding
    }

    /// Whether the client may listen in the container.
    pub fn forwards_out(self) -> bool {
        self.forwarding && self.remote_forwarding
    }

    /// Whether programs in the container may use the client's display.
    pub fn forwards_x11(self) -> bool {
        self.forwarding && self.x11_forwarding
    }
}

impl Default for Permit {
    fn default() -> Self {
        Self {
            forwarding: true,
            local_forwarding: true,
            remote_forwarding: true,
            x11_forwarding: true,
            agent_forwarding: true,
            exec: true,
            sftp: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_of_two_forbids_is_forbidden() {
        let all = Permit::default();
        assert_eq!(all.and(all), all);
        let no_sftp = Permit { sftp: false, ..all };
        let no_forwards = Permit { forwarding: false, ..all };
        assert_eq!((no_sftp.and(all), all.and(no_sftp)), (no_sftp, no_sftp));
        let neither = no_sftp.and(no_forwards);
        assert!(!neither.sftp && !neither.forwards_in() && !neither.forwards_out() && !neither.forwards_x11() && neither.agent_forwarding);
    }
}
