//! Docker, through the API on its Unix socket. The only room that names bollard.
//!
//! Every call has a deadline of its own and none is repeated. What Docker answers is put into the engine's words at once; what it is asked
//! for is built in `body`, where it can be looked at without a Docker.

mod body;
mod cgroup;
pub mod demux;
mod error;
mod events;
mod exec;
mod image;
mod network;
mod pull;
mod socket;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error;
use bollard::query_parameters as query;
use futures_util::{Stream, StreamExt, stream};
use rustix::process::{Resource, getrlimit};

use self::error::{chain, meaning};
use super::{
    Config, Container, ContainerId, ContainerSpec, ContainerState, Engine, EngineError, Event, ExecId, ExecSpec, ExecState, ExecStream,
    INSTANCE_LABEL, ImageId, ImageProgram, Limits, NetworkSpec, Usage, Version,
};
use crate::name::InstanceName;

/// How many containers are removed at once.
const REMOVALS: usize = 8;

/// How often it is looked whether a removal that somebody else began is over.
const REMOVAL_POLL: Duration = Duration::from_millis(50);

/// What is there if the kernel has IPv6. Of a container without it nothing can be set that is IPv6's.
const IPV6: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";

/// A Docker Engine, as one instance sees it. Cheap to clone; keeps no connection.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    socket: Arc<PathBuf>,
    instance: InstanceName,
    timeout: Duration,
    /// Containers share it.
    kernel: body::Kernel,
}

impl Docker {
    /// An engine at a socket. Nothing is connected to: the daemon need not be there yet.
    pub fn connect(config: &Config, instance: &InstanceName) -> Result<Self, EngineError> {
        let socket = Arc::new(config.socket.clone());
        let path = socket.clone();
        let transport = move |request: bollard::BollardRequest| {
            let path = path.clone();
            async move { socket::send(&path, request).await }
        };
        // bollard's deadline ends with the answer's headers and counts whole seconds; `call` has the one that holds.
        let api = bollard::Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            u64::from(u32::MAX),
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|error| EngineError::Unreachable(chain(&error)))?;
        let kernel = body::Kernel { ipv6: Path::new(IPV6).exists(), open_files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) };
        Ok(Self { api, socket, instance: instance.clone(), timeout: config.timeout.get(), kernel })
    }

    /// Waits for an answer, up to the deadline, and says what its error means. `subject` is what an error would be about.
    async fn call<T>(&self, name: &'static str, subject: &str, answer: impl Future<Output = Result<T, Error>>) -> Result<T, EngineError> {
        self.within(name, self.timeout, async { answer.await.map_err(|error| meaning(name, subject, error)) }).await
    }

    async fn within<T>(
        &self,
        name: &'static str,
        deadline: Duration,
        answer: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        tokio::time::timeout(deadline, answer).await.unwrap_or(Err(EngineError::TimedOut(name)))
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState, EngineError> {
        let found = self.inspect(&id.0).await?;
        found.map(|container| container.state).ok_or_else(|| EngineError::NotFound(id.0.clone()))
    }

    /// Waits until a container whose removal somebody else began is gone, and its name free.
    async fn removed(&self, id: &ContainerId) -> Result<(), EngineError> {
        let gone = async {
            while self.inspect(&id.0).await?.is_some() {
                tokio::time::sleep(REMOVAL_POLL).await;
            }
            Ok(())
        };
        self.within("remove", self.timeout, gone).await
    }
}

#[async_trait::async_trait]
impl Engine for Docker {
    async fn version(&self) -> Result<Version, EngineError> {
        let version = self.call("version", "", self.api.version()).await?;
        Ok(Version { engine: version.version.unwrap_or_default(), api: version.api_version.unwrap_or_default() })
    }

