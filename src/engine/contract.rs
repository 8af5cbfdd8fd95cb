//! What every [`Engine`] promises, as tests: run against the fake here, and against Docker in `docker/mod.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;

use super::fake::FakeEngine;
use super::{ContainerId, ContainerSpec, ContainerState, Engine, EngineError, EventKind, INSTANCE_LABEL, Limits, NetworkSpec};
use crate::units::Size;

/// Two instances that share an engine, and an image that it has.
pub(super) struct Subject<E> {
    pub(super) one: E,
    pub(super) other: E,
    pub(super) image: String,
    /// In every name, so that tests may run side by side on one real engine.
    pub(super) prefix: String,
}

const GRACE: Duration = Duration::from_secs(5);
const EVENT_DEADLINE: Duration = Duration::from_secs(20);

impl<E: Engine> Subject<E> {
    /// A small container of this name.
    pub(super) fn spec(&self, name: &str) -> ContainerSpec {
        ContainerSpec {
            name: format!("{}-{name}", self.prefix),
            hostname: "box".to_owned(),
            image: self.image.clone(),
            labels: BTreeMap::from([("innkeeper.role".to_owned(), name.to_owned())]),
            env: BTreeMap::new(),
            limits: Limits { cpus: 0.5, memory: Size::mib(64), pids: 32, open_files: 256 },
            mounts: Vec::new(),
            network: Some(self.network().name),
            init: None,
        }
    }

    pub(super) fn network(&self) -> NetworkSpec {
        NetworkSpec { name: format!("{}-net", self.prefix) }
    }

    /// All of it, in one go: a real engine takes seconds for each container.
    pub(super) async fn holds(&self) {
        self.one.version().await.unwrap();
        self.networks_and_images().await;
        self.names_are_locks().await;
        self.life_and_its_events().await;
        self.what_is_not_there().await;
        self.instances_keep_apart().await;
    }

    async fn networks_and_images(&self) {
        let network = self.network();
        let (a, b) = tokio::join!(self.one.ensure_network(&network), self.one.ensure_network(&network));
        a.and(b).expect("two at once make one network");
        let id = self.one.image(&self.image).await.unwrap().expect("an image");
        assert!(self.one.image("innkeeper-test/absent:latest").await.unwrap().is_none());
        let program = self.one.image_program(&self.image).await.unwrap().expect("an image");
        assert_eq!((program.directory.as_str(), &program.check), ("/", &None));
        assert_eq!(self.one.image_program(&id.0).await.unwrap(), Some(program), "by its id as well");
        assert!(self.one.image_program("innkeeper-test/absent:latest").await.unwrap().is_none());
    }

    async fn names_are_locks(&self) {
        let spec = self.spec("lock");
        let results = futures_util::future::join_all((0..5).map(|_| self.one.create(&spec))).await;
        let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1);
        assert!(refused.iter().all(|result| matches!(result, Err(EngineError::NameTaken(name)) if *name == spec.name)), "{refused:?}");
        let first = made.into_iter().next().unwrap().unwrap();

        let second = self.one.create(&self.spec("second")).await.unwrap();
        assert!(matches!(self.one.rename(&second, &spec.name).await, Err(EngineError::NameTaken(_))));
        let renamed = format!("{}-renamed", self.prefix);
        self.one.rename(&second, &renamed).await.unwrap();
        self.one.rename(&second, &renamed).await.expect("to the name it has");
        assert_eq!(self.one.inspect(&renamed).await.unwrap().unwrap().id, second);
        assert!(self.one.inspect(&self.spec("second").name).await.unwrap().is_none(), "the old name is free");

