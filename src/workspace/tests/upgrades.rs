//! Another container in the place of one: whatever fails, and whenever the gateway is killed, there is one with her home.

use super::super::driver::Request;
use super::services::serving;
use super::volumes::with;
use super::*;

const CALLS: [Call; 8] = [Call::Inspect, Call::Image, Call::Stop, Call::Rename, Call::Create, Call::Start, Call::Remove, Call::Version];

/// A workspace that runs, whose template's image is another since, and which is to get it.
async fn outdated(change: impl FnOnce(&mut Rules)) -> World {
    let world = World::new(change);
    let stay = world.enter("alice").await.unwrap();
    std::fs::write(world.home_in(&stay).join("hers"), "x").unwrap();
    world.engine.put_image(FakeEngine::IMAGE, "sha256:2");
    let changed = world.directory.change(&name(), Change::Upgrade, None).await.unwrap();
    assert_eq!(changed.applied, Applied::AtNextStart);
    world
}

fn name() -> WorkspaceName {
    "alice".parse().unwrap()
}

async fn upgrade_now(world: &World) {
    world.directory.handle(&name()).await.inbox.send(Request::Upgrade { reply: None }).await.unwrap();
}

fn overview(world: &World) -> Overview {
    world.directory.overview().remove(0)
}

#[track_caller]
fn has_one(world: &World, when: &str) {
    assert_eq!(world.engine.states(), BTreeMap::from([("innkeeper.test.alice".to_owned(), ContainerState::Running)]), "{when}");
    let slots = world.slots().into_iter().filter(|slot| slot.extension().is_none()).count();
    assert_eq!(slots, 1, "{when}");
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_next_start_or_is_done_now() {
    let world = outdated(|_| ()).await;
    let first = overview(&world).container.unwrap();
    assert_eq!(overview(&world).upgrade.unwrap().failed, None);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(overview(&world).image, Some(ImageAge::Older), "found by the sweeper");
    world.engine.die(&ContainerId(first.clone()));
    settle().await;
    let stay = world.enter("alice").await.unwrap();
    assert_eq!((stay.path, &stay.notes[..]), (StartPath::Upgrade, &[Note::Upgraded][..]));
    assert_ne!(stay.container, first);
    assert!(world.home_in(&stay).join("hers").exists());
    assert_eq!((overview(&world).image, overview(&world).upgrade), (Some(ImageAge::Current), None));
    has_one(&world, "at its next start");
    let changed = world.directory.change(&name(), Change::Upgrade, None).await.unwrap();
    assert_eq!((changed.applied, overview(&world).upgrade), (Applied::Now, None), "nothing to do");

    // At once: who is in it is told, and its place is not another's meanwhile.
    world.engine.put_image(FakeEngine::IMAGE, "sha256:3");
    let done = world.directory.begin(&name(), Task::Upgrade).done.await.unwrap().unwrap();
    assert!(!done.unchanged);
    assert_eq!(*stay.ending.borrow(), Some(Ending::Stopping("it gets another image")));
    assert_ne!(overview(&world).container.unwrap(), stay.container);
    has_one(&world, "now");
    assert!(world.directory.begin(&name(), Task::Upgrade).done.await.unwrap().unwrap().unchanged);
    assert_eq!(world.metrics().upgrades.with_label_values(&["done"]).get(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_suspended_or_not_there_is_not_upgraded() {
    let world = outdated(|_| ()).await;
    world.directory.change(&name(), Change::Suspend("unpaid".to_owned()), None).await.unwrap();
    let refused = world.directory.begin(&name(), Task::Upgrade).done.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("suspended"), "{refused}");
    let nobody = "nobody".parse().unwrap();
    assert!(matches!(world.directory.change(&nobody, Change::Upgrade, None).await, Err(AskError::NoWorkspace(_))));
    assert!(matches!(world.directory.begin(&nobody, Task::Upgrade).done.await.unwrap(), Err(AskError::NoWorkspace(_))));
    world.directory.change(&name(), Change::Resume, None).await.unwrap();
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Upgrade, "when it starts again");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_gone_gets_the_image_anyway() {
    let world = outdated(|_| ()).await;
    world.engine.vanish(&ContainerId(overview(&world).container.unwrap()));
    settle().await;
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Create);
    assert_eq!(overview(&world).upgrade, None);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_engine_does_not_do_she_has_one_container() {
    for call in CALLS {
        for (after_effect, now) in [(false, false), (false, true), (true, false), (true, true)] {
            let when = format!("{call:?}, after its effect: {after_effect}, now: {now}");
            let world = outdated(|_| ()).await;
            let first = ContainerId(overview(&world).container.unwrap());
            if !now {
                world.engine.die(&first);
                settle().await;
            }
            let lost = EngineError::Unreachable("a test".to_owned());
            match after_effect {
                true => world.engine.fail_once_after_effect(call, lost),
                false => world.engine.fail_once(call, lost),
            }
            match now {
                true => upgrade_now(&world).await,
                false => drop(world.enter("alice").await),
            }
            sleep(Duration::from_secs(60)).await;
            world.engine.mend(call);
            assert!(!now || overview(&world).state == "running", "{when}: it ran before, and nobody has logged in");
            let stay = world.enter("alice").await.unwrap_or_else(|why| panic!("{when}: {why}"));
            assert!(world.home_in(&stay).join("hers").exists(), "{when}");
            // What could not be removed the sweeper finds.
            sleep(Duration::from_secs(20)).await;
            has_one(&world, &when);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_for_a_while_leaves_nobody_without() {
    for seconds in 0..12 {
        let world = outdated(|rules| rules.idle.timeout = Span::secs(3600)).await;
        for call in CALLS {
            world.engine.delay(call, Duration::from_secs(1));
        }
        upgrade_now(&world).await;
        sleep(Duration::from_secs(seconds)).await;
        for call in CALLS.into_iter().chain([Call::List]) {
            world.engine.fail(call, EngineError::Unreachable("a test".to_owned()));
        }
        sleep(Duration::from_secs(60)).await;
        for call in CALLS.into_iter().chain([Call::List]) {
            world.engine.mend(call);
            world.engine.delay(call, Duration::ZERO);
        }
        sleep(Duration::from_secs(60)).await;
        let when = format!("away after {seconds} s");
        has_one(&world, &when);
        assert!(overview(&world).upgrade.is_none_or(|upgrade| upgrade.failed.is_none()), "{when}: not the image's fault");
        let stay = world.enter("alice").await.unwrap();
        assert!(world.home_in(&stay).join("hers").exists(), "{when}");
    }
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_it_runs_again_by_itself() {
    let (mut waiting, mut upgraded) = (0, 0);
    for half_seconds in 0..30 {
        let mut world = outdated(|_| ()).await;
        for call in CALLS {
            world.engine.delay(call, Duration::from_secs(1));
        }
        upgrade_now(&world).await;
        sleep(Duration::from_millis(500 * half_seconds)).await;
        world.kill_and_restart(|_| ()).await;
        for call in CALLS {
            world.engine.delay(call, Duration::ZERO);
        }
        sleep(Duration::from_secs(30)).await;
        let when = format!("killed after {half_seconds} half seconds");
        has_one(&world, &when);
        match overview(&world).upgrade {
            Some(upgrade) => {
                assert_eq!(upgrade.failed, None, "{when}");
                waiting += 1;
            }
            None => upgraded += 1,
        }
        let stay = world.enter("alice").await.unwrap();
        assert!(world.home_in(&stay).join("hers").exists(), "{when}");
    }
    assert!(waiting > 0 && upgraded > 0, "{waiting}, {upgraded}");
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_one_that_does_not_come_up_is_undone() {
    for seconds in 0..20 {
        let change = |rules: &mut Rules| {
            serving(rules, &["web"]);
            rules.idle.timeout = Span::secs(3600);
        };
        let mut world = outdated(change).await;
        let first = overview(&world).container.unwrap();
        for call in CALLS {
            world.engine.delay(call, Duration::from_secs(1));
        }
        upgrade_now(&world).await;
        // The later ones while its services are waited for, and when it is given up.
        sleep(Duration::from_secs(if seconds < 15 { seconds } else { seconds + 115 })).await;
        world.kill_and_restart(change).await;
        for call in CALLS {
            world.engine.delay(call, Duration::ZERO);
        }
        // Tried once more, and given up.
        sleep(Duration::from_secs(200)).await;
        let when = format!("killed after {seconds} s");
        has_one(&world, &when);
        assert_eq!(overview(&world).container.unwrap(), first, "{when}");
        let stay = world.enter("alice").await.unwrap();
        assert!(world.home_in(&stay).join("hers").exists(), "{when}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_come_up_gives_way_to_the_former_with_its_volumes() {
    let change = |volumes: &'static [&'static str]| {
        move |rules: &mut Rules| {
            serving(rules, &["web"]);
            with(rules, volumes);
        }
    };
    let world = World::new(change(&["data"]));
    let stay = world.enter("alice").await.unwrap();
    let first = ContainerId(stay.container.clone());
    drop(stay);
    let mut rules = rules();
    change(&["other"])(&mut rules);
    world.directory.reload(rules.clone());
    // Nothing is ever said of the service.
    let refused = world.directory.begin(&name(), Task::Upgrade).done.await.unwrap().unwrap_err().to_string();
    assert!(refused.ends_with("has its former container: service web did not start within 2m"), "{refused}");
    has_one(&world, "undone");
    let back = world.enter("alice").await.unwrap();
    assert_eq!((back.path, &back.container), (StartPath::Attach, &first.0));
    drop(back);
    // Not tried again with the same, whether it is only started or looked at anew.
    world.engine.die(&first);
    settle().await;
    assert_eq!(world.enter("alice").await.unwrap().container, first.0);
    let failed = overview(&world).upgrade.unwrap().failed.unwrap();
    assert_eq!(failed, "service web did not start within 2m");
    assert_eq!(world.metrics().upgrades.with_label_values(&["undone"]).get(), 1);
    // Another image is another matter.
    world.engine.put_image(FakeEngine::IMAGE, "sha256:2");
    world.engine.die(&first);
    settle().await;
    let (login, _) = world.wait("alice");
    sleep(Duration::from_secs(50)).await;
    // Longer than a start may take, for the first; and one who comes in the middle of it.
    let (second, progress) = world.wait("alice");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*progress.borrow(), Progress::Upgrading);
    let tried = world.engine.states();
    assert_eq!(tried["innkeeper.test.former.alice"], ContainerState::Exited);
    let new = world.directory.house.engine().inspect("innkeeper.test.alice").await.unwrap().unwrap().id;
    world.init.says(&new, "web", None, 0);
    let stay = timeout(Duration::from_secs(10), login).await.unwrap().unwrap().unwrap();
    assert_eq!(second.await.unwrap().unwrap().container, new.0);
    assert_eq!((stay.path, &stay.container), (StartPath::Upgrade, &new.0));
    has_one(&world, "upgraded");
}
