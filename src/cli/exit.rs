//! What the program's exit status means.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked to.
    Ok = 0,
    /// It could not: it did not start, or something that it needs is not there.
    Failed = 1,
    /// It was asked in the wrong way, or with a configuration that nothing can be started with. `EX_USAGE` of sysexits.
    Usage = 64,
    /// A bug. `EX_SOFTWARE` of sysexits.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
