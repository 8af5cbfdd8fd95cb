//! The domain: who has which workspace, and what it is doing.
//!
//! Knows no SSH, HTTP, Docker or SQL. Above it, a [`Keeper`] is all there is; its requests and answers could cross a socket as they are.
//!
//! [`state`] decides, [`perform`] does, [`driver`] is the one task that has things decided and done for a workspace, and tells. A
//! [`Directory`] has all drivers. Beside them the [`pool`] makes containers ready, the [`sweeper`] stops and tidies, [`admission`] says
//! who may run, and [`leases`] says who is there.

mod administration;
mod admission;
mod backing;
mod capacity;
mod config;
mod copying;
mod directory;
mod driver;
mod enforcement;
mod events;
mod figures;
mod floor;
mod house;
mod keeper;
mod keeping;
mod leases;
mod lending;
mod meter;
mod moving;
mod notice;
mod operations;
mod parcel;
mod passing;
mod perform;
mod policy;
mod pool;
mod recipe;
mod recorded;
mod restoring;
mod roll;
mod sampling;
mod service;
mod serving;
mod settings;
mod standing;
mod starts;
mod state;
mod sweeper;
mod template;
mod terms;
#[cfg(test)]
mod tests;
mod upgrades;
mod upgrading;
mod variables;
mod volume;

pub use administration::{Administration, AskError, Overview, ServiceView, Standing};
pub use backing::{BackedUp, BackupsView, Chore, Unconfirmed};
pub use capacity::{Bound, Fits, Resources};
pub use config::{CapacityConfig, IdleConfig, LimitsConfig, MountsConfig, PoolConfig};
pub use directory::Directory;
pub use enforcement::Enforcement;
pub use events::{Event, News};
pub use figures::{Allowed, CapacityView, OverviewFigures, TemplateFits, UsageView};
pub use floor::Disks;
pub use house::{Apart, Parts, Rules};
pub use keeper::{
    Ending, EnsureError, FullVolume, Fullness, Keeper, Lease, Note, OpenError, Progress, ProgressSender, Recorded, StartPath, Stay,
};
pub use meter::{HistorySpan, Point, Sample};
pub use moving::{Exported, Import};
pub use operations::{Known, NewWorkspace, Operations, PoolChange, PoolView, QueueView, SpareView, Starting};
pub use passing::{DeletedView, Done, Running, Step, Task};
pub use policy::{IdlePolicy, NetworkPolicy};
pub use roll::SessionView;
pub use service::{Readiness, Restart, Service};
pub use settings::{Applied, Change, Changed, Details, MountView, TreeView};
pub use starts::StartFigures;
pub use template::{Attachment, Recording, Template};
pub use upgrades::{ImageAge, UpgradeView};
pub use volume::Volume;
