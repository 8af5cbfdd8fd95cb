//! A keeper whose workspaces are this machine, and whose processes are local ones.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use innkeeper::attach::{
    Address, AttachError, Chunk, Control, Duplex, Endpoint, Exit, Listening, OutputKind, Process, ProcessSpec, Program, Terminal,
    WindowSize,
};
use innkeeper::auth::{Grant, Permit};
use innkeeper::workspace::{Ending, EnsureError, Keeper, Lease, OpenError, Progress, ProgressSender, StartPath, Stay};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio_util::io::ReaderStream;

#[path = "ssh_far.rs"]
mod far;

/// See the module.
pub struct FakeKeeper {
    pub prepared: AtomicUsize,
    pub ensured: AtomicUsize,
    /// Waits that were dropped before they were over.
    pub cancelled: Arc<AtomicUsize>,
    pub opened: Mutex<Vec<ProcessSpec>>,
    /// What happens during a wait, and for how long each.
    pub progress: Mutex<Vec<(Progress, Duration)>>,
    pub refuse: Mutex<Option<EnsureError>>,
    /// How many times a process finds its container gone.
    pub gone: AtomicUsize,
    pub motd: Mutex<Option<String>>,
    pub ending: watch::Sender<Option<Ending>>,
    pub hung_up: Arc<AtomicUsize>,
    /// The terminals that are open. They go on when nobody watches them, for ever.
    pub terminals: Terminals,
    /// How long asking for them takes.
    pub listing_takes: Mutex<Duration>,
    pub path: Mutex<StartPath>,
    pub signals: Arc<Mutex<Vec<String>>>,
    pub leases: Arc<AtomicUsize>,
    /// Leases that count as a session.
    pub sessions: Arc<AtomicUsize>,
    /// Bytes of output that the gateway took.
    pub taken: Arc<AtomicU64>,
    pub panic_on_ensure: AtomicBool,
    /// What the template permits.
    pub permit: Mutex<Permit>,
    /// What was connected to.
    pub connected: Mutex<Vec<Address>>,
    /// Whether nobody can listen.
    pub deaf: AtomicBool,
    /// Where sockets are made whose place the container chooses.
    directory: tempfile::TempDir,
}

impl Default for FakeKeeper {
    fn default() -> Self {
        Self {
            prepared: AtomicUsize::default(),
            ensured: AtomicUsize::default(),
            cancelled: Arc::default(),
            opened: Mutex::default(),
            progress: Mutex::default(),
            refuse: Mutex::default(),
            gone: AtomicUsize::default(),
            motd: Mutex::default(),
            ending: watch::Sender::new(None),
            hung_up: Arc::default(),
            terminals: Terminals::default(),
            listing_takes: Mutex::default(),
            path: Mutex::new(StartPath::Attach),
            signals: Arc::default(),
            leases: Arc::default(),
            sessions: Arc::default(),
            taken: Arc::default(),
            panic_on_ensure: AtomicBool::default(),
            permit: Mutex::default(),
            connected: Mutex::default(),
            deaf: AtomicBool::default(),
            directory: tempfile::tempdir().unwrap(),
        }
    }
}

struct CountDrop(Arc<AtomicUsize>, usize);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(self.1, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Keeper for FakeKeeper {
    fn prepare(&self, _: &Grant) {
        self.prepared.fetch_add(1, Ordering::SeqCst);
    }

    async fn ensure(&self, grant: &Grant, progress: &ProgressSender) -> Result<Stay, EnsureError> {
        self.ensured.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panic_on_ensure.load(Ordering::SeqCst), "a panic on purpose");
        let mut cancelled = CountDrop(self.cancelled.clone(), 1);
        let steps = self.progress.lock().clone();
        for (step, lasts) in steps {
            progress.send_replace(step);
            tokio::time::sleep(lasts).await;
        }
        cancelled.1 = 0;
        if let Some(why) = &*self.refuse.lock() {
            return Err(why.clone());
        }
        self.leases.fetch_add(1, Ordering::SeqCst);
        self.sessions.fetch_add(1, Ordering::SeqCst);
        Ok(Stay {
            recorded: None,
            fullness: Vec::new(),
            notes: Vec::new(),
            env: Vec::new(),
            workspace: grant.workspace.clone(),
            container: "local".into(),
            path: *self.path.lock(),
            ending: self.ending.subscribe(),
            motd: self.motd.lock().clone(),
            lease: Lease::of_session(CountDrop(self.leases.clone(), usize::MAX), CountDrop(self.sessions.clone(), usize::MAX)),
        })
    }

    async fn reach(&self, grant: &Grant) -> Result<Stay, EnsureError> {
        self.ensure(grant, &ProgressSender::new(Progress::default())).await
    }

    fn permit(&self, grant: &Grant) -> Permit {
        grant.permit.and(*self.permit.lock())
    }

    async fn connect(&self, _: &Stay, to: &Address) -> Result<Box<dyn Duplex>, OpenError> {
        self.connected.lock().push(to.clone());
        far::connect(to).await
    }

    async fn listen(&self, _: &Stay, on: &Endpoint) -> Result<Listening, OpenError> {
        if self.deaf.load(Ordering::SeqCst) {
            return Err(OpenError::Attach(AttachError::Unsupported("this")));
        }
        far::listen(on, self.directory.path(), self.ending.subscribe()).await
    }

    async fn terminals(&self, _: &Stay) -> Result<Vec<Terminal>, OpenError> {
        let takes = *self.listing_takes.lock();
        tokio::time::sleep(takes).await;
        Ok(self.terminals.list())
    }

    async fn open(&self, _: &Stay, spec: &ProcessSpec) -> Result<Process, OpenError> {
        if self.gone.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(OpenError::Gone);
        }
        self.opened.lock().push(spec.clone());
        if spec.pty.is_none() {
            return Ok(self.open_pipes(spec).expect("a local process"));
        }
        let found = spec.terminal.as_ref().and_then(|name| self.terminals.find(name.as_str()));
        Ok(found.unwrap_or_else(|| self.open_terminal(spec).expect("a local process")))
    }
}

