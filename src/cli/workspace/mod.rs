//! `innkeeper workspace`: what the running gateway knows of its workspaces and what is set of them, asked over its socket.
//!
//! What a service says is a stranger's text: it goes as it is to a pipe or a file, and harmless to a terminal.

mod carrying;
mod making;
mod settings;
mod show;
pub(super) mod tasks;
mod upgrade;
mod usage;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use self::settings::{EnvCommand, LimitArgs, MountCommand, PolicyArgs, SecretCommand};
pub(super) use self::settings::{Limits, assignment};
use self::tasks::SnapshotCommand;
use self::upgrade::{UpgradeArgs, Upgrading};
use super::asking::{ask, get, list};
use super::output::{self, Answer};
use super::{CommandError, block_on};
use crate::name::{ServiceName, TemplateName, WorkspaceName, printable};

/// List the workspaces of the running gateway, see how they do, and set what is theirs alone
#[derive(Debug, Args)]
pub(super) struct WorkspaceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the workspaces, all or some of them
    List {
        /// Those that were deleted and can be brought back, instead
        #[arg(long)]
        deleted: bool,
        /// Only those that are doing this: running, stopped, absent, suspended
        #[arg(long, value_name = "STATE", value_parser = word)]
        state: Option<String>,
        /// Only those of this template
        #[arg(long, value_name = "TEMPLATE")]
        template: Option<TemplateName>,
    },
    /// Make a workspace before anybody has logged in to it
    Create(making::CreateArgs),
    /// Make a workspace ready, as a login would
    Start {
        /// The workspace's name
        name: WorkspaceName,
    },
    /// Stop a workspace, whoever is in it; its home stays, and the next login starts it again
    Stop {
        /// The workspace's name
        name: WorkspaceName,
        #[command(flatten)]
        when: making::When,
    },
    /// Stop a workspace and start it again
    Restart {
        /// The workspace's name
        name: WorkspaceName,
        #[command(flatten)]
        when: making::When,
    },
    /// Show everything that is known of a workspace, but for values of secrets
    Show {
        /// The workspace's name
        name: WorkspaceName,
    },
    /// Show what a workspace uses of what it may, and what it has used lately
    Usage {
        /// The workspace's name
        name: WorkspaceName,
        /// The last samples, or a day of them in averages
        #[arg(long, value_name = "SPAN", default_value = "hour", value_parser = ["hour", "day"])]
        span: String,
    },
    /// Let nobody into a workspace: people in it are told why, it is stopped, and nothing of it is removed
    Suspend {
        /// The workspace's name
        name: WorkspaceName,
        /// What people read who are in it or log in
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Let people into a workspace again that was suspended
    Resume {
        /// The workspace's name
        name: WorkspaceName,
    },
    /// Delete a workspace: people in it are told, its container and its secrets are removed; its home can be brought back for `home.deleted_keep`
    Delete {
        /// The workspace's name
        name: WorkspaceName,
        /// Remove it for good at once; also one that was deleted before
        #[arg(long)]
        now: bool,
        /// Remove its backups too, for good
        #[arg(long)]
        backups: bool,
    },
    /// Bring a deleted workspace back, with its home and what was set of it, but for its secrets
    Undelete {
        /// The workspace's name
        name: WorkspaceName,
    },
    /// Make a workspace that has what another has in its home and set of it, but for its secrets; the other may be running
    Copy {
        /// The workspace to copy
        from: WorkspaceName,
        /// The name of the new one, of which there must be none
        to: WorkspaceName,
    },
    /// Write a workspace into one file for another host: its homes and what is set of it, without secrets and mounts; it may be running
    Export {
        /// The workspace's name
        name: WorkspaceName,
        /// The file, which must not be there; `-` for standard output
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Make a workspace of a file that was exported, here or on another host
    Import {
        /// The name of the new workspace, of which there must be none
        name: WorkspaceName,
        /// The file; `-` for standard input
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Give a workspace a container of its template's image as it is now, with the home it has; the former container comes back if that one's
    /// services do not become ready
    Upgrade(UpgradeArgs),
    /// Show or set what a workspace may use, in place of what its template and its grants say; also while it runs
    Limit(LimitArgs),
    /// Show or set when a workspace is stopped, where its network leads and which of its ports are public, in place of what holds for all
    Policy(PolicyArgs),
    /// Set, remove and list variables of a workspace
    Env {
        /// The workspace's name
        name: WorkspaceName,
        #[command(subcommand)]
        command: EnvCommand,
    },
    /// Set, change and remove secrets of a workspace: variables whose values nothing shows
    Secret {
        /// The workspace's name
        name: WorkspaceName,
        #[command(subcommand)]
        command: SecretCommand,
    },
    /// Keep what a workspace has in its home and volumes under a name, for new homes to start with: `skeleton = "workspace:NAME@SNAPSHOT"`
    Snapshot {
        /// The workspace's name
        name: WorkspaceName,
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Have directories of the host appear in a workspace
    Mount {
        /// The workspace's name
        name: WorkspaceName,
        #[command(subcommand)]
        command: MountCommand,
    },
    /// Show how the services of a workspace stand
    Services {
        /// The workspace's name
        name: WorkspaceName,
    },
    /// Print what the services of a workspace have said
    Logs {
        /// The workspace's name
        name: WorkspaceName,
        /// Only this service
        #[arg(long, short, value_name = "SERVICE")]
        service: Option<ServiceName>,
        /// Go on with what they say from now on
        #[arg(long, short)]
        follow: bool,
    },
}

/// A workspace as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    state: String,
    template: String,
    container: Option<String>,
    running_seconds: Option<u64>,
    idle_seconds: Option<u64>,
    leases: usize,
    services: Vec<Service>,
    image: Option<String>,
    upgrade: Option<Upgrading>,
    #[serde(default)]
    usage: Used,
    #[serde(default)]
    allowed: Used,
}

/// What a workspace uses, or may.
#[derive(Debug, Default, Deserialize)]
struct Used {
    cpu: Option<f64>,
    memory: Option<u64>,
    disk: Option<u64>,
}

/// A service as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Service {
    name: String,
    state: String,
    restarts: Option<u32>,
    exit: Option<Exit>,
}

/// How a service ended last.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Exit {
    Status(u8),
    Signal(u8),
}

