//! The domain: who has which workspace, and what it is doing.
//!
//! Knows no SSH, HTTP, Docker or SQL. Above it, a [`Keeper`] is all there is; its requests and answers could cross a socket as they are.

mod config;
mod keeper;
mod template;

pub use config::{IdleConfig, LimitsConfig, PoolConfig};
pub use keeper::{Ending, EnsureError, Keeper, Lease, OpenError, Progress, ProgressSender, StartPath, Stay};
pub use template::Template;
