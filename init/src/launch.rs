//! Starting a process, as init sees it: init starts itself again, and hands that one the order and what the process is to read and write.
//!
//! The new one, a launcher, finds out whose login it is and becomes the program ([`crate::session`]). Whatever can be slow or go wrong on the way, a
//! home that does not answer say, happens there, and never to the container's first process. Its socket ends when it has become the
//! program; what it says before is why it could not.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use innkeeper_init::protocol::{Exit, Failure, Process, Report, Variable};
use innkeeper_init::wire::{self, WireError};
use minicbor::{Decode, Encode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitStatus, kill_process, kill_process_group};

use crate::failure;

/// The name under which init is started to become a session's process.
pub(crate) const NAME: &str = "innkeeper-launch";

/// init's own program, whatever has become of the file.
const SELF: &str = "/proc/self/exe";

/// What the new one is to become. Only ever said between two of the same build.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Launch {
    /// A session's process.
    #[n(0)]
    Session(#[n(0)] Process),
    /// A program that is there for itself.
    #[n(1)]
    Exec(#[n(0)] Exec),
}

/// A service, or what checks one. What it is started with are its input, output and error; why it cannot be started it says on the last.
#[derive(Debug, Encode, Decode)]
pub(crate) struct Exec {
    /// Program and arguments.
    #[n(0)]
    pub(crate) command: Vec<String>,
    /// Environment, beside a login's.
    #[n(1)]
    pub(crate) env: Vec<Variable>,
    /// Where it starts: absolute, or below the home; the home otherwise.
    #[n(2)]
    pub(crate) directory: Option<String>,
    /// The home of a container that names none.
    #[n(3)]
    pub(crate) home: String,
}

/// How a launch stands.
pub(crate) enum Launched {
    /// Not yet.
    Pending,
    /// It has become the program.
    Done,
    /// It could not.
    Failed(Failure, String),
}

/// A process that was started and has no order yet. It ends when its socket does.
pub(crate) struct Launcher {
    pid: Pid,
    socket: OwnedFd,
}

impl Launcher {
    pub(crate) fn start() -> Result<Self, (Failure, String)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|why| (failure::of(why), format!("socket: {why}")))?;
        let child = Command::new(SELF).arg0(NAME).stdin(Stdio::from(theirs)).spawn();
        let child = child.map_err(|why| (failure::of_io(&why), format!("no process: {why}")))?;
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or((Failure::Other, "no process number".to_owned()))?;
        Ok(Self { pid, socket: ours })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets it become this, with these descriptors: a terminal, or input, output and error. Its number, and the socket that tells how it went.
    fn launch(self, order: &[u8], descriptors: &[OwnedFd]) -> Result<(Pid, OwnedFd), WireError> {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        wire::send(&self.socket, order, &borrowed)?;
        // One that has waited may have been stopped meanwhile.
        let _ = kill_process(self.pid, Signal::CONT);
        Ok((self.pid, self.socket))
    }
}

/// Starts a process with these descriptors, by the launcher that is there ahead if it still is. Its number, and the socket that tells how it
/// went.
pub(crate) fn start(ahead: Option<Launcher>, launch: &Launch, descriptors: &[OwnedFd]) -> Result<(Pid, OwnedFd), (Failure, String)> {
    let invalid = |why| (Failure::Invalid, format!("the order: {why}"));
    let order = wire::encode(launch).map_err(invalid)?;
    if let Some(launched) = ahead.and_then(|launcher| launcher.launch(&order, descriptors).ok()) {
        return Ok(launched);
    }
    Launcher::start()?.launch(&order, descriptors).map_err(invalid)
}

/// How it stands, from what its socket says.
pub(crate) fn state(socket: &OwnedFd) -> Launched {
    // It is the container's, and so is what it says.
    match wire::receive(socket, &mut [0; 4096]) {
        Ok(wire::Received { message: Report::Failed { why, text, .. }, .. }) => Launched::Failed(why, text),
        Err(WireError::WouldBlock) => Launched::Pending,
        Err(WireError::Closed) => Launched::Done,
        Ok(_) | Err(_) => Launched::Failed(Failure::Other, "the launch went wrong".to_owned()),
    }
}

/// Where nothing comes from and everything may go.
pub(crate) fn nowhere() -> io::Result<OwnedFd> {
    OpenOptions::new().read(true).write(true).open("/dev/null").map(File::into)
}

/// Sends a signal to the group of a process that was started.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    // One that is only being launched may lead no group yet.
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

/// How a process ended, in the words for the gateway.
pub(crate) fn exit_of(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => Exit::Signal(signal as u8),
        (status, None) => Exit::Status(status.unwrap_or_default() as u8),
    }
}
