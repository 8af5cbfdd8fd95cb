//! The domain: who has which workspace, and what it is doing.
//!
//! Knows no SSH, HTTP, Docker or SQL. Above it, a [`Keeper`] is all there is; its requests and answers could cross a socket as they are.
//!
//! [`state`] decides, [`perform`] does, [`driver`] is the one task that has things decided and done for a workspace, and tells. A
//! [`Directory`] has all drivers. Beside them the [`pool`] makes containers ready, the [`sweeper`] stops and tidies, [`admission`] says
//! who may run, and [`leases`] says who is there.

mod admission;
mod config;
mod directory;
mod driver;
mod house;
mod keeper;
mod leases;
mod perform;
mod pool;
mod recipe;
mod state;
mod sweeper;
mod template;
#[cfg(test)]
mod tests;

pub use config::{IdleConfig, LimitsConfig, PoolConfig};
pub use directory::Directory;
pub use house::{Parts, Rules};
pub use keeper::{Ending, EnsureError, Keeper, Lease, OpenError, Progress, ProgressSender, StartPath, Stay};
pub use template::Template;
