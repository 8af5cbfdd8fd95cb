//! What Docker is asked for when a container or a network is made. Pure: what no container may ever have can be asserted here.

use std::collections::HashMap;
use std::sync::LazyLock;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, NetworkCreateRequest, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};

use innkeeper_init::protocol;

use crate::engine::{ContainerSpec, EngineError, INIT_OPEN_FILES, INSTANCE_LABEL, Limits, NetworkSpec, Propagation, shell_code};
use crate::name::InstanceName;

/// Who everything in a container runs as. Numeric: a name would be looked up in a file of the image.
pub(super) const USER: &str = "1000:1000";

/// The bridge option that keeps the containers on a network from reaching each other.
pub(super) const ICC_OPTION: &str = "com.docker.network.bridge.enable_icc";

/// The scheduler period that a CPU quota is a part of, in microseconds. The kernel's default.
const CPU_PERIOD: i64 = 100_000;

/// The smallest quota the kernel takes, in microseconds.
const CPU_QUOTA_MIN: i64 = 1_000;

/// The smallest memory limit Docker takes. 0 would mean none.
const MEMORY_MIN: i64 = 6 << 20;

/// What the kernel of a container is told so that its loopback has `::1` as well, which its `/etc/hosts` speaks of: an engine may take that away
/// with the IPv6 that a network does not have.
const LOOPBACK: (&str, &str) = ("net.ipv6.conf.lo.disable_ipv6", "0");

/// What the first process runs. Its comments stay here: `docker inspect` shows the rest.
static PID1: LazyLock<String> = LazyLock::new(|| shell_code(include_str!("pid1.sh")));

/// A container's limits as Docker counts them; none of them is ever 0 or negative, which would mean "no limit".
struct Quantities {
    cpu_quota: i64,
    memory: i64,
    pids: i64,
    open_files: i64,
}

/// What the host gives its containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    /// Whether it has IPv6.
    pub(super) ipv6: bool,
    /// Open files that the engine may allow a process at most, if it is no more privileged than the gateway.
    pub(super) open_files: u64,
}

/// The body that makes a container, if the specification is of a kind that can be asked for.
pub(super) fn container(spec: &ContainerSpec, instance: &InstanceName, kernel: Kernel) -> Result<ContainerCreateBody, EngineError> {
    if let Some(network) = spec.network.as_ref().filter(|network| !is_own_network(network)) {
        return Err(refused(format!("{network:?} cannot be the name of a network of its own")));
    }
    let init = spec.init.as_ref().map(|directory| crate::engine::Mount {
        source: directory.clone(),
        target: protocol::DIRECTORY.to_owned(),
        read_only: true,
        propagation: Propagation::Private,
    });
    let mounts = spec.mounts.iter().chain(&init).map(mount).collect::<Result<_, _>>()?;
    let (entrypoint, command) = match init {
        Some(_) => (vec![protocol::PROGRAM.to_owned()], Vec::new()),
        None => (vec!["/bin/sh".to_owned(), "-c".to_owned()], vec![PID1.clone()]),
    };
    let mut labels: HashMap<String, String> = spec.labels.clone().into_iter().collect();
    labels.insert(INSTANCE_LABEL.to_owned(), instance.to_string());
    Ok(ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        user: Some(USER.to_owned()),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        entrypoint: Some(entrypoint),
        cmd: Some(command),
        // What an image says about health, signals and directories is for another program than ours.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        stop_signal: Some("SIGTERM".to_owned()),
        working_dir: Some("/".to_owned()),
        image: Some(spec.image.clone()),
        labels: Some(labels),
        tty: Some(false),
        open_stdin: Some(false),
        host_config: Some(host_config(spec, mounts, kernel)),
        ..ContainerCreateBody::default()
    })
}

/// Whether a network's name is one, and not one of Docker's words for a mode: `host` would be the host's own network.
pub(super) fn is_own_network(name: &str) -> bool {
    let letters = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    letters && !["host", "none", "default", "bridge", "nat", "private"].contains(&name.to_ascii_lowercase().as_str())
}

fn refused(why: String) -> EngineError {
    EngineError::Refused { call: "create", why }
}

