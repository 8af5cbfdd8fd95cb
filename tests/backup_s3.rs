//! Backups in a bucket, of a real S3 server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "common/backup.rs"]
mod backup;
#[path = "common/s3.rs"]
mod s3;
#[path = "common/venv.rs"]
mod venv;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::SystemTime;

use innkeeper::backup::{Config, Reason};

use self::backup::{Fixture, furnish, noise, open, same, subject};
use self::s3::{Server, service};

fn config(server: &Server, target: &str) -> Config {
    Config { target: target.to_owned(), key: Some("k".into()), s3: service(&server.endpoint), ..Config::default() }
}

#[tokio::test]
async fn a_bucket_is_as_good_as_a_directory() {
    let server = Server::start();
    server.make_bucket("homes").await;
    let fixture = Fixture::with(tempfile::tempdir().unwrap(), config(&server, "s3://homes/of/innkeeper"));
    assert_eq!(fixture.backups.list(None).await.unwrap(), []);
    furnish(&fixture.home());
    let done = fixture.run("alice").await;
    assert_eq!(done.left_out, 0, "{done:?}");
    same(&fixture.home(), fixture.restore(&done.id).await.path());
    assert!(fixture.run("alice").await.new_bytes < 100_000);
    std::fs::write(fixture.home().join("more"), noise(1 << 20, 9)).unwrap();
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
    let server = Server::start();
    let home = tempfile::tempdir().unwrap();
    let run = async |config: &Config| open(config).run(subject("alice", home.path(), true, SystemTime::now()), &|_| ()).await.unwrap_err();
    let error = run(&config(&server, "s3://nowhere/x")).await;
    assert!(error.reason == Reason::NoTarget && error.message.contains("no bucket \"nowhere\""), "{error}");
    let mut config = config(&server, "s3://homes/x");
    config.s3.endpoint = Some(refusing());
    let error = run(&config).await;
    assert!(error.reason == Reason::Denied && error.message.contains("InvalidAccessKeyId"), "{error}");
    assert!(error.message.contains("secret_key") && !error.message.contains("X-Amz"), "{error}");
    config.s3.endpoint = Some("http://127.0.0.1:9".to_owned());
    let error = run(&config).await;
    assert!(error.reason == Reason::Unreachable && error.message.contains("backup.s3.endpoint"), "{error}");
    assert!(!error.message.contains("X-Amz"), "{error}");
}

/// A service that knows nobody.
fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let body = "<?xml version=\"1.0\"?><Error><Code>InvalidAccessKeyId</Code></Error>";
            let head = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    endpoint
}