impl FakeKeeper {
    fn open_pipes(&self, spec: &ProcessSpec) -> io::Result<Process> {
        let (program, arguments) = command_line(spec);
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment(spec))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().unwrap();
        let stdout = self.chunks(OutputKind::Stdout, child.stdout.take().unwrap());
        let stderr = self.chunks(OutputKind::Stderr, child.stderr.take().unwrap());
        let output = futures_util::stream::select(stdout, stderr);
        Ok(Process { input: Box::pin(Pipe(Some(stdin))), output: Box::pin(output), control: self.control(child, None) })
    }

    fn open_terminal(&self, spec: &ProcessSpec) -> io::Result<Process> {
        let pty_spec = spec.pty.as_ref().unwrap();
        let (pty, pts) = pty_process::open().map_err(io::Error::other)?;
        pty.resize(pty_process::Size::new(pty_spec.size.rows, pty_spec.size.columns)).map_err(io::Error::other)?;
        let (program, arguments) = command_line(spec);
        let mut environment = environment(spec);
        environment.push(("TERM".into(), pty_spec.term.clone()));
        let child = pty_process::Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .kill_on_drop(true)
            .spawn(pts)
            .map_err(io::Error::other)?;
        let (read, write) = pty.into_split();
        let write = SharedPty(Arc::new(Mutex::new(write)));
        let greeting = spec.greeting.as_ref().map(|text| text.replace('\n', "\r\n"));
        let name = spec.terminal.as_ref().map(ToString::to_string).unwrap_or_default();
        let control = self.control(child, Some(write.clone()));
        Ok(self.terminals.open(name, greeting.unwrap_or_default(), read, write, control))
    }

    fn chunks(&self, kind: OutputKind, read: impl AsyncRead + Send + 'static) -> impl Stream<Item = io::Result<Chunk>> + Send + 'static {
        let taken = self.taken.clone();
        Box::pin(ReaderStream::with_capacity(read, 16 * 1024)).map(move |data| {
            let data = data?;
            taken.fetch_add(data.len() as u64, Ordering::SeqCst);
            Ok(Chunk { kind, data })
        })
    }

    fn control(&self, child: Child, pty: Option<SharedPty>) -> Arc<dyn Control> {
        let group = child.id().and_then(|id| Pid::from_raw(id as i32)).unwrap();
        Arc::new(LocalControl {
            child: tokio::sync::Mutex::new(child),
            group,
            pty,
            hung_up: self.hung_up.clone(),
            signals: self.signals.clone(),
        })
    }
}

fn command_line(spec: &ProcessSpec) -> (&'static str, Vec<std::ffi::OsString>) {
    use std::os::unix::ffi::OsStringExt;
    match &spec.program {
        Program::LoginShell => ("/bin/sh", vec![]),
        Program::Command(command) => ("/bin/sh", vec!["-c".into(), std::ffi::OsString::from_vec(command.clone())]),
        Program::Sftp => ("/usr/lib/openssh/sftp-server", vec![]),
    }
}

fn environment(spec: &ProcessSpec) -> Vec<(String, String)> {
    let mut environment = vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()), ("PS1".to_owned(), "$ ".to_owned())];
    environment.extend(spec.env.iter().cloned());
    environment
}

/// A pipe that `shutdown` closes; the child's own does nothing.
struct Pipe(Option<ChildStdin>);

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(stdin) => Pin::new(stdin).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

/// A terminal that is written to in one place and resized in another.
#[derive(Clone)]
struct SharedPty(Arc<Mutex<pty_process::OwnedWritePty>>);

impl AsyncWrite for SharedPty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Pieces of output that wait for one viewer; no test that has a terminal makes more.
const PIECES: usize = 4096;

/// Terminals that go on without their viewers, as those in a container do. Cheap to clone; all clones are the same ones.
#[derive(Clone, Default)]
pub struct Terminals(Arc<Mutex<HashMap<u64, OpenTerminal>>>);