    async fn network_prefix(&self, network: &NetworkSpec) -> Result<Option<u32>, EngineError> {
        network::prefix(self, &network.name).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError> {
        network::ensure(self, network).await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageId>, EngineError> {
        match self.call("image", reference, self.api.inspect_image(reference)).await {
            Ok(image) => Ok(image.id.map(ImageId)),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn image_program(&self, image: &str) -> Result<Option<ImageProgram>, EngineError> {
        match self.call("image", image, self.api.inspect_image(image)).await {
            Ok(found) => Ok(Some(image::program(found.config.unwrap_or_default()))),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, reference: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<ImageId, EngineError> {
        pull::pull(self, reference, progress).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, EngineError> {
        let body = body::container(spec, &self.instance, self.kernel)?;
        let options = query::CreateContainerOptionsBuilder::new().name(&spec.name).build();
        match self.call("create", &spec.name, self.api.create_container(Some(options), body)).await {
            Ok(made) => Ok(ContainerId(made.id)),
            // Nothing else that a creation needs can be missing.
            Err(EngineError::NotFound(_)) => Err(EngineError::NotFound(spec.image.clone())),
            Err(error) => Err(error),
        }
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call("start", &id.0, self.api.start_container(&id.0, None)).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::new().t(seconds).build();
        let stopped = async { self.api.stop_container(&id.0, Some(options)).await.map_err(|error| meaning("stop", &id.0, error)) };
        self.within("stop", grace.saturating_add(self.timeout), stopped).await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        match self.call("unpause", &id.0, self.api.unpause_container(&id.0)).await {
            // It is not frozen, which is what was asked for, if it runs.
            Err(EngineError::NotRunning) if self.state(id).await? == ContainerState::Running => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.call("remove", &id.0, self.api.remove_container(&id.0, Some(options))).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            Err(EngineError::Refused { why, .. }) if why.contains("already in progress") => self.removed(id).await,
            other => other,
        }
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        let options = query::RenameContainerOptionsBuilder::new().name(name).build();
        match self.call("rename", &id.0, self.api.rename_container(&id.0, options)).await {
            Err(EngineError::NameTaken(_)) => Err(EngineError::NameTaken(name.to_owned())),
            Err(EngineError::Refused { why, .. }) if why.contains("same name as its current name") => Ok(()),
            other => other,
        }
    }

    async fn set_limits(&self, id: &ContainerId, limits: &Limits) -> Result<(), EngineError> {
        self.call("update", &id.0, self.api.update_container(&id.0, body::update(limits))).await
    }

    async fn inspect(&self, name_or_id: &str) -> Result<Option<Container>, EngineError> {
        // Becomes part of a path.
        if !name_or_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) || name_or_id.starts_with('.') {
            return Ok(None);
        }
        let found = match self.call("inspect", name_or_id, self.api.inspect_container(name_or_id, None)).await {
            Ok(found) => found,
            Err(EngineError::NotFound(_)) => return Ok(None),
            // Docker takes the beginning of an id for an id: here it is the beginning of several, so nothing has this name.
            Err(EngineError::Refused { why, .. }) if why.contains("multiple IDs found") => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = found.name.unwrap_or_default().trim_start_matches('/').to_owned();
        let id = found.id.unwrap_or_default();
        if name != name_or_id && id != name_or_id {
            return Ok(None);
        }
        let pid = found.state.as_ref().and_then(|state| u32::try_from(state.pid?).ok()).filter(|pid| *pid > 0);
        let status = found.state.and_then(|state| state.status);
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(Some(Container {
            id: ContainerId(id),
            name,
            labels: labels.into_iter().collect(),
            state: status.map_or(ContainerState::Unusable, |status| state_of(status.as_ref())),
            image: ImageId(found.image.unwrap_or_default()),
            pid,
        }))
    }

    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{INSTANCE_LABEL}={}", self.instance)])]);
        let options = query::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found = self.call("list", "", self.api.list_containers(Some(options))).await?;
        let containers = found.into_iter().filter_map(|summary| {
            Some(Container {
                id: ContainerId(summary.id?),
                // A container in the middle of its removal may have none.
                name: summary.names?.first()?.trim_start_matches('/').to_owned(),
                labels: summary.labels.map(BTreeMap::from_iter).unwrap_or_default(),
                state: summary.state.map_or(ContainerState::Unusable, |state| state_of(state.as_ref())),
                image: ImageId(summary.image_id.unwrap_or_default()),
                pid: None,
            })
        });
        Ok(containers.collect())
    }

    async fn usage(&self, id: &ContainerId) -> Result<Usage, EngineError> {
        let options = query::StatsOptionsBuilder::new().stream(false).one_shot(true).build();
        let mut answers = Box::pin(self.api.stats(&id.0, Some(options)));
        let stats = self.call("stats", &id.0, async { answers.next().await.transpose() }).await?;
        if let Some(usage) = stats.as_ref().and_then(usage::usage) {
            return Ok(usage);
        }
        // The answer for a container that does not run is the same as for one whose counters the engine cannot read: somebody who would
        // take the second for the first would start it again.
        let found = self.call("inspect", &id.0, self.api.inspect_container(&id.0, None)).await?;
        let pid = found.state.and_then(|state| state.pid).filter(|pid| *pid > 0).ok_or(EngineError::NotRunning)?;
        cgroup::usage(pid).ok_or(EngineError::Refused { call: "stats", why: "neither the engine nor a cgroup has figures".to_owned() })
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        events::events(self.clone())
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecStream, EngineError> {
        let made = self.call("exec", &id.0, self.api.create_exec(&id.0, exec::config(spec))).await?;
        self.within("exec start", self.timeout, exec::start(&self.socket, ExecId(made.id), spec.tty)).await
    }

    async fn exec_resize(&self, exec: &ExecId, columns: u16, rows: u16) -> Result<(), EngineError> {
        let options = query::ResizeExecOptionsBuilder::new().w(columns.into()).h(rows.into()).build();
        self.call("exec resize", &exec.0, self.api.resize_exec(&exec.0, options)).await
    }

    async fn exec_state(&self, exec: &ExecId) -> Result<ExecState, EngineError> {
        let found = self.call("exec inspect", &exec.0, self.api.inspect_exec(&exec.0)).await?;
        Ok(match (found.running, found.exit_code) {
            (Some(false), Some(status)) => ExecState::Exited(status),
            _ => ExecState::Running,
        })
    }

    async fn remove_everything(&self) -> Result<(), EngineError> {
        let removals = self.list().await?.into_iter().map(|container| async move { self.remove(&container.id).await });
        let results: Vec<_> = stream::iter(removals).buffer_unordered(REMOVALS).collect().await;
        results.into_iter().collect::<Result<(), _>>()?;
        network::remove_all(self).await
    }
}

/// A state as either of Docker's two ways to describe a container spells it.
fn state_of(word: &str) -> ContainerState {
    match word {
        "created" => ContainerState::Created,
        "running" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "exited" => ContainerState::Exited,
        // Restarting, removing, dead, or a word of a later engine.
        _ => ContainerState::Unusable,
    }
}

#[cfg(test)]
#[path = "../../../tests/common/engine.rs"]
mod real;

#[cfg(test)]
mod tests {
    use super::real::TestInstance;
    use super::*;
    use crate::engine::contract::Subject;

    fn docker(instance: &TestInstance) -> Docker {
        Docker::connect(&Config::default(), &instance.0.parse().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn docker_keeps_the_promises() {
        let (one, other) = (TestInstance::new("contract"), TestInstance::new("other"));
        let subject = Subject { one: docker(&one), other: docker(&other), image: real::image("busybox"), prefix: one.0.clone() };
        subject.holds().await;
    }

    #[tokio::test]
    async fn an_image_says_what_its_program_is() {
        let instance = TestInstance::new("program");
        let tag = format!("innkeeper-test/program:{}", instance.0);
        let says = ["ENTRYPOINT [\"/run\"]", "CMD [\"-v\"]", "WORKDIR /srv", "HEALTHCHECK --interval=7s --retries=2 CMD ask me"];
        let changes: Vec<String> = says.iter().map(|line| format!("-c '{line}'")).collect();
        // Two empty blocks are an archive of nothing.
        let import = format!("head -c 1024 /dev/zero | docker import {} - {tag}", changes.join(" "));
        let made = std::process::Command::new("sh").args(["-c", &import]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let program = docker(&instance).image_program(&tag).await;
        real::docker(&["image", "rm", &tag]);
        let program = program.unwrap().unwrap();
        assert_eq!((program.command.join(" ").as_str(), program.directory.as_str()), ("/run -v", "/srv"));
        let check = program.check.unwrap();
        assert_eq!(check.command, ["/bin/sh", "-c", "ask me"]);
        assert_eq!((check.every, check.retries, check.timeout), (Some(Duration::from_secs(7)), Some(2), None));
    }

    #[tokio::test]
    async fn no_daemon_is_unreachable_and_not_needed_to_begin() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { socket: dir.path().join("docker.sock"), ..Config::default() };
        let docker = Docker::connect(&config, &"test".parse().unwrap()).unwrap();
        assert!(matches!(docker.version().await, Err(EngineError::Unreachable(_))));
        let _silent = tokio::net::UnixListener::bind(&config.socket).unwrap();
        let config = Config { timeout: crate::units::Span::millis(50), ..config };
        let docker = Docker::connect(&config, &"test".parse().unwrap()).unwrap();
        assert!(matches!(docker.version().await, Err(EngineError::TimedOut("version"))));
    }
}
