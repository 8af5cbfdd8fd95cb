//! Init under another name: what people in a container call.

mod ask;
mod duration;
mod keep;
mod status;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::note::note;

/// What a program ends with that was called in a way it does not know (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// What one ends with that had no answer (`EX_UNAVAILABLE`).
const UNAVAILABLE: u8 = 69;

/// What one ends with that was refused what may be had later (`EX_TEMPFAIL`).
const REFUSED: u8 = 75;

/// Does what the program of this name does.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> ExitCode {
    match name {
        keep::NAME => keep::run(arguments),
        status::NAME => status::run(arguments),
        _ => {
            note(&format!("{name:?}: not known here"));
            ExitCode::FAILURE
        }
    }
}

/// Prints this. Nothing is done about a failure: whoever would read of it does not.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Says this on standard error.
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
