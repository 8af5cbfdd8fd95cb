//! `innkeeper clean`.

use serde_json::{Value, json};

use super::output::Answer;
use super::{CommandError, block_on};
use crate::app;
use crate::config::Sources;

pub(super) fn run(sources: &Sources) -> Result<Answer, CommandError> {
    let loaded = sources.load()?;
    block_on(app::clean(&loaded.settings))??;
    Ok(Answer::did("", json!({}), Value::Null))
}
