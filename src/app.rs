//! Wires everything.

use anyhow::bail;

use crate::config::{Loaded, Settings};
use crate::telemetry::{Log, Probe};

/// Serves until it is told to stop.
pub async fn serve(_loaded: Loaded, _log: Log) -> anyhow::Result<()> {
    bail!("the rooms are not wired yet")
}

/// Removes every container, network and mount of the instance. Homes stay.
pub async fn clean(_settings: &Settings) -> anyhow::Result<()> {
    bail!("the rooms are not wired yet")
}

/// Whether what the gateway would serve with is there: the engine, the images, the login services.
pub fn probes(_settings: &Settings) -> anyhow::Result<Vec<Probe>> {
    Ok(Vec::new())
}
