//! `innkeeper clean`.

use super::{CommandError, block_on};
use crate::app;
use crate::config::Sources;

pub(super) fn run(sources: &Sources) -> Result<(), CommandError> {
    let loaded = sources.load()?;
    Ok(block_on(app::clean(&loaded.settings))??)
}
