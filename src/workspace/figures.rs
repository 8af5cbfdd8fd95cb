//! Figures for who looks on: how all is, what one workspace uses against what it may, how many more fit. All of it from what was measured last
//! ([`super::meter`]): asking costs the engine nothing. Only for Prometheus it is asked what containers have used, as totals are what it counts.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::StreamExt;
use tracing::debug;

use super::capacity::{self, Fits, Resources, Room};
use super::directory::{ASKED_AT_ONCE, Directory};
use super::driver::Handle;
use super::leases::Leases;
use super::meter::{HistorySpan, Point, Sample};
use super::operations::{Known, Operations, PoolView, QueueView};
use super::settings::unread;
use super::starts::StartFigures;
use super::{AskError, Overview, Template, Volume, policy, terms};
use crate::auth::LimitOverrides;
use crate::engine::{ContainerId, Usage};
use crate::name::{TemplateName, VolumeName, WorkspaceName};
use crate::store::Remembered;
use crate::telemetry::{ContainerUsage, Disk, Host, VolumeFigures, WorkspaceFigures, WorkspaceLimits};

/// What a workspace may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowed {
    /// CPUs.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes in its home and its volumes.
    pub disk: u64,
}

/// How all is.
#[derive(Debug, Clone)]
pub struct OverviewFigures {
    /// Sessions.
    pub sessions: usize,
    /// Workspaces by what they are doing.
    pub workspaces: BTreeMap<&'static str, usize>,
    /// Containers by what the engine says of them, as of the last sweep.
    pub containers: BTreeMap<&'static str, u64>,
    /// The pool.
    pub pool: PoolView,
    /// Places, and who waits for one.
    pub queue: QueueView,
    /// How long starts took.
    pub starts: Vec<StartFigures>,
    /// How the host does.
    pub host: Host,
    /// The disk of the state, and that of the homes.
    pub disks: (Option<Disk>, Option<Disk>),
}

/// What a workspace uses and has used.
#[derive(Debug, Clone)]
pub struct UsageView {
    /// What is known of it.
    pub known: Known,
    /// How long lies between two samples.
    pub every: Duration,
    /// How long it may be idle; `None`: for ever, or as long as its template goes on.
    pub idle_timeout: Option<Duration>,
    /// Its history, the oldest first.
    pub points: Vec<Point>,
    /// What it costs a month by what it may use, and by what all but a twentieth of its last samples stay below, as far as that is known.
    pub costs: (Option<f64>, Option<f64>),
    /// In what currency.
    pub currency: String,
}

/// What one more workspace of a template takes, and how many of it fit.
#[derive(Debug, Clone)]
pub struct TemplateFits {
    /// Which.
    pub template: TemplateName,
    /// What each may use.
    pub limits: Resources,
    /// How many fit if each uses all that it may.
    pub by_limits: Fits,
    /// What all but a twentieth of the measured ones use, and how many samples that is of.
    pub use_of_each: Option<(Resources, usize)>,
    /// Whether those are of this template; otherwise of all, as none of this has run lately.
    pub of_template: bool,
    /// How many fit if each uses that.
    pub by_use: Option<Fits>,
}

/// How many more workspaces fit.
#[derive(Debug, Clone)]
pub struct CapacityView {
    /// What the host has.
    pub total: Resources,
    /// What of that running workspaces may use; of the disk, all workspaces.
    pub promised: Resources,
    /// What of it is in use, by whatever is on the host.
    pub used: Option<Resources>,
    /// Workspaces that run.
    pub running: usize,
    /// Containers that may run at once.
    pub places: usize,
    /// Addresses for containers, where their network is of a known size.
    pub addresses: Option<u64>,
    /// What the host costs a month, if that is said, and in what.
    pub price: Option<(f64, String)>,
    /// By template.
    pub templates: Vec<TemplateFits>,
}

// === impl Template ===

