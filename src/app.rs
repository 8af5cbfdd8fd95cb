//! Wires everything: builds the rooms from the settings, runs them on bound sockets, reloads, and drains.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::attach::exec::ExecAttach;
use crate::auth::{Attempt, AuthError, Authenticator, Authenticators, KeyProof, OfferedKey, Verdict};
use crate::config::{Loaded, Settings};
use crate::engine::docker::Docker;
use crate::engine::{Engine, Usage};
use crate::home::{Homes, Slots};
use crate::http;
use crate::http::Pages;
use crate::name::TemplateName;
use crate::ssh::{self, SshSettings};
use crate::store::Store;
use crate::telemetry::{self, ContainerUsage, Log, Metrics, Outcome, Probe};
use crate::workspace::{Directory, Parts, Rules, Template};

/// How long the engine may take to answer at start-up before it is said not to be there.
const ENGINE_DEADLINE: Duration = Duration::from_secs(10);
/// How often, and after what pause, `clean` looks for what there still is to remove.
const CLEAN_LOOKS: u32 = 4;
const CLEAN_AGAIN: Duration = Duration::from_secs(1);
/// Connections that the kernel holds for us while we are busy accepting others.
const BACKLOG: u32 = 1024;

/// A gateway that has everything it needs and has bound nothing.
struct App {
    settings: Settings,
    metrics: Metrics,
    auth: Arc<Reloadable>,
    directory: Directory,
    ssh: ssh::Server,
    engine: Arc<dyn Engine>,
    /// Held while this process may change what is in the state directory.
    _lock: File,
}

/// The authenticators in use, replaced as a whole by a reload.
struct Reloadable(ArcSwap<Authenticators>);

/// Serves until it is told to stop.
pub async fn serve(loaded: Loaded, log: Log) -> anyhow::Result<()> {
    raise_open_files();
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let app = App::build(&loaded.settings)?;
    let listeners = app.bind()?;
    app.check_engine().await?;

    let tasks = TaskTracker::new();
    let (stop_ssh, stop_rest) = (CancellationToken::new(), CancellationToken::new());
    let (ssh, directory) = (app.ssh.clone(), app.directory.clone());
    let ssh_stops = stop_ssh.clone();
    let serving = tokio::spawn(async move { ssh.run(listeners.ssh, ssh_stops).await });
    let directory_stops = stop_rest.clone();
    tasks.spawn(async move { directory.run(directory_stops).await });
    if let Some(listener) = listeners.http {
        tasks.spawn(http::serve(listener, app.pages(), stop_rest.clone()));
    }
    tasks.close();
    info!(version = env!("CARGO_PKG_VERSION"), instance = %app.settings.instance, "serving");

    app.reload_until_told(loaded, &log, &mut hangup, [&mut terminate, &mut interrupt]).await;
    let within = app.settings.ssh.drain_timeout.get();
    app.directory.drain(within);
    stop_ssh.cancel();
    tokio::select! {
        _ = serving => {}
        () = any([&mut terminate, &mut interrupt]) => warn!("told to stop again, not waiting for sessions"),
    }
    stop_rest.cancel();
    tasks.wait().await;
    info!("stopped; containers go on");
    Ok(())
}

/// Removes every container, network and mount of the instance. Homes stay.
pub async fn clean(settings: &Settings) -> anyhow::Result<()> {
    let _lock = lock(&settings.state_dir)?;
    let engine = Docker::connect(&settings.engine, &settings.instance)?;
    for look in 1..=CLEAN_LOOKS {
        // The engine waits ten seconds for a container with hundreds of processes to die, and then says that it did not. The next time it has.
        let removed = engine.remove_everything().await;
        if look == CLEAN_LOOKS {
            removed.context("removing containers and networks")?;
            break;
        }
        // What a gateway that was killed had asked for may be made only now.
        tokio::time::sleep(CLEAN_AGAIN).await;
        if removed.is_ok() && engine.list().await.is_ok_and(|left| left.is_empty()) {
            break;
        }
    }
    let dir = settings.state_dir.join("slots");
    if !dir.exists() {
        return Ok(());
    }
    let slots = Slots::open(&dir)?;
    for id in slots.unheld()? {
        if let Some(slot) = slots.adopt(id) {
            slot.remove()?;
        }
    }
    slots.close()?;
    Ok(())
}

/// Whether what the gateway would serve with is there: the engine, the images, the login services.
pub fn probes(settings: &Settings) -> anyhow::Result<Vec<Probe>> {
    let engine: Arc<dyn Engine> = Arc::new(Docker::connect(&settings.engine, &settings.instance)?);
    let auth = Arc::new(authenticators(settings, Metrics::new()?)?);
    let mut probes = vec![engine_probe(Arc::clone(&engine)), auth_probe(auth)];
    for (name, template) in &settings.template {
        let (engine, image) = (Arc::clone(&engine), template.image.clone());
        probes.push(Probe::new(format!("template.{name}.image"), move || {
            let (engine, image) = (Arc::clone(&engine), image.clone());
            async move {
                match engine.image(&image).await {
                    Ok(Some(_)) => Outcome::Fine(format!("{image} is here")),
                    Ok(None) => Outcome::Doubtful(format!("{image} is not here; it is pulled when the gateway starts")),
                    Err(why) => Outcome::Failed(why.to_string()),
                }
            }
        }));
    }
    Ok(probes)
}

