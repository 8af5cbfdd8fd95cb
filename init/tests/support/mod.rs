//! A gateway for one init, which runs as a plain process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]
#![allow(dead_code, reason = "each test program has the whole of it, and uses a part")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use innkeeper_init::protocol::*;
use innkeeper_init::wire::{self, Received, WireError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with};
use rustix::process::{Pid, Signal};

/// How long anything may take that should be there at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// An init and its gateway.
pub(crate) struct Gateway {
    pub(crate) init: Child,
    pub(crate) directory: tempfile::TempDir,
    listener: OwnedFd,
    connection: OwnedFd,
    /// What the last hello told.
    pub(crate) terminals: Vec<Terminal>,
    pub(crate) leases: Vec<Lease>,
    pub(crate) services: Vec<ServiceState>,
    requests: u64,
    /// Reports that came while another was waited for.
    news: Vec<Received<Report>>,
}

impl Gateway {
    /// A new init that has said hello and was welcomed.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (listener, path) = listening(&directory);
        let mut command = Command::new(env!("CARGO_BIN_EXE_innkeeper-init"));
        command.arg("--socket").arg(path);
        Self::with(command, directory, listener)
    }

    /// One as number 1 of a process namespace, under the name that it has in a container.
    pub(crate) fn first_process() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (listener, path) = listening(&directory);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", env!("CARGO_BIN_EXE_innkeeper-init"), "--socket"]).arg(path);
        Self::with(command, directory, listener)
    }

    /// One in a network of its own, in which it has the socket for people: with its programs in their home.
    pub(crate) fn in_its_own_network() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (listener, path) = listening(&directory);
        let init = env!("CARGO_BIN_EXE_innkeeper-init");
        for name in ["innkeeper-keep", "innkeeper-status"] {
            std::os::unix::fs::symlink(init, directory.path().join(name)).unwrap();
        }
        let mut command = Command::new("unshare");
        command.args(["--net", init, "--socket"]).arg(path);
        Self::with(command, directory, listener)
    }

    fn with(mut command: Command, directory: tempfile::TempDir, listener: OwnedFd) -> Self {
        command.env_clear().env("HOME", directory.path()).env("PATH", "/usr/bin:/bin").env("OWN", "1").stdin(Stdio::null());
        let init = command.spawn().unwrap();
        let connection = call(&listener);
        let (terminals, leases, services) = (Vec::new(), Vec::new(), Vec::new());
        let mut new = Self { init, directory, listener, connection, terminals, leases, services, requests: 0, news: Vec::new() };
        new.welcome(&wire::encode(&Order::Welcome { version: VERSION }).unwrap());
        new
    }

    /// The gateway goes, and another comes.
    pub(crate) fn restart(&mut self) {
        self.leave();
        self.come_back();
    }

    /// The gateway goes, and nobody listens in its place.
    pub(crate) fn leave(&mut self) {
        let (_, nobody) = pair();
        self.connection = nobody;
        self.news.clear();
        std::fs::remove_file(self.path("gateway")).unwrap();
        (self.listener, _) = pair();
    }

    /// Another comes.
    pub(crate) fn come_back(&mut self) {
        self.come_back_saying(&wire::encode(&Order::Welcome { version: VERSION }).unwrap());
    }

    /// Another comes, with these bytes for a welcome.
    pub(crate) fn come_back_saying(&mut self, welcome: &[u8]) {
        (self.listener, _) = listening(&self.directory);
        self.connection = call(&self.listener);
        self.welcome(welcome);
    }

    fn welcome(&mut self, words: &[u8]) {
        let Report::Hello { version, terminals, leases, services } = self.next().message else { panic!("no hello") };
        assert_eq!(version, VERSION);
        (self.terminals, self.leases, self.services) = (terminals, leases, services);
        self.send_raw(words);
    }

    pub(crate) fn order(&self, order: &Order) {
        wire::send(&self.connection, &wire::encode(order).unwrap(), &[]).unwrap();
    }

    pub(crate) fn send_raw(&self, bytes: &[u8]) {
        wire::send(&self.connection, bytes, &[]).unwrap();
    }

    /// The next report, whatever it is.
    pub(crate) fn next(&mut self) -> Received<Report> {
        if !self.news.is_empty() {
            return self.news.remove(0);
        }
        self.receive().expect("init has hung up")
    }

    /// The next report, if init does not hang up.
    pub(crate) fn receive(&mut self) -> Option<Received<Report>> {
        wait(&self.connection);
        match wire::receive(&self.connection, &mut vec![0; MAX_MESSAGE]) {
            Ok(received) => Some(received),
            Err(WireError::Closed) => None,
            Err(why) => panic!("{why}"),
        }
    }

    /// The first report of which this says something; others wait.
    pub(crate) fn until<T>(&mut self, wanted: impl Fn(&Report) -> Option<T>) -> (T, Vec<OwnedFd>) {
        if let Some(at) = self.news.iter().position(|news| wanted(&news.message).is_some()) {
            let news = self.news.remove(at);
            return (wanted(&news.message).unwrap(), news.descriptors);
        }
        loop {
            let news = self.receive().expect("init has hung up");
            match wanted(&news.message) {
                Some(answer) => return (answer, news.descriptors),
                None => self.news.push(news),
            }
        }
    }

    /// The answer to an order that is made with a request's number.
    pub(crate) fn ask(&mut self, order: impl FnOnce(u64) -> Order) -> Received<Report> {
        self.requests += 1;
        let number = self.requests;
        self.order(&order(number));
        let (message, descriptors) = self.until(|report| match report {
            Report::Opened { request, .. }
            | Report::Failed { request, .. }
            | Report::Terminals { request, .. }
            | Report::Connected { request }
            | Report::Listening { request, .. }
                if *request == number =>
            {
                Some(report.clone())
            }
            _ => None,
        });
        Received { message, length: 0, descriptors }
    }

    /// Opens a process: its number, and its descriptors.
    pub(crate) fn open(&mut self, process: Process) -> (u64, Vec<OwnedFd>) {
        let answer = self.ask(|request| Order::Open { request, process });
        let Report::Opened { process, .. } = answer.message else { panic!("{:?}", answer.message) };
        (process, answer.descriptors)
    }

    /// Opens a terminal: its number, and its first viewer.
    pub(crate) fn terminal(&mut self, command: &str, change: impl FnOnce(&mut Process)) -> (u64, Screen) {
        let pty = Pty { term: "xterm".into(), size: Size { columns: 80, rows: 24 }, modes: Vec::new() };
        let mut process = Process { pty: Some(pty), ..shell(command) };
        change(&mut process);
        let (process, descriptors) = self.open(process);
        (process, Screen::new(descriptors))
    }

    /// One more viewer.
    pub(crate) fn view(&mut self, name: &str, size: Size) -> Screen {
        let answer = self.ask(|request| Order::View { request, name: name.to_owned(), size });
        assert!(matches!(answer.message, Report::Opened { found: true, .. }), "{:?}", answer.message);
        Screen::new(answer.descriptors)
    }

    /// Why an order is refused.
    pub(crate) fn refused(&mut self, order: impl FnOnce(u64) -> Order) -> Failure {
        match self.ask(order).message {
            Report::Failed { why, .. } => why,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn exit(&mut self, of: u64) -> Exit {
        self.until(|report| match report {
            Report::Exited { process, exit } if *process == of => Some(*exit),
            _ => None,
        })
        .0
    }

    pub(crate) fn list(&mut self) -> Vec<Terminal> {
        let Report::Terminals { terminals, .. } = self.ask(|request| Order::List { request }).message else { panic!() };
        terminals
    }

    /// The terminals, once this is so of them.
    pub(crate) fn listed(&mut self, so: impl Fn(&[Terminal]) -> bool) -> Vec<Terminal> {
        let until = Instant::now() + PATIENCE;
        loop {
            let terminals = self.list();
            if so(&terminals) {
                return terminals;
            }
            assert!(Instant::now() < until, "{terminals:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until this is so of the services.
    pub(crate) fn services(&mut self, so: impl Fn(&[ServiceState]) -> bool) -> Vec<ServiceState> {
        self.until(|report| match report {
            Report::Services { services } if so(services) => Some(services.clone()),
            _ => None,
        })
        .0
    }

    /// What is read of the services' logs.
    pub(crate) fn logs(&mut self, service: Option<&str>, follow: bool) -> Screen {
        let answer = self.ask(|request| Order::Logs { request, service: service.map(str::to_owned), follow });
        assert!(matches!(answer.message, Report::Connected { .. }), "{:?}", answer.message);
        Screen::new(answer.descriptors)
    }

    /// The same, once there is this to be read.
    pub(crate) fn logged(&mut self, service: Option<&str>, text: &str) -> String {
        let mut screen = self.logs(service, true);
        screen.see(text);
        screen.text()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn signal_init(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.init), signal).unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// What a viewer has seen.
pub(crate) struct Screen {
    socket: File,
    pub(crate) seen: Vec<u8>,
}

impl Screen {
    fn new(descriptors: Vec<OwnedFd>) -> Self {
        let [socket] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
        Self { socket: socket.into(), seen: Vec::new() }
    }

    /// Reads until this has been seen.
    pub(crate) fn see(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.read() > 0, "it ended without {text:?}: {:?}", self.text());
        }
    }

    /// Reads to its end.
    pub(crate) fn end(&mut self) -> String {
        while self.read() > 0 {}
        self.text()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    pub(crate) fn kind(&self, text: &str) {
        use std::io::Write;
        (&self.socket).write_all(text.as_bytes()).unwrap();
    }

    /// What has come, at most 64 KiB.
    pub(crate) fn read(&mut self) -> usize {
        wait(&self.socket);
        let mut buffer = [0; 64 * 1024];
        let length = self.socket.read(&mut buffer).unwrap();
        self.seen.extend(&buffer[..length]);
        length
    }
}

/// The words of a shell's command.
pub(crate) fn shell(command: &str) -> Process {
    Process { program: Program::Command(command.into()), home: "/".into(), ..Process::default() }
}

/// Everything that a descriptor has to say.
pub(crate) fn all(descriptor: OwnedFd) -> Vec<u8> {
    let mut file = File::from(descriptor);
    let mut all = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        wait(&file);
        match file.read(&mut buffer).unwrap() {
            0 => return all,
            length => all.extend(&buffer[..length]),
        }
    }
}

pub(crate) fn wait(descriptor: impl AsFd) {
    let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "nothing came");
}

fn pair() -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn listening(directory: &tempfile::TempDir) -> (OwnedFd, PathBuf) {
    let path = directory.path().join("gateway");
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 4).unwrap();
    (listener, path)
}

fn call(listener: &OwnedFd) -> OwnedFd {
    wait(listener);
    accept_with(listener, SocketFlags::CLOEXEC).unwrap()
}