impl Template {
    /// What its workspaces may use unless it is said otherwise.
    pub fn as_limits(&self) -> LimitOverrides {
        LimitOverrides {
            cpus: Some(self.cpus),
            memory: Some(self.memory),
            pids: Some(self.pids),
            disk: Some(self.disk),
            inodes: self.inodes,
            volumes: self.volume.iter().map(|volume| (volume.name.clone(), volume.as_limits())).collect(),
            sessions: None,
        }
    }

    /// The same, with what is set of one.
    pub(super) fn allowed(&self, own: &LimitOverrides) -> Allowed {
        let volumes = self.volumes_allowed(own).into_values().fold(0, u64::saturating_add);
        Allowed {
            cpu: own.cpus.unwrap_or(self.cpus),
            memory: own.memory.unwrap_or(self.memory).get(),
            pids: own.pids.unwrap_or(self.pids),
            disk: own.disk.unwrap_or(self.disk).get().saturating_add(volumes),
        }
    }

    /// Bytes that may be in its volumes, with what is set of one.
    pub(super) fn volumes_allowed(&self, own: &LimitOverrides) -> BTreeMap<VolumeName, u64> {
        let bytes = |volume: &Volume| own.volumes.get(&volume.name).and_then(|own| own.disk).unwrap_or(volume.disk).get();
        self.volume.iter().map(|volume| (volume.name.clone(), bytes(volume))).collect()
    }
}

impl From<Allowed> for Resources {
    fn from(allowed: Allowed) -> Self {
        Self { cpu: allowed.cpu, memory: allowed.memory as f64, disk: allowed.disk as f64 }
    }
}

impl From<Allowed> for WorkspaceLimits {
    fn from(allowed: Allowed) -> Self {
        Self { cpu_cores: allowed.cpu, memory_bytes: allowed.memory, pids: allowed.pids, disk_bytes: allowed.disk }
    }
}

impl From<Usage> for ContainerUsage {
    fn from(usage: Usage) -> Self {
        Self {
            cpu_seconds: usage.cpu.as_secs_f64(),
            memory_bytes: usage.memory,
            network_bytes: usage.network,
            block_bytes: usage.block,
            pids: usage.pids,
        }
    }
}

// === impl Directory ===

impl Directory {
    /// How all is.
    pub(super) async fn all_figures(&self) -> Result<OverviewFigures, AskError> {
        let mut workspaces = BTreeMap::new();
        for one in self.known().await? {
            *workspaces.entry(one.state).or_default() += 1;
        }
        let gauge = &self.house.parts.metrics.containers;
        let count = |state| (state, u64::try_from(gauge.with_label_values(&[state]).get()).unwrap_or_default());
        let (host, state, homes) = self.house.meter.host();
        Ok(OverviewFigures {
            sessions: self.house.roll.all().len(),
            workspaces,
            containers: ["created", "running", "paused", "exited", "unusable"].into_iter().map(count).collect(),
            pool: self.pool(),
            queue: self.queue(),
            starts: self.house.starts.figures(),
            host,
            disks: (state, homes),
        })
    }

    /// Brings the metrics of workspaces up to date: those that run have some, and no others, however many there are. Of one whose container
    /// cannot be asked, the rest is told.
    pub async fn count_running(&self) {
        let known = self.known().await.unwrap_or_else(|why| {
            debug!(%why, "cannot tell what workspaces may use");
            Vec::new()
        });
        let known: HashMap<&WorkspaceName, &Known> = known.iter().map(|one| (&one.name, one)).collect();
        let running = |entry: &Handle| entry.seen.borrow().running.clone();
        let running: Vec<_> =
            self.drivers.iter().filter_map(|entry| Some((entry.key().clone(), running(&entry)?, entry.leases.clone()))).collect();
        let ask = |(name, id, leases): (WorkspaceName, ContainerId, Leases)| async move {
            (name, self.house.engine().usage(&id).await.ok(), leases)
        };
        let asked: Vec<_> = futures_util::stream::iter(running).map(ask).buffer_unordered(ASKED_AT_ONCE).collect().await;
        let sessions = self.house.roll.counts();
        let figures = asked.into_iter().map(|(name, usage, leases)| {
            let known = known.get(&name).copied();
            let figures = WorkspaceFigures {
                usage: usage.map(ContainerUsage::from),
                limits: known.and_then(|known| known.allowed).map(WorkspaceLimits::from),
                disk_bytes: self.house.meter.disk(&name),
                volumes: self.volume_figures(&name, known.map(|known| &known.allowed_volumes)),
                idle_seconds: leases.idle().unwrap_or_default().as_secs_f64(),
                sessions: sessions.get(&name).copied().unwrap_or_default(),
                logins: leases.logins(),
            };
            (name.to_string(), figures)
        });
        self.house.parts.metrics.container_usage.replace(figures.collect());
    }

