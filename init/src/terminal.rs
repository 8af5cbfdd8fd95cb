//! A terminal: the program's pseudo-terminal, the screen, and those who watch.
//!
//! init always keeps the terminal's own end and copies; a viewer has one end of a socket. A terminal cannot be read without blocking in a
//! way that the container could not undo (the flag is shared), and like this it outlives viewers and gateways by itself.
//!
//! Who gets what: output goes to the screen and to every viewer. While at least one has room the program is not held up; whoever is slower
//! than that misses output, and is painted the whole screen when it has caught up. When none has room the program waits, so that a single
//! viewer misses nothing. Without viewers nothing waits.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use innkeeper_init::protocol::{self, Failure, Size};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::termios::tcgetpgrp;

use crate::poll::{Poll, Source, Want, Watch};
use crate::pty;
use crate::screen::Screen;
use crate::viewer::Viewer;

/// Most viewers of one terminal.
const VIEWERS: usize = 16;

/// Longest piece of output taken at once: as much as the kernel gives.
const PIECE: usize = 4096;

/// Most pieces taken before others have their turn.
const PIECES: usize = 16;

/// Most output taken of a program that has ended: more than a pseudo-terminal holds. Somebody else may go on writing to it.
const REST: usize = 256 * 1024;

/// Most input that waits for the program, in bytes.
const INPUT: usize = 16 * 1024;

/// How long a terminal that no process has open is left alone: a session's leader may open it again, and nothing tells.
const REST_TIME: Duration = Duration::from_millis(100);

/// A terminal.
pub(crate) struct Terminal {
    process: u64,
    /// The name it has been given, by its opener or because it was lost.
    name: String,
    /// Whether its opener has named it: then it stays, whoever watches.
    named: bool,
    keep: Duration,
    /// `None` once it has been hung up, or its program has ended.
    master: Option<OwnedFd>,
    watch: Watch,
    /// Until when it is left alone.
    resting: Option<Instant>,
    screen: Screen,
    viewers: Vec<Viewer>,
    next_viewer: u64,
    input: VecDeque<u8>,
    /// Since when nobody watches.
    alone: Option<Instant>,
}

// === impl Terminal ===

