//! `innkeeper tenant`: an account and the workspace that it lands in, in one go.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::account::{all_keys, password_from_stdin};
use super::output::{self, Answer};
use super::workspace::{Limits, assignment};
use super::{CommandError, asking, block_on};
use crate::name::{TemplateName, VariableName, WorkspaceName, printable};

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make an account and its workspace, begin to make that ready, and say how to log in
    Create(CreateArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The name to log in with
    account: String,
    /// File with public keys in authorized_keys form, or - for standard input; without one, a password is made up and shown this once
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// The workspace's name, instead of one made from the account's
    #[arg(long)]
    workspace: Option<WorkspaceName>,
    /// Its template [default: default]
    #[arg(long)]
    template: Option<TemplateName>,
    /// A variable that it begins with
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = assignment)]
    variables: Vec<(VariableName, String)>,
    #[command(flatten)]
    limits: Limits,
}

/// What somebody who has signed up needs to know, as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Tenant {
    account: String,
    workspace: String,
    command: String,
    password: Option<String>,
    ready: bool,
}

pub(super) fn run(command: TenantCommand, socket: &Path) -> Result<Answer, CommandError> {
    let TenantCommand::Create(CreateArgs { account, keys, password_stdin, workspace, template, variables, limits }) = command;
    let from_stdin = keys.iter().any(|path| path.as_os_str() == "-");
    let password: Option<SecretString> = password_stdin.then(|| password_from_stdin(from_stdin)).transpose()?;
    let keys: Vec<String> = all_keys(&keys)?.iter().map(ToString::to_string).collect();
    let env: Map<String, Value> = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let mut body = json!({
        "account": account, "keys": keys, "workspace": workspace, "template": template, "env": env,
        "limits": limits.asked(),
    });
    if let Some(password) = &password {
        body["password"] = password.expose_secret().into();
    }
    let said = block_on(asking::act(socket, Method::POST, "/api/v1/tenants", Some(&body)))??;
    let Tenant { account, workspace, command, password, ready } = output::understood(said.clone())?;
    let stands = if ready { "runs" } else { "is being made ready" };
    let [account, workspace, command] = [account, workspace, command].map(|text| printable(&text));
    let mut words = format!("{account} can log in; {workspace} {stands}\n{command}\n");
    if let Some(password) = password {
        words += &format!("password: {}\n", printable(&password));
    }
    Ok(Answer::did(words, json!({}), said))
}
