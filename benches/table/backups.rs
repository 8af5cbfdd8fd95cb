//! A home's backup into a directory, the same again with nothing changed, and a restore, beside tar and zstd in a pipe.
//!
//! Both sides have it on the disk at the end. Of ours the start of the worker, its encryption and its checks are in the time.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use innkeeper::backup::{Backups, Config, Root, Subject};
use tokio::runtime::Runtime;

use super::Run;
use crate::ground::{self, Ground, Side, count};
use crate::report::Row;
use crate::samples::Samples;

/// How long a backup may take of what has not changed, as a part of the first.
const UNCHANGED: f64 = 0.1;

/// How long a worker waits for another. There is none.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    ground::each(run, "backups", |ground, what, rounds| {
        let (mut ours, mut theirs, mut again) = (Side::default(), Side::default(), Samples::default());
        let one = || once(ground, &runtime, &mut ours, &mut again);
        ground::in_turns(run, &format!("backups: {what}"), rounds, one, || ground.tar(&mut theirs, " && sync -f \"$2\""))?;
        let mut first = ground::row(format!("a backup of {what}; beside: `tar | zstd`, `sync -f`"), &ours.pack, &theirs.pack);
        ground::sizes(&mut first, &ours, &theirs);
        let same = format!("the same again, nothing changed, of {what}; beside: the first");
        let same = Row::of(same, &again, &ours.pack, "s").at_most(UNCHANGED * ours.pack.median());
        let back = format!("a restore of {what}; beside: `zstd -d | tar -x`, `sync -f`");
        Ok(vec![first, same, ground::row(back, &ours.unpack, &theirs.unpack)])
    })
}

/// One repository: a backup into it, another, and the first one back.
fn once(ground: &Ground, runtime: &Runtime, side: &mut Side, again: &mut Samples) -> Result<()> {
    let target = ground.dir.join("target");
    fs::create_dir(&target)?;
    let config = Config { target: target.display().to_string(), key: Some("a key of a benchmark".into()), ..Config::default() };
    let backups = Backups::open(&config, None)?.context("no target")?;
    let backups = backups.with_worker(env!("CARGO_BIN_EXE_innkeeper").into(), PATIENCE);
    let root = |path: &Path| Root { name: "home".to_owned(), path: path.to_owned() };
    let run = || {
        let taken = SystemTime::now();
        let subject = Subject { home: "alice".to_owned(), roots: vec![root(&ground.tree)], consistent: true, taken, settings: None };
        anyhow::Ok(runtime.block_on(backups.run(subject, &|_| ()))?)
    };
    let mut id = String::new();
    ground.timed(&mut side.pack, || {
        id = run()?.id;
        Ok(())
    })?;
    side.size = count(&target)?.1;
    ground.timed(again, || run().map(drop))?;
    ground.unpacked(&mut side.unpack, |into| Ok(runtime.block_on(backups.restore(&id, vec![root(into)], &|_| ())).map(drop)?))?;
    Ok(fs::remove_dir_all(&target)?)
}
