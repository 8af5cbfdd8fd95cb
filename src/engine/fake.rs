//! An engine in memory, for tests of decisions: it keeps the promises of [`Engine`] (`contract.rs` holds it to them, and Docker too),
//! and does what no real engine does on request: fail, dawdle, count, forget.
//!
//! It runs nothing: a container is an entry with a state, and an exec is refused, echoes or recites, as the test says.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;

use super::{
    Container, ContainerId, ContainerSpec, ContainerState, Engine, EngineError, Event, EventKind, ExecId, ExecSpec, ExecState, ExecStream,
    INSTANCE_LABEL, ImageId, ImageProgram, Limits, NetworkSpec, Usage, Version,
};
use crate::name::InstanceName;

/// A handle on one instance's view of an engine in memory. Clones share everything.
#[derive(Clone)]
pub(crate) struct FakeEngine {
    instance: InstanceName,
    world: Arc<World>,
}

/// The calls that can be counted, failed and delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Version,
    EnsureNetwork,
    Image,
    ImageProgram,
    Pull,
    Create,
    Start,
    Stop,
    Unpause,
    Remove,
    Rename,
    SetLimits,
    Inspect,
    List,
    Usage,
    Exec,
    ExecResize,
    ExecState,
    RemoveEverything,
}

/// What an exec does.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// The engine refuses it.
    Refuse,
    /// What goes in comes out; ends with status 0 when the input ends.
    Echo,
    /// Says this on standard output and ends with this status; reads nothing.
    Recite(Vec<u8>, i64),
}

struct World {
    state: Mutex<State>,
    events: broadcast::Sender<(InstanceName, Event)>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<ContainerId, Entry>,
    networks: BTreeMap<String, InstanceName>,
    images: HashMap<String, ImageId>,
    pullable: HashMap<String, ImageId>,
    programs: HashMap<ImageId, ImageProgram>,
    execs: HashMap<ExecId, ExecState>,
    script: Option<Script>,
    calls: HashMap<Call, usize>,
    delays: HashMap<Call, Duration>,
    faults: HashMap<Call, Fault>,
}

struct Entry {
    instance: InstanceName,
    container: Container,
    spec: ContainerSpec,
    usage: Usage,
}

#[derive(Clone)]
struct Fault {
    error: EngineError,
    /// How many more calls it strikes; `None`: all until it is mended.
    times: Option<usize>,
    /// The call takes effect and only its answer is lost.
    after_effect: bool,
}

impl FakeEngine {
    /// The image that every fake engine has.
    pub(crate) const IMAGE: &str = "innkeeper-test/fake:latest";

    /// A new engine with one image, [`FakeEngine::IMAGE`], and no containers, seen by the instance `test`.
    pub(crate) fn new() -> Self {
        let (events, _) = broadcast::channel(1024);
        let world = World { state: Mutex::default(), events, next_id: AtomicU64::new(1) };
        let fake = Self { instance: "test".parse().unwrap(), world: Arc::new(world) };
        fake.put_image(Self::IMAGE, "sha256:1");
        fake
    }

    /// The same engine as another instance sees it.
    pub(crate) fn as_instance(&self, name: &str) -> Self {
        Self { instance: name.parse().unwrap(), world: self.world.clone() }
    }

    /// Makes an image be there, or be another one under the same reference.
    pub(crate) fn put_image(&self, reference: &str, id: &str) {
        self.world.state.lock().images.insert(reference.to_owned(), ImageId(id.to_owned()));
    }

    /// Says what [`Engine::image_program`] answers for an image.
    pub(crate) fn put_program(&self, id: &str, program: ImageProgram) {
        self.world.state.lock().programs.insert(ImageId(id.to_owned()), program);
    }

    /// Makes an image available to [`Engine::pull`] only.
    pub(crate) fn put_pullable(&self, reference: &str, id: &str) {
        self.world.state.lock().pullable.insert(reference.to_owned(), ImageId(id.to_owned()));
    }

    /// What execs do from now on; they are refused until this is said.
    pub(crate) fn script(&self, script: Script) {
        self.world.state.lock().script = Some(script);
    }

    /// Every such call fails, without effect, until [`FakeEngine::mend`].
    pub(crate) fn fail(&self, call: Call, error: EngineError) {
        self.put_fault(call, Fault { error, times: None, after_effect: false });
    }

