//! What a person waits for when she logs in, by where her container is.
//!
//! All ways in are measured in turn, round after round, so that whatever else the machine does meets all of them alike.

use std::fs;

use anyhow::{Result, ensure};

use super::Run;
use crate::docker::Plain;
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::samples::Samples;
use crate::{client, docker, wait};

/// How long after a container has gone or stopped the gateway may take to have heard of it.
pub const HEARD: std::time::Duration = std::time::Duration::from_millis(300);

/// How long a login to a running container may take, as a part of what sshd takes.
const RUNNING: f64 = 0.30;

/// How much longer a returning user may wait than one whose container runs, in milliseconds.
pub const CLAIM: f64 = 10.0;

/// Everything that is timed in one round.
#[derive(Default)]
struct Times {
    sshd: Samples,
    running: Samples,
    exec: Samples,
    claimed: Samples,
    started: Samples,
    docker_start: Samples,
    created: Samples,
    docker_create: Samples,
}

/// Its rows of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let rounds = run.repetitions(25, 5);
    let place = &run.place;
    let returning = "returning".to_owned();
    let pooled = Gateway::start(place, Setup { name: "pool", pool: 2, ..Setup::default() }, std::slice::from_ref(&returning))?;
    let mut accounts = vec!["running".to_owned(), "stopped".to_owned()];
    accounts.extend((0..rounds).map(|round| format!("new{round}")));
    let bare = Gateway::start(place, Setup { name: "bare", ..Setup::default() }, &accounts)?;

    // Everybody has been there before: homes with files, host keys known.
    client::run(place.ssh(run.sshd.port, "root").arg("true"))?;
    client::run(place.ssh(bare.port, "running").arg("true"))?;
    client::run(place.ssh(bare.port, "stopped").arg("true"))?;
    client::run(place.ssh(pooled.port, &returning).arg("echo hers > marker"))?;

    // What plain docker is asked for: a container like the gateway's own, on the same network, with a directory of the same kind.
    let home = bare.slots().join("plain");
    fs::create_dir(&home)?;
    let recipe = docker::recipe_of(&bare.container("stopped"), &home.display().to_string())?;
    let equal = Plain(format!("{}.plain", bare.instance));
    docker::create(&equal.0, &recipe)?;
    docker::start(&equal.0)?;

    let mut times = Times::default();
    let claims = pooled.starts("claim")?;
    for round in 0..rounds {
        run.progress(&format!("logins: round {} of {rounds}", round + 1));
        times.sshd.push(client::run(place.ssh(run.sshd.port, "root").arg("true"))?);
        times.running.push(client::run(place.ssh(bare.port, "running").arg("true"))?);
        times.exec.push(clocked(|| ensure_zero(docker::exec(&bare.container("running"), &["true"])?))?);

        docker::remove(&pooled.container(&returning))?;
        pooled.until_pool_is_full()?;
        wait::pause(HEARD)?;
        times.claimed.push(client::run_saying(place.ssh(pooled.port, &returning).arg("cat marker"), "hers\n")?);

        docker::kill(&equal.0)?;
        docker::kill(&bare.container("stopped"))?;
        wait::pause(HEARD)?;
        times.docker_start.push(clocked(|| docker::start(&equal.0))?);
        times.started.push(client::first_byte(place.ssh(bare.port, "stopped").arg("echo here"))?);

        let plain = Plain(format!("{}.plain{round}", bare.instance));
        times.docker_create.push(clocked(|| docker::create(&plain.0, &recipe).and_then(|()| docker::start(&plain.0)))?);
        let account = format!("new{round}");
        times.created.push(client::first_byte(place.ssh(bare.port, &account).arg("echo here"))?);
        drop(plain);
        docker::remove(&bare.container(&account))?;
    }
    // That each came in the way she should have.
    #[allow(clippy::cast_precision_loss, reason = "a handful of rounds")]
    let expected = rounds as f64;
    for (gateway, path, expected) in [(&pooled, "claim", claims + expected), (&bare, "start", expected), (&bare, "create", expected + 2.0)]
    {
        let counted = gateway.starts(path)?;
        ensure!(counted == expected, "{counted} came in by {path}, not {expected}:\n{}", gateway.complaints());
    }
    drop(equal);
    Ok(rows(&times))
}

fn rows(times: &Times) -> Vec<Row> {
    let (sshd, running) = (times.sshd.median(), times.running.median());
    let row = |what: &str, ours: &Samples, theirs: &Samples| Row::of(what, ours, theirs, "ms");
    vec![
        row("`ssh h true`, container running; beside: sshd", &times.running, &times.sshd).at_most(RUNNING * sshd),
        row("returning user, container from the pool, with her home; beside: sshd", &times.claimed, &times.sshd).at_most(running + CLAIM),
        row("container stopped: first byte; beside: `docker start`", &times.started, &times.docker_start)
            .at_most(1.2 * times.docker_start.median() + running),
        row("nothing there yet, pool empty: first byte; beside: `docker create` and `start`", &times.created, &times.docker_create)
            .at_most(1.2 * times.docker_create.median() + running),
        Row::new("for orientation: `true` through the engine's exec, no ssh", times.exec.median(), "ms").note(times.exec.spread()),
    ]
}

fn clocked(work: impl FnOnce() -> Result<()>) -> Result<std::time::Duration> {
    let began = std::time::Instant::now();
    work()?;
    Ok(began.elapsed())
}

fn ensure_zero(status: i64) -> Result<()> {
    ensure!(status == 0, "a command failed with {status}");
    Ok(())
}