// === impl App ===

/// The sockets that a gateway serves on.
struct Listeners {
    ssh: Vec<TcpListener>,
    http: Option<TcpListener>,
}

impl App {
    fn build(settings: &Settings) -> anyhow::Result<Self> {
        let metrics = Metrics::new()?;
        telemetry::count_panics(metrics.panics.clone());
        let lock = lock(&settings.state_dir)?;
        let engine: Arc<dyn Engine> = Arc::new(Docker::connect(&settings.engine, &settings.instance)?);
        let slots = Slots::open(&settings.state_dir.join("slots")).unwrap_or_else(|why| {
            warn!(%why, "nothing can be mounted: homes are bound when a container is made, and there is no pool");
            Slots::without_mounts()
        });
        let parts = Parts {
            attach: Arc::new(ExecAttach::new(Arc::clone(&engine), Template::default().home)),
            engine: Arc::clone(&engine),
            homes: Homes::open(&settings.homes()).context("home.root: must be a directory that this program may write to")?,
            slots,
            store: Store::open(&settings.state_dir.join("innkeeper.db"))?,
            metrics: metrics.clone(),
        };
        let directory = Directory::new(parts, rules(settings));
        let auth = Arc::new(Reloadable(ArcSwap::from_pointee(authenticators(settings, metrics.clone())?)));
        let ssh_settings = SshSettings { config: settings.ssh.clone(), host_keys: settings.host_keys() };
        let ssh = ssh::Server::new(ssh_settings, auth.clone(), Arc::new(directory.clone()), metrics.clone())?;
        Ok(Self { settings: settings.clone(), metrics, auth, directory, ssh, engine, _lock: lock })
    }

    fn bind(&self) -> anyhow::Result<Listeners> {
        let ssh = self.settings.ssh.listen.iter().map(|address| bind("ssh.listen", address)).collect::<Result<_, _>>()?;
        let http = &self.settings.http.listen;
        let http = if http.is_empty() { None } else { Some(bind("http.listen", http)?) };
        if let Some(listener) = &http {
            info!(address = %listener.local_addr()?, "http listening");
        }
        Ok(Listeners { ssh, http })
    }

    /// The engine is there, and has every image or can get it.
    async fn check_engine(&self) -> anyhow::Result<()> {
        let socket = self.settings.engine.socket.display();
        let version = tokio::time::timeout(ENGINE_DEADLINE, self.engine.version()).await;
        let version = version
            .map_err(anyhow::Error::from)
            .and_then(|answer| Ok(answer?))
            .with_context(|| format!("engine.socket {socket}: no engine answers; start it, or name its socket"))?;
        info!(engine = version.engine, api = version.api, "engine answers");
        for (name, template) in &self.settings.template {
            let image = &template.image;
            if self.engine.image(image).await?.is_none() {
                info!(template = %name, image, "image is not here, pulling it");
                let told = |line: String| info!(image, line, "pulling");
                let pulled = self.engine.pull(image, &told).await;
                let mend = || format!("template.{name}.image {image}: neither here nor to be pulled; build it, or name another");
                match pulled.with_context(mend) {
                    Ok(_) => {}
                    Err(why) if *name == TemplateName::default() => return Err(why),
                    // The others can be served meanwhile, and each login tries again.
                    Err(why) => error!(why = with_causes(&why), "a template cannot be used"),
                }
            }
        }
        Ok(())
    }

    fn pages(&self) -> Pages {
        let directory = self.directory.clone();
        let open = Probe::new("open", move || {
            let draining = directory.is_draining();
            std::future::ready(if draining { Outcome::Failed("draining".to_owned()) } else { Outcome::Fine(String::new()) })
        });
        let probes = vec![open, engine_probe(Arc::clone(&self.engine)), auth_probe(self.auth.clone())];
        let pages = Pages::new(self.metrics.clone(), probes);
        if !self.settings.http.container_metrics {
            return pages;
        }
        let (directory, containers) = (self.directory.clone(), self.metrics.container_usage.clone());
        pages.refreshing(move || {
            let (directory, containers) = (directory.clone(), containers.clone());
            Box::pin(async move {
                let usages = directory.usage().await;
                let names: Vec<&str> = usages.iter().map(|(name, _)| name.as_str()).collect();
                containers.retain(&names);
                usages.iter().for_each(|(name, usage)| containers.set(name.as_str(), figures(usage)));
            })
        })
    }