    /// The next such call fails, without effect.
    pub(crate) fn fail_once(&self, call: Call, error: EngineError) {
        self.put_fault(call, Fault { error, times: Some(1), after_effect: false });
    }

    /// The next such call takes effect, but its caller is told that it failed: an answer lost on the way.
    pub(crate) fn fail_once_after_effect(&self, call: Call, error: EngineError) {
        self.put_fault(call, Fault { error, times: Some(1), after_effect: true });
    }

    /// Such calls work again.
    pub(crate) fn mend(&self, call: Call) {
        self.world.state.lock().faults.remove(&call);
    }

    /// Every such call takes this long, in tokio's time, before it has its effect.
    pub(crate) fn delay(&self, call: Call, by: Duration) {
        self.world.state.lock().delays.insert(call, by);
    }

    /// How many such calls were made, by whichever instance, whatever came of them.
    pub(crate) fn calls(&self, call: Call) -> usize {
        self.world.state.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// What a container was made from, with its limits as they are now.
    pub(crate) fn spec(&self, id: &ContainerId) -> Option<ContainerSpec> {
        self.world.state.lock().containers.get(id).map(|entry| entry.spec.clone())
    }

    /// The names and states of the instance's containers, in order of the names.
    pub(crate) fn states(&self) -> BTreeMap<String, ContainerState> {
        let state = self.world.state.lock();
        let own = state.containers.values().filter(|entry| entry.instance == self.instance);
        own.map(|entry| (entry.container.name.clone(), entry.container.state)).collect()
    }

    /// Says what [`Engine::usage`] answers for a container.
    pub(crate) fn set_usage(&self, id: &ContainerId, usage: Usage) {
        if let Some(entry) = self.world.state.lock().containers.get_mut(id) {
            entry.usage = usage;
        }
    }

    /// Somebody else killed it, or it ended by itself.
    pub(crate) fn die(&self, id: &ContainerId) {
        self.become_state(id, ContainerState::Exited);
    }

    /// Somebody else froze it.
    pub(crate) fn pause(&self, id: &ContainerId) {
        self.become_state(id, ContainerState::Paused);
    }

    /// Somebody else removed it.
    pub(crate) fn vanish(&self, id: &ContainerId) {
        let removed = self.world.state.lock().containers.remove(id);
        if let Some(entry) = removed {
            if matches!(entry.container.state, ContainerState::Running | ContainerState::Paused) {
                self.tell(&entry.instance, id, EventKind::Died);
            }
            self.tell(&entry.instance, id, EventKind::Removed);
        }
    }

    /// The stream of events breaks and comes back.
    pub(crate) fn gap(&self) {
        self.tell(&self.instance, &ContainerId(String::new()), EventKind::Gap);
    }

    fn put_fault(&self, call: Call, fault: Fault) {
        self.world.state.lock().faults.insert(call, fault);
    }

    fn tell(&self, instance: &InstanceName, id: &ContainerId, kind: EventKind) {
        let _ = self.world.events.send((instance.clone(), Event { id: id.clone(), kind }));
    }

    /// Puts a container into a state and tells, if it was in another.
    fn become_state(&self, id: &ContainerId, to: ContainerState) {
        let told = {
            let mut state = self.world.state.lock();
            let Some(entry) = state.containers.get_mut(id) else { return };
            let from = std::mem::replace(&mut entry.container.state, to);
            let kind = match (from, to) {
                (ContainerState::Paused, ContainerState::Running) => Some(EventKind::Unpaused),
                (from, to) if from == to => None,
                (_, ContainerState::Running) => Some(EventKind::Started),
                (_, ContainerState::Paused) => Some(EventKind::Paused),
                (_, ContainerState::Exited) => Some(EventKind::Died),
                (_, ContainerState::Created | ContainerState::Unusable) => None,
            };
            kind.map(|kind| (entry.instance.clone(), kind))
        };
        if let Some((instance, kind)) = told {
            self.tell(&instance, id, kind);
        }
    }

    fn state_of(&self, id: &ContainerId) -> Result<ContainerState, EngineError> {
        let state = self.world.state.lock();
        state.containers.get(id).map(|entry| entry.container.state).ok_or_else(|| EngineError::NotFound(id.0.clone()))
    }

    /// Counts, waits and fails as told, around `effect`.
    async fn call<T>(&self, call: Call, effect: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
        let (delay, fault) = {
            let mut state = self.world.state.lock();
            *state.calls.entry(call).or_default() += 1;
            let fault = state.faults.get(&call).cloned();
            if let Some(fault) = state.faults.get_mut(&call)
                && let Some(times) = &mut fault.times
            {
                *times -= 1;
                if *times == 0 {
                    state.faults.remove(&call);
                }
            }
            (state.delays.get(&call).copied(), fault)
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        match fault {
            None => effect(),
            Some(fault) => {
                if fault.after_effect {
                    let _ = effect();
                }
                Err(fault.error)
            }
        }
    }

    fn new_id(&self) -> String {
        format!("{:064x}", self.world.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn start_exec(&self, spec: &ExecSpec, script: Script) -> ExecStream {
        let id = ExecId(self.new_id());
        self.world.state.lock().execs.insert(id.clone(), ExecState::Running);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (output, input) = tokio::io::split(ours);
        let (world, exec, framed) = (self.world.clone(), id.clone(), !spec.tty);
        tokio::spawn(async move {
            let (mut from, mut to) = tokio::io::split(theirs);
            let status = match script {
                Script::Recite(text, status) => {
                    let _ = to.write_all(&frame(framed, &text)).await;
                    status
                }
                Script::Echo | Script::Refuse => {
                    let mut buffer = vec![0; 4096];
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        if to.write_all(&frame(framed, &buffer[..n])).await.is_err() {
                            break;
                        }
                    }
                    0
                }
            };
            world.state.lock().execs.insert(exec, ExecState::Exited(status));
            let _ = to.shutdown().await;
        });
        ExecStream { id, output: Box::pin(output), input: Box::pin(input) }
    }
}

/// A running container in it, for a test that is not about containers.
pub(crate) async fn small_container(fake: &FakeEngine) -> ContainerId {
    let id = fake.create(&small_spec("small")).await.unwrap();
    fake.start(&id).await.unwrap();
    id
}

/// A specification that a fake engine takes.
pub(crate) fn small_spec(name: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        hostname: "box".to_owned(),
        image: FakeEngine::IMAGE.to_owned(),
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        limits: Limits { cpus: 1.0, memory: crate::units::Size::mib(64), pids: 32, open_files: 256 },
        mounts: Vec::new(),
        network: Some("net".to_owned()),
        init: None,
    }
}

/// The engine's frame of standard output around some bytes.
fn frame(framed: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 8);
    if framed {
        out.extend([1, 0, 0, 0]);
        out.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    }
    out.extend(bytes);
    out
}

#[async_trait::async_trait]
impl Engine for FakeEngine {
    async fn version(&self) -> Result<Version, EngineError> {
        self.call(Call::Version, || Ok(Version { engine: "0.0.0".to_owned(), api: "1.41".to_owned() })).await
    }