impl Terminal {
    pub(crate) fn new(process: u64, master: OwnedFd, size: Size, name: Option<&str>, keep: u32) -> Self {
        Self {
            process,
            name: name.unwrap_or_default().to_owned(),
            named: name.is_some(),
            keep: Duration::from_secs(keep.into()),
            master: Some(master),
            watch: Watch::default(),
            resting: None,
            screen: Screen::new(size),
            viewers: Vec::new(),
            next_viewer: 0,
            input: VecDeque::new(),
            alone: None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is there for viewers: its program has not ended, and it was not hung up.
    pub(crate) fn is_open(&self) -> bool {
        self.master.is_some()
    }

    /// How it is listed.
    pub(crate) fn listed(&self, now: Instant) -> protocol::Terminal {
        let alone = self.alone.map(|since| now.saturating_duration_since(since));
        protocol::Terminal {
            process: self.process,
            name: self.name.clone(),
            viewers: self.viewers.len() as u32,
            alone: alone.map_or(0, |time| time.as_secs() as u32),
            left: alone.filter(|_| !self.named).map(|time| self.keep.saturating_sub(time).as_secs() as u32),
        }
    }

    /// One more viewer, whose end is returned. Its first is the program's first too; later ones are painted what is there.
    pub(crate) fn view(&mut self, first: bool) -> Result<OwnedFd, Failure> {
        if self.viewers.len() >= VIEWERS {
            return Err(Failure::Exhausted);
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(crate::failure::of)?;
        let mut viewer = Viewer::new(self.next_viewer, ours);
        self.next_viewer += 1;
        if !first {
            viewer.paint(&self.screen.paint(true));
        }
        self.viewers.push(viewer);
        self.alone = None;
        Ok(theirs)
    }

    /// Has the program paint itself: some do better than the screen that was kept.
    pub(crate) fn nudge(&self) {
        if let Some(group) = self.foreground() {
            let _ = kill_process_group(group, Signal::WINCH);
        }
    }

    /// Another size, unless nobody knows it.
    pub(crate) fn resize(&mut self, size: Size) {
        if let Some(master) = self.master.as_ref().filter(|_| size != Size::default()) {
            let _ = pty::resize(master, size);
            self.screen.resize(size);
        }
    }

    /// The process group that has the terminal.
    pub(crate) fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(self.master.as_ref()?).ok()
    }

    /// The terminal has something to say, or room.
    pub(crate) fn master_ready(&mut self) {
        for _ in 0..PIECES {
            if !self.takes_output() || !matches!(self.read(), Ok(Some(_))) {
                break;
            }
        }
        self.write();
    }

    /// A viewer has something to say, or room, or has left.
    pub(crate) fn viewer_ready(&mut self, id: u64) {
        let Some(viewer) = self.viewers.iter_mut().find(|viewer| viewer.id == id) else { return };
        viewer.flush();
        if self.input.len() >= INPUT {
            // The program does not take what has been typed, and may never: whoever leaves meanwhile has left.
            viewer.gone |= viewer.has_hung_up();
        } else {
            let mut buffer = [0; PIECE];
            match recv(&viewer.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => viewer.gone = true,
                Ok((_, length)) if self.master.is_some() => self.input.extend(buffer.iter().take(length)),
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => viewer.gone = true,
            }
        }
        self.write();
    }

    /// The program has ended: what it has said last goes out, and then every viewer's socket ends.
    pub(crate) fn finish(&mut self, poll: &mut Poll) {
        let mut rest = REST;
        while rest > 0 {
            let Ok(Some(length)) = self.read() else { break };
            rest = rest.saturating_sub(length);
        }
        self.close(poll);
    }

    /// Whoever it was for does not come back.
    pub(crate) fn hang_up(&mut self, leader: Option<Pid>, poll: &mut Poll) {
        for group in [self.foreground(), leader].into_iter().flatten() {
            let _ = kill_process_group(group, Signal::HUP);
            let _ = kill_process_group(group, Signal::CONT);
        }
        self.close(poll);
    }

    /// It is of no use: its program has never been.
    pub(crate) fn abandon(&mut self, poll: &mut Poll) {
        self.close(poll);
        self.viewers.iter_mut().for_each(|viewer| poll.forget(&viewer.socket, &mut viewer.watch));
    }

    /// Whether nobody has come back in time.
    pub(crate) fn is_overdue(&self, now: Instant) -> bool {
        self.is_open() && self.hang_up_at().is_some_and(|at| at <= now)
    }

    /// When it has something to do, if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.hang_up_at().into_iter().chain(self.resting).min().filter(|_| self.is_open())
    }

    /// Draws the conclusions of what has happened: who has left, who is painted anew, what is waited for. `lost` names it if it needs a
    /// name. Returns whether there is still something to do for it.
    pub(crate) fn settle(&mut self, now: Instant, poll: &mut Poll, lost: impl FnOnce() -> String) -> bool {
        if self.viewers.iter().any(Viewer::wants_painting) {
            let painting = self.screen.paint(false);
            self.viewers.iter_mut().filter(|viewer| viewer.wants_painting()).for_each(|viewer| viewer.paint(&painting));
        }
        let open = self.is_open();
        for viewer in &mut self.viewers {
            viewer.gone |= !open && !viewer.is_waiting();
            if viewer.gone {
                poll.forget(&viewer.socket, &mut viewer.watch);
            }
        }
        self.viewers.retain(|viewer| !viewer.gone);
        if open && self.viewers.is_empty() && self.alone.is_none() {
            self.alone = Some(now);
            if self.name.is_empty() {
                self.name = lost();
            }
        }
        self.resting = self.resting.filter(|until| *until > now);
        let want = Want { read: self.takes_output(), write: !self.input.is_empty(), hangup: false };
        let want = if self.resting.is_some() { Want::NOTHING } else { want };
        if let Some(master) = &self.master {
            poll.watch(master, &mut self.watch, Source::Master { process: self.process }, want);
        }
        let takes_input = self.input.len() < INPUT;
        for viewer in &mut self.viewers {
            let want = Want { read: takes_input, write: viewer.is_waiting(), hangup: true };
            poll.watch(&viewer.socket, &mut viewer.watch, Source::Viewer { process: self.process, viewer: viewer.id }, want);
        }
        open || !self.viewers.is_empty()
    }

    fn hang_up_at(&self) -> Option<Instant> {
        self.alone.filter(|_| !self.named).map(|since| since + self.keep)
    }

    fn takes_output(&self) -> bool {
        self.viewers.is_empty() || self.viewers.iter().any(|viewer| viewer.has_room(PIECE))
    }

    /// Takes a piece of output, and says how long it was.
    fn read(&mut self) -> Result<Option<usize>, Errno> {
        let Some(master) = &self.master else { return Ok(None) };
        let mut buffer = [0; PIECE];
        let length = match rustix::io::read(master, &mut buffer[..]) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(why) => {
                // Nobody has it open. It would say so without end.
                self.resting = Some(Instant::now() + REST_TIME);
                return Err(why);
            }
        };
        let piece = buffer.get(..length).unwrap_or_default();
        // First of all those who wait for it.
        self.viewers.iter_mut().for_each(|viewer| viewer.offer(piece));
        self.screen.feed(piece);
        Ok(Some(length))
    }

    fn write(&mut self) {
        let Some(master) = &self.master else { return };
        while !self.input.is_empty() {
            match rustix::io::write(master, self.input.as_slices().0) {
                Ok(taken) => drop(self.input.drain(..taken)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => self.input.clear(),
            }
        }
        self.input.shrink_to(0);
    }

    fn close(&mut self, poll: &mut Poll) {
        if let Some(master) = self.master.take() {
            poll.forget(&master, &mut self.watch);
        }
        self.input.clear();
    }
}
