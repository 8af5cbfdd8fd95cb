//! Many people who sit at a prompt and do nothing: a connection, a terminal and a shell each.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Run;
use crate::crowd::{self, Crowd};
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::{process, wait};

/// The most that one may hold of the gateway's memory, in KiB.
const BOUND: f64 = 64.0;

/// How many sit in one container.
const TOGETHER: usize = 100;

/// How many of sshd's suffice to see what one takes: its processes are all alike.
const SSHD_SESSIONS: usize = 25;

/// How long all must have been silent before it is counted.
const SETTLE: Duration = Duration::from_secs(10);

/// Its row of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let sessions = run.repetitions(1000, 100);
    let accounts: Vec<String> = (0..sessions.div_ceil(TOGETHER)).map(|number| format!("sitting{number}")).collect();
    let setup = Setup { name: "sitting", template: "pids = 4096\n", ..Setup::default() };
    let gateway = Gateway::start(&run.place, setup, &accounts)?;
    let (runtime, key) = (crowd::runtime()?, crowd::key(run)?);

    let before = process::family(run.sshd.pid(), "sshd")?;
    let root = ["root".to_owned()];
    let at_sshd = Crowd { name: "terminals, sshd", port: run.sshd.port, accounts: &root, size: SSHD_SESSIONS, command: None };
    let sitting = at_sshd.arrive(run, &runtime, &key)?;
    wait::pause(SETTLE)?;
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let of_sshd = (process::family(run.sshd.pid(), "sshd")? - before) / SSHD_SESSIONS as f64;
    drop(sitting);

    // One each has come and gone: what is made once, and the containers, are there before it is counted.
    let ours = Crowd { name: "terminals", port: gateway.port, accounts: &accounts, size: sessions, command: None };
    drop(Crowd { size: accounts.len(), ..ours }.arrive(run, &runtime, &key)?);
    wait::pause(SETTLE)?;
    let before = process::resident(gateway.pid())?;
    let sitting = ours.arrive(run, &runtime, &key)?;
    wait::pause(SETTLE)?;
    let after = process::resident(gateway.pid())?;
    ensure!(sitting.iter().all(|one| !one.connection.is_closed()), "somebody was thrown out");
    drop(sitting);
    #[allow(clippy::cast_precision_loss, reason = "a thousand")]
    let each = (after - before) / sessions as f64;
    let note = format!(
        "{:.1} MiB before, {:.1} MiB with {sessions}; sshd: of {SSHD_SESSIONS}, shared memory counted once",
        before / 1024.0,
        after / 1024.0
    );
    let what = format!("gateway's memory for each of {sessions} idle terminals; beside: sshd");
    Ok(vec![Row::new(what, each, "KiB").beside(of_sshd).at_most(BOUND).note(note)])
}
