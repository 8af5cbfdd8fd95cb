//! What a client may ask for on a session channel, and in which order: decided here and at once, done in `session`.

use std::sync::Arc;

use russh::Pty as Mode;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::aids::Offered;
use super::environment::{AcceptEnv, Environment};
use super::input::Input;
use crate::attach::{Program, Pty, WindowSize};

/// Longest `TERM`, in bytes. Terminfo names are shorter.
const MAX_TERM: usize = 64;

/// Largest terminal, in columns and rows.
const MAX_CELLS: u32 = 10_000;

/// The size of a terminal whose client knows none, as of a script that forces one.
const UNKNOWN_SIZE: WindowSize = WindowSize { columns: 80, rows: 24 };

/// What a session starts with.
#[derive(Debug)]
pub(super) struct Start {
    /// What runs, or what the client is told instead: a refused request would end its channel before it could read why.
    pub(super) program: Result<Program, &'static str>,
    pub(super) pty: Option<Pty>,
    /// What the client set and was allowed to.
    pub(super) environment: Vec<(String, String)>,
    /// What the client lends.
    pub(super) offered: Offered,
}

/// The requests on one channel so far.
pub(super) struct Requests {
    environment: Environment,
    pty: Option<Pty>,
    /// What the client lends, and may.
    pub(super) offered: Offered,
    start: Option<oneshot::Sender<Start>>,
    pub(super) input: Arc<Input>,
    /// Held by the session's task as well; once it alone has it, the channel is over.
    permit: Arc<OwnedSemaphorePermit>,
}

impl Requests {
    pub(super) fn new(start: oneshot::Sender<Start>, input: Arc<Input>, permit: Arc<OwnedSemaphorePermit>) -> Self {
        Self { environment: Environment::default(), pty: None, offered: Offered::default(), start: Some(start), input, permit }
    }

    /// Whether the session has ended.
    pub(super) fn is_over(&self) -> bool {
        Arc::strong_count(&self.permit) == 1
    }

    /// Whether a program was asked for already.
    pub(super) fn has_started(&self) -> bool {
        self.start.is_none()
    }

    /// `env`.
    pub(super) fn set_env(&mut self, accept: &AcceptEnv, name: &str, value: &str) -> bool {
        !self.has_started() && self.environment.set(accept, name, value)
    }

    /// `pty-req`.
    pub(super) fn set_pty(&mut self, term: &str, columns: u32, rows: u32, modes: &[(Mode, u32)]) -> bool {
        if self.has_started() || self.pty.is_some() {
            return false;
        }
        let printable = !term.is_empty() && term.len() <= MAX_TERM && term.bytes().all(|b| b.is_ascii_graphic());
        self.pty = Some(Pty {
            term: if printable { term } else { "dumb" }.to_owned(),
            size: window_size(columns, rows),
            modes: modes.iter().filter(|(mode, _)| *mode != Mode::TTY_OP_END).map(|(mode, value)| (*mode as u8, *value)).collect(),
        });
        self.input.set_terminal();
        true
    }

    /// `shell`, `exec` or `subsystem`, of which there is one.
    pub(super) fn start(&mut self, program: Result<Program, &'static str>) -> bool {
        let Some(start) = self.start.take() else { return false };
        let environment = self.environment.take();
        start.send(Start { program, pty: self.pty.take(), environment, offered: std::mem::take(&mut self.offered) }).is_ok()
    }
}

/// A size that a terminal can have, from what a client says.
pub(super) fn window_size(columns: u32, rows: u32) -> WindowSize {
    let cells = |asked: u32, unknown: u16| if asked == 0 { unknown } else { u16::try_from(asked.min(MAX_CELLS)).unwrap_or(unknown) };
    WindowSize { columns: cells(columns, UNKNOWN_SIZE.columns), rows: cells(rows, UNKNOWN_SIZE.rows) }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn requests() -> (Requests, oneshot::Receiver<Start>) {
        let (sender, receiver) = oneshot::channel();
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Requests::new(sender, Arc::new(Input::counted(Arc::default())), Arc::new(permit)), receiver)
    }

    #[test]
    fn one_program_and_one_terminal_and_nothing_after() {
        let (mut requests, mut started) = requests();
        assert!(requests.set_pty("xterm", 0, 70_000, &[(Mode::ECHO, 1), (Mode::TTY_OP_END, 0)]));
        assert!(!requests.set_pty("xterm", 80, 24, &[]), "second terminal");
        assert!(requests.start(Ok(Program::LoginShell)));
        assert!(!requests.start(Ok(Program::LoginShell)), "second program");
        assert!(!requests.set_env(&AcceptEnv::new(&["*".to_owned()]), "A", "1"), "too late");
        let pty = started.try_recv().unwrap().pty.unwrap();
        assert_eq!(pty, Pty { term: "xterm".into(), size: WindowSize { columns: 80, rows: 10_000 }, modes: vec![(53, 1)] });
    }

    #[test]
    fn a_term_that_is_none_becomes_dumb() {
        for term in ["", "a b", "\x1b[2J", &"x".repeat(65)] {
            let (mut requests, mut started) = requests();
            assert!(requests.set_pty(term, 80, 24, &[]) && requests.start(Ok(Program::LoginShell)));
            assert_eq!(started.try_recv().unwrap().pty.unwrap().term, "dumb");
        }
    }
}
