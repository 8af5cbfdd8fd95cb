//! A named recipe for workspaces.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::NetworkPolicy;
use super::service::Service;
use super::volume::{Volume, Volumes};
use crate::auth::Permit;
use crate::engine::Limits;
use crate::home::{Quota, Skeleton};
use crate::name::{VariableName, VolumeName};
use crate::units::{Size, Span};

/// A named recipe: what a workspace's container is made from, and what it may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Template {
    /// The image. Pulled when it is not there.
    pub image: String,
    /// CPUs that it may use at once; fractions are allowed.
    pub cpus: f64,
    /// Memory that it may use. There is no swap beside it.
    pub memory: Size,
    /// Processes and threads that it may have.
    pub pids: u32,
    /// Files that one process may have open.
    pub open_files: u32,
    /// Size of the home. Enforced where `home.driver` can, reported otherwise. Another size applies to a home at the next login, while it is in
    /// use too; a smaller one of a `loop` home only when nobody uses it.
    pub disk: Size,
    /// Files and directories that the home may have. Default: as many as its driver gives it, which is one for each 16 KiB with `loop`, and any
    /// number otherwise. With `loop` it is fixed when the home is made, and rounded up.
    pub inodes: Option<u64>,
    /// Environment of every process in it. Visible to whoever may inspect the container: no secrets.
    pub env: BTreeMap<String, String>,
    /// Secrets that each workspace has a value of its own of, made up at its first use: variables of every session and service, which only
    /// `innkeeper workspace secret` changes.
    pub secrets: Vec<VariableName>,
    /// Where the home appears in the container.
    pub home: String,
    /// What a new home starts with: a directory on the host, or a tar archive, plain or compressed with gzip or zstd, all of which becomes the
    /// user's; or `workspace:NAME@SNAPSHOT`, what another workspace had in its home when `innkeeper workspace snapshot NAME take SNAPSHOT` was
    /// called, none of whose secrets come with it. Homes that are there already are not touched. Default: nothing.
    pub skeleton: Option<Skeleton>,
    /// Directories beside the home that are kept as it is, each with a limit of its own; at most 8. A container has the volumes that it was made
    /// with: one that stands still is replaced at the next start where they are others now. What a template no longer names stays on the disk.
    pub volume: Vec<Volume>,
    /// For how long at most something inside may ask to be kept running, and how far beyond `idle.max_lifetime`; `0s`: not at all.
    pub keep_max: Span,
    /// What a person reads at a terminal before the first prompt. Programs never see it, nor does who has a `.hushlogin`.
    pub motd: String,
    /// Whether its containers go on though nobody is in them: they are not idle, and give no place up. `idle.max_lifetime` holds for them
    /// too.
    pub keep_running: bool,
    /// Programs that its containers run beside sessions, so that a container can be an application. A container from the pool starts them
    /// when it is somebody's. A changed list is applied to containers that run, where services that are the same go on.
    pub service: Vec<Service>,
    /// Where the network of its containers leads: `open`, out as the host's does, or `none`, nowhere. `innkeeper workspace policy` says otherwise
    /// of one workspace. Containers never reach each other, and forwards and URLs work with either.
    pub network: NetworkPolicy,
    /// How processes are opened in it: `init`, the way that does everything, or `exec`, the engine's own, for comparison and for engines that
    /// are on another host.
    pub attach: Attachment,
    /// What is recorded of sessions: `off`, or `terminals`, what each terminal was sent and how large it was; never what was typed. Who is
    /// recorded is told at login. A session without a terminal is not recorded. Applies to sessions that begin. See `[recording]`.
    pub recording: Recording,
    /// Whether an administrator may watch terminals while they are used, as they are recorded. Costs processor time for each byte of output, whether somebody watches or not: see docs/performance.md.
    pub watch: bool,
    /// What accounts in it may do, as far as their grants permit it too.
    pub permit: Permit,
}

/// What is recorded of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recording {
    /// Nothing.
    #[default]
    Off,
    /// What terminals were sent.
    Terminals,
}

/// How processes are opened in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// Through its first process, which hands out file descriptors.
    #[default]
    Init,
    /// Through the engine's exec: no forwards, no terminals that survive, a tenth of the speed.
    Exec,
}

impl Template {
    /// What its containers may use.
    pub fn limits(&self) -> Limits {
        Limits { cpus: self.cpus, memory: self.memory, pids: self.pids, open_files: self.open_files }
    }

    /// What its homes may have in them.
    pub fn quota(&self) -> Quota {
        Quota { bytes: Some(self.disk.get()), inodes: self.inodes }
    }

    /// What a new home, or this volume, starts with.
    pub(super) fn skeleton_of(&self, volume: Option<&VolumeName>) -> Option<&Skeleton> {
        match volume {
            None => self.skeleton.as_ref(),
            Some(name) => self.volume.iter().find(|volume| volume.name == *name)?.skeleton.as_ref(),
        }
    }

    /// Whatever new homes and volumes start with.
    pub fn skeletons(&self) -> impl Iterator<Item = (Option<&VolumeName>, &Skeleton)> {
        let volumes = self.volume.iter().filter_map(|volume| Some((Some(&volume.name), volume.skeleton.as_ref()?)));
        self.skeleton.iter().map(|skeleton| (None, skeleton)).chain(volumes)
    }

    /// Which volumes its containers have.
    pub(super) fn volumes(&self) -> Volumes {
        self.volume.iter().map(|volume| (volume.name.clone(), volume.path.clone())).collect()
    }
}

impl Default for Template {
    fn default() -> Self {
        Self {
            image: "innkeeper/user:latest".to_owned(),
            cpus: 2.0,
            memory: Size::gib(8),
            pids: 512,
            open_files: 16_384,
            disk: Size::gib(50),
            inodes: None,
            env: BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]),
            secrets: Vec::new(),
            home: "/home/user".to_owned(),
            skeleton: None,
            volume: Vec::new(),
            keep_max: Span::secs(24 * 60 * 60),
            motd: String::new(),
            permit: Permit::default(),
            network: NetworkPolicy::default(),
            attach: Attachment::default(),
            keep_running: false,
            service: Vec::new(),
            recording: Recording::default(),
            watch: false,
        }
    }
}
