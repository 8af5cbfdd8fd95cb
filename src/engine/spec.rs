//! What a container is made from. Building one is pure, so that what a container may do can be asserted without an engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::units::Size;

/// Open files that a container's init may allow itself: more than any process in a container may have, and as many as a host allows without
/// being asked (systemd's own hard limit).
///
/// Descriptors that are on their way through Unix sockets count for all containers together, since all run as the same user, and the kernel
/// refuses to send more to whoever's limit of open files is below their number. Users stay below theirs; init always has room above it.
pub const INIT_OPEN_FILES: u32 = 524_288;

/// What a container may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// CPUs, fractions allowed.
    pub cpus: f64,
    /// Memory; there is no swap beside it.
    pub memory: Size,
    /// Processes and threads.
    pub pids: u32,
    /// Open files per process.
    pub open_files: u32,
}

/// A container to be made. What is not said here is the same for all: uid and gid 1000, every capability dropped,
/// `no-new-privileges`, the engine's default seccomp profile, no restart by the engine, a small bounded log.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Its name: the lock (see [`super::Engine::create`]).
    pub name: String,
    /// Its host name, seen inside.
    pub hostname: String,
    /// The image, as the template names it.
    pub image: String,
    /// Labels, beside the instance's own.
    pub labels: BTreeMap<String, String>,
    /// Environment of everything in it. Visible to whoever may inspect it: no secrets.
    pub env: BTreeMap<String, String>,
    /// What it may use.
    pub limits: Limits,
    /// Directories of the host that appear in it.
    pub mounts: Vec<Mount>,
    /// The network it is on; `None`: on none, with its loopback alone.
    pub network: Option<String>,
    /// The directory of the host that has its init, and what that needs. Without one, its first process only waits and reaps.
    pub init: Option<PathBuf>,
}

/// A directory of the host that appears in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where on the host.
    pub source: PathBuf,
    /// Where in the container.
    pub target: String,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Whether mounts made under `source` later appear too.
    pub propagation: Propagation,
}

/// Which mounts travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// None.
    Private,
    /// From the host into the container, never out.
    Slave,
}

/// A network of the instance's own, on which containers cannot reach each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
}
