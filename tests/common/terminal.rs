//! Processes that are talked to while they run: at a pseudo-terminal, as a person does, or through pipes, as a program does.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use pty_process::Size;
use pty_process::blocking::Pty;

use super::{DEADLINE, Done, finish, signal};

/// A process at a terminal of its own. It ends with the value.
pub struct Terminal {
    pty: Arc<Pty>,
    child: Child,
    said: Transcript,
}

/// A process with pipes. It ends with the value.
pub struct Session {
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    said: Transcript,
    complained: Transcript,
}

/// What a process has said, and how much of it was read.
#[derive(Clone, Default)]
struct Transcript {
    said: Arc<(Mutex<Said>, Condvar)>,
    read: usize,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

// === impl Terminal ===

impl Terminal {
    /// Starts a program at a new terminal.
    pub fn open(command: &Command, rows: u16, columns: u16) -> Self {
        let (pty, pts) = pty_process::blocking::open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let mut at_terminal = pty_process::blocking::Command::new(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            at_terminal = match value {
                Some(value) => at_terminal.env(name, value),
                None => at_terminal.env_remove(name),
            };
        }
        let child = at_terminal.spawn(pts).unwrap();
        let pty = Arc::new(pty);
        let said = Transcript::default();
        said.follow(Shared(Arc::clone(&pty)));
        Self { pty, child, said }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&self, keys: impl AsRef<[u8]>) {
        (&*self.pty).write_all(keys.as_ref()).unwrap();
    }

    /// Waits until this text appears in what was not read yet, and returns everything up to it and it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        self.said.expect(text)
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        self.pty.resize(Size::new(rows, columns)).unwrap();
    }

    /// Everything that was on the terminal.
    pub fn seen(&self) -> Vec<u8> {
        self.said.all()
    }

    /// Closes its window, and waits until what ran at it is gone.
    #[track_caller]
    pub fn close(self) {
        signal(self.pid(), "HUP");
        self.end();
    }

    /// Waits for the end: the status, and everything that was on the terminal.
    #[track_caller]
    pub fn end(mut self) -> (Option<i32>, Vec<u8>) {
        let all = self.said.whole();
        (self.child.wait().unwrap().code(), all)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A terminal, read in one thread and written in another.
struct Shared(Arc<Pty>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

// === impl Session ===

impl Session {
    /// Starts a program.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (said, complained) = (Transcript::default(), Transcript::default());
        said.follow(child.stdout.take().unwrap());
        complained.follow(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child: Some(child), said, complained }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn send(&mut self, input: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(input.as_ref()).unwrap();
        stdin.flush().unwrap();
    }

    /// Ends its input.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits until this text appears in what was not read yet of its output, and returns everything up to it and it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        self.said.expect(text)
    }

    /// Waits for the end, its input left as it is.
    #[track_caller]
    pub fn end(mut self) -> Done {
        let mut done = finish(self.child.take().unwrap(), DEADLINE);
        done.stdout = self.said.whole();
        done.stderr = String::from_utf8_lossy(&self.complained.whole()).into_owned();
        done
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be stopped.
            signal(child.id(), "CONT");
            child.kill().ok();
            child.wait().ok();
        }
    }
}

// === impl Transcript ===

impl Transcript {
    fn follow(&self, mut from: impl Read + Send + 'static) {
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                // The master of a terminal that nobody has open any more fails to be read.
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut state = said.0.lock();
                state.bytes.extend(&buffer[..count]);
                state.ended = count == 0;
                said.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
    }

    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let read = self.read;
        let find = |said: &Said| said.bytes[read..].windows(text.len()).position(|window| window == text.as_bytes());
        let (at, from) = self.wait(&format!("{text:?}"), |said| find(said).map(|at| (at + text.len(), said.bytes[read..].to_vec())));
        self.read += at;
        String::from_utf8_lossy(&from[..at]).into_owned()
    }

    #[track_caller]
    fn whole(&self) -> Vec<u8> {
        self.wait("the end", |said| said.ended.then(|| said.bytes.clone()))
    }

    fn all(&self) -> Vec<u8> {
        self.said.0.lock().bytes.clone()
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, find: impl Fn(&Said) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut said = self.said.0.lock();
        loop {
            if let Some(found) = find(&said) {
                return found;
            }
            let in_vain = said.ended || self.said.1.wait_until(&mut said, deadline).timed_out();
            assert!(!in_vain, "waited in vain for {what}; it said {:?}", String::from_utf8_lossy(&said.bytes));
        }
    }
}
