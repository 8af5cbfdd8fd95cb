//! Attaching through the engine's exec.
//!
//! Works with every image that has a POSIX shell; what else an image lacks costs that feature, and says so. What an engine's exec does
//! not offer is made up for by two scripts that run inside: `login.sh` becomes the process, `signal.sh` reaches it later.
//!
//! Limits that remain: input of a terminal cannot end before its output (the engine would close both); without a terminal, output ends when
//! the last process that holds it has ended, as with sshd; no terminal outlives its client; a process that hides its environment (not dumpable) gets no signals; a command may
//! be as long as the kernel lets one argument be (128 KiB, a quarter of it where it is not UTF-8).

mod modes;
mod terminal;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWrite};

use self::terminal::Terminal;
use super::{Attach, AttachError, Chunk, Control, Exit, OutputKind, Process, ProcessSpec, Program, WindowSize};
use crate::engine::docker::demux::{self, Source};
use crate::engine::{ContainerId, Engine, EngineError, ExecId, ExecSpec, ExecState, shell_code};

/// Who everything in a container runs as.
const USER: (u32, u32) = (1000, 1000);

/// How long an ended process may take to be known as ended: its output ends a little before.
const EXIT_KNOWN: Duration = Duration::from_secs(15);

/// How often a process that cannot be found yet is looked for, and how long in between: it may be about to start.
const SIGNAL_TRIES: u32 = 4;
const SIGNAL_RETRY: Duration = Duration::from_millis(100);

/// How long one search for a process and its signal may take.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(10);

/// The status with which `signal.sh` says that there is no such process.
const NOT_FOUND: i64 = 3;

/// The signals that a client may send: those of RFC 4254 section 6.10.
const SIGNALS: [&str; 13] = ["ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2"];

static LOGIN: LazyLock<String> = LazyLock::new(|| shell_code(include_str!("login.sh")));
static SIGNAL: LazyLock<String> = LazyLock::new(|| shell_code(include_str!("signal.sh")));

/// Opens processes through an engine's exec.
pub struct ExecAttach {
    engine: Arc<dyn Engine>,
    home: String,
}

impl ExecAttach {
    /// Attaches through this engine. `home` is where a process starts in a container that names no home (`HOME` in its environment) and
    /// whose `/etc/passwd` has none either.
    pub fn new(engine: Arc<dyn Engine>, home: impl Into<String>) -> Self {
        Self { engine, home: home.into() }
    }
}

#[async_trait::async_trait]
impl Attach for ExecAttach {
    async fn open(&self, container: &ContainerId, spec: &ProcessSpec) -> Result<Process, AttachError> {
        if spec.terminal.is_some() {
            return Err(AttachError::Unsupported("a terminal with a name in a container without init"));
        }
        let mark = format!("{:032x}", rand::random::<u128>());
        let tty = spec.pty.is_some();
        let exec = script(&LOGIN, login_env(spec, &self.home, &mark)?, tty);
        let stream = self.engine.exec(container, &exec).await?;
        let terminal = spec.pty.as_ref().map(|pty| Terminal::open(self.engine.clone(), stream.id.clone(), pty.size));
        let (engine, container) = (self.engine.clone(), container.clone());
        let control = Arc::new(ExecControl { engine, container, exec: stream.id, mark, terminal });
        if !tty {
            let output = demux::demultiplex(stream.output).map(|part| {
                let (source, data) = part?;
                let kind = if source == Source::Stdout { OutputKind::Stdout } else { OutputKind::Stderr };
                Ok(Chunk { kind, data })
            });
            return Ok(Process { input: stream.input, output: Box::pin(output), control });
        }
        // The output holds on to the input: were it dropped, the engine would close both.
        let input = TerminalInput(Arc::new(Mutex::new(stream.input)));
        let held = input.0.clone();
        let output = demux::raw(stream.output).map(move |data| {
            let _held = &held;
            Ok(Chunk { kind: OutputKind::Stdout, data: data? })
        });
        Ok(Process { input: Box::pin(input), output: Box::pin(output), control })
    }
}

