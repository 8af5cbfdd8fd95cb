//! What keeping homes costs a person who waits: a new one, a copy of another, and the one that she comes back to.
//!
//! The library is asked, as the gateway asks it; whole logins are rows of their own. All drivers are measured in turn, round after round.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use innkeeper::home::{AsideReason, DriverKind, HomeId, Homes, Quota, Slots, Source};

use super::Run;
use crate::filesystem::{FileSystem, Unmounted, run as must};
use crate::gateway::{Gateway, Setup};
use crate::logins::{CLAIM, HEARD};
use crate::report::{Row, round as digits};
use crate::samples::Samples;
use crate::{client, docker, trees, wait};

/// The quota that a template gives a home unless it says otherwise.
const QUOTA: Quota = Quota { bytes: Some(50 << 30), inodes: None };

/// How long a new home may take, in milliseconds.
const NEW: f64 = 20.0;

/// How long a copy of a home in a subvolume may take, in milliseconds.
const COPY: f64 = 50.0;

/// How large the copied home is: files of one size.
const COPIED_FILE: u64 = 128 << 10;

/// How large the file systems are that homes are kept on here: sparse files, of which only what is written takes room.
const BYTES: u64 = 8 << 30;

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let mut rows = new_homes(run)?;
    rows.push(copies(run)?);
    rows.extend(claims(run)?);
    Ok(rows)
}

/// Homes of one driver, on a file system of their own where it needs one.
struct Kept {
    driver: &'static str,
    kind: DriverKind,
    homes: Homes,
    // Unmounted in this order.
    root: Unmounted,
    _on: Option<FileSystem>,
}

impl Kept {
    /// Nothing where the kernel has no file system of this kind, or none with quotas; that is said.
    fn open(run: &Run, what: &str, kind: DriverKind) -> Result<Option<Self>> {
        let (driver, options) = match kind {
            DriverKind::Directory => ("directory", None),
            DriverKind::Loop => ("loop", None),
            // What is deleted goes with the next transaction: otherwise each copy would wait half a minute for that.
            DriverKind::Btrfs => ("btrfs", Some("noatime,commit=1")),
            DriverKind::Xfs => ("xfs", Some("noatime,prjquota")),
        };
        let name = format!("{what}-{driver}");
        let mut on = None;
        if let Some(options) = options {
            match FileSystem::make(&run.place, &format!("{name}-fs"), driver, BYTES, options)? {
                Ok(made) => on = Some(made),
                Err(why) => {
                    run.progress(&format!("homes: not with {driver}: {}", why.lines().next().unwrap_or_default()));
                    return Ok(None);
                }
            }
        }
        let root = on.as_ref().map_or_else(|| run.place.path(&name), |on| on.path().join("homes"));
        let root = Unmounted(root);
        Ok(Some(Self { driver, kind, homes: Homes::open(&root.0, kind)?, root, _on: on }))
    }

    /// Waits until what was written is on the disk, and what was deleted gone, so that neither is in the next figure.
    fn settle(&self) -> Result<()> {
        must(Command::new("sync").arg("-f").arg(&self.root.0))?;
        if self.kind == DriverKind::Btrfs {
            must(Command::new("btrfs").args(["subvolume", "sync"]).arg(&self.root.0))?;
        }
        Ok(())
    }
}

fn id(name: &str) -> Result<HomeId> {
    HomeId::parse(name).context("a home's name")
}

/// How long something takes, into the samples.
fn timed<T>(into: &mut Samples, work: impl FnOnce() -> Result<T>) -> Result<T> {
    wait::go_on()?;
    let began = Instant::now();
    let done = work()?;
    into.push(began.elapsed());
    Ok(done)
}

/// How widely, and how long one in a hundred takes.
fn spread(times: &Samples) -> String {
    format!("{}, 99th percentile {}", times.spread(), digits(times.quantile(0.99)))
}

