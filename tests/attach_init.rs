//! Processes in real containers through their container's init, as a session sees them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

#[path = "common/container.rs"]
mod container;
#[path = "common/engine.rs"]
mod engine;
#[path = "common/processes.rs"]
mod processes;

const WAY: container::Way = container::Way::Init;
