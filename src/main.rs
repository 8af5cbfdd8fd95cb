//! The `innkeeper` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    innkeeper::cli::main(std::env::args_os()).into()
}
