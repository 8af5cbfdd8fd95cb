//! `innkeeper token`: what opens the API to programs.

use std::path::Path;

use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::workspace::shown;
use super::{CommandError, asking, block_on, output};
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
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the tokens; what they are is not shown again
    List {
        /// Print a JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
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

pub(super) fn run(command: TokenCommand, socket: &Path) -> Result<(), CommandError> {
    match command {
        TokenCommand::Create { name, scopes, expires_in, json } => {
            let body = json!({ "name": name, "scopes": scopes, "expires_in": expires_in });
            let made = block_on(asking::act(socket, Method::POST, "/api/v1/tokens", Some(&body)))??;
            let text = if json { format!("{made:#}") } else { printable(made["token"].as_str().unwrap_or_default()) };
            output::print(format!("{text}\n"))?;
            if !json {
                output::complain(&"this is shown once; send it as: Authorization: Bearer …");
            }
            Ok(())
        }
        TokenCommand::List { json } => shown(block_on(asking::list(socket, "/api/v1/tokens"))??, json, |all: &[Token]| {
            let mut rows = vec![["NAME", "SCOPES", "MADE", "EXPIRES", "LAST USED"].map(str::to_owned)];
            let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), printable);
            rows.extend(all.iter().map(|one| {
                let expires = if one.expired { "has expired".to_owned() } else { or_dash(&one.expires) };
                [printable(&one.name), printable(&one.scopes.join(" ")), printable(&one.made), expires, or_dash(&one.used)]
            }));
            output::table(&rows)
        }),
        TokenCommand::Revoke { name } => {
            block_on(asking::act(socket, Method::DELETE, &format!("/api/v1/tokens/{name}"), None))??;
            Ok(output::print(format!("token {name} is revoked\n"))?)
        }
    }
}
