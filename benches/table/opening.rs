//! A process in a container that runs, when the way to the gateway is open already.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use innkeeper::attach::init::InitAttach;
use innkeeper::attach::{Attach, ProcessSpec, Program, Pty, WindowSize};
use innkeeper::engine::docker::Docker;
use innkeeper::engine::{Config, ContainerId, ContainerSpec, Engine, Limits, Mount, NetworkSpec, Propagation};
use innkeeper::home::SlotId;
use innkeeper::units::Size;
use tokio::time::timeout;

use super::Run;
use crate::client::{self, Master};
use crate::crowd;
use crate::docker;
use crate::gateway::{Gateway, Setup};
use crate::report::{Row, round};
use crate::samples::Samples;

/// How long it may take, as a part of what the engine's exec takes.
const BOUND: f64 = 0.05;

/// How long it may take before there is nothing left to measure.
const DEADLINE: Duration = Duration::from_secs(10);

/// The shell on both sides: a static one outside the image's layers, so that its own start, which is neither side's, is little of the figure.
/// The image's bash takes several times as long to start as all the rest.
const SHELL: &str = "/bin/sh";
const BUSYBOX: &str = "/bin/busybox";

/// What runs: the shell itself says it, so that no second process is in the figure.
const COMMAND: &str = "echo here";

/// What a terminal makes of that.
const SAID: &str = "here\r\n";

/// How long nothing is asked of anybody before a measurement.
const SETTLED: Duration = Duration::from_millis(200);

/// A terminal, and a command without one.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let account = "opening".to_owned();
    let gateway = Gateway::start(&run.place, Setup { name: "opening", ..Setup::default() }, std::slice::from_ref(&account))?;
    client::run(run.place.ssh(gateway.port, &account).arg("true"))?;
    Ok(vec![at_a_terminal(run)?, without_one(run, &gateway, &account)?])
}

fn at_a_terminal(run: &Run) -> Result<Row> {
    run.progress("opening: at a terminal");
    let runtime = crowd::runtime()?;
    let container = Arc::new(runtime.block_on(Container::start(run))?);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..run.repetitions(100, 20) {
        // The engine is busy with the end of its exec long after that has answered; neither is to meet it.
        crate::wait::pause(SETTLED)?;
        // A task of the runtime's, as the gateway's sessions are: the thread that waits for it here would add its own waking to each step.
        let opened = runtime.spawn({
            let container = container.clone();
            async move { timeout(DEADLINE, container.open()).await }
        });
        ours.push(runtime.block_on(opened)???);
        crate::wait::pause(SETTLED)?;
        theirs.push(docker::exec_at_a_terminal(&container.id.0, &[SHELL, "-c", COMMAND], SAID)?);
    }
    runtime.block_on(container.engine.remove_everything())?;
    let what = "opening a process at a terminal, request to first byte; beside: docker exec through the API";
    Ok(Row::of(what, &ours, &theirs, "ms").at_most(BOUND * theirs.median()))
}

fn read_only(source: &Path, target: &str) -> Mount {
    Mount { source: source.to_owned(), target: target.to_owned(), read_only: true, propagation: Propagation::Private }
}

/// A container with an init, and the gateway's own way to open processes in it: its library, without SSH in front.
struct Container {
    engine: Arc<Docker>,
    attach: InitAttach,
    id: ContainerId,
}

impl Container {
    async fn start(run: &Run) -> Result<Self> {
        let name = format!("bench-opening-{}", std::process::id());
        let engine = Arc::new(Docker::connect(&Config::default(), &name.parse()?)?);
        let attach = InitAttach::open(engine.clone(), &run.place.path("opening-init"), "/home/user")?;
        let passwd = run.place.path("opening-passwd");
        std::fs::write(&passwd, format!("user:x:1000:1000::/home/user:{SHELL}\n"))?;
        engine.ensure_network(&NetworkSpec { name: name.clone() }).await?;
        let slot = SlotId::parse("0123456789abcdef").context("a slot's name")?;
        let spec = ContainerSpec {
            name: name.clone(),
            hostname: "bench".to_owned(),
            image: crate::gateway::IMAGE.to_owned(),
            labels: BTreeMap::new(),
            env: BTreeMap::new(),
            limits: Limits { cpus: 2.0, memory: Size::mib(512), pids: 512, open_files: 1024 },
            mounts: vec![read_only(&passwd, "/etc/passwd"), read_only(Path::new(BUSYBOX), SHELL)],
            network: Some(name),
            init: attach.prepare(&slot)?,
        };
        let id = engine.create(&spec).await?;
        attach.adopt(&slot, &id);
        engine.start(&id).await?;
        let container = Self { engine, attach, id };
        // The first waits for init to dial.
        container.open().await?;
        Ok(container)
    }

    /// How long it takes from asking for a process to the first byte out of it.
    async fn open(&self) -> Result<Duration> {
        let size = WindowSize { columns: 80, rows: 24 };
        let pty = Some(Pty { term: "xterm".to_owned(), size, modes: Vec::new() });
        let spec = ProcessSpec { pty, ..ProcessSpec::new(Program::Command(COMMAND.into())) };
        let began = Instant::now();
        let mut process = self.attach.open(&self.id, &spec).await?;
        let first = process.output.next().await.context("no output")??;
        let took = began.elapsed();
        ensure!(SAID.as_bytes().starts_with(&first.data), "{:?} was said, not {SAID:?}", first.data);
        // What follows, its end too, is not to meet whatever is measured next.
        while process.output.next().await.is_some() {}
        process.control.exit().await?;
        Ok(took)
    }
}

/// A command over a connection that is logged in already, as with ControlMaster: what remains when the handshake is paid for.
fn without_one(run: &Run, gateway: &Gateway, account: &str) -> Result<Row> {
    run.progress("opening: without a terminal");
    let container = gateway.container(account);
    let to_ours = Master::open(&run.place, gateway.port, account, &[])?;
    let to_sshd = Master::open(&run.place, run.sshd.port, "root", &[])?;
    let (mut ours, mut theirs, mut sshd) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..run.repetitions(25, 5) {
        ours.push(client::run(to_ours.ssh().arg("true"))?);
        sshd.push(client::run(to_sshd.ssh().arg("true"))?);
        let began = Instant::now();
        docker::exec(&container, &["true"])?;
        theirs.push(began.elapsed());
    }
    let note = format!("{}; sshd: {}", ours.spread_beside(&theirs), round(sshd.median()));
    let what = "`true` over a connection that is open already; beside: docker exec through the API";
    Ok(Row::of(what, &ours, &theirs, "ms").note(note))
}
