//! `innkeeper config`.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::config::{self, Sources};
use crate::name::printable;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a complete configuration file with every default, commented
    Default,
    /// Print the reference page in Markdown
    Docs,
    /// Print the settings in effect, from the file and the environment; secrets are shown as ***
    Show {
        /// Those that the running gateway goes by
        #[arg(long)]
        running: bool,
    },
    /// Have the running gateway load its configuration again, as SIGHUP does; one that cannot be used changes nothing
    Reload,
}

/// What a reload came to, as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Reloaded {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

pub(super) fn run(command: ConfigCommand, sources: &Sources) -> Result<Answer, CommandError> {
    let socket = || Ok::<_, CommandError>(sources.load()?.settings.admin_socket());
    match command {
        ConfigCommand::Default => output::print(config::default_file())?,
        ConfigCommand::Docs => output::print(config::reference())?,
        ConfigCommand::Show { running: false } => {
            let text = config::effective(&sources.load()?.settings);
            let value: Value = toml::from_str(&text).map_err(anyhow::Error::from)?;
            return Ok(Answer::shown(value, move |_| Ok(text)));
        }
        ConfigCommand::Show { running: true } => {
            let settings = block_on(asking::get(&socket()?, "/api/v1/config"))??;
            return Ok(Answer::shown(settings, |settings| Ok(toml::to_string(&settings)?)));
        }
        ConfigCommand::Reload => {
            let answer = block_on(asking::act(&socket()?, Method::POST, "/api/v1/reload", None))??;
            let Reloaded { changed, needs_restart } = output::understood(answer.clone())?;
            let names = |keys: &[String]| keys.iter().map(|key| printable(key)).collect::<Vec<_>>().join(", ");
            let words = if changed.is_empty() { "nothing has changed\n".to_owned() } else { format!("changed: {}\n", names(&changed)) };
            let done = Answer::did(words, json!({}), answer);
            let later = format!("only a restart applies {}", names(&needs_restart));
            return Ok(if needs_restart.is_empty() { done } else { done.remark(later) });
        }
    }
    Ok(Answer::nothing())
}