/// An exec that runs a script, which is told everything in its environment.
fn script(code: &str, mut env: Vec<(String, String)>, tty: bool) -> ExecSpec {
    env.push(("INNKEEPER_SCRIPT".to_owned(), code.to_owned()));
    let argv = ["/bin/sh", "-c", r#"eval "$INNKEEPER_SCRIPT""#].map(str::to_owned).to_vec();
    ExecSpec { argv, env, tty, user: USER, working_dir: Some("/".to_owned()) }
}

/// What a process is started with: the session's own environment, and after it, so that it counts, what the script is told.
fn login_env(spec: &ProcessSpec, home: &str, mark: &str) -> Result<Vec<(String, String)>, AttachError> {
    let no_nul = |text: &str| !text.contains('\0');
    let usable = |(name, value): &&(String, String)| !name.is_empty() && !name.contains('=') && no_nul(name) && no_nul(value);
    let mut env: Vec<_> = spec.env.iter().filter(usable).cloned().collect();
    let mut tell = |name: &str, value: String| env.push((name.to_owned(), value));

    let (program, command) = match &spec.program {
        Program::LoginShell => ("shell", String::new()),
        Program::Sftp => ("sftp", String::new()),
        Program::Command(bytes) if bytes.contains(&0) => return Err(AttachError::Unsupported("a NUL in a command")),
        Program::Command(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => ("command", text.to_owned()),
            // The engine's API speaks UTF-8 only.
            Err(_) => ("octal", bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()),
        },
    };
    if let Some(pty) = &spec.pty {
        let WindowSize { columns, rows } = pty.size;
        let known = columns > 0 && rows > 0;
        if !pty.term.is_empty() && no_nul(&pty.term) {
            tell("TERM", pty.term.clone());
        }
        tell("INNKEEPER_TERMINAL", if known { format!("rows {rows} cols {columns}") } else { String::new() });
        tell("INNKEEPER_MODES", modes::stty(&pty.modes));
        let greeting = spec.greeting.as_deref().filter(|_| spec.program == Program::LoginShell).unwrap_or_default();
        tell("INNKEEPER_GREETING", greeting.trim_end_matches('\n').replace('\0', ""));
    }
    tell("INNKEEPER_PROGRAM", program.to_owned());
    tell("INNKEEPER_COMMAND", command);
    tell("INNKEEPER_UID", USER.0.to_string());
    tell("INNKEEPER_HOME", home.to_owned());
    tell("INNKEEPER_SESSION", mark.to_owned());
    Ok(env)
}

/// The input of a terminal. It has no end: a terminal's end of input is a key.
struct TerminalInput(Arc<Mutex<Pin<Box<dyn AsyncWrite + Send>>>>);

impl AsyncWrite for TerminalInput {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().as_mut().poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().as_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().as_mut().poll_flush(cx)
    }
}

/// What can be asked of an exec.
struct ExecControl {
    engine: Arc<dyn Engine>,
    container: ContainerId,
    exec: ExecId,
    /// What its first process carries in its environment.
    mark: String,
    terminal: Option<Terminal>,
}

#[async_trait::async_trait]
impl Control for ExecControl {
    async fn resize(&self, size: WindowSize) -> Result<(), AttachError> {
        let terminal = self.terminal.as_ref().ok_or(AttachError::Unsupported("a size without a terminal"))?;
        terminal.resize(size);
        Ok(())
    }

    async fn signal(&self, name: &str) -> Result<(), AttachError> {
        let name = SIGNALS.into_iter().find(|known| *known == name).ok_or(AttachError::Unsupported("this signal"))?;
        self.send(name, false).await
    }

    async fn exit(&self) -> Result<Exit, AttachError> {
        let status = self.status(&self.exec).await?;
        Ok(Exit::Status(u32::try_from(status).unwrap_or(255)))
    }

    async fn hang_up(&self) -> Result<(), AttachError> {
        self.send("HUP", true).await
    }

    /// It would go on, but the engine shows an exec to nobody a second time.
    fn outlives(&self) -> bool {
        false
    }
}

impl ExecControl {
    /// Has the signal sent by a process inside. A process that has ended needs none.
    async fn send(&self, signal: &str, hang_up: bool) -> Result<(), AttachError> {
        for _ in 0..SIGNAL_TRIES {
            if self.engine.exec_state(&self.exec).await? != ExecState::Running {
                return Ok(());
            }
            let sent = tokio::time::timeout(SIGNAL_DEADLINE, self.try_send(signal, hang_up)).await;
            if sent.unwrap_or(Err(EngineError::TimedOut("signal")))? {
                return Ok(());
            }
            tokio::time::sleep(SIGNAL_RETRY).await;
        }
        Err(EngineError::NotFound("process of the session".to_owned()).into())
    }

