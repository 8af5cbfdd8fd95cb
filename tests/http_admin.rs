//! What an administrator asks of a gateway, over a real socket, by the program itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use innkeeper::attach::{AttachError, Duplex, ServiceExit};
use innkeeper::http;
use innkeeper::name::{ServiceName, TemplateName, WorkspaceName};
use innkeeper::store::Store;
use innkeeper::workspace::{
    Administration, Applied, AskError, BackupsView, CapacityView, Change, Changed, Chore, DeletedView, Details, Done, Event, Exported,
    HistorySpan, ImageAge, Import, Known, NewWorkspace, News, Operations, Overview, OverviewFigures, PoolChange, PoolView, QueueView,
    Running, ServiceView, SessionView, Standing, Starting, Step, Task, Template, UsageView,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A gateway with one workspace, alice's, in which the services say what is written into `logs`.
struct Gateway {
    dir: TempDir,
    runtime: Runtime,
    logs: Arc<Mutex<Option<DuplexStream>>>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

struct OneWorkspace {
    logs: Arc<Mutex<Option<DuplexStream>>>,
}

#[async_trait::async_trait]
impl Administration for OneWorkspace {
    fn overview(&self) -> Vec<Overview> {
        vec![Overview {
            image: Some(ImageAge::Older),
            upgrade: None,
            name: "alice".parse().unwrap(),
            state: "running",
            template: "web".parse().unwrap(),
            container: Some("0123".to_owned()),
            running_for: Some(Duration::from_millis(90_500)),
            leases: 1,
            idle_for: None,
            services: self.services(&"alice".parse().unwrap()).unwrap(),
        }]
    }

    async fn details(&self, name: &WorkspaceName) -> Result<Details, AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    fn begin_if(&self, name: &WorkspaceName, task: Task, _revision: Option<i64>) -> Running {
        let (tell, done) = tokio::sync::oneshot::channel();
        tell.send(Err(AskError::Refused(format!("{task:?} for {name}")))).unwrap();
        Running { step: tokio::sync::watch::channel(Step::default()).1, done }
    }

    async fn backups(&self, name: Option<&WorkspaceName>) -> Result<BackupsView, AskError> {
        Err(AskError::Refused(format!("backups of {name:?}")))
    }

    fn begin_chore(&self, chore: Chore) -> Running {
        let (tell, done) = tokio::sync::oneshot::channel();
        tell.send(Err(AskError::Refused(format!("{chore:?}")))).unwrap();
        Running { step: tokio::sync::watch::channel(Step::default()).1, done }
    }

    async fn export(&self, name: &WorkspaceName) -> Result<Exported, AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    async fn import(&self, name: &WorkspaceName, _from: Import) -> Result<Done, AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    async fn deleted(&self) -> Result<Vec<DeletedView>, AskError> {
        Ok(Vec::new())
    }

    async fn change(&self, name: &WorkspaceName, change: Change, _revision: Option<i64>) -> Result<Changed, AskError> {
        let Change::SetSecret(..) = change else { return Err(AskError::Refused(format!("{change:?} for {name}"))) };
        Ok(Changed { applied: Applied::NotYet("\x1b[2Jbusy".to_owned()), has_home: true, enforcement: Vec::new(), revision: 1 })
    }

    fn services(&self, name: &WorkspaceName) -> Result<Vec<ServiceView>, AskError> {
        if name.as_str() != "alice" {
            return Err(AskError::NoWorkspace(name.clone()));
        }
        let view = |name: &str, standing, restarts, exit| ServiceView { name: name.parse().unwrap(), standing, restarts, exit };
        Ok(vec![view("web", Standing::Ready, Some(2), Some(ServiceExit::Signal(9))), view("mail", Standing::Unknown, None, None)])
    }

    async fn logs(&self, name: &WorkspaceName, service: Option<&ServiceName>, follow: bool) -> Result<Box<dyn Duplex>, AskError> {
        match (name.as_str(), service.map(ServiceName::as_str)) {
            ("alice", None | Some("web")) => {}
            ("alice", Some("bad")) => return Err(AskError::Attach(AttachError::Init("\x1b[2Jno answer".to_owned()))),
            ("alice", Some(_)) => return Err(AskError::NoService(name.clone(), service.unwrap().clone())),
            ("bob", _) => return Err(AskError::NotRunning(name.clone())),
            _ => return Err(AskError::NoWorkspace(name.clone())),
        }
        let (mut ours, theirs) = tokio::io::duplex(64);
        let words: &[u8] = if service.is_some() { b"web: \x1b[1mup\n" } else { b"all\n" };
        ours.write_all(words).await.unwrap();
        if follow {
            *self.logs.lock() = Some(ours);
        }
        Ok(Box::new(theirs))
    }
}

/// What the others of its kind would do is asked of a real one, in `e2e_api`.
#[async_trait::async_trait]
impl Operations for OneWorkspace {
    async fn known(&self) -> Result<Vec<Known>, AskError> {
        let known = |now: Overview| Known {
            name: now.name.clone(),
            state: now.state,
            template: now.template.clone(),
            last_active: None,
            last_login: None,
            suspended: false,
            allowed: None,
            allowed_volumes: Default::default(),
            sample: None,
            disk: None,
            now: Some(now),
        };
        Ok(self.overview().into_iter().map(known).collect())
    }

    async fn can_make(&self, name: &WorkspaceName, _new: &NewWorkspace) -> Result<(), AskError> {
        Err(AskError::Exists(name.clone()))
    }

    async fn make_workspace(&self, name: &WorkspaceName, _new: NewWorkspace, _again: bool) -> Result<(), AskError> {
        Err(AskError::Exists(name.clone()))
    }

    async fn start(&self, name: &WorkspaceName) -> Result<Starting, AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    async fn stop(&self, name: &WorkspaceName, _notice: Option<Duration>) -> Result<(), AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    async fn restart(&self, name: &WorkspaceName, _notice: Option<Duration>) -> Result<Starting, AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    fn templates(&self) -> BTreeMap<TemplateName, Template> {
        BTreeMap::new()
    }

    fn sessions(&self) -> Vec<SessionView> {
        Vec::new()
    }

    fn end_session(&self, id: u64) -> Result<(), AskError> {
        Err(AskError::NoSession(id))
    }

    fn watch(&self, id: u64) -> Result<(WorkspaceName, innkeeper::recording::RecordingId, innkeeper::recording::Watch), AskError> {
        Err(AskError::NoSession(id))
    }

    fn pool(&self) -> PoolView {
        PoolView { size: 0, paused: false, spares: Vec::new() }
    }

    fn change_pool(&self, _as_it_was: Option<(usize, bool)>, _change: PoolChange) -> Result<PoolView, AskError> {
        Err(AskError::Changed)
    }

    async fn drain_pool(&self, _as_it_was: Option<(usize, bool)>) -> Result<usize, AskError> {
        Ok(0)
    }

    fn queue(&self) -> QueueView {
        QueueView { capacity: 1, taken: 0, waiting: 0, workspaces: Vec::new() }
    }

    async fn overview_figures(&self) -> Result<OverviewFigures, AskError> {
        Err(AskError::Store("not here".to_owned()))
    }

    async fn usage(&self, name: &WorkspaceName, _span: HistorySpan) -> Result<UsageView, AskError> {
        Err(AskError::NoWorkspace(name.clone()))
    }

    async fn capacity(&self) -> Result<CapacityView, AskError> {
        Err(AskError::Store("not here".to_owned()))
    }

    /// Of a listener who was too slow already, and then hears one more.
    fn events(&self) -> broadcast::Receiver<Event> {
        let (tell, events) = broadcast::channel(2);
        for number in 1..=10 {
            let news = News::State { workspace: "alice".parse().unwrap(), state: "running" };
            tell.send(Event { number, at: std::time::SystemTime::UNIX_EPOCH, news }).unwrap();
        }
        events
    }
}

#[async_trait::async_trait]
impl http::Gateway for OneWorkspace {
    fn settings(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    async fn reload(&self) -> Result<http::Reloaded, String> {
        Err("not here".to_owned())
    }

    async fn engines(&self) -> Vec<http::EngineView> {
        Vec::new()
    }

    fn accounts_file(&self) -> Option<PathBuf> {
        None
    }

    fn urls(&self) -> innkeeper::urls::Config {
        innkeeper::urls::Config::default()
    }

    fn links(&self) -> Arc<innkeeper::urls::Links> {
        panic!("there are none here")
    }

    fn ssh_address(&self) -> (Option<innkeeper::address::PublicAddress>, u16) {
        (None, 2200)
    }
}

impl Gateway {
    fn start() -> Self {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
        fs::write(dir.path().join("config.toml"), "state_dir = 'state'\n").unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let mut gateway = Self { dir, runtime, logs: Arc::default(), stop: CancellationToken::new(), task: None };
        gateway.up();
        gateway
    }

    fn up(&mut self) {
        let _inside = self.runtime.enter();
        let listener = http::listen_for_admin(&self.socket()).unwrap();
        let asked = Arc::new(OneWorkspace { logs: Arc::clone(&self.logs) });
        let store = Store::open(&self.dir.path().join("innkeeper.db")).unwrap();
        let asked = Arc::new(http::Api::new(
            asked.clone(),
            asked.clone(),
            asked,
            store,
            innkeeper::recording::Recordings::default(),
            innkeeper::audit::Audit::default(),
        ));
        self.task = Some(self.runtime.spawn(http::serve_admin(listener, asked, self.stop.clone())));
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("state/admin.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper"));
        command.arg("--config").arg(self.dir.path().join("config.toml")).arg("workspace").args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    #[track_caller]
    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is said of a command that fails, with what it exits with.
    fn bad(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn workspaces_and_services_are_tables_or_json() {
    let gateway = Gateway::start();
    assert_eq!(
        gateway.good(&["list"]),
        "NAME   STATE    TEMPLATE  RUNNING  LEASES  IDLE  SERVICES   IMAGE\nalice  running  web       1m 30s   1       -     1/2 ready  older\n"
    );
    assert_eq!(
        gateway.good(&["services", "alice"]),
        "NAME  STATE    RESTARTS  LAST EXIT\nweb   ready    2         signal 9\nmail  unknown  -         -\n"
    );
    let list: serde_json::Value = serde_json::from_str(&gateway.good(&["list", "--json"])).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["running_seconds"]), (&"alice".into(), &90.into()));
    let services: serde_json::Value = serde_json::from_str(&gateway.good(&["services", "alice", "--json"])).unwrap();
    assert_eq!(services[0]["exit"]["signal"], 9);
    assert!(services[1]["restarts"].is_null());
}

#[test]
fn what_cannot_be_answered_says_why() {
    let gateway = Gateway::start();
    let known = "`innkeeper workspace list` names those that are";
    assert_eq!(gateway.bad(&["services", "carol"]), (Some(1), format!("innkeeper: no workspace carol is known; {known}\n")));
    assert_eq!(gateway.bad(&["logs", "bob"]), (Some(1), "innkeeper: workspace bob does not run\n".to_owned()));
    let no_service = (Some(1), "innkeeper: workspace alice has no service db\n".to_owned());
    assert_eq!(gateway.bad(&["logs", "alice", "--service", "db"]), no_service);
    assert_eq!(gateway.bad(&["logs", "alice", "-s", "bad"]).1, "innkeeper: init: \\u{1b}[2Jno answer\n", "a container's words");
    assert_eq!(gateway.bad(&["logs", "../alice"]).0, Some(64));
    assert_eq!(gateway.bad(&["logs", "alice", "--service", "a&follow=true"]).0, Some(64));
}

#[test]
fn no_gateway_is_said_so_and_the_next_one_takes_the_place_of_the_last() {
    let mut gateway = Gateway::start();
    gateway.stop.cancel();
    let task = gateway.task.take().unwrap();
    gateway.runtime.block_on(task).unwrap();
    assert!(gateway.socket().exists(), "as after a kill");
    let (status, said) = gateway.bad(&["list"]);
    let expected = format!("innkeeper: no gateway answers at {}: is `innkeeper serve` running?", gateway.socket().display());
    assert!(status == Some(1) && said.starts_with(&expected), "{status:?} {said}");
    gateway.stop = CancellationToken::new();
    gateway.up();
    gateway.good(&["list"]);
}

#[test]
fn the_socket_is_its_owners_and_takes_nothing_elses_place() {
    let gateway = Gateway::start();
    assert_eq!(fs::metadata(gateway.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    // Whatever the directory around it permits; one further up may keep her out already, so she is in there from the start.
    let socket = gateway.socket();
    let (around, name) = (socket.parent().unwrap(), socket.file_name().unwrap());
    fs::set_permissions(around, fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "test -e \"$1\" && ! test -w \"$1\"", "sh"];
    assert!(Command::new("setpriv").args(nobody).arg(name).current_dir(around).status().unwrap().success());
    let file = gateway.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let _inside = gateway.runtime.enter();
    assert!(http::listen_for_admin(&file).is_err());
    assert_eq!(fs::metadata(&file).unwrap().size(), 1);
}

#[test]
fn logs_come_as_they_are_and_are_followed_until_somebody_has_enough() {
    let gateway = Gateway::start();
    assert_eq!(gateway.good(&["logs", "alice"]), "all\n");
    assert_eq!(gateway.good(&["logs", "alice", "--service", "web"]), "web: \x1b[1mup\n", "to a pipe, byte for byte");

    let mut child = gateway.command(&["logs", "alice", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut read = |bytes: usize| {
        let mut buffer = vec![0; bytes];
        out.read_exact(&mut buffer).unwrap();
        String::from_utf8(buffer).unwrap()
    };
    assert_eq!(read(4), "all\n");
    let mut container = gateway.logs.lock().take().unwrap();
    gateway.runtime.block_on(container.write_all(b"more\n")).unwrap();
    assert_eq!(read(5), "more\n", "as it is said");
    child.kill().unwrap();
    child.wait().unwrap();
    // The container is told by the end of its socket.
    let deadline = Instant::now() + Duration::from_secs(20);
    while gateway.runtime.block_on(container.write_all(b"x")).is_ok() {
        assert!(Instant::now() < deadline, "goes on though nobody reads");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_gateway_that_stops_ends_what_is_followed() {
    let mut gateway = Gateway::start();
    let mut child = gateway.command(&["logs", "alice", "-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    gateway.stop.cancel();
    gateway.runtime.block_on(gateway.task.take().unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("innkeeper: the gateway's answer broke off"));
}

#[test]
fn who_reads_the_feed_too_slowly_is_told_what_she_missed_and_no_more() {
    let gateway = Gateway::start();
    let mut stream = UnixStream::connect(gateway.socket()).unwrap();
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let events: Vec<&str> = answer.lines().filter(|line| line.starts_with("event:") || line.starts_with("data:")).collect();
    assert_eq!(events, ["event: listening", "data: {}", "event: missed", "data: {\"events\":8}"]);
}

#[test]
fn a_change_that_is_not_gone_by_yet_is_a_failure_and_what_it_was_is_not_repeated() {
    let gateway = Gateway::start();
    let mut child = gateway.command(&["secret", "alice", "set", "KEY"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hunter2\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("could not be applied to what runs: \\u{1b}[2Jbusy; it is tried again") && !said.contains("hunter2"), "{said}");
    let (status, said) = gateway.bad(&["resume", "alice"]);
    assert_eq!((status, said.as_str()), (Some(1), "innkeeper: Resume for alice\n"));

    let post = |body: &str| {
        let mut stream = UnixStream::connect(gateway.socket()).unwrap();
        let head = format!(
            "POST /api/v1/workspaces/alice/changes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // Not all of it is read where it is too long.
        stream.write_all(body.as_bytes()).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8(answer).unwrap()
    };
    for wrong in [
        r#"{"set-secret": {"name": "KEY", "value": ["hunter2"]}}"#,
        r#"{"set-secret": {"name": "KEY", "value": "x", "hunter2": 1}}"#,
        r#"{"set-secret": {"name": "LD_PRELOAD", "value": "hunter2"}}"#,
        r#""hunter2"#,
        r#"{"suspend": {"reason": "hunter2"}, "resume": {}}"#,
    ] {
        let answer = post(wrong);
        assert!(answer.starts_with("HTTP/1.1 400") && !answer.contains("hunter2"), "{wrong}: {answer}");
    }
    let long = format!(r#"{{"suspend": {{"reason": "{}"}}}}"#, "x".repeat(600_000));
    assert!(post(&long).starts_with("HTTP/1.1 413"));
}
