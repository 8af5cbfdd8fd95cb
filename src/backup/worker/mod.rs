//! The worker: does one operation on a repository and ends.
//!
//! It is root and reads what strangers wrote, so it has nothing else: no socket, no engine, no key but the repository's. Its input
//! stays open for as long as its parent lives and wants it; when that ends, it ends, wherever it is.

mod directory;
mod extents;
mod hiding;
mod mode;
mod notes;
mod repository;
mod restore;
mod s3;
mod snapshots;
mod source;
mod throttle;
mod trouble;
mod verify;

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use rustic_core::jiff::Span;
use rustic_core::repofile::{SnapshotFile, SnapshotId};
use rustic_core::{BackupOptions, Id, LimitOption, OpenStatus, ParentOptions, PruneOptions, Repository, SnapshotGroupCriterion};
use rustix::fs::{self, Dir, Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use self::notes::Notes;
use self::repository::Opened;
use self::source::Tree;
use self::throttle::Throttle;
use self::trouble::Trouble;
use super::protocol::{Event, LONGEST_LINE, Operation, Outcome, Request};
use super::{Backup, BackupError, Done, Keep, Pruned, Reason, Report, Restored, surplus};

/// How often the parent is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The priority of what nobody waits for: on a busy machine about a tenth of what others get, so that it neither is in their way nor takes for
/// ever. The disk follows it.
const NICE: i32 = 10;

/// Reads one request from standard input, does it, and tells on standard output. Whether it was done.
pub fn main() -> bool {
    let stdin = io::stdin();
    let mut line = String::new();
    let read = stdin.lock().take(LONGEST_LINE as u64).read_line(&mut line);
    let Some(request) = read.ok().and_then(|_| serde_json::from_str::<Request>(&line).ok()) else {
        return false;
    };
    drop(line);
    std::thread::spawn(end_with_parent);
    step_back(&request);
    let tell = Tell::default();
    let notes = Notes::default();
    let ended = std::thread::scope(|scope| {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (teller, told) = (&tell, &notes);
        scope.spawn(move || {
            while wait.recv_timeout(TELL_EVERY).is_err_and(|why| why == std::sync::mpsc::RecvTimeoutError::Timeout) {
                teller.tell(&Event::Progress(told.progress()));
            }
        });
        let ended = perform(&request, &notes, &tell);
        drop(done);
        ended
    });
    tell.tell(&Event::Progress(notes.progress()));
    match ended {
        Ok(outcome) => {
            tell.tell(&Event::Done(outcome));
            true
        }
        Err(why) => {
            tell.tell(&Event::Failed(why));
            false
        }
    }
}

/// Writes whole lines, one at a time.
#[derive(Default)]
struct Tell(Mutex<()>);

impl Tell {
    fn tell(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_string(event) else { return };
        line.push('\n');
        let _one = self.0.lock();
        // Whoever does not listen any more has ended standard input as well.
        let _ = io::stdout().lock().write_all(line.as_bytes());
    }
}

/// Waits until the parent is gone or wants no more, and ends everything.
fn end_with_parent() {
    let mut stdin = io::stdin().lock();
    let mut ignored = [0; 64];
    while stdin.read(&mut ignored).is_ok_and(|read| read > 0) {}
    std::process::exit(1);
}

/// Leaves the machine to others. What is refused costs speed, not the backup.
fn step_back(request: &Request) {
    match request.operation {
        // Somebody waits for these.
        Operation::Restore { .. } | Operation::List { .. } => {}
        Operation::Run(_) | Operation::Verify { .. } | Operation::Forget { .. } | Operation::Retain { .. } => {
            let _ = setpriority_process(None, NICE);
        }
    }
    // The kernel takes the worker, if memory runs out, before it takes the gateway.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    // What counts processors to know how many threads to start counts these.
    if let Ok(all) = sched_getaffinity(None) {
        let mut few = CpuSet::new();
        let allowed = (0..CpuSet::MAX_CPU).rev().filter(|cpu| all.is_set(*cpu));
        allowed.take(request.threads.max(1)).for_each(|cpu| few.set(cpu));
        let _ = sched_setaffinity(None, &few);
    }
}

fn perform(request: &Request, notes: &Notes, tell: &Tell) -> Result<Outcome, BackupError> {
    let trouble = Trouble::default();
    let opened = repository::open(request, notes, &trouble)?;
    match (&request.operation, opened) {
        (Operation::Run(subject), Some(opened)) => {
            let tree = Tree::open(subject, notes, Throttle::new(request.rate))?;
            run(opened.repo, &tree, snapshots::begin(subject), notes, &trouble).map(Outcome::Run)
        }
        (Operation::Run(_), None) => Err(BackupError::new(Reason::NoTarget, "the repository could not be made")),
        (Operation::List { home, settings }, opened) => {
            for snapshot in opened.map_or_else(|| Ok(Vec::new()), |opened| read(&opened.repo, &trouble))? {
                let listed = snapshots::describe(&snapshot).filter(|backup| home.as_ref().is_none_or(|home| *home == backup.home));
                let settings = snapshot.description.filter(|_| *settings);
                listed.into_iter().for_each(|backup| tell.tell(&Event::Listed(Backup { settings: settings.clone(), ..backup })));
            }
            Ok(Outcome::Listed)
        }
        (Operation::Verify { .. }, None) => Ok(Outcome::Verified(Report::default())),
        (Operation::Verify { share }, Some(Opened { repo, backend, hidden, .. })) => {
            verify::verify(repo, &*backend, &hidden, share.clamp(0.0, 1.0), request.threads, notes, &trouble).map(Outcome::Verified)
        }
        (Operation::Restore { id, into }, opened) => {
            let found = opened.map(|opened| find(&opened.repo, id).map(|snapshot| (opened, snapshot))).transpose()?;
            let (opened, snapshot) = found.ok_or_else(|| no_such_backup(id))?;
            let into = into.iter().map(|root| Ok((root.name.clone(), fresh(&root.path)?))).collect::<Result<Vec<_>, _>>()?;
            let repo = opened.repo.to_indexed().map_err(|why| trouble.explain(&why, "read the repository's index"))?;
            for (name, root) in &into {
                restore::restore(&repo, &snapshot, name, root, request.threads, notes, &trouble)?;
            }
            let (left_out, examples) = notes.noted();
            let progress = notes.progress();
            Ok(Outcome::Restored(Restored { files: progress.files, bytes: progress.bytes, left_out, examples }))
        }
        (Operation::Forget { .. } | Operation::Retain { .. }, None) => Ok(Outcome::Pruned(Pruned::default())),
        (Operation::Forget { home }, Some(opened)) => {
            let gone = read(&opened.repo, &trouble)?
                .into_iter()
                .filter(|snapshot| snapshots::describe(snapshot).is_some_and(|backup| backup.home == *home));
            // Whoever is deleted is to be gone, so nothing is left over for the sake of speed.
            let gone: Vec<SnapshotId> = gone.map(|snapshot| snapshot.id).collect();
            prune(&opened, &gone, LimitOption::Size(bytesize::ByteSize(0)), &trouble).map(Outcome::Pruned)
        }
        (Operation::Retain { last, seconds }, Some(opened)) => {
            let all: Vec<_> = read(&opened.repo, &trouble)?.iter().filter_map(snapshots::describe).collect();
            let keep = Keep { last: *last, age: Duration::from_secs(*seconds) };
            let gone: Vec<SnapshotId> = surplus(&all, keep, std::time::SystemTime::now())
                .iter()
                .filter_map(|backup| backup.id.parse::<Id>().ok().map(SnapshotId::from))
                .collect();
            prune(&opened, &gone, LimitOption::Percentage(5), &trouble).map(Outcome::Pruned)
        }
    }
}

fn run(repo: Repository<OpenStatus>, tree: &Tree, snapshot: SnapshotFile, notes: &Notes, trouble: &Trouble) -> Result<Done, BackupError> {
    let explain = |why: Box<rustic_core::RusticError>| trouble.explain(&why, "make the backup");
    let repo = repo.to_indexed_ids().map_err(explain)?;
    // The last backup of the same home, whatever it had: what is new is only read anew.
    let parent = ParentOptions::default().group_by(SnapshotGroupCriterion::new().hostname(true));
    let options = BackupOptions::default().no_scan(true).parent_opts(parent);
    let done = repo.archive(&options, tree, snapshot, &tree.paths()).map_err(explain)?;
    if let Some(lost) = notes.lost() {
        // It is in the repository now, and is not what it says: with a whole directory missing it is worth less than none.
        let gone = repo.delete_snapshots(&[done.id]).map_err(explain);
        gone?;
        return Err(BackupError::new(Reason::Home, format!("{lost} could not be read")));
    }
    let (left_out, examples) = notes.noted();
    let summary = done.summary.unwrap_or_default();
    Ok(Done {
        id: done.id.to_hex().to_string(),
        files: summary.total_files_processed,
        bytes: summary.total_bytes_processed,
        new_bytes: summary.data_added_packed,
        left_out,
        examples,
    })
}

fn read(repo: &Repository<OpenStatus>, trouble: &Trouble) -> Result<Vec<SnapshotFile>, BackupError> {
    Ok(snapshots::read(repo).map_err(|why| trouble.explain(&why, "list the backups"))?.0)
}

fn find(repo: &Repository<OpenStatus>, id: &str) -> Result<SnapshotFile, BackupError> {
    let parsed: Id = id.parse().map_err(|_| no_such_backup(id))?;
    let id_of = SnapshotId::from(parsed);
    let mut snapshot: SnapshotFile = repo.get_file(&id_of).map_err(|_| no_such_backup(id))?;
    snapshot.id = id_of;
    Ok(snapshot)
}

fn no_such_backup(id: &str) -> BackupError {
    let id: String = id.chars().take(64).collect();
    BackupError::new(Reason::NoBackup, format!("there is no backup {id:?} that can be read; `innkeeper backup list` shows what there is"))
}

/// Opens a directory to be restored into. It is empty: nothing that is there is mixed with what was.
fn fresh(into: &Path) -> Result<std::os::fd::OwnedFd, BackupError> {
    let unusable = |why: String| BackupError::new(Reason::Home, format!("cannot restore into {}: {why}", into.display()));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = fs::open(into, flags, Mode::empty()).map_err(|why| unusable(why.to_string()))?;
    let entries = Dir::read_from(&root).map_err(|why| unusable(why.to_string()))?;
    for entry in entries.flatten() {
        if entry.file_name() != c"." && entry.file_name() != c".." && entry.file_name() != c"lost+found" {
            return Err(unusable("it is not empty".to_owned()));
        }
    }
    Ok(root)
}

/// Takes backups out, and then whatever nobody needs any more: their data, and what a killed worker left.
fn prune(opened: &Opened, gone: &[SnapshotId], unused: LimitOption, trouble: &Trouble) -> Result<Pruned, BackupError> {
    let explain = |why: Box<rustic_core::RusticError>| trouble.explain(&why, "take backups out");
    opened.repo.delete_snapshots(gone).map_err(explain)?;
    let mut options = PruneOptions::default();
    options.max_unused = unused;
    options.max_repack = LimitOption::Unlimited;
    // Where another gateway may be writing a backup, what it may have found there and counts on stays for a day.
    options.instant_delete = opened.alone;
    options.keep_delete = Span::new().hours(23);
    let plan = opened.repo.prune_plan(&options).map_err(explain)?;
    let size = plan.stats.size_sum();
    opened.repo.prune(&options, plan).map_err(explain)?;
    Ok(Pruned { backups: gone.len() as u64, bytes: size.remove + size.repackrm })
}