        self.one.remove(&first).await.unwrap();
        self.one.rename(&second, &spec.name).await.expect("a removed container's name is free");
        self.one.remove(&second).await.unwrap();
    }

    async fn life_and_its_events(&self) {
        let mut events = self.one.events();
        // A stream that subscribes lazily is subscribed once it says something: a first container is made to make it talk.
        let id = self.one.create(&self.spec("life")).await.unwrap();
        let found = self.one.inspect(&id.0).await.unwrap().unwrap();
        assert_eq!((found.state, found.name), (ContainerState::Created, self.spec("life").name));
        assert!(found.labels.contains_key(INSTANCE_LABEL));
        assert_eq!(found.labels["innkeeper.role"], "life");
        assert_eq!(Some(found.image), self.one.image(&self.image).await.unwrap());
        assert!(matches!(self.one.usage(&id).await, Err(EngineError::NotRunning)));

        let mut next = async |what: EventKind| {
            let wait = async { while events.next().await.unwrap() != (super::Event { id: id.clone(), kind: what }) {} };
            tokio::time::timeout(EVENT_DEADLINE, wait).await.unwrap_or_else(|_| panic!("no {what:?} was told"));
        };
        let (_, started) = tokio::join!(next(EventKind::Started), async { self.one.start(&id).await });
        started.unwrap();
        self.one.start(&id).await.expect("already started");
        self.one.unpause(&id).await.expect("not frozen");
        assert_eq!(self.state(&id).await, ContainerState::Running);
        self.one.usage(&id).await.unwrap();
        let more = Limits { cpus: 0.25, memory: Size::mib(96), pids: 48, open_files: 256 };
        self.one.set_limits(&id, &more).await.unwrap();

        self.one.stop(&id, GRACE).await.unwrap();
        next(EventKind::Died).await;
        self.one.stop(&id, GRACE).await.expect("already stopped");
        assert_eq!(self.state(&id).await, ContainerState::Exited);
        assert!(matches!(self.one.unpause(&id).await, Err(EngineError::NotRunning)));

        self.one.start(&id).await.expect("starts again");
        next(EventKind::Started).await;
        self.one.remove(&id).await.expect("while it runs");
        next(EventKind::Removed).await;
        self.one.remove(&id).await.expect("already removed");
    }

    async fn what_is_not_there(&self) {
        let id = ContainerId("0".repeat(64));
        let limits = self.spec("x").limits;
        assert!(self.one.inspect(&id.0).await.unwrap().is_none());
        assert!(matches!(self.one.start(&id).await, Err(EngineError::NotFound(_))));
        assert!(matches!(self.one.stop(&id, GRACE).await, Err(EngineError::NotFound(_))));
        assert!(matches!(self.one.rename(&id, &self.spec("x").name).await, Err(EngineError::NotFound(_))));
        assert!(matches!(self.one.set_limits(&id, &limits).await, Err(EngineError::NotFound(_))));
        assert!(matches!(self.one.usage(&id).await, Err(EngineError::NotFound(_))));
        let no_image = ContainerSpec { image: "innkeeper-test/absent:latest".to_owned(), ..self.spec("x") };
        assert!(matches!(self.one.create(&no_image).await, Err(EngineError::NotFound(_))));
    }

    async fn instances_keep_apart(&self) {
        let mine = self.one.create(&self.spec("mine")).await.unwrap();
        let theirs = self.other.create(&self.spec("theirs")).await.unwrap();
        let seen = |list: Vec<super::Container>| list.into_iter().map(|container| container.id).collect::<Vec<_>>();
        assert_eq!(seen(self.one.list().await.unwrap()), std::slice::from_ref(&mine));
        assert_eq!(seen(self.other.list().await.unwrap()), std::slice::from_ref(&theirs));
        assert!(matches!(self.other.create(&self.spec("mine")).await, Err(EngineError::NameTaken(_))), "names are one space");

        self.one.remove_everything().await.unwrap();
        assert!(self.one.inspect(&mine.0).await.unwrap().is_none());
        assert!(self.other.inspect(&theirs.0).await.unwrap().is_some());
        self.other.remove_everything().await.unwrap();
        assert!(self.other.list().await.unwrap().is_empty());
    }

    async fn state(&self, id: &ContainerId) -> ContainerState {
        self.one.inspect(&id.0).await.unwrap().unwrap().state
    }
}

#[tokio::test]
async fn the_fake_keeps_the_promises() {
    let one = FakeEngine::new();
    let other = one.as_instance("other");
    Subject { one, other, image: FakeEngine::IMAGE.to_owned(), prefix: "fake".to_owned() }.holds().await;
}
