//! `innkeeper queue`: places, and who waits for one.

use std::path::Path;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Show how many containers may run at once and do, and which workspaces wait for a place, the next one first
    List,
}

/// The queue: all pages of it.
#[derive(Debug, Deserialize)]
struct Queue {
    capacity: usize,
    taken: usize,
    waiting: usize,
    workspaces: Vec<Waiting>,
}

#[derive(Debug, Deserialize)]
struct Waiting {
    workspace: String,
    position: usize,
}

pub(super) fn run(command: &QueueCommand, socket: &Path) -> Result<Answer, CommandError> {
    let QueueCommand::List = command;
    let (workspaces, rest) = block_on(asking::whole_list(socket, "/api/v1/queue"))??;
    let places = json!({ "capacity": rest["capacity"], "taken": rest["taken"], "waiting": rest["waiting"], "workspaces": workspaces });
    Ok(Answer::shown(places, page))
}

fn page(answer: Value) -> anyhow::Result<String> {
    let Queue { capacity, taken, waiting, workspaces } = output::understood(answer)?;
    let head = format!("{taken} of {capacity} places are taken, {waiting} wait\n");
    if workspaces.is_empty() {
        return Ok(head);
    }
    let mut rows = vec![["POSITION", "WORKSPACE"].map(str::to_owned)];
    rows.extend(workspaces.iter().map(|one| [one.position.to_string(), printable(&one.workspace)]));
    Ok(head + &output::table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_in_order() {
        let waits = json!([{ "workspace": "carol", "position": 1 }, { "workspace": "dave", "position": 2 }]);
        let queue = json!({ "capacity": 2, "taken": 2, "waiting": 2, "workspaces": waits });
        assert_eq!(page(queue).unwrap(), "2 of 2 places are taken, 2 wait\nPOSITION  WORKSPACE\n1         carol\n2         dave\n");
    }
}
