//! What an administrator sets of a workspace, and what she is told of it. Everything is written down before it is gone by, so that a kill
//! leaves it set, or not, and a start goes by what is set.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;
use tracing::info;

use super::directory::Directory;
use super::driver::Request;
use super::enforcement::Enforcement;
use super::events::News;
use super::lending::check_target;
use super::policy;
use super::terms::{self, Terms};
use super::variables::{SECRET_BYTES, make_up};
use super::{AskError, Overview, Template, UpgradeView};
use crate::auth::{LimitOverrides, VolumeLimits};
use crate::home::{HomeId, Usage};
use crate::name::{SnapshotName, TemplateName, VariableName, VolumeName, WorkspaceName};
use crate::store::{
    AlterError, Alteration, NewSecret, Policy, PolicyChange, SecretInfo, Settings, StoreError, StoredMount, Suspension, UpgradeStep,
};
use crate::units::Size;

/// A change of what is set of a workspace.
#[derive(Debug)]
pub enum Change {
    /// Nobody may be in it, for this reason, until it is resumed.
    Suspend(String),
    /// Somebody may be in it.
    Resume,
    /// Limits of its own, beside those that are set, or in place of all of them.
    Limit {
        /// Whether those that are set are forgotten first.
        reset: bool,
        /// The new ones.
        limits: LimitOverrides,
    },
    /// Variables that anybody may see.
    Env {
        /// To be set.
        set: BTreeMap<VariableName, String>,
        /// To be removed.
        unset: Vec<VariableName>,
    },
    /// A secret of this value.
    SetSecret(VariableName, SecretString),
    /// A secret of so many random bytes.
    GenerateSecret(VariableName, Option<usize>),
    /// The same in place of one that was made up before.
    RotateSecret(VariableName, Option<usize>),
    /// No such secret. One that the template wants is made up anew.
    RemoveSecret(VariableName),
    /// A directory of the host appears in it.
    AddMount {
        /// Where on the host.
        source: String,
        /// Where in the workspace.
        target: String,
        /// Whether it can be written to.
        read_write: bool,
    },
    /// What appears there does so no more.
    RemoveMount(String),
    /// It gets a container of its template's image as it is then, at its next start.
    Upgrade,
    /// When it is stopped, where its network leads, which ports are public.
    Policy(PolicyChange),
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Since when it is gone by.
    pub applied: Applied,
    /// Whether the workspace has a home: if not, its name may be a mistake.
    pub has_home: bool,
    /// How each limit holds that was set, of a change of limits.
    pub enforcement: Vec<Enforcement>,
    /// Of which revision what is set of it is now.
    pub revision: i64,
}

/// Since when a change is gone by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// Since now.
    Now,
    /// From the next start of its container on.
    AtNextStart,
    /// It is set, and could not be applied to what runs; why not.
    NotYet(String),
}

/// Everything that is known of a workspace, but for values of secrets.
#[derive(Debug, Clone)]
pub struct Details {
    /// How it stands, if this gateway has seen it.
    pub overview: Option<Overview>,
    /// Whether it has a home.
    pub has_home: bool,
    /// The template it was last given.
    pub template: TemplateName,
    /// Whether it is to get another image.
    pub upgrade: Option<UpgradeView>,
    /// Higher after each change of what is set of it.
    pub revision: i64,
    /// Why nobody may be in it.
    pub suspension: Option<Suspension>,
    /// What it may use: the template's, what its last grant changed, and what is set here.
    pub limits: LimitOverrides,
    /// What of that is set here.
    pub own_limits: LimitOverrides,
    /// How each of its limits holds; of none where its template is not there.
    pub enforcement: Vec<Enforcement>,
    /// How much is in its home and its volumes, as far as that is known.
    pub trees: Vec<TreeView>,
    /// When it is stopped, where its network leads, and which ports are public, as far as that is set here.
    pub policy: Policy,
    /// Its variables.
    pub env: BTreeMap<VariableName, String>,
    /// Its secrets.
    pub secrets: Vec<SecretInfo>,
    /// What of the host appears in it.
    pub mounts: Vec<MountView>,
    /// The snapshots of it that are kept.
    pub snapshots: BTreeSet<SnapshotName>,
    /// When it was last used, as far as anybody remembers.
    pub last_active: Option<SystemTime>,
}

