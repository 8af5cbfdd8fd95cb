//! Figures: how all is, and what a workspace uses against what it may. All of it was measured a moment ago, so that looking costs the engine
//! nothing.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Asked;
use super::problem::Problem;
use super::take::{Named, Query};
use super::wire::time;
use crate::name::{TemplateName, WorkspaceName};
use crate::telemetry::{Disk, Host};
use crate::workspace::{Allowed, HistorySpan, Known, OverviewFigures, Point, Sample, StartFigures, UsageView};

/// How far back.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Back {
    /// `hour`: the last samples; `day`: averages of many. `hour` unless said otherwise.
    #[serde(default)]
    #[param(required = false)]
    span: Span,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = HistorySpan)]
pub(super) enum Span {
    /// The last 240 samples.
    #[default]
    Hour,
    /// 240 averages of the last day.
    Day,
}

/// How all is.
#[derive(Serialize, ToSchema)]
#[schema(as = Overview)]
pub(super) struct Everything {
    sessions: usize,
    /// Workspaces by what they are doing.
    #[schema(value_type = BTreeMap<String, usize>)]
    workspaces: BTreeMap<&'static str, usize>,
    /// Containers by what the engine says of them, the pool's included, as of the last sweep.
    #[schema(value_type = BTreeMap<String, u64>)]
    containers: BTreeMap<&'static str, u64>,
    pool: PoolFigures,
    queue: QueueFigures,
    /// How long workspaces took to be ready, by the way they took.
    starts: Vec<Starts>,
    host: HostFigures,
}

#[derive(Serialize, ToSchema)]
pub(super) struct PoolFigures {
    /// Whether no new ones are made.
    paused: bool,
    templates: Vec<Spares>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PoolOfTemplate)]
pub(super) struct Spares {
    #[schema(value_type = String)]
    template: TemplateName,
    ready: usize,
    target: usize,
}

#[derive(Serialize, ToSchema)]
pub(super) struct QueueFigures {
    /// Containers that may run at once.
    capacity: usize,
    taken: usize,
    waiting: usize,
}

/// How long the last 1024 starts of one way took, in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = StartFigures)]
pub(super) struct Starts {
    /// `attach`: it ran; `claim`: it got a container of the pool; `start`: its container was started; `create`, `upgrade`: it got another.
    path: &'static str,
    /// Since the gateway's start.
    count: u64,
    p50: f64,
    p95: f64,
    p99: f64,
}

/// How the host does. What cannot be measured is `null`.
#[derive(Serialize, ToSchema)]
pub(super) struct HostFigures {
    cpus: usize,
    /// Share of all processors in use, from 0 to 1.
    cpu: Option<f64>,
    memory: Option<Amount>,
    /// That of the state directory.
    state_disk: Option<Amount>,
    /// That of the homes.
    homes_disk: Option<Amount>,
    /// Over 1, 5 and 15 minutes.
    load: Option<[f64; 3]>,
}

/// Bytes.
#[derive(Serialize, ToSchema)]
pub(super) struct Amount {
    used: u64,
    total: u64,
}

/// What a workspace uses, as of the last time that it was measured. What is not known is `null`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(super) struct Used {
    /// When it was measured, if it runs.
    at: Option<String>,
    /// CPUs.
    cpu: Option<f64>,
    /// Bytes.
    memory: Option<u64>,
    /// Processes and threads.
    pids: Option<u64>,
    /// Bytes in its home and volumes, of one that stands still too.
    disk: Option<u64>,
}

/// What a workspace may use.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Allowance)]
pub(super) struct May {
    /// CPUs.
    cpu: f64,
    /// Bytes.
    memory: u64,
    /// Processes and threads.
    pids: u32,
    /// Bytes in its home and volumes.
    disk: u64,
}

/// What a workspace uses and has used.
#[derive(Serialize, ToSchema)]
pub(super) struct WorkspaceUsage {
    #[schema(value_type = String)]
    name: WorkspaceName,
    state: &'static str,
    span: Span,
    /// How long lies between two samples.
    every_seconds: f64,
    /// The oldest first.
    points: Vec<Measured>,
    usage: Used,
    /// `null` where its template is not there any more.
    allowed: Option<May>,
    /// For how long nobody has used it; `null` while somebody does, or where nothing has come up.
    idle_seconds: Option<u64>,
    /// For how long it may be idle before it is stopped; `null`: for ever.
    idle_timeout_seconds: Option<u64>,
    last_active: Option<String>,
    last_login: Option<String>,
    /// What it costs a month; `null` where `capacity.host_price` is not set.
    cost: Option<Cost>,
}