    /// How full the volumes of a workspace are, and may be.
    fn volume_figures(&self, name: &WorkspaceName, allowed: Option<&BTreeMap<VolumeName, u64>>) -> BTreeMap<String, VolumeFigures> {
        let mut figures: BTreeMap<String, VolumeFigures> = BTreeMap::new();
        for (volume, bytes) in self.house.meter.volumes(name) {
            figures.entry(volume.to_string()).or_default().used_bytes = Some(bytes);
        }
        for (volume, bytes) in allowed.into_iter().flatten() {
            figures.entry(volume.to_string()).or_default().limit_bytes = Some(*bytes);
        }
        figures
    }

    /// What a workspace uses and has used.
    pub(super) async fn usage_of(&self, name: &WorkspaceName, span: HistorySpan) -> Result<UsageView, AskError> {
        let store = &self.house.parts.store;
        let found = store.remembered(name).await.map_err(unread)?;
        let known = match (found, self.overview_of(name)) {
            (Some(found), now) if !found.passing => self.known_of(found, now),
            (None, Some(now)) => self.seen_only(now),
            _ => return Err(AskError::NoWorkspace(name.clone())),
        };
        let record = store.recall(name).await.map_err(unread)?;
        let own = policy::idle(&self.set_of(name).await?.policy);
        let rules = self.house.rules.load();
        let idle_timeout = match own {
            Some(own) => own.limit(),
            None if rules.keeps_running(&known.template) => None,
            None => record.and_then(|record| record.idle_timeout).or(Some(rules.idle.timeout.get())).filter(|limit| !limit.is_zero()),
        };
        let total = self.total();
        let price = Some(rules.capacity.host_price).filter(|price| *price > 0.0);
        let cost = |each: Resources| Some(price? * Fits::of(&each, &Room { total, ..Room::default() }).share);
        let typical = capacity::typical(&self.house.meter.points_of(std::slice::from_ref(name)));
        let costs = (known.allowed.and_then(|allowed| cost(allowed.into())), typical.and_then(cost));
        Ok(UsageView {
            known,
            every: rules.capacity.sample_every.get(),
            idle_timeout,
            points: self.house.meter.history(name, span),
            costs,
            currency: rules.capacity.currency.clone(),
        })
    }

