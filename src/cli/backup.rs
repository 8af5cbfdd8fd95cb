//! `innkeeper backup`: what the running gateway has in its repository, and what it is to do with that, asked over its socket.

use std::path::Path;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::asking;
use super::workspace::tasks::{self, Done, size};
use super::{CommandError, Exit, block_on, output};
use crate::name::{WorkspaceName, printable};

/// How many digits of a backup's name are shown: with fewer than that, two of a thousand might begin alike.
const DIGITS: usize = 12;

/// List, make, verify and restore backups of workspaces
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List backups, the newest first, and restores that wait to be confirmed
    List {
        /// Only of this workspace
        name: Option<WorkspaceName>,
        /// Print a JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Make a backup of workspaces now, running or not
    Run {
        /// Their names; without any, all that have a home
        names: Vec<WorkspaceName>,
        /// Print a JSON array instead of text
        #[arg(long)]
        json: bool,
    },
    /// Read the repository, and say what is damaged in it and which backups that hits; status 1 if anything is
    Verify {
        /// Read only so many percent of the data, chosen anew each time; everything else is always read
        #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        /// Print a JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Restore a backup as a new workspace, or in place of what the workspace has
    #[command(group = clap::ArgGroup::new("where").required(true))]
    Restore {
        /// Whose backup, and which: `alice` is her newest, `alice@1f0c` the one whose name begins so
        #[arg(value_name = "NAME[@BACKUP]")]
        from: Which,
        /// The new workspace, of which there must be none
        #[arg(long, value_name = "NAME", group = "where")]
        to: Option<WorkspaceName>,
        /// Stop the workspace and put the backup in place of what it has, which is kept until `confirm` or `revert`
        #[arg(long, group = "where")]
        in_place: bool,
    },
    /// Remove for good what a workspace had before it was restored in place
    Confirm {
        /// The workspace's name
        name: WorkspaceName,
    },
    /// Bring back what a workspace had before it was restored in place; people in it are told, and it is stopped
    Revert {
        /// The workspace's name
        name: WorkspaceName,
    },
}

/// A workspace's backup.
#[derive(Debug, Clone)]
struct Which {
    name: WorkspaceName,
    backup: Option<String>,
}

/// A backup as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    workspace: String,
    homes: Vec<String>,
    at: String,
    bytes: u64,
    files: u64,
    consistent: bool,
}

/// A restore that waits to be confirmed.
#[derive(Debug, Deserialize)]
struct Unconfirmed {
    workspace: String,
    since: String,
}

/// A backup that was made.
#[derive(Debug, Deserialize)]
struct Made {
    id: String,
    workspace: String,
    files: u64,
    bytes: u64,
    new_bytes: u64,
    consistent: bool,
    left_out: u64,
    examples: Vec<String>,
}

/// What was found in the repository.
#[derive(Debug, Deserialize)]
struct Report {
    files: u64,
    bytes: u64,
    backups: u64,
    wrong: u64,
    examples: Vec<String>,
    damaged: Vec<Damaged>,
}

/// A backup that cannot be restored whole.
#[derive(Debug, Deserialize)]
struct Damaged {
    id: String,
    workspace: String,
}

/// Asks the gateway that listens at this socket.
pub(super) fn run(args: BackupArgs, socket: &Path) -> Result<(), CommandError> {
    match args.command {
        Command::List { name, json } => list(socket, name.as_ref(), json),
        Command::Run { names, json } => make(socket, &names, json),
        Command::Verify { percent, json } => verify(socket, percent, json),
        Command::Restore { from: Which { name, backup }, to: Some(to), .. } => {
            let done = tasks::run(socket, &to, &json!({ "restore": { "from": name, "backup": backup } }))?;
            output::print(format!("{to} is what {name} was ({}); its secrets are not there\n", done.contents()))?;
            left_out(&done);
            Ok(())
        }
        Command::Restore { from: Which { name, backup }, to: None, .. } => {
            let done = tasks::run(socket, &name, &json!({ "restore-in-place": { "backup": backup } }))?;
            output::print(format!(
                "{name} is what it was ({}); what it had before is kept until `innkeeper backup confirm {name}`, and `revert` brings it back\n",
                done.contents()
            ))?;
            left_out(&done);
            Ok(())
        }
        Command::Confirm { name } => {
            let done = tasks::run(socket, &name, &json!({ "confirm-restore": {} }))?;
            Ok(output::print(format!("what {name} had before it was restored is removed for good ({})\n", done.contents()))?)
        }
        Command::Revert { name } => {
            let done = tasks::run(socket, &name, &json!({ "revert-restore": {} }))?;
            Ok(output::print(format!("{name} is what it was before it was restored ({})\n", done.contents()))?)
        }
    }
}