struct OpenTerminal {
    name: String,
    viewers: HashMap<u64, mpsc::Sender<Bytes>>,
    /// Everything that was on it, which is all that a repaint is here.
    screen: Vec<u8>,
    write: SharedPty,
    control: Arc<dyn Control>,
    alone: Instant,
}

/// One viewer of a terminal; dropping it is leaving.
struct Viewer {
    terminals: Terminals,
    terminal: u64,
    viewer: u64,
    output: mpsc::Receiver<Bytes>,
}

impl Terminals {
    fn open(
        &self,
        name: String,
        greeting: String,
        mut read: impl AsyncRead + Send + Unpin + 'static,
        write: SharedPty,
        control: Arc<dyn Control>,
    ) -> Process {
        let terminal = rand::random();
        let new = OpenTerminal { name, viewers: HashMap::new(), screen: greeting.into(), write, control, alone: Instant::now() };
        self.0.lock().insert(terminal, new);
        let process = self.view(terminal);
        let terminals = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 16 * 1024];
            // A terminal whose last process has gone reads as an error.
            while let Ok(length @ 1..) = read.read(&mut buffer).await {
                let mut all = terminals.0.lock();
                let this = all.get_mut(&terminal).unwrap();
                this.screen.extend_from_slice(&buffer[..length]);
                for viewer in this.viewers.values() {
                    viewer.try_send(Bytes::copy_from_slice(&buffer[..length])).expect("a viewer that keeps up");
                }
            }
            terminals.0.lock().remove(&terminal);
        });
        process
    }

    fn find(&self, name: &str) -> Option<Process> {
        let found = self.0.lock().iter().find(|(_, terminal)| terminal.name == name).map(|(id, _)| *id);
        found.map(|id| self.view(id))
    }

    fn view(&self, terminal: u64) -> Process {
        let mut all = self.0.lock();
        let this = all.get_mut(&terminal).unwrap();
        let (sender, output) = mpsc::channel(PIECES);
        if !this.screen.is_empty() {
            sender.try_send(Bytes::copy_from_slice(&this.screen)).unwrap();
        }
        let viewer = rand::random();
        this.viewers.insert(viewer, sender);
        let viewer = Viewer { terminals: self.clone(), terminal, viewer, output };
        let output = futures_util::stream::unfold(viewer, async |mut viewer| {
            let data = viewer.output.recv().await?;
            Some((Ok(Chunk { kind: OutputKind::Stdout, data }), viewer))
        });
        Process { input: Box::pin(this.write.clone()), output: Box::pin(output), control: this.control.clone() }
    }

    pub fn list(&self) -> Vec<Terminal> {
        let all = self.0.lock();
        let list = all.values().map(|terminal| Terminal {
            process: 0,
            name: terminal.name.clone(),
            viewers: terminal.viewers.len() as u32,
            alone: terminal.alone.elapsed().as_secs() as u32,
            left: None,
        });
        list.collect()
    }

    /// Whether there is one of this name with so many viewers.
    pub fn has(&self, name: &str, viewers: u32) -> bool {
        self.list().iter().any(|terminal| terminal.name == name && terminal.viewers == viewers)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut all = self.terminals.0.lock();
        let lost = 1 + all.values().filter(|terminal| terminal.name.starts_with("lost-")).count();
        let Some(this) = all.get_mut(&self.terminal) else { return };
        this.viewers.remove(&self.viewer);
        if this.viewers.is_empty() {
            this.alone = Instant::now();
            if this.name.is_empty() {
                this.name = format!("lost-{lost}");
            }
        }
    }
}

struct LocalControl {
    child: tokio::sync::Mutex<Child>,
    group: Pid,
    pty: Option<SharedPty>,
    hung_up: Arc<AtomicUsize>,
    signals: Arc<Mutex<Vec<String>>>,
}

#[async_trait::async_trait]
impl Control for LocalControl {
    async fn resize(&self, size: WindowSize) -> Result<(), AttachError> {
        if let Some(pty) = &self.pty {
            pty.0.lock().resize(pty_process::Size::new(size.rows, size.columns)).unwrap();
        }
        Ok(())
    }

    async fn signal(&self, name: &str) -> Result<(), AttachError> {
        self.signals.lock().push(name.to_owned());
        let signal = match name {
            "INT" => Signal::INT,
            "TERM" => Signal::TERM,
            "USR1" => Signal::USR1,
            _ => return Err(AttachError::Unsupported("this signal")),
        };
        let _ = kill_process_group(self.group, signal);
        Ok(())
    }

    async fn exit(&self) -> Result<Exit, AttachError> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.lock().await.wait().await.unwrap();
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Status(code as u32),
            (None, Some(1)) => Exit::Signal("HUP"),
            (None, Some(9)) => Exit::Signal("KILL"),
            (None, Some(15)) => Exit::Signal("TERM"),
            (None, signal) => Exit::Status(128 + signal.unwrap_or(0) as u32),
        })
    }

    async fn hang_up(&self) -> Result<(), AttachError> {
        let _ = kill_process_group(self.group, Signal::HUP);
        self.hung_up.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
