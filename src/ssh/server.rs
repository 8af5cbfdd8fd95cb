//! The server as a whole: built without binding anything, run on listeners it is given, drained when told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use russh::keys::PrivateKey;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Limits, MaxStartups};
use super::environment::AcceptEnv;
use super::leaving::MAX_KEPT;
use super::tasks::Tasks;
use super::{Config, HostKeyError, SessionConfig, host_keys, listener, protocol};
use crate::audit::Audit;
use crate::auth::Authenticator;
use crate::telemetry::Metrics;
use crate::workspace::Keeper;

/// How long connections may take to end after they were told to, beside `drain_timeout`.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// What a server is made from.
#[derive(Debug, Clone)]
pub struct SshSettings {
    /// The `[ssh]` section.
    pub config: Config,
    /// The `[session]` section.
    pub session: SessionConfig,
    /// The directory of the host keys: `config.host_keys`, or where that is by default.
    pub host_keys: PathBuf,
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The host keys cannot be used.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// A setting cannot be used.
    #[error("ssh.{key}: {problem}")]
    Setting {
        /// The key within the section.
        key: &'static str,
        /// What is wrong with it, and how to write it.
        problem: String,
    },
}

/// The SSH server. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What all connections share.
pub(super) struct Shared {
    /// What new connections get; replaced as a whole by a reload.
    pub(super) live: ArcSwap<Live>,
    pub(super) authenticator: Arc<dyn Authenticator>,
    pub(super) keeper: Arc<dyn Keeper>,
    pub(super) metrics: Metrics,
    pub(super) audit: Audit,
    pub(super) admission: Arc<Admission>,
    pub(super) tasks: Tasks,
    /// Cancelled when the server is to end.
    pub(super) draining: CancellationToken,
    /// Whether the last question to the authenticator had no verdict.
    pub(super) login_service_down: AtomicBool,
    /// One permit for each workspace that may be kept running for a terminal that was left in it.
    pub(super) kept: Arc<Semaphore>,
}

/// The configuration in use, parsed.
pub(super) struct Live {
    pub(super) config: Config,
    pub(super) session: SessionConfig,
    pub(super) limits: Limits,
    pub(super) accept_env: AcceptEnv,
    pub(super) protocol: Arc<russh::server::Config>,
    keys: Vec<PrivateKey>,
}

// === impl Server ===

impl Server {
    /// Reads or makes the host keys and checks the settings. Binds nothing.
    pub fn new(
        settings: SshSettings,
        authenticator: Arc<dyn Authenticator>,
        keeper: Arc<dyn Keeper>,
        metrics: Metrics,
        audit: Audit,
    ) -> Result<Self, SshError> {
        check(&settings.config)?;
        let keys = host_keys::load_or_make(&settings.host_keys)?;
        Ok(Self {
            shared: Arc::new(Shared {
                live: ArcSwap::from_pointee(Live::new(settings.config, settings.session, keys)?),
                authenticator,
                keeper,
                admission: Arc::new(Admission::new(metrics.clone())),
                tasks: Tasks::new(metrics.clone()),
                metrics,
                audit,
                draining: CancellationToken::new(),
                login_service_down: AtomicBool::new(false),
                kept: Arc::new(Semaphore::new(MAX_KEPT)),
            }),
        })
    }

    /// Uses another configuration for connections that are made from now on. `listen` and `host_keys` stay as they are until a restart.
    pub fn reload(&self, config: Config, session: SessionConfig) -> Result<(), SshError> {
        let live = Live::new(config, session, self.shared.live.load().keys.clone())?;
        self.shared.live.store(Arc::new(live));
        Ok(())
    }

    /// Serves until `shutdown`, then drains: nothing new is accepted, people are told, sessions may go on for `drain_timeout`, and then the
    /// connections are ended. Returns when all are gone.
    pub async fn run(&self, listeners: Vec<TcpListener>, shutdown: CancellationToken) {
        let shared = &self.shared;
        for listener in listeners {
            let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
            tracing::info!(%address, "ssh listening");
            let accepting = listener::accept(shared.clone(), listener);
            let until = shared.draining.clone();
            shared.tasks.spawn(tracing::info_span!("listener", %address), async move {
                until.run_until_cancelled(accepting).await;
            });
        }
        shutdown.cancelled().await;
        let drain = shared.live.load().config.drain_timeout.get();
        shared.draining.cancel();
        tracing::info!(within = ?drain, "ssh draining");
        match tokio::time::timeout(drain + LAST_WORDS, shared.tasks.ended()).await {
            Ok(()) => tracing::info!("ssh drained"),
            Err(_) => tracing::warn!("ssh connections left that would not end"),
        }
    }
}

// === impl Live ===

impl Live {
    fn new(config: Config, session: SessionConfig, keys: Vec<PrivateKey>) -> Result<Self, SshError> {
        let startups = check(&config)?;
        Ok(Self {
            limits: Limits { startups, startups_per_source: config.max_startups_per_source, per_source: config.max_connections_per_source },
            accept_env: AcceptEnv::new(&config.accept_env),
            protocol: Arc::new(protocol::configuration(&config, keys.clone())),
            config,
            session,
            keys,
        })
    }
}

fn check(config: &Config) -> Result<MaxStartups, SshError> {
    for (key, value) in [
        ("max_auth_tries", config.max_auth_tries),
        ("max_sessions", config.max_sessions),
        ("max_forwards", config.max_forwards),
        ("max_listeners", config.max_listeners),
        ("max_startups_per_source", config.max_startups_per_source),
        ("max_connections_per_source", config.max_connections_per_source),
    ] {
        if !(1..=1_000_000).contains(&value) {
            return Err(SshError::Setting { key, problem: format!("{value} is not a number from 1 to 1000000") });
        }
    }
    let startups = &config.max_startups;
    startups.parse().map_err(|problem| SshError::Setting { key: "max_startups", problem: format!("{startups:?} {problem}") })
}
