//! `innkeeper pool`: the containers that stand ready.

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{CommandError, asking, block_on, output};
use crate::name::printable;

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// Show how many stand ready
    Show {
        /// Print a JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
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

pub(super) fn run(command: PoolCommand, socket: &Path) -> Result<(), CommandError> {
    let act = |method, path: &str, body: Option<&Value>| block_on(asking::act(socket, method, path, body));
    match command {
        PoolCommand::Show { json: true } => Ok(output::print(format!("{:#}\n", block_on(asking::get(socket, "/api/v1/pool"))??))?),
        PoolCommand::Show { json: false } => print(block_on(asking::get(socket, "/api/v1/pool"))??),
        PoolCommand::Resize { size } => print(act(Method::PATCH, "/api/v1/pool", Some(&json!({ "size": size })))??),
        PoolCommand::Pause => print(act(Method::POST, "/api/v1/pool/pause", None)??),
        PoolCommand::Resume => print(act(Method::POST, "/api/v1/pool/resume", None)??),
        PoolCommand::Drain => {
            let done = act(Method::POST, "/api/v1/pool/drain", None)??;
            Ok(output::print(format!("{} thrown away; the pool is paused\n", done["drained"]))?)
        }
    }
}

fn print(answer: Value) -> Result<(), CommandError> {
    let pool: Pool = serde_json::from_value(answer).context("the gateway's answer is not understood; is it of another version?")?;
    let mut rows = vec![["TEMPLATE", "READY", "KEPT"].map(str::to_owned)];
    rows.extend(pool.templates.iter().map(|one| [printable(&one.template), one.ready.to_string(), pool.size.to_string()]));
    let paused = if pool.paused { "paused: no new ones are made\n" } else { "" };
    Ok(output::print(format!("{}{paused}", output::table(&rows)))?)
}
