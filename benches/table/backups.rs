//! A home's backup into a directory, the same again with nothing changed, and a restore, beside tar and zstd in a pipe.
//!
//! Both sides have it on the disk at the end, on one file system of the run's own, which is made quiet before each. Of ours the start of
//! the worker, its encryption and its checks are in the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use innkeeper::backup::{Backups, Config, Root, Subject};
use tokio::runtime::Runtime;

use super::Run;
use crate::archives::{count, pipe, seconds, untar};
use crate::filesystem::{FileSystem, run as must};
use crate::report::{Row, round as digits};
use crate::samples::Samples;
use crate::trees;

/// How long it may take, as a multiple of what tar and zstd take.
const BOUND: f64 = 1.2;

/// How long a backup may take of what has not changed, as a part of the first.
const UNCHANGED: f64 = 0.1;

/// The tree, what is restored of it, a repository and an archive: a sparse file, of which only what is written takes room.
const BYTES: u64 = 24 << 30;

/// How long a worker waits for another. There is none.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let made = FileSystem::make(&run.place, "backups", "ext4", BYTES, "noatime,noinit_itable")?;
    let fs = made.map_err(anyhow::Error::msg).context("an ext4 in a file")?;
    let files = run.repetitions(100_000, 10_000);
    let ground = Ground::new(fs.path())?;
    trees::small_files(&ground.tree, files)?;
    let mut rows = ground.measure(run, &format!("{files} small files"), run.repetitions(5, 3))?;
    drop(ground);
    let gigabytes = run.repetitions(8, 1);
    let ground = Ground::new(fs.path())?;
    trees::large_file(&ground.tree.join("file"), gigabytes as u64 * (512 << 20), 1)?;
    let what = if run.quick { "one file of 512 MiB" } else { "one file of 4 GiB" };
    rows.extend(ground.measure(run, what, run.repetitions(4, 2))?);
    Ok(rows)
}

/// A tree to be backed up, and where. Dropping it removes both.
struct Ground {
    dir: PathBuf,
    tree: PathBuf,
    runtime: Runtime,
}

/// How long it took, in seconds.
#[derive(Default)]
struct Side {
    first: Samples,
    again: Samples,
    restore: Samples,
    size: u64,
}

impl Ground {
    fn new(on: &Path) -> Result<Self> {
        let dir = on.join("ground");
        let tree = dir.join("tree");
        fs::create_dir_all(&tree)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { dir, tree, runtime })
    }

    fn measure(&self, run: &Run, what: &str, rounds: usize) -> Result<Vec<Row>> {
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        for round in 0..rounds {
            run.progress(&format!("backups: {what}, round {} of {rounds}", round + 1));
            // Who goes first takes turns too: what one leaves in memory is there for the other.
            for is_ours in [round % 2 == 0, round % 2 != 0] {
                if is_ours { self.ours(&mut ours)? } else { self.theirs(&mut theirs)? }
            }
        }
        let row =
            |what: String, ours: &Samples, theirs: &Samples, bound: f64| Row::of(what, ours, theirs, "s").at_most(bound * theirs.median());
        let mut first = row(format!("a backup of {what}; beside: `tar | zstd`, `sync -f`"), &ours.first, &theirs.first, BOUND);
        #[allow(clippy::cast_precision_loss, reason = "gigabytes")]
        let sizes = format!("{} MB; beside: {}", digits(ours.size as f64 / 1e6), digits(theirs.size as f64 / 1e6));
        first.note = format!("{}; {sizes}", first.note);
        let again = row(format!("the same again, nothing changed, of {what}; beside: the first"), &ours.again, &ours.first, UNCHANGED);
        let back = format!("a restore of {what}; beside: `zstd -d | tar -x`, `sync -f`");
        Ok(vec![first, again, row(back, &ours.restore, &theirs.restore, BOUND)])
    }

    fn ours(&self, side: &mut Side) -> Result<()> {
        let (target, into) = (self.dir.join("target"), self.dir.join("restored"));
        fs::create_dir(&target)?;
        let config = Config { target: target.display().to_string(), key: Some("a key of a benchmark".into()), ..Config::default() };
        let backups = Backups::open(&config, None)?.context("no target")?;
        let backups = backups.with_worker(env!("CARGO_BIN_EXE_innkeeper").into(), PATIENCE);
        let root = |path: &Path| Root { name: "home".to_owned(), path: path.to_owned() };
        let run = || {
            let taken = SystemTime::now();
            let subject = Subject { home: "alice".to_owned(), roots: vec![root(&self.tree)], consistent: true, taken, settings: None };
            Ok(self.runtime.block_on(backups.run(subject, &|_| ()))?)
        };
        let mut id = String::new();
        self.settle()?;
        side.first.add(seconds(|| {
            id = run()?.id;
            Ok(())
        })?);
        side.size = count(&target)?.1;
        self.settle()?;
        side.again.add(seconds(|| run().map(drop))?);
        fs::create_dir(&into)?;
        self.settle()?;
        side.restore.add(seconds(|| Ok(self.runtime.block_on(backups.restore(&id, vec![root(&into)], &|_| ())).map(drop)?))?);
        self.check(&into)?;
        Ok(fs::remove_dir_all(&target)?)
    }

    fn theirs(&self, side: &mut Side) -> Result<()> {
        let (archive, into) = (self.dir.join("archive"), self.dir.join("restored"));
        self.settle()?;
        side.first.add(seconds(|| pipe("tar -C \"$1\" -cf - . | zstd -q -3 -o \"$2\" && sync -f \"$2\"", &self.tree, &archive))?);
        side.size = fs::metadata(&archive)?.len();
        fs::create_dir(&into)?;
        self.settle()?;
        side.restore.add(seconds(|| untar(&archive, &into))?);
        self.check(&into)?;
        Ok(fs::remove_file(&archive)?)
    }

    fn check(&self, into: &Path) -> Result<()> {
        let (made, whole) = (count(into)?, count(&self.tree)?);
        ensure!(made == whole, "(files, bytes) {made:?} came back, not {whole:?}");
        Ok(fs::remove_dir_all(into)?)
    }

    fn settle(&self) -> Result<()> {
        must(Command::new("sync").arg("-f").arg(&self.dir))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}
