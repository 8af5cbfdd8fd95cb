//! What the audit trail takes of whoever is recorded: many events a second, and a login among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use innkeeper::audit::{Actor, Audit, Config, Event, What, verify};
use innkeeper::telemetry::Metrics;

use super::Run;
use crate::gateway::{Gateway, Setup};
use crate::report::{Row, round};
use crate::samples::Samples;
use crate::{client, wait};

/// Events a second.
const RATE: u32 = 5000;

/// How many are recorded in one go, so that a sleep between two is longer than a clock's tick.
const BATCH: u32 = 50;

/// How much of a login's time may be added, as a part of it. Less is not told apart from a machine's noise.
const DELAY: f64 = 1.05;

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    run.progress("audit");
    let gateway = Gateway::start(&run.place, Setup { name: "trail", ..Setup::default() }, &["ann".to_owned()])?;
    let login = || client::run(run.place.ssh(gateway.port, "ann").arg("true"));
    login()?;
    let root = run.place.path("trail-beside");
    let audit = Audit::open(&Config::default(), &root, &Metrics::new()?).context("a trail")?;
    let (mut quiet, mut busy, mut each) = (Samples::default(), Samples::default(), Samples::default());
    let mut recorded = 0;
    for _ in 0..run.repetitions(10, 2) {
        for _ in 0..5 {
            quiet.push(login()?);
        }
        let ends = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (audit, ends) = (audit.clone(), Arc::clone(&ends));
            move || write(&audit, &ends)
        });
        wait::pause(Duration::from_millis(500))?;
        for _ in 0..5 {
            busy.push(login()?);
        }
        ends.store(true, Ordering::Relaxed);
        let (times, count) = writer.join().map_err(|_| anyhow::anyhow!("the thread that records has panicked"))?;
        each.append(times);
        recorded += count;
    }
    audit.close();
    let report = verify(&root, None)?;
    ensure!(report.flaws.is_empty(), "{:?}", report.flaws);
    ensure!(report.events >= u64::from(recorded), "{} of {recorded} events are in the trail", report.events);
    let note = format!("{recorded} events, none lost, the chain holds; {}", busy.spread_beside(&quiet));
    let times = format!("{}, longest {}", each.spread(), round(each.quantile(1.0)));
    Ok(vec![
        Row::of(format!("`ssh h true` beside {RATE} events a second on the same disk; beside: without"), &busy, &quiet, "ms")
            .at_most(quiet.median() * DELAY)
            .note(note),
        Row::new("recording one event, as whoever does something waits for it, 99th percentile", each.quantile(0.99), "ms").note(times),
    ])
}

/// Records at the rate until it is told to end; how long each took, and how many there were.
fn write(audit: &Audit, ends: &AtomicBool) -> (Samples, u32) {
    let mut times = Samples::default();
    let mut recorded = 0;
    let began = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        for _ in 0..BATCH {
            let what = What::Login { method: "publickey".to_owned(), key: None };
            let event = Event::now(Actor::account("somebody"), what);
            let before = Instant::now();
            audit.record(event);
            times.push(before.elapsed());
            recorded += 1;
        }
        let due = began + Duration::from_secs(1) * recorded / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    (times, recorded)
}
