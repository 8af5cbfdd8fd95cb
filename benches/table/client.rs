//! A person's end of a login: the whole process, from its start to what she sees.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::place::Place;
use crate::wait::go_on;

/// How long a client ran.
pub fn run(command: &mut Command) -> Result<Duration> {
    timed(command).map(|(_, whole, _)| whole)
}

/// How long a client ran that must print this.
pub fn run_saying(command: &mut Command, expected: &str) -> Result<Duration> {
    let (_, whole, said) = timed(command)?;
    ensure!(said == expected.as_bytes(), "{command:?} said {:?}, not {expected:?}", String::from_utf8_lossy(&said));
    Ok(whole)
}

/// How long it took until the first byte.
pub fn first_byte(command: &mut Command) -> Result<Duration> {
    timed(command)?.0.with_context(|| format!("{command:?} said nothing"))
}

fn timed(command: &mut Command) -> Result<(Option<Duration>, Duration, Vec<u8>)> {
    go_on()?;
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("a pipe")?;
    let mut said = vec![0];
    let first = stdout.read(&mut said)?;
    let first_byte = (first > 0).then(|| began.elapsed());
    said.truncate(first);
    stdout.read_to_end(&mut said)?;
    let ended = child.wait_with_output()?;
    let whole = began.elapsed();
    ensure!(ended.status.success(), "{command:?}: {}, {}", ended.status, String::from_utf8_lossy(&ended.stderr));
    Ok((first_byte, whole, said))
}

/// A connection that is logged in, for more clients (ControlMaster). It is closed when this is dropped.
pub struct Master<'a> {
    place: &'a Place,
    port: u16,
    account: String,
    control: PathBuf,
}

impl<'a> Master<'a> {
    /// Opens one, with these options of OpenSSH's.
    pub fn open(place: &'a Place, port: u16, account: &str, options: &[&str]) -> Result<Self> {
        go_on()?;
        // A name for each, however many lead to one server.
        static OPENED: AtomicUsize = AtomicUsize::new(0);
        let control = place.path(&format!("c{}", OPENED.fetch_add(1, Ordering::Relaxed)));
        let master = Self { place, port, account: account.to_owned(), control };
        // It would hold on to a pipe that it inherits.
        let mut command = master.ssh();
        command.args(options).args(["-o", "ControlMaster=yes", "-fN"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        ensure!(command.status()?.success(), "no master connection: {command:?}");
        Ok(master)
    }

    /// A client that goes over it.
    pub fn ssh(&self) -> Command {
        let mut command = self.place.ssh(self.port, &self.account);
        command.arg("-o").arg(format!("ControlPath={}", self.control.display()));
        command
    }

    /// Asks it for something, as with `-O`.
    pub fn ask(&self, what: &[&str]) -> Result<()> {
        let mut command = self.ssh();
        let asked = command.args(what).stdin(Stdio::null()).output()?;
        ensure!(asked.status.success(), "{command:?}: {}", String::from_utf8_lossy(&asked.stderr));
        Ok(())
    }
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        // Where it is gone already there is nothing to close.
        self.ask(&["-O", "exit"]).ok();
    }
}
