//! What Docker's refusals mean. Its status codes say little, so its words are read too; those here are the same from 20.10 to 29.

use bollard::errors::Error;

use crate::engine::EngineError;
use crate::name::printable;

/// Longest part of an answer that is kept, in characters: an answer may quote a whole request.
const WHY_MAX: usize = 500;

/// What an error of `call` on `subject` means.
pub(super) fn meaning(call: &'static str, subject: &str, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => refusal(call, subject, status_code, &message),
        Error::DockerStreamError { error } => refusal(call, subject, 500, &error),
        Error::RequestTimeoutError => EngineError::TimedOut(call),
        Error::IOError { .. } | Error::HyperResponseError { .. } | Error::HyperLegacyError { .. } | Error::SocketNotFoundError(_) => {
            EngineError::Unreachable(chain(&error))
        }
        other => EngineError::Refused { call, why: short(&chain(&other)) },
    }
}

/// What an answer with such a status and message means.
pub(super) fn refusal(call: &'static str, subject: &str, status: u16, message: &str) -> EngineError {
    let says = |words: &str| message.contains(words);
    if says("no space left on device") || says("disk quota exceeded") {
        EngineError::NoSpace(short(message))
    } else if says("is already in use by container") {
        EngineError::NameTaken(subject.to_owned())
    } else if says("is not running") || says("is paused") || says("is not paused") {
        EngineError::NotRunning
    } else if status == 404 {
        EngineError::NotFound(subject.to_owned())
    } else {
        EngineError::Refused { call, why: short(message) }
    }
}

/// An error with its causes, which hold what the system said.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

fn short(text: &str) -> String {
    printable(text.trim()).chars().take(WHY_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_is_understood() {
        let meant = |status, message| refusal("start", "x", status, message);
        let taken =
            r#"Conflict. The container name "/x" is already in use by container "ab". You have to remove (or rename) that container"#;
        assert!(matches!(meant(409, taken), EngineError::NameTaken(name) if name == "x"));
        assert!(matches!(meant(404, "No such container: x"), EngineError::NotFound(_)));
        assert!(matches!(meant(409, "Container ab is not running"), EngineError::NotRunning));
        assert!(matches!(meant(409, "Container ab is paused, unpause the container before exec"), EngineError::NotRunning));
        assert!(matches!(meant(500, "mkdir /var/lib/docker/x: no space left on device"), EngineError::NoSpace(_)));
        let Some(EngineError::Refused { why, .. }) = Some(meant(500, &format!("\x1b[31m{}", "a".repeat(9999)))) else { panic!() };
        assert!(why.len() <= WHY_MAX && why.starts_with("\\u{1b}"));
    }
}