fn host_config(spec: &ContainerSpec, mounts: Vec<Mount>, kernel: Kernel) -> HostConfig {
    let limits = Quantities::of(&spec.limits);
    // init holds all that it starts to the lower one.
    let init_open_files = kernel.open_files.min(INIT_OPEN_FILES.into()).cast_signed();
    let open_files_at_most = if spec.init.is_some() { init_open_files.max(limits.open_files) } else { limits.open_files };
    HostConfig {
        privileged: Some(false),
        cap_drop: Some(vec!["ALL".to_owned()]),
        // Seccomp is not named: that is how one asks for the engine's default profile.
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        // That of none is Docker's word for a loopback alone.
        network_mode: Some(spec.network.clone().unwrap_or_else(|| "none".to_owned())),
        publish_all_ports: Some(false),
        // A quota rather than Docker's `NanoCpus`, which it refuses on a machine with fewer CPUs than the template would allow.
        cpu_period: Some(CPU_PERIOD),
        cpu_quota: Some(limits.cpu_quota),
        memory: Some(limits.memory),
        // Equal to the memory: no swap beside it. The swappiness says the same where the kernel does not count swap.
        memory_swap: Some(limits.memory),
        memory_swappiness: Some(0),
        pids_limit: Some(limits.pids),
        ulimits: Some(vec![ulimit("nofile", limits.open_files, open_files_at_most), ulimit("core", 0, 0)]),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        auto_remove: Some(false),
        // Sessions do not write to the log, but anything inside can write to the first process's output.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), "1m".to_owned()), ("max-file".to_owned(), "1".to_owned())])),
        }),
        mounts: Some(mounts),
        sysctls: kernel.ipv6.then(|| HashMap::from([(LOOPBACK.0.to_owned(), LOOPBACK.1.to_owned())])),
        ..HostConfig::default()
    }
}

/// The body that changes the limits of a container. Open files are fixed when it is made.
pub(super) fn update(limits: &Limits) -> ContainerUpdateBody {
    let limits = Quantities::of(limits);
    ContainerUpdateBody {
        cpu_period: Some(CPU_PERIOD),
        cpu_quota: Some(limits.cpu_quota),
        memory: Some(limits.memory),
        memory_swap: Some(limits.memory),
        pids_limit: Some(limits.pids),
        ..ContainerUpdateBody::default()
    }
}

/// The body that makes a network.
pub(super) fn network(spec: &NetworkSpec, instance: &InstanceName) -> NetworkCreateRequest {
    NetworkCreateRequest {
        name: spec.name.clone(),
        driver: Some("bridge".to_owned()),
        enable_ipv6: Some(false),
        options: Some(HashMap::from([(ICC_OPTION.to_owned(), "false".to_owned())])),
        labels: Some(HashMap::from([(INSTANCE_LABEL.to_owned(), instance.to_string())])),
        ..NetworkCreateRequest::default()
    }
}

fn mount(mount: &crate::engine::Mount) -> Result<Mount, EngineError> {
    // The API speaks UTF-8 only; another directory than the one meant would be a disaster.
    let source = mount.source.to_str().ok_or_else(|| refused(format!("{} is not UTF-8", mount.source.display())))?;

    let propagation = match mount.propagation {
        Propagation::Private => MountBindOptionsPropagationEnum::RPRIVATE,
        Propagation::Slave => MountBindOptionsPropagationEnum::RSLAVE,
    };
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }),
        ..Mount::default()
    })
}

fn ulimit(name: &str, soft: i64, hard: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(soft), hard: Some(hard) }
}

// === impl Quantities ===

