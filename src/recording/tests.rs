//! Recordings as their users see them, on a real disk.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::cast::{self, Meta, What};
use super::live::{Live, Shared};
use super::*;
use crate::audit::Audit;
use crate::telemetry::Metrics;
use crate::units::{Size, Span};

struct World {
    dir: tempfile::TempDir,
    metrics: Metrics,
    config: Config,
    recordings: Recordings,
}

fn start(workspace: &str) -> Start {
    Start {
        workspace: workspace.parse().unwrap(),
        account: "al\x1bice".to_owned(),
        template: "default".parse().unwrap(),
        session: 7,
        columns: 80,
        rows: 24,
        watchable: true,
    }
}

fn open(config: &Config, root: &Path, floor: u64, metrics: &Metrics) -> Recordings {
    Recordings::open(config, root, floor, metrics, Audit::default()).unwrap()
}

fn noise(bytes: usize) -> String {
    let mut noise = vec![0; bytes / 2];
    rand::fill(&mut noise[..]);
    hex::encode(noise)
}

async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What is read of a recording: its output, its marks, and why no more was.
fn read(mut reader: Reader) -> (String, Vec<String>, Option<Broken>) {
    let (mut output, mut marks) = (String::new(), Vec::new());
    loop {
        match reader.line() {
            Ok(Some(line)) => match cast::parse(&line) {
                Some((_, What::Output(text))) => output.push_str(&text),
                Some((_, What::Mark(words))) => marks.push(words),
                _ => {}
            },
            Ok(None) => return (output, marks, None),
            Err(why) => return (output, marks, Some(why)),
        }
    }
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_floor(0, change)
    }

    fn with_floor(floor: u64, change: impl FnOnce(&mut Config)) -> Self {
        let (dir, metrics, mut config) = (tempfile::tempdir().unwrap(), Metrics::new().unwrap(), Config::default());
        change(&mut config);
        let recordings = open(&config, &dir.path().join("recordings"), floor, &metrics);
        Self { dir, metrics, config, recordings }
    }

    async fn all(&self) -> Vec<Recorded> {
        self.recordings.list(|_, _, _| true).await.unwrap()
    }

    async fn state(&self, id: RecordingId) -> Option<State> {
        self.recordings.get(id).await.ok().map(|recorded| recorded.state)
    }

    /// Records this and waits until it is whole.
    async fn record(&self, workspace: &str, output: &str) -> RecordingId {
        let tap = self.recordings.begin(start(workspace)).unwrap();
        let id = tap.view().id();
        tap.output(output.as_bytes());
        drop(tap);
        until("it to be whole", async || self.state(id).await == Some(State::Complete)).await;
        id
    }

    fn files(&self) -> Vec<String> {
        let all = fs::read_dir(self.dir.path().join("recordings")).unwrap();
        let mut all: Vec<String> = all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    }

    fn failures(&self, why: Failure) -> u64 {
        self.metrics.recording_failures.with_label_values(&[why.label()]).get()
    }
}

fn with_key(config: &mut Config) {
    config.key = Some("0123456789abcdef0123456789abcdef".to_owned().into());
}

