//! The repository as the gateway sees it: each operation is a worker, one at a time.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::protocol::{Event, LONGEST_LINE, Operation, Outcome, Place, Request};
use super::{
    Backup, BackupError, Config, Done, Keep, MOST_SETTINGS, Progress, Pruned, Reason, Report, Restored, Root, Subject, Target, WORKER,
};
use crate::bucket;

/// How long a worker may go without getting any further. A request to a target that is far away gives up long before.
const STANDSTILL: Duration = Duration::from_secs(60 * 60);

/// How long a worker has to end once it has said how it went.
const FAREWELL: Duration = Duration::from_secs(10);

/// How long another gateway's operation on the same directory is waited for.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The most backups that are listed: a thousand homes with a thousand each.
const MOST_LISTED: usize = 1_000_000;

/// The password of a repository whose configuration has none. The format has no repository without.
const NO_KEY: &str = "innkeeper";

/// Variables that a worker needs to find the network; it gets no others.
const VARIABLES: &[&str] =
    &["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"];

/// Whoever wants to hear how far an operation is.
pub type Stage<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// The repository that a configuration names. Cheap to clone.
///
/// Dropping the future of an operation kills its worker. That leaves a repository as good as it was.
#[derive(Clone)]
pub struct Backups {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    password: SecretString,
    cache: Option<PathBuf>,
    threads: usize,
    rate: u64,
    keep: Keep,
    /// What it is called in the configuration.
    target: String,
    /// How much of the data a verification reads that nobody asked for.
    share: f64,
    patience: Duration,
    program: PathBuf,
    /// One operation at a time: two would fight for the same disk, and for the repository.
    turn: Mutex<()>,
}

impl Backups {
    /// Reads the configuration; `None` where it has no target. Nothing is opened yet: a target may come and go. `cache` is a directory
    /// of root's own, for what is needed again of a repository that is far away.
    pub fn open(config: &Config, cache: Option<PathBuf>) -> Result<Option<Self>, BackupError> {
        let off = |why: String| BackupError::new(Reason::Off, format!("backup.target {why}"));
        let place = match config.target().map_err(off)? {
            None => return Ok(None),
            Some(Target::Directory(path)) => Place::Directory(path),
            Some(Target::S3(location)) => {
                Place::S3(bucket::Place::new(&config.s3, location, "backup.s3").map_err(|why| BackupError::new(Reason::Denied, why))?)
            }
        };
        let inner = Inner {
            place,
            password: config.key.clone().unwrap_or_else(|| NO_KEY.into()),
            cache,
            threads: usize::try_from(config.threads).unwrap_or(1).max(1),
            rate: config.rate.get(),
            keep: config.keep(),
            target: config.target.clone(),
            share: f64::from(config.verify_percent) / 100.0,
            patience: PATIENCE,
            program: PathBuf::from("/proc/self/exe"),
            turn: Mutex::new(()),
        };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// The same with another program as worker, and another patience with other gateways: where this program is a test.
    #[must_use]
    pub fn with_worker(self, program: PathBuf, patience: Duration) -> Self {
        let old = &self.inner;
        let inner = Inner {
            place: old.place.clone(),
            password: old.password.clone(),
            cache: old.cache.clone(),
            threads: old.threads,
            rate: old.rate,
            keep: old.keep,
            target: old.target.clone(),
            share: old.share,
            patience,
            program,
            turn: Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What it is called in the configuration.
    pub fn target(&self) -> &str {
        &self.inner.target
    }

    /// How much of the data a verification reads that nobody asked for, from 0 to 1.
    pub fn share(&self) -> f64 {
        self.inner.share
    }

    /// Makes a backup.
    pub async fn run(&self, subject: Subject, stage: Stage<'_>) -> Result<Done, BackupError> {
        if subject.settings.as_ref().is_some_and(|settings| settings.len() > MOST_SETTINGS) {
            return Err(BackupError::new(Reason::Home, "what is set of it is too long to be in a backup"));
        }
        match self.operate(Operation::Run(subject), stage, &mut Vec::new()).await? {
            Outcome::Run(done) => Ok(done),
            other => Err(confused(&other)),
        }
    }

    /// The backups there are, of one home or of all, the newest first.
    pub async fn list(&self, home: Option<&str>) -> Result<Vec<Backup>, BackupError> {
        self.listed(home, false).await
    }

    /// The same of one home, with what is to be known of each.
    pub async fn list_with_settings(&self, home: &str) -> Result<Vec<Backup>, BackupError> {
        self.listed(Some(home), true).await
    }

    async fn listed(&self, home: Option<&str>, settings: bool) -> Result<Vec<Backup>, BackupError> {
        let mut listed = Vec::new();
        self.operate(Operation::List { home: home.map(ToOwned::to_owned), settings }, &|_| (), &mut listed).await?;
        listed.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
        Ok(listed)
    }

    /// Reads the repository and says what is wrong with it, and whose backups that hits. Of the data only `share` is read, from 0 to 1.
    pub async fn verify(&self, share: f64, stage: Stage<'_>) -> Result<Report, BackupError> {
        match self.operate(Operation::Verify { share }, stage, &mut Vec::new()).await? {
            Outcome::Verified(report) => Ok(report),
            other => Err(confused(&other)),
        }
    }

    /// Puts what a backup has under these names into empty directories that nobody else reaches. If it fails, what is there is not whole.
    pub async fn restore(&self, id: &str, into: Vec<Root>, stage: Stage<'_>) -> Result<Restored, BackupError> {
        let operation = Operation::Restore { id: id.to_owned(), into };
        match self.operate(operation, stage, &mut Vec::new()).await? {
            Outcome::Restored(restored) => Ok(restored),
            other => Err(confused(&other)),
        }
    }

    /// Takes out every backup of a home, and its data.
    pub async fn forget(&self, home: &str, stage: Stage<'_>) -> Result<Pruned, BackupError> {
        self.prune(Operation::Forget { home: home.to_owned() }, stage).await
    }

    /// Takes out the backups that the configuration does not keep, and what killed workers left.
    pub async fn retain(&self, stage: Stage<'_>) -> Result<Pruned, BackupError> {
        let Keep { last, age } = self.inner.keep;
        self.prune(Operation::Retain { last, seconds: age.as_secs() }, stage).await
    }

    async fn prune(&self, operation: Operation, stage: Stage<'_>) -> Result<Pruned, BackupError> {
        match self.operate(operation, stage, &mut Vec::new()).await? {
            Outcome::Pruned(pruned) => Ok(pruned),
            other => Err(confused(&other)),
        }
    }

    async fn operate(&self, operation: Operation, stage: Stage<'_>, listed: &mut Vec<Backup>) -> Result<Outcome, BackupError> {
        let inner = &*self.inner;
        // A list changes nothing and is what a person waits for.
        let _turn = match operation {
            Operation::List { .. } => None,
            _ => Some(inner.turn.lock().await),
        };
        let request = Request {
            place: inner.place.clone(),
            password: inner.password.expose_secret().to_owned(),
            cache: inner.cache.clone(),
            threads: inner.threads,
            rate: inner.rate,
            patience: inner.patience.as_secs(),
            operation,
        };
        let mut line = serde_json::to_vec(&request).map_err(|why| failed(&why))?;
        line.push(b'\n');
        let mut child = start(&inner.program).map_err(|why| failed(&why))?;
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(&"it has no pipes"));
        };
        timeout(FAREWELL, stdin.write_all(&line)).await.map_err(|late| failed(&late))?.map_err(|why| failed(&why))?;
        let outcome = listen(BufReader::new(stdout), stage, listed).await;
        // Its end of input tells the worker to go, if it has not.
        drop(stdin);
        if timeout(FAREWELL, child.wait()).await.is_err() {
            let _ = child.start_kill();
        }
        outcome
    }
}

fn start(program: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg(WORKER).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).current_dir("/").env_clear();
    command.envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.kill_on_drop(true).spawn()
}

