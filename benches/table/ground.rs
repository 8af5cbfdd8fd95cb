//! What homes' archives and backups are made of, and where: many small files and one large file, on one file system of the run's own, which
//! is made quiet before each, so that what is timed waits for no disk work of another. And what they are held against: tar and zstd in a pipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::filesystem::{FileSystem, run as must};
use crate::report::{Row, round as digits};
use crate::samples::Samples;
use crate::{trees, wait};

/// How long it may take, as a multiple of what tar and zstd take.
const BOUND: f64 = 1.2;

/// The tree, what is unpacked of it, and what it is packed into: a sparse file, of which only what is written takes room.
const BYTES: u64 = 24 << 30;

/// A tree, and where something is done with it. Dropping it removes both.
pub struct Ground {
    pub dir: PathBuf,
    pub tree: PathBuf,
    /// How many files are in the tree.
    pub files: u64,
}

/// One side: how long it took them to pack and to unpack the tree, in seconds, and how large that was, in bytes.
#[derive(Default)]
pub struct Side {
    pub pack: Samples,
    pub unpack: Samples,
    pub size: u64,
}

/// The rows of both kinds of tree. Each is told of what it is, and how many rounds to do.
pub fn each(run: &Run, name: &str, rows: impl Fn(&Ground, &str, usize) -> Result<Vec<Row>>) -> Result<Vec<Row>> {
    // No thread of the kernel's fills in inode tables meanwhile.
    let made = FileSystem::make(&run.place, name, "ext4", BYTES, "noatime,noinit_itable")?;
    let fs = made.map_err(anyhow::Error::msg).context("an ext4 in a file")?;
    let files = run.repetitions(100_000, 10_000);
    let ground = Ground::new(fs.path(), files as u64)?;
    trees::small_files(&ground.tree, files)?;
    let mut all = rows(&ground, &format!("{files} small files"), run.repetitions(5, 3))?;
    drop(ground);
    let halves = run.repetitions(8, 1);
    let ground = Ground::new(fs.path(), 1)?;
    trees::large_file(&ground.tree.join("file"), halves as u64 * (512 << 20), 1)?;
    let what = if run.quick { "one file of 512 MiB" } else { "one file of 4 GiB" };
    all.extend(rows(&ground, what, run.repetitions(4, 2))?);
    Ok(all)
}

/// Has both sides do it round after round. Who goes first takes turns too: what one leaves in memory is there for the other.
pub fn in_turns(
    run: &Run,
    what: &str,
    rounds: usize,
    mut one: impl FnMut() -> Result<()>,
    mut other: impl FnMut() -> Result<()>,
) -> Result<()> {
    for round in 0..rounds {
        run.progress(&format!("{what}, round {} of {rounds}", round + 1));
        for is_one in [round % 2 == 0, round % 2 != 0] {
            if is_one { one()? } else { other()? }
        }
    }
    Ok(())
}

/// A row of ours, held against theirs.
pub fn row(what: String, ours: &Samples, theirs: &Samples) -> Row {
    Row::of(what, ours, theirs, "s").at_most(BOUND * theirs.median())
}

/// How large both were, after what a row's note says already.
pub fn sizes(row: &mut Row, ours: &Side, theirs: &Side) {
    #[allow(clippy::cast_precision_loss, reason = "gigabytes")]
    let [ours, theirs] = [ours, theirs].map(|side| digits(side.size as f64 / 1e6));
    row.note = format!("{}; {ours} MB; beside: {theirs}", row.note);
}

impl Ground {
    fn new(on: &Path, files: u64) -> Result<Self> {
        let dir = on.join("ground");
        let tree = dir.join("tree");
        fs::create_dir_all(&tree)?;
        Ok(Self { dir, tree, files })
    }

    /// Times something that waits for no disk work of another.
    pub fn timed(&self, into: &mut Samples, work: impl FnOnce() -> Result<()>) -> Result<()> {
        must(Command::new("sync").arg("-f").arg(&self.dir))?;
        wait::go_on()?;
        let began = Instant::now();
        work()?;
        into.add(began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Times unpacking into an empty directory, which is to have what the tree has then, and removes that.
    pub fn unpacked(&self, into: &mut Samples, unpack: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let dir = self.dir.join("unpacked");
        fs::create_dir(&dir)?;
        self.timed(into, || unpack(&dir))?;
        let (made, whole) = (count(&dir)?, count(&self.tree)?);
        ensure!(made == whole, "(files, bytes) {made:?} came back, not {whole:?}");
        Ok(fs::remove_dir_all(dir)?)
    }

    /// What tar and zstd make of the tree, and what they take out of that again, on the disk then. `then` is done after the one, by a shell.
    pub fn tar(&self, side: &mut Side, then: &str) -> Result<()> {
        let archive = self.dir.join("archive");
        let tar = format!("tar -C \"$1\" -cf - . | zstd -q -3 -o \"$2\"{then}");
        self.timed(&mut side.pack, || pipe(&tar, &self.tree, &archive))?;
        side.size = fs::metadata(&archive)?.len();
        let untar = "zstd -q -dc \"$1\" | tar -C \"$2\" -xpf - && sync -f \"$2\"";
        self.unpacked(&mut side.unpack, |into| pipe(untar, &archive, into))?;
        Ok(fs::remove_file(&archive)?)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// Runs a pipe of which all must succeed.
fn pipe(script: &str, from: &Path, to: &Path) -> Result<()> {
    must(Command::new("bash").arg("-c").arg(format!("set -o pipefail; {script}")).arg("bash").arg(from).arg(to))
}

/// How many files are in a tree, and how many bytes in them.
pub fn count(tree: &Path) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for entry in fs::read_dir(tree)? {
        let (entry, (files, bytes)) = (entry?, sum);
        let (more, larger) = if entry.file_type()?.is_dir() { count(&entry.path())? } else { (1, entry.metadata()?.len()) };
        sum = (files + more, bytes + larger);
    }
    Ok(sum)
}
