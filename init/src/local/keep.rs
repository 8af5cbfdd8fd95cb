//! `innkeeper-keep`: keeps the workspace running while a command runs, or until it is interrupted.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::Arc;

use innkeeper_init::protocol::{Answer, Ask};
use signal_hook::consts::{SIGINT, SIGQUIT};

use super::{REFUSED, USAGE, ask, complain, duration, print};

pub(super) const NAME: &str = "innkeeper-keep";

const HELP: &str = "\
usage: innkeeper-keep DURATION [--] COMMAND [ARGUMENT...]
       innkeeper-keep DURATION

Keeps this workspace running while COMMAND runs, at most for DURATION, though
nobody is connected. Without a command it does so until it is interrupted.
DURATION is for example 90s, 30m, 2h, 1d or 1h30m.
It ends as the command does; with 75, and without running it, if the workspace
is not kept.
";

/// Longest text of what it is for, in bytes: more is not shown to anybody.
const WHAT: usize = 256;

/// What a shell ends with that cannot find a command, and that cannot run it.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// What somebody wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Help,
    Keep { seconds: u32, command: &'a [OsString] },
}

/// Keeps it.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    let (seconds, command) = match parse(arguments) {
        Some(Wanted::Help) => {
            print(HELP);
            return ExitCode::SUCCESS;
        }
        Some(Wanted::Keep { seconds, command }) => (seconds, command),
        None => {
            complain(HELP);
            return ExitCode::from(USAGE);
        }
    };
    let held = match keep(seconds, command) {
        Ok(held) => held,
        Err(why) => {
            complain(&format!("{NAME}: not kept: {why}\n"));
            return ExitCode::from(REFUSED);
        }
    };
    match command {
        [] => {
            ask::wait(&held, None);
            ExitCode::SUCCESS
        }
        [program, arguments @ ..] => run_command(program, arguments),
    }
}

fn parse(arguments: &[OsString]) -> Option<Wanted<'_>> {
    let (first, command) = arguments.split_first()?;
    if first == "--help" || first == "-h" {
        return Some(Wanted::Help);
    }
    let seconds = duration::parse(first.to_str()?)?;
    match command {
        [dashes] if dashes == "--" => None,
        [dashes, command @ ..] if dashes == "--" => Some(Wanted::Keep { seconds, command }),
        [option, ..] if option.as_encoded_bytes().starts_with(b"-") => None,
        command => Some(Wanted::Keep { seconds, command }),
    }
}

/// What holds the lease until it is dropped, or why there is none.
fn keep(seconds: u32, command: &[OsString]) -> Result<OwnedFd, String> {
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let mut what = if words.is_empty() { NAME.to_owned() } else { words.join(" ") };
    what.truncate(what.floor_char_boundary(WHAT));
    match ask::ask(&Ask::Keep { seconds, what }) {
        Ok((_, Answer::Kept { seconds: 0, words })) => Err(words.unwrap_or_else(|| "the gateway has refused".to_owned())),
        Ok((socket, Answer::Kept { seconds: granted, words })) => {
            if granted < seconds {
                let words = words.map(|words| format!(": {words}")).unwrap_or_default();
                complain(&format!("{NAME}: kept for {} at most{words}\n", duration::show(granted)));
            }
            Ok(socket)
        }
        Ok(_) => Err("the answer is to another question".to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

fn run_command(program: &OsString, arguments: &[OsString]) -> ExitCode {
    // A terminal sends these to the command as well, and how it ends with them is what counts. The command has them as they were.
    for signal in [SIGINT, SIGQUIT] {
        let _ = signal_hook::flag::register(signal, Arc::default());
    }
    match Command::new(program).args(arguments).status() {
        Ok(status) => ExitCode::from(code(status)),
        Err(why) => {
            complain(&format!("{NAME}: {program:?}: {why}\n"));
            ExitCode::from(if why.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
        }
    }
}

/// As a shell would say it.
fn code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => (128 + signal.unwrap_or_default()) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &str) -> Vec<OsString> {
        words.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_command_is_what_follows_the_duration() {
        let kept = |text: &str| match parse(&words(text)) {
            Some(Wanted::Keep { seconds, command }) => Some((seconds, command.join(&OsString::from(" ")).into_string().unwrap())),
            _ => None,
        };
        assert_eq!(kept("2h make -j2 -- all"), Some((7200, "make -j2 -- all".to_owned())));
        assert_eq!(kept("90s -- -odd --help"), Some((90, "-odd --help".to_owned())));
        assert_eq!(kept("1d"), Some((86_400, String::new())));
        for wrong in ["", "make", "2h --", "2h -v make", "-- 2h make"] {
            assert_eq!(parse(&words(wrong)), None, "{wrong}");
        }
        assert_eq!(parse(&words("--help")), Some(Wanted::Help));
    }

    #[test]
    fn an_end_by_a_signal_is_told_as_a_shell_does() {
        assert_eq!((code(ExitStatus::from_raw(3 << 8)), code(ExitStatus::from_raw(15))), (3, 143));
    }
}
