//! What must always hold of workspaces, tried on an engine in memory, with real homes, slots and mounts.

mod ends;
mod operations;
mod services;
mod settings;
mod upgrades;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::services::FakeInit;
use super::*;
use crate::attach::{Attach, AttachError, Process, ProcessSpec};
use crate::auth::Grant;
use crate::engine::fake::{Call, FakeEngine};
use crate::engine::{ContainerId, ContainerState, EngineError, Usage};
use crate::home::{Homes, Slots};
use crate::name::{AccountName, TemplateName, WorkspaceName};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::units::Span;

/// A directory over a fake engine, with its state in a temporary directory.
struct World {
    dir: State,
    engine: FakeEngine,
    init: FakeInit,
    directory: Directory,
    stop: CancellationToken,
}

/// A state directory. What is mounted in it goes with it.
struct State(tempfile::TempDir);

fn rules() -> Rules {
    let template = Template { image: FakeEngine::IMAGE.to_owned(), ..Template::default() };
    Rules {
        instance: "test".parse().unwrap(),
        idle: IdleConfig { timeout: Span::secs(60), sweep_every: Span::secs(5), keep_busy: true, ..IdleConfig::default() },
        pool: PoolConfig { size: 0, ..PoolConfig::default() },
        limits: LimitsConfig { containers: 4, queue: 2, queue_timeout: Span::secs(100), ..LimitsConfig::default() },
        capacity: super::CapacityConfig::default(),
        deleted_keep: Duration::from_secs(7 * 24 * 60 * 60),
        fence: crate::home::Fence::default(),
        templates: BTreeMap::from([("default".parse().unwrap(), template)]),
    }
}

impl World {
    fn new(change: impl FnOnce(&mut Rules)) -> Self {
        let dir = State::new();
        let engine = FakeEngine::new();
        let init = FakeInit::default();
        let (directory, stop) = Self::start(&dir, &engine, &init, change);
        Self { dir, engine, init, directory, stop }
    }

    fn start(dir: &State, engine: &FakeEngine, init: &FakeInit, change: impl FnOnce(&mut Rules)) -> (Directory, CancellationToken) {
        let mut rules = rules();
        change(&mut rules);
        let engine: Arc<dyn crate::engine::Engine> = Arc::new(engine.clone());
        let parts = Parts {
            audit: crate::audit::Audit::default(),
            deleted: Box::new(|_| Apart::default()),
            attach: Arc::new(init.clone()),
            engine,
            homes: Homes::open(&dir.path().join("homes"), crate::home::DriverKind::Directory).unwrap(),
            slots: Slots::open(&dir.path().join("slots")).unwrap(),
            disks: Disks { state: dir.path().to_owned(), homes: dir.path().join("homes"), ballast: None },
            store: Store::open(&dir.path().join("innkeeper.db")).unwrap(),
            backups: None,
            recordings: crate::recording::Recordings::default(),
            metrics: Metrics::new().unwrap(),
        };
        let (directory, stop) = (Directory::new(parts, rules), CancellationToken::new());
        tokio::spawn({
            let (directory, stop) = (directory.clone(), stop.clone());
            async move { directory.run(stop).await }
        });
        (directory, stop)
    }

    /// Ends the gateway as a kill would, and starts another on what it left.
    async fn kill_and_restart(&mut self, change: impl FnOnce(&mut Rules)) {
        self.stop.cancel();
        settle().await;
        (self.directory, self.stop) = Self::start(&self.dir, &self.engine, &self.init, change);
        settle().await;
    }

    async fn enter(&self, account: &str) -> Result<Stay, EnsureError> {
        let progress = watch::Sender::new(Progress::default());
        self.directory.ensure(&grant(account), &progress).await
    }

    /// Has somebody wait in the background, and gives what she sees.
    fn wait(&self, account: &str) -> (tokio::task::JoinHandle<Result<Stay, EnsureError>>, watch::Receiver<Progress>) {
        let progress = watch::Sender::new(Progress::default());
        let seen = progress.subscribe();
        let (directory, grant) = (self.directory.clone(), grant(account));
        (tokio::spawn(async move { directory.ensure(&grant, &progress).await }), seen)
    }