    /// Whether the process was found.
    async fn try_send(&self, signal: &str, hang_up: bool) -> Result<bool, EngineError> {
        let told = [("TARGET", self.mark.as_str()), ("SIGNAL", signal), ("HANG_UP", if hang_up { "yes" } else { "no" })];
        let env = told.map(|(name, value)| (format!("INNKEEPER_{name}"), value.to_owned())).to_vec();
        let mut stream = self.engine.exec(&self.container, &script(&SIGNAL, env, false)).await?;
        // It says nothing; the end of its output is its own.
        let mut nothing = [0; 512];
        while stream.output.read(&mut nothing).await.map_err(|error| EngineError::Unreachable(error.to_string()))? > 0 {}
        Ok(self.status(&stream.id).await? != NOT_FOUND)
    }

    /// The status of an exec whose output has ended.
    async fn status(&self, exec: &ExecId) -> Result<i64, EngineError> {
        let known = async {
            let mut wait = Duration::from_millis(5);
            loop {
                if let ExecState::Exited(status) = self.engine.exec_state(exec).await? {
                    return Ok(status);
                }
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
        };
        tokio::time::timeout(EXIT_KNOWN, known).await.unwrap_or(Err(EngineError::TimedOut("exec exit")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::Pty;
    use crate::engine::fake::{Call, FakeEngine, Script};

    fn told(spec: &ProcessSpec) -> Vec<(String, String)> {
        login_env(spec, "/home/user", "mark").unwrap()
    }

    fn command(bytes: &[u8]) -> ProcessSpec {
        ProcessSpec { greeting: Some("hello".to_owned()), ..ProcessSpec::new(Program::Command(bytes.to_vec())) }
    }

    fn value<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
        // Of two of the same name the engine takes the last.
        env.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_session_cannot_tell_the_script_anything() {
        let mut spec = command("é".as_bytes());
        let env = [("INNKEEPER_SESSION", "forged"), ("INNKEEPER_COMMAND", "forged"), ("", "x"), ("A=B", "x"), ("C", "\0"), ("D", "kept")];
        spec.env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let env = told(&spec);
        assert_eq!(value(&env, "INNKEEPER_SESSION"), Some("mark"));
        assert_eq!(value(&env, "INNKEEPER_COMMAND"), Some("é"));
        assert_eq!(value(&env, "D"), Some("kept"));
        assert!(env.iter().all(|(name, value)| !name.is_empty() && !name.contains('=') && !value.contains('\0')));
        assert_eq!(value(&env, "INNKEEPER_GREETING"), None, "nobody is greeted without a terminal");
    }

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        let env = told(&command(b"\xffa%\n"));
        assert_eq!((value(&env, "INNKEEPER_PROGRAM"), value(&env, "INNKEEPER_COMMAND")), (Some("octal"), Some("\\377\\141\\045\\012")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_size_is_offered_until_it_is_taken() {
        let fake = FakeEngine::new();
        let engine: Arc<dyn Engine> = Arc::new(fake.clone());
        let made = crate::engine::fake::small_container(&fake).await;
        fake.script(Script::Echo);
        fake.fail(Call::ExecResize, EngineError::NotRunning);
        let size = WindowSize { columns: 80, rows: 24 };
        let pty = Some(Pty { term: "xterm".to_owned(), size, modes: Vec::new() });
        let process = ExecAttach::new(engine, "/").open(&made, &ProcessSpec { pty, ..command(b"") }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(fake.calls(Call::ExecResize) > 2);
        process.control.resize(WindowSize { columns: 81, rows: 24 }).await.expect("kept for later");
        fake.mend(Call::ExecResize);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let settled = fake.calls(Call::ExecResize);
        process.control.resize(size).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(fake.calls(Call::ExecResize), settled + 1, "told at once, and no more of the first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_size_that_changes_at_once_is_said_again_once_the_script_is_through() {
        let fake = FakeEngine::new();
        let engine: Arc<dyn Engine> = Arc::new(fake.clone());
        let made = crate::engine::fake::small_container(&fake).await;
        fake.script(Script::Echo);
        let size = WindowSize { columns: 80, rows: 24 };
        let pty = Some(Pty { term: "xterm".to_owned(), size, modes: Vec::new() });
        let process = ExecAttach::new(engine, "/").open(&made, &ProcessSpec { pty, ..command(b"") }).await.unwrap();
        process.control.resize(WindowSize { columns: 81, rows: 24 }).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(fake.calls(Call::ExecResize), 3, "when it was opened, and twice when the script may have set its own");
    }
}
