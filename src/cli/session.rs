//! `innkeeper session`: who is in, and ending a session.

use std::path::Path;

use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::workspace::span;
use super::{CommandError, asking, block_on, screens};
use crate::name::{WorkspaceName, printable};

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List the sessions that there are
    List {
        /// Only those in this workspace
        #[arg(long)]
        workspace: Option<WorkspaceName>,
    },
    /// Watch a session's terminal; without a number, tell what happens to workspaces and sessions from now on, a line each
    Watch {
        /// The session's number, as `session list` shows it. Its template must say `watch = true`
        #[arg(conflicts_with = "workspace")]
        id: Option<u64>,
        /// Only what happens to this workspace
        #[arg(long)]
        workspace: Option<WorkspaceName>,
    },
    /// End a session: its process is hung up and its client told; the workspace goes on
    End {
        /// Its number, as `session list` shows it
        id: u64,
    },
}

/// A session as the gateway answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Session {
    id: u64,
    account: String,
    workspace: String,
    seconds: u64,
}

/// Asks the gateway that listens at this socket; `json`: what is watched is printed as an object a line.
pub(super) fn run(command: SessionCommand, socket: &Path, json: bool) -> Result<Answer, CommandError> {
    let only = |workspace: Option<WorkspaceName>| workspace.map_or_else(String::new, |name| format!("?workspace={name}"));
    match command {
        SessionCommand::List { workspace } => {
            Ok(Answer::list(block_on(asking::list(socket, &format!("/api/v1/sessions{}", only(workspace))))??, table))
        }
        SessionCommand::Watch { id: Some(id), .. } => {
            screens::show(socket, &format!("/api/v1/sessions/{id}/watch"), json)?;
            Ok(Answer::nothing())
        }
        SessionCommand::Watch { workspace, id: None } => {
            let path = format!("/api/v1/events{}", only(workspace));
            let mut printed = Ok(());
            block_on(asking::events(socket, (Method::GET, &path, None), |name, mut data| {
                if !json && name == "listening" {
                    return true;
                }
                let line = if json {
                    data["event"] = name.into();
                    data.to_string()
                } else {
                    told(name, &data)
                };
                printed = output::print(format!("{line}\n"));
                printed.is_ok()
            }))??;
            printed?;
            Ok(Answer::nothing())
        }
        SessionCommand::End { id } => {
            block_on(asking::act(socket, Method::DELETE, &format!("/api/v1/sessions/{id}"), None))??;
            Ok(Answer::did(format!("session {id} is ended\n"), json!({ "id": id }), Value::Null))
        }
    }
}

/// Sessions, as a table.
pub(super) fn table(all: &[Session]) -> String {
    let mut rows = vec![["ID", "ACCOUNT", "WORKSPACE", "FOR"].map(str::to_owned)];
    rows.extend(all.iter().map(|one| [one.id.to_string(), printable(&one.account), printable(&one.workspace), span(Some(one.seconds))]));
    output::table(&rows)
}

/// What happened, on a line. All of it may be a stranger's text.
fn told(name: &str, data: &Value) -> String {
    let text = |key: &str| printable(data[key].as_str().unwrap_or_default());
    let (at, workspace) = (text("at"), text("workspace"));
    match name {
        "workspace" => format!("{at}  {workspace}  {}", text("state")),
        "changed" => format!("{at}  {workspace}  changed: {}", text("what")),
        "made" => format!("{at}  {workspace}  made"),
        "session-began" => format!("{at}  {workspace}  session {} of {} began", data["session"], text("account")),
        "session-ended" => format!("{at}  {workspace}  session {} of {} ended", data["session"], text("account")),
        other => format!("{at}  {}", printable(other)),
    }
}
