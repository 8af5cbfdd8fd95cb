//! `innkeeper config`.

use super::{CommandError, output};
use crate::config::{self, Sources};

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a complete configuration file with every default, commented
    Default,
    /// Print the reference page in Markdown
    Docs,
    /// Print the settings in effect, from the file and the environment; secrets are shown as ***
    Show,
}

pub(super) fn run(command: ConfigCommand, sources: impl FnOnce() -> Sources) -> Result<(), CommandError> {
    let text = match command {
        ConfigCommand::Default => config::default_file(),
        ConfigCommand::Docs => config::reference(),
        ConfigCommand::Show => config::effective(&sources().load()?.settings),
    };
    Ok(output::print(text)?)
}
