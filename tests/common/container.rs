//! A running container of its own for a test, and processes in it.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use innkeeper::attach::exec::ExecAttach;
use innkeeper::attach::init::InitAttach;
use innkeeper::attach::{Attach, Exit, OutputKind, Process, ProcessSpec, Program, Pty, WindowSize};
use innkeeper::engine::docker::Docker;
use innkeeper::engine::{Config, ContainerId, ContainerSpec, Engine, Limits, NetworkSpec};
use innkeeper::home::SlotId;
use innkeeper::units::Size;
use tokio::io::AsyncWriteExt;

use crate::engine::{TestInstance, image};

/// Longest that anything in a test may take.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running container.
pub struct TestContainer {
    pub engine: Arc<Docker>,
    pub attach: Box<dyn Attach>,
    pub id: ContainerId,
    pub spec: ContainerSpec,
    pub instance: TestInstance,
    /// What its init needs, if it has one.
    pub inits: tempfile::TempDir,
}

/// How processes are opened in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Init,
    Exec,
}

/// What a process said, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit: Exit,
}

impl TestContainer {
    /// One of the image with this shell, and nothing in it but that.
    pub async fn start(what: &str, sh: &str) -> Self {
        Self::start_with(Way::Exec, what, sh, |_| {}).await
    }

    /// One whose specification is changed first.
    pub async fn start_with(way: Way, what: &str, sh: &str, change: impl FnOnce(&mut ContainerSpec)) -> Self {
        let instance = TestInstance::new(what);
        let engine = Arc::new(Docker::connect(&Config::default(), &instance.0.parse().unwrap()).unwrap());
        engine.ensure_network(&NetworkSpec { name: instance.0.clone() }).await.unwrap();
        let mut spec = ContainerSpec {
            name: instance.0.clone(),
            hostname: "box".to_owned(),
            image: image(sh),
            labels: BTreeMap::new(),
            env: BTreeMap::new(),
            limits: Limits { cpus: 1.0, memory: Size::mib(64), pids: 64, open_files: 256 },
            mounts: Vec::new(),
            network: Some(instance.0.clone()),
            init: None,
        };
        change(&mut spec);
        let inits = tempfile::tempdir().unwrap();
        let attach: Box<dyn Attach> = match way {
            Way::Exec => Box::new(ExecAttach::new(engine.clone(), "/home/user")),
            Way::Init => Box::new(InitAttach::open(engine.clone(), inits.path(), "/home/user").unwrap()),
        };
        let slot = SlotId::parse(&format!("{:016x}", rand::random::<u64>())).unwrap();
        spec.init = attach.prepare(&slot).unwrap();
        let id = engine.create(&spec).await.unwrap();
        attach.adopt(&slot, &id);
        engine.start(&id).await.unwrap();
        Self { engine, attach, id, spec, instance, inits }
    }

    /// Opens a process.
    pub async fn open(&self, spec: &ProcessSpec) -> Process {
        within(self.attach.open(&self.id, spec)).await.unwrap()
    }

    /// Runs a command without a terminal, with this input.
    pub async fn run(&self, line: impl AsRef<[u8]>, input: &[u8]) -> Said {
        self.run_spec(&command(line), input).await
    }

    /// Runs a process to its end.
    pub async fn run_spec(&self, spec: &ProcessSpec, input: &[u8]) -> Said {
        finish(self.open(spec).await, input).await
    }

    /// What a command that succeeds prints, without the white space around it.
    pub async fn text(&self, line: &str) -> String {
        let said = self.run(line, b"").await;
        assert_eq!((said.exit, said.stderr.as_slice()), (Exit::Status(0), &b""[..]), "{line}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    /// Waits until a command succeeds.
    pub async fn until(&self, line: &str) {
        within(async { while self.run(line, b"").await.exit != Exit::Status(0) {} }).await;
    }
}

/// A command without a terminal.
pub fn command(line: impl AsRef<[u8]>) -> ProcessSpec {
    ProcessSpec::new(Program::Command(line.as_ref().to_vec()))
}

/// The same at a terminal of 80 by 24.
pub fn at_terminal(program: Program) -> ProcessSpec {
    let pty = Pty { term: "xterm-256color".to_owned(), size: WindowSize { columns: 80, rows: 24 }, modes: Vec::new() };
    ProcessSpec { pty: Some(pty), ..ProcessSpec::new(program) }
}

/// Feeds a process its input, and returns what it said until it ended.
pub async fn finish(process: Process, input: &[u8]) -> Said {
    let Process { input: mut stdin, mut output, control } = process;
    let feed = async {
        // A process may end without having read everything.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    };
    let hear = async {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.next().await {
            let chunk = chunk.unwrap();
            if chunk.kind == OutputKind::Stdout { stdout.extend(chunk.data) } else { stderr.extend(chunk.data) }
        }
        (stdout, stderr)
    };
    within(async {
        let ((), (stdout, stderr)) = tokio::join!(feed, hear);
        Said { stdout, stderr, exit: control.exit().await.unwrap() }
    })
    .await
}

/// Waits, but not for ever.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("took too long")
}
