//! The audit trail: who logged in, what was refused, what was done to whose workspace, one JSON object a line.
//!
//! Each line carries a digest of itself and of the one before, keyed by a secret of the state directory, so that a line that was changed,
//! taken out or put in shows ([`verify`]). Whoever has something to record hands it over and goes on: a thread of its own writes. What it
//! cannot keep up with is counted, and the count is a line of its own. Knows nothing of the rooms that record.

mod chain;
mod config;
mod event;
mod files;
mod page;
mod refusals;
mod syslog;
mod trail;
mod verify;
mod webhook;
mod writer;

pub use config::{Config, Webhook};
pub use event::{Actor, Event, Removal, RemovedHome, What};
pub use files::{Line, read};
pub use page::{Mark, Page, Wanted};
pub use refusals::Refusal;
pub use trail::{Audit, AuditError};
pub use verify::{Flaw, Report, verify};
pub use webhook::run as run_webhook;
