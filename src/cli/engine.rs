//! `innkeeper engine`: what runs the containers.

use std::path::Path;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::Value;

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum EngineCommand {
    /// Show which engine it is, whether it answers, and its versions
    Show,
}

/// The engine as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Engine {
    kind: String,
    answers: bool,
    version: Option<String>,
    api: Option<String>,
    why: Option<String>,
}

pub(super) fn run(command: &EngineCommand, socket: &Path) -> Result<Answer, CommandError> {
    let EngineCommand::Show = command;
    Ok(Answer::shown(block_on(asking::get(socket, "/api/v1/engine"))??, page))
}

fn page(answer: Value) -> anyhow::Result<String> {
    let Engine { kind, answers, version, api, why } = output::understood(answer)?;
    let answers = match why {
        _ if answers => "yes".to_owned(),
        Some(why) => format!("no: {}", printable(&why)),
        None => "no".to_owned(),
    };
    let mut rows = vec![["engine".to_owned(), printable(&kind)], ["answers".to_owned(), answers]];
    for (name, text) in [("version", version), ("api", api)] {
        rows.extend(text.map(|text| [name.to_owned(), printable(&text)]));
    }
    Ok(output::table(&rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_does_not_answer_says_why() {
        let page = page(json!({ "kind": "docker", "answers": false, "why": "no socket\u{1b}[2J" })).unwrap();
        assert_eq!(page, "engine   docker\nanswers  no: no socket\\u{1b}[2J\n");
    }
}
