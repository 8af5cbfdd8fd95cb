//! What a workspace uses of what it may, and has used.

use serde::Deserialize;
use serde_json::Value;

use super::tasks::size;
use crate::cli::output;
use crate::name::printable;

/// Moments that are shown of a history, the last ones.
const SHOWN: usize = 20;

/// What is answered.
#[derive(Debug, Deserialize)]
struct Usage {
    usage: Used,
    allowed: Option<Used>,
    points: Vec<Point>,
}

#[derive(Debug, Default, Deserialize)]
struct Used {
    cpu: Option<f64>,
    memory: Option<u64>,
    disk: Option<u64>,
    pids: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Point {
    at: String,
    cpu: Option<f64>,
    memory: Option<u64>,
    disk: Option<u64>,
}

/// For people: now, and how it came to that.
pub(super) fn page(answer: Value) -> anyhow::Result<String> {
    let Usage { usage, allowed, points } = output::understood(answer)?;
    let mut now = vec![["", "CPUS", "MEMORY", "DISK", "PROCESSES"].map(str::to_owned)];
    for (name, Used { cpu, memory, disk, pids }) in [("in use", usage), ("allowed", allowed.unwrap_or_default())] {
        now.push([name.to_owned(), number(cpu), bytes(memory), bytes(disk), pids.map_or_else(|| "-".to_owned(), |pids| pids.to_string())]);
    }
    let mut history = vec![["AT", "CPUS", "MEMORY", "DISK"].map(str::to_owned)];
    let last = points.iter().skip(points.len().saturating_sub(SHOWN));
    history.extend(last.map(|Point { at, cpu, memory, disk }| [printable(at), number(*cpu), bytes(*memory), bytes(*disk)]));
    Ok(format!("{}\n{}", output::table(&now), output::table(&history)))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn bytes(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), size)
}
