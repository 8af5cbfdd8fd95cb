//! Everything that is known of one workspace, for a person.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::{Listed, Upgrading, span};
use crate::auth::LimitOverrides;
use crate::cli::output;
use crate::name::printable;

/// A workspace as the gateway answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Workspace {
    name: String,
    home: bool,
    template: String,
    last_active: Option<String>,
    suspended: Option<Suspended>,
    upgrade: Option<Upgrading>,
    limits: LimitOverrides,
    own_limits: LimitOverrides,
    #[serde(default)]
    enforcement: Vec<Holding>,
    #[serde(default)]
    storage: Vec<Stored>,
    #[serde(default)]
    policy: Policy,
    env: BTreeMap<String, String>,
    secrets: Vec<Secret>,
    mounts: Vec<Mount>,
    #[serde(default)]
    snapshots: Vec<String>,
    now: Option<Listed>,
}

/// How a limit holds, as the gateway answers it.
#[derive(Debug, Deserialize)]
pub(super) struct Holding {
    pub(super) limit: String,
    enforced: String,
    why: Option<String>,
}

/// How much is in a home or a volume.
#[derive(Debug, Deserialize)]
struct Stored {
    volume: Option<String>,
    bytes: Option<u64>,
    inodes: Option<u64>,
    bytes_limit: Option<u64>,
    inodes_limit: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Policy {
    idle: Option<String>,
    network: Option<String>,
    public_ports: Option<Vec<u16>>,
}

#[derive(Debug, Deserialize)]
struct Suspended {
    reason: String,
    since: String,
}

#[derive(Debug, Deserialize)]
struct Secret {
    name: String,
    made: String,
    changed: String,
    generated: bool,
}

#[derive(Debug, Deserialize)]
struct Mount {
    source: String,
    target: String,
    read_write: bool,
    problem: Option<String>,
}

/// All of it: first how it stands, then what is set, each in a table of its own.
pub(super) fn whole(workspace: &Workspace) -> String {
    let state = workspace.now.as_ref().map_or("not seen since the gateway started", |now| now.state.as_str());
    let mut rows = vec![
        ["workspace".to_owned(), printable(&workspace.name)],
        ["state".to_owned(), printable(state)],
        ["template".to_owned(), printable(&workspace.template)],
        ["home".to_owned(), if workspace.home { "there" } else { "none yet" }.to_owned()],
    ];
    if let Some(Suspended { reason, since }) = &workspace.suspended {
        rows.push(["suspended".to_owned(), format!("since {since}: {}", printable(reason))]);
    }
    if let Some(upgrade) = &workspace.upgrade {
        rows.push(["upgrade".to_owned(), upgrade.said()]);
    }
    if let Some(now) = &workspace.now {
        if let Some(container) = &now.container {
            rows.push(["container".to_owned(), format!("{}, for {}", printable(container), span(now.running_seconds))]);
        }
        if let Some(age) = &now.image {
            let age = if age == "older" { "older than its template's" } else { "its template's" };
            rows.push(["image".to_owned(), age.to_owned()]);
        }
        rows.push(["leases".to_owned(), now.leases.to_string()]);
        rows.push(["idle".to_owned(), span(now.idle_seconds)]);
    }
    if !workspace.snapshots.is_empty() {
        rows.push(["snapshots".to_owned(), printable(&workspace.snapshots.join(" "))]);
    }
    rows.push(["last used".to_owned(), workspace.last_active.clone().unwrap_or_else(|| "-".to_owned())]);
    let mut text = output::table(&rows);
    text.push_str(&format!("\n{}", limits(workspace)));
    let services = workspace.now.as_ref().filter(|now| !now.services.is_empty()).map(|now| super::services(&now.services));
    for (some, table) in [
        (!workspace.storage.is_empty(), storage(workspace)),
        (workspace.policy.any(), policy(workspace)),
        (!workspace.env.is_empty(), env(workspace)),
        (!workspace.secrets.is_empty(), secrets(workspace)),
        (!workspace.mounts.is_empty(), mounts(workspace)),
        (services.is_some(), services.unwrap_or_default()),
    ] {
        if some {
            text.push_str(&format!("\n{table}"));
        }
    }
    text
}

/// What it may use, and what of that is set for it alone.
pub(super) fn limits(workspace: &Workspace) -> String {
    let words = |limits: &LimitOverrides| {
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [
            text(limits.cpus.map(|cpus| cpus.to_string())),
            text(limits.memory.map(|memory| memory.to_string())),
            text(limits.pids.map(|pids| pids.to_string())),
            text(limits.disk.map(|disk| disk.to_string())),
            text(limits.inodes.map(|inodes| inodes.to_string())),
        ]
    };
    let holding = |name: &str| {
        let found = workspace.enforcement.iter().find(|one| one.limit == name);
        found.map_or_else(|| "-".to_owned(), Holding::said)
    };
    let mut rows = vec![["LIMIT", "IS", "SET HERE", "ENFORCED"].map(str::to_owned)];
    let names = ["cpus", "memory", "pids", "disk", "inodes"];
    let both = words(&workspace.limits).into_iter().zip(words(&workspace.own_limits));
    rows.extend(names.into_iter().zip(both).map(|(name, (is, own))| [name.to_owned(), is, own, holding(name)]));
    for (name, limits) in &workspace.limits.volumes {
        let own = workspace.own_limits.volumes.get(name).copied().unwrap_or_default();
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let disk = [limits.disk, own.disk].map(|size| text(size.map(|size| size.to_string())));
        let inodes = [limits.inodes, own.inodes].map(|inodes| text(inodes.map(|inodes| inodes.to_string())));
        for (kind, [is, own]) in [("disk", disk), ("inodes", inodes)] {
            let limit = format!("volumes.{name}.{kind}");
            let enforced = holding(&limit);
            rows.push([limit, is, own, enforced]);
        }
    }
    output::table(&rows)
}

/// The snapshots that are kept of it, a line each.
pub(super) fn snapshots(workspace: &Workspace) -> String {
    workspace.snapshots.iter().map(|name| format!("{}\n", printable(name))).collect()
}

/// How much is in the home and the volumes.
fn storage(workspace: &Workspace) -> String {
    let mut rows = vec![["STORAGE", "USED", "OF", "FILES", "OF"].map(str::to_owned)];
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), super::tasks::size);
    let count = |inodes: Option<u64>| inodes.map_or_else(|| "-".to_owned(), |inodes| inodes.to_string());
    rows.extend(workspace.storage.iter().map(|one| {
        let name = one.volume.as_deref().map_or_else(|| "home".to_owned(), |volume| format!("volume {}", printable(volume)));
        [name, size(one.bytes), size(one.bytes_limit), count(one.inodes), count(one.inodes_limit)]
    }));
    output::table(&rows)
}

