//! `innkeeper open` and `innkeeper unlink`: links to workspaces, made and taken back by the running gateway.

use std::path::Path;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::{WorkspaceName, printable};
use crate::units::Span;

#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    /// The workspace's name
    #[arg(value_name = "NAME")]
    workspace: WorkspaceName,
    /// The port on its loopback; without it, the links that are good are listed
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// How long the link is good for, from 1m to 24h [default: `urls.link_lifetime`]
    #[arg(long = "for", value_name = "TIME", requires = "port", value_parser = |text: &str| Span::try_from(text.to_owned()))]
    lifetime: Option<Span>,
    /// For whom it is: the application is told
    #[arg(long, value_name = "WHO", requires = "port")]
    visitor: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct UnlinkArgs {
    /// The workspace's name
    #[arg(value_name = "NAME")]
    workspace: WorkspaceName,
    /// Only this link, as `innkeeper open NAME` lists it
    #[arg(value_name = "LINK", value_parser = id)]
    link: Option<String>,
}

/// Makes a link, or lists those that are good.
pub(super) fn run(args: OpenArgs, socket: &Path) -> Result<Answer, CommandError> {
    let OpenArgs { workspace, port, lifetime, visitor } = args;
    let path = format!("/api/v1/workspaces/{workspace}/links");
    let Some(port) = port else {
        return Ok(Answer::shown(block_on(asking::list(socket, &path))??, |all| Ok(table(&all))));
    };
    let body = json!({ "port": port, "lifetime": lifetime, "visitor": visitor });
    let made = block_on(asking::act(socket, Method::POST, &path, Some(&body)))??;
    let url: String = output::understood(made["url"].clone())?;
    Ok(Answer::did(url + "\n", json!({ "workspace": workspace }), made))
}

fn table(all: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let row = |link: &Value| {
        let visitor = if link["visitor"].is_null() { "-".to_owned() } else { printable(&text(&link["visitor"])) };
        [text(&link["id"]), text(&link["port"]), visitor, text(&link["ends"])]
    };
    let mut rows = vec![["LINK", "PORT", "VISITOR", "UNTIL"].map(str::to_owned)];
    rows.extend(all.as_array().into_iter().flatten().map(row));
    output::table(&rows)
}

/// Takes back all links to a workspace, or one.
pub(super) fn unlink(args: &UnlinkArgs, socket: &Path) -> Result<Answer, CommandError> {
    let one = args.link.as_ref().map(|link| format!("/{link}")).unwrap_or_default();
    let path = format!("/api/v1/workspaces/{}/links{one}", args.workspace);
    block_on(asking::act(socket, Method::DELETE, &path, None))??;
    Ok(Answer::did("", json!({ "workspace": args.workspace, "link": args.link }), Value::Null))
}

fn id(text: &str) -> Result<String, String> {
    let is_id = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { Ok(text.to_owned()) } else { Err("a link is named by hexadecimal digits".to_owned()) }
}
