//! `innkeeper completions`.

use clap_complete::Shell;

use super::{CommandError, output};

#[derive(Debug, clap::Args)]
#[command(after_help = "For example: innkeeper completions bash > /etc/bash_completion.d/innkeeper")]
pub(super) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs, mut command: clap::Command) -> Result<(), CommandError> {
    // Into memory first: the generator panics when it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "innkeeper", &mut script);
    Ok(output::print(String::from_utf8_lossy(&script))?)
}