    /// Applies a changed configuration at each SIGHUP; returns when told to stop.
    async fn reload_until_told(&self, mut current: Loaded, log: &Log, hangup: &mut Signal, stop: [&mut Signal; 2]) {
        let told = any(stop);
        tokio::pin!(told);
        loop {
            tokio::select! {
                () = &mut told => return,
                _ = hangup.recv() => {}
            }
            let applied = current.reload().map_err(anyhow::Error::from).and_then(|reload| {
                self.apply(&reload.loaded.settings, log)?;
                Ok(reload)
            });
            match applied {
                Ok(reload) => {
                    self.metrics.reloads.with_label_values(&["applied"]).inc();
                    info!(changed = ?reload.changed, "configuration applied");
                    if !reload.needs_restart.is_empty() {
                        warn!(keys = ?reload.needs_restart, "changed, and applied only by a restart");
                    }
                    current = reload.loaded;
                }
                Err(why) => {
                    self.metrics.reloads.with_label_values(&["refused"]).inc();
                    error!(why = with_causes(&why), "configuration refused, going on with the one before");
                }
            }
        }
    }

    /// What can fail comes first, so that a refused configuration has changed nothing.
    fn apply(&self, settings: &Settings, log: &Log) -> anyhow::Result<()> {
        let auth = authenticators(settings, self.metrics.clone())?;
        self.ssh.reload(settings.ssh.clone())?;
        log.set_filter(&settings.log.filter)?;
        self.auth.0.store(Arc::new(auth));
        let mut rules = rules(settings);
        rules.instance = self.settings.instance.clone();
        self.directory.reload(rules);
        Ok(())
    }
}

fn rules(settings: &Settings) -> Rules {
    Rules {
        instance: settings.instance.clone(),
        idle: settings.idle.clone(),
        pool: settings.pool.clone(),
        limits: settings.limits.clone(),
        templates: settings.template.clone(),
    }
}

fn authenticators(settings: &Settings, metrics: Metrics) -> anyhow::Result<Authenticators> {
    Ok(Authenticators::new(&settings.auth, &settings.accounts_file(), settings.ssh.login_grace.get(), metrics)?)
}

fn engine_probe(engine: Arc<dyn Engine>) -> Probe {
    Probe::new("engine", move || {
        let engine = Arc::clone(&engine);
        async move {
            match engine.version().await {
                Ok(version) => Outcome::Fine(format!("version {}, API {}", version.engine, version.api)),
                Err(why) => Outcome::Failed(why.to_string()),
            }
        }
    })
}

fn auth_probe(auth: Arc<dyn Authenticator>) -> Probe {
    Probe::new("auth", move || {
        let auth = Arc::clone(&auth);
        async move {
            match auth.ready().await {
                Ok(()) => Outcome::Fine("answers".to_owned()),
                Err(why) => Outcome::Failed(why.to_string()),
            }
        }
    })
}

fn figures(usage: &Usage) -> ContainerUsage {
    ContainerUsage {
        cpu_seconds: usage.cpu.as_secs_f64(),
        memory_bytes: usage.memory,
        network_bytes: usage.network,
        block_bytes: usage.block,
        pids: usage.pids,
    }
}

/// Makes the state directory, and sees to it that this is the only process that works in it.
fn lock(state_dir: &Path) -> anyhow::Result<File> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let named = || format!("state_dir {}: must be a directory that this program may write to", state_dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).with_context(named)?;
    let path = state_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path).with_context(named)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "state_dir {}: another gateway works here; stop it, or give this one a directory and an instance of its own",
            state_dir.display()
        );
    }
    Ok(file)
}

/// An error and its causes, each said once: many an error quotes its cause already.
pub fn with_causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|text, cause| if text.ends_with(&cause) { text } else { format!("{text}: {cause}") })
        .unwrap_or_default()
}

fn bind(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    let named = || format!("{key} {address}: cannot listen; stop what does (ss -tlnp), or choose another address");
    let parsed: SocketAddr = address.parse().with_context(named)?;
    let socket = if parsed.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.with_context(named)?;
    socket.set_reuseaddr(true).with_context(named)?;
    socket.bind(parsed).with_context(named)?;
    socket.listen(BACKLOG).with_context(named)
}

/// Each session has several descriptors, and the usual soft limit is meant for programs that use select(2).
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(why) = setrlimit(Resource::Nofile, raised) {
        warn!(%why, "cannot raise the limit of open files");
    }
}

async fn any(signals: [&mut Signal; 2]) {
    let [one, other] = signals;
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

#[async_trait::async_trait]
impl Authenticator for Reloadable {
    fn name(&self) -> &'static str {
        "configured"
    }

    async fn password(&self, attempt: &Attempt, password: &[u8]) -> Result<Verdict, AuthError> {
        self.0.load_full().password(attempt, password).await
    }

    async fn public_key(&self, attempt: &Attempt, key: &OfferedKey, proof: KeyProof) -> Result<Verdict, AuthError> {
        self.0.load_full().public_key(attempt, key, proof).await
    }

    async fn ready(&self) -> Result<(), AuthError> {
        self.0.load_full().ready().await
    }
}
