//! What an administrator sets of a workspace. The running gateway writes it down and goes by it; nothing is written here.
//!
//! A secret is read from a file, standard input or the terminal, and never taken as an argument, where every process on the host could read it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::show::{self, Holding, Workspace};
use crate::auth::VolumeLimits;
use crate::cli::output::{self, Answer};
use crate::cli::{CommandError, asking, block_on};
use crate::name::{VariableName, VolumeName, WorkspaceName, printable};
use crate::units::Size;

/// Longest secret that is read, in bytes; the gateway takes less, and says how much.
const LONGEST_SECRET: u64 = 64 * 1024;

/// Limits of one workspace, in place of what its template and its grants say.
#[derive(Debug, Args)]
pub(in crate::cli) struct Limits {
    /// CPUs that it may use at once; fractions are allowed
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Memory that it may use, for example 8GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<Size>,
    /// Processes and threads that it may have
    #[arg(long, value_name = "NUMBER")]
    pids: Option<u32>,
    /// Size of its home, for example 50GiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    disk: Option<Size>,
    /// Files and directories that its home may have
    #[arg(long, value_name = "NUMBER")]
    inodes: Option<u64>,
    /// Size of a volume, for example data=2GiB
    #[arg(long = "volume", value_name = "NAME=SIZE", value_parser = volume_size)]
    volumes: Vec<(VolumeName, Size)>,
    /// Files and directories that a volume may have, for example data=100000
    #[arg(long, value_name = "NAME=NUMBER", value_parser = volume_inodes)]
    volume_inodes: Vec<(VolumeName, u64)>,
}

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// The workspace's name
    name: WorkspaceName,
    #[command(flatten)]
    limits: Limits,
    /// Forget those that are set, before others are
    #[arg(long)]
    reset: bool,
}