#[tokio::test]
async fn what_was_shown_is_read_back_and_asciinema_could_read_it() {
    for keyed in [false, true] {
        let world = World::new(|config| {
            if keyed {
                with_key(config)
            }
        });
        let tap = world.recordings.begin(start("alice")).unwrap();
        let id = tap.view().id();
        let shown = "$ ls\r\n\x1b[31m\u{1F600}é\x1b[0m\x07\u{0}\\\"".repeat(500);
        for piece in shown.as_bytes().chunks(7) {
            tap.output(piece);
        }
        tap.resized(80, 24);
        tap.resized(100, 30);
        tap.ends(End::Exited("status 3".to_owned()));
        drop(tap);
        until("it to be whole", async || world.state(id).await == Some(State::Complete)).await;
        let recorded = world.recordings.get(id).await.unwrap();
        assert_eq!((recorded.workspace.as_str(), recorded.account.as_str(), recorded.session), ("alice", "al\x1bice", 7));
        assert_eq!((recorded.encrypted, recorded.ended.is_some()), (keyed, true));
        let (output, marks, why) = read(world.recordings.read(id).await.unwrap());
        assert!(output == shown && why.is_none());
        assert_eq!(marks, ["the session ended: status 3"]);
        let files = world.files();
        let kind = if keyed { "sealed" } else { "cast.zst" };
        assert_eq!(files, [format!("{id}.{kind}")]);
        let path = world.dir.path().join("recordings").join(&files[0]);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), recorded.bytes);
        if keyed {
            let mut other = world.config.clone();
            other.key = Some("another key, just as long as that one".to_owned().into());
            for (config, damaged) in [(other, true), (Config::default(), false)] {
                let later = open(&config, &world.dir.path().join("recordings"), 0, &world.metrics);
                let why = match later.read(id).await {
                    Ok(reader) => read(reader).2,
                    Err(RecordingsError::Broken(why)) => Some(why),
                    Err(why) => panic!("{why}"),
                };
                assert!(if damaged { matches!(why, Some(Broken::Damaged(_))) } else { matches!(why, Some(Broken::NoKey)) }, "{why:?}");
            }
        } else {
            // What stands before it is skipped, as `zstd -dc` does.
            let text = String::from_utf8(zstd::decode_all(&fs::read(&path).unwrap()[..]).unwrap()).unwrap();
            assert!(text.starts_with("{") && text.lines().next().unwrap().contains("\"version\":2"), "{}", &text[..100]);
            assert!(text.contains(", \"r\", \"100x30\"]\n") && text.matches("\"r\"").count() == 1);
        }
    }
}

#[tokio::test]
async fn what_a_kill_leaves_is_read_up_to_there_and_known_to_be_cut() {
    for keyed in [false, true] {
        let world = World::new(|config| {
            if keyed {
                with_key(config)
            }
        });
        let tap = world.recordings.begin(start("alice")).unwrap();
        let id = tap.view().id();
        let first = noise(100_000);
        tap.output(first.as_bytes());
        let (output, _, why) = read(world.recordings.read(id).await.unwrap());
        assert!(output == first && matches!(why, Some(Broken::Cut)), "one that goes on is read so far: {why:?}");
        assert_eq!(world.state(id).await, Some(State::Recording));
        // What is on the disk by itself within seconds is what a kill leaves.
        let copy = tempfile::tempdir().unwrap();
        let name = world.files().remove(0);
        let path = world.dir.path().join("recordings").join(&name);
        let before = fs::metadata(&path).unwrap().len();
        tap.output(b"second");
        until("it to be on the disk", async || fs::metadata(&path).unwrap().len() > before).await;
        let bytes = fs::read(&path).unwrap();
        for cut in [0, 4, 100, 300, bytes.len() / 2, bytes.len() - 1] {
            fs::write(copy.path().join(&name), &bytes[..bytes.len() - cut]).unwrap();
            let later = open(&world.config, copy.path(), 0, &world.metrics);
            assert_eq!(later.get(id).await.map(|recorded| recorded.state).ok(), (cut < bytes.len() - 1).then_some(State::Cut), "{cut}");
            if cut == bytes.len() - 1 {
                assert_eq!(fs::read_dir(copy.path()).unwrap().count(), 0, "what has not even a beginning is nothing");
                continue;
            }
            let (output, marks, why) = read(later.read(id).await.unwrap());
            let whole = first.clone() + "second";
            assert!(whole.starts_with(&output) && (cut > 0 || output == whole), "{cut}: {}", output.len());
            assert!(marks.is_empty() && matches!(why, Some(Broken::Cut)), "{cut}: {why:?}");
        }
    }
}

