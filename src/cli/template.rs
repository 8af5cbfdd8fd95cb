//! `innkeeper template`: the recipes that the running gateway goes by.

use std::path::Path;

use clap::Subcommand;
use serde::Deserialize;

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::auth::LimitOverrides;
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// List the templates that workspaces are made from
    List,
}

/// A template as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Template {
    name: String,
    image: String,
    limits: LimitOverrides,
}

pub(super) fn run(command: &TemplateCommand, socket: &Path) -> Result<Answer, CommandError> {
    let TemplateCommand::List = command;
    Ok(Answer::list(block_on(asking::list(socket, "/api/v1/templates"))??, |all: &[Template]| {
        let mut rows = vec![["NAME", "IMAGE", "CPUS", "MEMORY", "DISK"].map(str::to_owned)];
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.extend(all.iter().map(|one| {
            let limits = &one.limits;
            let [cpus, memory, disk] = [
                limits.cpus.map(|cpus| cpus.to_string()),
                limits.memory.map(|memory| memory.to_string()),
                limits.disk.map(|disk| disk.to_string()),
            ]
            .map(or_dash);
            [printable(&one.name), printable(&one.image), cpus, memory, disk]
        }));
        output::table(&rows)
    }))
}