fn new_homes(run: &Run) -> Result<Vec<Row>> {
    run.progress("homes: new ones");
    let open = |kind| Kept::open(run, "new", kind);
    let plain = open(DriverKind::Directory)?.context("directories")?;
    let mut others = Vec::new();
    for kind in [DriverKind::Loop, DriverKind::Btrfs, DriverKind::Xfs] {
        others.extend(open(kind)?.map(|kept| (kept, Samples::default())));
    }
    let (mut directory, mut ahead) = (Samples::default(), Samples::default());
    for round in 0..run.repetitions(100, 20) {
        let new = id(&format!("new{round}"))?;
        timed(&mut directory, || Ok(plain.homes.ensure(&new, &QUOTA)?))?;
        for (kept, times) in &mut others {
            timed(times, || Ok(kept.homes.ensure(&new, &QUOTA)?))?;
            kept.homes.rest(&new)?;
            if kept.kind == DriverKind::Loop {
                let new = id(&format!("ahead{round}"))?;
                kept.homes.make_ready(&[QUOTA])?;
                timed(&mut ahead, || Ok(kept.homes.ensure(&new, &QUOTA)?))?;
                kept.homes.rest(&new)?;
            }
        }
    }
    let row = |what: String, times: &Samples| {
        let row = Row::new(format!("a new home of 50 GiB, {what}; beside: `directory`"), times.median(), "ms");
        row.beside(directory.median()).at_most(NEW).note(spread(times))
    };
    let mut rows: Vec<Row> = others.iter().map(|(kept, times)| row(format!("`{}`", kept.driver), times)).collect();
    rows.push(row("`loop`, its image made ahead as the gateway does".to_owned(), &ahead));
    Ok(rows)
}

fn copies(run: &Run) -> Result<Row> {
    run.progress("homes: copies of a template");
    let kept = Kept::open(run, "copy", DriverKind::Btrfs)?.context("this kernel has no btrfs")?;
    let template = id("template")?;
    let tree = kept.homes.ensure(&template, &QUOTA)?;
    let files = run.repetitions(8192, 2048);
    trees::files(&tree, files, COPIED_FILE)?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for round in 0..run.repetitions(20, 5) {
        let (copy, plain) = (id(&format!("copy{round}"))?, kept.root.0.join("plain-copy"));
        kept.settle()?;
        timed(&mut ours, || {
            let staged = kept.homes.stage_copy(&Source::Home(&template), &QUOTA, &|_| ControlFlow::Continue(()))?;
            Ok(kept.homes.commit(staged, &copy)?)
        })?;
        let last = format!("directory-{}/file-{}", (files - 1) / 100, files - 1);
        let copied = fs::metadata(kept.homes.ensure(&copy, &QUOTA)?.join(last))?;
        ensure!(copied.len() == COPIED_FILE, "the copy lacks files");
        kept.settle()?;
        timed(&mut theirs, || must(Command::new("cp").arg("-a").arg(&tree).arg(&plain)))?;
        fs::remove_dir_all(&plain)?;
        kept.homes.discard(&kept.homes.set_aside(&copy, AsideReason::Deleted)?)?;
    }
    let size = if run.quick { "256 MiB" } else { "1 GiB" };
    let what = format!("copy of a home of {size} in {files} files, `btrfs`, on the disk; beside: `cp -a`, not waiting for the disk");
    Ok(Row::of(what, &ours, &theirs, "ms").at_most(COPY))
}