/// How much is in a home, or in a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeView {
    /// The volume; `None`: the home.
    pub volume: Option<VolumeName>,
    /// What is in it and may be; `None` where nobody has counted it yet.
    pub usage: Option<Usage>,
}

/// A directory of the host in a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountView {
    /// Where on the host.
    pub source: String,
    /// Where in the workspace.
    pub target: String,
    /// Whether it can be written to.
    pub read_write: bool,
    /// Why it could not be had right now.
    pub problem: Option<String>,
}

/// Most volumes that have limits of their own: more than a template has.
const MOST_VOLUMES: usize = 64;
/// Longest reason for a suspension, in bytes: a few lines at a terminal.
const LONGEST_REASON: usize = 1024;
/// Fewest and most random bytes of a secret.
const RANDOM_BYTES: std::ops::RangeInclusive<usize> = 16..=1024;
/// How much longer than a container may take to stop, or the engine to change it, the change is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

impl Directory {
    /// Writes a change down, and has it gone by.
    pub(super) async fn make(&self, name: &WorkspaceName, change: Change, revision: Option<i64>) -> Result<Changed, AskError> {
        let what = change.label();
        let is_mount = matches!(change, Change::AddMount { .. } | Change::RemoveMount(_));
        let is_upgrade = matches!(change, Change::Upgrade);
        let is_network = matches!(&change, Change::Policy(PolicyChange { network: Some(_), .. }));
        let before = self.set_of(name).await?;
        if before.passage.is_some() {
            let why =
                format!("{name} was deleted, or is being copied to; `innkeeper workspace list --deleted` says which can be brought back");
            return Err(AskError::Refused(why));
        }
        if is_upgrade && !self.can_be_upgraded(name, &before).await? {
            unchanged(&before, revision)?;
            let (has_home, revision) = (self.has_home(name).await, before.revision);
            return Ok(Changed { applied: Applied::Now, has_home, enforcement: Vec::new(), revision });
        }
        let limited = match &change {
            Change::Limit { reset, limits } => Some((*reset, limits.clone())),
            _ => None,
        };
        let alteration = self.checked(name, change).await?;
        let is_variable = matches!(
            alteration,
            Alteration::Env { .. } | Alteration::SetSecret(..) | Alteration::RotateSecret(..) | Alteration::RemoveSecret(_)
        );
        let settings = self.house.parts.store.alter_if(name, revision, alteration).await.map_err(refused)?;
        // A kill from here on leaves it set: the next start goes by it.
        info!(workspace = %name, what, "changed by an administrator");
        self.house.record(name, "set", None, Some(what));
        self.house.events.tell(News::Changed { workspace: name.clone(), what });
        self.house.public.set(name, settings.policy.public_ports.clone());
        let (has_home, revision) = (self.has_home(name).await, settings.revision);
        let given = match &limited {
            // Of a template that is not there nothing can be said, and it is set all the same.
            Some(_) => self.given_to(name, &settings).await.ok(),
            None => None,
        };
        let applied = if is_variable {
            // Sessions read them when they start; services are told, and those for which something is different are started again.
            self.house.services.settings_changed();
            Applied::Now
        } else {
            let applied = self.apply(name, Terms::of(name, settings)).await;
            let runs = || self.drivers.get(name).is_some_and(|handle| handle.seen.borrow().running.is_some());
            if applied == Applied::Now && (is_upgrade || (is_mount || is_network) && runs()) { Applied::AtNextStart } else { applied }
        };
        let mut enforcement = Vec::new();
        if let Some(((reset, limits), given)) = limited.zip(given) {
            enforcement = self.enforcement(name, &given, &applied).await;
            enforcement.retain(|one| reset || limits.sets(&one.limit));
        }
        Ok(Changed { applied, has_home, enforcement, revision })
    }

