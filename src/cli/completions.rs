//! `innkeeper completions`, and what a shell is told that asks how a line goes on.
//!
//! The script of each shell asks this program, by a variable of its environment: so what is completed is what this version has, and names of
//! workspaces are those that the running gateway knows.

use std::any::TypeId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap_complete::Shell;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use serde_json::Value;

use super::output::{self, Answer};
use super::{CommandError, Exit, asking, block_on};
use crate::config::Sources;
use crate::name::WorkspaceName;

/// The variable by which a script asks; its value is the shell's name.
const ASKING: &str = "INNKEEPER_COMPLETE";
/// How long a person who has pressed Tab waits for the gateway.
const PATIENCE: Duration = Duration::from_secs(1);
/// Commands whose workspace is to be a new one, and the argument that names it.
const NEW: [(&str, &str); 5] = [("create", "name"), ("create", "workspace"), ("import", "name"), ("copy", "to"), ("restore", "to")];
/// The command whose names have the form of a workspace's, and are others.
const OTHER: &str = "token";

#[derive(Debug, clap::Args)]
#[command(after_help = "For example: innkeeper completions bash > /etc/bash_completion.d/innkeeper")]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Prints the script of a shell.
pub(super) fn run(args: &CompletionsArgs) -> Result<Answer, CommandError> {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells.completer(&name).ok_or_else(|| anyhow::anyhow!("no script is known for {name}"))?;
    let mut script = Vec::new();
    shell.write_registration(ASKING, "innkeeper", "innkeeper", "innkeeper", &mut script)?;
    output::print(String::from_utf8_lossy(&script))?;
    Ok(Answer::nothing())
}

/// Answers a shell that asks how a line goes on; nothing, where none does.
pub(super) fn answered(arguments: &[OsString]) -> Option<Exit> {
    let config = configuration(arguments);
    let commands = || with_names(super::command(), config.as_deref());
    let here = std::env::current_dir().ok();
    match CompleteEnv::with_factory(commands).var(ASKING).completer("innkeeper").try_complete(arguments.to_vec(), here.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(Exit::Ok),
        Err(error) => {
            // Nobody left to tell, if this fails.
            let _ = error.print();
            Some(Exit::Usage)
        }
    }
}

/// The configuration that the line which is typed names.
fn configuration(arguments: &[OsString]) -> Option<PathBuf> {
    let mut words = arguments.iter().skip_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == "--config" || word == "-c" {
            return words.next().map(PathBuf::from);
        }
        if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    std::env::var_os("INNKEEPER_CONFIG").map(PathBuf::from)
}

/// The same commands, of which each argument that names a workspace offers those that there are.
fn with_names(command: clap::Command, config: Option<&Path>) -> clap::Command {
    let name = command.get_name().to_owned();
    if name == OTHER {
        return command;
    }
    let named = command.mut_args(|argument| {
        let is_new = NEW.contains(&(name.as_str(), argument.get_id().as_str()));
        if is_new || argument.get_value_parser().type_id() != TypeId::of::<WorkspaceName>() {
            return argument;
        }
        let config = config.map(Path::to_owned);
        argument.add(ArgValueCandidates::new(move || workspaces(config.clone())))
    });
    named.mut_subcommands(|one| with_names(one, config))
}

/// The workspaces that the running gateway knows. Where none answers there are none to offer, and nothing is said.
fn workspaces(config: Option<PathBuf>) -> Vec<CompletionCandidate> {
    let Ok(loaded) = Sources::of_process(config).load() else { return Vec::new() };
    let socket = loaded.settings.admin_socket();
    let asked = async { tokio::time::timeout(PATIENCE, asking::list(&socket, "/api/v1/workspaces")).await };
    let Ok(Ok(Ok(Value::Array(all)))) = block_on(asked) else { return Vec::new() };
    let names = all.iter().filter_map(|one| one["name"].as_str()?.parse::<WorkspaceName>().ok());
    names.map(|name| CompletionCandidate::new(name.to_string())).collect()
}