/// Bytes of a stranger's on their way to a terminal.
#[derive(Debug, Default)]
struct Harmless {
    /// The beginning of a character whose end has not come yet: three bytes at most.
    rest: Vec<u8>,
}

/// Asks the gateway that listens at this socket.
pub(super) fn run(args: WorkspaceArgs, socket: &Path) -> Result<Answer, CommandError> {
    match args.command {
        Command::List { deleted: true, .. } => Ok(Answer::list(block_on(list(socket, "/api/v1/deleted"))??, tasks::table)),
        Command::List { deleted: false, state, template } => {
            let state = state.map_or_else(String::new, |state| format!("&state={state}"));
            let template = template.map_or_else(String::new, |template| format!("&template={template}"));
            let answer = block_on(list(socket, &format!("/api/v1/workspaces?{state}{template}")))??;
            Ok(Answer::list(answer, |all: &[Listed]| {
                let mut rows = vec![["NAME", "STATE", "TEMPLATE", "RUNNING", "LEASES", "IDLE", "SERVICES", "IMAGE"].map(str::to_owned)];
                rows.extend(all.iter().map(Listed::row));
                output::table(&rows)
            }))
        }
        Command::Services { name } => {
            let mut answer = block_on(get(socket, &format!("/api/v1/workspaces/{name}/services")))??;
            Ok(Answer::list(answer["items"].take(), services))
        }
        Command::Create(args) => making::create(socket, &args),
        Command::Start { name } => making::start(socket, &name, "start"),
        Command::Stop { name, when } => making::stop(socket, &name, when),
        Command::Restart { name, when } => making::start(socket, &name, &format!("restart{}", when.query())),
        Command::Show { name } => settings::shown(socket, &name, |answer| answer, show::whole),
        Command::Usage { name, span } => {
            let answer = block_on(get(socket, &format!("/api/v1/workspaces/{name}/usage?span={span}")))??;
            Ok(Answer::shown(answer, usage::page))
        }
        Command::Suspend { name, reason } => settings::suspend(socket, &name, &reason),
        Command::Resume { name } => settings::resume(socket, &name),
        Command::Delete { name, now, backups } => tasks::delete(socket, &name, now, backups),
        Command::Undelete { name } => tasks::undelete(socket, &name),
        Command::Copy { from, to } => tasks::copy(socket, &from, &to),
        Command::Export { name, to } => carrying::export(socket, &name, &to),
        Command::Import { name, from } => carrying::import(socket, &name, &from),
        Command::Upgrade(args) => upgrade::run(socket, args),
        Command::Limit(args) => settings::limit(socket, args),
        Command::Policy(args) => settings::policy(socket, args),
        Command::Env { name, command } => settings::env(socket, &name, command),
        Command::Secret { name, command } => settings::secret(socket, &name, command),
        Command::Snapshot { name, command } => tasks::snapshot(socket, &name, command),
        Command::Mount { name, command } => settings::mount(socket, &name, command),
        Command::Logs { name, service, follow } => {
            let service = service.map_or_else(String::new, |service| format!("&service={service}"));
            let path = format!("/api/v1/workspaces/{name}/logs?follow={follow}{service}");
            block_on(async {
                let answer = ask(socket, &path).await?;
                print_all(answer).await
            })??;
            Ok(Answer::nothing())
        }
    }
}

