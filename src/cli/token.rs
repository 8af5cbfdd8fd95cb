//! `innkeeper token`: what opens the API to programs.

use std::path::Path;

use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::{WorkspaceName, printable};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token and print it, this once
    Create {
        /// What it is for, in the form of a workspace's name
        name: WorkspaceName,
        /// What it opens: admin, read, provision or workspace:NAME; may be given more than once
        #[arg(long = "scope", required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
        /// For how long, for example 30d [default: until it is revoked]
        #[arg(long, value_name = "SPAN")]
        expires_in: Option<String>,
    },
    /// List the tokens; what they are is not shown again
    List,
    /// Revoke a token: from now on it opens nothing
    Revoke {
        /// Its name
        name: WorkspaceName,
    },
}

/// A token as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Token {
    name: String,
    scopes: Vec<String>,
    made: String,
    expires: Option<String>,
    used: Option<String>,
    expired: bool,
}

pub(super) fn run(command: TokenCommand, socket: &Path) -> Result<Answer, CommandError> {
    match command {
        TokenCommand::Create { name, scopes, expires_in } => {
            let body = json!({ "name": name, "scopes": scopes, "expires_in": expires_in });
            let made = block_on(asking::act(socket, Method::POST, "/api/v1/tokens", Some(&body)))??;
            let words = printable(made["token"].as_str().unwrap_or_default()) + "\n";
            Ok(Answer::did(words, json!({ "name": name }), made).remark("this is shown once; send it as: Authorization: Bearer …"))
        }
        TokenCommand::List => Ok(Answer::list(block_on(asking::list(socket, "/api/v1/tokens"))??, |all: &[Token]| {
            let mut rows = vec![["NAME", "SCOPES", "MADE", "EXPIRES", "LAST USED"].map(str::to_owned)];
            let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
            rows.extend(all.iter().map(|one| {
                let expires = if one.expired { "has expired".to_owned() } else { or_dash(&one.expires) };
                [printable(&one.name), printable(&one.scopes.join(" ")), printable(&one.made), expires, or_dash(&one.used)]
            }));
            output::table(&rows)
        })),
        TokenCommand::Revoke { name } => {
            block_on(asking::act(socket, Method::DELETE, &format!("/api/v1/tokens/{name}"), None))??;
            Ok(Answer::did(format!("token {name} is revoked\n"), json!({ "name": name }), Value::Null))
        }
    }
}
