//! The instance's network: made once, though Docker lets two networks have one name.

use std::collections::HashMap;

use bollard::models::Network;
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::{Docker, body};
use crate::engine::{EngineError, INSTANCE_LABEL, NetworkSpec};

/// Makes the network if it is not there. Of several who do so at once all keep the oldest and remove the others; nobody has put a
/// container on those yet, because nobody's call has returned.
pub(super) async fn ensure(docker: &Docker, spec: &NetworkSpec) -> Result<(), EngineError> {
    if !body::is_own_network(&spec.name) {
        return Err(refused(format!("{:?} cannot be the name of a network of its own", spec.name)));
    }
    let found = named(docker, &spec.name).await?;
    if !found.is_empty() {
        return keep_oldest(docker, spec, found).await;
    }
    match docker.call("network create", &spec.name, docker.api.create_network(body::network(spec, &docker.instance))).await {
        Ok(_) => {}
        // Engines since 25 do refuse a second network of the same name: somebody else was first.
        Err(EngineError::Refused { why, .. }) if why.contains("already exists") => {}
        Err(error) => return Err(error),
    }
    let found = named(docker, &spec.name).await?;
    keep_oldest(docker, spec, found).await
}

/// The bits of the prefix of its IPv4 addresses.
pub(super) async fn prefix(docker: &Docker, name: &str) -> Result<Option<u32>, EngineError> {
    let found = named(docker, name).await?;
    let ranges = found.iter().filter_map(|network| network.ipam.as_ref()?.config.as_ref()).flatten();
    Ok(ranges.filter_map(|range| prefix_of(range.subnet.as_deref()?)).next())
}

/// Of `172.17.0.0/16`.
fn prefix_of(subnet: &str) -> Option<u32> {
    let (address, bits) = subnet.split_once('/')?;
    address.parse::<std::net::Ipv4Addr>().ok()?;
    bits.parse().ok().filter(|bits| *bits <= 32)
}

/// Removes every network of the instance.
pub(super) async fn remove_all(docker: &Docker) -> Result<(), EngineError> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{INSTANCE_LABEL}={}", docker.instance)])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    for network in docker.call("network list", "", docker.api.list_networks(Some(options))).await? {
        remove(docker, &network).await?;
    }
    Ok(())
}

async fn keep_oldest(docker: &Docker, spec: &NetworkSpec, mut found: Vec<Network>) -> Result<(), EngineError> {
    // As text, but without the zone: fractions of a second come without trailing zeros, and `Z` sorts after digits.
    found.sort_by_key(|network| (network.created.as_deref().unwrap_or_default().trim_end_matches('Z').to_owned(), network.id.clone()));
    let Some((oldest, younger)) = found.split_first() else {
        return Err(EngineError::NotFound(spec.name.clone()));
    };
    for network in younger.iter().filter(|network| is_own(docker, network)) {
        remove(docker, network).await?;
    }
    if !is_own(docker, oldest) {
        return Err(refused(format!("a network {} is there already and belongs to somebody else", spec.name)));
    }
    let isolating = oldest.options.as_ref().and_then(|options| options.get(body::ICC_OPTION)).is_some_and(|value| value == "false");
    if oldest.driver.as_deref() != Some("bridge") || !isolating {
        return Err(refused(format!("the network {} lets containers reach each other; remove it and it is made anew", spec.name)));
    }
    Ok(())
}

/// All networks of exactly this name; the engine's filter takes parts of names too.
async fn named(docker: &Docker, name: &str) -> Result<Vec<Network>, EngineError> {
    let filters = HashMap::from([("name".to_owned(), vec![name.to_owned()])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let mut found = docker.call("network list", name, docker.api.list_networks(Some(options))).await?;
    found.retain(|network| network.name.as_deref() == Some(name));
    Ok(found)
}

async fn remove(docker: &Docker, network: &Network) -> Result<(), EngineError> {
    let id = network.id.as_deref().unwrap_or_default();
    match docker.call("network remove", id, docker.api.remove_network(id)).await {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

fn is_own(docker: &Docker, network: &Network) -> bool {
    network.labels.as_ref().and_then(|labels| labels.get(INSTANCE_LABEL)).is_some_and(|label| label == docker.instance.as_str())
}

fn refused(why: String) -> EngineError {
    EngineError::Refused { call: "network", why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_says_how_large_it_is() {
        let of = ["172.17.0.0/16", "10.0.0.0/8", "fd00::/64", "10.0.0.0/33", "10.0.0.0", ""].map(prefix_of);
        assert_eq!(of, [Some(16), Some(8), None, None, None, None]);
    }
}
