//! What a container is told to run beside sessions, and what is known of it.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use super::*;
use crate::attach::{self, Duplex, ServiceState};
use crate::engine::{ImageCheck, ImageProgram};

/// Containers with an init that takes everything in, or fails as it is told. Clones share everything.
#[derive(Clone, Default)]
pub(super) struct FakeInit {
    inits: Arc<Mutex<Inits>>,
    /// Until when something in each container asks for it to be kept running; `None`: nothing does.
    pub(super) kept_until: Arc<Mutex<Option<Instant>>>,
}

#[derive(Default)]
struct Inits {
    told: Vec<(ContainerId, Vec<attach::Service>)>,
    /// How many more times nobody answers.
    silent: usize,
    says: HashMap<ContainerId, Vec<ServiceState>>,
}

#[async_trait::async_trait]
impl Attach for FakeInit {
    async fn open(&self, _: &ContainerId, _: &ProcessSpec) -> Result<Process, AttachError> {
        Err(AttachError::Unsupported("a test"))
    }

    fn can_be_kept(&self, _: &ContainerId) -> bool {
        true
    }

    fn kept(&self, _: &ContainerId) -> Option<Duration> {
        self.kept_until.lock().map(|until| until.saturating_duration_since(Instant::now()))
    }

    async fn serve(&self, container: &ContainerId, services: Vec<attach::Service>) -> Result<(), AttachError> {
        let silent = {
            let mut inits = self.inits.lock();
            let silent = inits.silent > 0;
            inits.silent = inits.silent.saturating_sub(1);
            if !silent {
                inits.told.push((container.clone(), services));
            }
            silent
        };
        if silent { std::future::pending().await } else { Ok(()) }
    }

    async fn logs(&self, _: &ContainerId, service: Option<&str>, _: bool) -> Result<Box<dyn Duplex>, AttachError> {
        match service {
            Some("gone") => Err(AttachError::Failed { why: attach::Failure::NotFound, text: "no such service".to_owned() }),
            _ => Ok(Box::new(std::io::Cursor::new(b"said\n".to_vec()))),
        }
    }

    fn services(&self, container: &ContainerId) -> Vec<ServiceState> {
        self.inits.lock().says.get(container).cloned().unwrap_or_default()
    }
}

impl FakeInit {
    /// What was told since the last call: the workspace's containers and the names of their services.
    fn told(&self) -> Vec<(ContainerId, Vec<String>)> {
        let told = std::mem::take(&mut self.inits.lock().told);
        told.into_iter().map(|(id, services)| (id, services.into_iter().map(|service| service.name).collect())).collect()
    }

    pub(super) fn says(&self, container: &ContainerId, name: &str, ready: Option<bool>, restarts: u32) {
        let state = ServiceState { name: name.to_owned(), running: true, ready, restarts, exit: None };
        let mut inits = self.inits.lock();
        let states = inits.says.entry(container.clone()).or_default();
        states.retain(|known| known.name != name);
        states.push(state);
    }
}

/// The default template with services of these names.
pub(super) fn serving(rules: &mut Rules, names: &[&str]) {
    let service = |name: &&str| Service { name: name.parse().unwrap(), command: vec!["serve".to_owned()], ..Service::default() };
    rules.templates.get_mut(&TemplateName::default()).unwrap().service = names.iter().map(service).collect();
}

