//! What is done with a whole workspace. The running gateway does it, and goes on should this command end before.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::output::{self, Answer};
use crate::cli::{CommandError, asking, block_on};
use crate::name::{SnapshotName, WorkspaceName, printable};
use crate::units::Size;

/// A workspace that was deleted, as the gateway answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Deleted {
    name: String,
    state: String,
    deleted: String,
    until: String,
    bytes: Option<u64>,
    homes: Vec<String>,
}

/// What was done, as the gateway answers it.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Done {
    /// All of it, for programs.
    #[serde(skip)]
    said: Value,
    homes: Vec<String>,
    bytes: Option<u64>,
    until: Option<String>,
    pub(super) unchanged: bool,
    pub(in crate::cli) consistent: Option<bool>,
    pub(in crate::cli) skipped: u64,
    /// What came of it for backups, which not every gateway says.
    #[serde(default)]
    pub(in crate::cli) backups: Vec<Value>,
    #[serde(default)]
    pub(in crate::cli) report: Value,
    #[serde(default)]
    pub(in crate::cli) failed: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum SnapshotCommand {
    /// Keep what there is now; it may be running
    Take {
        /// The snapshot's name, of which there must be none
        snapshot: SnapshotName,
    },
    /// List the snapshots
    List,
    /// Remove a snapshot for good
    Remove {
        /// The snapshot's name
        snapshot: SnapshotName,
    },
}

pub(super) fn snapshot(socket: &Path, name: &WorkspaceName, command: SnapshotCommand) -> Result<Answer, CommandError> {
    let to = |snapshot: &SnapshotName| json!({ "name": name, "snapshot": snapshot });
    match command {
        SnapshotCommand::Take { snapshot } => {
            let done = run(socket, name, &json!({ "snapshot": { "snapshot": snapshot } }))?;
            Ok(done.did_with_rest(format!("{name}@{snapshot} is kept ({}), {}\n", done.contents(), done.moment()), to(&snapshot)))
        }
        SnapshotCommand::Remove { snapshot } => {
            let done = run(socket, name, &json!({ "remove-snapshot": { "snapshot": snapshot } }))?;
            Ok(done.did(format!("{name}@{snapshot} is removed\n"), to(&snapshot)))
        }
        SnapshotCommand::List => super::settings::shown(socket, name, |mut answer| answer["snapshots"].take(), super::show::snapshots),
    }
}

pub(super) fn delete(socket: &Path, name: &WorkspaceName, now: bool, backups: bool) -> Result<Answer, CommandError> {
    let done = run(socket, name, &json!({ "delete": { "now": now, "backups": backups } }))?;
    let also = if backups { ", and so are its backups" } else { "" };
    let words = match &done.until {
        Some(until) => format!(
            "{name} is deleted ({}){also}; `innkeeper workspace undelete {name}` brings it back until {}\n",
            done.contents(),
            printable(until)
        ),
        None => format!("{name} is deleted for good ({}){also}\n", done.contents()),
    };
    Ok(done.did(words, json!({ "name": name })))
}

pub(super) fn undelete(socket: &Path, name: &WorkspaceName) -> Result<Answer, CommandError> {
    let done = run(socket, name, &json!({ "undelete": {} }))?;
    Ok(done.did(format!("{name} is back ({}); its secrets are not\n", done.contents()), json!({ "name": name })))
}

pub(super) fn copy(socket: &Path, from: &WorkspaceName, to: &WorkspaceName) -> Result<Answer, CommandError> {
    let done = run(socket, from, &json!({ "copy": { "to": to } }))?;
    let words = format!("{to} has what {from} has ({}), {}\n", done.contents(), done.moment());
    Ok(done.did_with_rest(words, json!({ "name": to, "from": from })))
}

