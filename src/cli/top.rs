//! `innkeeper top`: who runs, who is in, and who waits, again and again.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::{CommandError, asking, block_on, session, workspace};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Look once, and end
    #[arg(long)]
    once: bool,
}

/// Clears a terminal and begins at its top; the rest of what was there goes too.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Looks again and again; `json`: each look is an object a line.
pub(super) fn run(args: &TopArgs, socket: &Path, json: bool) -> Result<Answer, CommandError> {
    loop {
        let seen = block_on(look(socket))??;
        let text = if json { format!("{seen}\n") } else { page(&seen)? };
        let clear = if !json && !args.once && io::stdout().is_terminal() { CLEAR } else { "" };
        output::print(format!("{clear}{text}"))?;
        if args.once {
            return Ok(Answer::nothing());
        }
        std::thread::sleep(Duration::from_secs(args.every));
    }
}

async fn look(socket: &Path) -> anyhow::Result<Value> {
    Ok(json!({
        "workspaces": asking::list(socket, "/api/v1/workspaces").await?,
        "sessions": asking::list(socket, "/api/v1/sessions").await?,
        "queue": asking::get(socket, "/api/v1/queue").await?,
        "pool": asking::get(socket, "/api/v1/pool").await?,
        "overview": asking::get(socket, "/api/v1/overview").await?,
    }))
}

fn page(seen: &Value) -> anyhow::Result<String> {
    let (queue, pool) = (&seen["queue"], &seen["pool"]);
    let ready: u64 = pool["templates"].as_array().into_iter().flatten().filter_map(|one| one["ready"].as_u64()).sum();
    let paused = if pool["paused"] == true { " (paused)" } else { "" };
    let host = host(&seen["overview"]["host"]);
    let head =
        format!("places {} of {}, {} waiting; pool {ready} ready{paused}\n{host}\n", queue["taken"], queue["capacity"], queue["waiting"]);
    let workspaces = workspace::running(seen["workspaces"].clone())?;
    let sessions: Vec<session::Session> = output::understood(seen["sessions"].clone())?;
    Ok(format!("{head}{workspaces}\n{}", session::table(&sessions)))
}

/// How the host does, in a line; what is not known is left out.
fn host(host: &Value) -> String {
    let share = |of: &Value| Some(100.0 * of["used"].as_f64()? / of["total"].as_f64().filter(|total| *total > 0.0)?);
    let shares = [
        ("cpu", host["cpu"].as_f64().map(|share| 100.0 * share)),
        ("memory", share(&host["memory"])),
        ("disk", share(&host["homes_disk"])),
    ];
    let mut words: Vec<String> = shares.iter().filter_map(|(name, share)| share.map(|share| format!("{name} {share:.0}%"))).collect();
    words.extend(host["load"][0].as_f64().map(|load| format!("load {load:.2}")));
    if words.is_empty() { String::new() } else { format!("{}\n", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_shown_as_far_as_it_is_known() {
        let seen = json!({ "cpu": 0.254, "memory": { "used": 1, "total": 4 }, "homes_disk": null, "load": [0.5, 1.0, 1.0] });
        assert_eq!(host(&seen), "cpu 25%, memory 25%, load 0.50\n");
        assert_eq!(host(&Value::Null), "");
    }
}