/// Listens until a worker has said how it went.
async fn listen(
    mut stdout: BufReader<impl tokio::io::AsyncRead + Unpin>,
    stage: Stage<'_>,
    listed: &mut Vec<Backup>,
) -> Result<Outcome, BackupError> {
    let mut last = Progress::default();
    let mut moved = Instant::now();
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut stdout).take(LONGEST_LINE as u64);
        let read = tokio::time::timeout_at(moved + STANDSTILL, bounded.read_until(b'\n', &mut line)).await;
        match read {
            Err(_) => return Err(failed(&format!("it got no further for {}", humantime::format_duration(STANDSTILL)))),
            Ok(Err(why)) => return Err(failed(&why)),
            Ok(Ok(0)) => return Err(failed(&"it died; the kernel's log may say why")),
            Ok(Ok(_)) => {}
        }
        match serde_json::from_slice(&line).map_err(|why| failed(&why))? {
            Event::Progress(progress) => {
                if progress != last {
                    (last, moved) = (progress, Instant::now());
                    stage(progress);
                }
                // A worker tells that it stands still, too: then the time runs on.
                if moved.elapsed() > STANDSTILL {
                    return Err(failed(&format!("it got no further for {}", humantime::format_duration(STANDSTILL))));
                }
            }
            Event::Listed(backup) => {
                if listed.len() < MOST_LISTED {
                    listed.push(backup);
                }
                moved = Instant::now();
            }
            Event::Done(outcome) => return Ok(outcome),
            Event::Failed(why) => return Err(why),
        }
    }
}

fn failed(why: &dyn std::fmt::Display) -> BackupError {
    BackupError::new(Reason::Worker, format!("the backup's worker failed: {why}"))
}

fn confused(outcome: &Outcome) -> BackupError {
    failed(&format_args!("it answered something else: {outcome:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn heard(lines: &[u8]) -> (Result<Outcome, BackupError>, usize) {
        let mut listed = Vec::new();
        let outcome = listen(BufReader::new(lines), &|_| (), &mut listed).await;
        (outcome, listed.len())
    }

    #[tokio::test]
    async fn a_worker_that_dies_or_babbles_is_an_error() {
        for lines in [&b""[..], b"{\"Progress\":{\"files\":1,\"bytes\":2}}\n", b"hello\n", &[b'x'; 2 * LONGEST_LINE]] {
            assert_eq!(heard(lines).await.0.unwrap_err().reason, Reason::Worker);
        }
        assert!(matches!(heard(b"{\"Done\":\"Listed\"}\n").await.0, Ok(Outcome::Listed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_only_says_that_it_stands_still_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            loop {
                if theirs.write_all(b"{\"Progress\":{\"files\":1,\"bytes\":2}}\n").await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
        });
        let start = Instant::now();
        let error = listen(BufReader::new(ours), &|_| (), &mut Vec::new()).await.unwrap_err();
        assert_eq!(error.reason, Reason::Worker);
        assert!(start.elapsed() >= STANDSTILL && start.elapsed() < STANDSTILL + Duration::from_secs(60));
    }

    #[test]
    fn a_target_in_s3_without_keys_says_where_they_go() {
        let config = Config { target: "s3://b".to_owned(), ..Config::default() };
        if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
            let error = Backups::open(&config, None).err().unwrap();
            assert!(error.reason == Reason::Denied && error.message.contains("access_key_file"), "{error}");
        }
        assert!(Backups::open(&Config::default(), None).unwrap().is_none());
    }
}
