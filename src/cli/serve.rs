//! `innkeeper serve`.

use anyhow::Context;

use super::{CommandError, block_on};
use crate::config::Sources;
use crate::{app, telemetry};

pub(super) fn run(sources: &Sources) -> Result<(), CommandError> {
    let loaded = sources.load()?;
    let log = telemetry::init(&loaded.settings.log).context("starting to log")?;
    for warning in &loaded.warnings {
        tracing::warn!(key = warning.key, origin = %warning.origin, "configuration: {}", warning.message);
    }
    Ok(block_on(app::serve(loaded, log))??)
}