    /// Something inside asks to be kept for so long from now on.
    fn keep(&self, within: Duration) {
        *self.init.kept_until.lock() = Some(Instant::now() + within);
    }

    fn state(&self, workspace: &str) -> Option<ContainerState> {
        self.engine.states().get(&format!("innkeeper.test.{workspace}")).copied()
    }

    fn metrics(&self) -> &Metrics {
        &self.directory.house.parts.metrics
    }

    fn pool(&self) -> usize {
        self.engine.states().iter().filter(|(name, state)| name.contains(".pool.") && **state == ContainerState::Running).count()
    }

    fn slots(&self) -> Vec<PathBuf> {
        self.dir.slots()
    }

    /// Where a container sees its home.
    fn home_in(&self, stay: &Stay) -> PathBuf {
        self.engine.spec(&ContainerId(stay.container.clone())).unwrap().mounts[0].source.clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl State {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn slots(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.path().join("slots")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        for slot in self.slots() {
            while rustix::mount::unmount(&slot, rustix::mount::UnmountFlags::DETACH).is_ok() {}
        }
        rustix::mount::unmount(self.path().join("slots"), rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn grant(account: &str) -> Grant {
    Grant::plain(AccountName::parse(account).unwrap())
}

/// Lets everything that is ready to run do so.
async fn settle() {
    sleep(Duration::from_millis(500)).await;
}

#[tokio::test(start_paused = true)]
async fn she_finds_her_container_again() {
    let world = World::new(|_| ());
    let first = world.enter("alice").await.unwrap();
    assert_eq!(first.path, StartPath::Create);
    std::fs::write(world.home_in(&first).join("hers"), "x").unwrap();
    let second = world.enter("alice").await.unwrap();
    assert_eq!((second.path, &second.container), (StartPath::Attach, &first.container));
    drop((first, second));
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited), "stopped, and kept");
    let back = world.enter("alice").await.unwrap();
    assert_eq!(back.path, StartPath::Start);
    assert!(world.home_in(&back).join("hers").exists());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_logins_at_once_make_one_container() {
    let world = World::new(|rules| rules.limits.sessions_per_account = 1000);
    world.engine.delay(Call::Create, Duration::from_secs(2));
    let logins: Vec<_> = (0..1000).map(|_| world.wait("alice").0).collect();
    let mut stays = Vec::new();
    for login in logins {
        stays.push(login.await.unwrap().unwrap());
    }
    assert!(stays.iter().all(|stay| stay.container == stays[0].container));
    assert_eq!(world.engine.calls(Call::Create), 1);
    assert!(matches!(world.enter("alice").await, Err(EnsureError::TooManySessions { limit: 1000 })));
    assert!(world.enter("bob").await.is_ok(), "another account is not concerned");
}

#[tokio::test(start_paused = true)]
async fn the_pool_gives_a_returning_user_a_running_container_with_her_home() {
    let mut world = World::new(|_| ());
    let first = world.enter("alice").await.unwrap();
    std::fs::write(world.home_in(&first).join("hers"), "x").unwrap();
    world.engine.vanish(&ContainerId(first.container.clone()));
    drop(first);
    world.kill_and_restart(|rules| rules.pool.size = 2).await;
    assert_eq!(world.pool(), 2);
    let creates = world.engine.calls(Call::Create);
    let back = world.enter("alice").await.unwrap();
    assert_eq!((back.path, world.engine.calls(Call::Create)), (StartPath::Claim, creates));
    assert!(world.home_in(&back).join("hers").exists());
    settle().await;
    assert_eq!(world.pool(), 2, "filled again");
}

#[tokio::test(start_paused = true)]
async fn the_pool_waits_while_a_person_does() {
    let world = World::new(|rules| rules.pool.size = 1);
    settle().await;
    world.engine.delay(Call::Create, Duration::from_secs(20));
    let claimed = world.enter("alice").await.unwrap();
    assert_eq!(claimed.path, StartPath::Claim);
    let (login, _) = world.wait("bob");
    sleep(Duration::from_secs(10)).await;
    drop(login.await.unwrap().unwrap());
    let made_for_bob = world.engine.states().len();
    assert!(made_for_bob <= 3, "alice's, bob's, and at most what the pool had begun before bob came");
}

#[tokio::test(start_paused = true)]
async fn the_pool_lets_who_claimed_open_her_process_first() {
    let world = World::new(|rules| rules.pool.size = 1);
    settle().await;
    let creates = world.engine.calls(Call::Create);
    let claimed = world.enter("alice").await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!((claimed.path, world.engine.calls(Call::Create)), (StartPath::Claim, creates));
    settle().await;
    assert_eq!(world.pool(), 1, "filled again");
}

#[tokio::test(start_paused = true)]
async fn what_was_made_ready_ahead_of_a_login_is_told_as_it_was() {
    let world = World::new(|_| ());
    world.directory.prepare(&grant("alice"));
    settle().await;
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Create);
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Attach);
}

#[tokio::test(start_paused = true)]
async fn the_pool_follows_image_template_and_setting() {
    let world = World::new(|rules| rules.pool.size = 2);
    settle().await;
    let before: Vec<_> = world.engine.states().into_keys().collect();
    world.engine.put_image(FakeEngine::IMAGE, "sha256:2");
    sleep(Duration::from_secs(11)).await;
    let after: Vec<_> = world.engine.states().into_keys().collect();
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|name| !after.contains(name)), "a new image");
    let mut changed = rules();
    changed.pool.size = 1;
    world.directory.reload(changed);
    settle().await;
    assert_eq!(world.pool(), 1, "a smaller pool");
}