    /// Everything that is known of a workspace.
    pub(super) async fn detail(&self, name: &WorkspaceName) -> Result<Details, AskError> {
        let store = &self.house.parts.store;
        let settings = store.settings(name).await.map_err(unread)?;
        let record = store.recall(name).await.map_err(unread)?;
        let overview = self.overview_of(name);
        let given = self.given_to(name, &settings).await.ok();
        let upgrade = settings.upgrade.map(UpgradeView::from);
        let has_home = self.has_home(name).await;
        if overview.is_none() && record.is_none() && settings.revision == 0 && !has_home {
            return Err(AskError::NoWorkspace(name.clone()));
        }
        let template = overview.as_ref().map(|seen| seen.template.clone()).or(record.as_ref().map(|record| record.template.clone()));
        let template = template.unwrap_or_default();
        let granted = terms::read(name, record.as_ref().and_then(|record| record.limits.as_deref()));
        let own_limits = terms::read(name, settings.limits.as_deref());
        let enforcement = match given {
            Some(given) => self.enforcement(name, &given, &Applied::Now).await,
            None => Vec::new(),
        };
        let of_template = self.house.rules.load().templates.get(&template).map(Template::as_limits);
        Ok(Details {
            overview,
            has_home,
            upgrade,
            revision: settings.revision,
            suspension: settings.suspension,
            limits: own_limits.clone().over(granted).over(of_template.unwrap_or_default()),
            own_limits,
            enforcement,
            trees: self.trees_of(name).await,
            policy: settings.policy,
            env: store.variables(name, Vec::new()).await.map_err(unread)?.env,
            secrets: store.secrets(name).await.map_err(unread)?,
            mounts: self.looked_at(settings.mounts).await,
            snapshots: self.snapshots_of(name).await?,
            template,
            last_active: record.map(|record| record.last_active),
        })
    }

    /// A change as it is written down, if it is one that can be gone by.
    async fn checked(&self, name: &WorkspaceName, change: Change) -> Result<Alteration, AskError> {
        let random = |bytes: Option<usize>| {
            let bytes = bytes.unwrap_or(SECRET_BYTES);
            let fits = RANDOM_BYTES.contains(&bytes);
            let why = || AskError::Refused(format!("a secret is made of 16 to 1024 random bytes, and not of {bytes}"));
            fits.then(|| NewSecret { value: make_up(bytes), generated: true }).ok_or_else(why)
        };
        Ok(match change {
            Change::Suspend(reason) => {
                let reason = reason.trim();
                let fits = !reason.is_empty() && reason.len() <= LONGEST_REASON;
                require(fits, || "the reason, which people read, must have 1 to 1024 bytes".to_owned())?;
                Alteration::Suspend(reason.to_owned())
            }
            Change::Resume => Alteration::Resume,
            Change::Limit { reset, limits } => {
                check_limits(&limits)?;
                self.knows_volumes(name, &limits).await?;
                let name = name.clone();
                Alteration::Limits(Box::new(move |before| {
                    let before = if reset { LimitOverrides::default() } else { terms::read(&name, before) };
                    terms::written(&limits.clone().over(before))
                }))
            }
            Change::Env { set, unset } => {
                for (name, value) in &set {
                    require(!value.contains('\0'), || format!("the value of {name} has a zero byte"))?;
                }
                Alteration::Env { set, unset }
            }
            Change::SetSecret(name, value) => {
                let text = value.expose_secret();
                require(!text.is_empty(), || format!("the value of {name} is empty; `secret … remove {name}` removes it"))?;
                require(!text.contains('\0'), || format!("the value of {name} has a zero byte"))?;
                Alteration::SetSecret(name, NewSecret { value, generated: false })
            }
            Change::GenerateSecret(name, bytes) => Alteration::SetSecret(name, random(bytes)?),
            Change::RotateSecret(name, bytes) => Alteration::RotateSecret(name, random(bytes)?),
            Change::RemoveSecret(name) => Alteration::RemoveSecret(name),
            Change::AddMount { source, target, read_write } => {
                let rules = self.house.rules.load_full();
                require(!rules.fence.allow.is_empty(), || {
                    "no directory of the host may be mounted: name those that may in `mounts.allow`, and reload".to_owned()
                })?;
                let others = self.house.parts.store.settings(name).await.map_err(unread)?.mounts;
                let homes = rules.templates.values().map(|template| template.home.as_str());
                check_target(&target, homes, &others).map_err(|why| AskError::Refused(format!("{target:?} {why}")))?;
                let typed = source.clone();
                let resolve = move || Ok(rules.fence.resolve(Path::new(&typed)));
                let real = self.house.on_disk(resolve).await.map_err(|why| AskError::Refused(why.to_string()))?;
                let real = real.map_err(|why| AskError::Refused(why.to_string()))?;
                let source = real.to_str().map(str::to_owned);
                let source = source.ok_or_else(|| AskError::Refused(format!("{} is not UTF-8", real.display())))?;
                Alteration::AddMount(StoredMount { source, target, read_write })
            }
            Change::RemoveMount(target) => Alteration::RemoveMount(target),
            Change::Upgrade => Alteration::Upgrade(UpgradeStep::Asked),
            Change::Policy(change) => {
                policy::check(&change)?;
                Alteration::Policy(change)
            }
        })
    }

