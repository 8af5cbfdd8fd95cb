//! What an administrator sets of a workspace, as it is asked for and answered.
//!
//! A change is an object of one key, which says what it is: `{"suspend": {"reason": "…"}}`. Values of secrets come in, and none goes out.
//! `PATCH` is the same for limits, variables and policies, in the form that those are answered in.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::header::ETAG;
use axum::response::IntoResponse;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::Asked;
use super::problem::Problem;
use super::take::{Body, IfMatch, Named, etag};
use super::wire::{Holding, Limits, time};
use super::workspaces::{Pending, Workspace};
use crate::name::{SnapshotName, VariableName, VolumeName, WorkspaceName};
use crate::store::{PolicyChange, SecretInfo};
use crate::workspace::{Applied, Change, Changed, Details, IdlePolicy, MountView, NetworkPolicy, TreeView};

/// A change as it is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schema(as = Change)]
pub(super) enum Asking {
    /// Nobody may be in it, for this reason.
    Suspend {
        reason: String,
    },
    Resume {},
    Limit {
        reset: bool,
        limits: Limits,
    },
    Env {
        #[schema(value_type = BTreeMap<String, String>)]
        set: BTreeMap<VariableName, String>,
        #[schema(value_type = Vec<String>)]
        unset: Vec<VariableName>,
    },
    SetSecret {
        #[schema(value_type = String, pattern = "^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
        name: VariableName,
        #[schema(value_type = String)]
        value: SecretString,
    },
    GenerateSecret {
        #[schema(value_type = String, pattern = "^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
        name: VariableName,
        #[schema(minimum = 16, maximum = 1024)]
        bytes: Option<usize>,
    },
    RotateSecret {
        #[schema(value_type = String, pattern = "^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
        name: VariableName,
        #[schema(minimum = 16, maximum = 1024)]
        bytes: Option<usize>,
    },
    RemoveSecret {
        #[schema(value_type = String, pattern = "^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
        name: VariableName,
    },
    AddMount {
        source: String,
        target: String,
        read_write: bool,
    },
    RemoveMount {
        target: String,
    },
    /// Its next container is of its template's image as it is then.
    Upgrade {},
    /// When it is stopped, where its network leads, which ports are public; `null`: as for all.
    Policy(PolicyPatch),
}

/// What of a policy is to be different: what is absent stays, and `null` makes it as for all.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PolicyPatch)]
pub(super) struct PolicyPatch {
    /// How long nobody may use it before it is stopped, such as `30m`, or `never`. Gone by at once.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "30m")]
    idle: Option<Option<String>>,
    /// `open`, or `none`: it has its loopback alone. Gone by from its container's next start on.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<String>, example = "open")]
    network: Option<Option<String>>,
    /// Ports that anybody may reach by their URL without a link, beside those of `urls.public`. Gone by at once.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Vec<u16>>)]
    public_ports: Option<Option<BTreeSet<u16>>>,
}

/// A policy as it is set of one workspace; `null`: as for all.
#[derive(Serialize, ToSchema)]
#[schema(as = Policy)]
pub(super) struct PolicyAnswer {
    idle: Option<String>,
    network: Option<String>,
    public_ports: Option<BTreeSet<u16>>,
}

/// `null` is something else than nothing.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Everything of a workspace as it is answered.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkspaceDetails)]
pub(super) struct Answer {
    #[schema(value_type = String)]
    name: WorkspaceName,
    /// Whether it has a home yet.
    home: bool,
    template: String,
    last_active: Option<String>,
    suspended: Option<Suspended>,
    /// The upgrade that is asked for.
    upgrade: Option<Pending>,
    /// What it may use.
    limits: Limits,
    /// What of that is set of it alone.
    own_limits: Limits,
    /// How each of its limits holds.
    enforcement: Vec<Holding>,
    /// What is in its home and its volumes.
    storage: Vec<Stored>,
    /// When it is stopped, where its network leads and what is public, as far as that is set of it alone.
    policy: PolicyAnswer,
    #[schema(value_type = BTreeMap<String, String>)]
    env: BTreeMap<VariableName, String>,
    secrets: Vec<Secret>,
    mounts: Vec<Mount>,
    /// The names of its snapshots that are kept.
    #[schema(value_type = Vec<String>)]
    snapshots: BTreeSet<SnapshotName>,
    /// How it stands, as in a list; nothing of one that this gateway has not seen.
    now: Option<Workspace>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Suspended {
    reason: String,
    since: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SecretInfo)]
