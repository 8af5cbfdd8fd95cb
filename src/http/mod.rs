//! Health and metrics over HTTP: the only room that names axum.
//!
//! Read-only, and asks nobody for a name: what is served here may be known to whoever can reach the address. Answers are remembered for
//! a moment, so that asking often costs nobody else anything.

mod config;
mod pages;
mod server;

pub use config::Config;
pub use pages::Pages;
pub use server::serve;