    /// Has the driver go by what is set, and waits until it does, as far as it can.
    pub(super) async fn apply(&self, name: &WorkspaceName, terms: Terms) -> Applied {
        let within = self.house.rules.load().idle.stop_grace.get() + PATIENCE;
        let (reply, applied) = oneshot::channel();
        let told = async {
            let handle = self.handle(name).await;
            handle.inbox.send(Request::Terms { terms, reply: Some(reply) }).await.ok()?;
            applied.await.ok()
        };
        match tokio::time::timeout(within, told).await {
            Ok(Some(Ok(()))) => Applied::Now,
            Ok(Some(Err(why))) => Applied::NotYet(why.to_string()),
            Ok(None) => Applied::NotYet("the workspace's task ended".to_owned()),
            Err(_) => Applied::NotYet("something else is being done with it".to_owned()),
        }
    }

    /// Whether there are the volumes that are limited: of its template, or on the disk.
    async fn knows_volumes(&self, name: &WorkspaceName, limits: &LimitOverrides) -> Result<(), AskError> {
        if limits.volumes.is_empty() {
            return Ok(());
        }
        let record = self.house.parts.store.recall(name).await.map_err(unread)?;
        let template = record.map(|record| record.template).unwrap_or_default();
        let of_template = self.house.recipe(Some(&template)).map(|recipe| recipe.template.volumes()).unwrap_or_default();
        let mut there: BTreeSet<VolumeName> = of_template.into_keys().collect();
        there.extend(self.homes_of(name).await?.into_iter().filter_map(|id| id.volume));
        check_volumes(limits, &template, there)
    }

    /// How much is in a workspace's home and volumes. It is for people: what cannot be told is left out.
    async fn trees_of(&self, name: &WorkspaceName) -> Vec<TreeView> {
        let ids = self.homes_of(name).await.unwrap_or_default();
        let homes = self.house.parts.homes.clone();
        let looked = self.house.on_disk(move || {
            let view = |id: HomeId| TreeView { usage: homes.usage(&id).ok().flatten(), volume: id.volume };
            Ok(ids.into_iter().map(view).collect())
        });
        looked.await.unwrap_or_default()
    }

    async fn has_home(&self, name: &WorkspaceName) -> bool {
        let (house, id) = (std::sync::Arc::clone(&self.house), HomeId::home(name.clone()));
        self.house.on_disk(move || house.parts.homes.exists(&id)).await.unwrap_or(false)
    }

