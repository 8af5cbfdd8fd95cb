//! `innkeeper healthcheck`: for a container's HEALTHCHECK, where there is no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::output::Answer;
use super::{CommandError, block_on};
use crate::config::Sources;

/// How long the answer may take.
const DEADLINE: Duration = Duration::from_secs(3);

pub(super) fn run(sources: &Sources) -> Result<Answer, CommandError> {
    let loaded = sources.load()?;
    block_on(ask(&loaded.settings.http.listen))??;
    Ok(Answer::did("", json!({}), Value::Null))
}

async fn ask(listen: &str) -> anyhow::Result<()> {
    if listen.is_empty() {
        bail!("http.listen is empty: there is nobody to ask");
    }
    let url = format!("http://{}/healthz", reachable(listen.parse().context("http.listen")?));
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().context("healthcheck")?;
    let answer = client.get(&url).send().await.with_context(|| format!("no answer from {url}"))?;
    if !answer.status().is_success() {
        bail!("{url} answered {}", answer.status());
    }
    Ok(())
}

/// Where a listener on this address is reached from this machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    listen
}
