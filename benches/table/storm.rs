//! Twenty people who have never been there log in at once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Run;
use crate::docker::Plain;
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::{client, docker};

/// How many.
const PEOPLE: usize = 20;

/// How many containers stand ready.
const POOL: usize = 5;

/// The longest that anybody may wait, in milliseconds.
const BOUND: f64 = 5000.0;

/// Its row of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let rounds = run.repetitions(3, 1);
    let accounts: Vec<String> = (0..rounds * PEOPLE).map(|number| format!("new{number}")).collect();
    let gateway = Gateway::start(&run.place, Setup { name: "storm", pool: POOL, ..Setup::default() }, &accounts)?;
    let home = gateway.slots().join("plain");
    let pool = docker::list(&gateway.instance)?;
    let recipe = docker::recipe_of(&pool[0].0, &home.display().to_string())?;
    std::fs::create_dir(&home)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (round, people) in accounts.chunks(PEOPLE).enumerate() {
        run.progress(&format!("storm: round {} of {rounds}", round + 1));
        let names: Vec<Plain> = (0..PEOPLE).map(|number| Plain(format!("{}.plain{number}", gateway.instance))).collect();
        theirs.push(slowest(names.iter(), |plain| docker::create(&plain.0, &recipe).and_then(|()| docker::start(&plain.0)))?);
        remove(names.iter().map(|plain| plain.0.clone()).collect())?;

        ours.push(slowest(people.iter(), |account| client::first_byte(run.place.ssh(gateway.port, account).arg("echo here")).map(drop))?);
        remove(people.iter().map(|account| gateway.container(account)).collect())?;
        std::fs::remove_dir(&home)?;
        gateway.until_pool_is_full()?;
        std::fs::create_dir(&home)?;
    }
    std::fs::remove_dir(&home)?;
    // The worst round, not the middle one: it is a promise about the slowest.
    let worst = |times: &[Duration]| times.iter().max().map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    let row = Row::new(
        format!("{PEOPLE} new accounts at once, pool of {POOL}: slowest; beside: {PEOPLE} `docker create` and `start` at once"),
        worst(&ours),
        "ms",
    );
    let note = format!("worst of {rounds}, on {} cores: {ours:.2?}; beside: {theirs:.2?}", thread::available_parallelism()?);
    Ok(vec![row.beside(worst(&theirs)).at_most(BOUND).note(note)])
}

/// Does it for all at once, and says how long the slowest took from the common start.
fn slowest<T: Send>(all: impl Iterator<Item = T>, work: impl Fn(T) -> Result<()> + Sync) -> Result<Duration> {
    let began = Instant::now();
    let times = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = all.map(|one| scope.spawn(move || work(one).map(|()| began.elapsed()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))).collect::<Result<Vec<_>>>()
    })?;
    ensure!(!times.is_empty(), "nobody came");
    Ok(times.into_iter().max().unwrap_or_default())
}

fn remove(names: Vec<String>) -> Result<()> {
    for name in names {
        docker::remove(&name)?;
    }
    Ok(())
}