    async fn looked_at(&self, mounts: Vec<StoredMount>) -> Vec<MountView> {
        let view = |StoredMount { source, target, read_write }: StoredMount| async move {
            let problem = self.house.open_source(&source).await.err();
            MountView { source, target, read_write, problem }
        };
        join_all(mounts.into_iter().map(view)).await
    }
}

// === impl Change ===

impl Change {
    /// What it is, for the log.
    fn label(&self) -> &'static str {
        match self {
            Self::Suspend(_) => "suspend",
            Self::Resume => "resume",
            Self::Limit { .. } => "limit",
            Self::Env { .. } => "env",
            Self::SetSecret(..) => "secret set",
            Self::GenerateSecret(..) => "secret generate",
            Self::RotateSecret(..) => "secret rotate",
            Self::RemoveSecret(_) => "secret remove",
            Self::AddMount { .. } => "mount add",
            Self::RemoveMount(_) => "mount remove",
            Self::Upgrade => "upgrade",
            Self::Policy(_) => "policy",
        }
    }
}

/// Refuses what is of another revision than whoever wants something done with it has read.
pub(super) fn unchanged(settings: &Settings, revision: Option<i64>) -> Result<(), AskError> {
    if revision.is_none_or(|wanted| wanted == settings.revision) { Ok(()) } else { Err(AskError::Changed) }
}

/// As a template's are checked.
pub(super) fn check_limits(limits: &LimitOverrides) -> Result<(), AskError> {
    let cpus = limits.cpus.is_none_or(|cpus| cpus.is_finite() && (0.01..=4096.0).contains(&cpus));
    require(cpus, || "--cpus must be from 0.01 to 4096".to_owned())?;
    let size = |size: Option<Size>, least| size.is_none_or(|size| (least..=Size::gib(1 << 20)).contains(&size));
    require(size(limits.memory, Size::mib(16)), || "--memory must be at least 16MiB, and no more than a host has".to_owned())?;
    require(size(limits.disk, Size::bytes(1)), || "--disk must be more than 0B, and no more than a host has".to_owned())?;
    require(limits.pids.is_none_or(|pids| (8..=1 << 22).contains(&pids)), || "--pids must be from 8 to 4194304".to_owned())?;
    let inodes = limits.inodes.is_none_or(|inodes| (64..=u64::from(u32::MAX)).contains(&inodes));
    require(inodes, || "--inodes must be from 64 to 4294967295".to_owned())?;
    require(limits.volumes.len() <= MOST_VOLUMES, || format!("limits of more than {MOST_VOLUMES} volumes are not kept"))?;
    for (name, VolumeLimits { disk, inodes }) in &limits.volumes {
        let fits = size(*disk, Size::bytes(1)) && inodes.is_none_or(|inodes| (64..=u64::from(u32::MAX)).contains(&inodes));
        let range = "its size must be more than 0B, and no more than a host has, and its inodes from 64 to 4294967295";
        require(fits, || format!("volume {name}: {range}"))?;
    }
    Ok(())
}

/// Whether only volumes of these are limited.
pub(super) fn check_volumes(limits: &LimitOverrides, template: &TemplateName, there: BTreeSet<VolumeName>) -> Result<(), AskError> {
    let Some(unknown) = limits.volumes.keys().find(|name| !there.contains(*name)) else { return Ok(()) };
    let names: Vec<&str> = there.iter().map(VolumeName::as_str).collect();
    let has = if names.is_empty() { "it has none".to_owned() } else { format!("it has: {}", names.join(", ")) };
    Err(AskError::Refused(format!("the template {template} has no volume {unknown}; {has}")))
}

pub(super) fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), AskError> {
    if holds { Ok(()) } else { Err(AskError::Refused(why())) }
}

pub(super) fn unread(why: StoreError) -> AskError {
    AskError::Store(why.to_string())
}

pub(super) fn refused(why: AlterError) -> AskError {
    match why {
        AlterError::Store(why) => unread(why),
        AlterError::Changed => AskError::Changed,
        AlterError::Absent(_) | AlterError::ByHand(_) | AlterError::TooMuch(_) => AskError::Refused(why.to_string()),
    }
}
