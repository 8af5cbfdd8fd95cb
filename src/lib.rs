//! innkeeper: an SSH gateway that gives everyone who logs in a container of their own.
//!
//! The rooms, top to bottom; each uses only those below it. `ssh`, `http` and `urls` talk to strangers and see the rest through
//! [`workspace::Keeper`]; `workspace` decides; `attach`, `engine`, `home`, `backup`, `auth` and `store` do; `recording` keeps what
//! terminals showed; `bucket` is where both can go; `telemetry` tells, and `audit` records.
//! `docs/ARCHITECTURE.md` has the map and what must always hold.

pub mod address;
pub mod app;
pub mod attach;
pub mod audit;
pub mod auth;
pub mod backup;
pub mod bucket;
pub mod cli;
pub mod config;
pub mod engine;
pub mod home;
pub mod http;
pub mod name;
pub mod recording;
pub mod source;
pub mod ssh;
pub mod store;
pub mod telemetry;
pub mod units;
pub mod urls;
pub mod workspace;