    /// How many more workspaces fit.
    pub(super) async fn capacity_view(&self) -> Result<CapacityView, AskError> {
        let known = self.known().await?;
        let rules = self.house.rules.load_full();
        let (host, _, homes) = self.house.meter.host();
        let total = self.total();
        let runs = |one: &&Known| one.now.as_ref().is_some_and(|now| now.container.is_some());
        let running: Vec<&Known> = known.iter().filter(runs).collect();
        let mut promised = Resources::default();
        for allowed in running.iter().filter_map(|one| one.allowed) {
            promised.cpu += allowed.cpu;
            promised.memory += allowed.memory as f64;
        }
        promised.disk = known.iter().filter_map(|one| one.allowed).map(|allowed| allowed.disk as f64).sum();
        let used = host.cpu.zip(host.memory).zip(homes).map(|((cpu, (memory, _)), disk)| Resources {
            cpu: cpu * total.cpu,
            memory: memory as f64,
            disk: (disk.total - disk.free) as f64,
        });
        // What stands ready in the pool gives way to who needs its place.
        let places = (rules.limits.containers as u64).saturating_sub(running.len() as u64);
        let all_addresses = self.house.meter.network().and_then(capacity::addresses);
        let addresses = all_addresses.map(|all| all.saturating_sub(running.len() as u64));
        let left = |taken: Resources| Room {
            total,
            left: Resources { cpu: total.cpu - taken.cpu, memory: total.memory - taken.memory, disk: total.disk - taken.disk },
            places,
            addresses,
        };
        let names = |of: Option<&TemplateName>| -> Vec<WorkspaceName> {
            known.iter().filter(|one| of.is_none_or(|of| one.template == *of)).map(|one| one.name.clone()).collect()
        };
        let measured = |of: Option<&TemplateName>| {
            let points = self.house.meter.points_of(&names(of));
            capacity::typical(&points).map(|each| (each, points.len()))
        };
        let of_all = measured(None);
        let one = |(name, template): (&TemplateName, &Template)| {
            let limits = Resources::from(template.allowed(&LimitOverrides::default()));
            let own = measured(Some(name));
            let each = own.or(of_all);
            TemplateFits {
                template: name.clone(),
                limits,
                by_limits: Fits::of(&limits, &left(promised)),
                use_of_each: each,
                of_template: own.is_some(),
                by_use: each.zip(used).map(|((each, _), used)| Fits::of(&each, &left(used))),
            }
        };
        let price = rules.capacity.host_price;
        Ok(CapacityView {
            total,
            promised,
            used,
            running: running.len(),
            places: rules.limits.containers,
            addresses: all_addresses,
            price: (price > 0.0).then(|| (price, rules.capacity.currency.clone())),
            templates: rules.templates.iter().map(one).collect(),
        })
    }

    /// All that the host has.
    fn total(&self) -> Resources {
        let (host, _, homes) = self.house.meter.host();
        Resources {
            cpu: host.cpus as f64,
            memory: host.memory.map_or(0.0, |(_, total)| total as f64),
            disk: homes.map_or(0.0, |disk| disk.total as f64),
        }
    }

    /// What is known of a workspace that is remembered, and may have been seen.
    pub(super) fn known_of(&self, one: Remembered, now: Option<Overview>) -> Known {
        let (granted, own) = (&one.limits.0, &one.limits.1);
        let own = terms::read(&one.name, own.as_deref()).over(terms::read(&one.name, granted.as_deref()));
        let unwritten = self.house.logins.lock().get(&one.name).copied();
        let template = now.as_ref().map(|now| now.template.clone()).or(one.template).unwrap_or_default();
        let rules = self.house.rules.load();
        let recipe = rules.templates.get(&template);
        Known {
            state: now.as_ref().map_or(if one.suspended { "suspended" } else { "absent" }, |now| now.state),
            last_active: one.last_active,
            last_login: unwritten.or(one.last_login),
            suspended: one.suspended,
            allowed: recipe.map(|template| template.allowed(&own)),
            allowed_volumes: recipe.map(|template| template.volumes_allowed(&own)).unwrap_or_default(),
            sample: now.as_ref().and_then(|now| self.sample_of(now)),
            disk: self.house.meter.disk(&one.name),
            name: one.name,
            template,
            now,
        }
    }

    /// What is known of a workspace of which nothing is remembered yet.
    pub(super) fn seen_only(&self, now: Overview) -> Known {
        let (rules, own) = (self.house.rules.load(), LimitOverrides::default());
        let recipe = rules.templates.get(&now.template);
        Known {
            name: now.name.clone(),
            state: now.state,
            template: now.template.clone(),
            last_active: None,
            last_login: self.house.logins.lock().get(&now.name).copied(),
            suspended: false,
            allowed: recipe.map(|template| template.allowed(&own)),
            allowed_volumes: recipe.map(|template| template.volumes_allowed(&own)).unwrap_or_default(),
            sample: self.sample_of(&now),
            disk: self.house.meter.disk(&now.name),
            now: Some(now),
        }
    }

    /// The last sample of a workspace, if it runs.
    fn sample_of(&self, now: &Overview) -> Option<Sample> {
        now.container.as_ref().and_then(|_| self.house.meter.last(&now.name))
    }
}
