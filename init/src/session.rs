//! Becoming a session's process: what init, started again as [`crate::launch::NAME`], does.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use innkeeper_init::protocol::{Failure, MAX_MESSAGE, Process, Report};
use innkeeper_init::wire;
use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure;
use crate::launch::{Exec, Launch};
use crate::login::{self, Login};

/// Becomes the process that the socket on standard input tells of, or says there why not.
pub(crate) fn run() -> ExitCode {
    // What init holds back from itself, nobody else does without.
    let _ = SigSet::empty().thread_set_mask();
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { maximum: limit.current, ..limit });
    // Closed once this has become the program: init's sign that all is well.
    let Ok(socket) = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3) else { return ExitCode::FAILURE };
    // Its order may be long in coming, and until then it is seen by whoever looks what runs there.
    let _ = rustix::thread::set_name(c"innkeeper-init");
    while let Err(Errno::INTR) = poll(&mut [PollFd::new(&socket, PollFlags::IN)], None) {}
    let Ok(received) = wire::receive(&socket, &mut vec![0; MAX_MESSAGE]) else { return ExitCode::FAILURE };
    let (why, text) = match received.message {
        Launch::Session(process) => become_it(process, received.descriptors),
        Launch::Exec(exec) => return become_program(exec, received.descriptors),
    };
    // Longer than that it is nobody's reading, and init would not take it.
    let text = text.chars().take(512).collect();
    if let Ok(bytes) = wire::encode(&Report::Failed { request: 0, why, text }) {
        let _ = wire::send(&socket, &bytes, &[]);
    }
    ExitCode::FAILURE
}

/// Returns only if it cannot be.
fn become_it(process: Process, descriptors: Vec<OwnedFd>) -> (Failure, String) {
    if let Err(why) = stand(&process, descriptors) {
        return (failure::of(why), format!("the session: {why}"));
    }
    let login = Login::of_this_container(&process);
    if std::env::set_current_dir(&login.home).is_err() {
        // Somewhere that is always there: a home that may not be entered is no reason not to let her in.
        let _ = std::env::set_current_dir("/");
    }
    let (program, name, arguments) = match login.program(&process.program) {
        Ok(program) => program,
        Err(why) => return why,
    };
    if process.pty.is_some()
        && let Some(greeting) = login.greeting(&process)
    {
        let _ = std::io::stdout().write_all(format!("{greeting}\n").as_bytes());
    }
    let mut command = Command::new(&program);
    command.arg0(name).args(arguments).env_clear().envs(login.env);
    let why = command.exec();
    (failure::of_io(&why), format!("{}: {why}", program.display()))
}

/// Returns only if it cannot be, with what a shell says then; the words are on standard error, which is its own by now.
fn become_program(exec: Exec, descriptors: Vec<OwnedFd>) -> ExitCode {
    let why = exec_program(exec, descriptors);
    let _ = std::io::stderr().write_all(format!("innkeeper: cannot be started: {why}\n").as_bytes());
    ExitCode::from(127)
}

fn exec_program(exec: Exec, descriptors: Vec<OwnedFd>) -> String {
    let process = Process { home: exec.home, ..Process::default() };
    if let Err(why) = stand(&process, descriptors) {
        return format!("the session: {why}");
    }
    let mut login = Login::of_this_container(&process);
    login::add(&mut login.env, &exec.env);
    let entered = match &exec.directory {
        Some(directory) => std::env::set_current_dir(login.home.join(directory)).map_err(|why| format!("{directory:?}: {why}")),
        None => std::env::set_current_dir(&login.home).or_else(|_| std::env::set_current_dir("/")).map_err(|why| why.to_string()),
    };
    if let Err(why) = entered {
        return why;
    }
    let Some((program, arguments)) = exec.command.split_first() else { return "no command".to_owned() };
    let why = Command::new(program).args(arguments).env_clear().envs(login.env).exec();
    format!("{program:?}: {why}")
}

/// Takes the session's place: at the head of its own session, its terminal the controlling one.
fn stand(process: &Process, descriptors: Vec<OwnedFd>) -> Result<(), Errno> {
    rustix::process::setsid()?;
    let mut descriptors = descriptors.into_iter();
    let input = descriptors.next().ok_or(Errno::BADF)?;
    if process.pty.is_some() {
        rustix::process::ioctl_tiocsctty(&input)?;
        return onto_standard(&input, &input, &input);
    }
    let (output, error) = (descriptors.next().ok_or(Errno::BADF)?, descriptors.next().ok_or(Errno::BADF)?);
    onto_standard(&input, &output, &error)
}

fn onto_standard(input: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(input.as_fd())?;
    rustix::stdio::dup2_stdout(output.as_fd())?;
    rustix::stdio::dup2_stderr(error.as_fd())
}

/// The path of the terminal this process has, as programs in the container would find it.
pub(crate) fn terminal_path() -> Option<std::ffi::OsString> {
    // Without comparing what is there: it is taken from the kernel, and for whoever runs here alone.
    let path = rustix::fs::readlink("/proc/self/fd/0", Vec::new()).ok()?.into_bytes();
    login::os(path).filter(|path| std::path::Path::new(path).is_absolute())
}
