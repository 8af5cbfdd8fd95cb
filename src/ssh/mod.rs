//! The SSH server: the only room that names russh.

mod config;

pub use config::Config;