pub(super) struct Secret {
    #[schema(value_type = String)]
    name: VariableName,
    made: String,
    changed: String,
    generated: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Mount {
    source: String,
    target: String,
    read_write: bool,
    problem: Option<String>,
}

/// How much is in a home or a volume. What is not known is `null`.
#[derive(Serialize, ToSchema)]
pub(super) struct Stored {
    /// The volume; `null`: the home.
    #[schema(value_type = Option<String>)]
    volume: Option<VolumeName>,
    /// Bytes.
    bytes: Option<u64>,
    /// Files and directories.
    inodes: Option<u64>,
    /// Bytes that may be in it, enforced or not.
    bytes_limit: Option<u64>,
    inodes_limit: Option<u64>,
}

/// What is to be different about a workspace; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WorkspacePatch)]
pub(super) struct Patch {
    /// Limits of its own, in place of all that are set.
    limits: Option<Limits>,
    /// Variables: a value sets one, `null` removes it.
    #[schema(value_type = Option<BTreeMap<String, Option<String>>>)]
    env: Option<BTreeMap<VariableName, Option<String>>>,
    /// When it is stopped, where its network leads, which ports are public.
    policy: Option<PolicyPatch>,
}

/// Why nobody may be in a workspace.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Suspension {
    /// What people in it and at its door read.
    #[schema(min_length = 1, max_length = 1024)]
    reason: String,
}

/// What came of a change.
#[derive(Serialize, ToSchema)]
#[schema(as = Changed)]
pub(super) struct Outcome {
    /// Since when it is gone by: `now`, `at-next-start`, or `not-yet` where what runs could not be changed.
    applied: &'static str,
    /// Why not yet.
    why: Option<String>,
    /// Whether the workspace has a home; if not, its name may be a mistake.
    home: bool,
    /// Of limits: how each holds that was set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    enforcement: Vec<Holding>,
}

/// Everything that is known of a workspace, but for values of secrets.
#[utoipa::path(get, path = "/workspaces/{name}", tag = "workspaces", params(("name" = String, Path)),
    responses((status = 200, body = Answer, headers(("ETag" = String)))), security(("token" = ["read"]), ("token" = ["provision"]), ("token" = ["workspace"])))]
pub(super) async fn show_workspace(State(api): Asked, Named(name): Named) -> Result<impl IntoResponse, Problem> {
    let details = api.workspaces.details(&name).await?;
    let tag = etag(details.revision);
    Ok(([(ETAG, tag)], Json(Answer::of(name, details))))
}

/// Changes limits, variables or policies of a workspace, one of them at a time.
#[utoipa::path(patch, path = "/workspaces/{name}", tag = "workspaces", params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = Patch, responses((status = 200, body = Outcome, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn patch_workspace(
    State(api): Asked,
    Named(name): Named,
    unchanged: IfMatch,
    Body(Patch { limits, env, policy }, _): Body<Patch>,
) -> Result<impl IntoResponse, Problem> {
    let limits = limits.map(|limits| Change::Limit { reset: true, limits: limits.into() });
    let env = env.map(|env| {
        let unset = env.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.clone()).collect();
        Change::Env { set: env.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(), unset }
    });
    let policy = policy.map(Change::try_from).transpose()?;
    let mut changes = [limits, env, policy].into_iter().flatten();
    let change = match (changes.next(), changes.next()) {
        (Some(change), None) => change,
        // Each is whole or not at all, and several together would not be.
        (_, Some(_)) => return Err(Problem::refused("change limits, env or policy, one at a time")),
        (None, None) => return Err(Problem::refused("nothing is to be changed: give limits, env or policy")),
    };
    Ok(answered(api.workspaces.change(&name, change, unchanged.revision()?).await?))
}

/// Changes anything that is set of a workspace, which need not be there yet.
#[utoipa::path(post, path = "/workspaces/{name}/changes", tag = "workspaces", params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = Asking, responses((status = 200, body = Outcome, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn change_workspace(
    State(api): Asked,
    Named(name): Named,
    unchanged: IfMatch,
    Body(asking, _): Body<Asking>,
) -> Result<impl IntoResponse, Problem> {
    Ok(answered(api.workspaces.change(&name, asking.try_into()?, unchanged.revision()?).await?))
}

/// Lets nobody into a workspace, and stops it.
#[utoipa::path(post, path = "/workspaces/{name}/suspend", tag = "workspaces", params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    request_body = Suspension, responses((status = 200, body = Outcome, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn suspend_workspace(
    State(api): Asked,
    Named(name): Named,
    unchanged: IfMatch,
    Body(Suspension { reason }, _): Body<Suspension>,
) -> Result<impl IntoResponse, Problem> {
    Ok(answered(api.workspaces.change(&name, Change::Suspend(reason), unchanged.revision()?).await?))
}

