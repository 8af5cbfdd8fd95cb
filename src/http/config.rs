//! The `[http]` section.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dashboard::OidcConfig;
use crate::units::Span;

/// Health, metrics, the API and the dashboard over HTTP.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on; empty: none. Anybody who reaches it can read health and metrics. It speaks no TLS: put a proxy that does before it
    /// where tokens travel further than this host.
    pub listen: String,
    /// Whether `/api/v1` is served there, to who has a token. On the socket `admin.sock` in `state_dir` it always is, to who can open that.
    pub api: bool,
    /// Whether the dashboard is served there, at `/dashboard/`; it needs `api`. Whoever has a token logs in there.
    pub dashboard: bool,
    /// For how long somebody who has logged in at the dashboard need not again.
    pub session_lifetime: Span,
    /// Logging in at the dashboard through an OpenID Connect provider, beside tokens.
    pub oidc: OidcConfig,
    /// Whether `/metrics` says of each workspace that runs, by name, what it uses and may use, for how long it has been idle, and how often
    /// somebody logs in.
    pub container_metrics: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:2280".to_owned(),
            api: true,
            dashboard: true,
            session_lifetime: Span::secs(8 * 3600),
            oidc: OidcConfig::default(),
            container_metrics: true,
        }
    }
}
