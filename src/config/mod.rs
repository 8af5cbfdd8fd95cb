//! The settings tree: defaults, loading, checking, reload.
//!
//! Each section belongs to the room that it configures; this room composes them, and knows where a value came from and what is wrong
//! with it. It starts nothing and, beside the files that the configuration names, touches nothing.

mod check;
mod document;
mod keys;
mod load;
mod problem;
mod services;
mod source;
mod volumes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use document::{default_file, effective, reference};
pub use load::{Loaded, Reload, Sources};
pub use problem::{Origin, Problem, Severity, Unusable};

use crate::name::{InstanceName, TemplateName};
use crate::workspace::{CapacityConfig, IdleConfig, LimitsConfig, MountsConfig, PoolConfig, Template};
use crate::{audit, auth, backup, engine, home, http, recording, ssh, telemetry, urls};

/// Where the configuration is, unless it is said otherwise.
pub const DEFAULT_FILE: &str = "/etc/innkeeper/config.toml";

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The name of this gateway among those that share an engine: its containers and networks carry it, and it touches no other's.
    pub instance: InstanceName,
    /// The directory of everything that must outlive the gateway. Only its owner may read it.
    pub state_dir: PathBuf,
    /// The SSH server.
    pub ssh: ssh::Config,
    /// Sessions.
    pub session: ssh::SessionConfig,
    /// Who may log in.
    pub auth: auth::Config,
    /// What runs the containers.
    pub engine: engine::Config,
    /// Recipes for workspaces, by name. A grant may name one; `default` is for all others and is always there.
    pub template: BTreeMap<TemplateName, Template>,
    /// Where homes are.
    pub home: home::Config,
    /// Backups of homes.
    pub backup: backup::Config,
    /// When a workspace that nobody uses is stopped.
    pub idle: IdleConfig,
    /// Ready containers that nobody owns yet, so that nobody waits for one.
    pub pool: PoolConfig,
    /// What all workspaces together may use.
    pub limits: LimitsConfig,
    /// What is measured, and what the host costs.
    pub capacity: CapacityConfig,
    /// What of the host may appear in workspaces.
    pub mounts: MountsConfig,
    /// Health, metrics, the API and the dashboard over HTTP.
    pub http: http::Config,
    /// Workspace URLs.
    pub urls: urls::Config,
    /// The audit trail.
    pub audit: audit::Config,
    /// Recordings of terminals.
    pub recording: recording::Config,
    /// What is logged, to standard error.
    pub log: telemetry::Config,
}

/// Keys whose change is not applied by a reload, the whole section where a section is named.
const NEEDS_RESTART: &[&str] = &[
    "instance",
    "state_dir",
    "ssh.listen",
    "ssh.host_keys",
    "engine",
    "home.driver",
    "home.root",
    "backup",
    "http.listen",
    "http.api",
    "http.dashboard",
    "http.session_lifetime",
    "http.oidc",
    "urls",
    "audit",
    "recording",
    "log.format",
];

