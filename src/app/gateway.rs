//! What the API asks of the program as a whole.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::address::PublicAddress;
use crate::auth::Method;
use crate::config::{self, Settings};
use crate::engine::{self, Engine};
use crate::http::{EngineView, Gateway, Reloaded};
use crate::urls::{self, Links};

/// What is asked, and of whom.
pub(super) struct Asked {
    settings: ArcSwap<Settings>,
    engine: Arc<dyn Engine>,
    /// That of the engine above.
    engine_config: engine::Config,
    ssh_port: u16,
    links: Arc<Links>,
    /// Those that are in effect: another configuration of them takes a restart.
    urls: urls::Config,
    reloads: mpsc::Sender<Reply>,
}

/// To whom it is said what came of loading the configuration again.
type Reply = oneshot::Sender<Result<Reloaded, String>>;

/// Those who want it loaded again.
pub(super) type Reloads = mpsc::Receiver<Reply>;

/// How long the engine may take to answer, and the configuration to be loaded.
const DEADLINE: Duration = Duration::from_secs(10);

impl Asked {
    /// With what was loaded first.
    pub(super) fn new(settings: &Settings, engine: Arc<dyn Engine>, ssh_port: u16, links: Arc<Links>) -> (Self, Reloads) {
        let (reloads, wanted) = mpsc::channel(1);
        let (urls, engine_config) = (settings.urls.clone(), settings.engine.clone());
        (Self { settings: ArcSwap::from_pointee(settings.clone()), engine, engine_config, ssh_port, links, urls, reloads }, wanted)
    }

    /// Others are in effect now.
    pub(super) fn loaded(&self, settings: &Settings) {
        self.settings.store(Arc::new(settings.clone()));
    }
}

#[async_trait::async_trait]
impl Gateway for Asked {
    fn settings(&self) -> Value {
        toml::from_str(&config::effective(&self.settings.load())).unwrap_or_default()
    }

    async fn reload(&self) -> Result<Reloaded, String> {
        let (reply, outcome) = oneshot::channel();
        let asked = async {
            self.reloads.send(reply).await.ok()?;
            outcome.await.ok()
        };
        let outcome = tokio::time::timeout(DEADLINE, asked).await.ok().flatten();
        outcome.unwrap_or_else(|| Err("the gateway is starting or ending, and loads nothing".to_owned()))
    }

    async fn engines(&self) -> Vec<EngineView> {
        let versions = match tokio::time::timeout(DEADLINE, self.engine.version()).await {
            Ok(Ok(version)) => Ok((version.engine, version.api)),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        };
        // The one that was connected to: another takes a restart.
        let engine::Config { kind, socket, .. } = &self.engine_config;
        vec![EngineView { name: "local".to_owned(), kind: *kind, address: format!("unix://{}", socket.display()), versions }]
    }

    fn accounts_file(&self) -> Option<PathBuf> {
        let settings = self.settings.load();
        settings.auth.methods.contains(&Method::Accounts).then(|| settings.accounts_file())
    }

    fn urls(&self) -> urls::Config {
        self.urls.clone()
    }

    fn links(&self) -> Arc<Links> {
        Arc::clone(&self.links)
    }

    fn ssh_address(&self) -> (Option<PublicAddress>, u16) {
        (self.settings.load().ssh.public_address.clone(), self.ssh_port)
    }
}
