//! Wires everything: builds the rooms from the settings, runs them on bound sockets, reloads, and drains.

mod gateway;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::gateway::{Asked, Reloads};
use crate::attach::exec::ExecAttach;
use crate::attach::init::InitAttach;
use crate::attach::{self, Ways};
use crate::audit::{self, Actor, Audit, What};
use crate::auth::accounts::{self, Account};
use crate::auth::{Attempt, AuthError, Authenticator, Authenticators, KeyProof, Method, OfferedKey, Verdict};
use crate::backup::{self, Backups, Scheduler};
use crate::bucket::{self, Bucket};
use crate::config::{Loaded, Settings};
use crate::engine::Engine;
use crate::engine::docker::Docker;
use crate::home::{DriverKind, Fence, Homes, Slots};
use crate::http;
use crate::http::{Pages, Reloaded};
use crate::name::{AccountName, TemplateName, WorkspaceName};
use crate::recording::Recordings;
use crate::ssh::{self, SshSettings};
use crate::store::{Ballast, Store};
use crate::telemetry::{self, Log, Metrics, Outcome, Probe};
use crate::urls::{self, Fixed, Links, Target};
use crate::workspace::{Apart, Directory, Disks, Parts, Rules, Template};

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
    audit: Audit,
    links: Arc<Links>,
    auth: Arc<Reloadable>,
    directory: Directory,
    backups: Option<Backups>,
    recordings: Recordings,
    ssh: ssh::Server,
    engine: Arc<dyn Engine>,
    store: Store,
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
    let ssh_port = listeners.ssh.first().and_then(|listener| listener.local_addr().ok()).map_or(22, |address| address.port());
    app.check_engine().await?;

    let tasks = TaskTracker::new();
    let (stop_ssh, stop_rest) = (CancellationToken::new(), CancellationToken::new());
    let (ssh, directory) = (app.ssh.clone(), app.directory.clone());
    let ssh_stops = stop_ssh.clone();
    let serving = tokio::spawn(async move { ssh.run(listeners.ssh, ssh_stops).await });
    let directory_stops = stop_rest.clone();
    tasks.spawn(async move { directory.run(directory_stops).await });
    let (asked, reloads) = Asked::new(&app.settings, Arc::clone(&app.engine), ssh_port, Arc::clone(&app.links));
    let asked = Arc::new(asked);
    let directory = Arc::new(app.directory.clone());
    let mut api = http::Api::new(directory.clone(), directory, asked.clone(), app.store.clone(), app.recordings.clone(), app.audit.clone());
    if app.settings.http.dashboard {
        api = api.with_dashboard(app.settings.http.session_lifetime.get());
    }
    let api = Arc::new(api);
    if let Some(listener) = listeners.http {
        let api = app.settings.http.api.then(|| Arc::clone(&api));
        let oidc = http::Oidc::new(&app.settings.http.oidc).map_err(anyhow::Error::msg)?;
        tasks.spawn(http::serve(listener, app.pages(), api, oidc, stop_rest.clone()));
    }
    if let Some(listener) = listeners.admin {
        tasks.spawn(http::serve_admin(listener, api, stop_rest.clone()));
    }
    let _threads = match app.urls()? {
        Some(server) => {
            let threads = Threads::of_urls()?;
            let serving = threads.spawn(urls::serve(server, listeners.urls, stop_rest.clone()));
            tasks.spawn(async move { drop(serving.await) });
            Some(threads)
        }
        None => None,
    };
    if !app.settings.audit.webhook.url.is_empty() {
        let (config, root, metrics) = (app.settings.audit.webhook.clone(), app.settings.audit_trail(), app.metrics.clone());
        let stops = stop_rest.clone();
        tasks.spawn(async move { audit::run_webhook(config, &root, metrics, stops).await });
    }
    if let Some(scheduler) = app.scheduler() {
        tasks.spawn(scheduler.run(stop_rest.clone()));
    }
    tasks.close();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    app.audit.record(audit::Event::now(Actor::Gateway, What::GatewayStarted { version }));
    info!(version = env!("CARGO_PKG_VERSION"), instance = %app.settings.instance, "serving");

    app.reload_until_told(loaded, &log, (&mut hangup, reloads, &asked), [&mut terminate, &mut interrupt]).await;
    let within = app.settings.ssh.drain_timeout.get();
    app.directory.drain(within);
    stop_ssh.cancel();
    tokio::select! {
        _ = serving => {}
        () = any([&mut terminate, &mut interrupt]) => warn!("told to stop again, not waiting for sessions"),
    }
    stop_rest.cancel();
    tasks.wait().await;
    app.recordings.close();
    app.audit.record(audit::Event::now(Actor::Gateway, What::GatewayStopped {}));
    app.audit.close();
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
    let inits = settings.inits();
    attach::init::clean(&inits).with_context(|| format!("removing {}", inits.display()))?;
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
    // After the slots, through which homes may be in use.
    if settings.homes().exists() {
        open_homes(settings)?.close()?;
    }
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
    let backups = if let Ok(Some(backup::Target::S3(location))) = settings.backup.target() { Some(location) } else { None };
    let recordings = settings.recording.target().ok().flatten();
    for (name, section, config, location) in [
        ("backup.target", "backup.s3", &settings.backup.s3, backups),
        ("recording.target", "recording.s3", &settings.recording.s3, recordings),
    ] {
        probes.extend(location.map(|location| bucket_probe(name, section, config, location)));
    }
    Ok(probes)
}

