//! The `[ssh]` and `[session]` sections.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::PublicAddress;
use crate::units::Span;

/// The SSH server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses to listen on.
    pub listen: Vec<String>,
    /// The name that people reach this by, with the port where that is another than the one that is listened on: `"ssh.example.org:22"`. It is what
    /// somebody who signs up is told. Not set: the name that the sign-up was sent to.
    pub public_address: Option<PublicAddress>,
    /// Directory of the host keys; an ed25519 key is made there on the first start. Default: `host_keys` in `state_dir`.
    pub host_keys: Option<PathBuf>,
    /// How long a login may take, from the accepted connection on.
    pub login_grace: Span,
    /// Failed tries on one connection before it is ended.
    pub max_auth_tries: usize,
    /// Connections that are not logged in yet, as sshd's `MaxStartups`: `start:rate:full`. From `start` on, `rate` percent of new ones
    /// are dropped, rising to all of them at `full`.
    pub max_startups: String,
    /// Connections that are not logged in yet from one source (an IPv4 address, an IPv6 /64).
    pub max_startups_per_source: usize,
    /// Connections at once from one source, logged in or not.
    pub max_connections_per_source: usize,
    /// Sessions at once on one connection.
    pub max_sessions: usize,
    /// Forwarded connections at once on one connection, of every kind together.
    pub max_forwards: usize,
    /// Places in the container at which one connection may listen at once (`-R`).
    pub max_listeners: usize,
    /// How often a silent client is asked whether it is still there.
    pub keepalive_interval: Span,
    /// Unanswered questions before it is taken for gone.
    pub keepalive_max: usize,
    /// How long sessions may go on after SIGTERM.
    pub drain_timeout: Span,
    /// Names of environment variables that a client may set; a `*` at the end matches any rest.
    pub accept_env: Vec<String>,
    /// Whether only post-quantum key exchange is offered (OpenSSH 9.9 and later can).
    pub post_quantum_only: bool,
}

/// Sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SessionConfig {
    /// For how long a terminal goes on whose client was lost: its connection broke, or was ended by the gateway. `0s`: not at all.
    /// Whoever closes her session ends it.
    pub keep_lost: Span,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self { keep_lost: Span::secs(30 * 60) }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec!["0.0.0.0:2200".to_owned()],
            public_address: None,
            host_keys: None,
            login_grace: Span::secs(30),
            max_auth_tries: 6,
            max_startups: "100:30:500".to_owned(),
            max_startups_per_source: 64,
            max_connections_per_source: 500,
            max_sessions: 100,
            max_forwards: 256,
            max_listeners: 32,
            keepalive_interval: Span::secs(30),
            keepalive_max: 3,
            drain_timeout: Span::secs(10),
            accept_env: ["LANG", "LC_*", "TERM", "COLORTERM", "GIT_PROTOCOL", "TZ", "NO_COLOR"].map(str::to_owned).to_vec(),
            post_quantum_only: false,
        }
    }
}