    async fn ensure_network(&self, network: &NetworkSpec) -> Result<(), EngineError> {
        self.call(Call::EnsureNetwork, || {
            self.world.state.lock().networks.entry(network.name.clone()).or_insert_with(|| self.instance.clone());
            Ok(())
        })
        .await
    }

    async fn image(&self, reference: &str) -> Result<Option<ImageId>, EngineError> {
        self.call(Call::Image, || Ok(self.world.state.lock().images.get(reference).cloned())).await
    }

    async fn image_program(&self, image: &str) -> Result<Option<ImageProgram>, EngineError> {
        self.call(Call::ImageProgram, || {
            let state = self.world.state.lock();
            let id = state.images.get(image).or_else(|| state.images.values().find(|id| id.0 == image));
            let plain = || ImageProgram { command: Vec::new(), directory: "/".to_owned(), check: None };
            Ok(id.map(|id| state.programs.get(id).cloned().unwrap_or_else(plain)))
        })
        .await
    }

    async fn pull(&self, reference: &str, progress: &(dyn Fn(String) + Send + Sync)) -> Result<ImageId, EngineError> {
        progress(format!("pulling {reference}"));
        self.call(Call::Pull, || {
            let mut state = self.world.state.lock();
            let Some(id) = state.pullable.get(reference).cloned() else {
                return Err(EngineError::Image { image: reference.to_owned(), why: "not found".to_owned() });
            };
            state.images.insert(reference.to_owned(), id.clone());
            Ok(id)
        })
        .await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, EngineError> {
        self.call(Call::Create, || {
            let id = ContainerId(self.new_id());
            let mut state = self.world.state.lock();
            let Some(image) = state.images.get(&spec.image).cloned() else {
                return Err(EngineError::NotFound(spec.image.clone()));
            };
            if state.containers.values().any(|entry| entry.container.name == spec.name) {
                return Err(EngineError::NameTaken(spec.name.clone()));
            }
            let mut labels = spec.labels.clone();
            labels.insert(INSTANCE_LABEL.to_owned(), self.instance.to_string());
            let container = Container { id: id.clone(), name: spec.name.clone(), labels, state: ContainerState::Created, image, pid: None };
            let entry = Entry { instance: self.instance.clone(), container, spec: spec.clone(), usage: Usage::default() };
            state.containers.insert(id.clone(), entry);
            Ok(id)
        })
        .await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call(Call::Start, || match self.state_of(id)? {
            ContainerState::Running => Ok(()),
            ContainerState::Created | ContainerState::Exited => {
                self.become_state(id, ContainerState::Running);
                Ok(())
            }
            ContainerState::Paused | ContainerState::Unusable => {
                Err(EngineError::Refused { call: "start", why: "not in a state to be started".to_owned() })
            }
        })
        .await
    }

    async fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<(), EngineError> {
        self.call(Call::Stop, || {
            if matches!(self.state_of(id)?, ContainerState::Running | ContainerState::Paused) {
                self.become_state(id, ContainerState::Exited);
            }
            Ok(())
        })
        .await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call(Call::Unpause, || match self.state_of(id)? {
            ContainerState::Running => Ok(()),
            ContainerState::Paused => {
                self.become_state(id, ContainerState::Running);
                Ok(())
            }
            ContainerState::Created | ContainerState::Exited | ContainerState::Unusable => Err(EngineError::NotRunning),
        })
        .await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.call(Call::Remove, || {
            self.vanish(id);
            Ok(())
        })
        .await
    }

    async fn rename(&self, id: &ContainerId, name: &str) -> Result<(), EngineError> {
        self.call(Call::Rename, || {
            let mut state = self.world.state.lock();
            if state.containers.values().any(|entry| entry.container.name == name && entry.container.id != *id) {
                return Err(EngineError::NameTaken(name.to_owned()));
            }
            let entry = state.containers.get_mut(id).ok_or_else(|| EngineError::NotFound(id.0.clone()))?;
            entry.container.name = name.to_owned();
            Ok(())
        })
        .await
    }

    async fn set_limits(&self, id: &ContainerId, limits: &Limits) -> Result<(), EngineError> {
        self.call(Call::SetLimits, || {
            let mut state = self.world.state.lock();
            let entry = state.containers.get_mut(id).ok_or_else(|| EngineError::NotFound(id.0.clone()))?;
            entry.spec.limits = *limits;
            Ok(())
        })
        .await
    }

    async fn inspect(&self, name_or_id: &str) -> Result<Option<Container>, EngineError> {
        self.call(Call::Inspect, || {
            let state = self.world.state.lock();
            let mut all = state.containers.values().map(|entry| &entry.container);
            Ok(all.find(|container| container.name == name_or_id || container.id.0 == name_or_id).cloned())
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        self.call(Call::List, || {
            let state = self.world.state.lock();
            let own = state.containers.values().filter(|entry| entry.instance == self.instance);
            Ok(own.map(|entry| entry.container.clone()).collect())
        })
        .await
    }

    async fn usage(&self, id: &ContainerId) -> Result<Usage, EngineError> {
        self.call(Call::Usage, || {
            let state = self.world.state.lock();
            let entry = state.containers.get(id).ok_or_else(|| EngineError::NotFound(id.0.clone()))?;
            match entry.container.state {
                ContainerState::Running | ContainerState::Paused => Ok(entry.usage),
                ContainerState::Created | ContainerState::Exited | ContainerState::Unusable => Err(EngineError::NotRunning),
            }
        })
        .await
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        let receiver = self.world.events.subscribe();
        let instance = self.instance.clone();
        Box::pin(stream::unfold((receiver, instance), |(mut receiver, instance)| async move {
            loop {
                let event = match receiver.recv().await {
                    Ok((whose, event)) if whose == instance => event,
                    Ok(_) => continue,
                    Err(broadcast::error::RecvError::Lagged(_)) => Event { id: ContainerId(String::new()), kind: EventKind::Gap },
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                };
                return Some((event, (receiver, instance)));
            }
        }))
    }

    async fn exec(&self, id: &ContainerId, spec: &ExecSpec) -> Result<ExecStream, EngineError> {
        self.call(Call::Exec, || {
            if self.state_of(id)? != ContainerState::Running {
                return Err(EngineError::NotRunning);
            }
            let script = self.world.state.lock().script.clone();
            match script {
                None | Some(Script::Refuse) => Err(EngineError::Refused { call: "exec", why: "the test said so".to_owned() }),
                Some(script) => Ok(self.start_exec(spec, script)),
            }
        })
        .await
    }

    async fn exec_resize(&self, exec: &ExecId, _columns: u16, _rows: u16) -> Result<(), EngineError> {
        self.call(Call::ExecResize, || match self.world.state.lock().execs.get(exec) {
            None => Err(EngineError::NotFound(exec.0.clone())),
            Some(ExecState::Exited(_)) => Err(EngineError::NotRunning),
            Some(ExecState::Running) => Ok(()),
        })
        .await
    }

    async fn exec_state(&self, exec: &ExecId) -> Result<ExecState, EngineError> {
        self.call(Call::ExecState, || {
            let state = self.world.state.lock();
            state.execs.get(exec).copied().ok_or_else(|| EngineError::NotFound(exec.0.clone()))
        })
        .await
    }

    async fn remove_everything(&self) -> Result<(), EngineError> {
        self.call(Call::RemoveEverything, || {
            let own: Vec<ContainerId> = {
                let state = self.world.state.lock();
                state.containers.values().filter(|entry| entry.instance == self.instance).map(|entry| entry.container.id.clone()).collect()
            };
            own.iter().for_each(|id| self.vanish(id));
            self.world.state.lock().networks.retain(|_, owner| *owner != self.instance);
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> EngineError {
        EngineError::Unreachable("the test said so".to_owned())
    }

    #[tokio::test]
    async fn an_answer_can_be_lost_after_its_effect() {
        let fake = FakeEngine::new();
        fake.fail_once_after_effect(Call::Create, lost());
        assert!(matches!(fake.create(&small_spec("a")).await, Err(EngineError::Unreachable(_))));
        assert!(matches!(fake.create(&small_spec("a")).await, Err(EngineError::NameTaken(_))));
        fake.fail(Call::Create, lost());
        assert!(fake.create(&small_spec("b")).await.is_err() && fake.create(&small_spec("b")).await.is_err());
        fake.mend(Call::Create);
        fake.create(&small_spec("b")).await.unwrap();
        assert_eq!(fake.calls(Call::Create), 5);
        assert_eq!(fake.states().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_dropped_while_it_dawdles_has_no_effect() {
        let fake = FakeEngine::new();
        fake.delay(Call::Create, Duration::from_secs(5));
        assert!(tokio::time::timeout(Duration::from_secs(1), fake.create(&small_spec("a"))).await.is_err());
        assert!(fake.states().is_empty());
    }

    #[tokio::test]
    async fn an_exec_echoes_until_its_input_ends() {
        let fake = FakeEngine::new();
        let id = small_container(&fake).await;
        fake.script(Script::Echo);
        let exec = ExecSpec { argv: Vec::new(), env: Vec::new(), tty: true, user: (1000, 1000), working_dir: None };
        let ExecStream { id: exec_id, mut output, mut input } = fake.exec(&id, &exec).await.unwrap();
        input.write_all(b"hello").await.unwrap();
        input.shutdown().await.unwrap();
        let mut heard = Vec::new();
        output.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        assert_eq!(fake.exec_state(&exec_id).await.unwrap(), ExecState::Exited(0));
    }
}
