//! What breaks things under a gateway, and what measures whether it minded.
//!
//! Everything here takes itself away again when it is dropped.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::gateway::{DEADLINE, Done, Gateway, finish, run, wait_for};

/// Starts a gateway that is expected to refuse, and waits until it has ended.
pub fn refusal(gateway: &Gateway) -> Done {
    let child = gateway.innkeeper().arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child, DEADLINE)
}

/// What a refusal says to a person: the lines that are not the log's.
pub fn complaints(refusal: &Done) -> Vec<&str> {
    refusal.stderr.lines().filter(|line| !line.starts_with('{')).collect()
}

/// Waits until a gateway that was signalled has ended by itself, and says with which status; `None`: by a signal.
pub fn ended(gateway: &mut Gateway) -> Option<i32> {
    let stat = || fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields = |stat: &str| stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect::<Vec<_>>();
    wait_for("the gateway to end", || fields(&stat())[0] == "Z");
    // The last field: what `wait` will say.
    let code: i32 = fields(stat().trim()).last().unwrap().parse().unwrap();
    gateway.kill();
    (code & 0x7f == 0).then_some(code >> 8)
}

/// A small file system of its own on a directory, so that filling it hurts nobody else.
pub struct SmallDisk {
    pub dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one; what the directory holds is kept in it.
    pub fn at(dir: &Path, size: &str) -> Self {
        let kept = tempfile::tempdir().unwrap();
        let copy = |from: &Path, to: &Path| run(Command::new("cp").args(["-a", "-T"]).arg(from).arg(to)).good();
        copy(dir, kept.path());
        let mode = format!("size={size},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &mode, "innkeeper-test"]).arg(dir)).good();
        copy(kept.path(), dir);
        Self { dir: dir.to_owned() }
    }

    /// Writes until nothing fits any more; the file takes all the room.
    pub fn fill(&self) -> PathBuf {
        let path = self.dir.join(".ballast");
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        for piece in [1 << 16, 4096, 1] {
            let bytes = vec![b'x'; piece];
            while file.write_all(&bytes).is_ok() {}
        }
        assert!(fs::write(self.dir.join(".one-more"), "x").is_err(), "the disk is full");
        fs::remove_file(self.dir.join(".one-more")).ok();
        path
    }

    pub fn unmount(&self) {
        Command::new("umount").arg("-l").arg(&self.dir).stderr(Stdio::null()).status().ok();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A relay between a gateway and the engine that can be cut, held up, and told to break answers in the middle.
pub struct Relay {
    pub socket: PathBuf,
    state: Arc<RelayState>,
}

struct RelayState {
    /// Connections are refused, and those that are open are broken.
    cut: AtomicBool,
    /// No byte goes either way.
    held: Mutex<bool>,
    freed: Condvar,
    /// Bytes that answers may still have before connections break; negative: any number.
    allowance: AtomicI64,
    open: Mutex<Vec<UnixStream>>,
}

impl Relay {
    /// One to the machine's engine, at this path.
    pub fn start(socket: &Path) -> Self {
        Self::to(socket, Path::new("/var/run/docker.sock"))
    }

    pub fn to(socket: &Path, engine: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let state = Arc::new(RelayState {
            cut: AtomicBool::new(false),
            held: Mutex::new(false),
            freed: Condvar::new(),
            allowance: AtomicI64::new(-1),
            open: Mutex::default(),
        });
        let (shared, engine) = (Arc::clone(&state), engine.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(engine) = UnixStream::connect(&engine) else { continue };
                let mut open = shared.open.lock().unwrap();
                // Whoever is gone is forgotten, so that a long test does not run out of descriptors.
                open.retain(|stream| stream.take_error().is_ok() && is_alive(stream));
                open.push(client.try_clone().unwrap());
                drop(open);
                for (from, to, answers) in [(&client, &engine, false), (&engine, &client, true)] {
                    let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&shared));
                    std::thread::spawn(move || shared.carry(from, to, answers));
                }
            }
        });
        Self { socket: socket.to_owned(), state }
    }

    /// The engine is gone: open connections break, new ones are closed at once.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        for stream in self.state.open.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    /// The engine accepts connections and says nothing.
    pub fn hold(&self) {
        *self.state.held.lock().unwrap() = true;
    }

    /// Answers end in the middle, after so many bytes of all of them together.
    pub fn break_after(&self, bytes: i64) {
        self.state.allowance.store(bytes, Ordering::SeqCst);
    }

    /// All is as it was.
    pub fn restore(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
        self.state.allowance.store(-1, Ordering::SeqCst);
        *self.state.held.lock().unwrap() = false;
        self.state.freed.notify_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.restore();
    }
}

impl RelayState {
    fn carry(&self, mut from: UnixStream, mut to: UnixStream, answers: bool) {
        let mut piece = [0; 16 * 1024];
        loop {
            let read = from.read(&mut piece).unwrap_or(0);
            let mut held = self.held.lock().unwrap();
            while *held {
                held = self.freed.wait(held).unwrap();
            }
            drop(held);
            let mut whole = true;
            let mut bytes = &piece[..read];
            if answers && self.allowance.load(Ordering::SeqCst) >= 0 {
                let before = self.allowance.fetch_sub(read as i64, Ordering::SeqCst).max(0);
                if before < read as i64 {
                    self.allowance.store(0, Ordering::SeqCst);
                    bytes = &bytes[..before as usize];
                    whole = false;
                }
            }
            if to.write_all(bytes).is_err() || read == 0 || !whole {
                let how = if whole { std::net::Shutdown::Write } else { std::net::Shutdown::Both };
                to.shutdown(how).ok();
                if !whole {
                    from.shutdown(how).ok();
                }
                return;
            }
        }
    }
}

fn is_alive(stream: &UnixStream) -> bool {
    fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).is_ok() && stream.peer_addr().is_ok()
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    pub descriptors: usize,
    pub threads: usize,
    /// Resident memory, in KiB.
    pub memory: u64,
}

/// What a process holds right now.
pub fn holdings(pid: u32) -> Holdings {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    Holdings {
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        threads: field("Threads:") as usize,
        memory: field("VmRSS:"),
    }
}

/// What a process holds once that no longer changes much.
pub fn steady(pid: u32) -> Holdings {
    let mut seen = holdings(pid);
    for _ in 0..60 {
        pause(1_000);
        let now = holdings(pid);
        let is_steady = now.memory <= seen.memory + 256;
        seen = now;
        if is_steady {
            break;
        }
    }
    seen
}

/// When each running container of the instance was started, by name: one that was touched has another time.
pub fn started(gateway: &Gateway) -> Vec<(String, String)> {
    let running = gateway.containers().into_iter().filter(|(_, state)| state == "running");
    let time = |name: &String| run(Command::new("docker").args(["inspect", "-f", "{{.Id}} {{.State.StartedAt}}", name])).good();
    running.map(|(name, _)| (name.clone(), time(&name))).collect()
}

/// Runs something in the background and hands its result over.
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

/// A pause that is part of what is tried, not a wait for something.
pub fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