#[tokio::test(start_paused = true)]
async fn a_pool_container_that_died_is_replaced() {
    let world = World::new(|rules| rules.pool.size = 1);
    settle().await;
    let containers = world.directory.house.engine().list().await.unwrap();
    world.engine.die(&containers[0].id);
    settle().await;
    assert_eq!((world.pool(), world.engine.states().len(), world.slots().len()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_waits_her_turn_and_idle_ones_make_room() {
    let world = World::new(|rules| rules.limits.containers = 1);
    let alice = world.enter("alice").await.unwrap();
    let (bob, bob_sees) = world.wait("bob");
    settle().await;
    let (carol, carol_sees) = world.wait("carol");
    settle().await;
    assert_eq!(*bob_sees.borrow(), Progress::Queued { position: 1 });
    assert_eq!(*carol_sees.borrow(), Progress::Queued { position: 2 });
    assert!(matches!(world.enter("dave").await, Err(EnsureError::QueueFull { waiting: 2 })));
    bob.abort();
    settle().await;
    assert_eq!(*carol_sees.borrow(), Progress::Queued { position: 1 }, "who leaves blocks nobody");
    drop(alice);
    let carol = timeout(Duration::from_secs(30), carol).await.expect("in before alice's idle limit").unwrap().unwrap();
    assert_eq!(carol.path, StartPath::Create);
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
    assert!(matches!(world.enter("alice").await, Err(EnsureError::QueueTimedOut { .. })), "nobody is put out for her");
}

#[tokio::test(start_paused = true)]
async fn the_pool_makes_room_first() {
    let world = World::new(|rules| {
        rules.limits.containers = 2;
        rules.pool.size = 2;
    });
    settle().await;
    let mut other = rules();
    other.limits.containers = 2;
    other.pool.size = 2;
    other
        .templates
        .insert("other".parse().unwrap(), Template { cpus: 0.5, ..other.templates[&crate::name::TemplateName::default()].clone() });
    world.directory.reload(other);
    let mut wants_other = grant("alice");
    wants_other.template = Some("other".parse().unwrap());
    let progress = watch::Sender::new(Progress::default());
    let stay = world.directory.ensure(&wants_other, &progress).await.unwrap();
    assert_eq!((stay.path, world.pool()), (StartPath::Create, 1));
}

#[tokio::test(start_paused = true)]
async fn what_happens_outside_is_put_right_at_the_next_login() {
    let world = World::new(|_| ());
    let mut stay = world.enter("alice").await.unwrap();
    world.engine.die(&ContainerId(stay.container.clone()));
    stay.ending.wait_for(Option::is_some).await.unwrap();
    assert_eq!(*stay.ending.borrow(), Some(Ending::Died));
    let started = world.enter("alice").await.unwrap();
    assert_eq!((started.path, &started.container), (StartPath::Start, &stay.container));
    world.engine.pause(&ContainerId(started.container.clone()));
    settle().await;
    assert!(world.enter("alice").await.is_ok());
    assert_eq!(world.state("alice"), Some(ContainerState::Running), "goes on");
    world.engine.vanish(&ContainerId(started.container.clone()));
    settle().await;
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Create);
    settle().await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.slots().len(), 1, "the slot of the removed one is gone");
}

#[tokio::test(start_paused = true)]
async fn missed_events_are_made_up_for() {
    let world = World::new(|_| ());
    let stay = world.enter("alice").await.unwrap();
    world.engine.gap();
    settle().await;
    assert_eq!(world.enter("alice").await.unwrap().container, stay.container);
}

/// Whichever call fails, with or without its effect: the home is there, and the next login works.
#[tokio::test(start_paused = true)]
async fn any_call_may_fail_once() {
    let calls =
        [Call::Create, Call::Start, Call::Rename, Call::Inspect, Call::SetLimits, Call::Stop, Call::Remove, Call::List, Call::Usage];
    for pool in [0, 1] {
        for call in calls {
            for after_effect in [false, true] {
                let world = World::new(|rules| rules.pool.size = pool);
                settle().await;
                let home = world.dir.path().join("homes/alice");
                drop(world.enter("bob").await);
                std::fs::create_dir_all(&home).unwrap();
                std::fs::write(home.join("hers"), "x").unwrap();
                let error = EngineError::TimedOut("a test");
                if after_effect {
                    world.engine.fail_once_after_effect(call, error);
                } else {
                    world.engine.fail_once(call, error);
                }
                let first = world.enter("alice").await;
                drop(first);
                sleep(Duration::from_secs(200)).await;
                world.engine.mend(call);
                let again = world.enter("alice").await.unwrap_or_else(|why| panic!("{call:?} {after_effect}: {why}"));
                assert!(world.home_in(&again).join("hers").exists(), "{call:?} {after_effect}");
                sleep(Duration::from_secs(20)).await;
                let ours = world.engine.states();
                assert_eq!(ours.keys().filter(|name| name.ends_with(".alice")).count(), 1);
                assert_eq!(world.slots().len(), ours.len(), "{call:?} {after_effect}: one slot a container: {ours:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_everything_again() {
    let mut world = World::new(|rules| rules.pool.size = 1);
    settle().await;
    let stay = world.enter("alice").await.unwrap();
    settle().await;
    let before = world.engine.states();
    let container = stay.container.clone();
    drop(stay);
    world.kill_and_restart(|rules| rules.pool.size = 1).await;
    assert_eq!(world.engine.states(), before, "nothing was made, stopped or thrown away");
    let back = world.enter("alice").await.unwrap();
    assert_eq!((back.path, back.container), (StartPath::Attach, container));
}

#[tokio::test(start_paused = true)]
async fn the_idle_clock_goes_on_after_a_restart() {
    let mut world = World::new(|_| ());
    let mut short = grant("alice");
    short.idle_timeout = Some(Duration::from_secs(1_000));
    let progress = watch::Sender::new(Progress::default());
    drop(world.directory.ensure(&short, &progress).await.unwrap());
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running), "her grant says longer than the configuration");
    world.kill_and_restart(|_| ()).await;
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running), "and still does");
}

#[tokio::test(start_paused = true)]
async fn a_claim_cut_short_is_thrown_away_and_the_home_is_not() {
    let mut world = World::new(|rules| rules.pool.size = 1);
    settle().await;
    let slot = world.slots().remove(0);
    world.stop.cancel();
    settle().await;
    let home = world.dir.path().join("homes/alice");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("hers"), "x").unwrap();
    rustix::mount::mount_bind(&home, &slot).unwrap();
    let before: Vec<_> = world.engine.states().into_keys().collect();
    world.kill_and_restart(|rules| rules.pool.size = 1).await;
    sleep(Duration::from_secs(20)).await;
    assert!(!world.engine.states().contains_key(&before[0]));
    assert_eq!((world.pool(), world.slots().len()), (1, 1));
    assert!(home.join("hers").exists());
}

