//! `innkeeper pool`: the containers that stand ready.

use std::path::Path;

use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// Show how many stand ready
    Show,
    /// Keep so many ready of each template, until the configuration is next loaded
    Resize {
        /// How many
        size: u32,
    },
    /// Make no new ones, until `pool resume` or until the configuration is next loaded
    Pause,
    /// Make new ones again from now on
    Resume,
    /// Pause, and throw away those that stand ready
    Drain,
}

/// The pool as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Pool {
    size: usize,
    paused: bool,
    templates: Vec<Spares>,
}

#[derive(Debug, Deserialize)]
struct Spares {
    template: String,
    ready: usize,
}

pub(super) fn run(command: PoolCommand, socket: &Path) -> Result<Answer, CommandError> {
    let act = |method, path: &str, body: Option<&Value>| block_on(asking::act(socket, method, path, body));
    let done = match command {
        PoolCommand::Show => return Ok(Answer::shown(block_on(asking::get(socket, "/api/v1/pool"))??, table)),
        PoolCommand::Resize { size } => act(Method::PATCH, "/api/v1/pool", Some(&json!({ "size": size })))??,
        PoolCommand::Pause => act(Method::POST, "/api/v1/pool/pause", None)??,
        PoolCommand::Resume => act(Method::POST, "/api/v1/pool/resume", None)??,
        PoolCommand::Drain => {
            let done = act(Method::POST, "/api/v1/pool/drain", None)??;
            return Ok(Answer::did(format!("{} thrown away; the pool is paused\n", done["drained"]), json!({}), done));
        }
    };
    Ok(Answer::did(table(done.clone())?, json!({}), done))
}

fn table(answer: Value) -> anyhow::Result<String> {
    let pool: Pool = output::understood(answer)?;
    let mut rows = vec![["TEMPLATE", "READY", "KEPT"].map(str::to_owned)];
    rows.extend(pool.templates.iter().map(|one| [printable(&one.template), one.ready.to_string(), pool.size.to_string()]));
    let paused = if pool.paused { "paused: no new ones are made\n" } else { "" };
    Ok(format!("{}{paused}", output::table(&rows)))
}
