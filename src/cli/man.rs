//! `innkeeper man`.

use super::{CommandError, output};

/// Prints the manual page, or that of one command.
pub(super) fn run(words: &[String], command: clap::Command) -> Result<(), CommandError> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut found = &command;
    for word in words {
        let next = found.get_subcommands().find(|one| one.get_name() == word.as_str());
        found = next.ok_or_else(|| anyhow::anyhow!("there is no command {}", crate::name::printable(&words.join(" "))))?;
    }
    // Into memory first, so that what cannot be written is told as of any other command.
    let mut page = Vec::new();
    clap_mangen::Man::new(found.clone()).render(&mut page)?;
    Ok(output::print(String::from_utf8_lossy(&page))?)
}
