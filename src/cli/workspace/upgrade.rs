//! `innkeeper workspace upgrade`. The running gateway does it, and goes on should this command end before.

use std::path::Path;

use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Listed, tasks};
use crate::cli::output::{self, Answer};
use crate::cli::{CommandError, Exit, asking, block_on};
use crate::name::{TemplateName, WorkspaceName, printable};

#[derive(Debug, Args)]
pub(super) struct UpgradeArgs {
    /// The workspace's name
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<WorkspaceName>,
    /// All that `workspace list` shows, one after the other
    #[arg(long)]
    all: bool,
    /// Of all, only those of this template
    #[arg(long, value_name = "TEMPLATE", requires = "all")]
    template: Option<TemplateName>,
    /// At once, and not at its next start: people in it are told, and their sessions end
    #[arg(long)]
    now: bool,
}

/// An upgrade that is asked for, as the gateway answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Upgrading {
    asked: String,
    failed: Option<String>,
}

/// How one came out.
enum Upgraded {
    Unneeded,
    Noted,
    Done,
}

pub(super) fn run(socket: &Path, args: UpgradeArgs) -> Result<Answer, CommandError> {
    let UpgradeArgs { name, template, now, all: _ } = args;
    if let Some(name) = name {
        let how = one(socket, &name, now)?;
        let said = match how {
            Upgraded::Unneeded => "has nothing to upgrade: its container is of its template's image, or there is none",
            Upgraded::Noted => "gets a container of its template's image at its next start",
            Upgraded::Done => "has a container of its template's image",
        };
        return Ok(Answer::did(format!("{name} {said}\n"), json!({ "name": name, "upgraded": how.word() }), Value::Null));
    }
    let listed: Vec<Listed> = output::understood(block_on(asking::list(socket, "/api/v1/workspaces"))??)?;
    let (mut words, mut upgraded, mut failed) = (String::new(), Map::new(), Vec::new());
    for workspace in listed {
        let other = template.as_ref().is_some_and(|template| template.as_str() != workspace.template);
        let Ok(name) = workspace.name.parse::<WorkspaceName>() else { continue };
        if other {
            continue;
        }
        match one(socket, &name, now) {
            Ok(Upgraded::Unneeded) => {}
            Ok(how) => {
                words += &format!("{name}\n");
                upgraded.insert(name.to_string(), how.word().into());
            }
            // One that does not come up is no reason to leave the others as they are.
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    let when = if now { "upgraded" } else { "upgraded at their next start" };
    words += &format!("{} are {when}\n", upgraded.len());
    let answer = Answer::did(words, json!({ "upgraded": upgraded, "failed": failed }), Value::Null);
    if failed.is_empty() {
        return Ok(answer);
    }
    Ok(failed.iter().fold(answer, |answer, why| answer.remark(why)).exit(Exit::Failed))
}

fn one(socket: &Path, name: &WorkspaceName, now: bool) -> Result<Upgraded, CommandError> {
    if now {
        let done = tasks::run(socket, name, &json!({ "upgrade": {} }))?;
        return Ok(if done.unchanged { Upgraded::Unneeded } else { Upgraded::Done });
    }
    let path = format!("/api/v1/workspaces/{name}/changes");
    let answer = block_on(asking::act(socket, Method::POST, &path, Some(&json!({ "upgrade": {} }))))??;
    Ok(if answer["applied"] == "now" { Upgraded::Unneeded } else { Upgraded::Noted })
}

/// Of which image its container is, in a word for a list.
pub(super) fn image(workspace: &Listed) -> String {
    match (&workspace.upgrade, &workspace.image) {
        (Some(Upgrading { failed: Some(_), .. }), _) => "upgrade failed".to_owned(),
        (Some(_), _) => "upgrade waits".to_owned(),
        (None, Some(age)) => printable(age),
        (None, None) => "-".to_owned(),
    }
}

// === impl Upgraded, Upgrading ===

impl Upgraded {
    fn word(&self) -> &'static str {
        match self {
            Self::Unneeded => "unneeded",
            Self::Noted => "at-next-start",
            Self::Done => "now",
        }
    }
}

impl Upgrading {
    pub(super) fn said(&self) -> String {
        match &self.failed {
            Some(why) => format!("asked for {}, and undone: {}", self.asked, printable(why)),
            None => format!("asked for {}, waits for its next start", self.asked),
        }
    }
}