fn id(stay: &Stay) -> ContainerId {
    ContainerId(stay.container.clone())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_container_is_told_its_services_each_time_it_comes_up() {
    let mut world = World::new(|rules| serving(rules, &["web", "db"]));
    let stay = world.enter("alice").await.unwrap();
    settle().await;
    assert_eq!(
        world.init.inits.lock().told[0].1[0].env,
        [attach::Variable { name: "INNKEEPER_WORKSPACE".to_owned(), value: "alice".to_owned() }]
    );
    let container = id(&stay);
    assert_eq!(world.init.told(), [(container.clone(), names(&["web", "db"]))], "made");
    drop(stay);
    drop(world.enter("alice").await.unwrap());
    settle().await;
    assert_eq!(world.init.told(), [], "it runs on");
    world.engine.die(&container);
    settle().await;
    drop(world.enter("alice").await.unwrap());
    settle().await;
    assert_eq!(world.init.told(), [(container.clone(), names(&["web", "db"]))], "started");
    world.kill_and_restart(|rules| serving(rules, &["web"])).await;
    assert_eq!(world.init.told(), [(container, names(&["web"]))], "found again");
}

#[tokio::test(start_paused = true)]
async fn a_container_of_the_pool_is_told_when_it_is_somebodys() {
    let world = World::new(|rules| {
        rules.pool.size = 1;
        serving(rules, &["web"]);
    });
    settle().await;
    assert_eq!((world.pool(), world.init.told()), (1, Vec::new()));
    let stay = world.enter("alice").await.unwrap();
    settle().await;
    assert_eq!((stay.path, world.init.told()), (StartPath::Claim, vec![(id(&stay), names(&["web"]))]));
}

#[tokio::test(start_paused = true)]
async fn an_init_that_does_not_answer_is_told_again_and_keeps_nobody_out() {
    let world = World::new(|rules| serving(rules, &["web"]));
    world.init.inits.lock().silent = 3;
    let stay = timeout(Duration::from_secs(1), world.enter("alice")).await.expect("at once").unwrap();
    sleep(Duration::from_secs(70)).await;
    assert_eq!(world.init.told(), [(id(&stay), names(&["web"]))]);
    assert_eq!(world.metrics().service_failures.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn telling_ends_with_the_container() {
    let world = World::new(|rules| serving(rules, &["web"]));
    world.init.inits.lock().silent = usize::MAX;
    let stay = world.enter("alice").await.unwrap();
    settle().await;
    world.engine.vanish(&id(&stay));
    settle().await;
    let failures = world.metrics().service_failures.get();
    world.init.inits.lock().silent = 0;
    sleep(Duration::from_secs(300)).await;
    assert_eq!((world.init.told(), world.metrics().service_failures.get()), (Vec::new(), failures));
}

#[tokio::test(start_paused = true)]
async fn a_reload_tells_what_is_different() {
    let world = World::new(|_| ());
    let stay = world.enter("alice").await.unwrap();
    settle().await;
    assert_eq!(world.init.told(), [], "nothing to tell");
    let mut changed = rules();
    for services in [&["web"][..], &["web"], &[]] {
        serving(&mut changed, services);
        world.directory.reload(changed.clone());
        settle().await;
    }
    assert_eq!(world.init.told(), [(id(&stay), names(&["web"])), (id(&stay), names(&[]))]);
}

#[tokio::test(start_paused = true)]
async fn the_template_is_the_one_that_the_container_was_made_from() {
    let with_other = |rules: &mut Rules| {
        let mut other = rules.templates[&TemplateName::default()].clone();
        other.service = vec![Service { image: true, ready: Some(Readiness { image: true, ..Readiness::default() }), ..Service::default() }];
        rules.templates.insert("other".parse().unwrap(), other);
    };
    let mut world = World::new(with_other);
    let check = ImageCheck { command: names(&["ask"]), ..ImageCheck::default() };
    let program = ImageProgram { command: names(&["httpd", "-f"]), directory: "/srv".to_owned(), check: Some(check) };
    world.engine.put_program("sha256:1", program);
    let wants_other = Grant { template: Some("other".parse().unwrap()), ..grant("alice") };
    let stay = world.directory.ensure(&wants_other, &watch::Sender::new(Progress::default())).await.unwrap();
    let container = id(&stay);
    drop(stay);
    settle().await;
    // The reference means another image now; this container is still of the first.
    world.engine.put_image("innkeeper-test/kept:latest", "sha256:1");
    world.engine.put_image(FakeEngine::IMAGE, "sha256:2");
    world.init.told();
    world.kill_and_restart(with_other).await;
    let told = world.init.inits.lock().told.clone();
    assert_eq!((&told[0].0, told[0].1[0].command.join(" ").as_str()), (&container, "httpd -f"));
    assert!(told[0].1[0].ready.is_some());
    assert_eq!(world.directory.overview()[0].template.as_str(), "other");
}

#[tokio::test(start_paused = true)]
async fn an_image_without_a_program_leaves_the_other_services() {
    let world = World::new(|rules| {
        serving(rules, &["web"]);
        let services = &mut rules.templates.get_mut(&TemplateName::default()).unwrap().service;
        services.push(Service { image: true, ..Service::default() });
    });
    let stay = world.enter("alice").await.unwrap();
    settle().await;
    assert_eq!(world.init.told(), [(id(&stay), names(&["web"]))]);
    assert_eq!(world.metrics().service_failures.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn how_services_stand_is_seen_and_counted() {
    let mut world = World::new(|rules| serving(rules, &["web", "db", "mail"]));
    let stay = world.enter("alice").await.unwrap();
    let container = id(&stay);
    let state = |world: &World, state: &str| {
        world.directory.count_services();
        world.metrics().services.with_label_values(&[state]).get()
    };
    assert_eq!(state(&world, "unknown"), 3, "nobody has said anything");
    world.init.says(&container, "web", Some(true), 2);
    world.init.says(&container, "db", Some(false), 0);
    world.init.says(&container, "not configured", Some(false), 1000);
    assert_eq!(["ready", "unready", "unknown", "stopped"].map(|name| state(&world, name)), [1, 1, 1, 0]);
    assert_eq!(world.metrics().service_restarts.get(), 2);
    world.init.says(&container, "web", Some(true), 3);
    world.directory.count_services();
    assert_eq!(world.metrics().service_restarts.get(), 3);
    let seen = world.directory.services(&"alice".parse().unwrap()).unwrap();
    let seen: Vec<_> = seen.iter().map(|service| (service.name.as_str(), service.standing, service.restarts)).collect();
    assert_eq!(seen, [("web", Standing::Ready, Some(3)), ("db", Standing::Unready, Some(0)), ("mail", Standing::Unknown, None)]);

    drop(stay);
    world.kill_and_restart(|rules| serving(rules, &["web", "db", "mail"])).await;
    world.directory.count_services();
    assert_eq!(world.metrics().service_restarts.get(), 0, "those before this gateway were counted by the one before");
    world.init.says(&container, "web", Some(true), 4);
    world.directory.count_services();
    assert_eq!(world.metrics().service_restarts.get(), 1);
    world.engine.die(&container);
    settle().await;
    assert_eq!(["ready", "unready", "unknown", "stopped"].map(|name| state(&world, name)), [0, 0, 0, 0]);
    let stopped = world.directory.services(&"alice".parse().unwrap()).unwrap();
    assert!(stopped.iter().all(|service| service.standing == Standing::Stopped));
}

#[tokio::test(start_paused = true)]
async fn what_keeps_running_is_not_idle_and_gives_no_place_up() {
    let keep = |rules: &mut Rules| rules.templates.get_mut(&TemplateName::default()).unwrap().keep_running = true;
    let mut world = World::new(|rules| {
        keep(rules);
        rules.limits.containers = 1;
    });
    drop(world.enter("alice").await.unwrap());
    sleep(Duration::from_secs(200)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running), "long idle");
    assert!(matches!(world.enter("bob").await, Err(EnsureError::QueueTimedOut { .. })));
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    world.kill_and_restart(keep).await;
    sleep(Duration::from_secs(200)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running), "after a restart too");
    let mut short = rules();
    keep(&mut short);
    short.idle.max_lifetime = Span::secs(300);
    world.directory.reload(short);
    sleep(Duration::from_secs(200)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited), "its lifetime holds");
}

#[tokio::test(start_paused = true)]
async fn an_administrator_reads_the_logs_of_what_runs() {
    let world = World::new(|rules| serving(rules, &["web"]));
    let alice = "alice".parse().unwrap();
    assert!(matches!(world.directory.logs(&alice, None, false).await.err(), Some(AskError::NoWorkspace(_))));
    let stay = world.enter("alice").await.unwrap();
    let mut said = String::new();
    world.directory.logs(&alice, None, true).await.ok().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "said\n");
    let gone = world.directory.logs(&alice, Some(&"gone".parse().unwrap()), false).await;
    assert!(matches!(gone.err(), Some(AskError::NoService(..))));
    world.engine.die(&id(&stay));
    settle().await;
    assert!(matches!(world.directory.logs(&alice, None, false).await.err(), Some(AskError::NotRunning(_))));
    let seen = world.directory.overview();
    assert_eq!((seen[0].name.as_str(), seen[0].state, seen[0].leases), ("alice", "stopped", 1));
}
