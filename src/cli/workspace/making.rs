//! Workspaces that are made, started and stopped without anybody logging in.

use std::path::Path;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::settings::{Limits, assignment};
use super::tasks::watched;
use crate::cli::output::Answer;
use crate::cli::{CommandError, asking, block_on};
use crate::name::{TemplateName, VariableName, WorkspaceName, printable};
use crate::units::Span;

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The new workspace's name
    name: WorkspaceName,
    /// Its template [default: default]
    #[arg(long)]
    template: Option<TemplateName>,
    /// A variable that it begins with
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = assignment)]
    variables: Vec<(VariableName, String)>,
    #[command(flatten)]
    limits: Limits,
    /// Make it ready as well
    #[arg(long)]
    start: bool,
}

pub(super) fn create(socket: &Path, args: &CreateArgs) -> Result<Answer, CommandError> {
    let env: serde_json::Map<String, Value> =
        args.variables.iter().map(|(name, value)| (name.to_string(), Value::from(value.as_str()))).collect();
    let body = json!({ "name": args.name, "template": args.template, "env": env, "limits": args.limits.asked() });
    let mut made = block_on(asking::act(socket, Method::POST, "/api/v1/workspaces", Some(&body)))??;
    let mut words = format!("{} is made; its first login, or `innkeeper workspace start {}`, makes its home\n", args.name, args.name);
    if args.start {
        let done = watched(socket, &format!("/api/v1/workspaces/{}/start", args.name), None)?;
        words = format!("{} is made, and runs ({})\n", args.name, way(&done));
        if let (Value::Object(made), Value::Object(done)) = (&mut made, done) {
            made.extend(done);
        }
    }
    Ok(Answer::did(words, json!({ "name": args.name }), made))
}

pub(super) fn start(socket: &Path, name: &WorkspaceName, how: &str) -> Result<Answer, CommandError> {
    let done = watched(socket, &format!("/api/v1/workspaces/{name}/{how}"), None)?;
    Ok(Answer::did(format!("{name} runs ({})\n", way(&done)), json!({ "name": name }), done))
}

/// In which way it came to run.
fn way(done: &Value) -> String {
    match done["how"].as_str() {
        Some("attach") => "it did already".to_owned(),
        Some("claim") => "with a container from the pool".to_owned(),
        Some("start") => "its container was started".to_owned(),
        Some("create") => "a container was made".to_owned(),
        other => printable(other.unwrap_or_default()),
    }
}

/// When a workspace is stopped.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub(super) struct When {
    /// How long before people at its terminals are told, at most 1h; Ctrl-C takes it back [default: `idle.notice`]
    #[arg(long = "in", value_name = "TIME", value_parser = |text: &str| Span::try_from(text.to_owned()))]
    within: Option<Span>,
    /// At once
    #[arg(long)]
    now: bool,
}

impl When {
    /// As the API is told.
    pub(super) fn query(self) -> String {
        let within = if self.now { Some(Span::secs(0)) } else { self.within };
        within.map_or_else(String::new, |within| format!("?in={}", within.to_string().replace(' ', "")))
    }
}

pub(super) fn stop(socket: &Path, name: &WorkspaceName, when: When) -> Result<Answer, CommandError> {
    let done = watched(socket, &format!("/api/v1/workspaces/{name}/stop{}", when.query()), None)?;
    Ok(Answer::did(format!("{name} is stopped\n"), json!({ "name": name }), done))
}