fn list(socket: &Path, name: Option<&WorkspaceName>, json: bool) -> Result<(), CommandError> {
    let query = name.map_or_else(String::new, |name| format!("?workspace={name}"));
    let (backups, unconfirmed) = block_on(asking::list_slowly(socket, &format!("/api/v1/backups{query}"), "unconfirmed"))??;
    if json {
        return Ok(output::print(format!("{:#}\n", json!({ "backups": backups, "unconfirmed": unconfirmed })))?);
    }
    let backups: Vec<Listed> = understood(backups)?;
    let unconfirmed: Vec<Unconfirmed> = understood(unconfirmed)?;
    let mut rows = vec![["BACKUP", "WORKSPACE", "AT", "FILES", "SIZE", "VOLUMES", "AS IT WAS"].map(str::to_owned)];
    rows.extend(backups.iter().map(Listed::row));
    output::print(output::table(&rows))?;
    for Unconfirmed { workspace, since } in &unconfirmed {
        let (name, since) = (printable(workspace), printable(since));
        output::print(format!(
            "{name} was restored in place at {since}: `innkeeper backup confirm {name}` removes what it had before, `revert` brings it back\n"
        ))?;
    }
    Ok(())
}

fn make(socket: &Path, names: &[WorkspaceName], json: bool) -> Result<(), CommandError> {
    let (mut made, mut failed): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    if names.is_empty() {
        let done = tasks::run_at(socket, "/api/v1/backups", &json!({ "back-up": {} }))?;
        (made, failed) = (done.backups, done.failed);
    }
    for name in names {
        match tasks::run(socket, name, &json!({ "back-up": {} })) {
            Ok(done) => made.extend(done.backups),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    if json {
        output::print(format!("{:#}\n", Value::Array(made)))?;
    } else {
        for made in understood::<Vec<Made>>(Value::Array(made))? {
            output::print(made.line())?;
            if made.left_out > 0 {
                let examples: Vec<String> = made.examples.iter().map(|example| printable(example)).collect();
                output::complain(&format!("{} things could not be read, among them {}", made.left_out, examples.join("; ")));
            }
        }
    }
    failed.iter().for_each(|why| output::complain(&printable(why)));
    if failed.is_empty() { Ok(()) } else { Err(CommandError::Said(Exit::Failed)) }
}

fn verify(socket: &Path, percent: u8, json: bool) -> Result<(), CommandError> {
    let done = tasks::run_at(socket, "/api/v1/backups", &json!({ "verify": { "share": f64::from(percent) / 100.0 } }))?;
    let report: Report = understood(done.report.clone())?;
    if json {
        output::print(format!("{:#}\n", done.report))?;
    } else {
        output::print(format!(
            "{} backups, {} files of the repository, {} read: {}\n",
            report.backups,
            report.files,
            size(report.bytes),
            if report.wrong == 0 { "all as it was written".to_owned() } else { format!("{} things are wrong", report.wrong) }
        ))?;
    }
    report.examples.iter().for_each(|example| output::complain(&printable(example)));
    for Damaged { id, workspace } in &report.damaged {
        output::complain(&format!("backup {} of {} cannot be restored whole", short(id), printable(workspace)));
    }
    if report.wrong == 0 { Ok(()) } else { Err(CommandError::Said(Exit::Failed)) }
}

fn left_out(done: &Done) {
    if done.consistent == Some(false) {
        output::complain(&"the backup was made of files in use: what was being written then is as a crash would have left it");
    }
    if done.skipped > 0 {
        output::complain(&format!(
            "{} things were left out: devices, sockets, or what could not be written; the gateway's log names some",
            done.skipped
        ));
    }
}

fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, CommandError> {
    Ok(serde_json::from_value(answer).context("the gateway's answer is not understood; is it of another version?")?)
}

fn short(id: &str) -> String {
    printable(id).chars().take(DIGITS).collect()
}

// === impl Listed, Made, Which ===

impl Listed {
    fn row(&self) -> [String; 7] {
        let volumes: Vec<String> = self.homes.iter().filter_map(|home| Some(printable(home.strip_prefix("volume.")?))).collect();
        let volumes = if volumes.is_empty() { "-".to_owned() } else { volumes.join(" ") };
        let how = if self.consistent { "at one moment" } else { "in use" };
        let (files, bytes) = (self.files.to_string(), size(self.bytes));
        [short(&self.id), printable(&self.workspace), printable(&self.at), files, bytes, volumes, how.to_owned()]
    }
}

impl Made {
    fn line(&self) -> String {
        let how = if self.consistent { "as it was at one moment" } else { "what was written to meanwhile as a crash would have left it" };
        let (name, new, all) = (printable(&self.workspace), size(self.new_bytes), size(self.bytes));
        format!("{name}: backup {} of {} files, {all}, of which {new} are new; {how}\n", short(&self.id), self.files)
    }
}

impl std::str::FromStr for Which {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, backup) = text.split_once('@').map_or((text, None), |(name, backup)| (name, Some(backup)));
        let name = name.parse().map_err(|why: crate::name::NameError| why.to_string())?;
        let plain = |backup: &str| (4..=64).contains(&backup.len()) && backup.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match backup {
            Some(backup) if !plain(backup) => {
                Err("what is behind the @ is the beginning of a backup's name, at least 4 of its digits".to_owned())
            }
            backup => Ok(Self { name, backup: backup.map(ToOwned::to_owned) }),
        }
    }
}
