//! The `[auth]` section.

use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::units::Span;

/// Who may log in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is asked, in this order, until one grants the login. `accounts`: the accounts file; `webhook`: an HTTP service.
    pub methods: Vec<Method>,
    /// The accounts file.
    pub accounts: AccountsConfig,
    /// The HTTP service.
    pub webhook: WebhookConfig,
}

/// A way to find out who may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The accounts file.
    Accounts,
    /// The HTTP service.
    Webhook,
}

/// The embedded default: accounts in a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountsConfig {
    /// The accounts file, edited with `innkeeper account`; picked up when it changes. Default: `accounts.toml` in `state_dir`.
    pub file: Option<PathBuf>,
}

/// An HTTP service that speaks the ContainerSSH webhook protocol.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Base address; `/password` and `/pubkey` are added to it.
    pub url: String,
    /// How long one try may take, until the whole answer is read. Tries are repeated inside `ssh.login_grace`.
    pub timeout: Span,
    /// Bearer token that proves the gateway to the service.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// File with the bearer token, instead of `token`.
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificate authorities that the service's certificate may be signed by, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the certificate that the gateway shows to the service (mTLS).
    pub client_cert_file: Option<PathBuf>,
    /// PEM file with the key of `client_cert_file`.
    pub client_key_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { methods: vec![Method::Accounts], accounts: AccountsConfig::default(), webhook: WebhookConfig::default() }
    }
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout: Span::secs(2),
            token: None,
            token_file: None,
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
        }
    }
}
