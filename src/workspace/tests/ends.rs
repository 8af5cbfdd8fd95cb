//! Deleting a workspace, against everything that may happen at the same time.

use super::*;

impl World {
    async fn task(&self, name: &str, task: Task) -> Result<Done, AskError> {
        self.directory.begin(&name.parse().unwrap(), task).done.await.unwrap()
    }

    fn entries(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.dir.path().join("homes")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_made_is_deleted_once_it_is() {
    let world = World::new(|_| ());
    world.engine.delay(Call::Create, Duration::from_secs(5));
    let (login, _) = world.wait("alice");
    settle().await;
    let done = world.task("alice", Task::Delete { now: false, backups: false }).await.unwrap();
    assert!(matches!(login.await.unwrap(), Err(EnsureError::Deleted)));
    assert_eq!((world.state("alice"), done.homes), (None, vec!["alice".to_owned()]));
    assert!(world.slots().is_empty(), "{:?}", world.slots());
    assert!(matches!(world.enter("alice").await, Err(EnsureError::Deleted)));
    assert_eq!(world.state("alice"), None);
    world.task("alice", Task::Undelete).await.unwrap();
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Create);
}

#[tokio::test(start_paused = true)]
async fn a_home_is_not_taken_from_a_container_that_cannot_be_removed() {
    let mut world = World::new(|_| ());
    let stay = world.enter("alice").await.unwrap();
    world.engine.fail(Call::Remove, EngineError::Refused { call: "remove", why: "no".to_owned() });
    let failed = world.task("alice", Task::Delete { now: false, backups: false }).await.unwrap_err();
    assert!(failed.to_string().contains("not removed yet"), "{failed}");
    assert_eq!(*stay.ending.borrow(), Some(Ending::Deleted));
    assert_eq!((world.state("alice"), world.entries()), (Some(ContainerState::Exited), vec!["alice".to_owned()]));
    assert!(matches!(world.enter("alice").await, Err(EnsureError::Deleted)), "meant is meant");
    // The next start finishes it, as soon as that can be done.
    world.engine.mend(Call::Remove);
    world.kill_and_restart(|_| ()).await;
    for _ in 0..100 {
        if world.directory.deleted().await.unwrap().iter().all(|view| view.stage == crate::store::Stage::Deleted) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.state("alice"), None);
    assert!(world.entries().iter().all(|name| name.starts_with("alice@deleted@")), "{:?}", world.entries());
    world.task("alice", Task::Delete { now: true, backups: false }).await.unwrap();
    assert_eq!(world.entries(), Vec::<String>::new());
    assert!(world.enter("alice").await.is_ok(), "a new one");
}
