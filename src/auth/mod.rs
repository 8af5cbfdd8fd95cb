//! Who may log in: the [`Authenticator`] trait and its implementations.
//!
//! This room answers a question about an account and a proof; it knows nothing of SSH packets, containers or workspaces' state.

pub mod accounts;
mod chain;
mod config;
mod grant;
pub mod webhook;

use std::net::SocketAddr;

pub use chain::{AuthSetupError, Authenticators};
pub use config::{AccountsConfig, Config, Method, WebhookConfig};
pub use grant::{EnvValue, Grant, LimitOverrides, Permit, VolumeLimits};

use crate::name::{AccountName, ConnectionId};

/// One try to log in, as far as it is the same for every method.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The name as typed.
    pub account: AccountName,
    /// The connection it came on.
    pub connection: ConnectionId,
    /// Who connected.
    pub remote: SocketAddr,
    /// The client's identification line, `SSH-2.0-OpenSSH_9.6`. Untrusted text.
    pub client_version: String,
}

/// A public key in `authorized_keys` form without a comment: `ssh-ed25519 AAAA…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OfferedKey(pub String);

/// What is known about who holds the key.
///
/// A client first *offers* a key, then signs with it; only the second proves anything. Mixing the two up is CVE-2024-45337.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyProof {
    /// The client asks whether this key would do. Whatever the answer, nobody is logged in by it.
    Offered,
    /// The client's signature with this key over this connection was verified.
    Verified,
}

/// What an authenticator says of an attempt.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// She may, and this is what she gets.
    Granted(Box<Grant>),
    /// No, or no such account: the two are not told apart.
    Denied,
}

/// Why there is no verdict. Never the user's fault: she reads that the login service cannot be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// No connection, or it broke.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// No whole answer within the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// An HTTP status that is not a verdict, a redirect included.
    #[error("answered with status {0}")]
    Status(u16),
    /// An answer longer than is read.
    #[error("answer too large")]
    TooLarge,
    /// An answer that is not of the protocol.
    #[error("answer not understood: {0}")]
    Garbage(String),
    /// The accounts file cannot be read or parsed.
    #[error("accounts file: {0}")]
    File(String),
}

impl AuthError {
    /// The value of the metric label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TimedOut => "timeout",
            Self::Status(_) => "bad_status",
            Self::TooLarge => "too_large",
            Self::Garbage(_) => "garbage",
            Self::File(_) => "accounts_file",
        }
    }
}

/// A way to find out who may log in.
#[async_trait::async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Its name in logs and metrics, as in `auth.methods`.
    fn name(&self) -> &'static str;

    /// Does this password open this account? Takes the same time for accounts that do not exist.
    async fn password(&self, attempt: &Attempt, password: &[u8]) -> Result<Verdict, AuthError>;

    /// Does this key open this account?
    async fn public_key(&self, attempt: &Attempt, key: &OfferedKey, proof: KeyProof) -> Result<Verdict, AuthError>;

    /// Could a verdict be had now? For `/readyz` and `innkeeper check --online`.
    async fn ready(&self) -> Result<(), AuthError>;
}
