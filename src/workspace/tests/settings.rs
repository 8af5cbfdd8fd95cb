//! What an administrator sets, against everything that may happen at the same time.

use super::*;
use crate::auth::LimitOverrides;
use crate::units::Size;

impl World {
    async fn change(&self, change: Change) -> Changed {
        self.directory.change(&"alice".parse().unwrap(), change, None).await.unwrap()
    }

    async fn suspend(&self) -> Applied {
        self.change(Change::Suspend("unpaid".to_owned())).await.applied
    }
}

fn is_suspended(entered: &Result<Stay, EnsureError>) -> bool {
    matches!(entered, Err(EnsureError::Suspended(reason)) if reason == "unpaid")
}

#[tokio::test(start_paused = true)]
async fn a_suspended_workspace_stands_still_and_lets_nobody_in_until_it_is_resumed() {
    let mut world = World::new(|_| ());
    let stay = world.enter("alice").await.unwrap();
    assert_eq!(world.suspend().await, Applied::Now);
    assert_eq!(*stay.ending.borrow(), Some(Ending::Suspended("unpaid".to_owned())));
    assert_eq!(world.state("alice"), Some(ContainerState::Exited), "stopped when the command is done");
    assert_eq!(world.suspend().await, Applied::Now, "again");
    drop(stay);
    for _ in 0..2 {
        assert!(is_suspended(&world.enter("alice").await));
        assert!(matches!(world.directory.reach(&grant("alice")).await, Err(EnsureError::Suspended(_))));
        world.directory.prepare(&grant("alice"));
        settle().await;
        assert_eq!(world.state("alice"), Some(ContainerState::Exited));
        world.kill_and_restart(|_| ()).await;
    }
    assert!(world.enter("bob").await.is_ok(), "another is not concerned");
    let Changed { applied, has_home, enforcement, .. } = world.change(Change::Resume).await;
    assert_eq!((applied, has_home, enforcement), (Applied::Now, true, Vec::new()));
    assert_eq!(world.state("alice"), Some(ContainerState::Exited), "nobody wants it yet");
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Start);
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_it_is_suspended_waits_no_more() {
    let world = World::new(|rules| rules.limits.containers = 1);
    let bob = world.enter("bob").await.unwrap();
    let (queued, _) = world.wait("alice");
    settle().await;
    assert_eq!(world.metrics().queue_length.get(), 1);
    assert_eq!(world.suspend().await, Applied::Now);
    assert!(is_suspended(&queued.await.unwrap()));
    settle().await;
    assert_eq!(world.metrics().queue_length.get(), 0, "her place in the queue is another's");
    drop(bob);
    world.change(Change::Resume).await;
    assert!(world.enter("alice").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_made_is_stopped_once_it_is() {
    let world = World::new(|_| ());
    world.engine.delay(Call::Create, Duration::from_secs(5));
    let (login, _) = world.wait("alice");
    settle().await;
    assert_eq!(world.suspend().await, Applied::Now);
    assert!(is_suspended(&login.await.unwrap()));
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
}

#[tokio::test(start_paused = true)]
async fn what_was_killed_between_writing_it_down_and_stopping_stops_at_the_next_start() {
    let mut world = World::new(|_| ());
    let stay = world.enter("alice").await.unwrap();
    let alteration = crate::store::Alteration::Suspend("unpaid".to_owned());
    world.directory.house.parts.store.alter(&"alice".parse().unwrap(), alteration).await.unwrap();
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    world.kill_and_restart(|_| ()).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
    drop(stay);
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_stopped_is_tried_again() {
    let world = World::new(|_| ());
    let _stay = world.enter("alice").await.unwrap();
    world.engine.fail(Call::Stop, EngineError::TimedOut("stop"));
    assert!(matches!(world.suspend().await, Applied::NotYet(_)));
    assert!(is_suspended(&world.enter("alice").await), "though it runs");
    assert!(world.metrics().stop_failures.get() > 0);
    let tries = world.engine.calls(Call::Stop);
    settle().await;
    assert_eq!(world.engine.calls(Call::Stop), tries, "not without a pause");
    world.engine.mend(Call::Stop);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
}

#[tokio::test(start_paused = true)]
async fn a_limit_applies_at_once_and_goes_before_a_grants_also_after_a_kill() {
    let mut world = World::new(|_| ());
    let limits = LimitOverrides { pids: Some(100), memory: Some(Size::gib(1)), ..LimitOverrides::default() };
    let granted = Grant { limits, ..grant("alice") };
    let progress = watch::Sender::new(Progress::default());
    let stay = world.directory.ensure(&granted, &progress).await.unwrap();
    let id = ContainerId(stay.container.clone());
    let has = |world: &World| {
        let limits = world.engine.spec(&id).unwrap().limits;
        (limits.pids, limits.memory)
    };
    let set = |pids| Change::Limit { reset: false, limits: LimitOverrides { pids: Some(pids), ..LimitOverrides::default() } };
    assert_eq!(world.change(set(50)).await.applied, Applied::Now);
    assert_eq!(has(&world), (50, Size::gib(1)), "and no other is touched");
    let updates = world.engine.calls(Call::SetLimits);
    world.kill_and_restart(|_| ()).await;
    assert_eq!(world.engine.calls(Call::SetLimits), updates, "a start touches nothing");
    world.change(set(60)).await;
    assert_eq!(has(&world), (60, Size::gib(1)), "what the grant set is remembered");
    world.change(Change::Limit { reset: true, limits: LimitOverrides::default() }).await;
    assert_eq!(has(&world), (100, Size::gib(1)));
    world.engine.fail(Call::SetLimits, EngineError::Refused { call: "update", why: "in use".to_owned() });
    assert!(matches!(world.change(set(70)).await.applied, Applied::NotYet(why) if why.contains("in use")));
    assert!(world.directory.ensure(&granted, &progress).await.is_ok(), "keeps nobody out");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_stopped_and_cannot_be_looked_at_is_tried_again_by_itself_and_less_and_less_often() {
    let world = World::new(|_| ());
    drop(world.enter("alice").await.unwrap());
    world.engine.fail(Call::Stop, EngineError::TimedOut("stop"));
    world.engine.fail(Call::Inspect, EngineError::TimedOut("inspect"));
    // Idle after a minute: it is to be stopped, and then nobody knows whether it is.
    sleep(Duration::from_secs(70)).await;
    assert_eq!(world.directory.overview()[0].state, "unknown");
    let looks = || world.engine.calls(Call::Inspect);
    let (stops, before) = (world.engine.calls(Call::Stop), looks());
    sleep(Duration::from_secs(120)).await;
    let early = looks() - before;
    assert!((2..=8).contains(&early), "{early} looks in two minutes, with a sweep every five seconds");
    sleep(Duration::from_secs(3600)).await;
    let before = looks();
    sleep(Duration::from_secs(3600)).await;
    let late = looks() - before;
    assert!((5..=7).contains(&late), "{late} looks in an hour");
    assert_eq!(world.engine.calls(Call::Stop), stops, "nothing is stopped that is not known to run");
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    world.engine.mend(Call::Stop);
    world.engine.mend(Call::Inspect);
    sleep(Duration::from_secs(11 * 60)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited), "nobody has logged in, and nothing has happened to it");
    let quiet = looks();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(looks(), quiet, "what is known is not looked at again");
}

#[tokio::test(start_paused = true)]
async fn a_limit_says_how_it_holds() {
    let world = World::new(|rules| super::volumes::with(rules, &["data"]));
    let data = |disk| LimitOverrides {
        disk: Some(Size::gib(3)),
        inodes: Some(1000),
        pids: Some(50),
        volumes: [("data".parse().unwrap(), crate::auth::VolumeLimits { disk, inodes: None })].into(),
        ..LimitOverrides::default()
    };
    let said = |changed: &Changed| -> Vec<(String, &'static str)> {
        let word = |hold: &crate::home::Hold| match hold {
            crate::home::Hold::Now => "now",
            crate::home::Hold::AtNextStart(_) => "later",
            crate::home::Hold::Measured(_) => "measured",
            crate::home::Hold::Impossible(_) => "impossible",
        };
        changed.enforcement.iter().map(|one| (one.limit.clone(), word(&one.hold))).collect()
    };
    let stay = world.enter("alice").await.unwrap();
    let limit = |limits| Change::Limit { reset: false, limits };
    let changed = world.change(limit(data(Some(Size::gib(2))))).await;
    let expected = [("pids", "now"), ("disk", "measured"), ("inodes", "measured"), ("volumes.data.disk", "measured")];
    assert_eq!(said(&changed), expected.map(|(limit, how)| (limit.to_owned(), how)));
    drop(stay);
    sleep(Duration::from_secs(90)).await;
    let only = LimitOverrides { pids: Some(60), ..LimitOverrides::default() };
    assert_eq!(said(&world.change(limit(only)).await), [("pids".to_owned(), "later")]);
    let details = world.directory.details(&"alice".parse().unwrap()).await.unwrap();
    assert_eq!(details.limits.volumes[&"data".parse().unwrap()].disk, Some(Size::gib(2)));
    assert!(details.trees.iter().any(|tree| tree.volume.is_some()) && details.enforcement.len() == 6, "{details:?}");
    let unknown = LimitOverrides { volumes: [("dta".parse().unwrap(), Default::default())].into(), ..LimitOverrides::default() };
    let refused = world.directory.change(&"alice".parse().unwrap(), limit(unknown), None).await.unwrap_err().to_string();
    assert!(refused.contains("no volume dta; it has: data"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_low_disk_keeps_out_only_who_has_no_home() {
    let mut world = World::new(|_| ());
    drop(world.enter("alice").await.unwrap());
    world.kill_and_restart(|rules| rules.limits.disk_floor = Size::bytes(u64::MAX)).await;
    assert!(world.directory.is_low() && world.metrics().disk_low.get() == 1);
    assert!(matches!(world.enter("bob").await, Err(EnsureError::DiskLow)));
    assert!(!world.dir.path().join("homes/bob").exists());
    assert!(world.enter("alice").await.is_ok());
    world.directory.reload(rules());
    sleep(Duration::from_secs(6)).await;
    assert!(!world.directory.is_low());
    assert!(world.enter("bob").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_gone_by_is_not_written_down() {
    let world = World::new(|_| ());
    let alice: WorkspaceName = "alice".parse().unwrap();
    let name = || "A".parse::<crate::name::VariableName>().unwrap();
    let limit = |limits| Change::Limit { reset: false, limits };
    for change in [
        Change::Suspend("  ".to_owned()),
        Change::Suspend("x".repeat(2000)),
        limit(LimitOverrides { cpus: Some(f64::NAN), ..LimitOverrides::default() }),
        limit(LimitOverrides { memory: Some(Size::bytes(0)), ..LimitOverrides::default() }),
        limit(LimitOverrides { pids: Some(0), ..LimitOverrides::default() }),
        Change::Env { set: BTreeMap::from([(name(), "a\0b".to_owned())]), unset: Vec::new() },
        Change::SetSecret(name(), String::new().into()),
        Change::SetSecret(name(), "a\0b".to_owned().into()),
        Change::GenerateSecret(name(), Some(1)),
        Change::RotateSecret(name(), None),
        Change::RemoveSecret(name()),
        Change::AddMount { source: "/etc".to_owned(), target: "/data".to_owned(), read_write: true },
        Change::RemoveMount("/data".to_owned()),
    ] {
        let said = format!("{change:?}");
        assert!(matches!(world.directory.change(&alice, change, None).await, Err(AskError::Refused(_))), "{said}");
    }
    assert!(!format!("{:?}", Change::SetSecret(name(), "hunter2".to_owned().into())).contains("hunter2"));
    assert!(matches!(world.directory.details(&alice).await, Err(AskError::NoWorkspace(_))), "nothing was set");
}