#[tokio::test]
async fn the_oldest_go_when_the_quota_is_used_up_and_one_that_goes_on_ends_at_it() {
    let world = World::new(|config| (config.quota, config.largest) = (Size::bytes(400_000), Size::bytes(400_000)));
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(world.record("alice", &noise(200_000)).await);
        let used: u64 = world.all().await.iter().map(|recorded| recorded.bytes).sum();
        assert!(used <= 400_000, "{used}");
    }
    let left: Vec<RecordingId> = world.all().await.iter().map(|recorded| recorded.id).collect();
    assert!((2..5).contains(&left.len()) && ids.ends_with(&left), "{left:?} of {ids:?}");
    assert_eq!(world.files().len(), left.len());
    let tap = world.recordings.begin(start("bob")).unwrap();
    let (view, id) = (tap.view(), tap.view().id());
    let failing = async {
        for _ in 0..100 {
            tap.output(noise(20_000).as_bytes());
            // Written before more comes: what waits when the quota is used up is written still.
            drop(world.recordings.read(id).await);
        }
    };
    let ((), why) = tokio::join!(failing, view.over());
    assert!(matches!(why, Some(Failure::Quota)), "{why:?}");
    until("it to be whole", async || world.state(id).await == Some(State::Complete)).await;
    let (_, marks, broken) = read(world.recordings.read(id).await.unwrap());
    assert_eq!(marks, ["the recording ended: recordings that go on take all of recording.quota"]);
    assert!(broken.is_none());
    assert_eq!(world.failures(Failure::Quota), 1);
    let used: u64 = world.all().await.iter().map(|recorded| recorded.bytes).sum();
    assert!(used <= 400_000, "{used}");
    // Found again as they are, and the quota held by the next process too.
    let mut config = world.config.clone();
    config.quota = Size::bytes(1000);
    let later = open(&config, &world.dir.path().join("recordings"), 0, &world.metrics);
    assert_eq!(later.list(|_, _, _| true).await.unwrap(), []);
}

#[tokio::test]
async fn one_that_is_as_large_as_it_may_be_ends_and_says_so() {
    let world = World::new(|config| config.largest = Size::bytes(50_000));
    let tap = world.recordings.begin(start("alice")).unwrap();
    // Hexadecimal digits become half as many bytes. The thread may find it too large before all of it was shown.
    let shown = noise(150_000);
    tap.output(shown.as_bytes());
    assert_eq!(tap.view().over().await, Some(Failure::Largest));
    tap.output(b"unseen");
    let id = tap.view().id();
    until("it to be whole", async || world.state(id).await == Some(State::Complete)).await;
    let (output, marks, _) = read(world.recordings.read(id).await.unwrap());
    assert!(shown.starts_with(&output) && output.len() > 80_000, "{}", output.len());
    assert_eq!(marks, vec!["the recording ended: it is as large as recording.largest".to_owned()]);
}

#[tokio::test]
async fn a_disk_that_is_full_or_takes_nothing_ends_recordings_and_nothing_else() {
    let low = World::with_floor(u64::MAX, |_| ());
    let tap = low.recordings.begin(start("alice")).unwrap();
    assert_eq!(tap.view().over().await, Some(Failure::DiskLow));
    assert_eq!((low.failures(Failure::DiskLow), low.files().len()), (1, 0));
    let gone = World::new(|_| ());
    gone.all().await;
    fs::remove_dir(gone.dir.path().join("recordings")).unwrap();
    let tap = gone.recordings.begin(start("alice")).unwrap();
    assert_eq!(tap.view().over().await, Some(Failure::Disk));
    tap.output(b"goes on");
    drop(tap);
    assert_eq!(gone.failures(Failure::Disk), 1);
}

#[test]
fn nobody_waits_for_a_disk_that_does_not_keep_up() {
    let (orders, _nobody) = sync_channel(1);
    let metrics = Metrics::new().unwrap();
    let waiting = Arc::new(AtomicUsize::new(0));
    let shared =
        Shared { orders, index: Arc::default(), metrics, audit: Audit::default(), waiting: Arc::clone(&waiting), floor: Arc::default() };
    let meta = Meta {
        workspace: "alice".parse().unwrap(),
        account: "alice".to_owned(),
        template: "default".parse().unwrap(),
        session: 1,
        columns: 80,
        rows: 24,
        salt: None,
    };
    let live = Arc::new(Live::new(meta, false, shared.clone()).unwrap());
    let tap = Tap::new(Arc::clone(&live));
    for _ in 0..200 {
        tap.output(noise(100_000).as_bytes());
    }
    assert_eq!(shared.metrics.recording_failures.with_label_values(&["slow"]).get(), 1);
    let (bytes, last) = live.drain();
    assert!(last && bytes.len() < 5 * 1024 * 1024, "{}", bytes.len());
    assert_eq!(waiting.load(std::sync::atomic::Ordering::Relaxed), 0);
    let text = String::from_utf8(zstd::decode_all(&bytes[..]).unwrap()).unwrap();
    assert!(text.ends_with("\"the recording ended: the disk does not keep up\"]\n"));
}

