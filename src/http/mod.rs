//! Health and metrics over HTTP: the only room that names axum.

mod config;

pub use config::Config;
