//! Volumes beside the home: they come with every container of their template, whichever way it came to run, and stay whatever becomes of it.

use super::*;
use crate::home::{HomeId, Quota};

/// Gives the template volumes of these names, each below `/srv`.
pub(super) fn with(rules: &mut Rules, names: &[&str]) {
    let volume = |name: &&str| Volume { name: name.parse().unwrap(), path: format!("/srv/{name}"), ..Volume::default() };
    rules.templates.get_mut(&TemplateName::default()).unwrap().volume = names.iter().map(volume).collect();
}

/// Where a container sees each of its directories, by the host's paths.
fn mounts(world: &World, stay: &Stay) -> BTreeMap<String, PathBuf> {
    let spec = world.engine.spec(&ContainerId(stay.container.clone())).unwrap();
    spec.mounts.into_iter().map(|mount| (mount.target, mount.source)).collect()
}

/// Writes a file into each directory of a container, or looks for it.
fn leave_files(world: &World, stay: &Stay) {
    mounts(world, stay).iter().for_each(|(target, source)| std::fs::write(source.join("hers"), target).unwrap());
}

fn finds_files(world: &World, stay: &Stay) -> bool {
    mounts(world, stay).iter().all(|(target, source)| std::fs::read_to_string(source.join("hers")).is_ok_and(|text| text == *target))
}

#[tokio::test(start_paused = true)]
async fn a_container_from_the_pool_gets_its_volumes_while_it_runs() {
    let world = World::new(|rules| {
        rules.pool.size = 1;
        with(rules, &["data", "cache"]);
    });
    settle().await;
    assert_eq!(world.slots().len(), 3, "a home and two volumes, of nobody's yet");
    let first = world.enter("alice").await.unwrap();
    assert_eq!((first.path, mounts(&world, &first).len()), (StartPath::Claim, 3));
    leave_files(&world, &first);
    world.engine.vanish(&ContainerId(first.container.clone()));
    drop(first);
    settle().await;
    let back = world.enter("alice").await.unwrap();
    assert_eq!(back.path, StartPath::Claim);
    assert!(finds_files(&world, &back));
    let bob = world.enter("bob").await.unwrap();
    assert!(!finds_files(&world, &bob), "another's are another's");
}

#[tokio::test(start_paused = true)]
async fn volumes_are_mounted_again_after_a_kill_and_a_start_of_the_host() {
    let change = |rules: &mut Rules| with(rules, &["data"]);
    let mut world = World::new(change);
    let first = world.enter("alice").await.unwrap();
    leave_files(&world, &first);
    drop(first);
    world.kill_and_restart(change).await;
    let again = world.enter("alice").await.unwrap();
    assert!(again.path == StartPath::Attach && finds_files(&world, &again));
    world.engine.die(&ContainerId(again.container.clone()));
    drop(again);
    world.stop.cancel();
    settle().await;
    for slot in world.slots() {
        rustix::mount::unmount(&slot, rustix::mount::UnmountFlags::DETACH).unwrap();
        std::fs::remove_dir(&slot).unwrap();
    }
    world.kill_and_restart(change).await;
    let back = world.enter("alice").await.unwrap();
    assert!(back.path == StartPath::Start && finds_files(&world, &back));
}

#[tokio::test(start_paused = true)]
async fn other_volumes_make_another_container_and_not_while_somebody_is_in_it() {
    let world = World::new(|rules| with(rules, &["data", "cache"]));
    let change = |names: &[&str]| {
        let mut changed = rules();
        with(&mut changed, names);
        world.directory.reload(changed);
    };
    let first = world.enter("alice").await.unwrap();
    let container = first.container.clone();
    leave_files(&world, &first);
    change(&["data", "logs"]);
    let second = world.enter("alice").await.unwrap();
    assert_eq!((second.path, &second.container), (StartPath::Attach, &container), "nobody is put out");
    drop((first, second));
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.state("alice"), Some(ContainerState::Exited));
    let back = world.enter("alice").await.unwrap();
    assert_ne!(back.container, container);
    let places: Vec<String> = mounts(&world, &back).into_keys().collect();
    assert_eq!(places, ["/home/user", "/srv/data", "/srv/logs"]);
    assert_eq!(std::fs::read_to_string(mounts(&world, &back)["/srv/data"].join("hers")).unwrap(), "/srv/data");
    assert!(world.home_in(&back).join("hers").exists());
    assert_eq!(world.slots().len(), 3, "those of the first are gone");
    drop(back);
    change(&["cache", "data", "logs"]);
    sleep(Duration::from_secs(90)).await;
    let back = world.enter("alice").await.unwrap();
    assert!(mounts(&world, &back)["/srv/cache"].join("hers").exists(), "what no template named was kept");
    assert_eq!(world.engine.calls(Call::Create), 3);
    drop(back);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(world.enter("alice").await.unwrap().path, StartPath::Start, "the same volumes need no other container");
}

