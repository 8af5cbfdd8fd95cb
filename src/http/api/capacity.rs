//! How many more workspaces fit, by what they may use and by what they do, and what one costs.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Asked;
use super::problem::Problem;
use crate::name::TemplateName;
use crate::workspace::{CapacityView, Fits, Resources, TemplateFits};

/// How many more workspaces fit.
#[derive(Serialize, ToSchema)]
#[schema(as = Capacity)]
pub(super) struct CapacityAnswer {
    /// What the host has.
    total: Share,
    /// What of that workspaces may use: processors and memory those that run, disk all.
    promised: Share,
    /// What of it is in use, by whatever is on the host; `null` in the first seconds.
    used: Option<Share>,
    /// Workspaces that run.
    running: usize,
    /// Containers that may run at once.
    places: usize,
    /// Addresses for containers; `null` where that is not known.
    addresses: Option<u64>,
    /// What the host costs a month; `null` where `capacity.host_price` is not set.
    price: Option<Price>,
    templates: Vec<OfTemplate>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Price {
    host: f64,
    currency: String,
}

/// So much of what a host has.
#[derive(Serialize, ToSchema)]
#[schema(as = Resources)]
pub(super) struct Share {
    /// CPUs.
    cpu: f64,
    /// Bytes.
    memory: u64,
    /// Bytes.
    disk: u64,
}

/// How many more of a template fit.
#[derive(Serialize, ToSchema)]
#[schema(as = CapacityOfTemplate)]
pub(super) struct OfTemplate {
    #[schema(value_type = String)]
    template: TemplateName,
    /// What each may use.
    limits: Share,
    /// If each uses all that it may.
    by_limits: More,
    /// What 95 of 100 samples of the last hour stay below; `null` where none runs.
    #[serde(rename = "use")]
    typical: Option<Typical>,
    /// If each uses that.
    by_use: Option<More>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Typical {
    /// CPUs.
    cpu: f64,
    /// Bytes.
    memory: u64,
    /// Bytes.
    disk: u64,
    samples: usize,
    /// `template`: of those of this template; `all`: of all, as none of this has run lately.
    of: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(super) struct More {
    /// How many more can run at once.
    more: u64,
    /// What there is not enough of for another: `cpu`, `memory`, `disk`, `places` or `addresses`.
    bound: &'static str,
    /// The largest share of the host that one takes: 0.25 is a quarter.
    share: f64,
    /// What one costs a month by that share.
    cost: Option<f64>,
}

/// How many more workspaces fit, by what they may use and by what they do, and what one costs.
#[utoipa::path(get, path = "/capacity", tag = "gateway", responses((status = 200, body = CapacityAnswer)), security(("token" = ["read"])))]
pub(super) async fn show_capacity(State(api): Asked) -> Result<Json<CapacityAnswer>, Problem> {
    Ok(Json(api.operations.capacity().await?.into()))
}

// === conversions ===

impl From<Resources> for Share {
    fn from(Resources { cpu, memory, disk }: Resources) -> Self {
        Self { cpu, memory: memory as u64, disk: disk as u64 }
    }
}

impl From<CapacityView> for CapacityAnswer {
    fn from(view: CapacityView) -> Self {
        let price = view.price.as_ref().map(|(price, _)| *price);
        Self {
            total: view.total.into(),
            promised: view.promised.into(),
            used: view.used.map(Share::from),
            running: view.running,
            places: view.places,
            addresses: view.addresses,
            price: view.price.map(|(host, currency)| Price { host, currency }),
            templates: view.templates.into_iter().map(|one| OfTemplate::of(one, price)).collect(),
        }
    }
}

impl OfTemplate {
    fn of(one: TemplateFits, price: Option<f64>) -> Self {
        let more = |fits: Fits| More {
            more: fits.more,
            bound: fits.bound.label(),
            share: fits.share,
            cost: price.map(|price| (price * fits.share * 100.0).round() / 100.0),
        };
        let of = if one.of_template { "template" } else { "all" };
        let typical = |(Resources { cpu, memory, disk }, samples): (Resources, usize)| Typical {
            cpu,
            memory: memory as u64,
            disk: disk as u64,
            samples,
            of,
        };
        Self {
            template: one.template,
            limits: one.limits.into(),
            by_limits: more(one.by_limits),
            typical: one.use_of_each.map(typical),
            by_use: one.by_use.map(more),
        }
    }
}
