//! innkeeper: an SSH gateway that gives everyone who logs in a container of their own.
//!
//! The rooms, top to bottom; each uses only those below it. `ssh` and `http` talk to strangers and see the rest through
//! [`workspace::Keeper`]; `workspace` decides; `attach`, `engine`, `home`, `auth` and `store` do; `telemetry` tells.
//! `docs/ARCHITECTURE.md` has the map and what must always hold.

pub mod app;
pub mod attach;
pub mod auth;
pub mod cli;
pub mod config;
pub mod engine;
pub mod home;
pub mod http;
pub mod name;
pub mod ssh;
pub mod store;
pub mod telemetry;
pub mod units;
pub mod workspace;