#[tokio::test]
async fn they_go_when_they_are_old_or_removed_or_their_workspace_is() {
    let world = World::new(|config| config.keep = Span::secs(1));
    let old = world.record("alice", "old").await;
    until("it to be too old", async || world.state(old).await.is_none()).await;
    let world = World::new(|_| ());
    let (one, other) = (world.record("alice", "one").await, world.record("bob", "other").await);
    let tap = world.recordings.begin(start("alice")).unwrap();
    let live = tap.view().id();
    until("it to begin", async || world.state(live).await.is_some()).await;
    assert!(matches!(world.recordings.remove(live).await, Err(RecordingsError::GoesOn)));
    world.recordings.remove(other).await.unwrap();
    assert!(matches!(world.recordings.remove(other).await, Err(RecordingsError::None)));
    assert!(matches!(world.recordings.read(other).await, Err(RecordingsError::None)));
    let alice = "alice".parse().unwrap();
    assert_eq!(world.recordings.workspace_deleted(&alice).await.unwrap(), 2, "{one} and the one that goes on");
    assert_eq!(world.recordings.workspace_deleted(&alice).await.unwrap(), 0);
    tap.output(b"more");
    drop(tap);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.files(), Vec::<String>::new());
    let kept = World::new(|config| config.when_deleted = WhenDeleted::Keep);
    let id = kept.record("alice", "kept").await;
    assert_eq!(kept.recordings.workspace_deleted(&alice).await.unwrap(), 0);
    assert_eq!(kept.state(id).await, Some(State::Complete));
}

#[tokio::test]
async fn a_screen_is_watched_by_a_few_and_no_watcher_holds_it_up() {
    let world = World::new(|_| ());
    let tap = world.recordings.begin(start("alice")).unwrap();
    tap.output(b"\x1b[31mhello\x1b]0;title\x07");
    let view = tap.view();
    let mut watch = view.watch().unwrap();
    let began = Instant::now();
    let frame = watch.next().await.unwrap();
    assert_eq!((frame.lines[0].as_str(), frame.columns, frame.rows), ("hello", 80, 24));
    let slow: Vec<Watch> = (0..3).map(|_| view.watch().unwrap()).collect();
    assert!(view.watch().is_none());
    assert_eq!(view.watchers(), 4);
    for number in 0..1000 {
        tap.output(format!("\r\nline {number}").as_bytes());
    }
    let frame = watch.next().await.unwrap();
    assert!(frame.lines.contains(&"line 999".to_owned()), "{:?}", frame.lines);
    assert!(began.elapsed() >= Duration::from_millis(100), "at most eight a second");
    drop(slow);
    assert_eq!(view.watchers(), 1);
    drop(tap);
    assert!(watch.next().await.is_none());
    let unwatched = world.recordings.begin(Start { watchable: false, ..start("alice") }).unwrap();
    assert!(unwatched.view().watch().is_none() && !unwatched.view().is_watchable());
}

#[tokio::test]
async fn a_recording_is_played_at_its_pace() {
    let world = World::new(|_| ());
    let tap = world.recordings.begin(start("alice")).unwrap();
    let id = tap.view().id();
    for text in ["one", " two", " three"] {
        tap.output(text.as_bytes());
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    tap.resized(20, 5);
    drop(tap);
    until("it to be whole", async || world.state(id).await == Some(State::Complete)).await;
    let played = async |pace: Pace| {
        let (mut waited, mut frames) = (Duration::ZERO, Vec::new());
        let reader = world.recordings.read(id).await.unwrap();
        let wait = &mut |pause| {
            waited += pause;
            true
        };
        let show = &mut |frame: Frame| {
            frames.push(frame.lines[0].clone());
            true
        };
        assert!(play(reader, (80, 24), pace, wait, show).unwrap());
        (waited.as_secs_f64(), frames)
    };
    let usual = Pace { speed: 1.0, from: 0.0, idle: 1e7 };
    let (waited, frames) = played(usual).await;
    assert!((1.1..2.5).contains(&waited), "{waited}");
    assert_eq!(frames[frames.len() - 3..], ["one two", "one two three", "one two three"], "{frames:?}");
    assert!(played(Pace { speed: 10.0, ..usual }).await.0 < 0.3);
    assert!(played(Pace { idle: 0.1, ..usual }).await.0 < 0.6);
    let (waited, frames) = played(Pace { from: 0.6, ..usual }).await;
    assert!(waited < 1.8 && frames.iter().all(|line| line != "one"), "{frames:?}");
}