/// Those of these workspaces that are doing anything, and what they use of what they may, as a table.
pub(super) fn running(all: Value) -> anyhow::Result<String> {
    let all: Vec<Listed> = output::understood(all)?;
    let mut rows = vec![["NAME", "STATE", "TEMPLATE", "RUNNING", "LEASES", "IDLE", "CPU", "MEMORY", "DISK"].map(str::to_owned)];
    rows.extend(all.iter().filter(|one| one.state != "absent").map(|one| {
        let [name, state, template, running, leases, idle, ..] = one.row();
        let (usage, allowed) = (&one.usage, &one.allowed);
        let number = |value: Option<f64>| value.map(|number| format!("{number:.2}"));
        let gib = |value: Option<u64>| value.map(|bytes| format!("{:.2}", bytes as f64 / (1u64 << 30) as f64));
        let of = |used: Option<String>, allowed: Option<String>, unit: &str| match (used, allowed) {
            (Some(used), Some(allowed)) => format!("{used}/{allowed}{unit}"),
            (Some(used), None) => format!("{used}{unit}"),
            (None, _) => "-".to_owned(),
        };
        let cpu = of(number(usage.cpu), number(allowed.cpu), "");
        let memory = of(gib(usage.memory), gib(allowed.memory), " GiB");
        [name, state, template, running, leases, idle, cpu, memory, of(gib(usage.disk), gib(allowed.disk), " GiB")]
    }));
    Ok(output::table(&rows))
}

/// A word that can be put into a query as it is.
fn word(text: &str) -> Result<String, String> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    if plain { Ok(text.to_owned()) } else { Err("a word in lower case".to_owned()) }
}

/// Prints a body as it comes.
async fn print_all(mut answer: Response) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let mut harmless = out.is_terminal().then(Harmless::default);
    loop {
        let chunk = answer.chunk().await.context("the gateway's answer broke off")?;
        match (&mut harmless, &chunk) {
            (Some(harmless), Some(chunk)) => out.write_all(harmless.take(chunk).as_bytes())?,
            (Some(harmless), None) => out.write_all(harmless.end().as_bytes())?,
            (None, Some(chunk)) => out.write_all(chunk)?,
            (None, None) => {}
        }
        // Who follows wants to see it now.
        out.flush()?;
        if chunk.is_none() {
            return Ok(());
        }
    }
}