#[tokio::test(start_paused = true)]
async fn another_size_of_a_volume_applies_while_it_is_in_use() {
    let world = World::new(|rules| with(rules, &["data"]));
    let _stay = world.enter("alice").await.unwrap();
    let mut changed = rules();
    with(&mut changed, &["data", "logs"]);
    changed.templates.get_mut(&TemplateName::default()).unwrap().volume[0].disk = crate::units::Size::gib(3);
    world.directory.reload(changed);
    let again = world.enter("alice").await.unwrap();
    let homes = &world.directory.house.parts.homes;
    let id = |name| HomeId::parse(name).unwrap();
    homes.measure(&id("alice.data")).unwrap();
    assert_eq!(homes.usage(&id("alice.data")).unwrap().unwrap().limit, Quota { bytes: Some(3 << 30), inodes: None });
    assert!(!homes.exists(&id("alice.logs")).unwrap(), "nor is one made that its container has not");
    assert!(again.fullness.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_grant_limits_a_volume_and_what_is_set_goes_before_it() {
    let world = World::new(|rules| with(rules, &["data", "cache"]));
    let limit = |disk| crate::auth::LimitOverrides {
        volumes: [("data".parse().unwrap(), crate::auth::VolumeLimits { disk: Some(crate::units::Size::gib(disk)), inodes: Some(disk) })]
            .into(),
        ..crate::auth::LimitOverrides::default()
    };
    let granted = Grant { limits: limit(2), ..grant("alice") };
    let progress = watch::Sender::new(Progress::default());
    let _stay = world.directory.ensure(&granted, &progress).await.unwrap();
    let homes = &world.directory.house.parts.homes;
    let has = |name: &str| {
        let id = HomeId::parse(name).unwrap();
        homes.measure(&id).unwrap();
        homes.usage(&id).unwrap().unwrap().limit
    };
    assert_eq!(has("alice.data"), Quota { bytes: Some(2 << 30), inodes: Some(2) });
    assert_eq!(has("alice.cache").bytes, Some(10 << 30), "as the template says");
    let set = Change::Limit {
        reset: false,
        limits: crate::auth::LimitOverrides {
            volumes: [("data".parse().unwrap(), crate::auth::VolumeLimits { disk: Some(crate::units::Size::gib(5)), inodes: None })].into(),
            ..Default::default()
        },
    };
    world.directory.change(&"alice".parse().unwrap(), set, None).await.unwrap();
    assert_eq!(has("alice.data"), Quota { bytes: Some(5 << 30), inodes: Some(2) }, "while it is in use");
    let known = world.directory.known().await.unwrap();
    assert_eq!(known[0].allowed.unwrap().disk, (50 + 5 + 10) << 30);
    assert_eq!(known[0].allowed_volumes[&"data".parse().unwrap()], 5 << 30);
}

#[tokio::test(start_paused = true)]
async fn a_volume_starts_with_what_its_template_says() {
    let skeleton = tempfile::tempdir().unwrap();
    std::fs::write(skeleton.path().join("rows"), "1 2 3").unwrap();
    let world = World::new(|rules| {
        with(rules, &["data", "cache"]);
        let template = rules.templates.get_mut(&TemplateName::default()).unwrap();
        template.volume[0].skeleton = Some(crate::home::Skeleton::Path(skeleton.path().to_owned()));
    });
    let stay = world.enter("alice").await.unwrap();
    let places = mounts(&world, &stay);
    assert_eq!(std::fs::read_to_string(places["/srv/data"].join("rows")).unwrap(), "1 2 3");
    assert!(!places["/srv/cache"].join("rows").exists() && !places["/home/user"].join("rows").exists());
}

#[tokio::test(start_paused = true)]
async fn slots_of_volumes_that_nobody_holds_go_and_what_was_on_them_stays() {
    let world = World::new(|rules| with(rules, &["data"]));
    let _stay = world.enter("alice").await.unwrap();
    let slots = &world.directory.house.parts.slots;
    let data = "data".parse().unwrap();
    let left = slots.create([&data]).unwrap();
    let tree = world.dir.path().join("homes/alice.data");
    std::fs::write(tree.join("hers"), "x").unwrap();
    left.mount(Some(&data), &tree).unwrap();
    let path = left.path(Some(&data));
    drop(left);
    sleep(Duration::from_secs(6)).await;
    assert!(!path.exists() && world.slots().len() == 2, "alice's are held");
    assert_eq!(world.metrics().orphans.with_label_values(&["slot"]).get(), 1);
    assert!(tree.join("hers").exists());
}
