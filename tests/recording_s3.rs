//! Recordings in a bucket, of a real S3 server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "common/s3.rs"]
mod s3;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use innkeeper::audit::Audit;
use innkeeper::bucket::{Bucket, Kind, Location, Place};
use innkeeper::recording::{Config, Reader, Recorded, RecordingId, Recordings, RecordingsError, Start, State};
use innkeeper::telemetry::Metrics;

use self::s3::{SECRET_KEY, Server, service};

const TARGET: &str = "s3://screens/of/innkeeper";

struct World {
    dir: tempfile::TempDir,
    config: Config,
    recordings: Recordings,
    metrics: Metrics,
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < Duration::from_secs(150), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// All that is read of a recording.
fn text(mut reader: Reader) -> String {
    let mut all = String::new();
    while let Some(line) = reader.line().unwrap() {
        all.push_str(&line);
    }
    all
}

impl World {
    fn new(endpoint: &str, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { target: TARGET.to_owned(), s3: service(endpoint), ..Config::default() };
        change(&mut config);
        let (dir, metrics) = (tempfile::tempdir().unwrap(), Metrics::new().unwrap());
        let recordings = Recordings::open(&config, &dir.path().join("recordings"), 0, &metrics, Audit::default()).unwrap();
        Self { dir, config, recordings, metrics }
    }

    /// As after a start of the gateway.
    fn again(self) -> Self {
        self.recordings.close();
        let Self { dir, config, metrics, .. } = self;
        let recordings = Recordings::open(&config, &dir.path().join("recordings"), 0, &metrics, Audit::default()).unwrap();
        Self { dir, config, recordings, metrics }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("recordings").join(name)
    }

