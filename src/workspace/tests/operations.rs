//! Workspaces that are made, started and stopped without anybody logging in.

use super::*;

#[tokio::test(start_paused = true)]
async fn one_is_made_once_started_for_nobody_and_stopped_whoever_is_in_it() {
    let world = World::new(|_| ());
    settle().await;
    let alice: WorkspaceName = "alice".parse().unwrap();
    let mut news = world.directory.events();
    assert!(matches!(Operations::start(&world.directory, &alice).await, Err(AskError::NoWorkspace(_))));
    assert!(matches!(world.directory.stop(&alice, None).await, Err(AskError::NoWorkspace(_))));
    let make = |again| world.directory.make_workspace(&alice, NewWorkspace::default(), again);
    let both = tokio::join!(make(false), make(false));
    assert!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
    assert!(matches!(make(false).await, Err(AskError::Exists(_))));
    make(true).await.unwrap();
    assert_eq!(news.try_recv().unwrap().news, News::Made { workspace: alice.clone() });
    let none = NewWorkspace { template: "none".parse().unwrap(), ..NewWorkspace::default() };
    assert!(matches!(world.directory.make_workspace(&"bob".parse().unwrap(), none, false).await, Err(AskError::Start(_))));

    let known = world.directory.known().await.unwrap();
    assert_eq!(known.iter().map(|one| (one.name.as_str(), one.state)).collect::<Vec<_>>(), [("alice", "absent")]);
    assert_eq!(Operations::start(&world.directory, &alice).await.unwrap().done.await.unwrap().unwrap(), StartPath::Create);
    assert_eq!(world.state("alice"), Some(ContainerState::Running));
    assert_eq!(world.directory.overview()[0].leases, 0, "nobody is in it");
    let stay = world.enter("alice").await.unwrap();
    world.directory.stop(&alice, None).await.unwrap();
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
    settle().await;
    assert_eq!(*stay.ending.borrow(), Some(Ending::Stopping("an administrator stopped it")));
    world.directory.stop(&alice, None).await.unwrap();
    // Only as somebody has read it, where she says so.
    let read = world.directory.details(&alice).await.unwrap().revision;
    let changed =
        world.directory.change(&alice, Change::Env { set: [("A".parse().unwrap(), "1".to_owned())].into(), unset: Vec::new() }, Some(read));
    assert_eq!(changed.await.unwrap().revision, read + 1);
    for now in [false, true] {
        let deleting = world.directory.begin_if(&alice, Task::Delete { now, backups: false }, Some(read));
        assert!(matches!(deleting.done.await.unwrap(), Err(AskError::Changed)));
    }
    assert_eq!(world.directory.known().await.unwrap().len(), 1, "nothing was done");
    // One that is taken away while it is stopped is no reason to wait.
    world.directory.begin_if(&alice, Task::Delete { now: true, backups: false }, Some(read + 1)).done.await.unwrap().unwrap();
    timeout(Duration::from_secs(5), world.directory.stop(&alice, None)).await.unwrap().ok();
    assert_eq!(world.directory.known().await.unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_and_the_pool_are_told_and_changed_until_the_settings_are_next_loaded() {
    let world = World::new(|rules| rules.limits.containers = 1);
    settle().await;
    let stay = world.enter("alice").await.unwrap();
    let (waiting, _) = world.wait("bob");
    settle().await;
    let queue = world.directory.queue();
    assert_eq!((queue.capacity, queue.taken, queue.waiting), (1, 1, 1));
    assert_eq!(queue.workspaces, [(1, "bob".parse().unwrap())]);
    waiting.abort();
    drop(stay);

    let size = |size| PoolChange { size: Some(size), paused: None };
    let was = world.directory.pool();
    world.directory.change_pool(Some((was.size, was.paused)), size(2)).unwrap();
    assert!(matches!(world.directory.change_pool(Some((was.size, was.paused)), size(3)), Err(AskError::Changed)));
    assert!(matches!(world.directory.change_pool(None, size(1_000_000)), Err(AskError::Refused(_))));
    assert_eq!(world.directory.pool().size, 2);
    assert!(matches!(world.directory.drain_pool(Some((was.size, was.paused))).await, Err(AskError::Changed)));
    assert!(!world.directory.pool().paused, "nothing was done");
    world.directory.drain_pool(Some((2, was.paused))).await.unwrap();
    assert!(world.directory.pool().paused);
    world.directory.reload(rules());
    assert_eq!((world.directory.pool().size, world.directory.pool().paused), (0, false));
}

#[tokio::test(start_paused = true)]
async fn people_are_told_before_a_restart_which_is_taken_back_only_until_it_begins() {
    let world = World::new(|_| ());
    settle().await;
    let alice: WorkspaceName = "alice".parse().unwrap();
    let stay = world.enter("alice").await.unwrap();
    let account = AccountName::parse("alice").unwrap();
    let (_entry, ending) = world.directory.house.roll.enter(&account, &alice, stay.ending.clone());
    let within = Duration::from_secs(60);

    let restarting = world.directory.restart(&alice, Some(within)).await.unwrap();
    tokio::time::sleep(within / 2).await;
    assert!(matches!(&*ending.borrow(), Some(Ending::Soon { can_be_kept: false, .. })), "{:?}", ending.borrow());
    drop(restarting.done);
    settle().await;
    assert_eq!(*ending.borrow(), Some(Ending::Stays));
    tokio::time::sleep(within).await;
    assert_eq!(*ending.borrow(), Some(Ending::Stays));

    let restarting = world.directory.restart(&alice, Some(within)).await.unwrap();
    let mut told = ending.clone();
    told.wait_for(|ending| matches!(ending, Some(Ending::Stopping(_)))).await.unwrap();
    drop(restarting.done);
    tokio::time::sleep(within).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Running), "started again, whoever listens");
}
