//! Backups in a bucket, of a real S3 server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/s3.rs"]
mod s3;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime};

use innkeeper::backup::{Config, Reason};

use self::backup::{Fixture, PATIENCE, furnish, home_at, noise, open, same, subject};
use self::s3::{SECRET_KEY, Server, service};

fn config(server: &Server, target: &str) -> Config {
    Config { target: target.to_owned(), key: Some("k".into()), s3: service(&server.endpoint), ..Config::default() }
}

#[tokio::test]
async fn a_bucket_is_as_good_as_a_directory() {
    let server = Server::start();
    server.make_bucket("homes");
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), config(&server, "s3://homes/of/innkeeper"));
    assert_eq!(fixture.backups.list(None).await.unwrap(), []);
    furnish(&fixture.home());
    let done = fixture.run("alice").await;
    assert_eq!(done.left_out, 0, "{done:?}");
    same(&fixture.home(), fixture.restore(&done.id).await.path());
    assert!(fixture.run("alice").await.new_bytes < 100_000);
    fs::write(fixture.home().join("more"), noise(1 << 20, 9)).unwrap();
    let bob = fixture.run("bob").await;
    let report = fixture.verify().await;
    assert!(report.is_clean() && report.backups == 3, "{report:?}");
    assert_eq!(fixture.backups.forget("alice", &|_| ()).await.unwrap().backups, 2);
    assert_eq!(fixture.backups.list(None).await.unwrap().len(), 1);
    assert!(fixture.verify().await.is_clean());
    same(&fixture.home(), fixture.restore(&bob.id).await.path());
    // Another prefix of the same bucket is another repository.
    let other = open(&config(&server, "s3://homes/elsewhere"));
    assert_eq!(other.list(None).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_service_refuses_is_named_with_its_mend() {
    let mut server = Server::start();
    server.make_bucket("homes");
    let home = tempfile::tempdir().unwrap();
    let run = async |config: &Config| open(config).run(subject("alice", home.path(), true, SystemTime::now()), &|_| ()).await.unwrap_err();
    let error = run(&config(&server, "s3://nowhere/x")).await;
    assert!(error.reason == Reason::NoTarget && error.message.contains("no bucket \"nowhere\""), "{error}");
    let denied = [("another-access", SECRET_KEY, "NotSignedUp"), ("access", "another-secret", "SignatureDoesNotMatch")];
    for (access, secret, code) in denied {
        let mut config = config(&server, "s3://homes/x");
        (config.s3.access_key, config.s3.secret_key) = (Some(access.into()), Some(secret.into()));
        let error = run(&config).await;
        assert!(error.reason == Reason::Denied && error.message.contains(code), "{error}");
        assert!(error.message.contains("backup.s3.access_key") && error.message.contains("secret_key"), "{error}");
        assert!(!error.message.contains("X-Amz") && !error.message.contains(secret), "{error}");
    }
    assert_eq!(server.objects("homes"), 0);
    server.kill();
    let error = run(&config(&server, "s3://homes/x")).await;
    assert!(error.reason == Reason::Unreachable && error.message.contains("backup.s3.endpoint"), "{error}");
    assert!(!error.message.contains("X-Amz"), "{error}");
}

/// How large a home is of which a part only is in the bucket, or back, when the service dies.
const LARGE: usize = 96 << 20;

/// Waits until an operation that goes on meanwhile has come so far.
async fn until(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_service_that_dies_in_the_middle_is_waited_for_and_told_if_it_stays_away() {
    let mut server = Server::start();
    server.make_bucket("homes");
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), config(&server, "s3://homes/of/innkeeper"));
    let large = fixture.home().join("large");
    let packs = |server: &Server| server.objects("homes/of/innkeeper/data");

    fs::write(&large, noise(LARGE, 1)).unwrap();
    let dies = async {
        until("a part to be there", || packs(&server) > 0).await;
        server.kill();
        let there = packs(&server);
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.up();
        there
    };
    let (first, there) = tokio::join!(fixture.run("alice"), dies);
    assert!(packs(&server) > there, "it died when all was there: {there}");

    fs::write(&large, noise(LARGE, 2)).unwrap();
    let whole = packs(&server);
    let run = fixture.backups.run(subject("alice", &fixture.home(), true, SystemTime::now()), &|_| ());
    let dies = async {
        until("more to be there", || packs(&server) > whole).await;
        server.kill();
    };
    let (failed, ()) = tokio::join!(run, dies);
    let error = failed.unwrap_err();
    assert!(error.reason == Reason::Unreachable && error.message.contains("backup.s3.endpoint"), "{error}");
    let error = fixture.backups.list(None).await.unwrap_err();
    assert!(error.reason == Reason::Unreachable && !error.message.contains("X-Amz"), "{error}");
    server.up();
    let listed: Vec<String> = fixture.backups.list(None).await.unwrap().into_iter().map(|backup| backup.id).collect();
    assert_eq!(listed, [first.id.as_str()], "what was not made to its end is none");
    assert!(fixture.verify().await.is_clean());
    let second = fixture.run("alice").await;

    let into = tempfile::tempdir_in(fixture.dir.path()).unwrap();
    let restore = fixture.backups.restore(&second.id, vec![home_at(into.path())], &|_| ());
    let begun = || fs::metadata(into.path().join("large")).is_ok_and(|file| file.blocks() > 0);
    let dies = async {
        until("a part to be back", begun).await;
        server.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.up();
    };
    let (restored, ()) = tokio::join!(restore, dies);
    restored.unwrap();
    same(&fixture.home(), into.path());
    assert!(fixture.verify().await.is_clean());
}
