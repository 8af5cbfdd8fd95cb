//! A client that has stopped reading, and a program that does not stop writing.

use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::{client, process, wait};

/// How much more than in the first minute may be held in the last, in KiB, and still be called flat: an allocator's breath.
const FLAT: f64 = 4096.0;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(2);

/// Its row of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let minutes: u32 = if run.quick { 1 } else { 10 };
    let whole = Duration::from_secs(60) * minutes;
    // The first and the last tenth, but no less than ten seconds, are compared: a minute each of ten.
    let part = (whole / 10).max(Duration::from_secs(10));
    let account = "writer".to_owned();
    let gateway = Gateway::start(&run.place, Setup { name: "stalled", ..Setup::default() }, std::slice::from_ref(&account))?;
    client::run(run.place.ssh(gateway.port, &account).arg("true"))?;
    let dockerd = process::find("dockerd").context("dockerd does not run here")?;

    let mut ours = Stalled::start(run, gateway.port, &account)?;
    let mut theirs = Stalled::start(run, run.sshd.port, "root")?;
    let mut series: [Series; 3] = Default::default();
    let began = Instant::now();
    while began.elapsed() < whole {
        wait::pause(EVERY)?;
        let at = began.elapsed();
        let held = [process::resident(gateway.pid())?, process::resident(dockerd)?, process::family(run.sshd.pid(), "sshd")?];
        series.iter_mut().zip(held).for_each(|(series, held)| series.0.push((at, held)));
        ensure!(ours.is_there()? && theirs.is_there()?, "a stalled client was thrown out after {at:.0?}");
        run.progress(&format!("stalled: {:.0?} of {whole:.0?}, gateway {:.1} MiB", at, held[0] / 1024.0));
    }
    let growth = |series: &Series| series.most(|at| at + part >= whole) - series.most(|at| at <= part);
    let [gateway_held, dockerd_held, sshd_held] = &series;
    let spelled = |name: &str, series: &Series| {
        format!("{name} {:.1} → {:.1} MiB", series.most(|at| at <= part) / 1024.0, series.most(|at| at + part >= whole) / 1024.0)
    };
    let note = format!(
        "most in the first and in the last {} s: {}, {}, {}{}",
        part.as_secs(),
        spelled("gateway", gateway_held),
        spelled("dockerd", dockerd_held),
        spelled("sshd", sshd_held),
        if run.quick { "; shortened to one minute by --quick" } else { "" },
    );
    let what = format!("`yes` to a client that does not read, {minutes} min: growth of the gateway; beside: sshd");
    Ok(vec![Row::new(what, growth(gateway_held) / 1024.0, "MiB").beside(growth(sshd_held) / 1024.0).at_most(FLAT / 1024.0).note(note)])
}

/// What was held, and when.
#[derive(Default)]
struct Series(Vec<(Duration, f64)>);

impl Series {
    fn most(&self, when: impl Fn(Duration) -> bool) -> f64 {
        self.0.iter().filter(|(at, _)| when(*at)).map(|(_, held)| *held).fold(0.0, f64::max)
    }
}

/// A client whose standard output is a pipe that nobody reads. Ends when dropped.
struct Stalled(Child);

impl Stalled {
    fn start(run: &Run, port: u16, account: &str) -> Result<Self> {
        let mut command = run.place.ssh(port, account);
        Ok(Self(command.arg("yes").process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?))
    }

    fn is_there(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
