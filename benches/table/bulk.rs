//! Much output to a client that takes it as fast as it comes.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::Run;
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::samples::Samples;
use crate::{client, wait};

/// How long half a gigabyte takes, and a second command over a connection that is open already. Nothing was promised of either.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let account = "writer".to_owned();
    let gateway = Gateway::start(&run.place, Setup { name: "bulk", ..Setup::default() }, std::slice::from_ref(&account))?;
    client::run(run.place.ssh(gateway.port, &account).arg("true"))?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for round in 0..run.repetitions(5, 2) {
        run.progress(&format!("bulk: round {}", round + 1));
        for (port, account, times) in [(gateway.port, account.as_str(), &mut ours), (run.sshd.port, "root", &mut theirs)] {
            wait::go_on()?;
            let began = Instant::now();
            let mut command = run.place.ssh(port, account);
            let status = command.arg("head -c 536870912 /dev/zero").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
            ensure!(status.success(), "{command:?}: {status}");
            times.push(began.elapsed());
        }
    }
    let note = format!("{}; beside: half in {}", ours.spread(), theirs.half());
    let mut rows =
        vec![Row::new("512 MiB out of `head -c`, login included; beside: sshd", ours.median(), "ms").beside(theirs.median()).note(note)];
    rows.extend(second_command(run, &gateway, &account)?);
    Ok(rows)
}

/// A command over a connection that is logged in already, as with ControlMaster: what remains when the handshake is paid for.
fn second_command(run: &Run, gateway: &Gateway, account: &str) -> Result<Vec<Row>> {
    let (mut ours, mut theirs, mut sshd) = (Samples::default(), Samples::default(), Samples::default());
    let over = |port: u16, account: &str| {
        let mut command = run.place.ssh(port, account);
        command.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o"]);
        command.arg(format!("ControlPath={}", run.place.path(&format!("c{port}")).display()));
        command
    };
    let container = gateway.container(account);
    // The master holds on to what it inherits, so it is opened apart.
    let masters = [(gateway.port, account), (run.sshd.port, "root")];
    for (port, account) in masters {
        let status = over(port, account).arg("-fN").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "no master connection");
    }
    let measured = (|| -> Result<()> {
        for _ in 0..run.repetitions(25, 5) {
            ours.push(client::run(over(gateway.port, account).arg("true"))?);
            sshd.push(client::run(over(run.sshd.port, "root").arg("true"))?);
            let began = Instant::now();
            crate::docker::exec(&container, &["true"])?;
            theirs.push(began.elapsed());
        }
        Ok(())
    })();
    for (port, account) in masters {
        over(port, account).args(["-O", "exit"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    }
    measured?;
    let note = format!("{}; beside: half in {}; sshd: {:.0}", ours.spread(), theirs.half(), sshd.median());
    let what = "`true` over a connection that is open already; beside: docker exec through the API";
    Ok(vec![Row::new(what, ours.median(), "ms").beside(theirs.median()).note(note)])
}
