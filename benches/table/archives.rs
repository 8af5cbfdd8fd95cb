//! A home's archive, written and read, beside tar and zstd in a pipe.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Result, ensure};
use innkeeper::home::tree::{Limits, archive};

use super::Run;
use crate::ground::{self, Ground, Side};
use crate::report::Row;
use crate::wait;

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    ground::each(run, "archives", |ground, what, rounds| {
        let (mut ours, mut theirs) = (Side::default(), Side::default());
        ground::in_turns(run, &format!("archives: {what}"), rounds, || once(ground, &mut ours), || ground.tar(&mut theirs, ""))?;
        let mut written = ground::row(format!("writing an archive of {what}; beside: `tar | zstd`"), &ours.pack, &theirs.pack);
        ground::sizes(&mut written, &ours, &theirs);
        let read = format!("reading an archive of {what}; beside: `zstd -d | tar -x`, `sync -f`");
        Ok(vec![written, ground::row(read, &ours.unpack, &theirs.unpack)])
    })
}

/// One archive, there and back.
fn once(ground: &Ground, side: &mut Side) -> Result<()> {
    let file = ground.dir.join("archive");
    ground.timed(&mut side.pack, || write(ground, &file))?;
    side.size = fs::metadata(&file)?.len();
    ground.unpacked(&mut side.unpack, |into| read(ground, &file, into))?;
    Ok(fs::remove_file(&file)?)
}

fn write(ground: &Ground, file: &Path) -> Result<()> {
    let tree = File::open(&ground.tree)?;
    let summary = archive::write(tree.as_fd(), File::create_new(file)?, Limits::default(), &|_| on())?;
    ensure!(summary.files == ground.files, "{} files were written, not {}", summary.files, ground.files);
    Ok(())
}

fn read(ground: &Ground, file: &Path, into: &Path) -> Result<()> {
    let into = File::open(into)?;
    let summary = archive::read(File::open(file)?, into.as_fd(), Limits::default(), &|_| on())?;
    ensure!(summary.files == ground.files, "{} files were read, not {}", summary.files, ground.files);
    Ok(())
}

fn on() -> ControlFlow<()> {
    if wait::go_on().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}
