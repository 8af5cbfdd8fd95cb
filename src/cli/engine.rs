//! `innkeeper engine`: what runs the containers.

use std::path::Path;

use clap::Subcommand;
use serde::Deserialize;

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum EngineCommand {
    /// List what runs the containers: which engine on which host, whether it answers, and its versions
    List,
}

/// An engine as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Engine {
    name: String,
    kind: String,
    address: String,
    answers: bool,
    version: Option<String>,
    api: Option<String>,
    why: Option<String>,
}

pub(super) fn run(command: &EngineCommand, socket: &Path) -> Result<Answer, CommandError> {
    let EngineCommand::List = command;
    Ok(Answer::list(block_on(asking::list(socket, "/api/v1/engines"))??, table))
}

fn table(all: &[Engine]) -> String {
    let mut rows = vec![["NAME", "KIND", "ADDRESS", "ANSWERS", "VERSION", "API"].map(str::to_owned)];
    rows.extend(all.iter().map(|Engine { name, kind, address, answers, version, api, why }| {
        let answers = match why {
            _ if *answers => "yes".to_owned(),
            Some(why) => format!("no: {why}"),
            None => "no".to_owned(),
        };
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        [name.clone(), kind.clone(), address.clone(), answers, or_nothing(version), or_nothing(api)].map(|text| printable(&text))
    }));
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_that_does_not_answer_says_why() {
        let silent = json!([{ "name": "a", "kind": "docker", "address": "/s", "answers": false, "why": "no socket\u{1b}[2J" }]);
        let table = table(&serde_json::from_value::<Vec<Engine>>(silent).unwrap());
        assert_eq!(table.lines().last().unwrap(), "a     docker  /s       no: no socket\\u{1b}[2J  -        -");
    }
}
