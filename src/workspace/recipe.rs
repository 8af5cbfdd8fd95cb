//! What the containers of an instance are called and made from. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::Template;
use crate::auth::LimitOverrides;
use crate::engine::{Container, ContainerSpec, Limits, Mount, Propagation};
use crate::home::SlotId;
use crate::name::{InstanceName, TemplateName, WorkspaceName};

/// Which slot a container has for its home.
const SLOT_LABEL: &str = "innkeeper.slot";
/// Which template it was made from.
const TEMPLATE_LABEL: &str = "innkeeper.template";
/// The [`Recipe::fingerprint`] that it was made from.
const RECIPE_LABEL: &str = "innkeeper.recipe";

/// Everything that a pool's container has before anybody owns it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe {
    pub(super) instance: InstanceName,
    pub(super) template_name: TemplateName,
    pub(super) template: Template,
}

/// Whose container it is, as its name says. Workspace names have no dots, so that these cannot be mistaken for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A workspace's.
    Workspace(WorkspaceName),
    /// Nobody's yet.
    Pool,
    /// It has the instance's label and a name that innkeeper does not give.
    Stranger,
}

impl Recipe {
    /// Changes whenever a container made from it would be different. The image's own changes are not in it.
    pub(super) fn fingerprint(&self) -> String {
        let mut template = self.template.clone();
        // These two are not in the container.
        template.motd.clear();
        template.disk = crate::units::Size::default();
        let text = serde_json::to_string(&template).unwrap_or_default();
        HEXLOWER.encode(&Sha256::digest(format!("{}\n{text}", self.template_name))[..8])
    }

    /// A container for this slot, under this name. Its host name is the template's: the one thing a person sees of it that cannot be
    /// changed when it is claimed, and so is the same whichever way she got it.
    pub(super) fn container(&self, name: String, slot: &SlotId, home: PathBuf) -> ContainerSpec {
        let labels =
            [(SLOT_LABEL, slot.as_str().to_owned()), (TEMPLATE_LABEL, self.template_name.to_string()), (RECIPE_LABEL, self.fingerprint())];
        let mut env = self.template.env.clone();
        // Where the home is, whatever the image's /etc/passwd says.
        env.insert("HOME".to_owned(), self.template.home.clone());
        ContainerSpec {
            name,
            hostname: self.template_name.to_string(),
            image: self.template.image.clone(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into(),
            env,
            limits: self.template.limits(),
            mounts: vec![Mount { source: home, target: self.template.home.clone(), read_only: false, propagation: Propagation::Slave }],
            network: network_name(&self.instance),
        }
    }

    /// The template's limits, and what a grant changes.
    pub(super) fn limits(&self, overrides: &LimitOverrides) -> Limits {
        let mut limits = self.template.limits();
        limits.cpus = overrides.cpus.unwrap_or(limits.cpus);
        limits.memory = overrides.memory.unwrap_or(limits.memory);
        limits.pids = overrides.pids.unwrap_or(limits.pids);
        limits
    }
}

/// The name of a workspace's container: the lock that makes one workspace have one container.
pub(super) fn container_name(instance: &InstanceName, workspace: &WorkspaceName) -> String {
    format!("innkeeper.{instance}.{workspace}")
}

/// The name of a container that nobody owns yet.
pub(super) fn pool_name(instance: &InstanceName, slot: &SlotId) -> String {
    format!("innkeeper.{instance}.pool.{}", slot.as_str())
}

/// The name of the network that the instance's containers are on.
pub(crate) fn network_name(instance: &InstanceName) -> String {
    format!("innkeeper.{instance}")
}

/// Whose a container of the instance is.
pub(super) fn owner(instance: &InstanceName, name: &str) -> Owner {
    let Some(rest) = name.strip_prefix(&format!("innkeeper.{instance}.")) else { return Owner::Stranger };
    if let Some(slot) = rest.strip_prefix("pool.") {
        return if SlotId::parse(slot).is_some() { Owner::Pool } else { Owner::Stranger };
    }
    rest.parse().map_or(Owner::Stranger, Owner::Workspace)
}

/// The slot that a container was made with.
pub(super) fn slot_of(container: &Container) -> Option<SlotId> {
    container.labels.get(SLOT_LABEL).and_then(|id| SlotId::parse(id))
}

/// The template that a container was made from, and its fingerprint.
pub(super) fn made_from(labels: &BTreeMap<String, String>) -> Option<(TemplateName, &str)> {
    let template = labels.get(TEMPLATE_LABEL)?.parse().ok()?;
    Some((template, labels.get(RECIPE_LABEL)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is() {
        let main: InstanceName = "main".parse().unwrap();
        let alice: WorkspaceName = "pool".parse().unwrap();
        let slot = SlotId::parse("0123456789abcdef").unwrap();
        assert_eq!(owner(&main, &container_name(&main, &alice)), Owner::Workspace(alice));
        assert_eq!(owner(&main, &pool_name(&main, &slot)), Owner::Pool);
        for stranger in ["innkeeper.main2.alice", "innkeeper.main.", "innkeeper.main.a.b", "innkeeper.main.pool.x", "alice"] {
            assert_eq!(owner(&main, stranger), Owner::Stranger, "{stranger}");
        }
    }

    #[test]
    fn a_message_of_the_day_makes_no_new_container() {
        let recipe = |motd: &str, cpus| Recipe {
            instance: "main".parse().unwrap(),
            template_name: "default".parse().unwrap(),
            template: Template { motd: motd.to_owned(), cpus, ..Template::default() },
        };
        assert_eq!(recipe("a", 1.0).fingerprint(), recipe("b", 1.0).fingerprint());
        assert_ne!(recipe("a", 1.0).fingerprint(), recipe("a", 2.0).fingerprint());
    }
}
