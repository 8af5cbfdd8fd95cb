//! Much output to a client that takes it as fast as it comes.

use std::io;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::client::{self, Master};
use crate::gateway::{Gateway, Setup};
use crate::report::Row;
use crate::samples::Samples;

/// How many bytes.
pub const BYTES: u64 = 1_000_000_000;

/// How many of what a throughput is given in: MB.
const MEGABYTES: f64 = 1000.0;

/// What throughput is to be reached, as a multiple of sshd's.
pub const BOUND: f64 = 1.2;

/// The fastest where a processor has instructions for AES, and what OpenSSH's client chooses by itself.
const CIPHERS: [&str; 2] = ["aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];

/// One row a cipher.
pub fn measure(run: &Run) -> Result<Vec<Row>> {
    let account = "writer".to_owned();
    let gateway = Gateway::start(&run.place, Setup { name: "bulk", ..Setup::default() }, std::slice::from_ref(&account))?;
    client::run(run.place.ssh(gateway.port, &account).arg("true"))?;
    CIPHERS.into_iter().map(|cipher| with_cipher(run, &gateway, &account, cipher)).collect()
}

fn with_cipher(run: &Run, gateway: &Gateway, account: &str, cipher: &str) -> Result<Row> {
    let only = ["-c", cipher];
    let to_ours = Master::open(&run.place, gateway.port, account, &only)?;
    let to_sshd = Master::open(&run.place, run.sshd.port, "root", &only)?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for master in [&to_ours, &to_sshd] {
        count(master)?;
    }
    for round in 0..run.repetitions(5, 2) {
        run.progress(&format!("bulk: {cipher}, round {}", round + 1));
        for (master, throughput) in [(&to_ours, &mut ours), (&to_sshd, &mut theirs)] {
            throughput.add(MEGABYTES / discard(master)?);
        }
    }
    let what = format!("1 GB out of `head -c`, {cipher}; beside: sshd");
    Ok(Row::of(what, &ours, &theirs, "MB/s").at_least(BOUND * theirs.median()))
}

/// How many seconds it takes until all of a command's output has arrived and has been thrown away.
///
/// Over a connection that is open the client that logged in writes to /dev/null itself: neither a login nor a pipe of ours is in the figure.
pub fn discard(master: &Master<'_>) -> Result<f64> {
    crate::wait::go_on()?;
    let mut command = master.ssh();
    command.arg(writer()).stdin(Stdio::null()).stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(began.elapsed().as_secs_f64())
}

/// Nobody sees how much it is that is thrown away, so that all of it does arrive is seen once before.
fn count(master: &Master<'_>) -> Result<()> {
    let mut child = master.ssh().arg(writer()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let arrived = io::copy(&mut child.stdout.take().context("a pipe")?, &mut io::sink());
    let status = child.wait()?;
    let arrived = arrived?;
    ensure!(status.success() && arrived == BYTES, "{arrived} bytes of {BYTES} arrived: {status}");
    Ok(())
}

fn writer() -> String {
    format!("head -c {BYTES} /dev/zero")
}