/// Those that were deleted, as a table.
pub(super) fn table(all: &[Deleted]) -> String {
    let mut rows = vec![["NAME", "STATE", "DELETED", "UNTIL", "SIZE", "HOMES"].map(str::to_owned)];
    rows.extend(all.iter().map(|one| {
        let size = one.bytes.map_or_else(|| "-".to_owned(), size);
        let homes = if one.homes.is_empty() { "-".to_owned() } else { printable(&one.homes.join(" ")) };
        let [name, state, deleted, until] = [&one.name, &one.state, &one.deleted, &one.until].map(|text| printable(text));
        [name, state, deleted, until, size, homes]
    }));
    output::table(&rows)
}

/// Has a task done, says how it goes to who looks on, and gives what came of it.
pub(in crate::cli) fn run(socket: &Path, name: &WorkspaceName, task: &Value) -> Result<Done, CommandError> {
    run_at(socket, &format!("/api/v1/workspaces/{name}/tasks"), task)
}

/// The same of something that is not one workspace's.
pub(in crate::cli) fn run_at(socket: &Path, path: &str, task: &Value) -> Result<Done, CommandError> {
    Ok(Done::of(watched(socket, path, Some(task))?)?)
}

/// The same for anything that is told how it goes.
pub(super) fn watched(socket: &Path, path: &str, body: Option<&Value>) -> Result<Value, CommandError> {
    let mut told = Told::default();
    let done = block_on(asking::watch(socket, (Method::POST, path, body), |step| told.tell(step)))?;
    told.clear();
    Ok(done?)
}

pub(in crate::cli) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => Size::bytes(bytes).to_string(),
    }
}

impl Done {
    pub(super) fn of(said: Value) -> anyhow::Result<Self> {
        Ok(Self { said: said.clone(), ..output::understood(said)? })
    }

    /// The answer of a command that has done this to `to`.
    pub(in crate::cli) fn did(&self, words: String, to: Value) -> Answer {
        Answer::did(words, to, self.said.clone())
    }

    pub(in crate::cli) fn contents(&self) -> String {
        let homes = match self.homes.len() {
            0 => "it had no home".to_owned(),
            1 => "1 home".to_owned(),
            more => format!("{more} homes"),
        };
        self.bytes.map_or_else(|| homes.clone(), |bytes| format!("{homes}, {}", size(bytes)))
    }

    /// Of which moment a copy is.
    fn moment(&self) -> &'static str {
        match self.consistent {
            Some(true) => "all as it was at one moment",
            _ => "what was written to meanwhile is as a crash would have left it",
        }
    }

    /// The same, and what was left out.
    fn did_with_rest(&self, words: String, to: Value) -> Answer {
        let answer = self.did(words, to);
        let left = format!("{} things were left out: sockets, devices, or what changed while it was copied", self.skipped);
        if self.skipped > 0 { answer.remark(left) } else { answer }
    }
}

/// How it goes, on one line of a terminal.
#[derive(Debug, Default)]
pub(super) struct Told {
    any: bool,
}

impl Told {
    pub(super) fn tell(&mut self, step: &Value) {
        if !io::stderr().is_terminal() {
            return;
        }
        let (entries, bytes) = (step["entries"].as_u64().unwrap_or_default(), step["bytes"].as_u64().unwrap_or_default());
        let words = [&step["what"], &step["step"]].into_iter().find_map(Value::as_str).unwrap_or_default();
        let detail = step["detail"].as_str().map(|detail| format!(" {detail}")).unwrap_or_default();
        let place = step["position"].as_u64().map(|place| format!(", place {place}")).unwrap_or_default();
        let what = printable(&format!("{words}{place}{detail}"));
        let far = match (entries, bytes) {
            (0, 0) => String::new(),
            (0, bytes) => format!(": {}", size(bytes)),
            (entries, bytes) => format!(": {entries} files, {}", size(bytes)),
        };
        // Nobody is told less if this fails.
        let _ = write!(io::stderr(), "\r\x1b[K{what}{far} ");
        self.any = true;
    }

    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.any) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
