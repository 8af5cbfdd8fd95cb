//! What the containers of an instance are called and made from. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::volume::Volumes;
use super::{NetworkPolicy, Template, Volume, policy};
use crate::auth::{LimitOverrides, Permit, VolumeLimits};
use crate::engine::{Container, ContainerSpec, Limits, Mount, Propagation};
use crate::home::{HomeId, Quota, SlotId};
use crate::name::{InstanceName, TemplateName, VolumeName, WorkspaceName};
use crate::units::{Size, Span};

/// Which slot a container has for its home.
const SLOT_LABEL: &str = "innkeeper.slot";
/// Which template it was made from.
const TEMPLATE_LABEL: &str = "innkeeper.template";
/// The [`Recipe::fingerprint`] that it was made from.
const RECIPE_LABEL: &str = "innkeeper.recipe";
/// Followed by the name of a volume that it has; where that is in it.
const VOLUME_LABEL: &str = "innkeeper.volume.";

/// Everything that a pool's container has before anybody owns it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe {
    pub(super) instance: InstanceName,
    pub(super) template_name: TemplateName,
    pub(super) template: Template,
}

/// What a workspace may use.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Given {
    /// Its container.
    pub(super) limits: Limits,
    /// Its home.
    pub(super) quota: Quota,
    /// Its volumes.
    pub(super) volumes: BTreeMap<VolumeName, Quota>,
}

/// Whose container it is, as its name says. Workspace names have no dots, so that these cannot be mistaken for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A workspace's.
    Workspace(WorkspaceName),
    /// A workspace's that gets another, until that has come up.
    Former(WorkspaceName),
    /// Nobody's yet.
    Pool,
    /// It has the instance's label and a name that innkeeper does not give.
    Stranger,
}

impl Recipe {
    /// Changes whenever a container made from it would be different. The image's own changes are not in it.
    pub(super) fn fingerprint(&self) -> String {
        let mut template = self.template.clone();
        // These are not in the container.
        template.motd.clear();
        template.disk = Size::default();
        template.inodes = None;
        template.volume.iter_mut().for_each(|volume| (volume.disk, volume.inodes, volume.skeleton) = (Size::default(), None, None));
        template.keep_max = Span::default();
        template.keep_running = false;
        template.service.clear();
        template.secrets.clear();
        template.skeleton = None;
        template.permit = Permit::default();
        (template.recording, template.watch) = Default::default();
        let text = serde_json::to_string(&template).unwrap_or_default();
        HEXLOWER.encode(&Sha256::digest(format!("{}\n{text}", self.template_name))[..8])
    }

    /// A container for this slot, under this name. Its host name is the template's: the one thing a person sees of it that cannot be
    /// changed when it is claimed, and so is the same whichever way she got it.
    ///
    /// `sources` are the directories of the host that become its home and its volumes, in the order of [`Self::places`]: slots, or, where nothing
    /// can be mounted, the trees themselves. Those need not be on a mount that is shared, and the engine refuses what asks for it then.
    pub(super) fn container(&self, name: String, slot: &SlotId, sources: Vec<PathBuf>, propagation: Propagation) -> ContainerSpec {
        let labels =
            [(SLOT_LABEL, slot.as_str().to_owned()), (TEMPLATE_LABEL, self.template_name.to_string()), (RECIPE_LABEL, self.fingerprint())];
        let volumes = self.template.volumes().into_iter().map(|(name, path)| (format!("{VOLUME_LABEL}{name}"), path));
        let targets = self.places().into_iter().map(|(_, target)| target);
        let mount = |(source, target)| Mount { source, target, read_only: false, propagation };
        let mut env = self.template.env.clone();
        // Where the home is, whatever the image's /etc/passwd says.
        env.insert("HOME".to_owned(), self.template.home.clone());
        let mut spec = ContainerSpec {
            name,
            hostname: self.template_name.to_string(),
            image: self.template.image.clone(),
            labels: labels.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(volumes).collect(),
            env,
            limits: self.template.limits(),
            mounts: sources.into_iter().zip(targets).map(mount).collect(),
            network: None,
            init: None,
        };
        self.connect(&mut spec, self.template.network);
        spec
    }

    /// Has the network of a container that is to be made lead there.
    pub(super) fn connect(&self, spec: &mut ContainerSpec, network: NetworkPolicy) {
        spec.network = (network == NetworkPolicy::Open).then(|| network_name(&self.instance));
        match network {
            NetworkPolicy::Open => spec.labels.remove(policy::LABEL),
            NetworkPolicy::None => spec.labels.insert(policy::LABEL.to_owned(), network.label().to_owned()),
        };
    }