impl Holding {
    /// The same in words.
    pub(super) fn said(&self) -> String {
        let why = self.why.as_deref().map(|why| format!(": {}", printable(why))).unwrap_or_default();
        match self.enforced.as_str() {
            "now" => "enforced now".to_owned(),
            "at-next-start" => format!("enforced from the next start on{why}"),
            "measured" => format!("measured only{why}"),
            "impossible" => format!("not possible{why}"),
            other => format!("{}{why}", printable(other)),
        }
    }
}

/// What is set for it alone of what holds for all.
pub(super) fn policy(workspace: &Workspace) -> String {
    let Policy { idle, network, public_ports } = &workspace.policy;
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "-".to_owned(), printable);
    let ports = public_ports.as_ref().map(|ports| match ports.as_slice() {
        [] => "none".to_owned(),
        ports => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
    });
    let rows = [("idle", text(idle)), ("network", text(network)), ("public ports", text(&ports))];
    let mut table = vec![["POLICY", "SET HERE"].map(str::to_owned)];
    table.extend(rows.map(|(name, value)| [name.to_owned(), value]));
    output::table(&table)
}

impl Policy {
    fn any(&self) -> bool {
        self.idle.is_some() || self.network.is_some() || self.public_ports.is_some()
    }
}

pub(super) fn env(workspace: &Workspace) -> String {
    let mut rows = vec![["VARIABLE", "VALUE"].map(str::to_owned)];
    rows.extend(workspace.env.iter().map(|(name, value)| [printable(name), printable(value)]));
    output::table(&rows)
}

pub(super) fn secrets(workspace: &Workspace) -> String {
    let mut rows = vec![["SECRET", "FROM", "SET", "CHANGED"].map(str::to_owned)];
    rows.extend(workspace.secrets.iter().map(|secret| {
        let from = if secret.generated { "made up" } else { "by hand" };
        [printable(&secret.name), from.to_owned(), secret.made.clone(), secret.changed.clone()]
    }));
    output::table(&rows)
}

pub(super) fn mounts(workspace: &Workspace) -> String {
    let mut rows = vec![["TARGET", "SOURCE", "ACCESS", "NOW"].map(str::to_owned)];
    rows.extend(workspace.mounts.iter().map(|mount| {
        let access = if mount.read_write { "read-write" } else { "read-only" };
        let now = mount.problem.as_deref().map_or_else(|| "there".to_owned(), |problem| format!("not to be had: {}", printable(problem)));
        [printable(&mount.target), printable(&mount.source), access.to_owned(), now]
    }));
    output::table(&rows)
}
