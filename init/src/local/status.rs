//! `innkeeper-status`: how the workspace stands.

use std::ffi::OsString;
use std::process::ExitCode;

use innkeeper_init::protocol::{Answer, Ask};

use super::{UNAVAILABLE, USAGE, ask, complain, print};

pub(super) const NAME: &str = "innkeeper-status";

const HELP: &str = "usage: innkeeper-status\n\nSays how this workspace stands, as its gateway sees it.\n";

/// Prints it.
pub(super) fn run(arguments: &[OsString]) -> ExitCode {
    match arguments {
        [] => {}
        [help] if help == "--help" || help == "-h" => {
            print(HELP);
            return ExitCode::SUCCESS;
        }
        _ => {
            complain(HELP);
            return ExitCode::from(USAGE);
        }
    }
    let why = match ask::ask(&Ask::Status) {
        Ok((_, Answer::Status { text })) => {
            print(&text);
            if !text.ends_with('\n') {
                print("\n");
            }
            return ExitCode::SUCCESS;
        }
        Ok(_) => "the answer is to another question".to_owned(),
        Err(why) => why.to_string(),
    };
    complain(&format!("{NAME}: {why}\n"));
    ExitCode::from(UNAVAILABLE)
}
