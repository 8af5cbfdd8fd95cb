//! Workers that are killed wherever they are: the repository stays whole, and the next operation goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/moments.rs"]
mod moments;
#[path = "common/s3.rs"]
mod s3;

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use innkeeper::backup::Config;

use self::backup::{Fixture, home_at, noise, same, subject};
use self::moments::Rounds;
use self::s3::{Server, service};

/// How often each operation is killed; more with `INNKEEPER_KILL_ROUNDS`.
const KILLS: u32 = 16;
/// How long more than half of that may take, unless it was said how often.
const AT_MOST: Duration = Duration::from_secs(60);
/// Moments in the usual time of an operation, one after the other.
const SHARES: u32 = 17;

fn change(fixture: &Fixture, round: u32) {
    for number in 0..40 {
        let length = if number == 0 { 6 << 20 } else { 30_000 };
        fs::write(fixture.home().join(format!("file{number}")), noise(length, u64::from(round * 100 + number))).unwrap();
    }
}

/// Drops an operation after a moment that differs each time. Whether it was still at work.
async fn killed<T>(operation: impl Future<Output = T>, after: Duration) -> bool {
    tokio::time::timeout(after, operation).await.is_err()
}

#[tokio::test]
async fn killed_workers_cost_no_more_than_what_was_under_way() {
    let fixture = Fixture::new();
    kill_workers_of(&fixture).await;
    assert_eq!(fs::read_dir(fixture.target().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn killed_workers_leave_a_bucket_whole() {
    let server = Server::start();
    server.make_bucket("homes");
    let target = "s3://homes/of/innkeeper".to_owned();
    let config = Config { target, key: Some("k".into()), s3: service(&server.endpoint), ..Config::default() };
    kill_workers_of(&Fixture::with(tempfile::tempdir().unwrap(), config)).await;
}

/// Kills what makes, restores and takes out backups, wherever it is.
async fn kill_workers_of(fixture: &Fixture) {
    let home = fixture.home();
    // The first of all is killed as well, where a repository is only coming to be.
    change(fixture, 0);
    for millis in [20, 60, 120, 200, 300] {
        let run = fixture.backups.run(subject("alice", &home, true, SystemTime::now()), &|_| ());
        killed(run, Duration::from_millis(millis)).await;
    }
    let start = Instant::now();
    let mut good = vec![fixture.run("alice").await.id];
    let mut usual = start.elapsed();
    let (mut at_work, mut kills) = (0, 0);
    for round in Rounds::new(KILLS, AT_MOST) {
        let share = f64::from(1 + round * 7 % SHARES) / f64::from(SHARES + 1);
        change(fixture, round);
        let run = fixture.backups.run(subject("alice", &home, true, SystemTime::now()), &|_| ());
        at_work += u32::from(killed(run, usual.mul_f64(share)).await);
        let into = tempfile::tempdir_in(fixture.dir.path()).unwrap();
        let restore = fixture.backups.restore(&good[good.len() - 1], vec![home_at(into.path())], &|_| ());
        at_work += u32::from(killed(restore, usual.mul_f64(share)).await);
        assert_clean(fixture, "after a killed run").await;
        // The first may have waited for what was killed before it.
        let start = Instant::now();
        good.push(fixture.run("alice").await.id);
        usual = usual.min(start.elapsed());
        same(&fixture.home(), fixture.restore(&good[good.len() - 1]).await.path());
        // Half of them in a home that is deleted, so that there is something to be pruned.
        fixture.run("mallory").await;
        let forget = fixture.backups.forget("mallory", &|_| ());
        at_work += u32::from(killed(forget, usual.mul_f64(share)).await);
        assert_clean(fixture, "after a killed prune").await;
        kills += 3;
    }
    assert!(at_work > kills / 6, "only {at_work} of {kills} were at work when they were killed");
    let listed: Vec<String> = fixture.backups.list(Some("alice")).await.unwrap().into_iter().map(|backup| backup.id).collect();
    assert!(good.iter().all(|id| listed.contains(id)), "a backup that was made is gone");
    // What the killed ones left makes way.
    fixture.backups.forget("mallory", &|_| ()).await.unwrap();
    assert_clean(fixture, "at the end").await;
    same(&fixture.home(), fixture.restore(&good[good.len() - 1]).await.path());
}

async fn assert_clean(fixture: &Fixture, when: &str) {
    let report = fixture.verify().await;
    assert!(report.is_clean(), "{when}: {report:?}");
}
