//! Homes and the slots through which they reach containers.

mod config;

pub use config::{Config, Driver};
