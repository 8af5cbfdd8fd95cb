//! A line on standard error, where the engine collects what a container's first process says.

/// Says so. Nothing is done about a failure: there is nobody left to tell.
pub(crate) fn note(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stderr(), format!("innkeeper-init: {text}\n").as_bytes());
}