impl Settings {
    /// The keys that differ between the two and that only a restart applies.
    pub fn diff_needing_restart(old: &Self, new: &Self) -> Vec<&'static str> {
        let changed = Self::diff(old, new);
        let covers = |section: &str| changed.iter().any(|key| is_within(key, section));
        NEEDS_RESTART.iter().copied().filter(|section| covers(section)).collect()
    }

    /// The keys that differ between the two.
    pub fn diff(old: &Self, new: &Self) -> Vec<String> {
        let (old, new) = (old.flat(), new.flat());
        let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        keys.into_iter().filter(|key| old.get(*key) != new.get(*key)).cloned().collect()
    }

    /// The directory of the host keys.
    pub fn host_keys(&self) -> PathBuf {
        self.ssh.host_keys.clone().unwrap_or_else(|| self.state_dir.join("host_keys"))
    }

    /// The accounts file.
    pub fn accounts_file(&self) -> PathBuf {
        self.auth.accounts.file.clone().unwrap_or_else(|| self.state_dir.join("accounts.toml"))
    }

    /// The socket at which an administrator's commands reach the running gateway.
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir.join("admin.sock")
    }

    /// The directory of what links to workspaces are signed with.
    pub fn links(&self) -> PathBuf {
        self.state_dir.join("urls")
    }

    /// The directory of the audit trail.
    pub fn audit_trail(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// The directory of the recordings.
    pub fn recordings(&self) -> PathBuf {
        self.state_dir.join("recordings")
    }

    /// The directory of the homes.
    pub fn homes(&self) -> PathBuf {
        self.home.root.clone().unwrap_or_else(|| self.state_dir.join("homes"))
    }

    /// The directory of what containers' inits need from the host.
    pub fn inits(&self) -> PathBuf {
        self.state_dir.join("init")
    }

    /// Every value that is set, by its key; secrets too, so not for showing.
    fn flat(&self) -> BTreeMap<String, String> {
        fn descend(value: &serde_json::Value, key: String, into: &mut BTreeMap<String, String>) {
            match value {
                serde_json::Value::Object(fields) => {
                    for (name, value) in fields {
                        descend(value, if key.is_empty() { name.clone() } else { format!("{key}.{name}") }, into);
                    }
                }
                other => {
                    into.insert(key, other.to_string());
                }
            }
        }
        let mut flat = BTreeMap::new();
        descend(&serde_json::to_value(self).unwrap_or_default(), String::new(), &mut flat);
        for (key, secret) in self.secrets() {
            flat.extend(secret.map(|secret| (key.to_owned(), secret.expose_secret().to_owned())));
        }
        flat
    }

    /// Every path that is set, by its key.
    fn paths_mut(&mut self) -> Vec<(&'static str, &mut PathBuf)> {
        let webhook = &mut self.auth.webhook;
        let optional = [
            ("ssh.host_keys", &mut self.ssh.host_keys),
            ("auth.accounts.file", &mut self.auth.accounts.file),
            ("auth.webhook.token_file", &mut webhook.token_file),
            ("auth.webhook.ca_file", &mut webhook.ca_file),
            ("auth.webhook.client_cert_file", &mut webhook.client_cert_file),
            ("auth.webhook.client_key_file", &mut webhook.client_key_file),
            ("home.root", &mut self.home.root),
            ("urls.tls_cert", &mut self.urls.tls_cert),
            ("urls.tls_key", &mut self.urls.tls_key),
            ("http.oidc.client_secret_file", &mut self.http.oidc.client_secret_file),
            ("audit.webhook.secret_file", &mut self.audit.webhook.secret_file),
            ("backup.key_file", &mut self.backup.key_file),
            ("backup.s3.access_key_file", &mut self.backup.s3.access_key_file),
            ("backup.s3.secret_key_file", &mut self.backup.s3.secret_key_file),
            ("recording.key_file", &mut self.recording.key_file),
            ("recording.s3.access_key_file", &mut self.recording.s3.access_key_file),
            ("recording.s3.secret_key_file", &mut self.recording.s3.secret_key_file),
        ];
        let always = [("state_dir", &mut self.state_dir), ("engine.socket", &mut self.engine.socket)];
        let optional = optional.into_iter().filter_map(|(key, path)| Some((key, path.as_mut()?)));
        always.into_iter().chain(optional).collect()
    }

    /// Every secret, by its key.
    fn secrets(&self) -> [(&'static str, Option<&SecretString>); 9] {
        [
            ("auth.webhook.token", self.auth.webhook.token.as_ref()),
            ("http.oidc.client_secret", self.http.oidc.client_secret.as_ref()),
            ("audit.webhook.secret", self.audit.webhook.secret.as_ref()),
            ("backup.key", self.backup.key.as_ref()),
            ("backup.s3.access_key", self.backup.s3.access_key.as_ref()),
            ("backup.s3.secret_key", self.backup.s3.secret_key.as_ref()),
            ("recording.key", self.recording.key.as_ref()),
            ("recording.s3.access_key", self.recording.s3.access_key.as_ref()),
            ("recording.s3.secret_key", self.recording.s3.secret_key.as_ref()),
        ]
    }
}

impl Default for Settings {
    fn default() -> Self {
        #[allow(clippy::expect_used, reason = "a literal of the right form")]
        let instance = "main".parse().expect("an instance name");
        let pool = PoolConfig::default();
        Self {
            instance,
            state_dir: PathBuf::from("/var/lib/innkeeper"),
            ssh: ssh::Config::default(),
            session: ssh::SessionConfig::default(),
            auth: auth::Config::default(),
            engine: engine::Config::default(),
            template: BTreeMap::from([(default_template(), Template::default())]),
            home: home::Config::default(),
            backup: backup::Config::default(),
            idle: IdleConfig::default(),
            pool,
            limits: LimitsConfig::default(),
            capacity: CapacityConfig::default(),
            mounts: MountsConfig::default(),
            http: http::Config::default(),
            urls: urls::Config::default(),
            audit: audit::Config::default(),
            recording: recording::Config::default(),
            log: telemetry::Config::default(),
        }
    }
}

/// The name of the template that is always there.
fn default_template() -> TemplateName {
    #[allow(clippy::expect_used, reason = "a literal of the right form")]
    "default".parse().expect("a template name")
}

/// Whether `key` is `section` or a key in it.
fn is_within(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    #[test]
    fn what_changed_is_named_and_told_apart() {
        let old = Settings::default();
        let mut new = old.clone();
        new.idle.timeout = Span::secs(5);
        new.engine.socket = "/elsewhere".into();
        new.auth.webhook.token = Some("hunter2".to_owned().into());
        assert_eq!(Settings::diff(&old, &new), ["auth.webhook.token", "engine.socket", "idle.timeout"]);
        assert_eq!(Settings::diff_needing_restart(&old, &new), ["engine"]);
        assert!(Settings::diff(&new, &new).is_empty());
    }

    #[test]
    fn secrets_do_not_show() {
        let mut settings = Settings::default();
        settings.auth.webhook.token = Some("hunter2".to_owned().into());
        let shown = format!("{settings:?} {settings:#?} {}", serde_json::to_string(&settings).unwrap());
        assert!(!shown.contains("hunter2"));
        assert!(effective(&settings).contains("token = \"***\"") && !effective(&settings).contains("hunter2"));
    }
}
