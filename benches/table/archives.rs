//! A home's archive, written and read, beside tar and zstd in a pipe.
//!
//! Both sides do it on one file system of the run's own, which is made quiet before each: what is timed waits for no disk work of another.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use innkeeper::home::tree::{Limits, archive};

use super::Run;
use crate::filesystem::{FileSystem, run as must};
use crate::report::{Row, round as digits};
use crate::samples::Samples;
use crate::{trees, wait};

/// How long it may take, as a multiple of what tar and zstd take.
const BOUND: f64 = 1.2;

/// The tree, what is unpacked of it and two archives: a sparse file, of which only what is written takes room.
const BYTES: u64 = 24 << 30;

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    // No thread of the kernel's fills in inode tables meanwhile.
    let made = FileSystem::make(&run.place, "archives", "ext4", BYTES, "noatime,noinit_itable")?;
    let fs = made.map_err(anyhow::Error::msg).context("an ext4 in a file")?;
    let files = run.repetitions(100_000, 10_000);
    let ground = Ground::new(fs.path(), files as u64)?;
    trees::small_files(&ground.tree, files)?;
    let mut rows = ground.measure(run, &format!("{files} small files"), run.repetitions(5, 3))?;
    drop(ground);
    let gigabytes = run.repetitions(8, 1);
    let ground = Ground::new(fs.path(), 1)?;
    trees::large_file(&ground.tree.join("file"), gigabytes as u64 * (512 << 20), 1)?;
    let what = if run.quick { "one file of 512 MiB" } else { "one file of 4 GiB" };
    rows.extend(ground.measure(run, what, run.repetitions(4, 2))?);
    Ok(rows)
}

/// A tree to be archived, and where. Dropping it removes both.
struct Ground {
    dir: PathBuf,
    tree: PathBuf,
    files: u64,
}

/// Who does it, and how long it took them, in seconds.
#[derive(Default)]
struct Side {
    write: Samples,
    read: Samples,
    size: u64,
}

impl Ground {
    fn new(on: &Path, files: u64) -> Result<Self> {
        let dir = on.join("ground");
        let tree = dir.join("tree");
        fs::create_dir_all(&tree)?;
        Ok(Self { dir, tree, files })
    }

    fn measure(&self, run: &Run, what: &str, rounds: usize) -> Result<Vec<Row>> {
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        for round in 0..rounds {
            run.progress(&format!("archives: {what}, round {} of {rounds}", round + 1));
            // Who goes first takes turns too: what one leaves in memory is there for the other.
            for is_ours in [round % 2 == 0, round % 2 != 0] {
                if is_ours {
                    self.once(&mut ours, |archive| self.write(archive), |archive, into| self.read(archive, into))?;
                } else {
                    self.once(&mut theirs, |archive| self.tar(archive), untar)?;
                }
            }
        }
        let row = |how: &str, ours: &Samples, theirs: &Samples| {
            let what = format!("{how} of {what}");
            Row::of(what, ours, theirs, "s").at_most(BOUND * theirs.median())
        };
        #[allow(clippy::cast_precision_loss, reason = "gigabytes")]
        let sizes = format!("{} MB; beside: {}", digits(ours.size as f64 / 1e6), digits(theirs.size as f64 / 1e6));
        let mut written = row("writing an archive", &ours.write, &theirs.write);
        written.what.push_str("; beside: `tar | zstd`");
        written.note = format!("{}; {sizes}", written.note);
        let mut read = row("reading an archive", &ours.read, &theirs.read);
        read.what.push_str("; beside: `zstd -d | tar -x`, `sync -f`");
        Ok(vec![written, read])
    }

    /// One archive, there and back.
    fn once(&self, side: &mut Side, write: impl Fn(&Path) -> Result<()>, read: impl Fn(&Path, &Path) -> Result<()>) -> Result<()> {
        let (archive, into) = (self.dir.join("archive"), self.dir.join("unpacked"));
        self.settle()?;
        side.write.add(seconds(|| write(&archive))?);
        side.size = fs::metadata(&archive)?.len();
        fs::create_dir(&into)?;
        self.settle()?;
        side.read.add(seconds(|| read(&archive, &into))?);
        let (made, whole) = (count(&into)?, count(&self.tree)?);
        ensure!(made == whole, "(files, bytes) {made:?} were unpacked, not {whole:?}");
        fs::remove_dir_all(&into)?;
        Ok(fs::remove_file(&archive)?)
    }

    fn settle(&self) -> Result<()> {
        must(Command::new("sync").arg("-f").arg(&self.dir))
    }

    fn write(&self, archive: &Path) -> Result<()> {
        let tree = File::open(&self.tree)?;
        let summary = archive::write(tree.as_fd(), File::create_new(archive)?, Limits::default(), &|_| on())?;
        ensure!(summary.files == self.files, "{} files were written, not {}", summary.files, self.files);
        Ok(())
    }

    fn read(&self, archive: &Path, into: &Path) -> Result<()> {
        let into = File::open(into)?;
        let summary = archive::read(File::open(archive)?, into.as_fd(), Limits::default(), &|_| on())?;
        ensure!(summary.files == self.files, "{} files were read, not {}", summary.files, self.files);
        Ok(())
    }

    fn tar(&self, archive: &Path) -> Result<()> {
        pipe("tar -C \"$1\" -cf - . | zstd -q -3 -o \"$2\"", &self.tree, archive)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

pub(crate) fn untar(archive: &Path, into: &Path) -> Result<()> {
    pipe("zstd -q -dc \"$1\" | tar -C \"$2\" -xpf - && sync -f \"$2\"", archive, into)
}

/// Runs a pipe of which all must succeed.
pub(crate) fn pipe(script: &str, from: &Path, to: &Path) -> Result<()> {
    must(Command::new("bash").arg("-c").arg(format!("set -o pipefail; {script}")).arg("bash").arg(from).arg(to))
}

fn on() -> ControlFlow<()> {
    if wait::go_on().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

pub(crate) fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    wait::go_on()?;
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

/// How many files are in a tree, and how many bytes in them.
pub(crate) fn count(tree: &Path) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for entry in fs::read_dir(tree)? {
        let (entry, (files, bytes)) = (entry?, sum);
        let (more, larger) = if entry.file_type()?.is_dir() { count(&entry.path())? } else { (1, entry.metadata()?.len()) };
        sum = (files + more, bytes + larger);
    }
    Ok(sum)
}