    /// What of a workspace its containers have, and where: the home, then each volume in the order of their names.
    pub(super) fn places(&self) -> Vec<(Option<VolumeName>, String)> {
        let volumes = self.template.volumes().into_iter().map(|(name, path)| (Some(name), path));
        std::iter::once((None, self.template.home.clone())).chain(volumes).collect()
    }

    /// What the template gives, and what a grant changes.
    pub(super) fn given(&self, overrides: &LimitOverrides) -> Given {
        let template = self.template.quota();
        let quota = Quota { bytes: overrides.disk.map(Size::get).or(template.bytes), inodes: overrides.inodes.or(template.inodes) };
        let own = |volume: &Volume| {
            let VolumeLimits { disk, inodes } = overrides.volumes.get(&volume.name).copied().unwrap_or_default();
            let template = volume.quota();
            Quota { bytes: disk.map(Size::get).or(template.bytes), inodes: inodes.or(template.inodes) }
        };
        let volumes = self.template.volume.iter().map(|volume| (volume.name.clone(), own(volume))).collect();
        Given { limits: self.limits(overrides), quota, volumes }
    }

    fn limits(&self, overrides: &LimitOverrides) -> Limits {
        let mut limits = self.template.limits();
        limits.cpus = overrides.cpus.unwrap_or(limits.cpus);
        limits.memory = overrides.memory.unwrap_or(limits.memory);
        limits.pids = overrides.pids.unwrap_or(limits.pids);
        limits
    }
}

impl Given {
    /// The home and the volumes of a workspace, in the order of [`Recipe::places`], with what may be in each.
    pub(super) fn trees(&self, workspace: &WorkspaceName) -> Vec<(HomeId, Quota)> {
        let quotas = std::iter::once(self.quota).chain(self.volumes.values().copied());
        trees(workspace, self.volumes.keys()).into_iter().zip(quotas).collect()
    }

    /// What may be in the home, or in this volume. One that the template does not name is held to what the home is: it has no limit of its own.
    pub(super) fn quota_of(&self, volume: Option<&VolumeName>) -> Quota {
        volume.and_then(|volume| self.volumes.get(volume)).copied().unwrap_or(self.quota)
    }
}

/// A workspace's home, and these of its volumes.
pub(super) fn trees<'a>(workspace: &WorkspaceName, volumes: impl IntoIterator<Item = &'a VolumeName>) -> Vec<HomeId> {
    let volume = |name: &VolumeName| HomeId { workspace: workspace.clone(), volume: Some(name.clone()) };
    std::iter::once(HomeId::home(workspace.clone())).chain(volumes.into_iter().map(volume)).collect()
}

/// The name of a workspace's container: the lock that makes one workspace have one container.
pub(super) fn container_name(instance: &InstanceName, workspace: &WorkspaceName) -> String {
    format!("innkeeper.{instance}.{workspace}")
}