    fn files(&self) -> Vec<String> {
        let all = fs::read_dir(self.path("")).unwrap();
        let mut all: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    fn bucket(&self) -> Bucket {
        let location = Location::parse(TARGET).unwrap().unwrap();
        Bucket::new(&Place::new(&self.config.s3, location, "test").unwrap(), "test").unwrap()
    }

    async fn objects(&self) -> Vec<(String, u64)> {
        self.bucket().list("").await.unwrap()
    }

    /// Records this, and waits until it has ended.
    async fn record(&self, shown: &str) -> RecordingId {
        let tap = self
            .recordings
            .begin(Start {
                workspace: "alice".parse().unwrap(),
                account: "alice".to_owned(),
                template: "default".parse().unwrap(),
                session: 7,
                columns: 80,
                rows: 24,
                watchable: false,
            })
            .unwrap();
        tap.output(shown.as_bytes());
        let id = tap.view().id();
        drop(tap);
        until("its end", async || self.recordings.get(id).await.is_ok_and(|about| about.state == State::Complete)).await;
        id
    }

    async fn about(&self, id: RecordingId) -> Recorded {
        self.recordings.get(id).await.unwrap()
    }

    async fn until_away(&self, id: RecordingId) {
        until("it to be in the bucket", async || self.about(id).await.away).await;
    }

    async fn read(&self, id: RecordingId) -> String {
        text(self.recordings.read(id).await.unwrap())
    }
}

#[tokio::test]
async fn what_has_ended_goes_there_is_read_from_there_and_goes_from_there() {
    let server = Server::start();
    server.make_bucket("screens");
    for keyed in [false, true] {
        let world = World::new(&server.endpoint, |config| {
            if keyed {
                config.key = Some("0123456789abcdef0123456789abcdef".into());
            }
        });
        let id = world.record("all that was shown").await;
        let at_home = world.about(id).await;
        world.until_away(id).await;
        let name = format!("{id}{}", if keyed { ".sealed" } else { ".cast.zst" });
        assert_eq!(world.files(), [format!("{name}.away")], "its head is all that stays");
        assert!(fs::metadata(world.path(&format!("{name}.away"))).unwrap().len() < 1000);
        assert_eq!(world.objects().await, [(name.clone(), at_home.bytes)]);
        let object = world.bucket().get(&name, None, 1 << 20).await.unwrap();
        let is_plain = zstd::decode_all(&object[..]).is_ok_and(|text| String::from_utf8_lossy(&text).contains("all that was shown"));
        assert_eq!(is_plain, !keyed, "what was encrypted on the disk is so there");
        let shown = world.read(id).await;
        assert!(shown.contains("all that was shown") && shown.contains("the session ended"), "{shown}");
        assert_eq!(world.files().len(), 1, "what is fetched has no name");

        // Another process knows as much of it.
        let world = world.again();
        let later = world.about(id).await;
        assert_eq!(later, Recorded { ended: later.ended, away: true, ..at_home.clone() });
        let apart = later.ended.unwrap().duration_since(at_home.ended.unwrap()).unwrap_or_else(|before| before.duration());
        assert!(apart < Duration::from_secs(5), "{apart:?}");
        assert_eq!(world.read(id).await, shown);

        world.recordings.remove(id).await.unwrap();
        assert!(matches!(world.recordings.read(id).await, Err(RecordingsError::None)));
        until("it to go from the bucket", async || world.objects().await.is_empty()).await;
        until("nothing to be left of it", async || world.files().is_empty()).await;
    }
}

#[tokio::test]
async fn while_the_service_is_away_they_stay_and_later_they_go() {
    let mut server = Server::start();
    server.make_bucket("screens");
    server.kill();
    let world = World::new(&server.endpoint, |_| ());
    let id = world.record("shown meanwhile").await;
    let gone = world.record("removed meanwhile").await;
    world.recordings.remove(gone).await.unwrap();
    // One that somebody has taken away by hand is in nobody's way.
    let stray = world.record("taken away").await;
    fs::remove_file(world.path(&format!("{stray}.cast.zst"))).unwrap();
    assert!(world.read(id).await.contains("shown meanwhile"));
    let left = BTreeSet::from([format!("{id}.cast.zst"), format!("{gone}.cast.zst.gone")]);
    assert_eq!(world.files().into_iter().collect::<BTreeSet<_>>(), left);
    until("they to be counted", async || world.metrics.recordings_unsent.get() == 2).await;
    server.up();
    world.until_away(id).await;
    until("what was removed to be forgotten", async || world.files() == [format!("{id}.cast.zst.away")]).await;
    assert_eq!(world.objects().await.len(), 1);
    until("the other to be counted", async || world.metrics.recordings_unsent.get() == 1).await;
    world.recordings.remove(stray).await.unwrap();
    // Of one that is there and cannot be had it is said why.
    server.kill();
    let began = Instant::now();
    let why = world.recordings.read(id).await.err().unwrap().to_string();
    assert!(why.contains("recording.s3.endpoint") && !why.contains("X-Amz"), "{why}");
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(world.files(), [format!("{id}.cast.zst.away")]);
}

#[tokio::test]
async fn with_a_wrong_secret_they_stay_and_it_is_said_why() {
    let server = Server::start();
    server.make_bucket("screens");
    let mut world = World::new(&server.endpoint, |config| config.s3.secret_key = Some("another".into()));
    let id = world.record("shown meanwhile").await;
    until("it to be refused", async || world.metrics.recording_upload_failures.get() > 0).await;
    until("it to be counted", async || world.metrics.recordings_unsent.get() == 1).await;
    assert_eq!(server.objects("screens"), 0);
    let why = world.bucket().list("").await.unwrap_err();
    assert!(why.kind == Kind::Denied && why.message.contains("SignatureDoesNotMatch"), "{why}");
    assert!(why.message.contains("secret_key") && !why.message.contains("another") && !why.message.contains("X-Amz"), "{why}");
    assert!(world.read(id).await.contains("shown meanwhile"));
    world.config.s3.secret_key = Some(SECRET_KEY.into());
    let world = world.again();
    world.until_away(id).await;
    assert!(world.read(id).await.contains("shown meanwhile"));
}

#[tokio::test]
async fn a_kill_at_any_step_loses_none_and_leaves_none_behind() {
    let server = Server::start();
    server.make_bucket("screens");
    let world = World::new(&server.endpoint, |_| ());
    let (sent, kept, buried) = (world.record("sent").await, world.record("kept").await, world.record("buried").await);
    for id in [sent, kept, buried] {
        world.until_away(id).await;
    }
    let name = |id: RecordingId| format!("{id}.cast.zst");
    world.recordings.close();
    let whole = world.bucket().get(&name(sent), None, 1 << 20).await.unwrap();
    // Sent, and its head written beside it: not removed yet.
    fs::write(world.path(&name(sent)), &whole).unwrap();
    // Half of a head.
    fs::write(world.path(&format!("{}.new", name(kept))), &whole[..20]).unwrap();
    // To go, and still there.
    fs::write(world.path(&format!("{}.gone", name(buried))), "").unwrap();
    // To go, and never sent.
    fs::write(world.path("019ad0c1f2a4-5f3c9a10.cast.zst.gone"), "").unwrap();
    let world = world.again();
    let ids: BTreeSet<RecordingId> = world.recordings.list(|_, _, _| true).await.unwrap().into_iter().map(|one| one.id).collect();
    // Two that begin within a millisecond come in any order.
    assert_eq!(ids, BTreeSet::from([sent, kept]));
    world.until_away(sent).await;
    until("only heads to be left", async || world.files().iter().all(|name| name.ends_with(".away"))).await;
    assert_eq!(world.objects().await.len(), 2);
    assert!(world.read(sent).await.contains("sent") && world.read(kept).await.contains("kept"));
    // What a bucket gives back is not believed to be what it was given.
    world.bucket().put(&name(kept), whole.slice(..whole.len() / 2)).await.unwrap();
    assert!(world.recordings.read(kept).await.is_err());
    world.bucket().delete(&name(sent)).await.unwrap();
    let why = world.recordings.read(sent).await.err().unwrap().to_string();
    assert!(why.contains("is not in bucket \"screens\""), "{why}");
    // Without a target nothing is lost, and it is said why it cannot be read.
    let mut config = world.config.clone();
    config.target.clear();
    world.recordings.close();
    let without = Recordings::open(&config, &world.path(""), 0, &world.metrics, Audit::default()).unwrap();
    assert!(matches!(without.read(kept).await, Err(RecordingsError::Away)));
    without.remove(kept).await.unwrap();
    assert!(world.files().contains(&format!("{}.gone", name(kept))));
}

#[tokio::test]
async fn what_is_in_the_bucket_counts_towards_no_quota() {
    let server = Server::start();
    server.make_bucket("screens");
    let large = |config: &mut Config| {
        config.quota = innkeeper::units::Size::bytes(600_000);
        config.largest = config.quota;
    };
    let world = World::new(&server.endpoint, large);
    let noise = || (0..400_000).map(|_| char::from(rand::random_range(b' '..=b'~'))).collect::<String>();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = world.record(&noise()).await;
        world.until_away(id).await;
        ids.push(id);
    }
    assert_eq!(world.recordings.list(|_, _, _| true).await.unwrap().len(), 3);
    assert!(world.objects().await.iter().map(|(_, bytes)| bytes).sum::<u64>() > 900_000);
    assert_eq!(world.metrics.recording_failures.with_label_values(&["quota"]).get(), 0);
    for id in ids {
        assert!(world.read(id).await.len() > 400_000);
    }
}
