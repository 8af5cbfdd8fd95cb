//! Workers that are killed wherever they are: the repository stays whole, and the next operation goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "common/backup.rs"]
mod backup;

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use self::backup::{Fixture, home_at, noise, same, subject};

/// How often each operation is killed.
const KILLS: u32 = 16;

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
async fn no_kill_costs_more_than_what_was_under_way() {
    let fixture = Fixture::new();
    let home = fixture.home();
    // The first of all is killed as well, where a repository is only coming to be.
    change(&fixture, 0);
    for millis in [20, 60, 120, 200, 300] {
        let run = fixture.backups.run(subject("alice", &home, true, SystemTime::now()), &|_| ());
        killed(run, Duration::from_millis(millis)).await;
    }
    let start = Instant::now();
    let mut good = vec![fixture.run("alice").await.id];
    let mut usual = start.elapsed();
    let mut at_work = 0;
    for round in 1..=KILLS {
        let share = f64::from(round) / f64::from(KILLS + 1);
        change(&fixture, round);
        let run = fixture.backups.run(subject("alice", &home, true, SystemTime::now()), &|_| ());
        at_work += u32::from(killed(run, usual.mul_f64(share)).await);
        let into = tempfile::tempdir_in(fixture.dir.path()).unwrap();
        let restore = fixture.backups.restore(&good[good.len() - 1], vec![home_at(into.path())], &|_| ());
        at_work += u32::from(killed(restore, usual.mul_f64(share)).await);
        assert_clean(&fixture, "after a killed run").await;
        // The first may have waited for what was killed before it.
        let start = Instant::now();
        good.push(fixture.run("alice").await.id);
        usual = usual.min(start.elapsed());
        same(&fixture.home(), fixture.restore(&good[good.len() - 1]).await.path());
        // Half of them in a home that is deleted, so that there is something to be pruned.
        fixture.run("mallory").await;
        let forget = fixture.backups.forget("mallory", &|_| ());
        at_work += u32::from(killed(forget, usual.mul_f64(share)).await);
        assert_clean(&fixture, "after a killed prune").await;
    }
    assert!(at_work > KILLS / 2, "only {at_work} of {} were at work when they were killed", 3 * KILLS);
    let listed: Vec<String> = fixture.backups.list(Some("alice")).await.unwrap().into_iter().map(|backup| backup.id).collect();
    assert!(good.iter().all(|id| listed.contains(id)), "a backup that was made is gone");
    // What the killed ones left makes way.
    fixture.backups.forget("mallory", &|_| ()).await.unwrap();
    assert_eq!(fs::read_dir(fixture.target().join("tmp")).unwrap().count(), 0);
    assert_clean(&fixture, "at the end").await;
    same(&fixture.home(), fixture.restore(&good[good.len() - 1]).await.path());
}

async fn assert_clean(fixture: &Fixture, when: &str) {
    let report = fixture.verify().await;
    assert!(report.is_clean(), "{when}: {report:?}");
}
