//! Terminals by their names: how a client asks for one, and which there are.
//!
//! `@work` as the whole command, or `alice+work` as the login, is the terminal `work`; `@` alone asks for a list. No shell takes such a word
//! for a command. Nothing is known here of how a terminal outlives its clients.

use crate::attach::{Program, Terminal};
use crate::name::TerminalName;

use super::words;

/// What a command begins with that is for the gateway.
const MARK: &[u8] = b"@";

/// What the program is called that a mosh client has started.
const MOSH: &[u8] = b"mosh-server";

/// What stands before it where the client asks the other side for its address.
const MOSH_ASKS: &[u8] = br#"sh -c '[ -n "$SSH_CONNECTION" ] && printf "\nMOSH SSH_CONNECTION %s\n" "$SSH_CONNECTION"' ; "#;

/// Terminals that are told of at once. A container that has more has not been used by a person.
const MAX_SHOWN: usize = 64;

/// What a session is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A program of the container's.
    Run(Program),
    /// A shell in the terminal of this name, or what is in it already.
    Terminal(TerminalName),
    /// The list of terminals.
    List,
    /// Nothing: this is said, and the channel ends with this status.
    Refused(&'static str, u32),
}

/// Whether a command asks for a terminal or for the list of them.
pub(super) fn is_asked_for(command: &[u8]) -> bool {
    requested(command).is_some()
}

/// Which terminal a command asks for; `Some(None)`: for all of them.
fn requested(command: &[u8]) -> Option<Option<TerminalName>> {
    let name = std::str::from_utf8(command.strip_prefix(MARK)?).ok()?;
    if name.is_empty() { Some(None) } else { name.parse().ok().map(Some) }
}

fn is_mosh(command: &[u8]) -> bool {
    command.strip_prefix(MOSH_ASKS).unwrap_or(command).strip_prefix(MOSH).is_some_and(|rest| rest.is_empty() || rest.starts_with(b" "))
}

impl Asked {
    /// What a client means that wants `program`, at a terminal if `pty`, and has named `terminal` at login.
    pub(super) fn of(program: Result<Program, &'static str>, pty: bool, terminal: Option<&TerminalName>) -> Self {
        let command = match (program, terminal) {
            (Err(words), _) => return Self::Refused(words, words::NOT_PERMITTED),
            (Ok(Program::LoginShell), Some(name)) if pty => return Self::Terminal(name.clone()),
            (Ok(Program::Command(command)), _) => command,
            (Ok(program), _) => return Self::Run(program),
        };
        match requested(&command) {
            Some(Some(name)) if pty => Self::Terminal(name),
            Some(Some(_)) => Self::Refused(words::NEEDS_TERMINAL, words::USAGE),
            Some(None) => Self::List,
            None if is_mosh(&command) => Self::Refused(words::NO_MOSH, words::USAGE),
            None => Self::Run(Program::Command(command)),
        }
    }

    /// The value of the metric label `kind`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Run(Program::LoginShell) | Self::Terminal(_) => "shell",
            Self::Run(Program::Command(_)) | Self::List => "exec",
            Self::Run(Program::Sftp) => "sftp",
            Self::Refused(..) => "refused",
        }
    }
}

/// Those that somebody can get into, by name. What a container says of its own is believed only as far as it is of the right form.
pub(super) fn reachable(terminals: Vec<Terminal>) -> Vec<(TerminalName, Terminal)> {
    let named = terminals.into_iter().filter_map(|terminal| Some((terminal.name.parse().ok()?, terminal)));
    let mut named: Vec<(TerminalName, Terminal)> = named.take(MAX_SHOWN).collect();
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    named
}

/// Those of them that were lost and that nobody has come back to.
pub(super) fn lost(terminals: Vec<Terminal>) -> Vec<(TerminalName, Terminal)> {
    let mut lost = reachable(terminals);
    lost.retain(|(name, terminal)| name.is_lost() && terminal.viewers == 0);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(command: &str, pty: bool, named: &str) -> Asked {
        let program = if command.is_empty() { Program::LoginShell } else { Program::Command(command.into()) };
        Asked::of(Ok(program), pty, named.parse().ok().as_ref())
    }

    #[test]
    fn a_terminal_is_asked_for_by_a_login_or_by_a_command_and_only_with_a_terminal() {
        let work = || Asked::Terminal("work".parse().unwrap());
        assert_eq!((asked("", true, "work"), asked("@work", true, ""), asked("@work", true, "other")), (work(), work(), work()));
        assert_eq!(asked("@work", false, "work"), Asked::Refused(words::NEEDS_TERMINAL, words::USAGE));
        assert_eq!((asked("@", true, "work"), asked("@", false, "")), (Asked::List, Asked::List));
        assert_eq!(asked("", false, "work"), Asked::Run(Program::LoginShell));
        for command in ["vim", "@Work", "@work ", " @work", "@work x", "@@work", "work", "mosh-servers"] {
            assert_eq!(asked(command, true, "work"), Asked::Run(Program::Command(command.into())), "{command}");
            assert!(!is_asked_for(command.as_bytes()));
        }
        assert_eq!(Asked::of(Ok(Program::Sftp), true, Some(&"work".parse().unwrap())), Asked::Run(Program::Sftp));
        let asks = r#"sh -c '[ -n "$SSH_CONNECTION" ] && printf "\nMOSH SSH_CONNECTION %s\n" "$SSH_CONNECTION"' ; mosh-server 'new'"#;
        for command in ["mosh-server new -c 256", asks] {
            assert_eq!(asked(command, true, ""), Asked::Refused(words::NO_MOSH, words::USAGE));
        }
    }

    #[test]
    fn what_a_container_says_of_its_terminals_is_no_more_than_names() {
        let said = |name: &str, viewers| Terminal { process: 1, name: name.to_owned(), viewers, alone: 7, left: None };
        let all = || vec![said("", 1), said("\x1b[2J", 0), said("lost-2", 0), said("lost-1", 0), said("work", 0), said("lost-3", 1)];
        let names = |found: Vec<(TerminalName, Terminal)>| found.into_iter().map(|(name, _)| String::from(name)).collect::<Vec<_>>();
        assert_eq!(names(reachable(all())), ["lost-1", "lost-2", "lost-3", "work"]);
        assert_eq!(names(lost(all())), ["lost-1", "lost-2"]);
        assert_eq!(reachable(vec![said("x", 0); 1000]).len(), MAX_SHOWN);
    }
}