/// Services, as a table.
fn services(all: &[Service]) -> String {
    let mut rows = vec![["NAME", "STATE", "RESTARTS", "LAST EXIT"].map(str::to_owned)];
    rows.extend(all.iter().map(Service::row));
    output::table(&rows)
}

pub(super) fn span(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string())
}

// === impl Listed, Service ===

impl Listed {
    fn row(&self) -> [String; 8] {
        let ready = self.services.iter().filter(|service| service.state == "ready").count();
        let services = if self.services.is_empty() { "-".to_owned() } else { format!("{ready}/{} ready", self.services.len()) };
        let names = [&self.name, &self.state, &self.template].map(|name| printable(name));
        let [name, state, template] = names;
        [
            name,
            state,
            template,
            span(self.running_seconds),
            self.leases.to_string(),
            span(self.idle_seconds),
            services,
            upgrade::image(self),
        ]
    }
}

impl Service {
    fn row(&self) -> [String; 4] {
        let restarts = self.restarts.map_or_else(|| "-".to_owned(), |restarts| restarts.to_string());
        let exit = match self.exit {
            None => "-".to_owned(),
            Some(Exit::Status(status)) => format!("status {status}"),
            Some(Exit::Signal(signal)) => format!("signal {signal}"),
        };
        [printable(&self.name), printable(&self.state), restarts, exit]
    }
}

// === impl Harmless ===

impl Harmless {
    /// What may be shown of these bytes: lines and tabs as they are, and what else a terminal would obey as `\u{..}`.
    fn take(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let (mut out, mut left) = (String::new(), all.as_slice());
        for chunk in all.utf8_chunks() {
            show(chunk.valid(), &mut out);
            left = &left[chunk.valid().len() + chunk.invalid().len()..];
            match (chunk.invalid(), left) {
                ([], _) => {}
                // Perhaps only cut in two.
                (cut, []) if str::from_utf8(cut).is_err_and(|why| why.error_len().is_none()) => self.rest = cut.to_vec(),
                _ => out.push(char::REPLACEMENT_CHARACTER),
            }
        }
        out
    }

    /// Nothing more comes.
    fn end(&mut self) -> String {
        let cut = !std::mem::take(&mut self.rest).is_empty();
        if cut { char::REPLACEMENT_CHARACTER.to_string() } else { String::new() }
    }
}

fn show(text: &str, out: &mut String) {
    for part in text.split_inclusive(['\n', '\t']) {
        let plain = part.trim_end_matches(['\n', '\t']);
        out.push_str(&printable(plain));
        out.push_str(&part[plain.len()..]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(chunks: &[&[u8]]) -> String {
        let mut harmless = Harmless::default();
        let mut out: String = chunks.iter().map(|chunk| harmless.take(chunk)).collect();
        out.push_str(&harmless.end());
        out
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(shown(&[b"a\tb\n\x1b[2J\rc\xc3\xa4\n"]), "a\tb\n\\u{1b}[2J\\u{d}c\u{e4}\n");
        assert_eq!(shown(&[b"\xe2\x82", b"\xac"]), "\u{20ac}", "cut in two");
        assert_eq!(shown(&[b"\xe2\x82"]), "\u{fffd}", "cut for good");
        assert_eq!(shown(&[b"\xff\xe2\x82x\xff"]), "\u{fffd}\u{fffd}x\u{fffd}");
    }

    proptest! {
        #[test]
        fn where_it_is_cut_does_not_show(bytes: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(bytes.len() + 1);
            let (head, tail) = bytes.split_at(at);
            prop_assert_eq!(shown(&[head, tail]), shown(&[&bytes]));
            prop_assert!(!shown(&[&bytes]).contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
