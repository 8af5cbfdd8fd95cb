//! `innkeeper recording`: recordings of terminals, asked of the running gateway over its socket.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::workspace::span;
use super::workspace::tasks::size;
use super::{CommandError, asking, block_on, screens};
use crate::name::{WorkspaceName, printable};
use crate::recording::RecordingId;
use crate::units::Span;

#[derive(Debug, Subcommand)]
pub(super) enum RecordingCommand {
    /// List recordings, the newest first
    List {
        /// Only those of this workspace
        #[arg(long)]
        workspace: Option<WorkspaceName>,
    },
    /// Show everything that is known of a recording
    Show {
        /// Its name, as `recording list` shows it
        #[arg(value_parser = id)]
        id: RecordingId,
    },
    /// Play a recording at this terminal, which nothing of it can drive; elsewhere, print the last screen
    Play {
        /// Its name
        #[arg(value_parser = id)]
        id: RecordingId,
        /// How much faster than it was, from 0.1 to 100
        #[arg(long, default_value_t = 1.0)]
        speed: f64,
        /// How long a pause is at most
        #[arg(long, value_name = "TIME", value_parser = time)]
        idle_limit: Option<Span>,
        /// From when on
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<Span>,
    },
    /// Write a recording to a file or to standard output as asciinema does, with whatever a program in it has written
    Export {
        /// Its name
        #[arg(value_parser = id)]
        id: RecordingId,
        /// The file, of which there must be none
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Remove a recording for good
    Remove {
        /// Its name
        #[arg(value_parser = id)]
        id: RecordingId,
    },
}

/// A recording as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Recording {
    id: String,
    workspace: String,
    account: String,
    started: String,
    seconds: Option<u64>,
    bytes: u64,
    state: String,
}

fn id(text: &str) -> Result<RecordingId, String> {
    text.parse().map_err(|()| "not a recording's name; `innkeeper recording list` shows them".to_owned())
}

fn time(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned())
}

/// Asks the gateway that listens at this socket; `json`: screens are printed as an object a line.
pub(super) fn run(command: RecordingCommand, socket: &Path, json: bool) -> Result<Answer, CommandError> {
    match command {
        RecordingCommand::List { workspace } => {
            let only = workspace.map_or_else(String::new, |name| format!("?workspace={name}"));
            Ok(Answer::list(block_on(asking::list(socket, &format!("/api/v1/recordings{only}")))??, table))
        }
        RecordingCommand::Show { id } => {
            let recording = block_on(asking::get(socket, &format!("/api/v1/recordings/{id}")))??;
            Ok(Answer::shown(recording, |recording| Ok(facts(&recording))))
        }
        RecordingCommand::Play { id, speed, idle_limit, from } => {
            let seconds =
                |span: Option<Span>, name: &str| span.map_or_else(String::new, |span| format!("&{name}={}", span.get().as_secs_f64()));
            let (idle, from) = (seconds(idle_limit, "idle"), seconds(from, "from"));
            screens::show(socket, &format!("/api/v1/recordings/{id}/frames?speed={speed}{idle}{from}"), json)?;
            Ok(Answer::nothing())
        }
        RecordingCommand::Export { id, output } => {
            export(socket, id, output.as_deref())?;
            Ok(Answer::nothing())
        }
        RecordingCommand::Remove { id } => {
            block_on(asking::act(socket, Method::DELETE, &format!("/api/v1/recordings/{id}"), None))??;
            Ok(Answer::did(format!("recording {id} is removed\n"), json!({ "id": id.to_string() }), Value::Null))
        }
    }
}

/// What is known of one, a line each.
fn facts(recording: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), printable);
    let rows = recording.as_object().into_iter().flatten().map(|(name, value)| [printable(name), text(value)]);
    output::table(&rows.collect::<Vec<_>>())
}

fn export(socket: &Path, id: RecordingId, output: Option<&Path>) -> Result<(), CommandError> {
    if output.is_none() && io::stdout().is_terminal() {
        return Err(anyhow::anyhow!("a recording has in it whatever a program wrote: name a file with --output, or use `play`").into());
    }
    let path = format!("/api/v1/recordings/{id}/download");
    let mut to: Box<dyn Write> = match output {
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Box::new(file.with_context(|| path.display().to_string())?)
        }
        None => Box::new(io::stdout().lock()),
    };
    block_on(asking::download(socket, &path, |piece| to.write_all(piece)))???;
    Ok(to.flush()?)
}

fn table(all: &[Recording]) -> String {
    let mut rows = vec![["ID", "WORKSPACE", "ACCOUNT", "STARTED", "FOR", "SIZE", "STATE"].map(str::to_owned)];
    rows.extend(all.iter().map(|one| {
        let [id, workspace, account, started, state] =
            [&one.id, &one.workspace, &one.account, &one.started, &one.state].map(|text| printable(text));
        [id, workspace, account, started, span(one.seconds), size(one.bytes), state]
    }));
    output::table(&rows)
}