/// The name that a workspace's container has while another is tried in its place.
pub(super) fn former_name(instance: &InstanceName, workspace: &WorkspaceName) -> String {
    format!("innkeeper.{instance}.former.{workspace}")
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
    if let Some(workspace) = rest.strip_prefix("former.") {
        return workspace.parse().map_or(Owner::Stranger, Owner::Former);
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

/// The volumes that a container was made with. Its labels are the engine's word: a name that is none is no volume.
pub(super) fn volumes_of(labels: &BTreeMap<String, String>) -> Volumes {
    labels.iter().filter_map(|(key, path)| Some((key.strip_prefix(VOLUME_LABEL)?.parse().ok()?, path.clone()))).collect()
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
        let former: WorkspaceName = "former".parse().unwrap();
        assert_eq!(owner(&main, &former_name(&main, &former)), Owner::Former(former.clone()));
        assert_eq!(owner(&main, &container_name(&main, &former)), Owner::Workspace(former));
        for stranger in ["innkeeper.main2.alice", "innkeeper.main.", "innkeeper.main.a.b", "innkeeper.main.pool.x", "alice"] {
            assert_eq!(owner(&main, stranger), Owner::Stranger, "{stranger}");
        }
    }

    #[test]
    fn a_grant_goes_before_the_template() {
        let template = Template { disk: Size::gib(1), inodes: Some(1000), ..Template::default() };
        let recipe = Recipe { instance: "main".parse().unwrap(), template_name: TemplateName::default(), template };
        let given = recipe.given(&LimitOverrides { disk: Some(Size::gib(2)), ..LimitOverrides::default() });
        assert_eq!(given.quota, Quota { bytes: Some(2 << 30), inodes: Some(1000) });
        assert_eq!(given.limits, recipe.template.limits());
        assert_eq!(recipe.given(&LimitOverrides { inodes: Some(5), ..LimitOverrides::default() }).quota.inodes, Some(5));
        let data = Volume { name: "data".parse().unwrap(), disk: Size::gib(9), ..Volume::default() };
        let recipe = Recipe { template: Template { volume: vec![data.clone()], ..recipe.template.clone() }, ..recipe };
        let given = recipe.given(&LimitOverrides::default());
        assert_eq!(given.quota_of(Some(&data.name)).bytes, Some(9 << 30));
        assert_eq!(given.quota_of(Some(&"other".parse().unwrap())), given.quota_of(None));
        let own = VolumeLimits { disk: Some(Size::gib(3)), inodes: None };
        let limits = LimitOverrides { volumes: [(data.name.clone(), own), ("other".parse().unwrap(), own)].into(), ..Default::default() };
        let given = recipe.given(&limits);
        assert_eq!((given.quota_of(Some(&data.name)).bytes, given.volumes.len()), (Some(3 << 30), 1));
        let files = VolumeLimits { disk: None, inodes: Some(7) };
        let over = LimitOverrides { volumes: [(data.name.clone(), files)].into(), ..Default::default() }.over(limits);
        assert_eq!(recipe.given(&over).quota_of(Some(&data.name)), Quota { bytes: Some(3 << 30), inodes: Some(7) });
    }

    #[test]
    fn a_container_says_which_volumes_it_has() {
        let volume = |name: &str, path: &str| Volume { name: name.parse().unwrap(), path: path.to_owned(), ..Volume::default() };
        let template = Template { volume: vec![volume("data", "/data"), volume("cache", "/var/cache")], ..Template::default() };
        let mut recipe = Recipe { instance: "main".parse().unwrap(), template_name: TemplateName::default(), template };
        let sources: Vec<PathBuf> = ["/h", "/c", "/d"].map(PathBuf::from).into();
        let slot = SlotId::parse("0123456789abcdef").unwrap();
        let spec = recipe.container("x".to_owned(), &slot, sources, Propagation::Slave);
        let mounts: Vec<_> = spec.mounts.iter().map(|mount| (mount.source.to_str().unwrap(), mount.target.as_str())).collect();
        assert_eq!(mounts, [("/h", "/home/user"), ("/c", "/var/cache"), ("/d", "/data")]);
        assert_eq!(volumes_of(&spec.labels), recipe.template.volumes());
        let trees: Vec<String> =
            recipe.given(&LimitOverrides::default()).trees(&"alice".parse().unwrap()).iter().map(|(id, _)| id.to_string()).collect();
        assert_eq!(trees, ["alice", "alice.cache", "alice.data"]);

        let before = recipe.fingerprint();
        recipe.template.volume[0].disk = Size::gib(1);
        assert_eq!(recipe.fingerprint(), before, "its size is not in the container");
        recipe.template.volume[0].path = "/elsewhere".to_owned();
        assert_ne!(recipe.fingerprint(), before);
    }

    #[test]
    fn a_container_without_a_network_says_so() {
        let template = Template { network: NetworkPolicy::None, ..Template::default() };
        let recipe = Recipe { instance: "main".parse().unwrap(), template_name: TemplateName::default(), template };
        let slot = SlotId::parse("0123456789abcdef").unwrap();
        let mut spec = recipe.container("x".to_owned(), &slot, Vec::new(), Propagation::Slave);
        assert_eq!((spec.network.as_deref(), spec.labels[policy::LABEL].as_str()), (None, "none"));
        recipe.connect(&mut spec, NetworkPolicy::Open);
        assert_eq!((spec.network.as_deref(), spec.labels.get(policy::LABEL)), (Some("innkeeper.main"), None));
        let open = Recipe { template: Template::default(), ..recipe.clone() };
        assert_ne!(open.fingerprint(), recipe.fingerprint());
    }

    #[test]
    fn what_is_not_in_a_container_makes_no_new_one() {
        let recipe = |motd: &str, cpus, keep| Recipe {
            instance: "main".parse().unwrap(),
            template_name: "default".parse().unwrap(),
            template: Template {
                motd: motd.to_owned(),
                cpus,
                keep_max: Span::secs(keep),
                permit: Permit { sftp: motd == "a", ..Permit::default() },
                ..Template::default()
            },
        };
        assert_eq!(recipe("a", 1.0, 1).fingerprint(), recipe("b", 1.0, 2).fingerprint());
        let mut serving = recipe("a", 1.0, 1);
        serving.template.service.push(super::super::Service { image: true, ..super::super::Service::default() });
        serving.template.keep_running = true;
        assert_eq!(serving.fingerprint(), recipe("a", 1.0, 1).fingerprint());
        assert_ne!(recipe("a", 1.0, 1).fingerprint(), recipe("a", 2.0, 1).fingerprint());
    }
}