#[tokio::test(start_paused = true)]
async fn busy_containers_are_not_idle() {
    let world = World::new(|_| ());
    let stay = world.enter("alice").await.unwrap();
    let id = ContainerId(stay.container.clone());
    drop(stay);
    for seconds in 0..200 {
        world.engine.set_usage(&id, Usage { cpu: Duration::from_millis(500 * seconds), ..Usage::default() });
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    sleep(Duration::from_secs(80)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
}

#[tokio::test(start_paused = true)]
async fn only_workspaces_that_run_have_series_and_their_logins_are_counted_on() {
    let world = World::new(|_| ());
    settle().await;
    let shown = async |name: &str, workspace: &str| -> Option<f64> {
        world.directory.count_running().await;
        let text = world.metrics().text().unwrap();
        let start = format!("innkeeper_workspace_{name}{{workspace=\"{workspace}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
    };
    for _ in 0..2 {
        world.directory.logged_in(&grant("alice"));
        settle().await;
    }
    // Who comes by another way has not logged in.
    world.directory.prepare(&grant("bob"));
    settle().await;
    let stays = (world.enter("alice").await.unwrap(), world.enter("alice").await.unwrap());
    sleep(Duration::from_secs(10)).await;
    for (name, value) in [
        ("logins_total", 2.0),
        ("sessions", 2.0),
        ("idle_seconds", 0.0),
        ("memory_limit_bytes", (8u64 << 30) as f64),
        ("cpu_limit_cores", 2.0),
        ("pids_limit", 512.0),
        ("disk_limit_bytes", (50u64 << 30) as f64),
    ] {
        assert_eq!(shown(name, "alice").await, Some(value), "{name}");
    }
    assert_eq!((shown("logins_total", "bob").await, shown("sessions", "bob").await), (Some(0.0), Some(0.0)));
    assert!(shown("idle_seconds", "bob").await.is_some_and(|idle| idle >= 10.0));
    drop(stays);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
    assert_eq!((shown("logins_total", "alice").await, shown("idle_seconds", "alice").await), (None, None));
    assert!(!world.metrics().text().unwrap().contains("workspace=\""), "nothing runs");
    world.directory.logged_in(&grant("alice"));
    settle().await;
    assert_eq!(shown("logins_total", "alice").await, Some(3.0));
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn people_are_told_before_their_container_has_run_for_long_enough() {
    let world = World::new(|rules| rules.idle.max_lifetime = Span::secs(20 * 60));
    let mut stay = world.enter("alice").await.unwrap();
    sleep(14 * MINUTE).await;
    assert_eq!(*stay.ending.borrow(), None);
    sleep(MINUTE + Duration::from_secs(6)).await;
    let told = stay.ending.borrow_and_update().clone();
    let Some(Ending::Soon { within, can_be_kept: true, .. }) = told else { panic!("{told:?}") };
    assert!(within <= 5 * MINUTE && within > 4 * MINUTE + Duration::from_secs(49), "{within:?}");
    // Who comes now is told as well.
    let late = world.enter("alice").await.unwrap();
    sleep(Duration::from_secs(6)).await;
    assert!(late.ending.has_changed().unwrap());
    let stopping = |ending: &Option<Ending>| matches!(ending, Some(Ending::Stopping(_)));
    timeout(5 * MINUTE, stay.ending.wait_for(stopping)).await.unwrap().unwrap();
    sleep(Duration::from_millis(900)).await;
    assert_eq!(world.engine.calls(Call::Stop), 0, "they have a moment to read it");
    sleep(Duration::from_millis(200)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
    assert_eq!(*stay.ending.borrow(), Some(Ending::Stopping("it has run for as long as it may")));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_where_nothing_is_to_be_said_before() {
    let world = World::new(|rules| (rules.idle.max_lifetime, rules.idle.warn) = (Span::secs(600), Span::secs(0)));
    let mut stay = world.enter("alice").await.unwrap();
    let first = timeout(11 * MINUTE, stay.ending.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    assert!(matches!(first, Some(Ending::Stopping(_))), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn what_asks_to_be_kept_is_not_idle_and_its_clock_starts_anew() {
    let world = World::new(|_| ());
    world.keep(10 * MINUTE);
    drop(world.enter("alice").await.unwrap());
    sleep(10 * MINUTE + Duration::from_secs(50)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
}

#[tokio::test(start_paused = true)]
async fn what_asks_to_be_kept_makes_no_room_until_it_no_longer_does() {
    let world = World::new(|rules| (rules.limits.containers, rules.idle.timeout) = (1, Span::secs(0)));
    world.keep(MINUTE);
    drop(world.enter("alice").await.unwrap());
    let (bob, _) = world.wait("bob");
    sleep(MINUTE - Duration::from_secs(5)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    timeout(Duration::from_secs(20), bob).await.expect("in, soon after").unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_life_is_made_longer_by_what_asks_for_it_and_not_beyond_what_is_allowed() {
    for (keep_max, ends) in [(0, 20), (30, 50), (600, 60)] {
        let world = World::new(|rules| {
            rules.idle.max_lifetime = Span::secs(20 * 60);
            rules.templates.values_mut().for_each(|template| template.keep_max = Span::secs(keep_max * 60));
        });
        let mut stay = world.enter("alice").await.unwrap();
        let began = Instant::now();
        world.keep(60 * MINUTE);
        let mut offered = Vec::new();
        loop {
            stay.ending.changed().await.unwrap();
            match stay.ending.borrow_and_update().clone() {
                Some(Ending::Soon { can_be_kept, within, .. }) => {
                    offered.push(can_be_kept);
                    assert!(within <= 5 * MINUTE);
                }
                Some(Ending::Stopping(_)) => break,
                other => panic!("{other:?}"),
            }
        }
        let lasted = began.elapsed();
        assert!(lasted >= ends * MINUTE - Duration::from_secs(1) && lasted < ends * MINUTE + Duration::from_secs(7), "{ends}: {lasted:?}");
        assert!(offered.len() > 10 && offered.iter().all(|can| *can == (keep_max == 600)), "more was offered though there was none");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_ours_and_nobodys_is_removed() {
    let world = World::new(|_| ());
    let other = world.engine.as_instance("other");
    // With a state directory of its own, as every instance has: a slot that this one does not hold belongs to nobody here.
    let apart = State::new();
    let (elsewhere, _stop) = World::start(&apart, &other, &world.init, |rules| rules.instance = "other".parse().unwrap());
    let progress = watch::Sender::new(Progress::default());
    let theirs = elsewhere.ensure(&grant("alice"), &progress).await.unwrap();
    drop(theirs);
    let ours = world.enter("alice").await.unwrap();
    let left = world.dir.path().join("slots/00000000deadbeef");
    std::fs::create_dir(&left).unwrap();
    sleep(Duration::from_secs(11)).await;
    assert!(!left.exists());
    assert_eq!(other.states().len(), 1);
    assert_eq!(world.enter("alice").await.unwrap().container, ours.container);
}

#[tokio::test(start_paused = true)]
async fn limits_follow_the_grant() {
    let world = World::new(|_| ());
    drop(world.enter("alice").await.unwrap());
    let mut more = grant("alice");
    more.limits.pids = Some(7);
    let progress = watch::Sender::new(Progress::default());
    let stay = world.directory.ensure(&more, &progress).await.unwrap();
    assert_eq!(world.engine.spec(&ContainerId(stay.container.clone())).unwrap().limits.pids, 7);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_down_is_said_so_and_recovered_from() {
    let world = World::new(|_| ());
    settle().await;
    let down = EngineError::Unreachable("a test".to_owned());
    for call in [Call::Create, Call::Inspect] {
        world.engine.fail(call, down.clone());
    }
    assert!(matches!(world.enter("alice").await, Err(EnsureError::Engine(_))));
    for call in [Call::Create, Call::Inspect] {
        world.engine.mend(call);
    }
    assert!(world.enter("alice").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_permitted_is_what_both_template_and_grant_permit() {
    let mut narrow = rules();
    let mut template = narrow.templates[&crate::name::TemplateName::default()].clone();
    template.permit.local_forwarding = false;
    narrow.templates.insert("narrow".parse().unwrap(), template);
    let world = World::new(|rules| rules.templates = narrow.templates);
    let mut asks = grant("alice");
    asks.permit.sftp = false;
    let permit = world.directory.permit(&asks);
    assert!(permit.forwards_in() && !permit.sftp);
    asks.template = Some("narrow".parse().unwrap());
    let permit = world.directory.permit(&asks);
    assert!(!permit.forwards_in() && permit.forwards_out() && !permit.sftp && permit.exec);
}