impl Quantities {
    fn of(limits: &Limits) -> Self {
        // `as` saturates, and makes 0 of what is not a number.
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a quota far beyond any machine saturates")]
        let cpu_quota = (limits.cpus * CPU_PERIOD as f64) as i64;
        Self {
            // The engine multiplies quotas: a thousand CPUs are as good as none, and stay in range.
            cpu_quota: cpu_quota.clamp(CPU_QUOTA_MIN, 1_000 * CPU_PERIOD),
            memory: i64::try_from(limits.memory.get()).unwrap_or(i64::MAX).max(MEMORY_MIN),
            pids: i64::from(limits.pids).max(1),
            open_files: i64::from(limits.open_files).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::units::Size;

    fn any_mount() -> impl Strategy<Value = crate::engine::Mount> {
        (".*", ".*", any::<bool>(), any::<bool>()).prop_map(|(source, target, read_only, slave)| crate::engine::Mount {
            source: source.into(),
            target,
            read_only,
            propagation: if slave { Propagation::Slave } else { Propagation::Private },
        })
    }

    fn any_spec() -> impl Strategy<Value = ContainerSpec> {
        let text = || "host|HOST|none|container:1|privileged|seccomp=unconfined|.*|[a-z-]{1,9}";
        let names = (text(), text(), text(), proptest::option::of(text()));
        let maps = (btree_map("innkeeper|.*", text(), 0..3), btree_map(text(), text(), 0..3));
        let limits = (any::<f64>(), any::<u64>(), any::<u32>(), any::<u32>());
        (names, maps, limits, vec(any_mount(), 0..3), any::<bool>()).prop_map(
            |((name, hostname, image, network), (labels, env), (cpus, memory, pids, open_files), mounts, init)| ContainerSpec {
                name,
                hostname,
                image,
                labels,
                env,
                limits: Limits { cpus, memory: Size::bytes(memory), pids, open_files },
                mounts,
                network,
                init: init.then(|| "/srv/init".into()),
            },
        )
    }

    proptest! {
        #[test]
        fn no_specification_yields_a_power(spec in any_spec(), ipv6: bool, open_files: u64) {
            let instance: InstanceName = "test".parse().unwrap();
            let Ok(body) = container(&spec, &instance, Kernel { ipv6, open_files }) else {
                prop_assert!(spec.network.as_ref().is_some_and(|network| !is_own_network(network)));
                return Ok(());
            };
            let network = spec.network.clone().unwrap_or_else(|| "none".to_owned());
            prop_assert!(network != "host" && !network.contains(':'));
            let host = body.host_config.clone().unwrap();

            prop_assert_eq!(body.user.as_deref(), Some("1000:1000"));
            prop_assert!(body.labels.unwrap()[INSTANCE_LABEL] == "test");
            prop_assert_eq!(host.cap_drop.as_deref(), Some(&["ALL".to_owned()][..]));
            prop_assert_eq!(host.security_opt.as_deref(), Some(&["no-new-privileges:true".to_owned()][..]));
            prop_assert!(host.memory.unwrap() >= MEMORY_MIN && host.memory_swap == host.memory, "swap is off, memory is limited");
            prop_assert!(host.cpu_quota.unwrap() > 0 && host.pids_limit.unwrap() > 0);
            let raised = |limit: &ResourcesUlimits| limit.soft != limit.hard;
            prop_assert!(host.ulimits.as_ref().unwrap().iter().all(|limit| limit.soft.unwrap() >= 0));
            prop_assert!(!host.ulimits.as_ref().unwrap().iter().any(|limit| raised(limit) && (spec.init.is_none() || limit.name.as_deref() != Some("nofile"))));
            for mount in host.mounts.as_ref().unwrap() {
                prop_assert_eq!(mount.typ, Some(MountType::BIND));
                let propagation = mount.bind_options.as_ref().unwrap().propagation.unwrap();
                prop_assert!(matches!(propagation, MountBindOptionsPropagationEnum::RPRIVATE | MountBindOptionsPropagationEnum::RSLAVE));
            }

            // Whatever is not named here has no value at all: a field added above has to be looked at here too.
            let named = HostConfig {
                privileged: Some(false),
                cap_drop: host.cap_drop.clone(),
                security_opt: host.security_opt.clone(),
                ipc_mode: Some("private".to_owned()),
                cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
                network_mode: Some(network),
                publish_all_ports: Some(false),
                cpu_period: host.cpu_period,
                cpu_quota: host.cpu_quota,
                memory: host.memory,
                memory_swap: host.memory_swap,
                memory_swappiness: Some(0),
                pids_limit: host.pids_limit,
                ulimits: host.ulimits.clone(),
                restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
                auto_remove: Some(false),
                log_config: host.log_config.clone(),
                mounts: host.mounts.clone(),
                sysctls: ipv6.then(|| HashMap::from([("net.ipv6.conf.lo.disable_ipv6".to_owned(), "0".to_owned())])),
                ..HostConfig::default()
            };
            prop_assert_eq!(host, named);
        }
    }
}
