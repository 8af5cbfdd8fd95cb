//! What is set of one workspace beside its limits: when it is stopped, where its network leads, which of its ports are public.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use parking_lot::RwLock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AskError;
use super::settings::require;
use crate::name::WorkspaceName;
use crate::store::{Policy, PolicyChange};
use crate::units::Span;

/// Where the network of a container leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NetworkPolicy {
    /// Out, as the host's does; to no other container.
    #[default]
    Open,
    /// Nowhere: it has its loopback alone.
    None,
}

/// When a workspace that nobody uses is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Never: it gives its place up to nobody either.
    Never,
    /// After so long.
    After(Duration),
}

/// Ports that are public, of workspaces that have some: looked up for each request, before it is known who asks.
#[derive(Debug, Default)]
pub(super) struct PublicPorts(RwLock<HashMap<WorkspaceName, BTreeSet<u16>>>);

/// The label of a container whose network is not open.
pub(super) const LABEL: &str = "innkeeper.network";
/// Public ports of one workspace.
const MOST_PORTS: usize = 32;
/// The longest that a workspace may be idle, other than for ever.
const LONGEST_IDLE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

// === impl NetworkPolicy ===

impl NetworkPolicy {
    /// The word for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::None => "none",
        }
    }

    /// As it was written down. What a later version has set, of which nothing is known here, leads nowhere.
    pub(super) fn read(text: &str) -> Self {
        text.parse().unwrap_or(Self::None)
    }
}

impl FromStr for NetworkPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "none" => Ok(Self::None),
            _ => Err("a network is open or none".to_owned()),
        }
    }
}

// === impl IdlePolicy ===

impl IdlePolicy {
    /// As it is written down: for ever is no time.
    pub fn written(self) -> Duration {
        match self {
            Self::Never => Duration::ZERO,
            Self::After(span) => span,
        }
    }

    /// As it was written down.
    pub fn read(stored: Duration) -> Self {
        if stored.is_zero() { Self::Never } else { Self::After(stored) }
    }

    /// For how long; `None`: for ever.
    pub fn limit(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(span) => Some(span),
        }
    }
}

impl fmt::Display for IdlePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(span) => humantime::format_duration(*span).fmt(f),
        }
    }
}

impl FromStr for IdlePolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let span = Span::try_from(text.to_owned()).map_err(|_| "it is never, or a time such as 30m".to_owned())?.get();
        // Seconds are what is kept, and no time would be for ever.
        let span = Duration::from_secs(span.as_secs());
        let fits = !span.is_zero() && span <= LONGEST_IDLE;
        if fits { Ok(Self::After(span)) } else { Err("it is from 1s to 365days, or never".to_owned()) }
    }
}

// === impl PublicPorts ===

impl PublicPorts {
    /// What is set of a workspace.
    pub(super) fn set(&self, name: &WorkspaceName, ports: Option<BTreeSet<u16>>) {
        let mut all = self.0.write();
        match ports.filter(|ports| !ports.is_empty()) {
            Some(ports) => all.insert(name.clone(), ports),
            None => all.remove(name),
        };
    }

    pub(super) fn has(&self, name: &WorkspaceName, port: u16) -> bool {
        self.0.read().get(name).is_some_and(|ports| ports.contains(&port))
    }
}

/// Whether a change can be gone by.
pub(super) fn check(change: &PolicyChange) -> Result<(), AskError> {
    if let Some(Some(ports)) = &change.public_ports {
        require(!ports.contains(&0), || "there is no port 0".to_owned())?;
        require(ports.len() <= MOST_PORTS, || format!("a workspace has at most {MOST_PORTS} public ports"))?;
    }
    let any = change.idle.is_some() || change.network.is_some() || change.public_ports.is_some();
    require(any, || "nothing is to be changed".to_owned())
}

/// Where the network of a workspace leads by what is set of it; `None`: as its template says.
pub(super) fn network(policy: &Policy) -> Option<NetworkPolicy> {
    policy.network.as_deref().map(NetworkPolicy::read)
}

/// When a workspace is stopped by what is set of it; `None`: as its grant says, or all of them.
pub(super) fn idle(policy: &Policy) -> Option<IdlePolicy> {
    policy.idle.map(IdlePolicy::read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_written_as_they_are_read() {
        for text in ["never", "30m", "1h 30m", "365days"] {
            let policy: IdlePolicy = text.parse().unwrap();
            assert_eq!(policy.to_string().parse(), Ok(policy), "{text}");
            assert_eq!(IdlePolicy::read(policy.written()), policy, "{text}");
        }
        for wrong in ["", "0s", "10ms", "366days", "always", "5"] {
            assert!(wrong.parse::<IdlePolicy>().is_err(), "{wrong}");
        }
        for policy in [NetworkPolicy::Open, NetworkPolicy::None] {
            assert_eq!(policy.label().parse(), Ok(policy));
        }
        assert_eq!(NetworkPolicy::read("filtered"), NetworkPolicy::None, "never more than was set");
    }

    #[test]
    fn ports_are_public_until_they_are_not() {
        let (all, alice): (PublicPorts, WorkspaceName) = (PublicPorts::default(), "alice".parse().unwrap());
        all.set(&alice, Some(BTreeSet::from([80, 8080])));
        assert!(all.has(&alice, 80) && !all.has(&alice, 81) && !all.has(&"bob".parse().unwrap(), 80));
        all.set(&alice, Some(BTreeSet::new()));
        assert!(!all.has(&alice, 80));
        let ports = |ports: Vec<u16>| PolicyChange { public_ports: Some(Some(ports.into_iter().collect())), ..PolicyChange::default() };
        assert!(check(&ports(vec![80])).is_ok() && check(&ports(vec![0])).is_err() && check(&ports((1..=33).collect())).is_err());
        assert!(check(&PolicyChange::default()).is_err());
    }
}
