//! The first process of a workspace's container: opens processes, keeps terminals, connects and listens for the gateway, and reaps.
//!
//! `innkeeper-init [--socket PATH]`; under other names it is something else: a session's process that is about to be, or what people in
//! the container call. It runs without any right that the container's user has not, in images of every kind.

mod callers;
mod dial;
mod failure;
mod gateway;
mod hearers;
mod init;
mod input_modes;
mod jobs;
mod launch;
mod listen;
mod listeners;
mod local;
mod login;
mod modes;
mod note;
mod pipes;
mod poll;
mod processes;
mod pty;
mod resolve;
mod screen;
mod services;
mod session;
mod stop;
mod terminal;
mod viewer;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use innkeeper_init::protocol::SOCKET;
use nix::sys::signal::{SigSet, Signal};
use rustix::net::SocketAddrUnix;

/// The name under which it is a container's first process.
const NAME: &str = "innkeeper-init";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    init::quiet_panics();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some(launch::NAME) => session::run(),
        // Whatever an engine calls it, it is what holds the container up.
        _ if rustix::process::getpid() == rustix::process::Pid::INIT => first(arguments.collect()),
        Some(NAME) | None => first(arguments.collect()),
        Some(other) => local::run(other, &arguments.collect::<Vec<_>>()),
    }
}

fn first(arguments: Vec<OsString>) -> ExitCode {
    let socket = match arguments.as_slice() {
        [] => Path::new(SOCKET),
        [option, path] if option.as_bytes() == b"--socket" => Path::new(path),
        _ => {
            note::note("it takes no arguments but --socket PATH");
            return ExitCode::from(2);
        }
    };
    // Nothing in the container may read or change this process, though it is the same user's.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    // What everybody in the container may send. The standard library catches them to tell of a stack's overflow, and gives up where the second
    // comes while it looks at the first; a fault of our own ends us nevertheless. Who is started takes them again.
    let faults: SigSet = [Signal::SIGSEGV, Signal::SIGBUS].into_iter().collect();
    let _ = faults.thread_block();
    let _ = std::env::set_current_dir("/");
    let init = SocketAddrUnix::new(socket).map_err(Into::into).and_then(init::Init::new);
    match init {
        Ok(init) => {
            init.run();
            ExitCode::SUCCESS
        }
        Err(why) => {
            note::note(&format!("it cannot start: {why}"));
            ExitCode::FAILURE
        }
    }
}
