//! `innkeeper backup`: what the running gateway has in its repository, and what it is to do with that, asked over its socket.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::asking;
use super::output::{self, Answer};
use super::workspace::tasks::{self, Done, size};
use super::{CommandError, Exit, block_on};
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
    },
    /// Make a backup of workspaces now, running or not
    Run {
        /// Their names; without any, all that have a home
        names: Vec<WorkspaceName>,
    },
    /// Read the repository, and say what is damaged in it and which backups that hits; status 1 if anything is
    Verify {
        /// Read only so many percent of the data, chosen anew each time; everything else is always read
        #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
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
pub(super) fn run(args: BackupArgs, socket: &Path) -> Result<Answer, CommandError> {
    match args.command {
        Command::List { name } => list(socket, name.as_ref()),
        Command::Run { names } => make(socket, &names),
        Command::Verify { percent } => verify(socket, percent),
        Command::Restore { from: Which { name, backup }, to: Some(to), .. } => {
            let done = tasks::run(socket, &to, &json!({ "restore": { "from": name, "backup": backup } }))?;
            let words = format!("{to} is what {name} was ({}); its secrets are not there\n", done.contents());
            Ok(left_out(done.did(words, json!({ "name": to, "from": name })), &done))
        }
        Command::Restore { from: Which { name, backup }, to: None, .. } => {
            let done = tasks::run(socket, &name, &json!({ "restore-in-place": { "backup": backup } }))?;
            let words = format!(
                "{name} is what it was ({}); what it had before is kept until `innkeeper backup confirm {name}`, and `revert` brings it back\n",
                done.contents()
            );
            Ok(left_out(done.did(words, json!({ "name": name, "from": name })), &done))
        }
        Command::Confirm { name } => {
            let done = tasks::run(socket, &name, &json!({ "confirm-restore": {} }))?;
            let words = format!("what {name} had before it was restored is removed for good ({})\n", done.contents());
            Ok(done.did(words, json!({ "name": name })))
        }
        Command::Revert { name } => {
            let done = tasks::run(socket, &name, &json!({ "revert-restore": {} }))?;
            let words = format!("{name} is what it was before it was restored ({})\n", done.contents());
            Ok(done.did(words, json!({ "name": name })))
        }
    }
}

fn list(socket: &Path, name: Option<&WorkspaceName>) -> Result<Answer, CommandError> {
    let query = name.map_or_else(String::new, |name| format!("?workspace={name}"));
    let (backups, rest) = block_on(asking::whole_list(socket, &format!("/api/v1/backups{query}")))??;
    Ok(Answer::shown(json!({ "backups": backups, "unconfirmed": rest["unconfirmed"] }), |mut answer| {
        let backups: Vec<Listed> = output::understood(answer["backups"].take())?;
        let unconfirmed: Vec<Unconfirmed> = output::understood(answer["unconfirmed"].take())?;
        let mut rows = vec![["BACKUP", "WORKSPACE", "AT", "FILES", "SIZE", "VOLUMES", "AS IT WAS"].map(str::to_owned)];
        rows.extend(backups.iter().map(Listed::row));
        let restored = |Unconfirmed { workspace, since }: &Unconfirmed| {
            let (name, since) = (printable(workspace), printable(since));
            format!(
                "{name} was restored in place at {since}: `innkeeper backup confirm {name}` removes what it had before, `revert` brings it back\n"
            )
        };
        Ok(output::table(&rows) + &unconfirmed.iter().map(restored).collect::<String>())
    }))
}

fn make(socket: &Path, names: &[WorkspaceName]) -> Result<Answer, CommandError> {
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
    let said = json!({ "backups": made, "failed": failed });
    let made: Vec<Made> = output::understood(Value::Array(made))?;
    let mut answer = Answer::did(made.iter().map(Made::line).collect::<String>(), json!({}), said);
    for made in made.iter().filter(|made| made.left_out > 0) {
        let examples: Vec<String> = made.examples.iter().map(|example| printable(example)).collect();
        answer = answer.remark(format!("{} things could not be read, among them {}", made.left_out, examples.join("; ")));
    }
    if failed.is_empty() {
        return Ok(answer);
    }
    Ok(failed.iter().fold(answer, |answer, why| answer.remark(printable(why))).exit(Exit::Failed))
}

fn verify(socket: &Path, percent: u8) -> Result<Answer, CommandError> {
    let done = tasks::run_at(socket, "/api/v1/backups", &json!({ "verify": { "share": f64::from(percent) / 100.0 } }))?;
    let report: Report = output::understood(done.report.clone())?;
    let words = format!(
        "{} backups, {} files of the repository, {} read: {}\n",
        report.backups,
        report.files,
        size(report.bytes),
        if report.wrong == 0 { "all as it was written".to_owned() } else { format!("{} things are wrong", report.wrong) }
    );
    let mut answer = Answer::did(words, json!({}), done.report);
    for example in &report.examples {
        answer = answer.remark(printable(example));
    }
    for Damaged { id, workspace } in &report.damaged {
        answer = answer.remark(format!("backup {} of {} cannot be restored whole", short(id), printable(workspace)));
    }
    Ok(answer.exit(if report.wrong == 0 { Exit::Ok } else { Exit::Failed }))
}

fn left_out(mut answer: Answer, done: &Done) -> Answer {
    if done.consistent == Some(false) {
        answer = answer.remark("the backup was made of files in use: what was being written then is as a crash would have left it");
    }
    if done.skipped > 0 {
        answer = answer.remark(format!(
            "{} things were left out: devices, sockets, or what could not be written; the gateway's log names some",
            done.skipped
        ));
    }
    answer
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
