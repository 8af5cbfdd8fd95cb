//! A person's end of a login: the whole process, from its start to what she sees.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

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
