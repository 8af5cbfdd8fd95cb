//! What carrying a command's output takes of the machine's processors, on the whole way from the program to the network.

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::bulk::{BYTES, discard};
use crate::client::{self, Master};
use crate::gateway::{Gateway, Setup};
use crate::report::{Row, round};
use crate::samples::Samples;
use crate::{docker, process};

/// The most it may take, as a part of what it takes through the engine's exec.
const BOUND: f64 = 0.5;

/// Its row of the table.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let account = "writer".to_owned();
    let start = |name, template| Gateway::start(&run.place, Setup { name, template, ..Setup::default() }, std::slice::from_ref(&account));
    let (by_init, by_exec) = (start("cpu-init", "")?, start("cpu-exec", "attach = \"exec\"\n")?);
    let mut ours = Way::new(run, &by_init, &account)?;
    let mut theirs = Way::new(run, &by_exec, &account)?;
    for turn in 0..run.repetitions(5, 2) {
        run.progress(&format!("cpu: round {}", turn + 1));
        for way in [&mut ours, &mut theirs] {
            way.carry()?;
        }
    }
    let what = "processor seconds of gateway, engine and init for 1 GB out of `head -c`; beside: with `attach = \"exec\"`";
    let note = format!("{}: {}; beside: {}", ours.total.spread_beside(&theirs.total), ours.spelled(), theirs.spelled());
    Ok(vec![Row::of(what, &ours.total, &theirs.total, "s").at_most(BOUND * theirs.total.median()).note(note)])
}

/// One way to attach, and the processes that may carry on it.
struct Way<'a> {
    master: Master<'a>,
    carriers: Vec<(&'static str, u32)>,
    /// Of each carrier, in their order, one figure a round.
    each: Vec<Samples>,
    total: Samples,
}

impl<'a> Way<'a> {
    fn new(run: &'a Run, gateway: &Gateway, account: &str) -> Result<Self> {
        client::run(run.place.ssh(gateway.port, account).arg("true"))?;
        let init = docker::pid(&gateway.container(account))?;
        let mut carriers = vec![("gateway", gateway.pid()), ("init", init), ("shim", process::parent(init)?)];
        carriers.push(("dockerd", process::find("dockerd").context("dockerd does not run here")?));
        carriers.push(("containerd", process::find("containerd").context("containerd does not run here")?));
        let master = Master::open(&run.place, gateway.port, account, &[])?;
        let each = carriers.iter().map(|_| Samples::default()).collect();
        Ok(Self { master, carriers, each, total: Samples::default() })
    }

    /// A gigabyte goes this way.
    fn carry(&mut self) -> Result<()> {
        let taken = || self.carriers.iter().map(|(_, pid)| process::cpu_seconds(*pid)).collect::<Result<Vec<f64>>>();
        let before = taken()?;
        discard(&self.master)?;
        let after = taken()?;
        let took: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        self.each.iter_mut().zip(&took).for_each(|(each, took)| each.add(*took));
        let total = took.iter().sum();
        // A gigabyte takes some; none of it means that others carried it.
        ensure!(total > 0.0, "{BYTES} bytes went another way");
        self.total.add(total);
        Ok(())
    }

    fn spelled(&self) -> String {
        let parts = self.carriers.iter().zip(&self.each).map(|((name, _), taken)| format!("{name} {}", round(taken.median())));
        parts.collect::<Vec<_>>().join(", ")
    }
}