fn bucket_probe(name: &str, section: &'static str, config: &bucket::Config, location: bucket::Location) -> Probe {
    let place = bucket::Place::new(config, location, section);
    Probe::new(name, move || {
        let place = place.clone();
        async move {
            let looked = match place.map(|place| Bucket::new(&place, section)) {
                Ok(Ok(bucket)) => bucket.look().await.map(|()| bucket.location()).map_err(|why| why.to_string()),
                Ok(Err(why)) => Err(why.to_string()),
                Err(why) => Err(why),
            };
            looked.map_or_else(Outcome::Failed, |location| Outcome::Fine(format!("{location} answers")))
        }
    })
}

// === impl App ===

/// Threads of their own for something.
struct Threads(Option<Runtime>);

impl Threads {
    /// Requests to workspaces have half as many as there are processors: a flood of them holds up no shell, and the applications and whoever
    /// asks have the rest. Where there are two processors, one thread passes on as many as two, which only wake each other.
    fn of_urls() -> anyhow::Result<Self> {
        let processors = std::thread::available_parallelism().map_or(2, |all| all.get());
        let runtime = runtime::Builder::new_multi_thread().worker_threads((processors / 2).max(1)).thread_name("urls").enable_all().build();
        Ok(Self(Some(runtime.context("cannot start the threads of workspace URLs")?)))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waited for by nobody here: no thread of a runtime may.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The sockets that a gateway serves on.
struct Listeners {
    ssh: Vec<TcpListener>,
    http: Option<TcpListener>,
    admin: Option<UnixListener>,
    urls: Vec<urls::Entry>,
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
        let home = Template::default().home;
        let init = InitAttach::open(Arc::clone(&engine), &settings.inits(), home.clone())
            .with_context(|| format!("state_dir {}: what containers need cannot be put there", settings.state_dir.display()))?;
        let audit = Audit::open(&settings.audit, &settings.audit_trail(), &metrics)?;
        let links = Arc::new(Links::open(&settings.links())?);
        let backups = open_backups(settings)?;
        let floor = settings.limits.disk_floor.get();
        let recordings = Recordings::open(&settings.recording, &settings.recordings(), floor, &metrics, audit.clone())?;
        let ballast = Arc::new(Ballast::new(settings.state_dir.join("reserve")));
        let store = Store::open_with(&settings.state_dir.join("innkeeper.db"), Some(Arc::clone(&ballast)))?;
        let parts = Parts {
            attach: Arc::new(Ways { init, exec: ExecAttach::new(Arc::clone(&engine), home) }),
            engine: Arc::clone(&engine),
            homes: open_homes(settings)?,
            slots,
            store: store.clone(),
            disks: Disks { state: settings.state_dir.clone(), homes: settings.homes(), ballast: Some(ballast) },
            backups: backups.clone(),
            recordings: recordings.clone(),
            metrics: metrics.clone(),
            audit: audit.clone(),
            deleted: {
                let links = Arc::clone(&links);
                let accounts = settings.auth.methods.contains(&Method::Accounts).then(|| settings.accounts_file());
                Box::new(move |name| {
                    let links = links.revoke(name).unwrap_or_else(|why| {
                        error!(workspace = %name, %why, "links to it are not taken back");
                        0
                    });
                    Apart { links, accounts: accounts.as_deref().map(|file| landing_in(name, file)).unwrap_or_default() }
                })
            },
        };
        let directory = Directory::new(parts, rules(settings));
        let auth = Arc::new(Reloadable(ArcSwap::from_pointee(authenticators(settings, metrics.clone())?)));
        let ssh_settings = SshSettings { config: settings.ssh.clone(), session: settings.session.clone(), host_keys: settings.host_keys() };
        let ssh = ssh::Server::new(ssh_settings, auth.clone(), Arc::new(directory.clone()), metrics.clone(), audit.clone())?;
        Ok(Self {
            settings: settings.clone(),
            metrics,
            audit,
            links,
            auth,
            directory,
            backups,
            recordings,
            ssh,
            engine,
            store,
            _lock: lock,
        })
    }

    fn bind(&self) -> anyhow::Result<Listeners> {
        let ssh = self.settings.ssh.listen.iter().map(|address| bind("ssh.listen", address)).collect::<Result<_, _>>()?;
        let http = &self.settings.http.listen;
        let http = if http.is_empty() { None } else { Some(bind("http.listen", http)?) };
        if let Some(listener) = &http {
            info!(address = %listener.local_addr()?, "http listening");
        }
        let path = self.settings.admin_socket();
        // A path may be too long for a socket, and nobody who logs in needs this one.
        let admin =
            http::listen_for_admin(&path).map_err(|why| warn!(path = %path.display(), %why, "`innkeeper workspace` cannot be answered"));
        Ok(Listeners { ssh, http, admin: admin.ok(), urls: self.bind_urls()? })
    }

    fn bind_urls(&self) -> anyhow::Result<Vec<urls::Entry>> {
        let config = &self.settings.urls;
        let mut all = Vec::new();
        if !config.listen.is_empty() {
            all.push((bind("urls.listen", &config.listen)?.into_std()?, None));
        }
        for Fixed { listen, workspace, port, public } in &config.fixed {
            let target = Target { workspace: workspace.clone(), port: *port };
            all.push((bind("urls.fixed", listen)?.into_std()?, Some((target, *public))));
        }
        for (listener, _) in &all {
            info!(address = %listener.local_addr()?, "workspaces listening");
        }
        Ok(all)
    }

    /// What serves workspaces by HTTP, where that is on.
    fn urls(&self) -> anyhow::Result<Option<urls::Server>> {
        if !self.settings.urls.is_on() {
            return Ok(None);
        }
        let keeper = Arc::new(self.directory.clone());
        let server =
            urls::Server::new(self.settings.urls.clone(), Arc::clone(&self.links), keeper, self.metrics.clone(), self.audit.clone());
        Ok(Some(server.context("urls.tls_cert")?))
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

    /// What makes backups by itself, if anything does.
    fn scheduler(&self) -> Option<Scheduler> {
        let (every, verify_every) = (self.settings.backup.every.get(), self.settings.backup.verify_every.get());
        let homes = Arc::new(self.directory.clone());
        let backups = self.backups.clone().filter(|_| !every.is_zero() || !verify_every.is_zero())?;
        Some(Scheduler { backups, homes, every, verify_every, metrics: self.metrics.clone() })
    }

    fn pages(&self) -> Pages {
        let directory = self.directory.clone();
        let open = Probe::new("open", move || {
            let draining = directory.is_draining();
            std::future::ready(if draining { Outcome::Failed("draining".to_owned()) } else { Outcome::Fine(String::new()) })
        });
        let probes = vec![open, engine_probe(Arc::clone(&self.engine)), auth_probe(self.auth.clone())];
        let directory = self.directory.clone();
        let container_metrics = self.settings.http.container_metrics;
        Pages::new(self.metrics.clone(), probes).refreshing(move || {
            let directory = directory.clone();
            Box::pin(async move {
                directory.count_services();
                if container_metrics {
                    directory.count_running().await;
                }
            })
        })
    }

    /// Applies a changed configuration at each SIGHUP and when it is asked for; returns when told to stop.
    async fn reload_until_told(
        &self,
        mut current: Loaded,
        log: &Log,
        (hangup, mut asked, gateway): (&mut Signal, Reloads, &Asked),
        stop: [&mut Signal; 2],
    ) {
        let told = any(stop);
        tokio::pin!(told);
        loop {
            let reply = tokio::select! {
                () = &mut told => return,
                _ = hangup.recv() => None,
                reply = asked.recv() => reply,
            };
            let applied = current.reload().map_err(anyhow::Error::from).and_then(|reload| {
                self.apply(&reload.loaded.settings, log)?;
                Ok(reload)
            });
            let outcome = match applied {
                Ok(reload) => {
                    self.metrics.reloads.with_label_values(&["applied"]).inc();
                    info!(changed = ?reload.changed, "configuration applied");
                    let keys = reload.changed.iter().map(ToString::to_string).collect();
                    self.audit.record(audit::Event::now(Actor::Host, What::Reloaded { keys }));
                    if !reload.needs_restart.is_empty() {
                        warn!(keys = ?reload.needs_restart, "changed, and applied only by a restart");
                    }
                    current = reload.loaded;
                    gateway.loaded(&current.settings);
                    let needs_restart = reload.needs_restart.iter().map(|key| (*key).to_owned()).collect();
                    Ok(Reloaded { changed: reload.changed, needs_restart })
                }
                Err(why) => {
                    self.metrics.reloads.with_label_values(&["refused"]).inc();
                    let why = with_causes(&why);
                    error!(why, "configuration refused, going on with the one before");
                    Err(why)
                }
            };
            // Whoever asked may have hung up.
            reply.map(|reply| reply.send(outcome));
        }
    }

    /// What can fail comes first, so that a refused configuration has changed nothing.
    fn apply(&self, settings: &Settings, log: &Log) -> anyhow::Result<()> {
        let auth = authenticators(settings, self.metrics.clone())?;
        self.ssh.reload(settings.ssh.clone(), settings.session.clone())?;
        log.set_filter(&settings.log.filter)?;
        self.auth.0.store(Arc::new(auth));
        let mut rules = rules(settings);
        rules.instance = self.settings.instance.clone();
        // Where they are changes at a restart only; what is there now is what is off limits.
        rules.fence.off_limits = self::rules(&self.settings).fence.off_limits;
        self.recordings.set_floor(settings.limits.disk_floor.get());
        self.directory.reload(rules);
        Ok(())
    }
}

fn open_homes(settings: &Settings) -> anyhow::Result<Homes> {
    let mend = match settings.home.driver {
        DriverKind::Directory => "home.root: must be a directory that this program may write to",
        DriverKind::Loop | DriverKind::Btrfs | DriverKind::Xfs => {
            "home.driver: homes cannot be kept like this here; see `innkeeper check --online`"
        }
    };
    Homes::open(&settings.homes(), settings.home.driver).context(mend)
}

/// Where backups go. What is needed again of a target that is far away is kept in the state directory.
fn open_backups(settings: &Settings) -> anyhow::Result<Option<Backups>> {
    Ok(Backups::open(&settings.backup, Some(settings.state_dir.join("backup-cache")))?)
}

fn rules(settings: &Settings) -> Rules {
    let target = match settings.backup.target() {
        Ok(Some(backup::Target::Directory(target))) => Some(target),
        Ok(Some(backup::Target::S3(_)) | None) | Err(_) => None,
    };
    Rules {
        instance: settings.instance.clone(),
        idle: settings.idle.clone(),
        pool: settings.pool.clone(),
        limits: settings.limits.clone(),
        capacity: settings.capacity.clone(),
        deleted_keep: settings.home.deleted_keep.get(),
        fence: Fence {
            allow: settings.mounts.allow.clone(),
            off_limits: [settings.state_dir.clone(), settings.homes(), settings.engine.socket.clone()].into_iter().chain(target).collect(),
        },
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

/// The accounts of a file that land in a workspace. It is for people: of a file that cannot be read there are none.
fn landing_in(workspace: &WorkspaceName, file: &Path) -> Vec<String> {
    let all = accounts::edit::list(file).unwrap_or_default();
    let lands = |name: &AccountName, account: &Account| match &account.workspace {
        Some(other) => other == workspace,
        None => WorkspaceName::for_account(name) == *workspace,
    };
    all.iter().filter(|(name, account)| lands(name, account)).map(|(name, _)| name.as_str().to_owned()).collect()
}