/// What a workspace costs a month: the largest share that it has of the host's processors, memory or disk.
#[derive(Serialize, ToSchema)]
pub(super) struct Cost {
    /// Of what it may use.
    by_limits: Option<f64>,
    /// Of what 95 of 100 samples of the last hour stay below.
    by_use: Option<f64>,
    currency: String,
}

/// A point of a history.
#[derive(Serialize, ToSchema)]
#[schema(as = UsagePoint)]
pub(super) struct Measured {
    at: String,
    /// CPUs.
    cpu: f32,
    /// Bytes.
    memory: u64,
    /// Bytes.
    disk: u64,
}

/// How all is, in one look.
#[utoipa::path(get, path = "/overview", tag = "gateway", responses((status = 200, body = Everything)), security(("token" = ["read"])))]
pub(super) async fn show_overview(State(api): Asked) -> Result<Json<Everything>, Problem> {
    Ok(Json(api.operations.overview_figures().await?.into()))
}

/// What a workspace uses against what it may, and what it has used.
#[utoipa::path(get, path = "/workspaces/{name}/usage", tag = "workspaces", params(("name" = String, Path), Back),
    responses((status = 200, body = WorkspaceUsage)), security(("token" = ["read"]), ("token" = ["workspace"])))]
pub(super) async fn show_usage(
    State(api): Asked,
    Named(name): Named,
    Query(Back { span }): Query<Back>,
) -> Result<Json<WorkspaceUsage>, Problem> {
    let back = match span {
        Span::Hour => HistorySpan::Hour,
        Span::Day => HistorySpan::Day,
    };
    let UsageView { known, every, idle_timeout, points, costs: (by_limits, by_use), currency } = api.operations.usage(&name, back).await?;
    let cents = |cost: f64| (cost * 100.0).round() / 100.0;
    let cost = by_limits.or(by_use).map(|_| Cost { by_limits: by_limits.map(cents), by_use: by_use.map(cents), currency });
    Ok(Json(WorkspaceUsage {
        span,
        cost,
        every_seconds: every.as_secs_f64(),
        points: points.into_iter().map(Measured::from).collect(),
        usage: Used::of(&known),
        allowed: known.allowed.map(May::from),
        idle_seconds: known.now.as_ref().and_then(|now| now.idle_for).map(|span| span.as_secs()),
        idle_timeout_seconds: idle_timeout.map(|span| span.as_secs()),
        last_active: known.last_active.map(time),
        last_login: known.last_login.map(time),
        state: known.state,
        name: known.name,
    }))
}

// === conversions ===

impl From<OverviewFigures> for Everything {
    fn from(figures: OverviewFigures) -> Self {
        let OverviewFigures { sessions, workspaces, containers, pool, queue, starts, host, disks } = figures;
        let spares = pool.spares.into_iter().map(|one| Spares { template: one.template, ready: one.ready, target: pool.size });
        Self {
            sessions,
            workspaces,
            containers,
            pool: PoolFigures { paused: pool.paused, templates: spares.collect() },
            queue: QueueFigures { capacity: queue.capacity, taken: queue.taken, waiting: queue.waiting },
            starts: starts.into_iter().map(Starts::from).collect(),
            host: HostFigures::of(host, disks),
        }
    }
}

impl From<StartFigures> for Starts {
    fn from(StartFigures { path, count, p50, p95, p99 }: StartFigures) -> Self {
        let seconds = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e6;
        Self { path: path.label(), count, p50: seconds(p50), p95: seconds(p95), p99: seconds(p99) }
    }
}

impl HostFigures {
    fn of(host: Host, (state, homes): (Option<Disk>, Option<Disk>)) -> Self {
        let disk = |disk: Disk| Amount { used: disk.used, total: disk.total };
        Self {
            cpus: host.cpus,
            cpu: host.cpu,
            memory: host.memory.map(|(used, total)| Amount { used, total }),
            state_disk: state.map(disk),
            homes_disk: homes.map(disk),
            load: host.load,
        }
    }
}

impl Used {
    pub(super) fn of(known: &Known) -> Self {
        let disk = known.disk;
        match known.sample {
            Some(Sample { at, cpu, memory, pids, .. }) => Self { at: Some(time(at)), cpu, memory: Some(memory), pids: Some(pids), disk },
            None => Self { disk, ..Self::default() },
        }
    }
}

impl From<Allowed> for May {
    fn from(Allowed { cpu, memory, pids, disk }: Allowed) -> Self {
        Self { cpu, memory, pids, disk }
    }
}

impl From<Point> for Measured {
    fn from(Point { at, cpu, memory, disk }: Point) -> Self {
        Self { at: time(UNIX_EPOCH + Duration::from_secs(at)), cpu, memory, disk }
    }
}