#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// The workspace's name
    name: WorkspaceName,
    /// How long nobody may use it before it is stopped, for example 30m; never; or default, as its grant or `idle.timeout` says
    #[arg(long, value_name = "TIME")]
    idle: Option<String>,
    /// Where its network leads: open, none, or default, as its template says; from its container's next start on
    #[arg(long, value_name = "WHERE")]
    network: Option<String>,
    /// Ports that need no link, for example 80,8080; none; or default, those of `urls.public` alone
    #[arg(long, value_name = "PORTS")]
    public_ports: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum EnvCommand {
    /// Set variables; sessions have them from the next one on, and services are started again with them
    Set {
        /// Name and value
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = assignment)]
        variables: Vec<(VariableName, String)>,
    },
    /// Remove variables of a workspace
    Unset {
        /// The names
        #[arg(required = true, value_name = "NAME")]
        names: Vec<VariableName>,
    },
    /// List the variables
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Set a secret to a value from a file, standard input or the terminal
    Set {
        /// The variable's name
        key: VariableName,
        /// Read the value from this file; from standard input otherwise. A line's end at its end is not part of it
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Set a secret to random bytes, written in base64url
    Generate {
        /// The variable's name
        key: VariableName,
        /// How many bytes [default: 32]
        #[arg(long, value_name = "NUMBER")]
        bytes: Option<usize>,
    },
    /// Give a secret that was made up another value
    Rotate {
        /// The variable's name
        key: VariableName,
        /// How many bytes [default: 32]
        #[arg(long, value_name = "NUMBER")]
        bytes: Option<usize>,
    },
    /// List the secrets: their names and dates, never their values
    List,
    /// Remove a secret; one that the template names is made up anew when it is next needed
    Remove {
        /// The variable's name
        key: VariableName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum MountCommand {
    /// Have a directory of the host appear in the workspace from its container's next start on
    Add {
        /// Where on the host, in a directory that `mounts.allow` names
        source: String,
        /// Where in the workspace
        target: String,
        /// Let it be written to
        #[arg(long)]
        read_write: bool,
    },
    /// List what appears
    List,
    /// Have it appear no more, from the container's next start on
    Remove {
        /// Where in the workspace
        target: String,
    },
}

pub(super) fn suspend(socket: &Path, name: &WorkspaceName, reason: &str) -> Result<Answer, CommandError> {
    change(socket, name, &json!({ "suspend": { "reason": reason } }), &format!("{name} is suspended; nobody can be in it"))
}

pub(super) fn resume(socket: &Path, name: &WorkspaceName) -> Result<Answer, CommandError> {
    change(socket, name, &json!({ "resume": {} }), &format!("{name} is not suspended"))
}

pub(super) fn limit(socket: &Path, args: LimitArgs) -> Result<Answer, CommandError> {
    let LimitArgs { name, limits, reset } = args;
    let limits = limits.asked();
    if reset || limits.is_object() {
        let limits = if limits.is_object() { limits } else { json!({}) };
        let asked = json!({ "limit": { "reset": reset, "limits": limits } });
        return change_and(socket, &name, &asked, &format!("limits of {name} are set"), |said| {
            let held: Vec<Holding> = serde_json::from_value(said["enforcement"].clone()).unwrap_or_default();
            held.iter().map(|one| format!("  {}: {}\n", printable(&one.limit), one.said())).collect()
        });
    }
    shown(socket, &name, |mut answer| answer["limits"].take(), show::limits)
}

impl Limits {
    /// As the gateway is asked for them; `null` where none is given.
    pub(in crate::cli) fn asked(&self) -> Value {
        let Self { cpus, memory, pids, disk, inodes, volumes: sizes, volume_inodes } = self;
        let mut volumes: BTreeMap<&VolumeName, VolumeLimits> = BTreeMap::new();
        sizes.iter().for_each(|(volume, size)| volumes.entry(volume).or_default().disk = Some(*size));
        volume_inodes.iter().for_each(|(volume, inodes)| volumes.entry(volume).or_default().inodes = Some(*inodes));
        let any = cpus.is_some() || memory.is_some() || pids.is_some() || disk.is_some() || inodes.is_some() || !volumes.is_empty();
        let all = json!({ "cpus": cpus, "memory": memory, "pids": pids, "disk": disk, "inodes": inodes, "volumes": volumes });
        if any { all } else { Value::Null }
    }
}

pub(super) fn policy(socket: &Path, args: PolicyArgs) -> Result<Answer, CommandError> {
    let PolicyArgs { name, idle, network, public_ports } = args;
    let mut changes = serde_json::Map::new();
    let or_default = |text: String| if text == "default" { Value::Null } else { Value::from(text) };
    changes.extend(idle.map(|text| ("idle".to_owned(), or_default(text))));
    changes.extend(network.map(|text| ("network".to_owned(), or_default(text))));
    changes.extend(public_ports.map(|text| Ok::<_, anyhow::Error>(("public_ports".to_owned(), ports(&text)?))).transpose()?);
    if !changes.is_empty() {
        return change(socket, &name, &json!({ "policy": changes }), &format!("policies of {name} are set"));
    }
    shown(socket, &name, |mut answer| answer["policy"].take(), show::policy)
}

/// Ports as a person writes them.
fn ports(text: &str) -> anyhow::Result<Value> {
    match text {
        "default" => Ok(Value::Null),
        "none" => Ok(json!([])),
        _ => {
            let port = |word: &str| word.trim().parse::<u16>().with_context(|| format!("--public-ports: {word:?} is no port"));
            Ok(text.split(',').map(port).collect::<anyhow::Result<Vec<u16>>>()?.into())
        }
    }
}

pub(super) fn env(socket: &Path, name: &WorkspaceName, command: EnvCommand) -> Result<Answer, CommandError> {
    match command {
        EnvCommand::Set { variables } => {
            let set: serde_json::Map<String, Value> = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            change(socket, name, &json!({ "env": { "set": set, "unset": [] } }), &format!("variables of {name} are set"))
        }
        EnvCommand::Unset { names } => {
            change(socket, name, &json!({ "env": { "set": {}, "unset": names } }), &format!("variables of {name} are removed"))
        }
        EnvCommand::List => shown(socket, name, |mut answer| answer["env"].take(), show::env),
    }
}

pub(super) fn secret(socket: &Path, name: &WorkspaceName, command: SecretCommand) -> Result<Answer, CommandError> {
    match command {
        SecretCommand::Set { key, from_file } => {
            let value = read_secret(&key, from_file.as_deref())?;
            let asked = json!({ "set-secret": { "name": key, "value": value.expose_secret() } });
            change(socket, name, &asked, &format!("secret {key} of {name} is set"))
        }
        SecretCommand::Generate { key, bytes } => {
            let asked = json!({ "generate-secret": { "name": key, "bytes": bytes } });
            change(socket, name, &asked, &format!("secret {key} of {name} is made up"))
        }
        SecretCommand::Rotate { key, bytes } => {
            let asked = json!({ "rotate-secret": { "name": key, "bytes": bytes } });
            change(socket, name, &asked, &format!("secret {key} of {name} has another value"))
        }
        SecretCommand::Remove { key } => {
            change(socket, name, &json!({ "remove-secret": { "name": key } }), &format!("secret {key} of {name} is removed"))
        }
        SecretCommand::List => shown(socket, name, |mut answer| answer["secrets"].take(), show::secrets),
    }
}

pub(super) fn mount(socket: &Path, name: &WorkspaceName, command: MountCommand) -> Result<Answer, CommandError> {
    match command {
        MountCommand::Add { source, target, read_write } => {
            // As the person sees it: the gateway is somewhere else.
            let absolute = std::path::absolute(&source).with_context(|| format!("{source:?}"))?;
            let asked = json!({ "add-mount": { "source": absolute, "target": target, "read_write": read_write } });
            change(socket, name, &asked, &format!("{source} is set to appear in {name} at {target}"))
        }
        MountCommand::Remove { target } => change(
            socket,
            name,
            &json!({ "remove-mount": { "target": target } }),
            &format!("nothing of the host is set to appear in {name} at {target}"),
        ),
        MountCommand::List => shown(socket, name, |mut answer| answer["mounts"].take(), show::mounts),
    }
}

/// Everything of a workspace: for programs this part of the answer, for people this text of it.
pub(super) fn shown(
    socket: &Path,
    name: &WorkspaceName,
    part: impl FnOnce(Value) -> Value,
    text: impl FnOnce(&Workspace) -> String + 'static,
) -> Result<Answer, CommandError> {
    let answer = block_on(asking::get(socket, &format!("/api/v1/workspaces/{name}")))??;
    Ok(Answer::shown(part(answer.clone()), move |_| Ok(text(&output::understood(answer)?))))
}

/// Has something changed, and says what came of it.
fn change(socket: &Path, name: &WorkspaceName, asked: &Value, done: &str) -> Result<Answer, CommandError> {
    change_and(socket, name, asked, done, |_| String::new())
}

/// The same, with more for people out of what the gateway says.
fn change_and(
    socket: &Path,
    name: &WorkspaceName,
    asked: &Value,
    done: &str,
    more: impl FnOnce(&Value) -> String,
) -> Result<Answer, CommandError> {
    let said = block_on(asking::act(socket, Method::POST, &format!("/api/v1/workspaces/{name}/changes"), Some(asked)))??;
    if said["applied"] == "not-yet" {
        let why = printable(said["why"].as_str().unwrap_or_default());
        return Err(
            anyhow::anyhow!("{done}, and that could not be applied to what runs: {why}; it is tried again at the next start").into()
        );
    }
    let when = if said["applied"] == "at-next-start" { " (from the next start of its container on, which runs)" } else { "" };
    let has_home = said["home"] != false;
    let words = format!("{done}{when}\n{}", more(&said));
    let answer = Answer::did(words, json!({ "name": name }), said);
    Ok(if has_home { answer } else { answer.remark(format!("{name} has no home yet; this is kept for its first login")) })
}

fn read_secret(key: &VariableName, file: Option<&Path>) -> Result<SecretString, CommandError> {
    let mut bytes = Vec::new();
    match file {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            file.take(LONGEST_SECRET + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
        }
        None if io::stdin().is_terminal() => {
            let typed = rpassword::prompt_password(format!("Value of {key}: ")).context("cannot read from the terminal")?;
            return Ok(typed.into());
        }
        None => {
            io::stdin().lock().take(LONGEST_SECRET + 1).read_to_end(&mut bytes).context("cannot read from standard input")?;
        }
    }
    if bytes.len() as u64 > LONGEST_SECRET {
        return Err(anyhow::anyhow!("the value of {key} is longer than 64 KiB; put it into a file of the home").into());
    }
    let Ok(mut value) = String::from_utf8(bytes) else {
        return Err(anyhow::anyhow!("the value of {key} is not UTF-8 text; encode it, for example with base64").into());
    };
    // What `echo` adds and nobody means.
    if value.ends_with('\n') {
        value.pop();
    }
    if value.ends_with('\r') {
        value.pop();
    }
    Ok(value.into())
}

fn size(text: &str) -> Result<Size, String> {
    Size::try_from(text.to_owned())
}

fn volume_size(text: &str) -> Result<(VolumeName, Size), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=SIZE")?;
    Ok((name.parse().map_err(|why| format!("{why}"))?, size(value)?))
}

fn volume_inodes(text: &str) -> Result<(VolumeName, u64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=NUMBER")?;
    let number = value.parse().map_err(|_| format!("{value:?} is no number"))?;
    Ok((name.parse().map_err(|why| format!("{why}"))?, number))
}

/// `NAME=VALUE`.
pub(in crate::cli) fn assignment(text: &str) -> anyhow::Result<(VariableName, String)> {
    let Some((name, value)) = text.split_once('=') else { bail!("write NAME=VALUE") };
    Ok((name.parse()?, value.to_owned()))
}
