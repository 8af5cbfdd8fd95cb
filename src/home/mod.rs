//! Homes, and the slots through which they reach containers that are already running.
//!
//! A home is a workspace's persistent files. A slot is an empty directory on the host that a container has for its home directory, bound
//! with slave propagation: a home mounted on the slot appears in the container. This room knows paths and mounts, no containers.

mod btrfs;
mod capability;
mod config;
mod directory;
mod driver;
mod files;
mod homes;
mod host;
mod loopback;
mod mounts;
mod program;
mod prospects;
mod shelf;
pub mod skeleton;
mod slots;
pub mod tree;
mod xfs;

pub use config::{Config, DriverKind};
pub use driver::{Applied, Hold, Holds, HomeId, Quota, Usage};
pub use homes::{Homes, Snapshot, Source, Staged};
pub use host::{Fence, FenceError, make_within};
pub(crate) use loopback::SMALLEST as SMALLEST_IMAGE;
pub use prospects::{Prospect, prospects};
pub use shelf::{AsideId, AsideReason, KeptId};
pub use skeleton::Skeleton;
pub use slots::{Slot, SlotId, Slots};

use std::io;
use std::path::{Path, PathBuf};

/// Whoever a container's processes run as. Homes belong to it.
pub const USER: u32 = 1000;

/// A file operation on a home or a slot that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}: {why}", path.display())]
pub struct HomeError {
    what: &'static str,
    path: PathBuf,
    why: io::Error,
}

impl HomeError {
    /// Makes one out of an I/O error, for `map_err`.
    fn of<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |why| Self { what, path: path.to_owned(), why: why.into() }
    }
}