/// Lets people into a suspended workspace again.
#[utoipa::path(post, path = "/workspaces/{name}/resume", tag = "workspaces", params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Outcome, headers(("ETag" = String)))), security(("token" = ["admin"])))]
pub(super) async fn resume_workspace(State(api): Asked, Named(name): Named, unchanged: IfMatch) -> Result<impl IntoResponse, Problem> {
    Ok(answered(api.workspaces.change(&name, Change::Resume, unchanged.revision()?).await?))
}

/// What came of a change, and the `ETag` that the workspace has now.
fn answered(changed: Changed) -> impl IntoResponse {
    ([(ETAG, etag(changed.revision))], Json(Outcome::from(changed)))
}

impl From<Changed> for Outcome {
    fn from(Changed { applied, has_home, enforcement, revision: _ }: Changed) -> Self {
        let (applied, why) = match applied {
            Applied::Now => ("now", None),
            Applied::AtNextStart => ("at-next-start", None),
            Applied::NotYet(why) => ("not-yet", Some(why)),
        };
        Self { applied, why, home: has_home, enforcement: enforcement.into_iter().map(Holding::from).collect() }
    }
}

impl TryFrom<PolicyPatch> for Change {
    type Error = Problem;

    fn try_from(PolicyPatch { idle, network, public_ports }: PolicyPatch) -> Result<Self, Problem> {
        let wrong = |key: &str, why: String| Problem::refused(format!("{key}: {why}"));
        let idle = idle.map(|idle| idle.map(|text| text.parse::<IdlePolicy>()).transpose()).transpose();
        let network = network.map(|network| network.map(|text| text.parse::<NetworkPolicy>()).transpose()).transpose();
        let idle = idle.map_err(|why| wrong("idle", why))?.map(|idle| idle.map(IdlePolicy::written));
        let network = network.map_err(|why| wrong("network", why))?;
        let network = network.map(|network| network.map(|network| network.label().to_owned()));
        Ok(Self::Policy(PolicyChange { idle, network, public_ports }))
    }
}

impl TryFrom<Asking> for Change {
    type Error = Problem;

    fn try_from(asking: Asking) -> Result<Self, Problem> {
        Ok(match asking {
            Asking::Suspend { reason } => Self::Suspend(reason),
            Asking::Resume {} => Self::Resume,
            Asking::Limit { reset, limits } => Self::Limit { reset, limits: limits.into() },
            Asking::Env { set, unset } => Self::Env { set, unset },
            Asking::SetSecret { name, value } => Self::SetSecret(name, value),
            Asking::GenerateSecret { name, bytes } => Self::GenerateSecret(name, bytes),
            Asking::RotateSecret { name, bytes } => Self::RotateSecret(name, bytes),
            Asking::RemoveSecret { name } => Self::RemoveSecret(name),
            Asking::AddMount { source, target, read_write } => Self::AddMount { source, target, read_write },
            Asking::RemoveMount { target } => Self::RemoveMount(target),
            Asking::Upgrade {} => Self::Upgrade,
            Asking::Policy(patch) => return patch.try_into(),
        })
    }
}

impl From<TreeView> for Stored {
    fn from(TreeView { volume, usage }: TreeView) -> Self {
        Self {
            volume,
            bytes: usage.map(|usage| usage.bytes),
            inodes: usage.and_then(|usage| usage.inodes),
            bytes_limit: usage.and_then(|usage| usage.limit.bytes),
            inodes_limit: usage.and_then(|usage| usage.limit.inodes),
        }
    }
}

impl Answer {
    fn of(name: WorkspaceName, details: Details) -> Self {
        let secret = |SecretInfo { name, made, changed, generated }| Secret { name, made: time(made), changed: time(changed), generated };
        let mount = |MountView { source, target, read_write, problem }| Mount { source, target, read_write, problem };
        Self {
            name,
            home: details.has_home,
            template: details.template.into(),
            last_active: details.last_active.map(time),
            suspended: details.suspension.map(|suspension| Suspended { reason: suspension.reason, since: time(suspension.since) }),
            upgrade: details.upgrade.map(Pending::from),
            limits: details.limits.into(),
            own_limits: details.own_limits.into(),
            enforcement: details.enforcement.into_iter().map(Holding::from).collect(),
            storage: details.trees.into_iter().map(Stored::from).collect(),
            policy: PolicyAnswer {
                idle: details.policy.idle.map(|stored| IdlePolicy::read(stored).to_string()),
                network: details.policy.network,
                public_ports: details.policy.public_ports,
            },
            env: details.env,
            secrets: details.secrets.into_iter().map(secret).collect(),
            mounts: details.mounts.into_iter().map(mount).collect(),
            snapshots: details.snapshots,
            now: details.overview.map(Workspace::from),
        }
    }
}