/// A home that is at rest, on a slot.
fn claims(run: &Run) -> Result<Vec<Row>> {
    run.progress("homes: onto a slot");
    let her = id("returning")?;
    let mut all = Vec::new();
    for kind in [DriverKind::Directory, DriverKind::Loop, DriverKind::Btrfs, DriverKind::Xfs] {
        let Some(kept) = Kept::open(run, "claim", kind)? else { continue };
        fs::write(kept.homes.ensure(&her, &QUOTA)?.join("marker"), "hers\n")?;
        kept.homes.rest(&her)?;
        let dir = Unmounted(run.place.path(&format!("slots-{}", kept.driver)));
        all.push((Slots::open(&dir.0)?, dir, kept, Samples::default()));
    }
    for _ in 0..run.repetitions(100, 20) {
        for (slots, _, kept, times) in &mut all {
            let slot = slots.create([])?;
            timed(times, || Ok(slot.mount(None, &kept.homes.ensure(&her, &QUOTA)?)?))?;
            ensure!(fs::read_to_string(slot.path(None).join("marker"))? == "hers\n", "it is not her home");
            slot.remove()?;
            kept.homes.rest(&her)?;
        }
    }
    let times = all.iter().map(|(_, _, kept, times)| (kept.driver, times)).collect();
    Ok(beside_the_first("a home at rest onto a slot", times))
}

/// Rows of all but the first, held against that.
fn beside_the_first(what: &str, times: Vec<(&'static str, &Samples)>) -> Vec<Row> {
    let mut times = times.into_iter();
    let Some((beside, first)) = times.next() else { return Vec::new() };
    let row = |(driver, times): (&str, &Samples)| {
        let note = format!("{}; beside: {}", spread(times), spread(first));
        let row = Row::of(format!("{what}, `{driver}`; beside: `{beside}`"), times, first, "ms").note(note);
        row.at_most(first.median() + CLAIM)
    };
    times.map(row).collect()
}

/// A gateway and what its homes are on.
struct Site {
    driver: &'static str,
    gateway: Gateway,
    /// How many came in by the pool before anything was timed.
    claims: f64,
    times: Samples,
    /// Where an image is mounted while somebody uses it.
    mounted: PathBuf,
    _kept: Kept,
}

/// Whole logins of somebody who has been there before, with a container from the pool.
pub fn logins(run: &Run) -> Result<Vec<Row>> {
    let her = "returning".to_owned();
    let mut sites = Vec::new();
    for kind in [DriverKind::Directory, DriverKind::Loop, DriverKind::Btrfs, DriverKind::Xfs] {
        let Some(kept) = Kept::open(run, "login", kind)? else { continue };
        let (driver, root) = (kept.driver, kept.root.0.clone());
        let home = format!("driver = \"{driver}\"\nroot = \"{}\"\n", root.display());
        let name = format!("home-{driver}");
        let gateway =
            Gateway::start(&run.place, Setup { name: &name, pool: 1, home: &home, ..Setup::default() }, std::slice::from_ref(&her))?;
        client::run(run.place.ssh(gateway.port, &her).arg("echo hers > marker"))?;
        let claims = gateway.starts("claim")?;
        let mounted = root.canonicalize()?.join(".mounts").join(&her);
        sites.push(Site { driver, gateway, claims, times: Samples::default(), mounted, _kept: kept });
    }
    let rounds = run.repetitions(15, 4);
    for round in 0..rounds {
        run.progress(&format!("homes: logins, round {} of {rounds}", round + 1));
        for site in &mut sites {
            docker::remove(&site.gateway.container(&her))?;
            site.gateway.until_pool_is_full()?;
            // At rest, as after a night: what is the longest she can wait for.
            if is_mounted(&site.mounted) {
                must(Command::new("umount").arg(&site.mounted))?;
            }
            wait::pause(HEARD)?;
            site.times.push(client::run_saying(run.place.ssh(site.gateway.port, &her).arg("cat marker"), "hers\n")?);
        }
    }
    for Site { driver, gateway, claims, .. } in &sites {
        #[allow(clippy::cast_precision_loss, reason = "a handful of rounds")]
        let expected = rounds as f64 + claims;
        let claimed = gateway.starts("claim")?;
        ensure!(claimed == expected, "{driver}: {claimed} came in by the pool, not {expected}:\n{}", gateway.complaints());
    }
    let times = sites.iter().map(|site| (site.driver, &site.times)).collect();
    Ok(beside_the_first("returning user, container from the pool, her home at rest", times))
}

fn is_mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == point))
}
