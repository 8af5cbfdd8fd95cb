//! `innkeeper lease`: what keeps workspaces running. A lease is a session, a forward or an open HTTP connection, and ends with it.

use std::path::Path;

use clap::Subcommand;
use serde::Deserialize;

use super::output::{self, Answer};
use super::workspace::span;
use super::{CommandError, asking, block_on};
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum LeaseCommand {
    /// List the workspaces that somebody uses: how many sessions, forwards and open HTTP connections each has
    List {
        /// Those too that nobody uses, and since when
        #[arg(long)]
        idle: bool,
    },
}

/// Leases as the gateway answers them.
#[derive(Debug, Deserialize)]
struct Leases {
    workspace: String,
    leases: usize,
    idle_seconds: Option<u64>,
}

pub(super) fn run(command: &LeaseCommand, socket: &Path) -> Result<Answer, CommandError> {
    let LeaseCommand::List { idle } = command;
    let all = block_on(asking::list(socket, &format!("/api/v1/leases?idle={idle}")))??;
    Ok(Answer::list(all, |all: &[Leases]| {
        let mut rows = vec![["WORKSPACE", "LEASES", "IDLE"].map(str::to_owned)];
        rows.extend(all.iter().map(|one| [printable(&one.workspace), one.leases.to_string(), span(one.idle_seconds)]));
        output::table(&rows)
    }))
}
